"""Poolings of the re-id net's last map against loops in float64, and the nets that have them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax import build, settings
from acrn_jax.configs import common
from acrn_jax.models import MODELS, acrn, initialize, pooling
from acrn_jax.train import optimizer, state, step
from tests.models.test_nets import Thin, output_of, shapes


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("rows, parts", [(4, 1), (4, 2), (4, 3), (4, 4), (8, 3), (5, 2), (10, 6)])
def test_stripes_cover_all_rows_evenly(rows, parts):
    found = pooling.stripes(rows, parts)
    assert found[0][0] == 0 and found[-1][1] == rows and len(found) == parts
    for i, (start, stop) in enumerate(found):  # the rows that share an area with [i, i + 1] rows / parts
        assert list(range(start, stop)) == [
            row for row in range(rows) if row * parts < (i + 1) * rows and (row + 1) * parts > i * rows
        ]


def test_more_stripes_than_rows_are_refused():
    with pytest.raises(ValueError, match=r"config\.model\.parts is 5, and the last map has 4 rows; ask for at most 4"):
        shapes(acrn.ACRN(4, 0.0625, head_pooling="average", parts=5), 128, 48)


def test_stripes_of_a_flattened_map_are_refused_before_any_work():
    config = settings.read(common.get_config()).changed({"data.dir": "D", "data.name": "market1501", "model.parts": 2})
    with pytest.raises(ValueError, match=r"parts is 2 with config\.model\.head_pooling flatten"):
        build.check(config)
    with pytest.raises(ValueError, match="parts is 2 with"):
        shapes(acrn.ACRN(4, 0.0625, parts=2), 128, 48)


def gem(x, power):
    """By its definition, place by place, [B, H, W, C] -> [B, C] in float64."""
    found = np.zeros((len(x), x.shape[-1]))
    for b, c in np.ndindex(found.shape):
        values = [max(float(v), 1e-6) for v in x[b, :, :, c].ravel()]
        found[b, c] = (sum(v**power for v in values) / len(values)) ** (1 / power)
    return found


@pytest.mark.parametrize("name", ["average", "gem"])
def test_each_stripe_is_pooled_on_its_own(name):
    x, power = noise(3, 8, 2, 5), 2.2
    layer = pooling.GeM()
    found = pooling.pooled(x, name, 3, lambda v: layer.apply({"params": {"power": jnp.float32(power)}}, v))
    mean = (lambda v: v.astype(float).mean((1, 2))) if name == "average" else (lambda v: gem(v, power))
    wanted = np.concatenate([mean(x[:, :3]), mean(x[:, 2:6]), mean(x[:, 5:])], axis=1)  # 8 / 3 rows each
    assert found.shape == (3, 15)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_flatten_keeps_every_place_in_order():
    x = noise(2, 3, 4, 5)
    np.testing.assert_array_equal(pooling.pooled(x, "flatten", 1, None), x.reshape(2, 60))


def of(power, x):
    return pooling.GeM().apply({"params": {"power": power}}, x)


def test_gradients_of_the_generalised_mean():
    x, power, h = np.abs(noise(1, 3, 2, 2)) + 0.1, 2.7, 1e-5
    weight = noise(1, 2)
    of_power, of_x = jax.grad(lambda p, x: jnp.sum(of(p, x) * weight), argnums=(0, 1))(jnp.float32(power), x)
    wide = x.astype(float)
    wanted = ((gem(wide, power + h) - gem(wide, power - h)) / (2 * h) * weight).sum()
    np.testing.assert_allclose(of_power, wanted, rtol=1e-3)
    for place in np.ndindex(x.shape):
        moved = [wide.copy(), wide.copy()]
        moved[0][place] += h
        moved[1][place] -= h
        wanted = ((gem(moved[0], power) - gem(moved[1], power)) / (2 * h) * weight).sum()
        np.testing.assert_allclose(of_x[place], wanted, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 3.0, 40.0])
@pytest.mark.parametrize("size", [0.0, 1e-4, 1.0, 1e6])
def test_the_generalised_mean_stays_finite(power, size):
    x = np.maximum(size * noise(2, 4, 2, 3), 0)
    x[0, :, :, 0] = 0
    value = of(jnp.float32(power), x)
    gradient = jax.grad(lambda p, x: jnp.sum(of(p, x)), argnums=(0, 1))(jnp.float32(power), x)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))
    assert (value <= np.maximum(x.max((1, 2)), 1e-6) * 1.0001).all()
    assert (value >= np.maximum(x, 1e-6).mean((1, 2)) * 0.9999).all()


def test_last_stride_leaves_the_last_pooling_out_and_no_parameter_changes():
    nets = [acrn.ACRN(4, 0.25, head_pooling="average", parts=p, last_stride=s) for p, s in ((1, 2), (1, 1), (4, 1))]
    (_, plain), (_, larger), (_, parts) = (shapes(net, 128, 48) for net in nets)
    assert output_of(plain, "layer8").shape == (2, 4, 2, 256)
    assert output_of(larger, "layer8").shape == output_of(parts, "layer8").shape == (2, 8, 3, 256)
    assert output_of(larger, "layer4").shape == output_of(plain, "layer4").shape
    sizes = [jax.tree.map(lambda leaf: leaf.shape, found["params"]) for found in (plain, larger, parts)]
    assert sizes[0] == sizes[1]
    assert sizes[2].pop("feature")["kernel"] == (4 * 256, 512) and sizes[0].pop("feature")["kernel"] == (256, 512)
    assert sizes[0] == sizes[2]


def test_the_exponent_is_trained_with_the_rest_and_starts_at_three(monkeypatch):
    for layer in ("InceptionV3", "InceptionResidual", "InceptionReduce"):
        monkeypatch.setattr(acrn, layer, lambda *_, name: Thin(name=name))
    monkeypatch.setattr(Thin, "__call__", lambda self, x, train: x)
    monkeypatch.setattr(acrn, "STEM", (8,))
    net = acrn.ACRN(5, feature_dim=16, head_pooling="gem", parts=2)
    variables = initialize.variables(net, height=8, width=4, seed=0)
    assert variables["params"]["gem"]["power"] == 3
    tx = optimizer.make({"scratch": {"kind": "adamw", "rate": 0.01, "decay": 0.5}}, MODELS["acrn"].groups)
    batch = {"image": np.random.default_rng(0).integers(0, 256, (4, 8, 4, 3), np.uint8)}
    objective = lambda params, outputs, batch, scales: (jnp.sum(outputs.identity_logits**2), ({}, scales))
    first = state.create(variables, tx)
    after, _ = step.train_step(
        first, batch, apply=net.apply, objective=objective, tx=tx, mean=(0.5,) * 3, deviation=(0.25,) * 3, seed=0
    )
    moved = float(after.params["net"]["gem"]["power"]) - 3
    assert abs(moved) == pytest.approx(0.01, rel=1e-3)  # Adam's first step, without decay
