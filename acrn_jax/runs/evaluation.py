"""Scores a run on query and gallery: results.json and what belongs to it."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np

from acrn_jax import build, files
from acrn_jax.data import source
from acrn_jax.evaluation import attributes as attribute_metrics
from acrn_jax.evaluation import audit, audit_columns, correlation, fusion, hints, methods, protocols, ranking
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.report import audit as audits
from acrn_jax.results import Audit, PerQuery, Recognition, Results
from acrn_jax.runs import baseline as baselines
from acrn_jax.runs import illustrations, nets, origin, overlap, parts, recognition, slices, workdir
from acrn_jax.runs.origin import number
from acrn_jax.runs.parts import DistanceParts
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, load
from acrn_jax.schema import METHODS
from acrn_jax.settings import Settings


def evaluate(
    folder: Path,
    *,
    baseline: Path | None = None,
    tune: Path | None = None,
    data_dir: str | None = None,
    dataset: str | None = None,
    attributes: Path | None = None,
    unfinished: bool = False,
    allow_overlap: bool = False,
    settings: dict[str, Any] | None = None,
    out: Path | None = None,
    split: str | None = None,
    audited: bool = False,
    columns: Path | None = None,
) -> Results | Recognition:
    """Scores a run on query and gallery: results.json, rank_lists.json, look_alikes.json, per_query.npz, thumbnails/.

    Args:
      folder: workdir of an ACRN or ReIdCNN run (of an attribute run see `recognition.recognise`), or a net that ships.
      baseline: the ReIdCNN run that belongs to an ACRN run; without it the rows with ReIdCNN are missing.
      tune: a ReIdCNN run that held people out, to choose the fusion factor on; default: the baseline, if it did.
      data_dir: where the prepared data is now; default: where the run was trained.
      dataset: another data set "name/config" to score the run on.
      attributes: where the attribute net is now; default: see `phases.locate`.
      unfinished: score a run whose training has not come to its end; the results say so.
      allow_overlap: nets may have been trained on images that they are scored on (as config.attributes.allow_overlap).
      settings: entries of config.evaluate for this time.
      out: the folder that all files go to; default: `workdir.folder_on(folder, dataset)`. A net that ships wants it.
      split: another one to score an attribute net on, images that it was trained on included; wants `out`.
    """
    stored = load(folder, attributes=attributes, data_dir=data_dir, unfinished=unfinished)
    folder = stored.workdir
    changes = {f"evaluate.{key}": value for key, value in (settings or {}).items()}
    config = stored.config.changed(changes | ({"attributes.allow_overlap": True} if allow_overlap else {}))
    run = type(stored)(folder, config, unfinished)
    baselines.check(run, baseline, tune)
    target, home = target_of(config, dataset) if dataset else None, workdir.folder_on(folder, dataset)
    out = out or home
    if out != home and (out / "config.json").exists():
        raise ValueError(f"--out={out} is the folder of a run, whose results would be lost; name another one.")
    nets.refuse_to_write(out)
    files.check(out)
    run.check_data()
    if isinstance(run, AttributeRun):
        if audited:
            raise ValueError(f"An audit is of rankings, and {folder} is an attribute net; give a re-id run.")
        if split and out == home:
            raise ValueError(f"--split={split} wants --out: recognition.json of {home} is of the test people.")
        overlap.check_scored_on(run, target or config, [] if split else [build.recognition_split(target or config)])
        return recognition.recognise(
            folder, config=config, split_name=split, target=target, out=out, unfinished=unfinished
        )
    if split:
        raise ValueError(f"--split={split} is for attribute nets; a re-id run is scored on query and gallery.")
    run.check_attributes()
    query, gallery, protocol = tested(config, target or config)
    overlap.check_scored_on(run, target or config, [query, gallery])
    beside = {name: load(place) for name, place in (("baseline", baseline), ("tune", tune)) if place}
    more = slices.of_split(query) if audited else None
    if columns:
        names = {"key": query.key, "file_name": query.file_name}
        more = dict(more or {}) | audit_columns.from_csv(columns, names, query.person_id)
    return _Test(run, query, gallery, protocol, target, out, more).score(beside)


def tested(config: Settings, target: Settings) -> tuple[source.Split, source.Split, protocols.Protocol]:
    """(query, gallery, protocol): what a run is scored on, and how."""
    query, gallery = (build.open_split(target, name) for name in ("query", "gallery"))
    query = query.take(query.person_id > 0)
    protocol = protocols.named(
        config.evaluate.protocol or query.protocol,
        repeats=config.evaluate.draws,
        seed=config.evaluate.draw_seed,
        probe_view=str(config.evaluate.probe_view),
    )
    return query, gallery, protocols.without_itself(protocol, query.key, gallery.key)


def target_of(config: Settings, dataset: str) -> Settings:
    """Settings with another data set, NAME/CONFIG, to score on."""
    try:
        name, data_config = dataset.split("/")
    except ValueError as error:
        raise ValueError(f"The data set to score on is {dataset!r}; write NAME/CONFIG: peta/reid_grid.") from error
    return config.changed({"data.name": name, "data.config": data_config})


@dataclasses.dataclass(frozen=True)
class _Test:
    """One run on one query and gallery."""

    run: ReidCnnRun
    query: source.Split
    gallery: source.Split
    protocol: protocols.Protocol
    target: Settings | None  # of another data set that query and gallery are of
    out: Path  # all files go here
    columns: Mapping[str, audit.Column] | None = None  # of an audit

    @functools.cached_property
    def boxes(self) -> source.Split | None:
        """Several images of each query, of which the mean counts."""
        multi_query = self.protocol.name == "market1501_multi_query"
        return build.open_split(self.target or self.run.config, "multi_query") if multi_query else None

    @functools.cached_property
    def features(self) -> methods.Features:
        """Of the run itself."""
        batch = self.run.config.evaluate.batch
        return parts.features(self.run, self.query, self.gallery, batch=batch, boxes=self.boxes)

    def score(self, beside: dict[str, ReidCnnRun]) -> Results:
        """Writes all result files; `beside` are the runs "baseline" and "tune", where there are such."""
        run, query, gallery, protocol = self.run, self.query, self.gallery, self.protocol
        rows, extra, made_of = self.rows(beside.get("baseline"), beside.get("tune", beside.get("baseline")))
        rules = {"protocol": protocol, "no_match": run.config.evaluate.no_match}
        scored = {name: ranking.evaluate(r, query.labels, gallery.labels, **rules) for name, r in rows.items()}
        results = self.results(scored, rows, beside, extra)
        main = "ACRN" if "ACRN" in rows else "ReIdCNN"
        shown = illustrations.Shown(self.out, run.config, query, gallery, protocol, rows[main], made_of)
        shown.rank_lists(scored[main])
        if made_of:
            shown.confusions(run.attribute_net.recognition_rates if isinstance(run, AcrnRun) else None)
        each = {name: result.per_query for name, result in scored.items()}
        first = {name: result.first_rank for name, result in scored.items()}
        per_query = PerQuery(query.key, query.person_id, scored[main].counted, each, first)
        workdir.write_arrays(self.out / "per_query.npz", **per_query.to_arrays())
        workdir.write_json(self.out / "results.json", results.to_json())
        if self.columns is not None:
            gallery_features = made_of.own.gallery if made_of else self.features.gallery
            audits.write(self.out, self.audit(main, rows[main], scored[main], gallery_features, results))
        return results

    def audit(
        self, method: str, distances: DistanceFn, result: ranking.Result, features: np.ndarray, results: Results
    ) -> Audit:
        """Of one row."""
        found = audit.audit(
            distances,
            self.query.labels,
            self.gallery.labels,
            result,
            protocol=self.protocol,
            columns=self.columns,
            names=self.query.file_name,
            features=features,
        )
        return Audit.of(found, dataset=results.dataset, method=method, fingerprint=results.fingerprint)

    def rows(
        self, baseline: ReidCnnRun | None, tune: ReidCnnRun | None
    ) -> tuple[dict[str, DistanceFn], dict[str, Any], DistanceParts | None]:
        """(method -> distances, entries for results.json, what ACRN's distances are made of)."""
        run, config = self.run, self.run.config
        if not isinstance(run, AcrnRun):
            own = self.features
            distances = fusion.distance_rows(config.loss.distance, own.query, own.gallery)
            return {"ReIdCNN": distances}, {"scales": run.scales}, None
        made_of = parts.collect(
            run,
            self.query,
            self.gallery,
            baseline=baseline,
            boxes=self.boxes,
            target=self.target,
            out=self.out,
        )
        factor = self._tuned_factor(tune) if tune and made_of.attributes.train is not None else None
        rows = methods.rows(
            made_of.own,
            made_of.attributes,
            made_of.weights,
            gamma=config.loss.gamma,
            distance=config.loss.distance,
            baseline=made_of.baseline,
            tuned_factor=factor,
            kissme_options=config.evaluate.kissme,
        )
        net, description = run.attribute_net, dict(run.attribute_net.description)
        del description["attribute_names"]
        extra = {
            "gamma": config.loss.gamma,
            "scales": run.scales,
            "tuned_factor": factor,
            "attributes_from": {**description, "mA": net.recognition.mA if net.recognition else None},
            "missing": self._missing(made_of, factor),
            **self._weight_table(run, made_of),
        }
        return rows, extra, made_of

    def results(
        self,
        scored: dict[str, ranking.Result],
        rows: dict[str, DistanceFn],
        beside: dict[str, ReidCnnRun],
        extra: dict[str, Any],
    ) -> Results:
        """The content of results.json."""
        run, config, query = self.run, self.run.config, self.query
        data, main = (self.target or config).data, scored["ACRN" if "ACRN" in scored else "ReIdCNN"]
        folders = {"run": run.workdir / "reid"}
        places = {"run": None if self.out == run.workdir else run.workdir, "attributes": config.attributes.from_}
        if isinstance(run, AcrnRun):
            folders["attributes"] = run.attribute_net.phase
        folders |= {name: other.workdir / "reid" for name, other in beside.items()}
        places["baseline"] = beside["baseline"].workdir if "baseline" in beside else None
        if self.protocol.options:
            std = {n: {m: number(v) for m, v in (result.deviation or {}).items()} for n, result in scored.items()}
            extra = extra | {"protocol_options": self.protocol.options, "deviation": std}
        content = {
            "dataset": f"{data.name}/{data.config}",
            "trained_on": f"{config.data.name}/{config.data.config}",
            "split": "query/gallery",
            "protocol": self.protocol.name,
            "no_match": config.evaluate.no_match,
            "methods": {name: result.metrics for name, result in scored.items()},
            "chance": main.chance,
            "hints": [f"{name}: {hint}" for name, result in scored.items() for hint in hints.hints(result, rows[name])],
            "queries": main.queries,
            "gallery": main.gallery,
            "queries_without_match": main.queries_without_match,
            "partial": bool(query.metadata.get("partial", False)),
            "dev": query.metadata.get("dev"),
            "people_seen_in_training": 0 if self.target else query.metadata.get("people_seen_in_training", 0),
            "runs": {name: os.path.relpath(place, self.out) for name, place in places.items() if place},
            **extra,
            **origin.of_nets(folders, unfinished=run.unfinished),
            **origin.of_code(config),
            "fingerprint": hashlib.sha256(f"{query.fingerprint} {self.gallery.fingerprint}".encode()).hexdigest(),
        }
        return Results.of(content)

    def _missing(self, made_of: DistanceParts, factor: float | None) -> dict[str, str]:
        """Method -> why it has no row."""
        missing = {}
        if made_of.missing:
            missing["Attributes-KISSME"] = f"it is fitted on the run's training images: {made_of.missing}"
        if made_of.baseline is None:
            return missing | {name: "no baseline" for name in METHODS if name.startswith("ReIdCNN")}
        if factor is None:
            missing["ReIdCNN+Attributes-tuned"] = "no run with people held out, and its images at hand, to choose on"
        return missing

    def _tuned_factor(self, other: ReidCnnRun) -> float | None:
        """Factor chosen on people whom the ReIdCNN `other` did not train on, or None if it trained on all."""
        run, config = self.run, self.run.config
        if not isinstance(run, AcrnRun):
            return None
        other = cast(ReidCnnRun, load(other.workdir, data_dir=config.data.dir))
        other.check_data()
        _, held = build.reid_splits(other.config)
        if held is None:
            return None
        train = run.predictions(config.data.train_split, out=self.out)
        factor, _ = methods.tune_factor(
            other.outputs(held, batch=config.evaluate.batch)["feature"],
            train.of(held, config.attributes.representation),
            held.labels,
            distance=config.loss.distance,
            feature_scale=other.scales["feature"],
            attribute_scale=run.scales["attribute"],
        )
        return float(factor)

    def _weight_table(self, run: AcrnRun, made_of: DistanceParts) -> dict[str, Any]:
        """Learned weights beside what is known of each attribute on the target's test images."""
        names, splits = made_of.names, (self.query, self.gallery)
        found = [
            run.predictions(s.name.split("/")[-1], of=self.target, out=self.out).of(s, "probabilities") for s in splits
        ]
        probabilities = np.concatenate(found)
        person = np.concatenate([split.person_id for split in splits])
        ratio = attribute_metrics.between_within(probabilities, person)
        reliability = self.query.metadata.get("reliability") or {}
        accuracy = dict.fromkeys(names)
        common = [n for n in names if n in self.query.attribute_names]
        if common:
            people = person > 0
            labels = np.concatenate([split.attributes_of(common) for split in splits])[people]
            scored = attribute_metrics.evaluate(probabilities[people][:, [names.index(n) for n in common]], labels)
            accuracy |= {n: number(v) for n, v in zip(common, scored.attribute_mA, strict=True)}
        entries = [
            {
                "name": n,
                "weight": float(w),
                "reliability": reliability.get(n),
                "accuracy": accuracy[n],
                "between_within": number(r),
            }
            for n, w, r in zip(names, made_of.weights, ratio, strict=True)
        ]
        return {"weights": entries} | {
            f"spearman_weight_{key}": _spearman(entries, key) for key in ("reliability", "accuracy", "between_within")
        }


def _spearman(entries, key):
    pairs = np.array([(abs(e["weight"]), e[key]) for e in entries if e[key] is not None]).reshape(-1, 2)
    return number(correlation.spearman(*pairs.T))
