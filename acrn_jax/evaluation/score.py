"""Scores anyone's feature files under a named protocol: ./launch.sh evaluate --features=FILE --protocol=NAME.

Steps, in this order, each optional but the last:

  multi-query  a query becomes the mean of all boxes (mquery_*) of its person and camera, as they are
  KISSME       features are mapped so that their squared distance is the metric's, fitted on another file
  cosine       features get unit length
  expansion    a query becomes a mean of itself and the k nearest gallery images, by squared distance
  re-ranking   distances become k-reciprocal ones
  ranking      with bootstrap intervals over the queries' people, and operating points

Expansion and re-ranking see the whole gallery, junk included, as the authors' code of re-ranking does: a search does
not know what is junk. Leave it out of the file to do as libraries that drop it when they read a data set.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import provenance
from acrn_jax.evaluation import (
    audit,
    audit_columns,
    comparison,
    expansion,
    feature_files,
    fusion,
    hints,
    inputs,
    kissme,
    operating_points,
    protocols,
    ranking,
    resampling,
)
from acrn_jax.evaluation.inputs import Search
from acrn_jax.evaluation.reranking import rerank
from acrn_jax.schema import JUNK, Labels

FPR = (1e-3, 1e-2)
PACKAGES = ("numpy", "scipy", "h5py")


class Steps(NamedTuple):
    """What is done to features before they are ranked; see `score_files`."""

    distance: str = "squared_euclidean"
    multi_query: bool = False
    kissme_train: Path | None = None
    expand: tuple[int, float | None] | None = None
    reranking: dict[str, Any] | None = None


def score_files(
    features: Sequence[Path],
    labels: Sequence[Path] = (),
    *,
    protocol: protocols.Protocol,
    no_match: ranking.NoMatch = "error",
    distance: str = "squared_euclidean",
    multi_query: bool = False,
    kissme_train: Path | None = None,
    expand: tuple[int, float | None] | None = None,
    reranking: dict[str, Any] | None = None,
    operating_points: bool = False,
) -> dict[str, Any]:
    """Scores of one search, fit for JSON; fractions in [0, 1].

    Args:
      features: files of `feature_files.read`.
      labels: CSV files, where the features' files hold no labels.
      protocol: what is left out of rankings.
      no_match: see `ranking.evaluate`.
      distance: key of fusion.DISTANCES.
      multi_query: average the boxes; so does the protocol market1501_multi_query.
      kissme_train: an .npz for `feature_files.read_set`; its people should not be those of query and gallery.
      expand: (k, alpha) of query expansion; alpha None is the plain average.
      reranking: keyword arguments of `reranking.rerank`.
      operating_points: true positive rates at FPR, and a watch list where some queries' people are not in the gallery.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: bad files, or options that do not go together; one sentence.
    """
    wanted = Steps(distance, multi_query, kissme_train, expand, reranking)
    search, protocol, distances, about, result = _ranked(features, labels, protocol, no_match, wanted)
    query, gallery = search.query_labels, search.gallery_labels
    intervals = resampling.intervals(result, groups=query.person_id)
    found = {
        "schema": 1,
        "files": {str(path): _sha256(path) for path in [*features, *labels, *([kissme_train] if kissme_train else [])]},
        "dataset": ", ".join(Path(path).name for path in features),
        "protocol": protocol.name,
        "protocol_options": protocol.options,
        "no_match": no_match,
        **about,
        "methods": {"features": result.metrics},
        "intervals": {name: {"low": _finite(ends.low), "high": _finite(ends.high)} for name, ends in intervals.items()},
        "interval": "95 % bootstrap over people, each with all queries, 10,000 resamples, seed 0",
        "deviation": {"features": {n: _finite(v) for n, v in result.deviation.items()}} if result.deviation else None,
        "chance": result.chance,
        "hints": [
            *hints.hints(result, distances, of="features" if search.distances is None else "distances"),
            *inputs.same_pictures(search, protocol),
        ],
        **_counts(result, query, gallery),
        "commit": provenance.commit(),
        "versions": provenance.versions(PACKAGES),
    }
    if operating_points:
        found["operating_points"] = _operating_points(distances, query, gallery, protocol)
    return found


def scored(
    features: Sequence[Path],
    labels: Sequence[Path] = (),
    *,
    protocol: protocols.Protocol,
    no_match: ranking.NoMatch = "error",
    distance: str = "squared_euclidean",
) -> comparison.Scored:
    """Each query's scores, for `comparison.compare`; arguments and errors as of `score_files`."""
    search, *_, result = _ranked(features, labels, protocol, no_match, Steps(distance))
    query = search.query_labels
    names = feature_files.query_names(features)
    return comparison.Scored(
        result.per_query, result.metrics, result.counted, query.person_id, names, query.camera_id, result.gallery
    )


def audited(
    features: Sequence[Path],
    labels: Sequence[Path] = (),
    *,
    protocol: protocols.Protocol,
    no_match: ranking.NoMatch = "error",
    distance: str = "squared_euclidean",
    csv: Path | None = None,
    columns: Mapping[str, audit.Column] | None = None,
) -> dict[str, Any]:
    """The content of audit.json; arguments and errors as of `score_files`, and

    Args:
      csv: a file of columns, see `audit_columns.from_csv`.
      columns: more of them, for the queries.
    """
    search, protocol, distances, _, result = _ranked(features, labels, protocol, no_match, Steps(distance))
    query, names = search.query_labels, feature_files.names_of_queries(features)
    if csv:
        columns = dict(columns or {}) | audit_columns.from_csv(csv, names, query.person_id)
    found = audit.audit(
        distances,
        query,
        search.gallery_labels,
        result,
        protocol=protocol,
        columns=columns,
        names=next(reversed(names.values()), None),
        features=search.gallery,
    )
    return {"dataset": ", ".join(Path(path).name for path in features), **found}


def _ranked(features, labels, protocol, no_match, steps: Steps):
    """(search, protocol, distances, what was done for them, result) of files, as they are to be ranked."""
    search = feature_files.read(features, labels)
    multi_query = steps.multi_query or protocol.name == "market1501_multi_query"
    steps = steps._replace(multi_query=multi_query)
    _check(search, protocol, steps)
    if multi_query and protocol.name == "market1501":
        protocol = protocols.named("market1501_multi_query")
    about = {"distance": steps.distance if search.distances is None else None, "multi_query": multi_query}
    distances = search.distances
    if distances is None:
        distances, more = _distances(search, steps)
        about |= more
    query, gallery = search.query_labels, search.gallery_labels
    result = ranking.evaluate(distances, query, gallery, protocol=protocol, no_match=no_match)
    return search, protocol, distances, about, result


def _counts(result: ranking.Result, query: Labels, gallery: Labels) -> dict[str, int]:
    return {
        "queries": result.queries,
        "queries_counted": int(result.counted.sum()),
        "queries_without_match": result.queries_without_match,
        "gallery": result.gallery,
        "gallery_junk": int(np.sum(gallery.person_id == JUNK)),
        "gallery_distractors": int(np.sum(gallery.person_id == 0)),
        "people": len(np.unique(query.person_id)),
    }


def parse_expand(parts: Sequence[str]) -> tuple[int, float | None]:
    """K, or K and ALPHA, of --expand."""
    try:
        k, *alpha = parts
        return int(k), (float(*alpha) if alpha else None)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"--expand={','.join(parts)} is neither K nor K,ALPHA; write --expand=5 or --expand=5,3."
        ) from error


def _check(search: Search, protocol: protocols.Protocol, steps: Steps) -> None:
    """ValueError for what does not go together, before anything is computed."""
    distance, multi_query, kissme_train, expand, reranking = steps
    query, gallery = search.query_labels, search.gallery_labels
    protocol.check(query, gallery)
    if search.distances is not None:
        for flag, used in (
            ("distance", distance != "squared_euclidean"),
            ("multi_query", multi_query),
            ("kissme_train", kissme_train),
            ("expand", expand),
            ("rerank", reranking is not None),
        ):
            if used:
                raise ValueError(f"--{flag} wants features; the file holds distances of query and gallery alone.")
    if multi_query and not protocol.name.startswith("market1501"):
        raise ValueError(f"--multi_query is for market1501; the protocol is {protocol.name}.")
    if multi_query and search.boxes is None:
        raise ValueError("--multi_query wants mquery_f, mquery_label and mquery_cam (.npz: mquery_features, ...) too.")
    if kissme_train and distance != "squared_euclidean":
        raise ValueError(f"--kissme_train ranks by its own metric; leave --distance={distance} out.")
    if protocol.one_set and (expand or reranking is not None):
        raise ValueError(
            f"{protocol.name} ranks a set against itself, where --expand and --rerank would meet every image twice."
        )
    inputs.check(search, protocol)


def _distances(search: Search, steps: Steps):
    """Distances for `ranking.evaluate`, and what was done for them."""
    distance, multi_query, kissme_train, expand, reranking = steps
    query, gallery, about = search.query, search.gallery, {"dimension": search.gallery.shape[1]}
    if multi_query:
        query = protocols.multi_query(search.boxes.values, search.boxes.labels, search.query_labels)
    if kissme_train:
        train = feature_files.read_set(kissme_train)
        if train.values.shape[1] != gallery.shape[1]:
            raise ValueError(
                f"{kissme_train} has {train.values.shape[1]} values an image, query and gallery have "
                f"{gallery.shape[1]}; take all from one net."
            )
        metric = kissme.fit(train.values, train.labels.person_id, protocols.telling_cameras(train.labels))
        centre = np.mean(train.values, axis=0, dtype=np.float64)  # differences stay, what cancels gets small
        query, gallery = (fusion.projected(x, metric.factor, centre) for x in (query, gallery))
        about["kissme"] = {"similar_pairs": metric.similar_pairs, "dissimilar_pairs": metric.dissimilar_pairs}
    if distance == "cosine" and (expand or reranking is not None):
        query, gallery = (fusion.unit(x, name) for x, name in ((query, "query"), (gallery, "gallery")))
    if expand:
        k, alpha = expand
        if alpha is None:
            query = expansion.average(query, gallery, k=k)
        else:
            query = expansion.alpha_weighted(query, gallery, k=k, alpha=alpha)
        about["expand"] = {"k": k, "alpha": alpha}
    if reranking is None:
        return fusion.distance_rows(distance, query, gallery), about
    about["rerank"] = reranking
    if distance == "cosine":  # of features of unit length, which expansion may have shortened, the squared distance
        distance = "squared_euclidean"
    return rerank(query, gallery, distance=distance, **reranking), about


def _operating_points(distances, query, gallery, protocol):
    roc = operating_points.roc(distances, query, gallery, protocol=protocol, fpr=FPR)
    found: dict[str, Any] = {
        "roc": [
            {"wanted": w, "fpr": float(f), "tpr": float(t), "threshold": _finite(d)}
            for w, f, t, d in zip(FPR, roc.fpr, roc.tpr, roc.threshold, strict=True)
        ],
        "genuine": roc.genuine,
        "impostor": roc.impostor,
        "identification": None,
    }
    if not protocol.one_set and not np.isin(query.person_id, gallery.person_id).all():
        watch = operating_points.identification(distances, query, gallery, protocol=protocol, far=FPR)
        found["identification"] = {
            "points": [
                {"wanted": w, "far": float(f), "dir": float(r), "threshold": _finite(d)}
                for w, f, r, d in zip(FPR, watch.far, watch.dir[1], watch.threshold, strict=True)
            ],
            "listed": watch.listed,
            "strangers": watch.strangers,
            "left_out": watch.excluded,
        }
    return found


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
