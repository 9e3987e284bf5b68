"""The metrics of a ranking, one table: each is a function of the ranks at which a query's right images stand.

Over the ranks r_1 < ... < r_n of a query's right images (golden values in tests/evaluation/test_ranking.py):

  AP_precision = 1/n sum_i i / r_i
  AP_trapezoid = 1/n sum_i ((i - 1) / (r_i - 1) + i / r_i) / 2, with the first quotient 1 where r_i = 1
  INP          = n / r_n
  rank k       = 1 where r_1 <= k, else 0

A score is the mean over queries; a query without a right image counts 0 or not at all (`ranking.NoMatch`). One entry of
METRICS adds a metric everywhere: rankings, repeated draws, intervals, studies, tables and reports.

Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015; the trapezoid is the form of its
official code (and of Oxford Buildings); mINP: Ye et al., "Deep Learning for Person Re-identification: A Survey and
Outlook", 2021, section 4.2.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

RANKS = (1, 5, 10, 20)  # the k of rank k


class Ranks(NamedTuple):
    """Ranks of the right images of q queries, n ranks in all; every query has at least one."""

    rank: np.ndarray  # [n] int, from 1; query after query, ascending within each
    nth: np.ndarray  # [n] int: 1, 2, ... within a query
    start: np.ndarray  # [q] int, where a query's ranks begin
    count: np.ndarray  # [q] int, a query's right images

    @classmethod
    def of(cls, rank: np.ndarray, start: np.ndarray) -> "Ranks":
        """Ranks [n], query after query, each query's beginning at `start` [q]."""
        count = np.diff(start, append=len(rank))
        return cls(rank, np.arange(len(rank)) - np.repeat(start, count) + 1, start, count)

    @property
    def first(self) -> np.ndarray:
        """[q] rank of the nearest right image."""
        return self.rank[self.start]

    @property
    def last(self) -> np.ndarray:
        """[q] rank of the farthest right image."""
        return self.rank[self.start + self.count - 1]

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Means [q] over each query's right images of values [n]."""
        return np.add.reduceat(values, self.start) / self.count


class Metric(NamedTuple):
    """How one metric is computed and shown."""

    title: str  # of its column
    of: Callable[[Ranks], np.ndarray]  # -> [q] float64 in [0, 1], more is better
    cmc: bool = False  # asks for the first right image alone; some protocols take these over drawn galleries


def average_precision(ranks: Ranks) -> np.ndarray:
    """The mean of the precisions at the right images [q]."""
    return ranks.mean(ranks.nth / ranks.rank)


def average_precision_trapezoid(ranks: Ranks) -> np.ndarray:
    """The area under precision over recall by the trapezoid rule [q]."""
    before = np.where(ranks.rank == 1, 1.0, (ranks.nth - 1) / np.maximum(ranks.rank - 1, 1))
    return ranks.mean((before + ranks.nth / ranks.rank) / 2)


def inverse_negative_penalty(ranks: Ranks) -> np.ndarray:
    """Right images over the rank of the last of them [q]."""
    return ranks.count / ranks.last


def within(ranks: Ranks, k: int) -> np.ndarray:
    """Whether the first right image is among the first k [q]."""
    return (ranks.first <= k).astype(np.float64)


def rank_at(k: int) -> Metric:
    """The metric rank k: a point of the cumulative matching characteristic (CMC)."""
    return Metric(f"r{k}", functools.partial(within, k=k), cmc=True)


METRICS: dict[str, Metric] = {
    "mAP_precision": Metric("mAP prec.", average_precision),
    "mAP_trapezoid": Metric("mAP trap.", average_precision_trapezoid),
    "mINP": Metric("mINP", inverse_negative_penalty),
    **{f"rank{k}": rank_at(k) for k in RANKS},
}


def with_ranks(ranks: Sequence[int]) -> dict[str, Metric]:
    """METRICS with these k in place of RANKS."""
    return {name: m for name, m in METRICS.items() if not m.cmc} | {f"rank{k}": rank_at(k) for k in ranks}


def of_many(ranks: np.ndarray, valid: np.ndarray, table: Mapping[str, Metric] = METRICS) -> dict[str, np.ndarray]:
    """Metrics of q queries under S settings, name -> [S, q]; 0 for a query without a right image.

    Args:
      ranks: [S, q, R] int, from 1, in any order.
      valid: [q, R] bool, which of them there are.
      table: the metrics.
    """
    order = np.sort(np.where(valid, ranks, np.iinfo(ranks.dtype).max), axis=2)
    count = np.tile(valid.sum(axis=1), len(ranks))  # [S q]
    flat = order[np.arange(valid.shape[1]) < count.reshape(len(ranks), -1, 1)]
    return spread(Ranks.of(flat, (np.cumsum(count) - count)[count > 0]), count.reshape(len(ranks), -1) > 0, table)


def spread(ranks: Ranks, where: np.ndarray, table: Mapping[str, Metric] = METRICS) -> dict[str, np.ndarray]:
    """Metrics, name -> float64 of the shape of `where` (bool, True q times): in its order where True, 0 elsewhere."""
    found = {}
    for name, metric in table.items():
        found[name] = np.zeros(where.shape)
        if len(ranks.start):
            found[name][where] = metric.of(ranks)
    return found
