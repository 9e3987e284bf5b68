"""Bootstrap intervals over queries (and over training seeds and splits of the data), for every metric at once.

Queries of one person resemble each other; with `groups` whole people are drawn instead, and intervals get honestly
wider.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13 (percentile intervals).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acrn_jax.evaluation.ranking import Result

_CELLS = 1 << 22  # draws that are held at once


class Interval(NamedTuple):
    """A mean over queries and the ends of its percentile interval."""

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
    return intervals(first._replace(per_query=per_query), groups=groups, seed=seed, resamples=resamples, level=level)


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
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2], axis=0)
    return [Interval(*map(float, ends)) for ends in zip(scores.mean(axis=0), low, high, strict=True)]


def nested(
    scores: Sequence[np.ndarray],
    groups: Sequence[np.ndarray] | None = None,
    *,
    seed: int = 0,
    resamples: int = 10_000,
    level: float = 0.95,
) -> list[Interval]:
    """Intervals of means over splits of the data, over training seeds and over queries at once.

    A resample draws splits with replacement; in each drawn split training seeds, and groups of queries, which are the
    same for all its seeds, as all seeds rank the same queries. A level of one (a single split) stays as it is.

    Args:
      scores: for each split [seeds, n, M] float; n queries may differ from split to split, M columns may not.
      groups: for each split [n] int, queries that are drawn as wholes (a person's); None: queries are drawn one by one.
      seed, resamples, level: as in `intervals`.

    Returns:
      one for each column; `mean` is over queries, then seeds, then splits.
    """
    if not len(scores) or any(np.ndim(s) != 3 or not np.size(s) for s in scores):
        raise ValueError(
            f"A bootstrap over seeds wants scores [seeds, n, M] a split, got {[np.shape(s) for s in scores]}."
        )
    sums = []  # for each split [groups, seeds * M + 1]: sums over a group's queries; the last column counts them
    for place, part in enumerate(scores):
        seeds, n, columns = part.shape
        flat = np.moveaxis(np.asarray(part, np.float64), 0, 1).reshape(n, seeds * columns)
        flat = np.concatenate([flat, np.ones((n, 1))], axis=1)
        if groups is not None:
            group = np.unique(groups[place], return_inverse=True)[1]
            flat = np.stack([np.bincount(group, column) for column in flat.T], axis=1)
        sums.append(flat)
    generator, count, columns = np.random.default_rng(seed), len(scores), scores[0].shape[2]
    drawn = np.zeros((resamples, columns))
    for _ in range(count):
        of_split = generator.integers(0, count, resamples) if count > 1 else np.zeros(resamples, int)
        for place, flat in enumerate(sums):
            rows, seeds = np.flatnonzero(of_split == place), len(scores[place])
            step = max(1, _CELLS // max(flat.shape))
            for part in (rows[start : start + step] for start in range(0, len(rows), step)):
                total = _times(generator, len(part), len(flat)) @ flat
                means = (total[:, :-1] / total[:, -1:]).reshape(len(part), seeds, columns)
                drawn[part] += np.einsum("rs,rsm->rm", _times(generator, len(part), seeds) / seeds, means) / count
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=0)
    mean = np.mean([np.mean(s, axis=(0, 1)) for s in scores], axis=0)
    return [Interval(*map(float, ends)) for ends in zip(mean, low, high, strict=True)]


def _times(generator: np.random.Generator, size: int, number: int) -> np.ndarray:
    """How often each of `number` things is drawn in `number` draws with replacement, [size, number] float64."""
    draw = generator.integers(0, number, (size, number)) + number * np.arange(size)[:, None]
    return np.bincount(draw.ravel(), minlength=size * number).reshape(size, number).astype(np.float64)
