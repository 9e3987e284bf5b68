import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acrn_jax.losses.attribute import class_weights, weighted_cross_entropy
from tests.losses import oracles


def _batch():
    random = np.random.default_rng(0)
    logits = random.normal(size=(5, 4)).astype(np.float32) * 3
    labels = random.integers(-1, 2, size=(5, 4)).astype(np.int8)
    assert {-1, 0, 1} == set(labels.ravel().tolist())
    return logits, labels, np.array([2.0, 0.5, 1.0, 3.0], np.float32), np.array([0.7, 1.5, 1.0, 0.2], np.float32)


def _loop(logits, labels, u, v):
    losses = []
    for row, known in zip(logits, labels, strict=True):
        total = 0.0
        for z, q, yes, no in zip(row, known, u, v, strict=True):
            p = 1 / (1 + math.exp(-float(z)))
            total -= {1: float(yes) * math.log(p), 0: float(no) * math.log(1 - p), -1: 0.0}[int(q)]
        losses.append(total)
    return np.array(losses)


@pytest.mark.parametrize("reduction, divisor", [("sum", 1), ("mean", 4)])
def test_is_the_loop(reduction, divisor):
    logits, labels, u, v = _batch()

    def loss(logits, labels):
        options = {"positive_weight": u, "negative_weight": v, "reduction": reduction}
        return weighted_cross_entropy(logits, labels, **options)

    np.testing.assert_allclose(jax.jit(loss)(logits, labels), _loop(logits, labels, u, v) / divisor, rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda z: jnp.sum(loss(z, labels)))(logits),
        oracles.gradient(lambda z: np.sum(_loop(z, labels, u, v)) / divisor, logits),
        rtol=1e-3,
        atol=1e-5,
    )
    mapped = jax.vmap(loss)(jnp.stack([logits, -logits]), jnp.stack([labels, labels]))
    np.testing.assert_allclose(mapped[1], _loop(-logits, labels, u, v) / divisor, rtol=1e-5)


def test_by_hand_and_by_optax():
    found = weighted_cross_entropy(
        jnp.array([[0.0, math.log(3), 0.0]]),  # p = 1/2, 3/4, 1/2
        jnp.array([[1, 0, -1]], jnp.int8),
        positive_weight=np.array([2.0, 9, 9]),
        negative_weight=np.array([9, 0.5, 9]),
    )
    np.testing.assert_allclose(found, [2 * math.log(2) + 0.5 * math.log(4)], rtol=1e-6)
    logits, labels, _, _ = _batch()
    labels = abs(labels)
    found = weighted_cross_entropy(logits, labels, positive_weight=np.ones(4), negative_weight=np.ones(4))
    np.testing.assert_allclose(found, optax.sigmoid_binary_cross_entropy(logits, labels).sum(axis=1), rtol=1e-5)


def test_extreme_logits_stay_finite():
    logits = jnp.array([[1e4, -1e4, 1e4, -1e4]])
    labels = jnp.array([[1, 0, 0, 1]], jnp.int8)

    def loss(z):
        return weighted_cross_entropy(z, labels, positive_weight=np.ones(4), negative_weight=np.ones(4))[0]

    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, 2e4)
    np.testing.assert_allclose(gradient, [[0, 0, 1, -1]], atol=1e-6)


def test_unknown_labels_give_no_gradient_and_bfloat16_is_widened():
    logits, labels, u, v = _batch()

    def loss(z):
        return jnp.sum(weighted_cross_entropy(z, labels, positive_weight=u, negative_weight=v))

    gradient = jax.grad(loss)(logits)
    np.testing.assert_array_equal(gradient == 0, labels == -1)
    assert loss(jnp.asarray(logits, jnp.bfloat16)).dtype == jnp.float32


def test_class_weights():
    ratio = np.array([0.1, 0.5, 0.8])
    u, v = class_weights(ratio, scheme="wpal")
    np.testing.assert_allclose(u, [5, 1, 0.625], rtol=1e-6)
    np.testing.assert_allclose(v, [1 / 1.8, 1, 2.5], rtol=1e-6)
    u, v = class_weights(ratio, scheme="deepmar")
    np.testing.assert_allclose(u, [math.exp(0.9), math.exp(0.5), math.exp(0.2)], rtol=1e-6)
    np.testing.assert_allclose(v, [math.exp(0.1), math.exp(0.5), math.exp(0.8)], rtol=1e-6)
    u, v = class_weights(ratio, scheme="none")
    np.testing.assert_array_equal([u, v], np.ones((2, 3)))
    assert u.dtype == np.float32


def test_errors():
    for scheme in ("wpal", "deepmar", "none"):
        with pytest.raises(ValueError, match=r"hat \(0\), sandals \(1\), muffler \(nan\)\.$"):
            class_weights(np.array([0, 0.5, 1, np.nan]), scheme=scheme, names=["hat", "jeans", "sandals", "muffler"])
    with pytest.raises(ValueError, match=r"2 \(1\)"):
        class_weights(np.array([0.1, 0.5, 1]))
    with pytest.raises(ValueError, match="'inverse'"):
        class_weights(np.array([0.5]), scheme="inverse")
    ones = np.ones(3)
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
        weighted_cross_entropy(jnp.ones((2, 3)), jnp.ones((2, 4)), positive_weight=ones, negative_weight=ones)
    with pytest.raises(ValueError, match="'max'"):
        weighted_cross_entropy(
            jnp.ones((2, 3)), jnp.ones((2, 3)), positive_weight=ones, negative_weight=ones, reduction="max"
        )
