"""The calibration of a run's distance: where it lies, which distance it is of, and what it says of pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import COMMAND
from acrn_jax.evaluation.explain import Formula
from acrn_jax.evaluation.strangers import Thresholds
from acrn_jax.evaluation.verdict import Curve
from acrn_jax.results import Malformed, PairCalibration, Pairs
from acrn_jax.runs import nets
from acrn_jax.runs.run import AcrnRun, AttributeRun, Run

FILE = "pairs.json"  # in a workdir
PRIOR = "Probabilities are for pairs of which half show one person; in a whole gallery far fewer pairs do."


class Threshold(NamedTuple):
    """Nearer pictures pass."""

    value: float
    low: float  # ends of its interval of 95 %, over people
    high: float
    beyond: int | None  # the largest gallery that was tested, where this one is larger

    def __str__(self) -> str:
        text = f"distance below {self.value:.4g} (95 % interval {self.low:.4g} to {self.high:.4g})"
        if self.beyond is None:
            return text
        return (
            f"{text}; the gallery is larger than the largest that was tested, {self.beyond:,} pictures, so false "
            "alarms may be more frequent than that"
        )


class PairCurve(NamedTuple):
    """What `calibrate` fitted, ready for use."""

    record: Pairs
    curve: Curve
    thresholds: Thresholds

    @classmethod
    def of(cls, record: Pairs, where: str) -> "PairCurve":
        """Raises ValueError where the record is damaged."""
        curve = Curve(np.array(record.distance), np.array(record.probability))
        table = record.thresholds
        parts = [np.array(part) for part in (table.size, table.rate, table.threshold, table.low, table.high)]
        shape = (len(table.size), len(table.rate))
        whole = len(curve.distance) == len(curve.probability) > 0 and min(shape) > 0
        if not (
            whole
            and all(part.shape == shape for part in parts[2:])
            and (np.diff(curve.distance) > 0).all()
            and (np.diff(curve.probability) <= 0).all()
            and curve.probability.min() >= 0
            and curve.probability.max() <= 1
        ):
            raise ValueError(f"The calibration of pairs in {where} is damaged; run {COMMAND} calibrate again.")
        return cls(record, curve, Thresholds(*parts))

    def threshold(self, rate: float, gallery: int) -> Threshold:
        """For a gallery of so many pictures; ValueError for a rate that was not measured."""
        largest = int(self.thresholds.size[-1])
        return Threshold(*self.thresholds.of(rate, gallery), largest if gallery > largest else None)

    def told(self) -> str:
        """What probabilities are worth, in two sentences."""
        of = self.record
        errors = ", ".join(f"{100 * one.error:.1f} % on {one.on}" for one in of.judged)
        return (
            f"The probability that a picture shows the query's person was fitted on {of.people:,} people of "
            f"{of.fitted_on}; its calibration error on people whom it was not fitted on is {errors}. {PRIOR}"
        )


def described(run: Run, formula: Formula) -> dict[str, Any]:
    """What makes a run's distance the one that it is; a net that ships is the run that it was made of."""
    acrn = isinstance(run, AcrnRun) and bool(formula.gamma)
    return {
        "distance": run.config.loss.distance,
        "gamma": float(formula.gamma) if acrn else 0.0,
        "representation": run.config.attributes.representation if acrn else None,
        "weights": [float(w) for w in formula.weights] if acrn else [],
        "scales": [float(formula.feature_scale), *([float(formula.attribute_scale)] if acrn else [])],
        "net": _values(run),
        "attribute_net": _values(run.attribute_net) if isinstance(run, AcrnRun) and acrn else None,
    }


def _values(run: Run) -> str:
    return nets.card(run.workdir)["values"] if run.ships else run.fingerprint


def differing(fitted: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """Why a calibration of the distance `fitted` does not hold for `asked`, or None."""
    words = {"net": "another net's", "attribute_net": "another attribute net's", "weights": "other attribute weights"}
    for name, now in asked.items():
        then = fitted.get(name)
        if name in ("weights", "scales", "gamma"):
            a, b = np.atleast_1d(np.asarray(then, float)), np.atleast_1d(np.asarray(now, float))
            same = a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-6)
        else:
            same = then == now
        if not same:
            what = words.get(name, f"{name} {then}, not {now}")
            return f"the calibration was fitted on another distance ({what})"
    return None


def find(run: Run, file: Path | None = None) -> tuple[PairCurve | None, str]:
    """(what `calibrate` fitted for a run or a net, None where there is none; then why).

    Args:
      run: whose card or workdir has it.
      file: that `calibrate` wrote, in their place.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is damaged.
    """
    where = file or run.workdir / ("card.json" if run.ships else FILE)
    if file is None and run.ships:
        stored = (nets.card(run.workdir).get("calibration") or {}).get("pairs")
        if stored is None:
            return None, _none(run)
        try:
            record = Pairs.parse(stored, "calibration.pairs")
        except Malformed as error:
            raise ValueError(f"{where} is damaged: {error}.") from error
    elif file is None and not where.is_file():
        return None, _none(run)
    else:
        record = PairCalibration.read(where).calibration.pairs
    return PairCurve.of(record, str(where)), ""


def held(run: Run, formula: Formula, file: Path | None = None) -> PairCurve | str:
    """What `find` finds where it is of the distance of that formula, else why there is none."""
    found, why = find(run, file)
    return why if found is None else differing(found.record.metric, described(run, formula)) or found


def tell(
    entries: Sequence[dict[str, Any]],
    distances: Sequence[float],
    found: PairCurve | str,
    *,
    max_false_alarms: float | None,
    gallery: int,
) -> dict[str, Any]:
    """Adds "same_person", a probability or None, and with `max_false_alarms` "passes", to what a search found.

    Args:
      entries: of the search.
      distances: theirs, the nearest picture's first.
      found: of the run's distance, else why there is none.
      max_false_alarms: share of searches, for people who are not there, in which anything may pass.
      gallery: pictures that were searched.

    Returns:
      what results.json says of all of them: "kind" ("none" with "why", or "fitted"), a "note", and "threshold", with
      "none" where nothing passes; None where none was asked for.
    """
    if isinstance(found, str):
        for entry in entries:
            entry["same_person"] = None
        return {"kind": "none", "why": found, "note": f"Whether a picture shows the same person is not told: {found}.",
                "threshold": None}  # fmt: skip
    for entry, p in zip(entries, found.curve.probabilities(np.asarray(distances)), strict=True):
        entry["same_person"] = float(p)
    about = {"kind": "fitted", "fitted_on": found.record.fitted_on, "note": found.told(), "threshold": None}
    if max_false_alarms is None:
        return about
    threshold = found.threshold(max_false_alarms, gallery)
    for entry, d in zip(entries, distances, strict=True):
        entry["passes"] = bool(d < threshold.value)
    passing = sum(entry["passes"] for entry in entries)
    shown = f"{passing} of the pictures shown pass{'es' * (passing == 1)}" if passing else "None of these"
    note = (
        f"{shown}: in {100 * max_false_alarms:g} % of searches for people who are not in a gallery of {gallery:,} "
        f"pictures anything would pass, {threshold}."
    )
    return about | {
        "threshold": {**threshold._asdict(), "max_false_alarms": max_false_alarms, "none": not passing, "note": note}
    }


def of_manifest(manifest: Mapping[str, Any], place: Path) -> PairCurve | str:
    """What a bundle has, which was held against its distance when it was exported; else why there is none."""
    if not manifest.get("pairs"):
        return f"the bundle {place} has no calibration of pairs; calibrate the run, then export it again"
    try:
        found = PairCurve.of(Pairs.parse(manifest["pairs"], "pairs"), str(place / "manifest.json"))
        whole = {"feature", *(["attributes"] if found.record.metric["gamma"] else [])} <= manifest["outputs"].keys()
        return found if whole else f"the bundle {place} lacks an output that its distance is made of"
    except Malformed as error:
        raise ValueError(f"{place / 'manifest.json'} is damaged: {error}.") from error


def _none(run: Run) -> str:
    if isinstance(run, AttributeRun):
        return "the distance of an attribute net alone is not calibrated"
    return (
        f"{run.workdir.name} has no calibration of pairs; {COMMAND} calibrate fits one on people whom it was not "
        "trained on"
    )
