"""How near must a picture be to count, so that searches for people who are not there seldom find anybody?

A search for a stranger raises a false alarm where any picture of the gallery is nearer than the threshold. The share of
such searches grows with the gallery, so thresholds belong to a size. Of a gallery of G pictures, k of which are nearer,
a part of g pictures, drawn at random, raises none with the probability C(G - k, g) / C(G, g): exact, nothing is drawn.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
STEPS = 400  # of thresholds that are tried
DRAWS = 200  # of people, for intervals
LEVEL = (2.5, 97.5)  # per cent


class Searches(NamedTuple):
    """Searches for people of whom no picture counts: Q queries in a gallery of G pictures."""

    distance: np.ndarray  # [Q, G]
    own: np.ndarray  # [Q, G] bool: of the query's person, thus left out
    person: np.ndarray  # [Q] of the query


class Thresholds(NamedTuple):
    """Distances below which a picture passes, by gallery size and rate of false alarms."""

    size: np.ndarray  # [S] rising
    rate: np.ndarray  # [R] rising
    threshold: np.ndarray  # [S, R]
    low: np.ndarray  # [S, R] ends of its interval of 95 %, over people
    high: np.ndarray  # [S, R]

    def of(self, rate: float, size: int) -> tuple[float, float, float]:
        """(threshold, low, high), between those that were measured; beyond the largest gallery that of the largest.

        Raises:
          ValueError: the rate lies outside what was measured.
        """
        if not self.rate[0] * (1 - 1e-9) <= rate <= self.rate[-1]:
            raise ValueError(
                f"A share of false alarms of {rate:g} was not measured: the calibration's people tell of "
                f"{self.rate[0]:g} to {self.rate[-1]:g}; ask for one of these, or calibrate on more people."
            )
        found = []
        for table in (self.threshold, self.low, self.high):
            at_rate = [np.interp(np.log(rate), np.log(self.rate), row) for row in table]
            found.append(float(np.interp(np.log(max(size, 1)), np.log(self.size), at_rate)))
        return found[0], found[1], found[2]


def thresholds(searches: Sequence[Searches], *, seed: int = 0) -> Thresholds:
    """The largest thresholds at which no more than a share of searches for strangers finds anybody.

    Rates begin where one person in all of them would be less. Of several sets, those tell of a size that have so large
    a gallery; a threshold never grows with the gallery.

    Args:
      searches: of one or several data sets.
      seed: of the draws of people.

    Raises:
      ValueError: there are fewer than two people, or no picture of another person.
    """
    people = sum(len(np.unique(part.person)) for part in searches)
    sizes = [int((~part.own).sum(axis=1).min()) for part in searches if len(part.person)]
    if people < 2 or min(sizes, default=0) < 1:
        raise ValueError(f"There are searches for {people} people; at least two are wanted, each in others' pictures.")
    rates = np.array([rate for rate in RATES if rate * people >= 1])
    everything = np.sort(np.concatenate([part.distance[~part.own] for part in searches]))
    grid = everything[np.unique(np.geomspace(1, len(everything), STEPS).astype(int)) - 1].astype(np.float64)
    steps = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
    size = np.array([step for step in steps if 10 <= step < max(sizes)] + [max(sizes)])
    generator, tables = np.random.default_rng(seed), []
    for g in size:
        summed, counts = (
            np.concatenate(parts)
            for parts in zip(
                *(_alarms(p, grid, g) for p, s in zip(searches, sizes, strict=True) if s >= g), strict=True
            )
        )
        drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), DRAWS)
        weights = np.concatenate([np.ones((1, len(counts))), drawn])  # the first row is all people, once each
        share = (weights @ summed) / (weights @ counts)[:, None]  # [1 + DRAWS, STEPS], rising
        at = [grid[np.maximum((share <= rate * (1 + 1e-9)).sum(axis=1) - 1, 0)] for rate in rates]
        tables.append([(own[0], *np.percentile(own[1:], LEVEL)) for own in at])
    found = np.minimum.accumulate(np.array(tables), axis=0)  # [S, R, 3]
    return Thresholds(size, rates, *np.moveaxis(found, 2, 0))


def alarm_rate(searches: Searches, threshold: float, size: int) -> float:
    """Share of searches that find anybody nearer than a threshold, in random parts of the gallery of that size."""
    summed, counts = _alarms(searches, np.array([threshold]), size)
    return float(summed.sum() / counts.sum())


def _alarms(searches: Searches, grid: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """([P, T] sums over each person's searches of the probability of an alarm, [P] their number)."""
    others = (~searches.own).sum(axis=1)
    rows = np.sort(np.where(searches.own, np.inf, searches.distance), axis=1)
    nearer = np.stack([np.searchsorted(row, grid) for row in rows])  # [Q, T]
    rest, whole = (others[:, None] - nearer).astype(float), others[:, None].astype(float)
    logs = special.gammaln(rest + 1) - special.gammaln(np.maximum(rest - size, 0) + 1)
    logs -= special.gammaln(whole + 1) - special.gammaln(np.maximum(whole - size, 0) + 1)
    alarm = np.where(rest >= size, 1 - np.exp(np.minimum(logs, 0)), 1.0)
    _, place = np.unique(searches.person, return_inverse=True)
    summed = np.zeros((place.max() + 1, len(grid)))
    np.add.at(summed, place, alarm)
    return summed, np.bincount(place).astype(float)
