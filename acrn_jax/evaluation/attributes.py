"""How well attributes are recognised: mA per attribute, instance-based scores, people seen and not seen, consistency.

Every corner case is decided here. Unknown labels (-1) are in no count. An attribute without a known positive or a
known negative has mA NaN, is counted in `undefined` and left out of the mean (others give it half a point). The
instance-based scores are over the images with at least one positive label, `images` of them (others let the rest count
as 0); such an image with nothing predicted has accuracy, precision and recall 0. F1 is that of the mean precision and
the mean recall, not a mean of F1s. Yes is what lies above the threshold; at the threshold it is no.

Source: Li et al., "A Richly Annotated Dataset for Pedestrian Attribute Recognition", 2016, section 4.
"""

from typing import NamedTuple

import numpy as np

from acrn_jax.schema import UNKNOWN

TARGETS = ("mA", "f1")  # of `calibrate`


class Recognition(NamedTuple):
    """Scores; fractions in [0, 1], NaN where nothing defines them."""

    mA: float  # mean over the defined attributes
    accuracy: float
    precision: float
    recall: float
    f1: float
    attribute_mA: np.ndarray  # [A] (true-positive rate + true-negative rate) / 2, which is the balanced accuracy
    positives: np.ndarray  # [A] int, known positive labels
    negatives: np.ndarray  # [A] int
    undefined: int  # attributes without mA
    images: int  # images that the instance-based scores are over


def evaluate(probabilities: np.ndarray, labels: np.ndarray, *, threshold: float | np.ndarray = 0.5) -> Recognition:
    """Scores predictions: yes where a probability is above its threshold.

    Args:
      probabilities: [N, A] in [0, 1]. For a group of people give their rows alone (see `seen`).
      labels: [N, A] 1 yes, 0 no, -1 unknown.
      threshold: one for all, or [A] (see `calibrate`).

    Raises:
      ValueError: shapes disagree, a label is none of the three, or a probability is not in [0, 1].
    """
    probabilities, labels = _check(probabilities, labels)
    if np.ndim(threshold) and np.shape(threshold) != labels.shape[1:]:
        raise ValueError(
            f"{labels.shape[1]} attributes need as many thresholds, or one for all; got {list(np.shape(threshold))}."
        )
    yes, no = labels == 1, labels == 0
    predicted = (probabilities > threshold) & (labels != UNKNOWN)
    positives, negatives = yes.sum(axis=0), no.sum(axis=0)
    with np.errstate(invalid="ignore"):
        each = ((yes & predicted).sum(axis=0) / positives + (no & ~predicted).sum(axis=0) / negatives) / 2
    defined = np.isfinite(each)
    counted = yes.any(axis=1)
    yes, predicted = yes[counted], predicted[counted]
    hits = (yes & predicted).sum(axis=1)
    accuracy = _mean(hits / (yes | predicted).sum(axis=1))
    precision = _mean(hits / np.maximum(predicted.sum(axis=1), 1))
    recall = _mean(hits / yes.sum(axis=1))
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    undefined, images = int(np.sum(~defined)), int(counted.sum())
    return Recognition(
        _mean(each[defined]), accuracy, precision, recall, f1, each, positives, negatives, undefined, images
    )


def calibrate(probabilities: np.ndarray, labels: np.ndarray, *, target: str = "mA") -> np.ndarray:
    """Each attribute's best threshold on validation data, by trying every cut between two values that occur.

    Args:
      probabilities: [N, A] in [0, 1].
      labels: [N, A] 1 yes, 0 no, -1 unknown.
      target: "mA": the attribute's mA. "f1": its F1 over images, 2 TP / (2 TP + FP + FN); the instance-based F1 is of
        all attributes together and cannot be raised one by one.

    Returns:
      [A], midway between two values, of equally good cuts the nearest to 0.5; from -0.5 to 0 where all is said to be
      yes; 0.5 where the target is undefined (no positive, or for mA no negative).

    Raises:
      ValueError: as `evaluate`, or another target.
    """
    probabilities, labels = _check(probabilities, labels)
    if target not in TARGETS:
        raise ValueError(f"Thresholds are chosen for {' or '.join(TARGETS)}, not for {target!r}.")
    thresholds = np.full(labels.shape[1], 0.5)
    for a in range(labels.shape[1]):
        known = labels[:, a] != UNKNOWN
        yes = labels[known, a] == 1
        positives, negatives = int(yes.sum()), int((~yes).sum())
        if not positives or (target == "mA" and not negatives):
            continue
        values, place = np.unique(probabilities[known, a].astype(np.float64), return_inverse=True)
        true = positives - np.append(0, np.cumsum(np.bincount(place[yes], minlength=len(values))))
        false = negatives - np.append(0, np.cumsum(np.bincount(place[~yes], minlength=len(values))))
        if target == "mA":
            score = true * negatives - false * positives  # rises with mA, and is exact
        else:
            score = 2 * true / (true + false + positives)
        cuts = (np.append(-1, values) + np.append(values, 1)) / 2
        best = cuts[score == score.max()]
        thresholds[a] = best[np.argmin(np.abs(best - 0.5))]
    return thresholds


def recognition_scores(predictions: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A score of each image for mA, accuracy, precision, recall and f1, whose mean is the metric to first order.

    mA and f1 are no means over images but smooth functions of some; a resampled mean of these scores (metric +
    influence of the image) follows the resampled metric. As in `evaluate`, an image without a positive label counts
    for mA alone: its other scores are the metrics themselves.

    Args:
      predictions: [N, A] bool.
      labels: [N, A] int8, 1 yes, 0 no, -1 unknown.

    Source: Efron and Tibshirani, 1993, section 22.6 (influence functions).
    """
    count = len(labels)
    mA = np.zeros(count)
    defined = (labels == 1).any(axis=0) & (labels == 0).any(axis=0)  # [A]
    for value, right in ((1, predictions), (0, ~predictions)):
        labelled = labels == value
        of_value = np.maximum(labelled.sum(axis=0), 1)
        rate = np.sum(right & labelled, axis=0) / of_value  # [A]
        influence = rate + labelled * (right - rate) * count / of_value
        mA += influence[:, defined].mean(axis=1) / 2 if defined.any() else np.nan
    result = {"mA": mA}
    known = labels != UNKNOWN
    yes, truth = predictions & known, labels == 1
    hits, counted = np.sum(yes & truth, axis=1), truth.any(axis=1)
    factor = counted * count / max(counted.sum(), 1)  # of an image, in the mean over all
    for name, of in (("accuracy", yes | truth), ("precision", yes), ("recall", truth)):
        values = hits / np.maximum(of.sum(axis=1), 1)
        metric = values[counted].mean() if counted.any() else np.nan
        result[name] = metric + factor * (values - metric)
    p, r = result["precision"].mean(), result["recall"].mean()
    slope = (2 * r**2, 2 * p**2) if p + r else (0.0, 0.0)
    f1 = 2 * p * r / (p + r) if p + r else 0.0
    scale = max((p + r) ** 2, 1e-12)
    result["f1"] = f1 + (slope[0] * (result["precision"] - p) + slope[1] * (result["recall"] - r)) / scale
    return result


def seen(train_person_id: np.ndarray, person_id: np.ndarray) -> np.ndarray:
    """Which images [N] show a person that training showed too; `~seen` are the unseen people."""
    return np.isin(person_id, np.asarray(train_person_id)[np.asarray(train_person_id) > 0])


def between_within(probabilities: np.ndarray, person_id: np.ndarray) -> np.ndarray:
    """How consistent attributes are within a person, and how different between people, right or wrong.

    Args:
      probabilities: [N, A].
      person_id: [N]; images below 1, and people with one image, are left out.

    Returns:
      [A] variance of the people's means (each weighted by its images) over the pooled variance within people; NaN
      where there is no variance within people, or nobody has two images.
    """
    person_id = np.asarray(person_id)
    probabilities = np.asarray(probabilities, np.float64)
    _, inverse, size = np.unique(person_id, return_inverse=True, return_counts=True)
    kept = (person_id > 0) & (size[inverse] > 1)
    if not kept.any():
        return np.full(probabilities.shape[1], np.nan)
    x, inverse, size = probabilities[kept], *np.unique(person_id[kept], return_inverse=True, return_counts=True)[1:]
    order = np.argsort(inverse, kind="stable")
    means = np.add.reduceat(x[order], np.cumsum(size) - size, axis=0) / size[:, None]  # [people, A]
    within = np.sum((x - means[inverse]) ** 2, axis=0) / (len(x) - len(size))
    between = np.sum(size[:, None] * (means - x.mean(axis=0)) ** 2, axis=0) / len(x)
    constant = np.ptp(x - means[inverse], axis=0) < 1e-12
    return np.where(constant, np.nan, between / np.where(constant, 1, within))


def _check(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    if probabilities.shape != labels.shape or labels.ndim != 2 or not labels.size:
        raise ValueError(
            f"Scores want probabilities and labels [N, A]: got {list(probabilities.shape)} and {list(labels.shape)}."
        )
    if not np.isin(labels, (UNKNOWN, 0, 1)).all():
        raise ValueError(f"Attribute labels are 1, 0 or -1; got {np.setdiff1d(labels, (UNKNOWN, 0, 1))[:5].tolist()}.")
    if not np.all((probabilities >= 0) & (probabilities <= 1)):
        raise ValueError("Attribute probabilities must lie in [0, 1]; apply a sigmoid to logits, and check for NaN.")
    return probabilities, labels


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")
