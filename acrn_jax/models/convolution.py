"""Convolutions said in ways whose gradients XLA computes faster on CPUs: twice as fast a step for the full-width ACRN.

The maps and gradients are those of `lax.conv_general_dilated`, up to the order of sums. XLA's CPU backend takes the
gradient of a kernel as a convolution with a window as large as the map, which is slow for all but narrow layers;
./launch.sh bench train measures them, docs/speed.md has the figures and what else was tried.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

NAMES = ("NHWC", "HWIO", "NHWC")
MANY = 2048  # channels in times channels out from which it pays; narrow layers are left as they are


def conv_general_dilated(x, kernel, window_strides, padding, *, dimension_numbers=NAMES, **options):
    """`lax.conv_general_dilated` as `flax.linen.Conv` calls it: [B, H, W, C], [h, w, C, D] -> [B, H', W', D]."""
    del dimension_numbers  # flax's are NAMES
    shape, strides = kernel.shape[:2], tuple(window_strides)
    plain = all(value in (None, 1, (1, 1)) for value in options.values())  # no dilation, groups or precision
    if plain and kernel.shape[2] * kernel.shape[3] >= MANY:
        if shape == strides == (1, 1):
            return jnp.einsum("bhwc,cd->bhwd", x, kernel[0, 0])
        if shape == (3, 3):
            pads = lax.padtype_to_pads(x.shape[1:3], shape, strides, padding) if isinstance(padding, str) else padding
            return _wide(x, kernel, strides, tuple(map(tuple, pads)))
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=NAMES, **options)


def _plain(x, kernel, strides, pads):
    return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=NAMES)


_wide = jax.custom_vjp(_plain, nondiff_argnums=(2, 3))


def _backward(strides, pads, kept, gradient):
    x, kernel = kept
    (of_x,) = jax.vjp(lambda x: _plain(x, kernel, strides, pads), x)[1](gradient)
    of_kernel = lax.platform_dependent(
        x,
        gradient,
        cpu=functools.partial(_by_taps, shape=kernel.shape[:2], strides=strides, pads=pads),
        default=lambda x, gradient: jax.vjp(lambda k: _plain(x, k, strides, pads), kernel)[1](gradient)[0],
    )
    return of_x, of_kernel


_wide.defvjp(lambda x, kernel, strides, pads: (_plain(x, kernel, strides, pads), (x, kernel)), _backward)


def _by_taps(x, gradient, *, shape, strides, pads):
    """Gradient of the kernel [h, w, C, D]: for each of its places, what it saw times what came of it."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    ends = [(size - 1) * stride + 1 for size, stride in zip(gradient.shape[1:3], strides, strict=True)]
    flat = gradient.reshape(-1, gradient.shape[-1])

    def tap(i, j):
        seen = x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        return seen.reshape(-1, x.shape[-1]).T @ flat

    return jnp.stack([jnp.stack([tap(i, j) for j in range(shape[1])]) for i in range(shape[0])])
