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
        place = of.workdir if kept is None else kept if of is run else kept / "baseline"
        return [folder / "features" / f"{name}.npz" for folder in dict.fromkeys((place, of.workdir))]

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
    )
