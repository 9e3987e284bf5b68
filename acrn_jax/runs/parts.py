"""What the distances of a run's rows are made of: features, attributes, weights and scales of query and gallery."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from acrn_jax import build
from acrn_jax.data import source
from acrn_jax.evaluation import explain, methods, protocols
from acrn_jax.runs.run import AcrnRun, ReidCnnRun
from acrn_jax.settings import Settings


@dataclasses.dataclass(frozen=True)
class DistanceParts:
    """Of an ACRN run on query and gallery."""

    own: methods.Features
    attributes: methods.Attributes
    names: tuple[str, ...]  # [A]
    weights: np.ndarray  # [A] learned
    gamma: float
    baseline: methods.Features | None = None  # of the ReIdCNN beside it
    missing: str = ""  # why there are no training images' attributes

    @property
    def formula(self) -> explain.Formula:
        return explain.Formula(self.weights, self.gamma, self.own.scale, self.attributes.scale)

    def shares(self, query: np.ndarray, gallery: np.ndarray) -> explain.Shares:
        """Of pairs [n] of places in query and gallery."""
        (f, g), (a, b) = self.own[:2], self.attributes[:2]
        return explain.shares(f[query], g[gallery], a[query], b[gallery], self.formula)


def features(
    run: ReidCnnRun,
    query: source.Split,
    gallery: source.Split,
    *,
    batch: int,
    boxes: source.Split | None = None,
    keep: Callable[[str], list[Path]] = lambda name: [],
) -> methods.Features:
    """What a re-id net says about query and gallery.

    Args:
      run: with the net.
      query: one image a query.
      gallery: likewise.
      batch: images at a time.
      boxes: several images of each query, of which the mean counts; default: `query`.
      keep: "query" or "gallery" -> files to keep them in; see Run.outputs.
    """
    scale = run.scales["feature"]
    found = [
        run.outputs(split, batch=batch, keep=keep(name))["feature"]
        for name, split in (("query", boxes or query), ("gallery", gallery))
    ]
    return methods.Features(averaged(found[0], boxes, query), found[1], scale)


def averaged(values: np.ndarray, boxes: source.Split | None, query: source.Split) -> np.ndarray:
    """A row for each query: its own, or the mean over its boxes."""
    return values if boxes is None else protocols.multi_query(values, boxes.labels, query.labels)


def collect(
    run: AcrnRun,
    query: source.Split,
    gallery: source.Split,
    *,
    baseline: ReidCnnRun | None = None,
    boxes: source.Split | None = None,
    target: Settings | None = None,
    out: Path | None = None,
    keep: Callable[[ReidCnnRun, str], list[Path]] = lambda run, name: [],
) -> DistanceParts:
    """All that the rows of a run's table are made of.

    Args:
      run: of ACRN.
      query, gallery: images to rank, without junk queries.
      baseline: the ReIdCNN run beside it.
      boxes: several images of each query, of which the mean counts.
      target: settings with the data set that query and gallery are of; default: the run's own.
      out: where what the attribute net says about them is kept; default: see AcrnRun.predictions.
      keep: (run, "query" or "gallery") -> files to keep features in; default: nowhere.
    """
    batch, shown = run.config.evaluate.batch, run.config.attributes.representation
    own, base = (
        features(of, query, gallery, batch=batch, boxes=boxes, keep=lambda name, of=of: keep(of, name)) if of else None
        for of in (run, baseline)
    )
    found = []
    for split in (boxes or query, gallery):
        predictions = run.predictions(split.name.split("/")[-1], of=target, out=out)
        found.append(predictions.of(split, shown))
    attributes = methods.Attributes(averaged(found[0], boxes, query), found[1], run.scales["attribute"])
    train, missing = None, ""
    try:
        people, _ = build.reid_splits(run.config)
        train = run.predictions(run.config.data.train_split, out=out).of(people, shown)
        attributes = attributes._replace(train=train, train_labels=people.labels)
    except FileNotFoundError as error:
        if target is None:
            raise
        missing = str(error)
    names, weights = run.attribute_net.names, run.weights(train)
    return DistanceParts(own, attributes, names, weights, run.config.loss.gamma, base, missing)
