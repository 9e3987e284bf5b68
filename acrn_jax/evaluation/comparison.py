"""Is one ranking better than another on the same queries, and could this test set tell?

Differences are paired by query and tested over people, as queries of one person resemble each other, and over training
seeds and splits of the data where there are several:

| given | interval (`resampling.over_replicates`) | p-value, two-sided |
| --- | --- | --- |
| one run of each | bootstrap over people | permutation: each person's difference keeps or changes its sign |
| several seeds on one split | t over seeds and bootstrap over people | t of both, degrees after Satterthwaite |
| several splits | Student's t over splits | Student's t over splits |

p-values of several rankings against one are Holm's, within each metric. The smallest difference that a set can show is
the one that a two-sided test at 5 % finds in 80 of 100 cases.

Sources: Smucker et al., "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", CIKM
2007 (the permutation); Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979; Satterthwaite, "An
Approximate Distribution of Estimates of Variance Components", 1946; Cohen, "Statistical Power Analysis", 1988.
"""

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from acrn_jax.evaluation import resampling
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.evaluation.resampling import Interval

LEVEL, POWER = 0.95, 0.8
VERDICT_ON = "mAP_precision"
_CELLS = 1 << 22  # signs that are held at once
_MOST = 1_000_000  # seeds, splits or people beyond which nobody is told to collect that many


class Scored(NamedTuple):
    """What one ranking reached, for each query."""

    scores: Mapping[str, np.ndarray]  # metric -> [Q]
    metrics: Mapping[str, float]  # metric -> its mean, over draws of galleries where there are some
    counted: np.ndarray  # [Q] bool, over which the means are
    person_id: np.ndarray  # [Q] int
    key: np.ndarray | None = None  # [Q] names of the queries, by which two rankings are joined; None: by their order
    camera_id: np.ndarray | None = None  # [Q] int, compared where both have it
    gallery: int | None = None  # its images, likewise


@dataclasses.dataclass(frozen=True)
class Difference:
    """One metric of the first ranking minus that of another; fractions."""

    metric: str
    first: float  # mean over replicates
    other: float
    interval: Interval  # of first - other
    p_value: float  # NaN where there is one person and nothing to draw
    adjusted: float  # Holm's, over the rankings that the first is compared with
    detectable: float  # smallest difference found in 80 of 100 cases
    needed: tuple[int, str] | None  # how many "people", "seeds" or "splits" would show this one; None: no number would


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The first ranking beside each of the others; prints as tables of per cent with a verdict in words."""

    first: str
    others: Mapping[str, tuple[Difference, ...]]
    over: str  # what the intervals are over
    queries: int  # of all splits
    people: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values; fractions, with None for NaN."""
        return {
            "schema": 1,
            "first": self.first,
            "over": self.over,
            "queries": self.queries,
            "people": self.people,
            "level": LEVEL,
            "power": POWER,
            "others": {
                name: {"verdict": verdict(self.first, name, of), "differences": [_plain(each) for each in of]}
                for name, of in self.others.items()
            },
        }

    def __str__(self) -> str:
        lines = [f"{self.queries:,} queries of {self.people:,} people; intervals over {self.over}"]
        for name, of in self.others.items():
            lines += ["", *textwrap.wrap(verdict(self.first, name, of), _WIDTH), _HEAD, *map(_row, of)]
            holm = f"; p is Holm's over {len(self.others)} rankings" if len(self.others) > 1 else ""
            lines.append(f"A: {self.first}; B: {name}{holm}")
        return "\n".join(lines)

    __repr__ = __str__


_HEAD = f"{'metric':<10} {'A':>6} {'B':>6}   {'A - B (95 %)':<23} {'p':>6}   smallest to show"
_WIDTH = 100


def compare(rankings: Mapping[str, Scored | Sequence[Scored]], *, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """The first of several rankings beside each of the others, on the metrics that all of them have.

    Args:
      rankings: name -> its scores, or those of its replicates (training seeds, splits of the data): the i-th of each
        ranking are of the same queries. Replicates of the same queries are seeds of one split.
      resamples: of the bootstrap, and number of permutations.
      seed: same seed, same intervals and p-values.

    Raises:
      ValueError: fewer than two rankings, unequal numbers of replicates, other queries in the same place, no metric
        that all have, or a mixture of splits with unequal numbers of seeds.
    """
    if len(rankings) < 2:
        raise ValueError(f"A comparison wants two rankings or more, got {', '.join(rankings) or 'none'}.")
    lists = {name: [of] if isinstance(of, Scored) else list(of) for name, of in rankings.items()}
    (first, own), *rest = lists.items()
    names = [name for name in METRICS if all(name in one.scores for of in lists.values() for one in of)]
    if not names:
        raise ValueError(f"{', '.join(lists)} have no metric in common; evaluate them with the same ranks.")
    for name, of in rest:
        if len(of) != len(own) or not of:
            raise ValueError(
                f"{first} has {len(own)} replicates and {name} {len(of)}; give as many of each, in one order."
            )
    splits = _splits(own)
    found: dict[str, list[Difference]] = {}
    for name, of in rest:
        pairs = [paired(a, b, names, (first, name)) for a, b in zip(own, of, strict=True)]
        scores = [np.stack([pairs[i] for i in members]) for members in splits]
        groups = [own[members[0]].person_id[own[members[0]].counted] for members in splits]
        means = [[float(np.mean([one.metrics[metric] for one in each])) for each in (own, of)] for metric in names]
        found[name] = _differences(names, means, scores, groups, resamples, seed)
    adjusted = _holm({name: [each.p_value for each in of] for name, of in found.items()})
    found = {
        name: [dataclasses.replace(each, adjusted=float(p)) for each, p in zip(of, adjusted[name], strict=True)]
        for name, of in found.items()
    }
    heads = [own[members[0]] for members in splits]
    return Comparison(
        first,
        {name: tuple(of) for name, of in found.items()},
        _over(splits),
        sum(int(one.counted.sum()) for one in heads),
        sum(len(np.unique(one.person_id[one.counted])) for one in heads),
    )


def paired(
    first: Scored, second: Scored, names: Sequence[str], called: tuple[str, str] = ("first", "second")
) -> np.ndarray:
    """Differences first - second [n, M] of n counted queries and the metrics `names`.

    Where galleries are drawn a metric is a mean over draws and not over queries; its difference is then moved to have
    the metrics' difference as its mean.

    Raises:
      ValueError: they are not of the same queries; names the first that differs.
    """
    order = _order(first, second, called)
    if first.gallery is not None and second.gallery is not None and first.gallery != second.gallery:
        raise ValueError(
            f"{called[0]} was ranked against {first.gallery:,} gallery images and {called[1]} against "
            f"{second.gallery:,}; evaluate both on one gallery."
        )
    if not np.array_equal(first.counted, second.counted[order]):
        place = int(np.flatnonzero(first.counted != second.counted[order])[0])
        raise ValueError(
            f"{called[0]} and {called[1]} count other queries, the first is {_name(first, place)}: they were ranked by "
            "other protocols or against other galleries; evaluate both by one protocol on one gallery."
        )
    columns = []
    for name in names:
        own, other = first.scores[name][first.counted], second.scores[name][order][first.counted]
        moved = first.metrics[name] - second.metrics[name] - (own.mean() - other.mean())
        columns.append(own - other + moved)
    return np.stack(columns, axis=1)


def _order(first: Scored, second: Scored, called: tuple[str, str]) -> np.ndarray:
    """[Q] where each query of `first` is in `second`."""
    one, two = called
    if first.key is not None and second.key is not None:
        place = {key: i for i, key in enumerate(second.key.tolist())}
        if len(place) == len(second.key) and len(set(first.key.tolist())) == len(first.key):
            missing = [key for key in first.key.tolist() if key not in place]
            if missing or len(first.key) != len(second.key):
                alone = (
                    missing[0] if missing else next(k for k in second.key.tolist() if k not in set(first.key.tolist()))
                )
                raise ValueError(
                    f"{one} has {len(first.key):,} queries and {two} {len(second.key):,}; {alone} is in "
                    f"{one if missing else two} alone. Evaluate both on the same queries."
                )
            order = np.array([place[key] for key in first.key.tolist()])
            _same_labels(first, second, order, called)
            return order
    if len(first.person_id) != len(second.person_id):
        raise ValueError(
            f"{one} has {len(first.person_id):,} queries and {two} {len(second.person_id):,}; evaluate both on the "
            "same queries."
        )
    order = np.arange(len(first.person_id))
    _same_labels(first, second, order, called)
    return order


def _same_labels(first: Scored, second: Scored, order: np.ndarray, called: tuple[str, str]) -> None:
    for what in ("person", "camera"):
        own, other = getattr(first, f"{what}_id"), getattr(second, f"{what}_id")
        if own is None or other is None or np.array_equal(own, other[order]):
            continue
        place = int(np.flatnonzero(own != other[order])[0])
        raise ValueError(
            f"{_name(first, place)} is of {what} {own[place]} in {called[0]} and {other[order][place]} in {called[1]}; "
            "both must have the same queries in the same order, or names of queries to join them by."
        )


def _name(scored: Scored, place: int) -> str:
    return f"query {place}" if scored.key is None else str(scored.key[place])


def _splits(own: Sequence[Scored]) -> list[list[int]]:
    """Replicates by the queries that they are of: those of the same are seeds of one split."""
    found: list[list[int]] = []
    for i, one in enumerate(own):
        for members in found:
            head = own[members[0]]
            same_keys = head.key is None or one.key is None or np.array_equal(head.key, one.key)
            if (
                same_keys
                and np.array_equal(head.person_id, one.person_id)
                and np.array_equal(head.counted, one.counted)
            ):
                members.append(i)
                break
        else:
            found.append([i])
    if len({len(members) for members in found}) > 1:
        sizes = ", ".join(str(len(members)) for members in found)
        raise ValueError(f"The splits have {sizes} seeds; give as many of each, or each split's seeds alone.")
    return found


def _over(splits: Sequence[Sequence[int]]) -> str:
    if len(splits) > 1:
        return f"{len(splits)} splits (Student's t)"
    if len(splits[0]) > 1:
        return f"{len(splits[0])} seeds and people"
    return "people alone (bootstrap): another training may lie outside"


class _Error(NamedTuple):
    """Where the uncertainty of a mean difference comes from, for M metrics."""

    variance: tuple[np.ndarray, ...]  # of the mean, each [M]
    number: tuple[int, ...]  # of people, seeds or splits that each is over
    unit: tuple[str, ...]

    @property
    def total(self) -> np.ndarray:
        return np.sum(self.variance, axis=0)

    @property
    def degrees(self) -> np.ndarray:
        """[M] after Satterthwaite."""
        parts = sum(v**2 / (n - 1) for v, n in zip(self.variance, self.number, strict=True))
        return np.where(parts > 0, self.total**2 / np.where(parts > 0, parts, 1), min(self.number) - 1)


def _error(scores: Sequence[np.ndarray], groups: Sequence[np.ndarray]) -> _Error:
    if len(scores) > 1:
        means = np.array([each.mean(axis=(0, 1)) for each in scores])
        return _Error((means.var(axis=0, ddof=1) / len(means),), (len(means),), ("splits",))
    values, group = scores[0], np.unique(groups[0], return_inverse=True)[1]
    mean, people = values.mean(axis=0), int(group.max()) + 1
    centred = mean - mean.mean(axis=0)
    sums = np.stack([np.bincount(group, column) for column in centred.T], axis=1)  # [people, M]
    of_people = (sums**2).sum(axis=0) / len(group) ** 2 * people / max(people - 1, 1)
    if len(values) == 1:
        return _Error((of_people,), (people,), ("people",))
    of_seeds = values.mean(axis=1).var(axis=0, ddof=1) / len(values)
    share = resampling.people_share(values, group)
    return _Error((of_seeds, share * of_people), (len(values), people), ("seeds", "people"))


def _differences(names, means, scores, groups, resamples, seed) -> list[Difference]:
    intervals = resampling.over_replicates(scores, groups, seed=seed, resamples=resamples, level=LEVEL)
    error = _error(scores, groups)
    effect = np.array([end.mean for end in intervals])
    alone = len(scores) == 1 and len(scores[0]) == 1
    if min(error.number) < 2:
        p_values = detectable = np.full(len(names), np.nan)
    else:
        spread = np.sqrt(error.total)
        quantiles = special.stdtrit(error.degrees, (1 + LEVEL) / 2) + special.stdtrit(error.degrees, POWER)
        detectable = quantiles * spread
        p_values = (
            permutation(scores[0][0], groups[0], resamples, seed) if alone else _student(effect, spread, error.degrees)
        )
    return [
        Difference(
            name,
            means[i][0],
            means[i][1],
            intervals[i],
            float(p_values[i]),
            float("nan"),
            float(detectable[i]),
            _needed(error, i, abs(effect[i])),
        )
        for i, name in enumerate(names)
    ]


def _student(effect: np.ndarray, spread: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    """Two-sided p-values; 1 where nothing differs at all."""
    t = np.abs(effect) / np.where(spread > 0, spread, 1)
    return np.where(spread > 0, 2 * special.stdtr(degrees, -t), np.where(effect == 0, 1.0, 0.0))


def permutation(differences: np.ndarray, groups: np.ndarray, resamples: int = 10_000, seed: int = 0) -> np.ndarray:
    """Two-sided p-values [M] of mean differences [n, M]: each group's sum keeps its sign or changes it, by a fair coin.

    All sign patterns are gone through where there are no more of them than `resamples`; otherwise p is (1 + those as
    large) / (1 + resamples), which is never 0.
    """
    group = np.unique(groups, return_inverse=True)[1]
    sums = np.stack([np.bincount(group, column) for column in np.asarray(differences, np.float64).T], axis=1)
    number, observed = len(sums), np.abs(sums.sum(axis=0))
    close = observed - 1e-9 * np.maximum(np.abs(sums).sum(axis=0), 1e-300)  # sums in another order are as large
    if number < 40 and 2**number <= resamples:
        patterns = 2 * ((np.arange(2**number)[:, None] >> np.arange(number)) & 1) - 1
        return (np.abs(patterns @ sums) >= close).mean(axis=0)
    generator, large, step = np.random.default_rng(seed), np.zeros(sums.shape[1], int), max(1, _CELLS // number)
    for start in range(0, resamples, step):
        signs = 2.0 * generator.integers(0, 2, (min(step, resamples - start), number)) - 1
        large += (np.abs(signs @ sums) >= close).sum(axis=0)
    return (1 + large) / (1 + resamples)


def _holm(p_values: Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Adjusted p-values of each name's metrics: Holm over the names, within each metric."""
    table = np.array(list(p_values.values()))  # [names, M]
    order = np.argsort(table, axis=0, kind="stable")
    factors = np.arange(len(table), 0, -1)[:, None]
    stepped = np.minimum(np.maximum.accumulate(factors * np.take_along_axis(table, order, axis=0), axis=0), 1)
    adjusted = np.empty_like(table)
    np.put_along_axis(adjusted, order, stepped, axis=0)
    return dict(zip(p_values, adjusted, strict=True))


def _needed(error: _Error, column: int, effect: float) -> tuple[int, str] | None:
    """How many of the cheapest unit would show this difference in 80 of 100 cases, all else as here."""
    if not effect > 0 or min(error.number) < 2:
        return None
    parts = list(zip(error.variance, error.number, error.unit, strict=True))
    for i, (variance, number, unit) in enumerate(parts):  # seeds before people
        fixed = sum(v[column] for j, (v, *_) in enumerate(parts) if j != i)
        single = variance[column] * number  # of one seed, split or person
        if fixed and _shown(fixed, np.inf) > effect:
            continue  # more of this unit alone would never do
        low, high = 1, 2
        while _shown(fixed + single / high, high - 1) > effect and high < _MOST:
            low, high = high, 2 * high
        if high >= _MOST:
            continue
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if _shown(fixed + single / middle, middle - 1) > effect else (low, middle)
        return high, unit
    return None


def _shown(variance: float, degrees: float) -> float:
    """The smallest difference that a mean of this variance shows."""
    if math.isinf(degrees):
        return float((special.ndtri((1 + LEVEL) / 2) + special.ndtri(POWER)) * math.sqrt(variance))
    quantiles = special.stdtrit(degrees, (1 + LEVEL) / 2) + special.stdtrit(degrees, POWER)
    return float(quantiles * math.sqrt(variance))


def verdict(first: str, other: str, differences: Sequence[Difference]) -> str:
    """One sentence or two on `VERDICT_ON`, or on the first metric where that is not there."""
    of = next((each for each in differences if each.metric == VERDICT_ON), differences[0])
    title, effect = METRICS[of.metric].title, 100 * of.interval.mean
    if math.isnan(of.p_value):
        return f"{first} and {other} cannot be compared: the queries show one person, and nothing is known of others."
    if of.adjusted < 1 - LEVEL:
        better, worse = (first, other) if effect > 0 else (other, first)
        return f"{better} is better than {worse} on this set: {title} {abs(effect):.1f} higher (p {_p(of.adjusted)})."
    seen = f"{abs(effect):.1f} was seen" if effect else "no difference was seen"
    enough = f", which about {of.needed[0]:,} {of.needed[1]} would show" if of.needed else ""
    return (
        f"{first} and {other} cannot be told apart on this set: it shows differences in {title} of "
        f"{100 * of.detectable:.1f} or more, and {seen}{enough} (p {_p(of.adjusted)})."
    )


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 1e-3 else "below 0.001"


def _row(of: Difference) -> str:
    low, high = (f"{100 * end:+.1f}" if math.isfinite(end) else "?" for end in of.interval[1:])
    told = f"{100 * of.interval.mean:+.1f} ({low} to {high})"
    smallest = f"{100 * of.detectable:.1f}" if math.isfinite(of.detectable) else "?"
    p = f"{of.adjusted:.4f}" if math.isfinite(of.adjusted) else "?"
    title = METRICS[of.metric].title
    return f"{title:<10} {100 * of.first:>6.1f} {100 * of.other:>6.1f}   {told:<23} {p:>6}   {smallest:>16}"


def _plain(of: Difference) -> dict[str, Any]:
    def finite(values):
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

    return finite(dataclasses.asdict(of)) | {"interval": finite(of.interval._asdict())}
