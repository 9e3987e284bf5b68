"""Intervals over people, and over training seeds and splits of the data too, for every metric at once.

Over people they are percentile intervals of a bootstrap, over the few seeds and splits Student's t. Queries of one
person resemble each other, so whole people are drawn (`groups`). A bootstrap of n people sees (n - 1) / n of their
variance and takes it for the true one; percentiles are moved outwards by as much as Student's t would move them, which
matters below some fifty people. A single one has no interval (NaN).

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals); Hesterberg,
"What Teachers Should Know About the Bootstrap", The American Statistician, 2015 (expanded percentiles).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from acrn_jax.evaluation.ranking import Result

_CELLS = 1 << 22  # draws that are held at once


class Interval(NamedTuple):
    """A mean over queries and the ends of its interval."""

    mean: float
    low: float
    high: float


def intervals(
    result: Result,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Interval of each metric of one method, over the queries that its means are over.

    Where galleries are drawn, the metric is a mean over draws, of which queries have unequal numbers; the interval of
    the queries' means is then moved to lie about the metric.

    Args:
      result: of `ranking.evaluate`.
      groups: [Q] int, drawn as wholes, e.g. the queries' person_id; None: queries are drawn one by one.
      seed: same seed, same intervals.
      resamples: number of resamples.
      level: share of resamples inside, in (0, 1).
    """
    counted = result.counted
    scores = np.stack([values[counted] for values in result.per_query.values()], axis=1)
    ends = resample(scores, None if groups is None else np.asarray(groups)[counted], seed, resamples, level)
    moved = (result.metrics[name] - end.mean for name, end in zip(result.per_query, ends, strict=True))
    ends = [Interval(*(value + by for value in end)) for end, by in zip(ends, moved, strict=True)]
    return dict(zip(result.per_query, ends, strict=True))


def differences(
    first: Result,
    second: Result,
    *,
    groups: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Interval of each metric of `first` minus that of `second`, paired by query; arguments as `intervals`.

    Raises:
      ValueError: the two do not score the same queries.
    """
    if not np.array_equal(first.counted, second.counted) or list(first.per_query) != list(second.per_query):
        raise ValueError(
            f"A paired bootstrap wants two results of the same queries and metrics, got {first.counted.sum()} of "
            f"{first.queries} and {second.counted.sum()} of {second.queries} queries."
        )
    per_query = {name: values - second.per_query[name] for name, values in first.per_query.items()}
    metrics = {name: value - second.metrics[name] for name, value in first.metrics.items()}
    return intervals(
        first._replace(per_query=per_query, metrics=metrics), groups=groups, seed=seed, resamples=resamples, level=level
    )


def resample(
    scores: np.ndarray, groups: np.ndarray | None = None, seed: int = 0, resamples: int = 10_000, level: float = 0.95
) -> list[Interval]:
    """Intervals of the means of scores [n, M] over rows, one for each column; see `intervals`."""
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or not scores.size or (groups is not None and np.shape(groups) != scores.shape[:1]):
        raise ValueError(
            f"A bootstrap wants scores [n, M] and groups [n], got {list(scores.shape)} and "
            f"{None if groups is None else list(np.shape(groups))}."
        )
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"A bootstrap wants at least one resample and a level in (0, 1), got {resamples} and {level}.")
    sums = np.concatenate([scores, np.ones((len(scores), 1))], axis=1)  # the last column counts rows
    if groups is not None:
        group = np.unique(groups, return_inverse=True)[1]
        sums = np.stack([np.bincount(group, column) for column in sums.T], axis=1)
    generator, drawn, number = np.random.default_rng(seed), [], len(sums)
    step = max(1, _CELLS // number)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        total = _times(generator, size, number) @ sums  # [size, M + 1]
        drawn.append(total[:, :-1] / total[:, -1:])
    if number == 1:
        return [Interval(float(mean), np.nan, np.nan) for mean in scores.mean(axis=0)]
    tail = special.ndtr(-np.sqrt(number / (number - 1)) * special.stdtrit(number - 1, (1 + level) / 2))
    low, high = np.quantile(np.concatenate(drawn), [tail, 1 - tail], axis=0)
    return [Interval(*map(float, ends)) for ends in zip(scores.mean(axis=0), low, high, strict=True)]


def over_replicates(
    scores: Sequence[np.ndarray],
    groups: Sequence[np.ndarray] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> list[Interval]:
    """Intervals of means over splits of the data, training seeds and queries, right for few splits and seeds.

    | given | interval |
    | --- | --- |
    | several splits | Student's t of the splits' means, with whatever seeds and people differ between them |
    | one split, several seeds | t of the seeds' means and the bootstrap over people, added as squares |
    | one split, one seed | the bootstrap over people: nothing is known of another training |

    Seeds rank the same queries, so that noise of a person with a seed shows in both parts of the second; the share of
    it in the spread of people is taken off there.

    Args:
      scores: for each split [seeds, n, M] float; n queries may differ from split to split, M columns may not.
      groups: for each split [n] int, queries that are drawn as wholes (a person's); None: queries are drawn one by one.
      seed: as in `intervals`.
      resamples: as in `intervals`.
      level: as in `intervals`.

    Returns:
      one for each column; `mean` is over queries, then seeds, then splits.

    Source: Graybill and Wang, "Confidence Intervals on Nonnegative Linear Combinations of Variances", JASA 1980, for
    the sum of squares; tests/evaluation/test_resampling.py simulates the coverage.
    """
    if not len(scores) or any(np.ndim(s) != 3 or not np.size(s) for s in scores):
        raise ValueError(
            f"An interval over seeds wants scores [seeds, n, M] a split, got {[np.shape(s) for s in scores]}."
        )
    if len(scores) > 1:
        means = np.array([np.mean(s, axis=(0, 1)) for s in scores])
        half = _student(means, level)
        return [Interval(*map(float, (m, m - h, m + h))) for m, h in zip(means.mean(axis=0), half, strict=True)]
    values, group = np.asarray(scores[0], np.float64), None if groups is None else np.asarray(groups[0])
    people = resample(values.mean(axis=0), group, seed, resamples, level)
    if len(values) == 1:
        return people
    half = _student(values.mean(axis=1), level)
    found = []
    for end, of_seeds, share in zip(people, half, people_share(values, group), strict=True):
        low, high = (np.sqrt(of_seeds**2 + share * (end.mean - e) ** 2) for e in (end.low, end.high))
        found.append(Interval(end.mean, float(end.mean - low), float(end.mean + high)))
    return found


def _student(means: np.ndarray, level: float) -> np.ndarray:
    """Half the width of the t-interval of the mean over rows [n, M], n > 1: [M]."""
    number = len(means)
    return special.stdtrit(number - 1, (1 + level) / 2) * np.std(means, axis=0, ddof=1) / np.sqrt(number)


def people_share(values: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
    """Of the variance over people of scores [seeds, n, M], averaged over seeds, the share that seeds do not cause [M].

    An analysis of variance of seeds x people, each person's part in a seed's mean being one observation.
    """
    group = np.arange(values.shape[1]) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = np.bincount(group)[None, :, None]
    sums = np.zeros((len(values), size.size, values.shape[2]))
    np.add.at(sums, (slice(None), group), values)
    mean = values.mean(axis=1, keepdims=True)
    part = size.size / len(group) * (sums - size * mean)  # [seeds, people, M], mean over people 0
    person = part.mean(axis=0)
    degrees = (len(values) - 1) * max(size.size - 1, 1)
    noise = np.sum((part - person) ** 2, axis=(0, 1)) / degrees / len(values)
    spread = np.sum(person**2, axis=0) / max(size.size - 1, 1)
    return np.maximum(1 - noise / np.where(spread > 0, spread, np.inf), 0)


def _times(generator: np.random.Generator, size: int, number: int) -> np.ndarray:
    """How often each of `number` things is drawn in `number` draws with replacement, [size, number] float64."""
    draw = generator.integers(0, number, (size, number)) + number * np.arange(size)[:, None]
    return np.bincount(draw.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)
