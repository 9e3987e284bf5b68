"""Convolutions beside lax's own and beside loops."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from acrn_jax.models import convolution, inception

# (size, channels in and out, kernel, stride, padding): wide and narrow, odd sizes, both paddings
CASES = [
    ((7, 5), (64, 32), 3, 1, "SAME"),
    ((7, 6), (32, 64), 3, 2, "SAME"),
    ((8, 5), (48, 48), 3, 2, "SAME"),
    ((6, 6), (64, 64), 3, 1, "VALID"),
    ((6, 5), (64, 32), 3, 2, ((1, 1), (0, 2))),
    ((6, 5), (4, 8), 3, 1, "SAME"),
    ((5, 4), (64, 32), 1, 1, "SAME"),
    ((5, 4), (64, 32), 1, 2, "SAME"),
    ((5, 4), (12, 20), 1, 1, "SAME"),
    ((6, 5), (64, 32), 5, 1, "SAME"),
]


def layer(case, *, ours, dtype=jnp.float32):
    _, (_, after), kernel, stride, padding = case
    own = {"conv_general_dilated": convolution.conv_general_dilated} if ours else {}
    return nn.Conv(after, (kernel, kernel), stride, padding, use_bias=False, dtype=dtype, **own)


def drawn(case, seed=0):
    rng = np.random.default_rng(seed)
    (height, width), (before, after), kernel, *_ = case
    x = rng.normal(size=(3, height, width, before)).astype(np.float32)
    return x, {"params": {"kernel": rng.normal(size=(kernel, kernel, before, after)).astype(np.float32)}}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_maps_and_both_gradients_are_lax_own(case):
    x, variables = drawn(case)
    maps = layer(case, ours=False).apply(variables, x)
    pull = np.random.default_rng(1).normal(size=maps.shape).astype(np.float32)

    def loss(variables, x, ours):
        return jnp.sum(jnp.sin(layer(case, ours=ours).apply(variables, x)) * pull)

    np.testing.assert_allclose(layer(case, ours=True).apply(variables, x), maps, rtol=1e-4, atol=1e-4)
    found, wanted = (jax.jit(jax.grad(loss, (0, 1)), static_argnums=2)(variables, x, ours) for ours in (True, False))
    for ours, lax_own in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(ours, lax_own, rtol=1e-3, atol=2e-3)


def test_the_kernels_gradient_by_loops():
    case = ((4, 3), (64, 32), 3, 2, ((1, 0), (0, 1)))
    x, variables = drawn(case)
    kernel = variables["params"]["kernel"]
    run = lambda kernel: convolution.conv_general_dilated(x, kernel, (2, 2), ((1, 0), (0, 1)))
    maps, pullback = jax.vjp(run, kernel)
    pull = np.random.default_rng(1).normal(size=maps.shape)
    wanted, padded = np.zeros(kernel.shape), np.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))).astype(np.float64)
    for b, i, j, u, v in itertools.product(range(3), *map(range, maps.shape[1:3]), range(3), range(3)):
        wanted[u, v] += np.outer(padded[b, 2 * i + u, 2 * j + v], pull[b, i, j])
    np.testing.assert_allclose(pullback(pull.astype(np.float32))[0], wanted, rtol=1e-4, atol=1e-4)


def test_several_nets_at_once_and_half_precision():
    case = CASES[0]
    x, variables = drawn(case)
    kernels = np.stack([drawn(case, seed)[1]["params"]["kernel"] for seed in (0, 1)])
    gradient = jax.grad(lambda kernel: jnp.sum(layer(case, ours=True).apply({"params": {"kernel": kernel}}, x) ** 2))
    together = jax.vmap(gradient)(kernels)
    for each, kernel in zip(together, kernels, strict=True):
        np.testing.assert_allclose(each, gradient(kernel), rtol=1e-4, atol=1e-2)
    half = lambda ours: jax.grad(
        lambda v: jnp.sum(layer(case, ours=ours, dtype=jnp.bfloat16).apply(v, x).astype(jnp.float32) ** 2)
    )(variables)["params"]["kernel"]
    assert half(True).dtype == np.float32
    np.testing.assert_allclose(half(True), half(False), rtol=0.02, atol=0.02 * np.abs(half(False)).max())


def test_wide_kernels_and_dots_are_in_the_nets_and_accelerators_keep_lax_own():
    net = inception.ConvNorm(64, 3)
    x = jnp.zeros((2, 5, 4, 64))
    variables = net.init(jax.random.key(0), x, train=False)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(net.apply({**variables, "params": p}, x, train=False))))
    text = {p: gradient.trace(variables["params"]).lower(lowering_platforms=(p,)).as_text() for p in ("cpu", "cuda")}
    assert text["cpu"].count("stablehlo.dot_general") == 9, "one product for each place of the kernel"
    assert "stablehlo.dot_general" not in text["cuda"] and "stablehlo.convolution" in text["cuda"]
    text = jax.jit(lambda x: inception.ConvNorm(64).init_with_output(jax.random.key(0), x, train=False)[0]).lower(x)
    assert "stablehlo.convolution" not in text.as_text() and "stablehlo.dot_general" in text.as_text()


def test_what_is_not_plain_is_left_to_lax():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(1, 9, 9, 64)), rng.normal(size=(3, 3, 64, 32))
    options = {"lhs_dilation": (1, 1), "rhs_dilation": (2, 2), "feature_group_count": 1, "precision": None}
    found = convolution.conv_general_dilated(x, kernel, (1, 1), "SAME", **options)
    wanted = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=convolution.NAMES, **options)
    np.testing.assert_array_equal(found, wanted)
