"""A finished ACRN run with all that its test distances are made of, which studies score anew under other settings."""

import os
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from acrn_jax import build, runs
from acrn_jax.evaluation import methods
from acrn_jax.results import Results
from acrn_jax.runs import parts
from acrn_jax.runs.run import AcrnRun
from acrn_jax.schema import Labels
from acrn_jax.settings import Settings


class FinishedRun(NamedTuple):
    """A finished ACRN run, with all that its test distances are made of."""

    run: AcrnRun
    results: Results
    query: Labels
    gallery: Labels
    names: tuple[str, ...]  # [A]
    weights: np.ndarray  # [A] learned
    own: methods.Features  # of ACRN
    base: methods.Features | None  # of the ReIdCNN that it was evaluated with
    attributes: methods.Attributes
    split: Any  # its training images
    truth: tuple[np.ndarray, ...] = ()  # [Q, A], [G, A], [N, A] labels of query, gallery, training images, -1 unknown
    keys: tuple[np.ndarray, ...] = ()  # [Q], [G] of the images of query and gallery
    kept: Path | None = None  # where what is computed of the run is kept, if not in the run itself
    beside: runs.ReidCnnRun | None = None  # that ReIdCNN

    @property
    def folder(self) -> Path:
        return self.run.workdir

    @property
    def config(self) -> Settings:
        return self.run.config

    @property
    def name(self) -> str:
        return f"{self.config.data.config}/seed_{self.config.seed}"


def load(workdir: Path, *, out: Path | None = None) -> FinishedRun:
    """A finished run; features are computed once and kept in its features/, or in out/kept (it is then only read).

    Raises:
      FileNotFoundError: there is no evaluated run.
      ValueError: it is no finished ACRN run, or its protocol averages queries.
    """
    workdir = Path(workdir)
    kept = out / "kept" / workdir.name if out else None
    run = runs.load_acrn(workdir, "studies on features want one, with its ReIdCNN beside it")
    results = runs.read_results(workdir)
    if results.protocol == "market1501_multi_query":
        raise ValueError(f"{workdir} was evaluated with several boxes a query; evaluate it with --protocol=market1501.")
    run.check_data()
    run.check_attributes()
    query, gallery = (build.open_split(run.config, name) for name in ("query", "gallery"))
    query = query.take(query.person_id > 0)
    baseline = None
    if "baseline" in results.runs:
        baseline = cast(runs.ReidCnnRun, runs.load(os.path.normpath(workdir / results.runs["baseline"])))

    def keep(of: runs.ReidCnnRun, name: str) -> list[Path]:
        return _places(of, name, None if kept is None else kept if of is run else kept / "baseline")

    made_of = parts.collect(run, query, gallery, baseline=baseline, out=kept, keep=keep)
    people, _ = build.reid_splits(run.config)
    return FinishedRun(
        run,
        results,
        query=query.labels,
        gallery=gallery.labels,
        names=made_of.names,
        weights=made_of.weights,
        own=made_of.own,
        base=made_of.baseline,
        attributes=made_of.attributes,
        split=people,
        truth=tuple(split.attributes_of(made_of.names) for split in (query, gallery, people)),
        keys=(query.key, gallery.key),
        kept=kept,
        beside=baseline,
    )


class HeldOut(NamedTuple):
    """What is known of people whom a run held out of training, and of query and gallery to apply it to."""

    labels: Labels  # [N] of the held-out images
    own: np.ndarray  # [N, D] features of ACRN
    base: np.ndarray | None  # of its ReIdCNN
    attributes: tuple[np.ndarray, ...]  # of query, gallery and held-out images, each [., A] as the run takes them
    logits: tuple[np.ndarray, ...]  # the same
    labelled: np.ndarray  # [N, A] labels of these attributes, -1 unknown
    truth: tuple[np.ndarray, ...]  # of the three, [., B] labels of the data set's own attributes, -1 unknown


def held_out(run: FinishedRun) -> HeldOut:
    """Features are computed once and kept beside those of query and gallery.

    Raises:
      ValueError: the run held nobody out.
    """
    _, held = build.reid_splits(run.config)
    if held is None:
        raise ValueError(
            f"{run.folder} held nobody out of training, to choose on; train it with "
            "--config.data.validation_identities=50, say."
        )
    query, gallery = (build.open_split(run.config, name) for name in ("query", "gallery"))
    splits = (query.take(query.person_id > 0), gallery, held)
    said = [run.run.predictions(name, out=run.kept) for name in ("query", "gallery", run.config.data.train_split)]

    def shown(representation: str) -> tuple[np.ndarray, ...]:
        return tuple(one.of(split, representation) for one, split in zip(said, splits, strict=True))

    def feature(of: runs.ReidCnnRun, kept: Path | None) -> np.ndarray:
        return of.outputs(held, keep=_places(of, "held_out", kept))["feature"]

    return HeldOut(
        held.labels,
        feature(run.run, run.kept),
        feature(run.beside, run.kept and run.kept / "baseline") if run.beside else None,
        shown(run.config.attributes.representation),
        shown("logits"),
        held.attributes_of(run.names),
        tuple(split.attributes for split in splits),
    )


def _places(run: runs.ReidCnnRun, name: str, kept: Path | None) -> list[Path]:
    """Files to keep features in: the first is written, in `kept` if there is such a folder."""
    return [folder / "features" / f"{name}.npz" for folder in dict.fromkeys((kept or run.workdir, run.workdir))]
