"""Where a ranking is good and where it is bad: scores of slices of the queries, and what cameras have to do with it.

A slice is all queries with one value of a column: a camera, a band of brightness, a sex. It is compared with the rest
of its column, the other queries of which the value is known:

  interval   bootstrap over people (`resampling.resample`)
  p-value    each person's part in (mean of the slice - mean of the rest), with the mean of both taken off, keeps or
             changes its sign (`comparison.permutation`), which holds for slices that cut through people, too
  adjusted   p after Benjamini and Hochberg, over all slices of all columns

Slices of a pair of cameras are of rankings of the one gallery camera's images alone.

Sources: Kline and Santos, "A Score Based Approach to Wild Bootstrap Inference", 2012 (the p-value); Benjamini and
Hochberg, "Controlling the False Discovery Rate", 1995.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from acrn_jax.evaluation import comparison, protocols, ranking, resampling
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.evaluation.ranking import DistanceFn, Result, Tiles
from acrn_jax.schema import JUNK, UNKNOWN, Labels

TESTED = comparison.VERDICT_ON
FALSE_DISCOVERIES = 0.05  # expected share of slices said to differ that do not
FEWEST = 5  # people in a slice, and in its rest, for an interval and a p-value
MOST_TEXTS = 50  # slices of one column of texts
MOST_NUMBERS = 6  # numbers that are slices of their own; more are cut into bands
BANDS = 4  # of equally many queries
HARDEST = 10  # queries that are named for a slice
PAIRS, CAMERA, RIGHT = "camera pair", "camera", "right gallery images"
PEOPLE_GROUPS = ("sex", "gender", "age")  # columns whose slices are groups of people
_IMAGES = 20_000  # that a probe is fitted on
_BLOCK_BYTES = 1 << 25
_RIDGE = 1e-3  # beside the mean variance of a feature's dimension


class Column(NamedTuple):
    """One value for each query."""

    values: np.ndarray  # [Q] str, "" unknown; or float, NaN unknown
    source: str = "file"  # that tells them: "ranking", "picture", "label", "file"


class _Cut(NamedTuple):
    label: np.ndarray  # [n] int, slice of each observation; -1 unknown
    names: list[str]


class _Observed(NamedTuple):
    """Scores that slices are made of."""

    scores: np.ndarray  # [n, M]
    person: np.ndarray  # [n]
    query: np.ndarray  # [n] int, which
    first_rank: np.ndarray  # [n]


def audit(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    result: Result,
    *,
    protocol: protocols.Protocol,
    columns: Mapping[str, Column] | None = None,
    names: np.ndarray | None = None,
    features: np.ndarray | None = None,
    resamples: int = 2_000,
    permutations: int = 10_000,
    seed: int = 0,
) -> dict[str, Any]:
    """The content of audit.json, see `results.Audit`; fractions in [0, 1].

    Args:
      distances: as of `ranking.evaluate`.
      query, gallery: likewise.
      result: of `ranking.evaluate` of these.
      protocol: likewise.
      columns: name -> a value of each query, beside those that labels tell.
      names: [Q] str, of the queries; default: their numbers.
      features: [G, D] of the gallery, for the probe of cameras.
      resamples: of the bootstrap.
      permutations: of signs; fewer give no small p-values.
      seed: same seed, same numbers.

    Raises:
      ValueError: a column without a value for each query. What makes no slices is told in `notes`.
    """
    query, gallery = Labels(*map(np.asarray, query)), Labels(*map(np.asarray, gallery))
    counted = np.flatnonzero(result.counted)
    metrics = list(result.per_query)
    observed = _Observed(
        np.stack(list(result.per_query.values()), axis=1)[counted],
        query.person_id[counted],
        counted,
        result.first_rank[counted],
    )
    cameras = protocols.cameras_known(query) and protocols.cameras_known(gallery)
    notes, tables, slices = [], [], []
    people = len(np.unique(observed.person))
    if people < FEWEST:
        who = "one person" if people == 1 else f"{people} people"
        notes.append(f"The queries show {who}, of whom no interval and no test can be had; wanted are {FEWEST}.")

    def add(name, source, seen, cut):
        unknown = int(np.sum(cut.label < 0))
        tables.append({"name": name, "source": source, "unknown": unknown, "slices": cut.names})
        slices.extend(_of_column(name, seen, cut, metrics, names, resamples, permutations, seed))

    own = {RIGHT: Column(_right(query, gallery, protocol), "ranking")}
    if not cameras:
        notes.append("Slices by camera are left out, as the camera of an image is not known.")
    else:
        own = {CAMERA: Column(query.camera_id.astype(str), "ranking")} | own
        if protocol.draw:
            notes.append(f"Slices by camera pair are left out, as {protocol.name} draws its galleries.")
        elif found := _pairs(distances, query, gallery, protocol, metrics):
            add(PAIRS, "ranking", *found)
        else:
            notes.append("Slices by camera pair are left out, as there is one pair alone.")
    for name, column in (own | dict(columns or {})).items():
        if len(column.values) != len(query.person_id):
            raise ValueError(f"Column {name} has {len(column.values)} values for {len(query.person_id)} queries.")
        try:
            cut = _cut(name, column.values[counted])
        except ValueError as error:
            notes.append(str(error))
            continue
        add(name, column.source, observed, cut)
    _control(slices)
    return {
        "protocol": protocol.name,
        "queries": len(counted),
        "people": people,
        "tested": TESTED,
        "overall": {name: _interval(e) for name, e in _intervals(observed, metrics, resamples, seed).items()},
        "names": None if names is None else np.asarray(names).astype(str).tolist(),
        "columns": tables,
        "slices": sorted(slices, key=lambda one: (not one["differs"], -abs(one["difference"]) * one["differs"])),
        "cameras": _cameras(distances, query, gallery, protocol, result, features, seed) if cameras else None,
        "notes": notes,
        "rule": (
            f"95 % bootstrap over people, {resamples:,} resamples; p over people by {permutations:,} changes of signs; "
            f"Benjamini-Hochberg at {FALSE_DISCOVERIES:g} over {sum(one['adjusted'] is not None for one in slices)} "
            f"slices; seed {seed}"
        ),
    }


def _cut(name: str, values: np.ndarray) -> _Cut:
    """Observations by their value; ValueError, in one sentence, for what makes no slices."""
    numbers = np.asarray(values).dtype.kind in "fiu"
    known = np.isfinite(values) if numbers else np.asarray(values) != ""
    if not known.any():
        raise ValueError(f"Column {name} is left out: none of the queries has a value.")
    different, label = np.unique(values[known], return_inverse=True)
    if len(different) == 1:
        raise ValueError(f"Column {name} is left out: all queries with a value have the same ({different[0]}).")
    if not numbers and len(different) > MOST_TEXTS:
        raise ValueError(
            f"Column {name} is left out: it has {len(different):,} different texts, and at most {MOST_TEXTS} make "
            "slices; group them, or give numbers, which are cut into bands."
        )
    shown = [str(value) for value in different]
    if numbers and len(different) > MOST_NUMBERS:
        edges = np.unique(np.quantile(values[known], np.arange(1, BANDS) / BANDS))
        label = np.unique(np.searchsorted(edges, values[known]), return_inverse=True)[1]  # the edge is of the lower one
        parts = [values[known][label == i] for i in range(label.max() + 1)]
        shown = [f"{part.min():.4g} to {part.max():.4g}" for part in parts]
    elif numbers:
        shown = [f"{value:g}" for value in different]
    found = np.full(len(values), -1)
    found[known] = label
    return _Cut(found, shown)


def _of_column(
    column: str,
    seen: _Observed,
    cut: _Cut,
    metrics: Sequence[str],
    names: np.ndarray | None,
    resamples: int,
    permutations: int,
    seed: int,
) -> list[dict[str, Any]]:
    """The slices of one column, without what depends on all."""
    known = cut.label >= 0
    label, scores, person = cut.label[known], seen.scores[known], seen.person[known]
    place = metrics.index(TESTED) if TESTED in metrics else 0
    tested = scores[:, place]
    inside = label[:, None] == np.arange(len(cut.names))
    count = inside.sum(axis=0)
    parts = np.where(inside, 1 / count, -1 / np.maximum(len(label) - count, 1))  # [n, slices]
    difference = tested @ parts
    p_values = comparison.permutation(parts * (tested - tested.mean())[:, None], person, permutations, seed)
    found = []
    for i, name in enumerate(cut.names):
        rows = np.flatnonzero(inside[:, i])
        people, rest = (len(np.unique(person[which])) for which in (rows, np.flatnonzero(~inside[:, i])))
        own = _Observed(*(values[known][rows] for values in seen))
        enough = people >= FEWEST
        ends = _intervals(own, metrics, resamples if enough else 1, seed)
        same = len(cut.names) == 2 and (count[i], i) > (count[1 - i], 1 - i)  # as the test of the smaller one
        tellable = enough and rest >= FEWEST and not same
        order = np.argsort(own.scores[:, place], kind="stable")
        found.append(
            {
                "column": column,
                "name": name,
                "queries": len(rows),
                "people": people,
                "scores": {metric: _interval(e, known=enough) for metric, e in ends.items()},
                "difference": float(difference[i]),
                "p_value": float(p_values[i]) if tellable else None,
                "hardest": [
                    {
                        "query": f"query {own.query[h]}" if names is None else str(names[own.query[h]]),
                        "score": float(own.scores[h, place]),
                        "first_rank": int(own.first_rank[h]) if own.first_rank[h] != ranking.NO_RANK else None,
                    }
                    for h in order[:HARDEST]
                ],
                "members": own.query[order].tolist(),
            }
        )
    return found


def _control(slices: list[dict[str, Any]]) -> None:
    """Adds what depends on the p-values of all slices."""
    from scipy import stats  # here, as it takes its time to load

    tested = [one for one in slices if one["p_value"] is not None]
    adjusted = stats.false_discovery_control([one["p_value"] for one in tested]) if tested else []
    for one in slices:
        one |= {"adjusted": None, "differs": False}
    for one, p in zip(tested, adjusted, strict=True):
        one |= {"adjusted": float(p), "differs": bool(p < FALSE_DISCOVERIES)}


def _intervals(seen: _Observed, metrics: Sequence[str], resamples: int, seed: int) -> dict[str, resampling.Interval]:
    return dict(zip(metrics, resampling.resample(seen.scores, seen.person, seed, resamples), strict=True))


def _interval(ends: resampling.Interval, *, known: bool = True) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) and (known or k == "mean") else None for k, v in ends._asdict().items()}


def _right(query: Labels, gallery: Labels, protocol: protocols.Protocol) -> np.ndarray:
    """How many right gallery images each query has, [Q] float."""
    found, pairs = np.zeros(len(query.person_id)), protocols.same_person(query, gallery)
    for start in range(0, len(found), 1 << 10):
        rows, columns = pairs(slice(start, min(start + (1 << 10), len(found))))
        right = ~protocol.excluded(query, gallery, rows, columns)
        found += np.bincount(rows[right], minlength=len(found))
    return found


def _pairs(distances, query, gallery, protocol, metrics) -> tuple[_Observed, _Cut] | None:
    """Every query against the images of each gallery camera; None where there is one pair of cameras at most."""
    everyone, parts = np.arange(len(query.person_id)), []
    for seen_by in np.unique(gallery.camera_id[gallery.person_id > 0]):
        images = np.flatnonzero(gallery.camera_id == seen_by)
        own = Labels(*(values[images] for values in gallery))
        rule = protocol._replace(excluded=_excluded(protocol, gallery, images), one_set=False, check=lambda *_: None)
        asked = np.flatnonzero(_right(query, own, rule))
        if not len(asked):
            continue
        queries = Labels(*(values[asked] for values in query))
        rule = rule._replace(excluded=_excluded(protocol, gallery, images, query, asked))
        table = {name: METRICS[name] for name in metrics if name in METRICS}
        found = ranking.evaluate(_part(distances, asked, images), queries, own, protocol=rule, table=table)
        scores = np.stack([found.per_query.get(name, np.zeros(len(asked))) for name in metrics], axis=1)
        seen = _Observed(scores, queries.person_id, everyone[asked], found.first_rank)
        parts.append((seen, queries.camera_id, np.full(len(asked), seen_by)))
    if not parts:
        return None
    pair = np.concatenate([np.stack(of, axis=1) for _, *of in parts])
    different, label = np.unique(pair, axis=0, return_inverse=True)
    if len(different) < 2:
        return None
    seen = _Observed(*(np.concatenate(values) for values in zip(*(one for one, *_ in parts), strict=True)))
    return seen, _Cut(label.ravel(), [f"{a} → {b}" for a, b in different])


def _excluded(protocol, gallery, images, query=None, asked=None):
    """A protocol's rule for some of its queries and images, which it may know by their places."""

    def excluded(own, _, rows, columns):
        return protocol.excluded(query or own, gallery, rows if asked is None else asked[rows], images[columns])

    return excluded


def _part(distances, queries: np.ndarray, images: np.ndarray) -> DistanceFn:
    """Distances of some queries and some images."""
    if isinstance(distances, Tiles):
        return lambda index: distances.tile(queries[index], images)
    rows = distances if callable(distances) else distances.__getitem__
    return lambda index: rows(queries[index])[:, images]


# Cameras


def _cameras(distances, query, gallery, protocol, result, features, seed) -> dict[str, Any]:
    """Which cameras wrong first images are of, and how much of the distances and features cameras explain."""
    asked, seen = (np.unique(labels.camera_id[labels.person_id != JUNK]) for labels in (query, gallery))
    junk, total = gallery.person_id == JUNK, len(query.person_id)
    of_image = gallery.camera_id[:, None] == seen  # [G, C]
    first, share = np.full(total, -1), np.zeros(total)
    expected = np.zeros((total, len(seen)))  # shares of cameras among the wrong images of a query
    pairs, counts = protocols.same_person(query, gallery), np.sum(of_image[~junk], axis=0)
    step = max(16, _BLOCK_BYTES // (8 * len(junk)))
    blocks = [slice(start, min(start + step, total)) for start in range(0, total, step)]
    rows_of = distances if callable(distances) else distances.__getitem__
    for block, given in zip(blocks, ranking.ahead(rows_of, blocks), strict=True):
        matrix = np.array(given, np.float64)
        rows, columns = pairs(block)
        own, out = rows - block.start, protocol.excluded(query, gallery, rows, columns)
        matrix[:, junk] = np.inf
        matrix[own[out], columns[out]] = np.inf
        first[block] = np.argmin(matrix, axis=1)
        matrix[:, junk] = 0
        matrix[own, columns] = 0  # what is left are other people's images
        right = np.zeros((len(matrix), len(seen)))
        np.add.at(right, own, of_image[columns])
        number = counts - right
        expected[block] = number / np.maximum(number.sum(axis=1, keepdims=True), 1)
        share[block] = _between(matrix, of_image, number)
    wrong = result.counted & (gallery.person_id[first] != query.person_id)
    confusions = []
    for camera in asked:
        of = query.camera_id == camera
        chosen = of & wrong
        confusions.append(
            {
                "camera": int(camera),
                "queries": int(np.sum(of & result.counted)),
                "wrong": int(chosen.sum()),
                "first": [int(n) for n in of_image[first[chosen]].sum(axis=0)],
                "expected": [float(n) for n in expected[chosen].sum(axis=0)],
            }
        )
    counted = result.counted
    explained = resampling.resample(share[counted][:, None], query.person_id[counted], seed)[0]
    return {
        "gallery": [int(camera) for camera in seen],
        "confusions": confusions,
        "explained": _interval(explained),
        "explained_chance": float((len(seen) - 1) / max(counts.sum() - 1, 1)),
        "probe": None if features is None else probe(features, gallery, seed),
    }


def _between(matrix: np.ndarray, of_image: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Share of the variance of each row's distances that lies between the means of cameras; 0s in the row are no one's.

    Args:
      matrix: [q, G] distances.
      of_image: [G, C] bool.
      number: [q, C] images that count.
    """
    size = np.maximum(number.sum(axis=1), 1)
    mean = matrix.sum(axis=1) / size
    sums = matrix @ of_image.astype(np.float64)
    between = np.sum(sums**2 / np.maximum(number, 1), axis=1) - size * mean**2
    whole = np.einsum("qg,qg->q", matrix, matrix) - size * mean**2
    return np.where(whole > 0, between / np.where(whole > 0, whole, 1), 0).clip(0, 1)


def probe(features: np.ndarray, labels: Labels, seed: int = 0) -> dict[str, Any] | None:
    """How well least squares on features tell the cameras of people whom they were not fitted on.

    People are halved; each half is told by the classifier of the other one, all cameras weighing the same.

    Args:
      features: [N, D].
      labels: [N]; images without a person are left out.
      seed: of the halves.

    Returns:
      balanced accuracy with its interval over people, chance, cameras and images; None where fewer than two cameras
      show people of both halves.
    """
    chosen = np.flatnonzero((labels.person_id > 0) & (labels.camera_id != UNKNOWN))
    chosen = chosen[:: -(-len(chosen) // _IMAGES) or 1]
    people, person = np.unique(labels.person_id[chosen], return_inverse=True)
    half = np.random.default_rng(seed).permutation(len(people))[person] % 2
    camera = labels.camera_id[chosen]
    both = np.intersect1d(camera[half == 0], camera[half == 1])
    keep = np.isin(camera, both)
    if len(both) < 2:
        return None
    chosen, half, person, camera = chosen[keep], half[keep], person[keep], camera[keep]
    values, target = np.asarray(features[chosen], np.float64), camera[:, None] == both
    right = np.zeros(len(camera))
    for fold in (0, 1):
        fit, held = half != fold, half == fold
        weight = (target[fit] / target[fit].sum(axis=0)).sum(axis=1)
        centre = weight @ values[fit] / weight.sum()
        x, y = values[fit] - centre, target[fit] - 1 / len(both)
        scatter = (weight[:, None] * x).T @ x
        ridge = max(_RIDGE * np.trace(scatter) / len(scatter), 1e-300)
        factors = np.linalg.solve(scatter + ridge * np.eye(len(scatter)), (weight[:, None] * x).T @ y)
        right[held] = both[np.argmax((values[held] - centre) @ factors, axis=1)] == camera[held]
    balance = (target / target.sum(axis=0)).sum(axis=1) * len(camera) / len(both)
    found = resampling.resample((right * balance)[:, None], person, seed)[0]
    return {
        "accuracy": _interval(found),
        "chance": 1 / len(both),
        "cameras": len(both),
        "images": len(camera),
        "people": len(np.unique(person)),
    }
