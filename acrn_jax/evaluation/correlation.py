"""What an attribute is worth, in numbers: how well it separates yes from no, and what follows its weight."""

from typing import NamedTuple

import numpy as np

from acrn_jax.schema import UNKNOWN


class Correlation(NamedTuple):
    """Spearman's rho over attributes, with the ends of its percentile interval; NaN where nothing defines it."""

    value: float
    low: float
    high: float
    attributes: int  # that have both values


def auc(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """[A] chance that an image with the attribute has the higher probability than one without; ties count half.

    Args:
      probabilities: [N, A].
      labels: [N, A] 1 yes, 0 no, -1 unknown, which is left out; NaN without a positive or a negative.
    """
    found = np.full(labels.shape[1], np.nan)
    for i in range(labels.shape[1]):
        known = labels[:, i] != UNKNOWN
        yes = labels[known, i] == 1
        positives, negatives = int(yes.sum()), int((~yes).sum())
        if positives and negatives:
            ranks = _ranks(probabilities[known, i])
            found[i] = (ranks[yes].sum() - positives * (positives + 1) / 2) / (positives * negatives)
    return found


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rho of x [A] and y [A]; NaN for fewer than three values or where either is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(_rho(x[None], y[None])[0])


def rank_correlation(
    x: np.ndarray, y: np.ndarray, *, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> Correlation:
    """Spearman's rho of x [A] and y [A], NaN being unknown, with a bootstrap interval over attributes.

    Resamples in which either is constant are left out; fewer than four attributes have no interval.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    both = np.isfinite(x) & np.isfinite(y)
    x, y, count = x[both], y[both], int(both.sum())
    value = spearman(x, y)
    if count < 4 or np.isnan(value):
        return Correlation(value, np.nan, np.nan, count)
    drawn = np.random.default_rng(seed).integers(0, count, (resamples, count))
    rho = _rho(x[drawn], y[drawn])
    low, high = np.quantile(rho[np.isfinite(rho)], [(1 - level) / 2, (1 + level) / 2])
    return Correlation(value, float(low), float(high), count)


def _rho(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[R] of rows [R, n]; NaN for a constant row."""
    x, y = _ranks(x), _ranks(y)
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    size = np.sqrt(np.sum(x**2, axis=1) * np.sum(y**2, axis=1))
    return np.where(size > 0, np.sum(x * y, axis=1) / np.where(size > 0, size, 1), np.nan)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks along the last axis from 1, equal values sharing their mean."""
    from scipy import stats  # here: loading it is a quarter of the start of a run

    return stats.rankdata(values, axis=-1)
