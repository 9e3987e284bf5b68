"""Do probabilities mean what they say: Platt's correction of logits, and the expected calibration error."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from acrn_jax import COMMAND
from acrn_jax.schema import UNKNOWN

UNKNOWN_BAND = (0.35, 0.65)  # a probability in between is no answer


class Platt(NamedTuple):
    """probability = sigmoid(slope * logit + offset), for each attribute."""

    slope: np.ndarray  # [A]
    offset: np.ndarray  # [A]
    fitted: np.ndarray  # [A] bool; the others are left as they are (slope 1, offset 0)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Logits [N, A] -> [N, A] in [0, 1]."""
        return special.expit(self.slope * logits + self.offset)


def platt(logits: np.ndarray, labels: np.ndarray, *, steps: int = 100) -> Platt:
    """Fits a logistic curve to each attribute's logits on images that the net was not trained on.

    Attributes without a known positive or negative, and those whose logits fall where the truth rises, are left as
    they are.

    Args:
      logits: [N, A].
      labels: [N, A] 1 yes, 0 no, -1 unknown.
      steps: of Newton's method at most.

    Source: Platt, "Probabilistic outputs for support vector machines", 1999: targets (n+ + 1) / (n+ + 2) and
    1 / (n- + 2) for 1 and 0, so that the curve of separable data is finite.
    """
    count = labels.shape[1]
    slope, offset, fitted = np.ones(count), np.zeros(count), np.zeros(count, bool)
    for i in range(count):
        known = labels[:, i] != UNKNOWN
        x, yes = logits[known, i].astype(np.float64), labels[known, i] == 1
        if yes.all() or not yes.any() or np.ptp(x) == 0:
            continue
        target = np.where(yes, (yes.sum() + 1) / (yes.sum() + 2), 1 / ((~yes).sum() + 2))
        inputs = np.stack([x, np.ones_like(x)], axis=1)  # [n, 2]

        def loss(curve, inputs=inputs, target=target):
            z = inputs @ curve
            return np.sum(np.logaddexp(0, z) - target * z)

        curve = np.array([0.0, np.log(target.mean() / (1 - target.mean()))])
        for _ in range(steps):
            p = special.expit(inputs @ curve)
            slopes = inputs.T @ (p - target)
            step = np.linalg.solve((inputs * (p * (1 - p))[:, None]).T @ inputs + 1e-12 * np.eye(2), slopes)
            size = 1.0
            while loss(curve - size * step) > loss(curve) and size > 1e-8:
                size /= 2
            curve = curve - size * step
            if np.abs(step).max() < 1e-9:
                break
        if curve[0] > 0:
            slope[i], offset[i], fitted[i] = *curve, True
    return Platt(slope, offset, fitted)


def told(about: Mapping[str, Any]) -> str:
    """What probabilities of attributes are worth on pictures that nobody has labelled, in two or three sentences.

    Args:
      about: "kind" is "raw", with "why" there is no curve, or "fitted", with the data that it is "fitted_on", the
        number of its "images" and attributes that stay "raw"; "recognition" holds `runs.recognition_rates`, or None.
    """
    if about["kind"] == "raw":
        text = f"Probabilities are the net's own, not calibrated: {about['why']}."
    else:
        left = f", but raw for {', '.join(about['raw'])}, which it does not settle" if about["raw"] else ""
        text = (
            f"Probabilities follow Platt's curve fitted on {about['images']:,} images of {about['fitted_on']}{left}: "
            "they are calibrated for pictures like those, and nothing is known about pictures from elsewhere."
        )
    if about["recognition"] is None:
        return f"{text} How often the net is right is not known; {COMMAND} evaluate of the attribute net measures it."
    return (
        f"{text} Recognition rates, half the share of right yes and half that of right no (guessing has 50 %), are of "
        f"{about['recognition']['on']}."
    )


def expected_error(probabilities: np.ndarray, labels: np.ndarray, *, bins: int = 10) -> np.ndarray:
    """[A] expected calibration error: the gap between mean probability and share of yes, over bins of equal width.

    Args:
      probabilities: [N, A] of yes.
      labels: [N, A] 1 yes, 0 no, -1 unknown, which is left out; NaN for an attribute with none known.
      bins: number of bins; a probability on an edge is in the upper one, 1 in the last.

    Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3, for probabilities of yes.
    """
    errors = np.full(labels.shape[1], np.nan)
    for i in range(labels.shape[1]):
        known = labels[:, i] != UNKNOWN
        if known.any():
            p, yes = probabilities[known, i].astype(np.float64), labels[known, i] == 1
            place = np.minimum((p * bins).astype(int), bins - 1)
            gaps = np.bincount(place, p - yes, minlength=bins)  # sums: size of the bin x gap of its means
            errors[i] = np.abs(gaps).sum() / known.sum()
    return errors
