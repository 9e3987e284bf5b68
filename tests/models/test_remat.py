"""Rematerialised nets: the same variables, the same gradient, less memory."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.models import acrn, inception, initialize, mva


@pytest.mark.parametrize("net, size", [(acrn.ACRN, (32, 16)), (mva.MVA, (48, 24))])
def test_variables_do_not_depend_on_it(net, size):
    image = jax.ShapeDtypeStruct((2, *size, 3), np.float32)

    def shapes(remat):
        module = net(3, width=0.0625, remat=remat)
        return jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image)

    assert shapes(False) == shapes(True)


class Blocks(nn.Module):
    """Three blocks, quick to compile."""

    remat: bool

    @nn.compact
    def __call__(self, x, *, train):
        for i in range(3):
            conv = functools.partial(inception.ConvNorm)
            x = inception.block(inception.Chain([(8, 3, 1)] * 2, conv, name=f"block{i}"), self.remat)(x, train=train)
        return x


def test_same_gradient_in_less_memory():
    images = np.random.default_rng(0).normal(size=(8, 32, 16, 3)).astype(np.float32)
    variables = initialize.variables(Blocks(False), height=32, width=16, seed=0)

    def compiled(remat):
        def loss(params):
            moving = {"params": params, "batch_stats": variables["batch_stats"]}
            out, moved = Blocks(remat).apply(moving, images, train=True, mutable=["batch_stats"])
            return jnp.mean(jnp.sin(out)), moved

        return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(variables["params"]).compile()

    plain, remat = compiled(False), compiled(True)
    same = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    jax.tree.map(same, plain(variables["params"]), remat(variables["params"]))
    assert remat.memory_analysis().temp_size_in_bytes < 0.7 * plain.memory_analysis().temp_size_in_bytes
