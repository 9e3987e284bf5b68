"""Groups, decay and schedules, against hand numbers and plain loops."""

import jax
import numpy as np
import pytest

from acrn_jax.models import acrn, initialize, mva
from acrn_jax.train import optimizer


def params_of(net, size=(48, 24)):
    return initialize.variables(net, height=size[0], width=size[1], seed=0)["params"]


def groups_of(params, prefixes):
    named = jax.tree_util.tree_map_with_path(lambda path, _: optimizer.group_of(path, prefixes), params)
    return jax.tree.leaves(named)


def test_every_parameter_of_both_nets_has_a_group():
    attribute_net = {"net": params_of(mva.MVA(3, width=0.0625), (64, 32))}
    assert set(groups_of(attribute_net, mva.GROUPS)) == {"trunk", "scratch"}
    reid = {"net": params_of(acrn.ACRN(4, width=0.0625, feature_dim=8, feature_norm="bnneck"))}
    reid["attribute_weights"] = {"raw": np.ones(3)}
    assert set(groups_of(reid, acrn.GROUPS)) == {"scratch", "attribute_weights"}


def test_unclaimed_parameter_is_an_error():
    with pytest.raises(ValueError, match="net/surprise/kernel is in no optimiser group"):
        groups_of({"net": {"surprise": {"kernel": np.ones(2)}}}, acrn.GROUPS)


SMALL = {
    "net": {
        "trunk": {"kernel": np.full((2, 2), 2.0, np.float32), "bias": np.full(2, 2.0, np.float32)},
        "head_dense": {"kernel": np.full((2, 1), 1.0, np.float32)},
    },
    "attribute_weights": {"raw": np.array([0.05, 1.0], np.float32)},
}


def steps(groups, gradient, n, params=SMALL):
    tx = optimizer.make(groups, mva.GROUPS)
    state = tx.init(params)
    for _ in range(n):
        updates, state = tx.update(jax.tree.map(lambda p: np.full_like(p, gradient), params), state, params)
        params = jax.tree.map(np.add, params, updates)
    return params


def test_sgd_with_momentum_and_decay_by_hand():
    groups = {
        "trunk": {"kind": "sgd", "rate": 0.1, "momentum": 0.9, "decay": 0.5},
        "scratch": {"kind": "sgd", "rate": 0.0},
        "attribute_weights": {"kind": "sgd", "rate": 0.1, "momentum": 0.0, "nonnegative": True},
    }
    found = steps(groups, 1.0, 2)
    # kernel: g1 = 1 + 0.5 * 2 = 2 -> 1.8; g2 = 1 + 0.9 = 1.9, velocity 0.9 * 2 + 1.9 = 3.7 -> 1.43; bias without decay.
    np.testing.assert_allclose(found["net"]["trunk"]["kernel"], 1.43, rtol=1e-6)
    np.testing.assert_allclose(found["net"]["trunk"]["bias"], 2 - 0.1 - 0.19, rtol=1e-6)
    np.testing.assert_array_equal(found["net"]["head_dense"]["kernel"], 1.0)  # rate 0 freezes, decay included
    np.testing.assert_allclose(found["attribute_weights"]["raw"], [0.0, 0.8], atol=1e-7)  # projected to >= 0


@pytest.mark.parametrize("kind", ["adam", "adamw"])
def test_adam_against_a_loop(kind):
    groups = {name: {"kind": kind, "rate": 0.1, "decay": 0.2} for name in ("trunk", "scratch", "attribute_weights")}
    found = steps(groups, 0.5, 5)
    for path, decayed in ((("net", "trunk", "kernel"), kind == "adamw"), (("net", "trunk", "bias"), False)):
        x, first, second = 2.0, 0.0, 0.0
        for t in range(1, 6):
            first, second = 0.9 * first + 0.1 * 0.5, 0.999 * second + 0.001 * 0.25
            step = (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
            x -= 0.1 * (step + (0.2 * x if decayed else 0.0))
        value = found[path[0]][path[1]][path[2]]
        np.testing.assert_allclose(value, x, rtol=1e-5)


def test_unknown_optimiser():
    with pytest.raises(ValueError, match="known: sgd, adam, adamw"):
        optimizer.make({"trunk": {"kind": "lion", "rate": 0.1}}, mva.GROUPS)


def test_schedules_by_hand():
    stairs = optimizer.schedule("staircase", rate=1.0, steps=100, every=10, factor=0.8)
    assert [round(float(stairs(s)), 4) for s in (0, 9, 10, 19, 20)] == [1.0, 1.0, 0.8, 0.8, 0.64]
    cosine = optimizer.schedule("cosine", rate=2.0, steps=110, warmup=10)
    np.testing.assert_allclose([cosine(0), cosine(5), cosine(10), cosine(60), cosine(110)], [0, 1, 2, 1, 0], atol=1e-6)
    assert float(optimizer.schedule("constant", rate=3.0, steps=5)(4)) == 3.0
    with pytest.raises(ValueError, match="known: staircase"):
        optimizer.schedule("linear", rate=1.0, steps=5)


def test_the_step_after_which_the_rate_falls_takes_the_lower_one():
    stairs = optimizer.schedule("staircase", rate=0.5, steps=6, every=2, factor=0.1)
    groups = {"trunk": {"kind": "sgd", "rate": stairs, "momentum": 0.0}, "scratch": {"kind": "adam", "rate": stairs}}
    groups["attribute_weights"] = {"kind": "sgd", "rate": stairs, "momentum": 0.0}
    gone = np.cumsum([0.5, 0.5, 0.05, 0.05, 0.005])  # of a gradient of 1; Adam's step is 1, too, as long as it stays
    for count in (1, 2, 3, 5):
        found = steps(groups, 1.0, count)
        np.testing.assert_allclose(found["net"]["trunk"]["bias"], 2 - gone[count - 1], rtol=1e-5)
        np.testing.assert_allclose(found["net"]["head_dense"]["kernel"], 1 - gone[count - 1], atol=1e-4)
        np.testing.assert_allclose(found["attribute_weights"]["raw"][1], 1 - gone[count - 1], atol=1e-6)


def test_average_of_parameters_by_a_loop():
    groups = {name: {"kind": "sgd", "rate": 0.1} for name in ("trunk", "scratch", "attribute_weights")}
    tx = optimizer.averaged(optimizer.make(groups, mva.GROUPS), 0.5)
    params, average = SMALL, SMALL
    state, plain = tx.init(params), optimizer.make(groups, mva.GROUPS).init(params)
    for count in range(8):
        updates, state = tx.update(jax.tree.map(np.ones_like, params), state, params)
        alone, plain = optimizer.make(groups, mva.GROUPS).update(jax.tree.map(np.ones_like, params), plain, params)
        jax.tree.map(np.testing.assert_array_equal, updates, alone)
        params = jax.tree.map(np.add, params, updates)
        decay = min(0.5, (1 + count) / (10 + count))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * p, average, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), state.average, average)
    kernel = state.average["net"]["trunk"]["kernel"][0, 0]
    assert params["net"]["trunk"]["kernel"][0, 0] < kernel < SMALL["net"]["trunk"]["kernel"][0, 0]
