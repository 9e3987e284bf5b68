"""What people whom the re-id net was not trained on say about attributes beside its feature: how loud, which weights.

On its own training people a net's feature is too good, so that nothing would seem to help it. Everything here is chosen
on held-out people, never on query or gallery, and cautiously: of settings that go from no attributes to loud ones, the
first is taken whose mAP lies within one standard error of the best. Attributes that do not help get a weight of 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import optimize, special

from acrn_jax.evaluation import fusion, protocols, ranking
from acrn_jax.schema import Labels

GAMMAS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)  # of `choose`
FOLDS = 5  # of people, in cross-validation
PENALTIES = np.geomspace(1, 1e-3, 10)  # shares of the smallest penalty at which all weights are 0
_LOUDEST = 1e3  # bound of the feature's factor, which people told apart without an error would push to infinity


class People(NamedTuple):
    """Images of held-out people, each of which is ranked against all others."""

    distance: np.ndarray  # [N, N] of features, over s_f
    attributes: np.ndarray  # [N, A]
    labels: Labels  # [N], persons 1 or more

    def take(self, rows: np.ndarray) -> "People":
        """Those of the images `rows`, an index."""
        labels = Labels(*(values[rows] for values in self.labels))
        return People(self.distance[np.ix_(rows, rows)], self.attributes[rows], labels)


class Scores(NamedTuple):
    """Average precisions of settings, from no attributes to loud ones."""

    each: np.ndarray  # [S, n] of the queries that have something to find
    person: np.ndarray  # [n] of those queries


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
    labels = people.labels
    rules = {"protocol": _protocol(labels), "no_match": "skip"}
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
        if lost.mean() <= error:
            return setting
    return best


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
    everybody = np.unique(people.labels.person_id)
    nothing = np.zeros(people.attributes.shape[1])
    model = _Choice(people)
    largest = model.largest_penalty()
    if len(everybody) < 2 * FOLDS or largest <= 0:
        return nothing, rank(people, [np.zeros_like(people.distance)])
    path = largest * penalties
    shuffled = np.random.default_rng((seed, 0, 3)).permutation(everybody)
    additions = np.zeros((1 + len(path), *people.distance.shape), np.float32)
    for fold in range(FOLDS):
        inside = np.isin(people.labels.person_id, shuffled[fold::FOLDS])
        learned = _Choice(people.take(np.flatnonzero(~inside))).path(path)
        for addition, factors in zip(additions[1:], learned, strict=True):
            addition[inside] = attribute_distances(people.attributes, factors)[inside]
    scores = rank(people, list(additions))
    best = cautious(scores)
    return ([nothing, *model.path(path[:best])])[best], scores


def attribute_distances(attributes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """sum_k c_k (x_k - y_k)^2 of all pairs of rows: [N, A], c [A] >= 0 -> [N, N] float64."""
    x = np.asarray(attributes, np.float64) * np.sqrt(factors)
    return np.asarray(fusion.squared_euclidean_rows(x, x)(slice(None)), np.float64)


class _Choice:
    """The model of choice on some people; its unknowns are (b, b c), in units of the mean distances."""

    def __init__(self, people: People):
        person, count = people.labels.person_id, len(people.labels.person_id)
        rows, columns = np.nonzero(person[:, None] == person[None])
        left_out = _protocol(people.labels).excluded(people.labels, people.labels, rows, columns)
        same = np.zeros((count, count), bool)
        same[rows, columns] = True
        self.wrong = ~same
        same[rows[left_out], columns[left_out]] = False
        self.right = same
        # Each query with something to find counts as much, and each of its right images.
        share = same / np.maximum(same.sum(axis=1, keepdims=True), 1)
        self.share = share / max(np.count_nonzero(same.any(axis=1)), 1)
        self.unit = max(float(people.distance.mean()), 1e-12)
        self.distance = people.distance.astype(np.float64) / self.unit
        x = np.asarray(people.attributes, np.float64)
        self.spread = 2 * x.var(axis=0)  # [A] mean squared difference
        varies = self.spread > 1e-12
        self.x = np.where(varies, x - x.mean(axis=0), 0) / np.sqrt(np.where(varies, self.spread, 1))

    def loss(self, unknowns: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean negative log probability of the right images, and its gradient [1 + A]."""
        x = self.x * np.sqrt(unknowns[1:])
        square = np.einsum("na,na->n", x, x)
        utility = 2 * x @ x.T - square[:, None] - square[None] - unknowns[0] * self.distance
        with np.errstate(divide="ignore"):
            wrong = np.where(self.wrong, utility, -np.inf)
        rival = special.logsumexp(wrong, axis=1, keepdims=True)  # [N, 1]
        behind = np.where(self.right, rival - utility, 0)
        value = float(np.sum(self.share * np.logaddexp(0, behind)))
        missed = self.share * special.expit(behind)  # [N, N] how much each right image lacks
        slope = np.exp(wrong - rival) * missed.sum(axis=1, keepdims=True) - missed  # d loss / d utility
        both = slope.sum(axis=0) + slope.sum(axis=1)
        of_attributes = 2 * np.einsum("na,na->a", self.x, slope @ self.x) - both @ np.square(self.x)
        return value, np.r_[-np.sum(slope * self.distance), of_attributes]

    def largest_penalty(self) -> float:
        """The smallest penalty at which all weights are 0; not above 0 where no attribute helps at all."""
        start = self._solve(np.r_[1.0, np.zeros(self.x.shape[1])], None)
        return float(-self.loss(start)[1][1:].min(initial=0))

    def path(self, penalties: Sequence[float] | np.ndarray) -> list[np.ndarray]:
        """Factors c [A] in units of the given distances, for each of the falling penalties."""
        unknowns, found = np.r_[1.0, np.zeros(self.x.shape[1])], []
        for penalty in penalties:
            unknowns = self._solve(unknowns, penalty)
            scale = self.unit / (unknowns[0] * np.where(self.spread > 1e-12, self.spread, 1))
            found.append(unknowns[1:] * scale)
        return found

    def _solve(self, start: np.ndarray, penalty: float | None) -> np.ndarray:
        """Unknowns of the smallest loss; with no penalty given, the weights stay 0."""
        cost = np.r_[0.0, np.full(len(start) - 1, penalty or 0.0)]
        top = None if penalty is not None else 0.0

        def penalised(unknowns):
            value, gradient = self.loss(unknowns)
            return value + cost @ unknowns, gradient + cost

        bounds = [(1 / _LOUDEST, _LOUDEST), *[(0.0, top)] * (len(start) - 1)]
        return optimize.minimize(penalised, start, jac=True, bounds=bounds, method="L-BFGS-B").x


def _protocol(labels: Labels) -> protocols.Protocol:
    return protocols.ALL_VS_ALL if protocols.telling_cameras(labels) is None else protocols.MARKET1501

