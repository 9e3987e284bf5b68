"""From a distance to the probability that two pictures show one person, and how well such probabilities hold."""

from typing import NamedTuple

import numpy as np
from scipy import optimize

KNOTS = 64  # of a curve, at most
BINS = 10  # of a reliability table


class Curve(NamedTuple):
    """Probability over distance: linear between its points, level beyond them."""

    distance: np.ndarray  # [K] rising
    probability: np.ndarray  # [K] falling, for pairs of which half show one person

    def probabilities(self, distances: np.ndarray, prior: float = 0.5) -> np.ndarray:
        """Distances of any shape -> probabilities of that shape, by Bayes' rule for another `prior`.

        Args:
          distances: of the kind that the curve was fitted on.
          prior: share of the pairs that show one person before anything is looked at, between 0 and 1.

        Raises:
          ValueError: the prior is not between 0 and 1.
        """
        if not 0 < prior < 1:
            raise ValueError(f"prior is {prior}; give the share of pairs that show one person, between 0 and 1.")
        p = np.interp(np.asarray(distances, np.float64), self.distance, self.probability)
        return prior * p / (prior * p + (1 - prior) * (1 - p))


class Reliability(NamedTuple):
    """Pairs in bins of equal width of their probability; both kinds of pairs weigh one half."""

    weight: np.ndarray  # [BINS] share of the pairs
    probability: np.ndarray  # [BINS] their mean; NaN where there is none
    same: np.ndarray  # [BINS] share of them that shows one person; NaN likewise

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |probability - same| over pairs, in [0, 1].

        Source: Guo et al., "On Calibration of Modern Neural Networks", 2017, equation 3, for the one probability.
        """
        return float(np.nansum(self.weight * np.abs(self.probability - self.same)))


def fit(same: np.ndarray, different: np.ndarray) -> Curve:
    """The falling curve that fits distances of known pairs best (isotonic regression); both kinds weigh one half.

    Its ends stay away from 0 and 1 by one pair in n + 2 of the rarer kind: so many pairs cannot say more.

    Args:
      same: [n] distances of pairs that show one person.
      different: [m] of pairs that show two.

    Raises:
      ValueError: there are fewer than two of a kind, or a distance is not finite.

    Source: Zadrozny and Elkan, "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", 2002.
    """
    same, different = np.asarray(same, np.float64), np.asarray(different, np.float64)
    if min(len(same), len(different)) < 2:
        raise ValueError(f"There are {len(same)} pairs of one person and {len(different)} of two; give two of each.")
    distance, yes, weight = _joined(same, different)
    if not np.isfinite(distance).all():
        raise ValueError("A distance is not finite; were the pictures and the net read whole?")
    # Equal distances are one point.
    distance, place = np.unique(distance, return_inverse=True)
    share, weight = np.bincount(place, weight * yes), np.bincount(place, weight)
    found = optimize.isotonic_regression(share / weight, weights=weight, increasing=False)
    starts = found.blocks[:-1]
    middle = np.add.reduceat(weight * distance, starts) / np.add.reduceat(weight, starts)
    rows = np.unique(np.linspace(0, len(starts) - 1, min(KNOTS, len(starts))).round().astype(int))
    least = 1 / (min(len(same), len(different)) + 2)
    return Curve(middle[rows], np.clip(found.x[starts], least, 1 - least)[rows])


def reliability(same: np.ndarray, different: np.ndarray) -> Reliability:
    """Do probabilities of pairs that show one person [n], and two [m], hold? One on an edge is in the upper bin."""
    p, yes, weight = _joined(np.asarray(same), np.asarray(different))
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    whole, sums, right = (np.bincount(place, weight * by, BINS) for by in (1, p, yes))
    some = np.where(whole > 0, whole, np.nan)
    return Reliability(whole, sums / some, right / some)


def _joined(same, different):
    """(values, whether of one person, weights that are one half in sum for each kind)."""
    sizes = (len(same), len(different))
    weight = np.repeat([0.5 / max(size, 1) for size in sizes], sizes)
    return np.concatenate([same, different]), np.repeat([1.0, 0.0], sizes), weight
