"""What people whom the re-id net was not trained on say about attributes beside its feature: how loud, which weights.

On its own training people a net's feature is too good, so that nothing would seem to help it. Everything here is chosen
on held-out people, never on query or gallery, and cautiously: of settings that go from no attributes to loud ones, the
first is taken whose mAP lies within one standard error of the best. Attributes that do not help get a weight of 0.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from acrn_jax.evaluation import fusion, metrics, protocols, ranking
from acrn_jax.schema import Labels

GAMMAS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)  # of `choose`
FOLDS = 5  # of people, in cross-validation
PENALTIES = np.geomspace(1, 1e-3, 8)  # shares of the smallest penalty at which all weights are 0
_LITTLE = 1e-12  # variances and distances below are those of what does not vary
_LOUDEST = 1e3  # bound of the feature's factor, which people told apart without an error would push to infinity


# Values [n, B] -> vectors [n, K] whose squared L2 distance is an attribute distance.
Embedding = Callable[[np.ndarray], np.ndarray]


class People(NamedTuple):
    """Images of held-out people, each of which is ranked against all others."""

    distance: np.ndarray  # [N, N] of features, over s_f
    attributes: np.ndarray  # [N, A]
    labels: Labels  # [N], persons 1 or more

    def take(self, rows: np.ndarray) -> "People":
        """Those of the images `rows`, an index."""
        return People(self.distance[np.ix_(rows, rows)], self.attributes[rows], taken(self.labels, rows))


class Scores(NamedTuple):
    """Average precisions of settings, from no attributes to loud ones."""

    each: np.ndarray  # [S, n] of the queries that have something to find
    person: np.ndarray  # [n] of those queries


def taken(labels: Labels, rows: np.ndarray) -> Labels:
    """Those of the images `rows`, an index."""
    return Labels(*(values[rows] for values in labels))


def choose(people: People, attributes: np.ndarray, gammas: Sequence[float] = GAMMAS) -> tuple[float, Scores]:
    """Factor of attribute distances beside the feature's, 0 if they do not clearly help.

    Args:
      people: N held-out images.
      attributes: [N, N] attribute distances, over s_a.
      gammas: factors to try; 0 is always among them.
    """
    tried = np.unique(np.r_[0.0, gammas])
    scores = rank(people, [factor * attributes for factor in tried])
    return float(tried[cautious(scores)]), scores


def rank(people: People, additions: Sequence[np.ndarray]) -> Scores:
    """Average precisions with each of the distances `additions` [N, N] added.

    Images of other cameras are searched where cameras are known and somebody is seen by two (market1501), else all
    others (all_vs_all). Queries with nothing to find are left out.
    """
    labels, table = people.labels, {"mAP_precision": metrics.METRICS["mAP_precision"]}
    rules = {"protocol": _protocol(labels), "no_match": "skip", "table": table}
    found = [ranking.evaluate(people.distance + extra, labels, labels, **rules) for extra in additions]
    counted = found[0].counted
    return Scores(np.stack([one.per_query["mAP_precision"][counted] for one in found]), labels.person_id[counted])


def cautious(scores: Scores) -> int:
    """The first setting whose mean is within one standard error of the best one's.

    The error is that of the two means' difference, over people: queries of one person resemble each other.

    Source: Breiman et al., "Classification and Regression Trees", 1984, section 3.4.3 (the 1 SE rule).
    """
    means = scores.each.mean(axis=1)
    best = int(np.argmax(means))
    _, person = np.unique(scores.person, return_inverse=True)
    count = person.max() + 1
    for setting in range(best):
        lost = scores.each[best] - scores.each[setting]
        of_person = np.bincount(person, lost - lost.mean())
        error = np.sqrt(np.sum(of_person**2) * count / max(count - 1, 1)) / len(lost)
        if lost.mean() <= error * (1 + 1e-9):  # equal where a single person gains
            return setting
    return best


def pairs(labels: Labels) -> tuple[np.ndarray, np.ndarray]:
    """Right pairs of images, one person whom a ranking may find, and wrong ones, two people: bool [N, N] each."""
    same = labels.person_id[:, None] == labels.person_id
    rows, columns = np.nonzero(same)
    right, out = same.copy(), _protocol(labels).excluded(labels, labels, rows, columns)
    right[rows[out], columns[out]] = False
    return right, ~same


def folds(labels: Labels, seed: int) -> Iterator[np.ndarray]:
    """Masks [N] of the images of FOLDS parts of the people.

    Raises:
      ValueError: there are fewer people than that.
    """
    everybody = np.unique(labels.person_id)
    if len(everybody) < FOLDS:
        raise ValueError(
            f"Attribute weights are cross-validated over {FOLDS} parts of the held-out people, of whom there are "
            f"{len(everybody)}; hold more people out (config.data.validation_identities)."
        )
    shuffled = np.random.default_rng((seed, 0, 3)).permutation(everybody)
    for fold in range(FOLDS):
        yield np.isin(labels.person_id, shuffled[fold::FOLDS])


def crossed(
    values: np.ndarray, labels: Labels, learn: Callable[[np.ndarray], Embedding], *, seed: int = 0
) -> np.ndarray:
    """Attribute distances that for each query are learned on the other folds' people; their mean is 1, or all are 0.

    Args:
      values: [N, B].
      labels: [N].
      learn: index of the images to learn on -> embedding.
      seed: of the folds.

    Returns:
      float32 [N, N].
    """
    found = np.zeros((len(values), len(values)), np.float32)
    for inside in folds(labels, seed):
        rows, unit = distances(learn(np.flatnonzero(~inside))(values))
        found[inside] = rows[inside] / unit
    return found


def distances(vectors: np.ndarray) -> tuple[np.ndarray, float]:
    """Squared L2 distances [N, N] of all pairs of rows [N, K], and their mean, 1 if that is 0."""
    x = np.asarray(vectors, np.float64)
    found = np.asarray(fusion.squared_euclidean_rows(x, x)(slice(None))) if x.shape[1] else np.zeros((len(x), len(x)))
    mean = float(found.mean(dtype=np.float64))
    return found, mean if mean > _LITTLE else 1.0


def agreement(values: np.ndarray, labels: Labels) -> np.ndarray:
    """Weights c [A] >= 0 by how much less an attribute differs between images of one person than of two people.

    c = 1 / s - 1 / d, s and d the mean squared differences of right and wrong pairs (see `pairs`): the log likelihood
    ratio of normally distributed differences, each attribute by itself. For s stands the upper end of one standard
    error over people, so that an attribute that does not clearly agree gets exactly 0.

    Args:
      values: [N, A].
      labels: [N].

    Source: Koestinger et al., "Large scale metric learning from equivalence constraints", 2012, for a diagonal matrix.
    """
    right, wrong = pairs(labels)
    rows, columns = np.nonzero(right)
    _, person = np.unique(labels.person_id[rows], return_inverse=True)
    count, found = np.bincount(person), np.zeros(values.shape[1])
    if len(count) < 2:
        return found
    for k, x in enumerate(np.asarray(values, np.float64).T):
        of_person = np.bincount(person, np.square(x[rows] - x[columns])) / count
        within = of_person.mean() + of_person.std(ddof=1) / np.sqrt(len(count))
        between = np.square(x[:, None] - x)[wrong].mean()
        if within < between:
            found[k] = 1 / max(within, 1e-3 * between) - 1 / between
    return found


# Weights through the combined distance


def fit(people: People, *, seed: int = 0, penalties: np.ndarray = PENALTIES) -> tuple[np.ndarray, Scores]:
    """Factors c >= 0 in d_f / s_f + sum_k c_k (x_k - y_k)^2, learned with the feature's distance in place.

    A model of choice: each right image is chosen among itself and all wrong ones with a probability that falls with
    exp(-b d), and the mean log probability is maximised over b and c, less a penalty on the sum of b c_k, each k in
    units of its mean difference. The problem is convex, and attributes that help little get exactly 0. The penalty is
    chosen by cross-validation over people: weights learned on the others are scored by mAP on the queries of a fold.

    Args:
      people: N held-out images.
      seed: of the folds.
      penalties: falling shares of the smallest one at which all weights are 0.

    Returns:
      c [A] float64, and the cross-validated scores of no attributes and of each penalty.

    Source: McFadden, "Conditional logit analysis of qualitative choice behavior", 1974; Goldberger et al.,
    "Neighbourhood Components Analysis", 2004; Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996.
    """
    nothing = np.zeros(people.attributes.shape[1])
    model = _Choice(people)
    path = model.largest_penalty() * penalties
    additions = np.zeros((1 + len(path), *people.distance.shape), np.float32)
    for inside in folds(people.labels, seed):
        learned = _Choice(people.take(np.flatnonzero(~inside))).path(path)
        for addition, factors in zip(additions[1:], learned, strict=True):
            addition[inside] = distances(people.attributes * np.sqrt(factors))[0][inside]
    scores = rank(people, list(additions))
    best = cautious(scores)
    return ([nothing, *model.path(path[:best])])[best], scores


class _Choice:
    """The model of choice on some people; its unknowns are (b, b c), in units of the mean distances.

    Matrices of all pairs are float32: they take nearly all of the time.
    """

    def __init__(self, people: People):
        right, wrong = pairs(people.labels)
        self.wrong = np.where(wrong, 0, -np.inf).astype(np.float32)  # is added to what wrong images are worth
        self.right = np.nonzero(right)
        # Each query with something to find counts as much, and each of its right images.
        count = np.bincount(self.right[0], minlength=len(right))
        self.share = 1 / (count[self.right[0]] * max(np.count_nonzero(count), 1))
        self.unit = max(float(people.distance.mean(dtype=np.float64)), _LITTLE)
        self.distance = (people.distance / self.unit).astype(np.float32)
        x = np.asarray(people.attributes, np.float64)
        spread = 2 * x.var(axis=0)  # [A] mean squared difference
        self.spread = np.where(spread > _LITTLE, spread, 1)
        self.x = (np.where(spread > _LITTLE, x - x.mean(axis=0), 0) / np.sqrt(self.spread)).astype(np.float32)

    def loss(self, unknowns: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log probability of the right images, and its gradient [1 + A]."""
        x = self.x * np.sqrt(unknowns[1:]).astype(np.float32)
        square = np.einsum("na,na->n", x, x)
        worth = 2 * x @ x.T - square[:, None] - square - np.float32(unknowns[0]) * self.distance  # [N, N]
        of_right = worth[self.right].astype(np.float64)
        worth += self.wrong
        top = worth.max(axis=1, keepdims=True)
        slope = np.exp(worth - top)
        total = slope.sum(axis=1, keepdims=True)
        behind = (top + np.log(total))[self.right[0], 0] - of_right  # wrong images together, over each right one
        value = float(self.share @ np.logaddexp(0, behind))
        missed = self.share * special.expit(behind)  # how much each right image lacks
        slope *= np.bincount(self.right[0], missed, minlength=len(x)).astype(np.float32)[:, None] / total
        slope[self.right] -= missed.astype(np.float32)  # d loss / d worth
        both = slope.sum(axis=0) + slope.sum(axis=1)
        of_attributes = 2 * np.einsum("na,na->a", self.x, slope @ self.x) - both @ np.square(self.x)
        return value, np.r_[-np.vdot(slope, self.distance), of_attributes].astype(np.float64)

    def largest_penalty(self) -> float:
        """The smallest penalty at which all weights are 0; 0 where no attribute helps at all."""
        start = self._solve(np.r_[1.0, np.zeros(self.x.shape[1])], None)
        return float(-self.loss(start)[1][1:].min(initial=0))

    def path(self, penalties: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Factors c [A] in units of the given distances, for each of the falling penalties."""
        unknowns, found = np.r_[1.0, np.zeros(self.x.shape[1])], []
        for penalty in penalties:
            unknowns = self._solve(unknowns, penalty)
            found.append(unknowns[1:] * self.unit / (unknowns[0] * self.spread))
        return found

    def _solve(self, start: np.ndarray, penalty: float | None) -> np.ndarray:
        """Unknowns of the smallest loss; with no penalty given, the weights stay 0."""
        cost = np.r_[0.0, np.full(len(start) - 1, penalty or 0.0)]
        top = None if penalty is not None else 0.0

        def penalised(unknowns):
            value, gradient = self.loss(unknowns)
            return value + cost @ unknowns, gradient + cost

        bounds = [(1 / _LOUDEST, _LOUDEST), *[(0.0, top)] * (len(start) - 1)]
        options = {"ftol": 1e-7, "gtol": 1e-6}
        return optimize.minimize(penalised, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options).x


def _protocol(labels: Labels) -> protocols.Protocol:
    return protocols.ALL_VS_ALL if protocols.telling_cameras(labels) is None else protocols.MARKET1501
