"""Inception blocks: the nine of GoogLeNet with batch normalisation, and the residual and reducing ones of ACRN.

All blocks take and give [B, H, W, C]; every convolution is followed by batch normalisation and ReLU.
"""

import functools
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from acrn_jax.models import convolution
from acrn_jax.rules import number

Width = Annotated[float, number(1 / 64)]  # below, layers of a re-id net have no channels to add

# Szegedy et al., "Going Deeper with Convolutions", 2015, table 1:
# 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
GOOGLENET = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
POOL_BEFORE = ("3a", "4a", "5a")


class Layout(NamedTuple):
    """What Inception-v1 nets with one table of channels still do differently."""

    padding: Any  # of the 7x7 convolution, as flax.linen.Conv takes it
    pooling: str  # padding of the poolings of stride 2, as `max_pool` takes it
    last_window: int  # of the pooling before 5a
    signed_pixels: bool  # whether the net wants pixels in [-1, 1], whatever the images were normalised with


LAYOUTS = {
    "ours": Layout("SAME", "same", 3, False),  # as Szegedy et al. draw it
    "torchvision": Layout(3, "ceil", 2, True),  # torchvision.models.googlenet with transform_input
    "slim": Layout("SAME", "same", 2, True),  # TF-slim's inception_v1
}


def scaled(channels: int, width: float) -> int:
    """`channels` times the width multiplier, rounded to a multiple of 4, at least 4 (and unchanged at width 1)."""
    return channels if width == 1.0 else max(4, 4 * round(channels * width / 4))


def max_pool(x, *, window: int = 3, stride: int = 2, padding: str = "same"):
    """Maximum over window x window places, without zeros at the edge: [B, H, W, C] -> [B, H', W', C].

    Padding `same` gives H' = ceil(H / stride), overhanging on both sides; `ceil` gives ceil((H - window) / stride) + 1,
    overhanging at the end alone (torch's ceil_mode). They differ for odd sizes.

    Taken as shifted slices, rows then columns: the gradient of XLA's reduce-window (select-and-scatter) is about 40 %
    of a training step on CPUs. Of tied maxima the gradient is shared out instead of going to the first.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        out = -(-size // stride) if padding == "same" else max(-(-(size - window) // stride), 0) + 1
        overhang = max((out - 1) * stride + window - size, 0)
        before = overhang // 2 if padding == "same" else 0
        after = overhang - before
        pad = [(0, 0)] * 4
        pad[axis] = (before, after)
        padded = jnp.pad(x, pad, constant_values=-jnp.inf) if before or after else x
        index: list[Any] = [slice(None)] * 4
        slices = []
        for shift in range(window):
            index[axis] = slice(shift, shift + (out - 1) * stride + 1, stride)
            slices.append(padded[tuple(index)])
        x = functools.reduce(jnp.maximum, slices)
    return x


def block(module: nn.Module, remat: bool):
    """`module` as a function of (x, train); with `remat` its inner maps are computed again for the gradient.

    Only its input is then kept from the forward pass: less memory for one more forward pass.
    """
    if not remat:
        return module
    return lambda x, *, train: nn.remat(lambda module, x: module(x, train=train))(module, x)


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation, ReLU (unless `linear`).

    With `instance` the first half of the channels is normalised within each image instead, over its places, also at
    test: that takes out what tells cameras apart and people hardly, light and colour cast (Pan et al., "Two at Once:
    Enhancing Learning and Generalization Capacities via IBN-Net", 2018, their block IBN-a).
    """

    features: int
    kernel: int = 1
    stride: int = 1
    linear: bool = False
    axis_name: str | None = None  # pmap axis over which batch statistics are taken
    dtype: Any = jnp.float32
    padding: Any = "SAME"
    instance: bool = False

    @nn.compact
    def __call__(self, x, *, train: bool):
        x = nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.stride,
            padding=self.padding,
            use_bias=False,
            dtype=self.dtype,
            conv_general_dilated=convolution.conv_general_dilated,
            name="conv",
        )(x)
        within: list[Any] = []
        if self.instance:
            within = [nn.InstanceNorm(epsilon=1e-3, dtype=self.dtype, name="instance")(x[..., : self.features // 2])]
            x = x[..., self.features // 2 :]
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-3,
            dtype=self.dtype,
            axis_name=self.axis_name,
            name="norm",
        )(x)
        x = jnp.concatenate([*within, x], axis=-1) if within else x
        return x if self.linear else nn.relu(x)


class Chain(nn.Module):
    """ConvNorms one after the other, each given as (features, kernel, stride)."""

    layers: Sequence[tuple[int, int, int]]
    conv: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        for i, (features, kernel, stride) in enumerate(self.layers):
            x = self.conv(features, kernel, stride, name=f"conv{i}")(x, train=train)
        return x


class Inception(nn.Module):
    """One block of GoogLeNet; `channels` as a row of `GOOGLENET`, already scaled."""

    channels: Sequence[int]
    conv: Any
    branch_kernel: int = 5

    @nn.compact
    def __call__(self, x, *, train: bool):
        one, reduce3, three, reduce5, five, pool = self.channels
        branches = (
            ("branch1", [(one, 1, 1)], x),
            ("branch3", [(reduce3, 1, 1), (three, 3, 1)], x),
            ("branch5", [(reduce5, 1, 1), (five, self.branch_kernel, 1)], x),
            ("pool", [(pool, 1, 1)], max_pool(x, stride=1)),
        )
        return jnp.concatenate([Chain(c, self.conv, name=n)(y, train=train) for n, c, y in branches], axis=-1)


class InceptionV3(nn.Module):
    """The first mixed block of Inception-v3: raises the channel count to `features`.

    Branches of 1/4 (1x1), 1/4 (5x5), 3/8 (two 3x3) and 1/8 (pooled) of the output, as in Szegedy et al., "Rethinking
    the Inception Architecture", 2016, where they are 64, 64, 96 and 32 of 256.
    """

    features: int
    conv: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        c = self.features
        pool = c - 2 * (c // 4) - 3 * c // 8
        branches = (
            ("branch1", [(c // 4, 1, 1)], x),
            ("branch5", [(max(3 * c // 16, 1), 1, 1), (c // 4, 5, 1)], x),
            ("branch33", [(c // 4, 1, 1), (3 * c // 8, 3, 1), (3 * c // 8, 3, 1)], x),
            ("pool", [(pool, 1, 1)], nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)),
        )
        return jnp.concatenate([Chain(s, self.conv, name=n)(y, train=train) for n, s, y in branches], axis=-1)


class InceptionResidual(nn.Module):
    """Concat of branches -> 1x1 convolution -> input + scale * that -> ReLU; the channel count C stays.

    Branches: 1x1 of C/8; 1x1, 3x3 of C/8; 1x1 of C/8, 3x3 of 3C/16, 3x3 of C/4 (Inception-ResNet-A's proportions,
    Szegedy et al. 2017).
    """

    conv: Any
    scale: float = 0.2

    @nn.compact
    def __call__(self, x, *, train: bool):
        c = x.shape[-1]
        eighth = max(c // 8, 1)
        chains = (
            ("branch1", [(eighth, 1, 1)]),
            ("branch3", [(eighth, 1, 1), (eighth, 3, 1)]),
            ("branch33", [(eighth, 1, 1), (max(3 * c // 16, 1), 3, 1), (max(c // 4, 1), 3, 1)]),
        )
        mixed = jnp.concatenate([Chain(s, self.conv, name=n)(x, train=train) for n, s in chains], axis=-1)
        return nn.relu(x + self.scale * self.conv(c, 1, 1, True, name="mix")(mixed, train=train))


class InceptionReduce(nn.Module):
    """Stride 2, no shortcut: max pooling beside two convolution branches, each adding half of `features` - C."""

    features: int
    conv: Any
    stride: int = 2

    @nn.compact
    def __call__(self, x, *, train: bool):
        added = self.features - x.shape[-1]
        if added < 2:
            raise ValueError(f"A reducing layer must add channels; got {x.shape[-1]} in and {self.features} out.")
        first, second = added // 2, added - added // 2
        reduce = max(x.shape[-1] // 4, 1)
        deeper = [(reduce, 1, 1), (second, 3, 1), (second, 3, self.stride)]
        return jnp.concatenate(
            [
                max_pool(x, stride=self.stride),
                Chain([(reduce, 1, 1), (first, 3, self.stride)], self.conv, name="branch3")(x, train=train),
                Chain(deeper, self.conv, name="branch33")(x, train=train),
            ],
            axis=-1,
        )


class GoogLeNet(nn.Module):
    """Inception-v1 with batch normalisation, without classifier.

    Returns the maps after the first 7x7 convolution [B, H/2, W/2, 64 w] and after block 5b [B, H/32, W/32, 1024 w].
    `layout` is an entry of `LAYOUTS`; whoever calls brings the pixels into its range.
    """

    width: float = 1.0
    branch_kernel: int = 5
    axis_name: str | None = None
    dtype: Any = jnp.float32
    layout: str = "ours"
    remat: bool = False
    instance_norm: bool = False  # of the three convolutions before the blocks, see ConvNorm

    @nn.compact
    def __call__(self, x, *, train: bool):
        conv = functools.partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        early = functools.partial(conv, instance=self.instance_norm)
        layout = LAYOUTS[self.layout]
        first = early(scaled(64, self.width), 7, 2, padding=layout.padding, name="conv1")(x, train=train)
        x = max_pool(first, padding=layout.pooling)
        x = early(scaled(64, self.width), 1, name="conv2")(x, train=train)
        x = early(scaled(192, self.width), 3, name="conv3")(x, train=train)
        for name, channels in GOOGLENET.items():
            if name in POOL_BEFORE:
                x = max_pool(x, window=layout.last_window if name == "5a" else 3, padding=layout.pooling)
            channels = [scaled(c, self.width) for c in channels]
            inception = Inception(channels, conv, self.branch_kernel, name=f"inception{name}")
            x = block(inception, self.remat)(x, train=train)
        return first, x
