"""One step under jit and pmap on 1, 2, 4 and 8 devices gives one and the same state; frozen things stay."""

import functools

import jax
import numpy as np
import pytest

from acrn_jax.losses import objectives
from acrn_jax.models import acrn, initialize
from acrn_jax.train import optimizer, state, step

B, A, PEOPLE = 16, 5, 4
NET = functools.partial(acrn.ACRN, width=0.0625, feature_dim=8, feature_norm="batch_norm")
REID = {
    "miner": "batch_hard", "mine_on": "combined", "gamma": 0.5, "distance": "squared_euclidean",
    "distance_scale": "unit_mean", "margin": 0.3, "temperature": 1.0, "reduction": "mean", "attribute_gradient": "stop",
    "attribute_margin": 0.1, "attribute_miner": "batch_all", "attribute_weights": "learned", "weight_form": "raw",
}  # fmt: skip


def batch():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(PEOPLE), B // PEOPLE).astype(np.int32)
    colour = rng.integers(0, 255, (PEOPLE, 1, 1, 3))
    images = np.clip(colour[person] + rng.integers(-60, 60, (B, 32, 16, 3)), 0, 255).astype(np.uint8)
    return {"image": images, "person": person, "probabilities": rng.random((B, A)).astype(np.float32)}


def objective_of(name):
    if name == "identity":
        return objectives.make_identity(smoothing=0.1)
    kind, _, miner = name.partition(" ")
    return objectives.make_reid(**REID | {"kind": kind} | ({"miner": miner} if miner else {}))


def trained(name, wrapper, devices, steps=3):
    classify = name == "identity"
    axis_name = "data" if wrapper == "pmap" else None
    module = NET(PEOPLE if classify else None, axis_name=axis_name)
    variables = initialize.variables(NET(PEOPLE if classify else None), height=32, width=16, seed=0)
    groups = {"scratch": {"kind": "sgd", "rate": 0.01}}
    weights = None
    if name.startswith("acrn"):
        groups["attribute_weights"] = {"kind": "sgd", "rate": 0.1}
        weights = np.ones(A)
    tx = optimizer.make(groups)
    run, put = step.WRAPPERS[wrapper](
        functools.partial(
            step.train_step,
            apply=module.apply,
            objective=objective_of(name),
            tx=tx,
            mean=np.full(3, 0.5, np.float32),
            deviation=np.full(3, 0.25, np.float32),
            seed=0,
        ),
        jax.devices()[:devices],
    )
    found, scalars = state.create(variables, tx, attribute_weights=weights), None
    with jax.transfer_guard("allow"):
        for _ in range(steps):
            found, scalars = run(found, put(batch()))
    return jax.device_get(found), jax.device_get(scalars)


def same(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


@pytest.mark.parametrize("name", ["identity", "acrn"])
@pytest.mark.parametrize("wrapper, devices", [("jit", 4), ("pmap", 1), ("pmap", 4)])
def test_devices_and_wrappers_agree(name, wrapper, devices):
    reference, losses = _reference(name)
    found, scalars = trained(name, wrapper, devices)
    same(losses["loss"], scalars["loss"])
    same((reference.params, reference.batch_stats, reference.scales), (found.params, found.batch_stats, found.scales))


@functools.cache
def _reference(name):
    return trained(name, "jit", 1)


def test_steps_repeat_bit_for_bit():
    first, second = trained("acrn", "jit", 1)[0], trained("acrn", "jit", 1)[0]
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_step_changes_the_net_the_weights_and_the_scales():
    found, scalars = _reference("acrn")
    fresh = initialize.variables(NET(None), height=32, width=16, seed=0)
    kernel = ("layer1", "mix", "conv", "kernel")
    assert not np.array_equal(
        functools.reduce(dict.get, kernel, found.params["net"]), functools.reduce(dict.get, kernel, fresh["params"])
    )
    assert not np.array_equal(found.params["attribute_weights"]["raw"], np.ones(A))
    assert found.scales["feature"] != 1 and found.scales["attribute"] != 1
    assert found.step == 3 and np.isfinite(scalars["gradient_norm"])


def test_normalise_by_hand():
    x = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    found = step.normalise(x, mean=np.array([0.0, 0.2, 0.5]), deviation=np.array([1.0, 0.5, 0.25]))
    np.testing.assert_allclose(np.ravel(found), [0.0, 0.0, 2.0], atol=1e-6)
