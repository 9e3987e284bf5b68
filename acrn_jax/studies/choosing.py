"""How loud attributes are beside a finished run's features, chosen on the people whom it held out of training.

| arm | attribute distance | chosen |
| --- | --- | --- |
| none | | the feature alone |
| trained | of the run's own w | nothing: the run's gamma |
| tuned | of the run's own w | gamma |
| fitted | weights of its own | weights, through the combined distance (held_out.fit) |
| agreement | weights by agreement between images of a person (held_out.agreement) | weights, gamma |
| standardised | logits over their deviation | gamma |
| calibrated | probabilities by Platt's curve, of attributes that the data set labels | curves, gamma |
| truth | the data set's own labels of query and gallery, all attributes: how much the idea gives at best | gamma |

Weights and curves with which gamma is chosen are learned on other held-out people than the ranked ones. Only "truth"
looks at labels of query and gallery.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from acrn_jax.evaluation import calibration, fusion, held_out
from acrn_jax.evaluation.held_out import Embedding, People
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.studies.finished import FinishedRun, HeldOut

NONE = "none"


class Choice(NamedTuple):
    """Of one arm for one feature."""

    gamma: float = 0.0  # mean attribute distance over the feature's; for the run's own w as in its config
    weights: int = 0  # attributes that count
    rows: DistanceFn | None = None  # attribute distances of query and gallery
    factor: float = 0.0  # of them


class Reading(NamedTuple):
    """Attributes of query, gallery and held-out images, and what is learned about them."""

    values: tuple[np.ndarray, ...]  # [Q, B], [G, B], [N, B]
    learn: Callable[[np.ndarray], Embedding]  # index of held-out images to learn on


def choose(run: FinishedRun, held: HeldOut, gammas: Sequence[float] | None = None) -> dict[str, dict[str, Choice]]:
    """Arm -> method (ACRN, ReIdCNN: whose features) -> what was chosen; prints it, too.

    Args:
      run: with its features of query and gallery.
      held: of the same run.
      gammas: to choose from; default: held_out.GAMMAS.
    """
    tried, kind = held_out.GAMMAS if gammas is None else gammas, run.config.loss.distance
    readings = _readings(held)
    crossed = {
        arm: held_out.crossed(of.values[2], held.labels, of.learn, seed=run.config.seed) for arm, of in readings.items()
    }
    result: dict[str, dict[str, Choice]] = {}
    for method, feature, of in (("ACRN", held.own, run.own), ("ReIdCNN", held.base, run.base)):
        if feature is None or of is None:
            continue
        distance = np.asarray(fusion.distance_rows(kind, feature, feature)(slice(None)), np.float32) / of.scale
        people = People(distance, held.attributes[2], held.labels)
        found = {NONE: Choice(), **_of_trained(run, held, people, tried), "fitted": _fitted(run, held, people)}
        for arm, reading in readings.items():
            gamma, _ = held_out.choose(people, crossed[arm], tried)
            found[arm] = _read(reading, gamma)
        for arm, choice in found.items():
            print(f"{method}, {arm}: gamma {choice.gamma:.3g}, {choice.weights} attributes", flush=True)
            result.setdefault(arm, {})[method] = choice
    return result


def _of_trained(run, held, people, tried):
    """With the run's own w: as in its config, and with a gamma chosen anew."""
    kind, w = run.config.loss.distance, np.asarray(run.weights, np.float32)
    query, gallery, own = (w * values for values in held.attributes)
    attributes = np.asarray(fusion.distance_rows(kind, own, own)(slice(None))) / run.attributes.scale
    chosen, _ = held_out.choose(people, attributes, tried)
    rows, count = fusion.distance_rows(kind, query, gallery), np.count_nonzero(w)
    return {
        arm: Choice(gamma, count if gamma else 0, rows, gamma / run.attributes.scale)
        for arm, gamma in (("trained", float(run.config.loss.gamma)), ("tuned", chosen))
    }


def _fitted(run, held, people):
    factors, _ = held_out.fit(people, seed=run.config.seed)
    query, gallery, own = (values * np.sqrt(factors) for values in held.attributes)
    gamma = float(2 * own.var(axis=0, dtype=np.float64).sum())  # mean distance of all pairs
    return Choice(gamma, np.count_nonzero(factors), fusion.squared_euclidean_rows(query, gallery), 1.0)


def _read(reading, gamma):
    """Of a reading that is learned on all held-out people."""
    embed = reading.learn(np.arange(len(reading.values[2])))
    query, gallery, own = (embed(values) for values in reading.values)
    if not gamma or not own.shape[1]:
        return Choice()
    count = np.count_nonzero(np.ptp(own, axis=0))
    return Choice(gamma, count, fusion.squared_euclidean_rows(query, gallery), gamma / held_out.distances(own)[1])


def _readings(held: HeldOut) -> dict[str, Reading]:
    """Those that the data set has labels for."""
    attributes, logits = held.attributes[2], held.logits[2]

    def agreeing(rows):
        root = np.sqrt(held_out.agreement(attributes[rows], held_out.taken(held.labels, rows)))
        return lambda values: values * root

    def standardised(rows):
        deviation = logits[rows].std(axis=0, dtype=np.float64)
        return lambda values: values / np.maximum(deviation, 1e-6)

    def calibrated(rows):
        curves = calibration.platt(logits[rows], held.labelled[rows])
        return lambda values: curves.probabilities(values)[:, curves.fitted]

    found = {"agreement": Reading(held.attributes, agreeing), "standardised": Reading(held.logits, standardised)}
    if held.labelled.max(initial=-1) >= 0:
        found["calibrated"] = Reading(held.logits, calibrated)
    if all(labels.max(initial=-1) >= 0 for labels in held.truth):
        found["truth"] = Reading(_filled(held.truth), lambda rows: lambda values: values)
    return found


def _filled(truth):
    """Labels as numbers; an unknown one is the held-out people's mean, and an attribute unknown for all of them 0."""
    known = truth[2] >= 0
    mean = np.where(known, truth[2], 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return tuple(np.where(known.any(axis=0), np.where(labels >= 0, labels, mean), 0) for labels in truth)
