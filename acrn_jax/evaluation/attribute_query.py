"""Attribute queries: a wish list instead of a picture, and how well attribute scores rank a gallery for it.

A wish list names 1 to 5 attributes, each to show or not to show. A gallery image is right where all of its labels are as
wished, wrong where a known one is not, and left out of that list's ranking where what is known fits and the rest is
unknown. So one image of a gallery is right for many lists, and no list is of a person.

Lists are drawn from the labels (`draw`): an image that nobody chose, `number` of its known attributes, the first one
that it shows, each further one that it shows with probability 2/3, else one that it does not show. A list is kept in
the band of the share of images that are right for it, until each band of each number has `each` different ones.

What attributes are worth together is a rule (RULES): a cost for each wished attribute, summed, lowest first. Equal sums
stand in the order of the images, as in every ranking here.

Intervals of mAP are over the people who are shown, for these lists, by influence functions: what an image of weight w
adds to the mean of AP = sum_i w_i R_i / K_i / sum_i w_i over right images i, R and K being sums of weights down to i of
right and of all images. The other metrics jump with an image and have none.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from acrn_jax.evaluation import metrics, ranking, resampling
from acrn_jax.evaluation.metrics import Metric, Ranks
from acrn_jax.schema import UNKNOWN

NUMBERS = (1, 2, 3, 4, 5)
BANDS = {"rare": (0.0, 0.01), "seldom": (0.01, 0.05), "common": (0.05, 0.2), "frequent": (0.2, 0.5)}  # (above, up to]
SHOWN = 2 / 3  # of the attributes after the first
FAR = (1e-3, 1e-2, 1e-1)
_TRIES = 200  # images drawn for each list that is wanted
_SMALLEST = 1e-7  # probability that a rule tells from 0, and from 1


class WishList(NamedTuple):
    """What should show and what should not."""

    wishes: dict[int, int]  # column of the labels -> 1 or 0
    band: str  # key of BANDS
    right: int  # images

    @property
    def number(self) -> int:
        return len(self.wishes)


# Wish lists


def fits(labels: np.ndarray, wishes: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Which images [N] bool are right for wishes, and which are wrong, by labels [N, A] 1, 0 or -1 (unknown)."""
    columns, wanted = labels[:, list(wishes)], np.array(list(wishes.values()))
    return (columns == wanted).all(axis=1), ((columns != wanted) & (columns != UNKNOWN)).any(axis=1)


def draw(labels: np.ndarray, *, each: int = 20, numbers: Sequence[int] = NUMBERS, seed: int = 0) -> list[WishList]:
    """Different wish lists, by number of attributes and band; fewer than `each` where few combinations are so frequent.

    Args:
      labels: [N, A] int8, 1 yes, 0 no, -1 unknown.
      each: lists for a number of attributes and a band.
      numbers: of attributes.
      seed: same labels and seed, same lists.

    Raises:
      ValueError: no list can be drawn.
    """
    generator, found = np.random.default_rng(seed), []
    candidates = np.flatnonzero((labels == 1).any(axis=1))
    for number in numbers if candidates.size else ():
        kept: dict[str, dict[tuple, WishList]] = {band: {} for band in BANDS}
        for _ in range(_TRIES * each):
            wishes = _wishes(labels[generator.choice(candidates)], number, generator)
            name = tuple(sorted(wishes.items()))
            if len(wishes) < number or any(name in of for of in kept.values()):
                continue
            right, wrong = (int(part.sum()) for part in fits(labels, wishes))
            share = right / (right + wrong)
            band = next((b for b, (above, to) in BANDS.items() if above < share <= to), None)
            if band and len(kept[band]) < each:
                kept[band][name] = WishList(dict(name), band, right)
            if all(len(of) == each for of in kept.values()):
                break
        found += [wish for of in kept.values() for wish in of.values()]
    if not found:
        raise ValueError(
            f"No wish list can be drawn from labels {list(labels.shape)}: each attribute that is shown at all is shown on "
            f"more than {BANDS['frequent'][1]:.0%} of the images; give labels of more attributes or images."
        )
    return found


def _wishes(labels: np.ndarray, number: int, generator: np.random.Generator) -> dict[int, int]:
    """Up to `number` wishes that an image's labels [A] fulfil, the first one of what it shows."""
    shown, hidden = (generator.permutation(np.flatnonzero(labels == value)).tolist() for value in (1, 0))
    yes = min(1 + generator.binomial(number - 1, SHOWN), len(shown))
    return dict.fromkeys(shown[:yes], 1) | dict.fromkeys(hidden[: number - yes], 0)


# Rules: costs of each wish [N, n] from probabilities [N, n] and wishes [n]


def _of_wish(probabilities: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Probability of what is wished, in float64, within (0, 1)."""
    p = np.asarray(probabilities, np.float64)
    return np.clip(np.where(wanted == 1, p, 1 - p), _SMALLEST, 1 - _SMALLEST)


RULES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "squares": lambda p, wanted: (1 - _of_wish(p, wanted)) ** 2,
    "product": lambda p, wanted: -np.log(_of_wish(p, wanted)),  # the lowest sum is the largest product
    "log_odds": lambda p, wanted: -special.logit(_of_wish(p, wanted)),
}


def costs(
    probabilities: np.ndarray, wishes: Mapping[int, int], rule: str = "product", weights: np.ndarray | None = None
) -> np.ndarray:
    """Costs [N] of images with probabilities [N, A]; the lowest fits best. `weights` [A]: of the attributes' costs."""
    columns = list(wishes)
    each = RULES[rule](probabilities[:, columns], np.array(list(wishes.values())))
    return each.sum(axis=1) if weights is None else each @ weights[columns]


def learn(
    probabilities: np.ndarray, labels: np.ndarray, lists: Sequence[WishList], rule: str = "product"
) -> np.ndarray:
    """Weights [A], 0 or more, of the attributes' costs: those with which costs tell right from wrong images best.

    A logistic regression over all images of all lists, a list's right images together weighing as much as its wrong
    ones, each list with a constant of its own number of attributes; weights are drawn towards 1 as by one list each.

    Args:
      probabilities: [N, A] of images of people who are not those of the test.
      labels: [N, A] of the same images.
      lists: drawn from these labels.
      rule: key of RULES.
    """
    rows = []
    for wish in lists:
        right, wrong = fits(labels, wish.wishes)
        each = RULES[rule](probabilities[:, list(wish.wishes)], np.array(list(wish.wishes.values())))
        for part, sign in ((right, 1.0), (wrong, -1.0)):
            if right.any() and wrong.any():
                rows.append((list(wish.wishes), wish.number, each[part], sign))
    count = probabilities.shape[1]

    def loss(x):
        weights, offsets = x[:count], x[count:]
        value, slope = 0.5 * np.sum((weights - 1) ** 2), np.r_[weights - 1, np.zeros(len(offsets))]
        for columns, number, each, sign in rows:
            z = sign * (offsets[number] - each @ weights[columns])
            value -= special.log_expit(z).mean()
            pull = -sign * special.expit(-z) / len(z)
            slope[columns] -= each.T @ pull
            slope[count + number] += pull.sum()
        return value, slope

    start = np.r_[np.ones(count), np.zeros(max(NUMBERS) + 1)]
    bounds = [(0, None)] * count + [(None, None)] * (max(NUMBERS) + 1)
    return optimize.minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds).x[:count]


# Scores


def _precision(ranks: Ranks, k: int) -> np.ndarray:
    return np.add.reduceat((ranks.rank <= k).astype(np.float64), ranks.start) / k


METRICS: dict[str, Metric] = {
    "mAP_precision": metrics.METRICS["mAP_precision"],
    **{f"rank{k}": metrics.rank_at(k) for k in (1, 5, 10)},
    **{f"precision{k}": Metric(f"p@{k}", functools.partial(_precision, k=k)) for k in (5, 10, 20)},
}
RECALL = {f"recall_far{far:g}": far for far in FAR}  # right images before more than that share of the wrong ones


class Scores(NamedTuple):
    """What one row reached on L lists."""

    per_list: dict[str, np.ndarray]  # keys of METRICS and RECALL -> [L], fractions
    influence: np.ndarray  # [L, N] of an image on its list's average precision, see above; [L, 0] where there is none

    def mean(self, of: np.ndarray | slice = slice(None)) -> dict[str, float]:
        """Means over the lists `of` ([L] bool)."""
        return {name: float(values[of].mean()) for name, values in self.per_list.items()}


def score(costs_of: Callable[[WishList], np.ndarray], labels: np.ndarray, lists: Sequence[WishList]) -> Scores:
    """Ranks all images for each list.

    Args:
      costs_of: list -> costs [N], lowest first.
      labels: [N, A].
      lists: with at least one right image each.

    Raises:
      ValueError: a list without a right image, or costs that are not finite.
    """
    found, wrongs, influence = [], [], np.zeros((len(lists), len(labels)), np.float32)
    for number, wish in enumerate(lists):
        right, wrong = fits(labels, wish.wishes)
        cost, valid = np.asarray(costs_of(wish)), np.flatnonzero(right | wrong)
        if not right.any() or not np.isfinite(cost[valid]).all():
            raise ValueError(f"List {number} has {right.sum()} right images, and costs that are not all finite.")
        order = valid[np.argsort(cost[valid], kind="stable")]
        hit = right[order].astype(np.float64)
        found.append(np.flatnonzero(hit) + 1)
        wrongs.append(int(wrong.sum()))
        influence[number, order] = _influence(hit)
    count = np.array([len(rank) for rank in found])
    ranks = Ranks.of(np.concatenate(found), np.cumsum(count) - count)
    scores = {name: metric.of(ranks) for name, metric in METRICS.items()}
    before, wrongs = ranks.rank - ranks.nth, np.array(wrongs)
    for name, far in RECALL.items():
        scores[name] = ranks.mean((before <= np.repeat(_allowed(far, wrongs), count)).astype(np.float64))
    return Scores(scores, influence)


def expected(labels: np.ndarray, lists: Sequence[WishList]) -> Scores:
    """What random orders reach on average."""
    right, wrong = (np.array(n) for n in zip(*(map(np.sum, fits(labels, w.wishes)) for w in lists), strict=True))
    images = right + wrong
    scores = {"mAP_precision": ranking._random_precision(right, images)}
    for name in METRICS:
        if name.startswith("rank"):  # 1 - chance that the first k are all wrong
            scores[name] = 1 - special.binom(wrong, k := int(name[4:])) / special.binom(images, k)
        elif name.startswith("precision"):
            scores[name] = right / images * np.minimum(1, images / int(name[9:]))
    scores |= {name: (_allowed(far, wrong) + 1) / (wrong + 1) for name, far in RECALL.items()}
    return Scores(scores, np.zeros((len(lists), 0), np.float32))


def _allowed(far: float, wrong: np.ndarray) -> np.ndarray:
    """How many wrong images may be accepted."""
    return np.floor(far * wrong + 1e-9)


def _influence(hit: np.ndarray) -> np.ndarray:
    """Derivative of the average precision by the weight of each image [n], in the order of the ranking."""
    down, images = np.cumsum(hit), np.arange(1, len(hit) + 1)
    precision = hit @ (down / images) / down[-1]
    later, falling = (np.cumsum(v[::-1])[::-1] for v in (hit / images, hit * down / images**2))
    return (hit * (down / images - precision + later) - falling) / down[-1]


def intervals(
    scores: Mapping[str, Scores], person_id: np.ndarray, of: np.ndarray | slice = slice(None), **options: Any
) -> dict[str, resampling.Interval]:
    """Interval of each row's mAP over the people shown [N], for these lists; images below 1 are each their own."""
    count, person = len(person_id), np.asarray(person_id)
    groups = np.where(person > 0, person, -1 - np.arange(count))
    rows = {name: of_row for name, of_row in scores.items() if of_row.influence.size}
    values = [
        s.mean(of)["mAP_precision"] + count * s.influence[of].mean(axis=0, dtype=np.float64) for s in rows.values()
    ]
    return dict(zip(rows, resampling.resample(np.stack(values, axis=1), groups, **options), strict=True))
