"""A batch in parts against the batch at once, and against a loop over parts where batch statistics tell them apart."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.models import initialize, mva
from acrn_jax.schema import Outputs
from acrn_jax.train import accumulate, optimizer, state, step
from tests.train import test_step as steps


class Plain(nn.Module):
    """A net without batch normalisation: rows do not know of each other."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.relu(nn.Conv(6, (3, 3), strides=2, name="stem")(images))
        feature = nn.Dense(8, name="feature")(x.reshape(len(x), -1))
        if self.dropout and train:
            feature = mva.dropout(feature, self.get_variable("random", "rows"), self.dropout)
        heads = nn.Dense(steps.PEOPLE, name="classifier")(feature), nn.Dense(steps.A, name="attributes")(feature)
        return Outputs(feature, feature, *heads)


def trained(name, parts, *, net=lambda axis_name: Plain(), wrapper="jit", devices=1):
    """State and scalars after two steps."""
    groups = {"scratch": {"kind": "sgd", "rate": 0.01}}
    weights = np.ones(steps.A) if name.startswith("acrn") else None
    groups |= {"attribute_weights": {"kind": "sgd", "rate": 0.1}} if weights is not None else {}
    tx = optimizer.make(groups, steps.GROUPS)
    run = functools.partial(
        step.train_step, apply=net("data" if wrapper == "pmap" else None).apply, objective=steps.objective_of(name),
        tx=tx, mean=np.full(3, 0.5), deviation=np.full(3, 0.25), seed=0, parts=parts,
    )  # fmt: skip
    runner = step.WRAPPERS[wrapper](run, jax.devices()[:devices])
    variables = initialize.variables(net(None), height=12, width=8, seed=0)
    found, scalars = runner.place(state.create(variables, tx, attribute_weights=weights)), None
    for _ in range(2):
        found, scalars = runner.run(found, runner.put(steps.batch(name)))
    return jax.device_get((found.params, found.batch_stats, found.scales, scalars))


@pytest.mark.parametrize("name", ["attributes", "acrn batch_hard"])
def test_parts_make_the_same_step_as_the_batch_at_once(name):
    steps.same(trained(name, 1), trained(name, 4))


@pytest.mark.parametrize("wrapper, devices", [("jit", 1), ("jit", 4), ("pmap", 4)])
def test_parts_draw_as_the_batch_at_once(wrapper, devices):
    dropping = lambda axis_name: Plain(dropout=0.5)
    wanted = trained("attributes", 1, net=dropping)
    steps.same(wanted, trained("attributes", 2, net=dropping, wrapper=wrapper, devices=devices))
    assert not np.allclose(wanted[-1]["loss"], trained("attributes", 1)[-1]["loss"])


@pytest.mark.slow
def test_devices_and_wrappers_agree_on_parts():
    found = trained("classic batch_hard", 2, net=steps.Net, devices=4)
    steps.same(found, trained("classic batch_hard", 2, net=steps.Net, wrapper="pmap", devices=4))


def test_with_batch_statistics_a_step_is_a_loop_over_parts():
    variables = initialize.variables(steps.Net(), height=12, width=8, seed=0)
    data = steps.batch("classic batch_hard")
    images = step.normalise(data["image"], mean=np.full(3, 0.5), deviation=np.full(3, 0.25))
    objective = steps.objective_of("classic batch_hard")
    scales = {"feature": jnp.ones(()), "attribute": jnp.ones(())}

    def forward(params, part, number=0):
        moving = {"params": params, "batch_stats": variables["batch_stats"]}
        out, moved = steps.Net().apply(moving, part, train=True, mutable=["batch_stats"])
        return out, moved["batch_stats"]

    def loop(params):
        feature, moved = jnp.zeros((steps.B, 8)), []
        for first in (0, 1):
            out, statistics = forward(params, images[first::2])
            moved.append(statistics)
            feature = feature.at[first::2].set(out.feature)
        loss, _ = objective({}, Outputs(feature, feature), data, scales)
        return loss, jax.tree.map(lambda a, b: (a + b) / 2, *moved)

    (wanted, statistics), gradient = jax.jit(jax.value_and_grad(loop, has_aux=True))(variables["params"])
    whole = accumulate.value_and_grad(forward, lambda params, out: objective({}, out, data, scales), 2)
    (found, (_, moved)), grads = jax.jit(whole)(variables["params"], images)
    steps.same((wanted, statistics, gradient), (found, moved, grads))


def test_split_and_join():
    x = np.arange(12).reshape(6, 2)
    np.testing.assert_array_equal(accumulate.split(x, 3)[1], x[[1, 4]])
    np.testing.assert_array_equal(accumulate.join(accumulate.split(x, 3)), x)
