import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.losses import weights
from tests.losses import oracles

RAW = np.array([1.5, -0.5, 0.2, 2.0], np.float32)
ATTRIBUTES = np.random.default_rng(0).uniform(size=(6, 4)).astype(np.float32)


def _expected(raw, form, kind="squared_euclidean"):
    if form == "softplus":
        return np.log(1 + np.exp(raw))
    if form == "unit_rms":
        return raw / np.sqrt(np.mean(raw**2))
    if form == "unit_mean":
        mean = oracles.pair_mean(ATTRIBUTES.astype(np.float64) * raw, kind)
        return raw / (np.sqrt(mean) if kind == "squared_euclidean" else mean)
    return raw


@pytest.mark.parametrize("kind", ["squared_euclidean", "euclidean"])
@pytest.mark.parametrize("form", weights.FORMS)
def test_values_and_gradients(form, kind):
    def effective(raw):
        return weights.effective_weights(raw, form=form, attributes=ATTRIBUTES, distance=kind)

    factor = np.array([1.0, 2.0, -1.0, 0.5])
    np.testing.assert_allclose(jax.jit(effective)(RAW), _expected(RAW, form, kind), rtol=1e-5)
    np.testing.assert_allclose(
        jax.grad(lambda raw: jnp.sum(factor * effective(raw)))(RAW),
        oracles.gradient(lambda raw: np.sum(factor * _expected(raw, form, kind)), RAW),
        rtol=1e-3,
        atol=1e-5,
    )


@pytest.mark.parametrize("form", weights.FORMS)
def test_start(form):
    raw = weights.initial_weights(4, form)
    assert raw.shape == (4,) and raw.dtype == jnp.float32
    effective = weights.effective_weights(raw, form=form, attributes=ATTRIBUTES)
    np.testing.assert_allclose(effective, np.full(4, effective[0]), rtol=1e-6)
    if form != "unit_mean":
        np.testing.assert_allclose(effective, np.ones(4), rtol=1e-6)


@pytest.mark.parametrize("kind", ["squared_euclidean", "euclidean"])
def test_unit_mean_has_unit_mean_at_any_scale(kind):
    for factor in (0.01, 1, 100):
        found = weights.effective_weights(RAW * factor, form="unit_mean", attributes=ATTRIBUTES, distance=kind)
        np.testing.assert_allclose(oracles.pair_mean(ATTRIBUTES * np.asarray(found), kind), 1, rtol=1e-4)


@pytest.mark.parametrize("form", weights.FORMS)
def test_zeros_have_finite_gradients_and_attributes_none(form):
    def total(raw, attributes):
        return jnp.sum(weights.effective_weights(raw, form=form, attributes=attributes, distance="euclidean"))

    assert np.isfinite(total(jnp.zeros(4), ATTRIBUTES))
    assert np.isfinite(jax.grad(total)(jnp.zeros(4), ATTRIBUTES)).all()
    assert not jax.grad(total, argnums=1)(RAW, ATTRIBUTES).any()


def test_errors():
    with pytest.raises(ValueError, match="'signed'"):
        weights.effective_weights(RAW, form="signed")
    with pytest.raises(ValueError, match="'signed'"):
        weights.initial_weights(4, "signed")
    with pytest.raises(ValueError, match="want attributes"):
        weights.effective_weights(RAW, form="unit_mean")
    with pytest.raises(ValueError, match="cosine"):
        weights.effective_weights(RAW, form="unit_mean", attributes=ATTRIBUTES, distance="cosine")
