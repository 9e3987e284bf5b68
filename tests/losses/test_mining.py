import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.losses.mining import MINERS
from tests.losses import oracles

MINED = tuple(name for name in MINERS if name != "offline")


def _table(b, seed=0):
    x = np.random.default_rng(seed).normal(size=(b, 3)).astype(np.float32)
    return oracles.distances(x, x, "squared_euclidean").astype(np.float32)


def _valid(triplets):
    anchor, positive, negative, valid = (np.asarray(x) for x in np.broadcast_arrays(*triplets))
    assert anchor.dtype == positive.dtype == negative.dtype == np.int32
    assert valid.dtype == bool
    return list(zip(anchor[valid].tolist(), positive[valid].tolist(), negative[valid].tolist(), strict=True))


@pytest.mark.parametrize("name", MINED)
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("person", [[3, 3, 3, 8, 8, 8, 1, 1, 1], [5, 2, 7, 5, 2, 5, 9, 2, 4], [1, 1, 2, 2]])
def test_finds_what_the_loops_find(name, seed, person):
    table = _table(len(person), seed)
    found = _valid(jax.jit(MINERS[name])(table, jnp.array(person)))
    assert len(found) > 0
    assert sorted(found) == sorted(oracles.mine(name, table, person))


def test_by_hand():
    place = np.array([0.0, 1.0, 3.0, 2.0, 10.0])
    table, person = abs(place[:, None] - place[None]), jnp.array([1, 1, 1, 2, 2])
    assert _valid(MINERS["batch_hard"](table, person)) == [(0, 2, 3), (1, 2, 3), (2, 0, 3), (3, 4, 1), (4, 3, 2)]
    semi_hard = _valid(MINERS["semi_hard"](table, person))
    assert semi_hard == [
        *[
            (0, 1, 3),
            (0, 2, 4),
            (1, 0, 4),
            (1, 2, 4),
            (2, 0, 4),
            (2, 1, 4),
        ],  # (1, 0): the one at distance 1 is not farther
        *[(3, 4, 0), (4, 3, 1)],  # 3 to 4 is 8 and nobody is farther: the farthest; 4 to 3: the nearer of 9 and 10
    ]
    assert len(_valid(MINERS["batch_all"](table, person))) == 3 * 2 * 2 + 2 * 1 * 3


@pytest.mark.parametrize("name", MINED)
@pytest.mark.parametrize("person", [[4, 4, 4], [1, 2, 3], [7]], ids=["one person", "no positive", "one row"])
def test_nothing_to_find(name, person):
    assert _valid(MINERS[name](_table(len(person)), jnp.array(person))) == []


@pytest.mark.parametrize("name", MINED)
def test_lonely_anchors_are_left_out(name):
    anchors = {a for a, _, _ in _valid(MINERS[name](_table(5), jnp.array([6, 6, 9, 6, 2])))}
    assert anchors == {0, 1, 3}


@pytest.mark.parametrize("name", MINED)
@pytest.mark.parametrize("value", [0.0, 2.0])
def test_equal_distances_still_give_true_triplets(name, value):
    person = np.array([1, 1, 2, 2, 2, 3])
    found = _valid(MINERS[name](jnp.full((6, 6), value), jnp.array(person)))
    assert {a for a, _, _ in found} == {0, 1, 2, 3, 4}
    for a, p, n in found:
        assert a != p and person[a] == person[p] and person[a] != person[n]


def test_offline_layout():
    person = jnp.array([1, 2, 3, 4, 1, 2, 5, 4, 2, 3, 1, 4])  # the third positive and the fourth negative are wrong
    triplets = MINERS["offline"](None, person)
    assert _valid(triplets) == [(0, 4, 8), (1, 5, 9)]
    assert triplets.valid.tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"3N rows.*got 10"):
        MINERS["offline"](None, person[:10])


@pytest.mark.parametrize("name", MINERS)
def test_no_gradient_and_vmap(name):
    person = jnp.array([[1, 1, 2, 2, 3, 3], [1, 2, 1, 2, 1, 2]])
    tables = jnp.stack([_table(6, 1), _table(6, 2)])
    mapped = jax.vmap(MINERS[name])(tables, person)
    for i in range(2):
        for one, both in zip(MINERS[name](tables[i], person[i]), mapped, strict=True):
            np.testing.assert_array_equal(one, both[i])

    def looked_up(table):
        anchor, positive, negative, valid = MINERS[name](table * 2, person[0])
        return jnp.sum(jnp.where(valid, table[anchor, positive] - table[anchor, negative], 0))

    gradient = np.zeros((6, 6))
    for a, p, n in _valid(MINERS[name](tables[0], person[0])):
        gradient[a, p] += 1
        gradient[a, n] -= 1
    np.testing.assert_allclose(jax.grad(looked_up)(tables[0]), gradient)
