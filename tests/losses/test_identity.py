import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acrn_jax.losses.identity import cross_entropy
from tests.losses import oracles

LOGITS = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32) * 2
LABELS = np.array([3, 0, 1, 1, 2], np.int32)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_is_optax(smoothing):
    expected = optax.softmax_cross_entropy(LOGITS, optax.smooth_labels(jax.nn.one_hot(LABELS, 4), smoothing))
    found = jax.jit(lambda z: cross_entropy(z, LABELS, smoothing=smoothing))(LOGITS)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    mapped = jax.vmap(lambda z: cross_entropy(z, LABELS, smoothing=smoothing))(jnp.stack([-LOGITS, LOGITS]))
    np.testing.assert_allclose(mapped[1], expected, rtol=1e-5)


def test_by_hand():
    logits = jnp.log(jnp.array([[1.0, 2.0, 5.0]]))  # p = 1/8, 1/4, 5/8
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1])), [math.log(4)], rtol=1e-6)
    spread = (math.log(8) + math.log(4) + math.log(1.6)) / 3
    np.testing.assert_allclose(
        cross_entropy(logits, jnp.array([1]), smoothing=0.3), [0.7 * math.log(4) + 0.3 * spread], rtol=1e-6
    )


def test_gradient():
    def loop(logits):
        rows = zip(logits, LABELS, strict=True)
        return sum(math.log(sum(math.exp(z) for z in row)) - row[label] for row, label in rows)

    np.testing.assert_allclose(
        jax.grad(lambda z: jnp.sum(cross_entropy(z, LABELS)))(LOGITS),
        oracles.gradient(loop, LOGITS),
        rtol=1e-3,
        atol=1e-5,
    )


def test_extremes():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    np.testing.assert_allclose(cross_entropy(logits, jnp.array([1])), [2e4])
    assert cross_entropy(logits.astype(jnp.bfloat16), jnp.array([0])).dtype == jnp.float32
    assert np.isnan(cross_entropy(logits, jnp.array([3])))  # a label that does not exist must not train quietly


def test_errors():
    with pytest.raises(ValueError, match=r"\(5, 4\) and \(4,\)"):
        cross_entropy(LOGITS, LABELS[:4])
    with pytest.raises(ValueError, match=r"got 1\.5"):
        cross_entropy(LOGITS, LABELS, smoothing=1.5)
