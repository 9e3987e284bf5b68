import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.ops import distance
from tests.losses import oracles

KINDS = tuple(distance.DISTANCES)


def _rows(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_pairwise_and_paired_are_the_loops(kind):
    x, y = _rows(6), _rows(4, seed=1)
    np.testing.assert_allclose(distance.pairwise(x, y, kind=kind), oracles.distances(x, y, kind), rtol=2e-5, atol=1e-6)
    expected = [oracles.distance(a, b, kind) for a, b in zip(x[:4], y, strict=True)]
    np.testing.assert_allclose(distance.paired(x[:4], y, kind=kind), expected, rtol=2e-5, atol=1e-6)


def test_by_hand():
    x, y = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])
    np.testing.assert_allclose(distance.pairwise(x, y, kind="squared_euclidean")[0], [9, 25, 100], rtol=1e-6)
    np.testing.assert_allclose(distance.pairwise(x, y, kind="euclidean")[0], [3, 5, 10], rtol=1e-6)
    np.testing.assert_allclose(distance.pairwise(x, y, kind="cosine")[0], [0.2, 1, 2], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_the_differences(kind):
    x, y, factor = _rows(4), _rows(3, seed=1), _rows(4, 3, seed=2).astype(np.float64)

    @jax.jit
    def gradients(x, y):
        def pairwise(x, y):
            return jnp.sum(factor * distance.pairwise(x, y, kind=kind))

        def paired(x, y):
            return jnp.sum(factor[0] * distance.paired(x[:3], y, kind=kind))

        return jax.grad(pairwise, argnums=(0, 1))(x, y) + jax.grad(paired, argnums=(0, 1))(x, y)

    def pairwise(x, y):
        return np.sum(factor * oracles.distances(x, y, kind))

    def paired(x, y):
        return sum(factor[0, i] * oracles.distance(x[i], y[i], kind) for i in range(3))

    for found, expected in zip(
        gradients(x, y),
        [
            *(oracles.gradient(lambda x: pairwise(x, y), x), oracles.gradient(lambda y: pairwise(x, y), y)),
            *(oracles.gradient(lambda x: paired(x, y), x), oracles.gradient(lambda y: paired(x, y), y)),
        ],
        strict=True,
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [np.zeros((4, 5), np.float32), np.tile(_rows(1), (4, 1))], ids=["zero", "equal"])
@pytest.mark.parametrize("name, count", [("pairwise", 16), ("paired", 4)])
def test_equal_and_zero_rows_have_gradient_zero(name, count, kind, rows):
    def total(x, y):
        return jnp.sum(getattr(distance, name)(x, y, kind=kind))

    value, gradients = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))(rows, rows)
    np.testing.assert_allclose(value, count if kind == "cosine" and not rows.any() else 0, atol=1e-5)
    np.testing.assert_allclose(gradients, np.zeros((2, 4, 5)), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_never_below_zero(kind):
    x = _rows(64, 300) * 3
    assert (distance.pairwise(x, x, kind=kind) >= 0).all()
    assert (distance.paired(x, x, kind=kind) >= 0).all()


def test_far_from_the_origin_small_distances_survive():
    x = _rows(6) + 1000
    np.testing.assert_allclose(
        distance.pairwise(x, x, kind="squared_euclidean"), oracles.distances(x, x, "squared_euclidean"), atol=2e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_rows_are_compared_in_float32(kind):
    x = jnp.asarray(_rows(8, 64), jnp.bfloat16)
    found = distance.pairwise(x[:4], x[4:], kind=kind)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, oracles.distances(np.float32(x[:4]), np.float32(x[4:]), kind), rtol=1e-5)
    found = distance.paired(x[:4], x[4:], kind=kind)
    assert found.dtype == jnp.float32
    expected = [oracles.distance(a, b, kind) for a, b in zip(np.float32(x[:4]), np.float32(x[4:]), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_jit_and_vmap(kind):
    x, y = _rows(12).reshape(2, 6, 5), _rows(8, seed=1).reshape(2, 4, 5)
    found = jax.jit(jax.vmap(lambda x, y: distance.pairwise(x, y, kind=kind)))(x, y)
    for i in range(2):
        np.testing.assert_allclose(found[i], oracles.distances(x[i], y[i], kind), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_pair_mean(kind):
    x = np.concatenate([_rows(5) + 2, _rows(1) + 2])  # with a duplicate
    found, gradient = jax.value_and_grad(lambda x: distance.pair_mean(x, kind=kind))(x)
    np.testing.assert_allclose(found, oracles.pair_mean(x, kind), rtol=1e-4)
    assert np.isfinite(gradient).all()
    found = jax.grad(lambda x: distance.pair_mean(x, kind=kind))(x[:5])
    expected = oracles.gradient(lambda x: oracles.pair_mean(x, kind), x[:5])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_errors():
    x = jnp.ones((3, 4))
    with pytest.raises(ValueError, match=r"manhattan.*squared_euclidean, euclidean, cosine"):
        distance.pairwise(x, x, kind="manhattan")
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(3, 5\)"):
        distance.pairwise(x, jnp.ones((3, 5)), kind="cosine")
    with pytest.raises(ValueError, match="one length"):
        distance.paired(x, jnp.ones((3, 5)), kind="cosine")
    with pytest.raises(ValueError, match="at least two rows"):
        distance.pair_mean(x[:1], kind="cosine")


@pytest.mark.parametrize("kind", KINDS)
def test_what_rows_have_in_common_costs_nothing(kind):
    x, y = (3000 * _rows(1, seed=9) + _rows(n, seed=n) for n in (6, 4))
    expected = oracles.distances(x.astype(np.float64), y.astype(np.float64), kind)
    np.testing.assert_allclose(distance.pairwise(x, y, kind=kind), expected, rtol=5e-3)
    np.testing.assert_allclose(
        distance.paired(x[:4], y, kind=kind), np.diag(expected[:4]), rtol=1e-2 if kind == "cosine" else 1e-5
    )
