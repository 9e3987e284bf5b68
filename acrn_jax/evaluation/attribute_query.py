"""Attribute queries: a wish list instead of a picture, and how well attribute scores rank a gallery for it.

A wish list names 1 to 5 attributes, each to show or not to show. A gallery image is right where its labels are as
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
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, special

from acrn_jax.evaluation import attributes, metrics, operating_points, ranking, resampling
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
                kept[band][name] = WishList(dict(name), band)
            if all(len(of) == each for of in kept.values()):
                break
        found += [wish for of in kept.values() for wish in of.values()]
    if not found:
        raise ValueError(
            f"No wish list can be drawn from labels {list(labels.shape)}: no attribute or combination is shown on at "
            f"most {BANDS['frequent'][1]:.0%} of the images; give labels of more attributes or images."
        )
    return found


def to_json(lists: Sequence[WishList], names: Sequence[str]) -> list[dict[str, Any]]:
    """Lists as JSON values, attributes by their names [A]."""
    return [
        {
            "want": sorted(names[a] for a, wanted in wish.wishes.items() if wanted),
            "not": sorted(names[a] for a, wanted in wish.wishes.items() if not wanted),
            "band": wish.band,
        }
        for wish in lists
    ]


def of_json(stored: Any, names: Sequence[str], labels: np.ndarray) -> list[WishList]:
    """What `to_json` gave, for labels [N, A] of attributes [A], which may be of other images.

    Raises:
      ValueError: no wish lists, an attribute that is not among the names, or a list that no image is right for.
    """
    try:
        wished = [(dict.fromkeys(e["want"], 1) | dict.fromkeys(e["not"], 0), str(e["band"])) for e in stored]
    except (KeyError, TypeError) as error:
        raise ValueError('Wish lists are [{"want": [names], "not": [names], "band": text}, ...].') from error
    found = []
    for number, (wishes, band) in enumerate(wished):
        if unknown := [name for name in wishes if name not in names]:
            raise ValueError(f"Wish list {number} wishes for {unknown[0]}, which is not among {', '.join(names)}.")
        wish = WishList({names.index(name): wanted for name, wanted in wishes.items()}, band)
        if not wishes or not fits(labels, wish.wishes)[0].any():
            raise ValueError(f"No image is right for wish list {number} ({wishes}); draw lists from these labels.")
        found.append(wish)
    if not found:
        raise ValueError("There are no wish lists.")
    return found


def digest(lists: Sequence[WishList], names: Sequence[str]) -> str:
    """sha256 of the lists, by the attributes' names."""
    return hashlib.sha256(json.dumps(to_json(lists, names)).encode()).hexdigest()


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


def people(person_id: np.ndarray) -> np.ndarray:
    """Who is on images [N], numbered from 1; an image with an id below 1 shows somebody of its own."""
    person = np.asarray(person_id)
    return np.unique(np.where(person > 0, person, -1 - np.arange(len(person))), return_inverse=True)[1] + 1


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
    influence: np.ndarray  # [N] of an image on the mean average precision, see above; [0] where there is none

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
    found, wrongs, influence = [], [], np.zeros(len(labels))
    for number, wish in enumerate(lists):
        right, wrong = fits(labels, wish.wishes)
        cost, valid = np.asarray(costs_of(wish)), np.flatnonzero(right | wrong)
        if not right.any() or not np.isfinite(cost[valid]).all():
            raise ValueError(f"List {number} has {right.sum()} right images, and costs that are not all finite.")
        order = valid[np.argsort(cost[valid], kind="stable")]
        hit = right[order].astype(np.float64)
        found.append(np.flatnonzero(hit) + 1)
        wrongs.append(int(wrong.sum()))
        influence[order] += _influence(hit) / len(lists)
    count = np.array([len(rank) for rank in found])
    ranks = Ranks.of(np.concatenate(found), np.cumsum(count) - count)
    scores = {name: metric.of(ranks) for name, metric in METRICS.items()}
    before, wrongs = ranks.rank - ranks.nth, np.array(wrongs)
    for name, far in RECALL.items():
        allowed = np.repeat(operating_points._allowed(far, wrongs), count)
        scores[name] = ranks.mean((before <= allowed).astype(np.float64))
    return Scores(scores, influence)


def expected(labels: np.ndarray, lists: Sequence[WishList]) -> Scores:
    """What random orders reach on average."""
    right, wrong = (np.array(n) for n in zip(*(map(np.sum, fits(labels, w.wishes)) for w in lists), strict=True))
    images = right + wrong
    scores = {"mAP_precision": ranking._random_precision(right, images)}
    for name in METRICS:
        if name.startswith("rank"):  # 1 - chance that the first k are all wrong
            first = np.minimum(int(name[4:]), images)
            scores[name] = 1 - special.binom(wrong, first) / special.binom(images, first)
        elif name.startswith("precision"):
            scores[name] = right / images * np.minimum(1, images / int(name[9:]))
    scores |= {name: (operating_points._allowed(far, wrong) + 1) / (wrong + 1) for name, far in RECALL.items()}
    return Scores(scores, np.zeros(0))


def _influence(hit: np.ndarray) -> np.ndarray:
    """Derivative of the average precision by the weight of each image [n], in the order of the ranking."""
    down, images = np.cumsum(hit), np.arange(1, len(hit) + 1)
    precision = hit @ (down / images) / down[-1]
    later, falling = (np.cumsum(v[::-1])[::-1] for v in (hit / images, hit * down / images**2))
    return (hit * (down / images - precision + later) - falling) / down[-1]


def intervals(scores: Mapping[str, Scores], person_id: np.ndarray, **options: Any) -> dict[str, resampling.Interval]:
    """Interval of each row's mAP over the people shown [N], for these lists; images below 1 are each their own."""
    rows = {name: of for name, of in scores.items() if of.influence.size}
    values = [of.per_list["mAP_precision"].mean() + len(person_id) * of.influence for of in rows.values()]
    return dict(zip(rows, resampling.resample(np.stack(values, axis=1), people(person_id), **options), strict=True))


def evaluate(
    probabilities: np.ndarray,
    labels: np.ndarray,
    person_id: np.ndarray,
    names: Sequence[str],
    lists: Sequence[WishList],
    *,
    weights: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Every rule beside what needs no net, as JSON values: what `results.AttributeQueries` says of scores and lists.

    | row | costs |
    | --- | --- |
    | product, squares, log_odds | RULES of the probabilities |
    | learned_RULE | the rule's costs times `weights` |
    | marginal | the product of how frequent each wish is: equal for all images, so their order in the file decides |
    | oracle | the product of the true labels |
    | random | expected of random orders |

    Args:
      probabilities: [N, A] of yes.
      labels: [N, A] 1 yes, 0 no, -1 unknown.
      person_id: [N], whose images are drawn together; below 1: an image for itself.
      names: of the attributes [A].
      lists: see `draw`.
      weights: rule -> [A], see `learn`.

    Raises:
      ValueError: shapes disagree, a probability is not in [0, 1], a label is none of the three.
    """
    probabilities, labels = attributes._check(probabilities, labels)
    if np.shape(person_id) != labels.shape[:1]:
        raise ValueError(f"{len(labels)} images want as many person ids, got {list(np.shape(person_id))}.")
    frequency = (labels == 1).sum(axis=0) / np.maximum((labels != UNKNOWN).sum(axis=0), 1)
    marginal = np.broadcast_to(frequency, labels.shape)
    shown = {rule: (probabilities, rule, None) for rule in ("product", "squares", "log_odds")}
    shown |= {f"learned_{rule}": (probabilities, rule, w) for rule, w in (weights or {}).items()}
    shown |= {"marginal": (marginal, "product", None)}
    shown |= {"oracle": (np.where(labels == UNKNOWN, marginal, labels), "product", None)}
    found = {
        row: score(lambda wish, of=of: costs(of[0], wish.wishes, *of[1:]), labels, lists) for row, of in shown.items()
    }
    own, changes = found["product"], {}
    for name, of_row in found.items():
        changes[name] = of_row._replace(
            per_list={metric: values - own.per_list[metric] for metric, values in of_row.per_list.items()},
            influence=of_row.influence - own.influence,
        )
    ends, change_ends = intervals(found, person_id), intervals(changes, person_id)
    parts = {"by_number": {str(n): [w.number == n for w in lists] for n in sorted({w.number for w in lists})}}
    parts["by_band"] = {band: [w.band == band for w in lists] for band in dict.fromkeys(w.band for w in lists)}
    rows = {}
    for name, of_row in (found | {"random": expected(labels, lists)}).items():
        rows[name] = {"metrics": of_row.mean()}
        for by, masks in parts.items():
            rows[name][by] = {part: of_row.mean(np.array(mask))["mAP_precision"] for part, mask in masks.items()}
        if name in ends:
            rows[name]["interval"] = _ends(ends[name])
        if name in changes and name != "product":
            rows[name]["change"] = _ends(change_ends[name])
    return {
        "images": len(labels),
        "people": int(people(person_id).max()),
        "attributes": list(names),
        "wish_lists": to_json(lists, names),
        "lists_sha256": digest(lists, names),
        "counts": {by: {part: sum(mask) for part, mask in masks.items()} for by, masks in parts.items()},
        "rows": rows,
        "interval": "95 % over people, for these lists, by influence functions, 10,000 resamples, seed 0",
    }


def _ends(interval: resampling.Interval) -> dict[str, float | None]:
    return {name: float(value) if np.isfinite(value) else None for name, value in interval._asdict().items()}
