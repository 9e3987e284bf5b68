"""Which attributes to label: what ACRN would gain if one attribute were recognised better on the target.

For one attribute a share of the net's answers for query and gallery images, drawn image by image, is the truth instead:
the share by which its balanced accuracy rises by the wanted amount (a share s of answers takes b to b + s (1 - b), to 1
at most). All images are ranked anew, with the run's own weights and gamma, and the gain is the change of the queries'
mean average precision, averaged over some draws. Images without a label stay as they are recognised.

A corrected answer is 0 or 1, surer than the net's own, so that a well recognised attribute may gain, too, and one that
tells no people apart may lose, being louder; w is not trained anew (`ablate --study=recognition` does that, for all
attributes at once).
"""

from collections.abc import Sequence

import numpy as np

from acrn_jax.evaluation import attributes, fusion, resampling
from acrn_jax.results import Gain
from acrn_jax.studies import sweeps
from acrn_jax.studies.finished import FinishedRun
from acrn_jax.studies.sweeps import Sweep

DRAWS = 10
_METHOD = "ACRN"


def gains(runs: Sequence[FinishedRun], rise: float, *, draws: int = DRAWS) -> dict[str, Gain]:
    """Attribute -> expected gain in mAP (precision), of the attributes whose truth the target knows.

    Args:
      runs: on one target, with the same attributes; seeds of one split, or several splits.
      rise: of the balanced accuracy, in (0, 1].
      draws: of the answers that are corrected.

    Raises:
      ValueError: a rise out of range, no labels of the target, or a run with logits, which truth has none of.
    """
    check(rise)
    accuracies = [_accuracy(run) for run in runs]
    found: dict[str, list[tuple[dict[str, np.ndarray], np.ndarray]]] = {}
    for run, accuracy in zip(runs, accuracies, strict=True):
        print(f"{run.folder}: raising the accuracy of {len(accuracy)} attributes, one by one", flush=True)
        found.setdefault(run.results.dataset, []).append(_of_run(run, accuracy, rise, draws))
    names = [name for name in runs[0].names if all(name in of for splits in found.values() for of, _ in splits)]
    scores = [np.array([np.stack([of[n] for n in names], axis=1) for of, _ in seeds]) for seeds in found.values()]
    intervals = resampling.over_replicates(scores, [seeds[0][1] for seeds in found.values()])
    return {
        name: Gain(
            accuracy=float(np.mean([accuracy[name] for accuracy in accuracies])),
            mean=interval.mean,
            low=interval.low if np.isfinite(interval.low) else None,
            high=interval.high if np.isfinite(interval.high) else None,
        )
        for name, interval in zip(names, intervals, strict=True)
    }


def check(rise: float) -> None:
    """ValueError for a rise out of range."""
    if not 0 < rise <= 1:
        raise ValueError(f"Balanced accuracy can rise by more than 0 and at most 1, not by {rise}; 0.1 is ten points.")


def corrected(values: np.ndarray, labels: np.ndarray, draw: np.ndarray, share: float) -> np.ndarray:
    """Answers [N] with those whose draw [N], in [0, 1), is below the share, and whose label is known, corrected."""
    return np.where((draw < share) & (labels >= 0), labels, values).astype(np.float32)


def _accuracy(run: FinishedRun) -> dict[str, float]:
    """Balanced accuracy of each attribute that has one, over the images of query and gallery that show a person."""
    if run.config.attributes.representation == "logits":
        raise ValueError(f"{run.folder} was trained with logits, which truth has none of; use probabilities or binary.")
    people = np.r_[run.query.person_id, run.gallery.person_id] > 0
    answers, labels = (np.concatenate(of[:2])[people] for of in (run.attributes, run.truth))
    each = zip(run.names, attributes.evaluate(answers, labels).attribute_mA, strict=True)
    if not (found := {name: float(value) for name, value in each if np.isfinite(value)}):
        raise ValueError(f"{run.results.dataset} labels none of the attributes, so no answer can be corrected.")
    return found


def _of_run(run, accuracy, rise, draws) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(attribute -> gain of each query [n], the queries' people [n])."""
    generator = np.random.default_rng(run.config.seed)
    drawn = [generator.random((draws, *labels.shape)) for labels in run.truth[:2]]
    kind, weights = run.config.loss.distance, np.asarray(run.weights, np.float32)
    feature = fusion.distance_rows(kind, run.own.query, run.own.gallery)
    factor, gain, people = run.config.loss.gamma / run.attributes.scale, {}, np.zeros(0, int)
    for name in accuracy:
        a, share = run.names.index(name), min(1.0, rise / max(1 - accuracy[name], 1e-9))
        terms = [feature, fusion.distance_rows(kind, *(weights * values for values in run.attributes[:2]))]
        for number in range(draws):
            pair = [values.copy() for values in run.attributes[:2]]
            for values, labels, draw in zip(pair, run.truth[:2], drawn, strict=True):
                values[:, a] = corrected(values[:, a], labels[:, a], draw[number, :, a], share)
            terms.append(fusion.distance_rows(kind, *(weights * values for values in pair)))
        factors = np.eye(len(terms), dtype=np.float32)[1:] * factor
        factors[:, 0] = 1 / run.own.scale
        settings = {str(i): {_METHOD: row} for i, row in enumerate(factors)}
        before, *after = sweeps.score(run, Sweep(terms, settings, "0")).values()
        change = [of.each[_METHOD, "mAP_precision"] - before.each[_METHOD, "mAP_precision"] for of in after]
        gain[name], people = np.mean(change, axis=0), before.groups
    return gain, people
