import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.losses import triplet
from acrn_jax.losses.mining import MINERS, Triplets
from tests.losses import oracles

KINDS = ("squared_euclidean", "euclidean", "cosine")
MARGINS = (0, 0.3, "soft")
PAIRS = tuple(zip(MINERS, ("euclidean", "cosine", "squared_euclidean", "euclidean"), strict=True))
PERSON = {"offline": [1, 2, 3, 1, 2, 3, 2, 3, 1]}
MIXED = [4, 2, 4, 7, 2, 4, 7, 9, 2]  # 9 has no positive
SCALES = {"scale_feature": 1.7, "scale_attribute": 0.4}


def _batch(name, seed=0):
    random = np.random.default_rng(seed)
    feature = random.normal(size=(9, 4)).astype(np.float32)
    attributes = random.uniform(size=(9, 3)).astype(np.float32)
    weights = np.array([1.2, -0.7, 0.5], np.float32)
    return feature, attributes, weights, jnp.array(PERSON.get(name, MIXED))


def _mined(name, kind, feature, attributes, weights, person):
    table = triplet.mining_distance(feature, attributes, weights, gamma=0.5, distance=kind, **SCALES)
    return MINERS[name](table, person)


@functools.cache
def _acrn(name, kind, soft):
    """Mining, loss and gradients to features and weights, compiled once for all tests."""

    def loss(feature, weights, attributes, person, margin, gamma, scales):
        triplets = _mined(name, kind, feature, attributes, weights, person)
        options = {"margin": "soft" if soft else margin, "temperature": 0.3, "distance": kind} | scales
        return triplet.acrn_loss(
            feature, attributes, weights, triplets, gamma=gamma, attribute_gradient="flow", **options
        )

    return jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))


def _listed(name, kind, feature, attributes, weights, person):
    table = oracles.distances(feature, feature, kind) / 1.7
    table = table + 0.5 * oracles.distances(attributes * weights, attributes * weights, kind) / 0.4
    return oracles.mine(name, table, person.tolist())


@pytest.mark.parametrize("kind, margins", [*((kind, (0.0, 0.3)) for kind in KINDS), ("euclidean", ("soft",))])
@pytest.mark.parametrize("name", MINERS)
def test_acrn_values_and_gradients_are_the_loops(name, kind, margins):
    feature, attributes, weights, person = _batch(name)

    triplets = _listed(name, kind, feature, attributes, weights, person)
    for margin in margins:

        def expected(feature, weights):
            rows = attributes * weights
            terms = [(1 / 1.7, feature), (0.5 / 0.4, rows)]
            terms = [(factor, oracles.distances(x, x, kind)) for factor, x in terms]
            return oracles.triplet_loss(triplets, terms, margin=margin, temperature=0.3)  # noqa: B023

        number = 0.0 if margin == "soft" else margin
        step = _acrn(name, kind, margin == "soft")
        (loss, info), (to_feature, to_weights) = step(feature, weights, attributes, person, number, 0.5, SCALES)
        assert info["triplets"] == len(triplets)
        np.testing.assert_allclose(loss, expected(feature, weights), rtol=1e-4)
        wanted = oracles.gradient(lambda x: expected(x, weights), feature)
        np.testing.assert_allclose(to_feature, wanted, rtol=1e-3, atol=2e-5)
        assert abs(to_feature).max() > 0.01
        wanted = oracles.gradient(lambda w: expected(feature, w), weights)
        np.testing.assert_allclose(to_weights, wanted, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("name, kind", PAIRS)
def test_classic_and_attribute_are_the_loops(name, kind):
    feature, attributes, weights, person = _batch(name, seed=1)

    @jax.jit
    def results(feature, weights):
        triplets = MINERS[name](triplet.mining_distance(feature, mine_on="feature", distance=kind), person)
        options = {"margin": 0.3, "distance": kind}

        def classic(feature):
            return triplet.triplet_loss(feature, triplets, scale=1.7, reduction="active_only", **options)

        def attribute(weights):
            return triplet.attribute_weight_loss(attributes, weights, triplets, scale=0.4, **options)

        return jax.value_and_grad(classic, has_aux=True)(feature), jax.value_and_grad(attribute, has_aux=True)(weights)

    triplets = oracles.mine(name, oracles.distances(feature, feature, kind), person.tolist())
    cases = [("active_only", 1.7, lambda x: x, feature), ("mean", 0.4, lambda w: attributes * w, weights)]
    for (reduction, scale, rows, x), ((loss, info), gradient) in zip(cases, results(feature, weights), strict=True):

        def expected(x):
            terms = [(1 / scale, oracles.distances(rows(x), rows(x), kind))]  # noqa: B023
            return oracles.triplet_loss(triplets, terms, margin=0.3, reduction=reduction)  # noqa: B023

        np.testing.assert_allclose(loss, expected(x), rtol=1e-4)
        np.testing.assert_allclose(gradient, oracles.gradient(expected, x), rtol=1e-3, atol=2e-5)
        table = oracles.distances(rows(x), rows(x), kind) / scale
        gaps = np.array([table[a, p] - table[a, n] for a, p, n in triplets])
        np.testing.assert_allclose(info["active"], np.mean(gaps + 0.3 > 0), rtol=1e-6)
        np.testing.assert_allclose(info["positive"], np.mean([table[a, p] for a, p, _ in triplets]), rtol=1e-4)
        np.testing.assert_allclose(info["negative"], np.mean([table[a, n] for a, _, n in triplets]), rtol=1e-4)


def _by_hand():
    """Five offline triplets on a line; squared distances (positive, negative) stand beside the roots."""
    feature = np.array([[0, 0, 0, 0, 0], [1, 0, 1, 0, 9], [1, 1, 0, 2, 0]])  # (1, 1) (0, 1) (1, 0) (0, 4) (81, 0)
    two = np.sqrt(2)
    attributes = np.array([[0, 0, 0, 0, 0], [0, two, 0, 0, 9], [two, 0, 0, 0, 0]])  # (0, 2) (2, 0) - - (81, 0)
    person = np.array([[1, 2, 3, 4, 5], [1, 2, 3, 4, 6], [2, 3, 1, 5, 7]])  # the fifth positive is somebody else
    columns = [jnp.asarray(x.reshape(15, 1), jnp.float32) for x in (feature, attributes)]
    return *columns, jnp.ones(1), MINERS["offline"](None, jnp.array(person.ravel()))


def test_switched_by_hand():
    # margin 0.5, gamma 0.5: gaps without attributes 0 -1 1 -4, with them -1 0 1 -4; active above -0.5
    loss, info = triplet.acrn_loss(*_by_hand(), margin=0.5, gamma=0.5)
    assert set(info) == {"triplets", "active", "positive", "negative", "undecided", "switched_on", "switched_off"}
    np.testing.assert_allclose(loss, (0.5 + 1.5) / 4, rtol=1e-6)
    wanted = {"triplets": 4, "active": 0.5, "positive": 0.5, "negative": 1.5, "switched_on": 0.25, "switched_off": 0.25}
    wanted["undecided"] = 0.25  # of the distances of the feature alone
    for name, value in wanted.items():
        np.testing.assert_allclose(info[name], value, rtol=1e-6, err_msg=name)
    loss, _ = triplet.acrn_loss(*_by_hand(), margin=0.5, gamma=0.5, reduction="active_only")
    np.testing.assert_allclose(loss, (0.5 + 1.5) / 2, rtol=1e-6)


def test_switched_by_hand_with_soft_margin():
    # active above 0: without attributes the third; with gamma 0.75 (gaps -1.5 0.5 1 -4) the second and the third
    _, info = triplet.acrn_loss(*_by_hand(), margin="soft", gamma=0.75)
    assert (info["active"], info["switched_on"], info["switched_off"]) == (0.5, 0.25, 0)


def test_a_triplet_on_the_margin_is_not_active():
    _, info = triplet.triplet_loss(jnp.zeros((3, 2)), MINERS["offline"](None, jnp.array([1, 1, 2])), margin=0)
    assert info["active"] == 0


@pytest.mark.parametrize("name, kind", PAIRS)
def test_gamma_zero_is_classic(name, kind):
    feature, attributes, weights, person = _batch(name, seed=2)
    (loss, info), (gradient, to_weights) = _acrn(name, kind, False)(
        *(feature, weights, attributes, person), 0.3, 0.0, SCALES
    )
    triplets = _mined(name, kind, feature, attributes, weights, person)
    (wanted, wanted_info), wanted_gradient = jax.value_and_grad(
        lambda x: triplet.triplet_loss(x, triplets, margin=0.3, distance=kind, scale=SCALES["scale_feature"]),
        has_aux=True,
    )(feature)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(to_weights, np.zeros(3))
    assert info["switched_on"] == info["switched_off"] == 0
    for key, value in wanted_info.items():
        np.testing.assert_allclose(info[key], value, rtol=1e-6)


@pytest.mark.parametrize("name", ["batch_hard", "batch_all"])
def test_attributes_move_the_threshold_and_not_the_form_of_the_gradient(name):
    feature, attributes, weights, person = _batch(name, seed=3)
    triplets = _mined(name, "squared_euclidean", feature, attributes, weights, person)
    wide = {"margin": 1000.0}  # everything is active
    classic = jax.grad(lambda x: triplet.triplet_loss(x, triplets, **wide)[0])(feature)
    acrn = jax.grad(lambda x: triplet.acrn_loss(x, attributes, weights, triplets, **wide)[0])(feature)
    np.testing.assert_allclose(acrn, classic, rtol=1e-6)


@pytest.mark.parametrize("name", ["batch_hard", "batch_all"])
def test_where_gradients_go(name):
    feature, attributes, weights, person = _batch(name, seed=4)
    triplets = _mined(name, "squared_euclidean", feature, attributes, weights, person)

    def gradients(choice):
        return jax.grad(
            lambda a, w: triplet.acrn_loss(feature, a, w, triplets, margin=5.0, attribute_gradient=choice)[0],
            argnums=(0, 1),
        )(attributes, weights)

    for choice, trains in (("stop", False), ("flow", True)):
        to_attributes, to_weights = gradients(choice)
        assert not to_attributes.any()
        assert bool(to_weights.any()) == trains
    to_attributes, to_weights = jax.grad(
        lambda a, w: triplet.attribute_weight_loss(a, w, triplets, margin=5.0)[0], argnums=(0, 1)
    )(attributes, weights)
    assert not to_attributes.any()
    assert to_weights.any()
    for function in (
        lambda x: jnp.sum(triplet.mining_distance(x, attributes, weights)),
        lambda x: triplet.mean_pair_distance(x),
        lambda x: triplet.triplet_loss(jnp.asarray(feature), triplets, scale=jnp.sum(x**2), margin=5.0)[0],
    ):
        assert not jax.grad(function)(feature).any()
    assert not jax.grad(lambda w: jnp.sum(triplet.mining_distance(feature, attributes, w)))(weights).any()


@pytest.mark.parametrize("kind, margins", [*((kind, (0.0, 0.3)) for kind in KINDS), ("euclidean", ("soft",))])
@pytest.mark.parametrize("name", MINERS)
def test_equal_points_and_missing_triplets(name, kind, margins):
    """Gradients stay finite where points coincide; without a valid triplet everything is 0."""
    feature, attributes, weights, person = _batch(name, seed=5)

    step = _acrn(name, kind, "soft" in margins)

    def duplicated(x):
        return np.concatenate([x[:3], x[:1], x[4:]])

    for margin in margins:
        number, collapsed = (0.0, 0.3 * np.log(2)) if margin == "soft" else (margin, margin)
        for rows in (duplicated, lambda x: np.tile(x[:1], (9, 1)), np.zeros_like):
            scale = float(triplet.mean_pair_distance(rows(attributes), distance=kind))  # 0 where attributes are equal
            scales = {"scale_feature": 1.0, "scale_attribute": scale}
            for w in (weights, np.zeros_like(weights)):
                result = step(rows(feature), w, rows(attributes), person, number, 0.5, scales)
                assert all(np.isfinite(x).all() for x in jax.tree.leaves(result))
                if rows is not duplicated:
                    np.testing.assert_allclose(result[0][0], collapsed, atol=2e-6)
        for lonely in (np.full(9, 4, np.int32), np.arange(9, dtype=np.int32)):  # no negative; no positive
            result = step(feature, weights, attributes, lonely, number, 0.5, SCALES)
            assert not any(np.any(x) for x in jax.tree.leaves(result))


@pytest.mark.parametrize("name", ["batch_hard", "semi_hard"])
def test_vmap_jit_and_eager_agree(name):
    batches = [_batch(name, seed) for seed in (6, 7)]
    feature, attributes, weights, person = (jnp.stack(x) for x in zip(*batches, strict=True))

    def loss(feature, attributes, weights, person):
        triplets = _mined(name, "euclidean", feature, attributes, weights, person)
        return triplet.acrn_loss(feature, attributes, weights, triplets, margin=0.3, distance="euclidean")

    step = jax.value_and_grad(loss, has_aux=True)
    mapped = jax.jit(jax.vmap(step))(feature, attributes, weights, person)
    for i in range(2):
        single = step(feature[i], attributes[i], weights[i], person[i])
        jax.tree.map(lambda both, one: np.testing.assert_allclose(both[i], one, rtol=1e-4, atol=1e-6), mapped, single)  # noqa: B023


def test_margin_and_gamma_may_be_traced():
    feature, attributes, weights, person = _batch("batch_hard")
    triplets = _mined("batch_hard", "cosine", feature, attributes, weights, person)

    def loss(margin, gamma):
        return triplet.acrn_loss(feature, attributes, weights, triplets, margin=margin, gamma=gamma)[0]

    margins, gammas = jnp.array([0.0, 0.3]), jnp.array([0.0, 0.5])
    found = jax.jit(jax.vmap(loss))(margins, gammas)
    np.testing.assert_allclose(found, [loss(0.0, 0.0), loss(0.3, 0.5)], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_few_and_many_triplets_agree(kind):
    """The same triplets, once short enough for the path over rows and once, written twice, on the path over B x B."""
    feature, attributes, weights, person = _batch("batch_hard", seed=8)
    short = _mined("batch_hard", kind, feature, attributes, weights, person)
    long = Triplets(*(jnp.concatenate([x, x]) for x in short))
    loss = jax.value_and_grad(functools.partial(triplet.triplet_loss, margin=0.3, distance=kind), has_aux=True)
    results = [loss(feature, triplets) for triplets in (short, long)]
    (few, few_info), few_gradient = results[0]
    (many, many_info), many_gradient = results[1]
    np.testing.assert_allclose(many, few, rtol=1e-5)
    np.testing.assert_allclose(many_gradient, few_gradient, rtol=1e-3, atol=1e-5)
    assert many_info["triplets"] == 2 * few_info["triplets"]
    np.testing.assert_allclose(many_info["positive"], few_info["positive"], rtol=1e-5)


def test_bfloat16_features_are_compared_in_float32():
    feature, attributes, weights, person = _batch("batch_hard")
    feature = jnp.asarray(feature, jnp.bfloat16)
    options = {"margin": 0.3, "distance": "euclidean"}
    triplets = _mined("batch_hard", "euclidean", feature, attributes, weights, person)
    loss, info = triplet.triplet_loss(feature, triplets, **options)
    assert loss.dtype == info["positive"].dtype == jnp.float32
    np.testing.assert_allclose(
        loss, triplet.triplet_loss(feature.astype(jnp.float32), triplets, **options)[0], rtol=1e-6
    )
    assert jax.grad(lambda x: triplet.triplet_loss(x, triplets, **options)[0])(feature).dtype == jnp.bfloat16


@pytest.mark.parametrize("mine_on, factors", [("feature", (1, 0)), ("combined", (1, 0.5)), ("attribute", (0, 1))])
def test_mining_distance(mine_on, factors):
    feature, attributes, weights, _ = _batch("batch_hard")
    found = triplet.mining_distance(feature, attributes, weights, mine_on=mine_on, gamma=0.5, **SCALES)
    rows = attributes * weights
    of_feature = oracles.distances(feature, feature, "squared_euclidean") / 1.7
    of_attributes = oracles.distances(rows, rows, "squared_euclidean") / 0.4
    np.testing.assert_allclose(found, factors[0] * of_feature + factors[1] * of_attributes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_unit_mean_scale_makes_the_mean_one(kind):
    feature = _batch("batch_hard")[0]
    scale = triplet.mean_pair_distance(feature, distance=kind)
    np.testing.assert_allclose(scale, oracles.pair_mean(feature, kind), rtol=1e-5)
    table = triplet.mining_distance(feature, mine_on="feature", distance=kind, scale_feature=scale)
    np.testing.assert_allclose(np.sum(table) / (9 * 8), 1, rtol=1e-5)


def test_hinge_by_hand():
    gap = jnp.array([-1.0, 0.5, 0.0, 7.0])
    valid = jnp.array([True, True, True, False])
    loss, each = triplet.hinge(gap, valid, margin=0.25)
    np.testing.assert_allclose(each, [0, 0.75, 0.25, 0])
    np.testing.assert_allclose(loss, 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(triplet.hinge(gap, valid, margin=0.25, reduction="active_only")[0], 0.5, rtol=1e-6)
    _, each = triplet.hinge(gap, valid, margin="soft", temperature=0.5)
    np.testing.assert_allclose(each, [0.5 * np.log1p(np.exp(x / 0.5)) for x in (-1, 0.5, 0)] + [0], rtol=1e-6)
    _, each = triplet.hinge(jnp.array([-1e4, 1e4]), jnp.array([True, True]), margin="soft", temperature=0.1)
    np.testing.assert_allclose(each, [0, 1e4])


@pytest.mark.parametrize("margin", MARGINS)
def test_what_stands_in_an_invalid_triplet_does_no_harm(margin):
    gap, valid = jnp.array([0.5, jnp.nan, jnp.inf]), jnp.array([True, False, False])
    loss, gradient = jax.value_and_grad(lambda gap: triplet.hinge(gap, valid, margin=margin)[0])(gap)
    np.testing.assert_allclose(loss, oracles.loss_of_gap(0.5, margin), rtol=1e-6)
    assert np.isfinite(gradient).all()
    assert not gradient[1:].any()


def test_errors():
    gap, valid = jnp.zeros(2), jnp.array([True, True])
    with pytest.raises(ValueError, match="'hard'"):
        triplet.hinge(gap, valid, margin="hard")
    with pytest.raises(ValueError, match=r"at least 0; got -0\.1"):
        triplet.hinge(gap, valid, margin=-0.1)
    with pytest.raises(ValueError, match="'sum'"):
        triplet.hinge(gap, valid, margin=0.1, reduction="sum")
    with pytest.raises(ValueError, match="soft margin leaves every triplet active"):
        triplet.hinge(gap, valid, margin="soft", reduction="active_only")
    feature, attributes, weights, person = _batch("batch_all")
    triplets = MINERS["batch_all"](None, person)
    with pytest.raises(ValueError, match="'half'"):
        triplet.acrn_loss(feature, attributes, weights, triplets, margin=0.3, attribute_gradient="half")
    with pytest.raises(ValueError, match=r"\(9, 3\) and \(2,\)"):
        triplet.attribute_weight_loss(attributes, weights[:2], triplets, margin=0.3)
    with pytest.raises(ValueError, match="'identity'"):
        triplet.mining_distance(feature, mine_on="identity")
    with pytest.raises(ValueError, match="No distance 'l1'"):
        triplet.triplet_loss(feature, triplets, margin=0.3, distance="l1")


@pytest.mark.parametrize("miner", [*MINERS, "own"])
def test_one_call_mines_as_the_two_steps_do(miner):
    rng = np.random.default_rng(0)
    feature, attributes = rng.normal(size=(12, 5)), rng.random((12, 4))
    weights, person = rng.normal(size=4), np.tile(np.arange(4), 3)
    if miner == "offline":
        person[8:] = (person[8:] + 1) % 4  # anchors, positives, negatives
    own = MINERS["batch_hard"]
    mine = MINERS.get(miner, own)
    kind = own if miner == "own" else miner
    scales = dict(scale_feature=2.0, scale_attribute=0.5)

    def same(one, two):
        assert one[0] == two[0] > 0 and one[1] == two[1]

    options = dict(margin=3.0, distance="euclidean")
    table = triplet.mining_distance(feature, mine_on="feature", distance="euclidean")
    two = triplet.triplet_loss(feature, mine(table, person), **options)
    same(triplet.triplet_loss(feature, person=person, miner=kind, **options), two)
    for mine_on in ("feature", "combined", "attribute"):
        settings = dict(distance="euclidean", gamma=0.7, **scales)
        table = triplet.mining_distance(feature, attributes, weights, mine_on=mine_on, **settings)
        two = triplet.acrn_loss(feature, attributes, weights, mine(table, person), margin=3.0, **settings)
        one = triplet.acrn_loss(
            feature, attributes, weights, person=person, miner=kind, mine_on=mine_on, margin=3.0, **settings
        )
        same(one, two)
    table = triplet.mining_distance(None, attributes, weights, mine_on="attribute", distance="euclidean")
    two = triplet.attribute_weight_loss(attributes, weights, mine(table, person), **options)
    same(triplet.attribute_weight_loss(attributes, weights, person=person, miner=kind, **options), two)


def test_one_call_refuses():
    feature, person = np.zeros((4, 2)), np.array([1, 1, 2, 2])
    some = MINERS["batch_hard"](np.zeros((4, 4)), person)
    for given in ({}, {"triplets": some, "person": person}):
        with pytest.raises(ValueError, match="either triplets, or person"):
            triplet.triplet_loss(feature, margin=1.0, **given)
    with pytest.raises(ValueError, match=r"of 4 images wants person \[4\], got \[3\]"):
        triplet.triplet_loss(feature, person=person[:3], margin=1.0)
    with pytest.raises(ValueError, match=r"no miner 'hard'; did you mean \w+\? Known are offline, batch_hard"):
        triplet.triplet_loss(feature, person=person, miner="hard", margin=1.0)
