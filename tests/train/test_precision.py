"""What stays float32 under dtype bfloat16: everything but the convolutions' inputs and outputs."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.losses import objectives
from acrn_jax.models import acrn, inception, initialize, mva
from acrn_jax.ops import distance
from acrn_jax.schema import Outputs
from acrn_jax.train import optimizer, state, step
from tests.losses import test_objectives
from tests.train import test_step as steps

A = steps.A
GROUP = {"kind": "adamw", "rate": 0.1}


def traced(kind, net, size):
    """Shapes of the state before, and of (state, scalars) after one step."""
    names = ("trunk", "scratch") if kind == "attributes" else ("scratch", "attribute_weights")
    tx = optimizer.averaged(optimizer.make(dict.fromkeys(names, GROUP), steps.GROUPS), 0.9)
    if kind == "attributes":
        objective, weights = steps.objective_of(kind), None
    else:
        options = steps.REID | {"kind": "acrn", "identity_weight": 1.0}
        objective, weights = test_objectives.reid_loss(**options), np.ones(A)
    run = functools.partial(
        step.train_step, apply=net.apply, objective=objective, tx=tx, mean=np.zeros(3), deviation=np.ones(3), seed=0
    )
    image = jax.ShapeDtypeStruct((8, *size, 3), np.uint8)

    def first():
        variables = net.init(jax.random.key(0), jnp.zeros((2, *size, 3)), train=False)
        shapes = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), variables)
        params = {"net": shapes["params"]} | ({} if weights is None else {"attribute_weights": {"raw": jnp.ones(A)}})
        scales = {"feature": jnp.ones(()), "attribute": jnp.ones(())}
        return state.State(jnp.zeros((), jnp.int32), params, shapes["batch_stats"], scales, tx.init(params))

    before = jax.eval_shape(first)
    batch = {
        "image": image,
        "person": jax.ShapeDtypeStruct((8,), np.int32),
        "attributes": jax.ShapeDtypeStruct((8, A), np.int8),
        "probabilities": jax.ShapeDtypeStruct((8, A), np.float32),
    }
    return before, jax.eval_shape(run, before, batch)


@pytest.mark.parametrize(
    "kind, net, size",
    [
        ("acrn", functools.partial(acrn.ACRN, 4, feature_norm="bnneck"), (32, 16)),
        ("attributes", functools.partial(mva.MVA, A), (48, 24)),
    ],
)
def test_state_and_losses_stay_float32(kind, net, size):
    net = net(width=0.0625, dtype=jnp.bfloat16)
    before, (after, scalars) = traced(kind, net, size)
    form = lambda x: (x.shape, x.dtype, x.weak_type)  # of another one, a step compiled ahead would not take its result
    assert jax.tree.map(form, before) == jax.tree.map(form, after)
    assert {x.dtype for x in jax.tree.leaves((after, scalars))} == {jnp.dtype("float32"), jnp.dtype("int32")}
    assert scalars["loss"].dtype == jnp.float32
    variables = {"params": before.params["net"], "batch_stats": before.batch_stats}
    image = jax.ShapeDtypeStruct((2, *size, 3), np.float32)
    program, outputs = jax.make_jaxpr(lambda v, x: net.apply(v, x, train=False), return_shape=True)(variables, image)
    assert {x.dtype for x in jax.tree.leaves(outputs)} == {jnp.dtype("float32")}
    convolutions = [line for line in str(program).splitlines() if "= conv_general_dilated" in line]
    assert len(convolutions) > 40 and all(":bf16[" in line for line in convolutions)


def test_distances_are_float32_whatever_came():
    short = jax.ShapeDtypeStruct((6, 16), jnp.bfloat16)
    for kind in distance.DISTANCES:
        found = jax.eval_shape(functools.partial(distance.pairwise, kind=kind), short, short)
        assert found.dtype == jnp.float32, kind


class Small(nn.Module):
    """Convolutions as the nets have them, quick to compile."""

    dtype: Any

    @nn.compact
    def __call__(self, images, *, train):
        x = inception.Chain([(8, 3, 2), (8, 3, 2)], functools.partial(inception.ConvNorm, dtype=self.dtype))(
            images, train=train
        )
        feature = nn.Dense(8)(jnp.mean(x, axis=(1, 2)).astype(jnp.float32))
        return Outputs(feature, feature, nn.Dense(4)(feature))


def test_loss_of_bfloat16_is_near_that_of_float32():
    images = np.random.default_rng(0).normal(size=(8, 16, 8, 3)).astype(np.float32)
    variables = initialize.variables(Small(jnp.float32), height=16, width=8, seed=0)
    objective = objectives.IdentityLoss(smoothing=0.0)

    @functools.partial(jax.jit, static_argnums=0)
    def loss(dtype, images):
        out, _ = Small(dtype).apply(variables, images, train=True, mutable=["batch_stats"])
        return objective({}, out, {"person": np.repeat(np.arange(4), 2)}, {})[0]

    wanted, found = (float(loss(dtype, images)) for dtype in (jnp.float32, jnp.bfloat16))
    assert found != wanted
    np.testing.assert_allclose(found, wanted, rtol=0.02)
