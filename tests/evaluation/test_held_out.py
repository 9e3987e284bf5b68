"""What is chosen on held-out people, against loops, numbers by hand and people of whom it is known what helps."""

import itertools

import numpy as np
import pytest
from scipy import optimize

from acrn_jax.evaluation import held_out
from acrn_jax.evaluation.held_out import People, Scores
from acrn_jax.schema import Labels


def people(seed=0, count=24, images=6, noise=3):
    """Features that tell little, a first attribute that is one of two values of the person, others that are noise."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(1, count + 1), images)
    n = len(person)
    features = rng.normal(size=(count, 8))[person - 1] + 1.5 * rng.normal(size=(n, 8))
    distance = np.square(features[:, None] - features).sum(axis=-1)
    good = 0.15 + 0.7 * rng.integers(0, 2, count)[person - 1] + 0.1 * rng.normal(size=n)
    attributes = np.c_[good, rng.random((n, noise))].astype(np.float32)
    labels = Labels(person, np.tile(np.arange(images) % 3, count))
    return People((distance / distance.mean()).astype(np.float32), attributes, labels)


def is_right(labels, i, j):
    return labels.person_id[i] == labels.person_id[j] and labels.camera_id[i] != labels.camera_id[j]


def test_right_and_wrong_pairs():
    labels = Labels(np.array([1, 1, 1, 2]), np.array([1, 1, 2, 1]))
    right, wrong = held_out.pairs(labels)
    assert np.argwhere(right).tolist() == [[0, 2], [1, 2], [2, 0], [2, 1]]
    assert np.argwhere(wrong).tolist() == [[0, 3], [1, 3], [2, 3], [3, 0], [3, 1], [3, 2]]
    one_view = held_out.pairs(Labels(labels.person_id, np.ones(4, int)))[0]  # nobody is seen by two: any other image
    np.testing.assert_array_equal(one_view[:3, :3], ~np.eye(3, dtype=bool))


@pytest.mark.parametrize(("second", "wanted"), [(-0.01, 0), (0.01, 1)])
def test_the_first_setting_within_one_standard_error(second, wanted):
    # Two people, a query each, what the best setting gains: mean 0.12 and error 0.13, or mean 0.13 and error 0.12.
    each = np.array([[0.3, 0.3], [0.55, 0.3 + second]])
    assert held_out.cautious(Scores(each, np.array([7, 9]))) == wanted
    doubled = Scores(np.repeat(each, 2, axis=1), np.array([7, 7, 9, 9]))  # no more people, so no smaller error
    assert held_out.cautious(doubled) == wanted


def loss_by_loops(of, unknowns):
    """(b, b c) of the given distances: mean over queries of mean over right images of -log probability."""
    x, labels, total = of.attributes.astype(np.float64), of.labels, []
    n = len(x)

    def worth(i, j):
        return -unknowns[0] * of.distance[i, j] - unknowns[1:] @ np.square(x[i] - x[j])

    for i in range(n):
        wrong = sum(np.exp(worth(i, j)) for j in range(n) if labels.person_id[i] != labels.person_id[j])
        right = [np.exp(worth(i, j)) for j in range(n) if is_right(labels, i, j)]
        if right:
            total.append(np.mean([-np.log(one / (one + wrong)) for one in right]))
    return np.mean(total)


def test_the_model_of_choice_is_that_of_loops():
    of = people(count=6, images=3)
    of.labels.camera_id[-3:] = 0  # a query without a match
    model = held_out._Choice(of)
    given = np.array([3.0, 2.0, 0.5, 0.2, 1.0])
    units = np.r_[model.unit, model.spread]
    value, gradient = model.loss(given * units)
    assert value == pytest.approx(loss_by_loops(of, given), rel=1e-5)
    np.testing.assert_allclose(
        gradient * units, optimize.approx_fprime(given, lambda u: loss_by_loops(of, u), 1e-6), atol=2e-5
    )
    # The smallest penalised loss, as another method finds it.
    penalty = 0.3 * model.largest_penalty()
    cost = penalty * np.r_[0, model.spread]
    bounds = [(1e-3, 1e3), *[(0, None)] * 4]
    other = optimize.minimize(lambda u: loss_by_loops(of, u) + cost @ u, given, bounds=bounds, method="SLSQP").x
    (found,) = model.path([penalty])
    np.testing.assert_allclose(found, other[1:] / other[0], atol=0.02 * found.max())
    assert found[0] > 0.1 and not model.path([1.01 * model.largest_penalty()])[0].any()


def test_agreement_is_that_of_loops():
    of = people(1)
    labels, x = of.labels, of.attributes.astype(np.float64)
    found, everybody = held_out.agreement(of.attributes, labels), np.unique(labels.person_id)
    for k in range(x.shape[1]):
        within = []
        for person in everybody:
            own = itertools.permutations(np.flatnonzero(labels.person_id == person), 2)
            within.append(np.mean([(x[i, k] - x[j, k]) ** 2 for i, j in own if is_right(labels, i, j)]))
        others = (labels.person_id[:, None] != labels.person_id).nonzero()
        between = np.mean((x[others[0], k] - x[others[1], k]) ** 2)
        end = np.mean(within) + np.std(within, ddof=1) / np.sqrt(len(everybody))
        assert found[k] == pytest.approx(max(1 / end - 1 / between, 0), rel=1e-5)
    assert found[0] > 10 and (found[1:] < 0.5).all()


def test_folds_learn_on_other_people():
    of, asked = people(), []

    def learn(rows):
        asked.append(set(of.labels.person_id[rows]))
        return lambda values: values * len(asked)  # another one for each fold; its size does not matter

    found = held_out.crossed(of.attributes, of.labels, learn)
    plain, mean = held_out.distances(of.attributes)
    np.testing.assert_allclose(found, plain / mean, rtol=1e-4, atol=1e-6)
    everybody = set(of.labels.person_id)
    ranked = [everybody - others for others in asked]
    assert len(asked) == held_out.FOLDS and set.union(*ranked) == everybody and sum(map(len, ranked)) == len(everybody)
    none = held_out.crossed(of.attributes, of.labels, lambda rows: lambda values: values[:, :0])
    assert not none.any()


def test_what_helps_counts_and_noise_does_not(seed=0):
    of = people(seed, images=4)
    factors, scores = held_out.fit(of, seed=seed)
    assert factors[0] > 0 and factors[1:].max() < 0.02 * factors[0]
    assert scores.each.mean(axis=1).max() > scores.each[0].mean() + 0.03
    noise = of._replace(attributes=of.attributes[:, 1:])
    assert not held_out.fit(noise, seed=seed)[0].any()
    for attributes, helps in ((of.attributes[:, :1], True), (noise.attributes, False)):
        assert (held_out.choose(of, held_out.distances(attributes)[0])[0] > 0) == helps


def test_few_people_are_refused():
    with pytest.raises(ValueError, match=r"of whom there are 4; hold more people out \(config\.data\.validation_ident"):
        held_out.fit(people(count=4))
