"""MVA, the multi-view attribute net (Schumann and Stiefelhagen 2017, section 3.1; docs/method.md section 2)."""

import functools
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax.models.inception import GOOGLENET, LAYOUTS, POOL_BEFORE, ConvNorm, GoogLeNet, Width, block, scaled
from acrn_jax.rules import Count, Flag, number, one_of, several
from acrn_jax.schema import Outputs

VIEWS = ("top", "middle", "bottom")
# Optimiser group of each part: the trunk starts from ImageNet weights in the paper, so it has a rate of its own.
GROUPS = {"trunk": "trunk"} | dict.fromkeys(("view", "global_dense", "head_", "attributes"), "scratch")


def bands(rows: int) -> list[tuple[int, int]]:
    """(start, stop) of three horizontal bands of a map of `rows` rows: equal heights, overlapping by a row or two."""
    height = -(-rows // 3)
    return [(start, start + height) for start in (round(i * (rows - height) / 2) for i in range(3))]


def dropout(x, keys, rate: float):
    """Zeroes a share `rate` of x [B, D] and divides the rest by 1 - rate; what row b loses is drawn from keys[b].

    nn.Dropout draws for the array that it sees, which is a part of the batch under pmap or train/accumulate.py.
    """
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, the first of stride 2, bridged by a 1x1 convolution of stride 2."""

    features: int
    conv: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        y = self.conv(self.features, 3, 2, name="conv1")(x, train=train)
        y = self.conv(self.features, 3, 1, True, name="conv2")(y, train=train)
        return nn.relu(y + self.conv(self.features, 1, 2, True, name="shortcut")(x, train=train))


class LocalView(nn.Module):
    """One band [B, h, w, C] -> [B, features]: two convolutions, two halving residual blocks, average, dense."""

    features: int
    width: float
    conv: Any

    @nn.compact
    def __call__(self, x, *, train: bool):
        if min(x.shape[1:3]) < 4:
            raise ValueError(
                f"A local view's band is {x.shape[1]} x {x.shape[2]}; two halvings want at least 4 x 4. "
                "Raise config.data.height and config.data.width (24 x 8 is the least)."
            )
        for i, channels in enumerate((64, 96)):
            x = self.conv(scaled(channels, self.width), 3, name=f"conv{i}")(x, train=train)
        for i, channels in enumerate((128, 192)):
            x = ResidualBlock(scaled(channels, self.width), self.conv, name=f"block{i}")(x, train=train)
        return nn.Dense(self.features, dtype=self.conv.keywords["dtype"], name="dense")(jnp.mean(x, axis=(1, 2)))


class MVA(nn.Module):
    """Normalised images [B, H, W, 3] -> attribute logits [B, A].

    | part | layers (times `width`) | output at 224 x 224, width 1 |
    | --- | --- | --- |
    | trunk | GoogLeNet with batch norm, 7x7 convolution to block 5b | 7 x 7 x 1024 |
    | global view | average, dense 600, batch norm, ReLU | 600 |
    | bands | three of the first convolution's map | 38 x 112 x 64 each |
    | local view (each) | 3x3 64, 3x3 96, residual 128 and 192 (stride 2), average, dense 200, batch norm, ReLU | 200 |
    | head | concat 1200, dense 2048, batch norm, ReLU, dense A | A |

    `layout` names where the trunk's ImageNet weights come from. If that net wants pixels in [-1, 1], they are brought
    there from the images' own normalisation by `mean` and `deviation` (of pixels in [0, 1]). With `dropout`, training
    wants the variable "rows" of collection "random": a key for each image.
    """

    num_attributes: int = 0
    width: Width = 1.0
    # Local views in use; the global view is always there.
    views: Annotated[tuple[str, ...], several(one_of(*VIEWS))] = VIEWS
    branch_kernel: Count = 5
    dropout: Annotated[float, number(0, 1)] = 0.0
    axis_name: str | None = None
    dtype: Any = jnp.float32
    layout: Annotated[str, one_of(*LAYOUTS)] = "ours"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)
    instance_norm: Flag = False  # of the trunk's convolutions before the blocks, see inception.ConvNorm
    remat: Flag = False  # inception blocks and local views, see inception.block

    @nn.compact
    def __call__(self, images, *, train: bool) -> Outputs:
        if LAYOUTS[self.layout].signed_pixels:
            images = 2 * (images * jnp.array(self.deviation) + jnp.array(self.mean)) - 1
        conv = functools.partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        normalise = functools.partial(
            nn.BatchNorm, use_running_average=not train, momentum=0.9, axis_name=self.axis_name, dtype=self.dtype
        )
        options = (self.branch_kernel, self.axis_name, self.dtype, self.layout, self.remat, self.instance_norm)
        trunk = GoogLeNet(self.width, *options, name="trunk")
        first, x = trunk(images.astype(self.dtype), train=train)
        parts = [nn.Dense(scaled(600, self.width), dtype=self.dtype, name="global_dense")(jnp.mean(x, axis=(1, 2)))]
        for view, (start, stop) in zip(VIEWS, bands(first.shape[1]), strict=True):
            if view in self.views:
                local = LocalView(scaled(200, self.width), self.width, conv, name=f"view_{view}")
                parts.append(block(local, self.remat)(first[:, start:stop], train=train))
        x = nn.relu(normalise(name="views_norm")(jnp.concatenate(parts, axis=-1)))
        x = nn.Dense(scaled(2048, self.width), dtype=self.dtype, name="head_dense")(x)
        x = nn.relu(normalise(name="head_norm")(x))
        if self.dropout and train:
            x = dropout(x, self.get_variable("random", "rows"), self.dropout)
        logits = nn.Dense(self.num_attributes, dtype=jnp.float32, name="attributes")(x)
        return Outputs(attribute_logits=logits)


def onnx_layers(g: Any, x: Any, module: Any, layers: dict[str, Any], mean: np.ndarray, deviation: np.ndarray) -> str:
    """The net as nodes of an ONNX graph, see models.Model: name of the logits [B, A]."""
    layout = LAYOUTS[module.layout]
    factor, shift = 1 / (255 * deviation), -mean / deviation
    if layout.signed_pixels:
        own_mean, own_deviation = (np.asarray(v).reshape(1, 3, 1, 1) for v in (module.mean, module.deviation))
        factor, shift = 2 * own_deviation * factor, 2 * (own_deviation * shift + own_mean) - 1
    trunk = layers["trunk"]
    first = g.conv(g.affine(x, factor, shift), trunk["conv1"], stride=2, padding=layout.padding)
    x = g.pool(first, padding=layout.pooling)
    x = g.conv(g.conv(x, trunk["conv2"]), trunk["conv3"])
    for name in GOOGLENET:
        if name in POOL_BEFORE:
            x = g.pool(x, window=layout.last_window if name == "5a" else 3, padding=layout.pooling)
        block = trunk[f"inception{name}"]
        branches = [g.chain(x, block[n]) for n in ("branch1", "branch3", "branch5")]
        x = g.concat(*branches, g.chain(g.pool(x, stride=1), block["pool"]))
    parts = [(g.average(x), layers["global_dense"])]
    for view, (start, stop) in zip(VIEWS, bands(first.rows), strict=True):
        if view in module.views:
            local = layers[f"view_{view}"]
            edges = [g.constant([value], np.int64) for value in (start, stop, 2)]
            band = first._replace(name=g.add("Slice", first.name, *edges), rows=stop - start)
            band = g.conv(g.conv(band, local["conv0"]), local["conv1"])
            band = _onnx_residual(g, _onnx_residual(g, band, local["block0"]), local["block1"])
            parts.append((g.average(band), local["dense"]))
    dense, start = [], 0
    for value, layer in parts:  # the normalisation of all views together, folded into each one's layer
        stop = start + len(layer["bias"])
        norm = {name: v[start:stop] for name, v in layers["views_norm"].items()}
        dense.append(g.dense(value, layer, norm))
        start = stop
    joined = g.add("Relu", g.add("Concat", *dense, axis=1))
    head = g.add("Relu", g.dense(joined, layers["head_dense"], layers["head_norm"]))
    return g.dense(head, layers["attributes"])


def _onnx_residual(g: Any, x: Any, block: dict[str, Any]) -> Any:
    y = g.conv(g.conv(x, block["conv1"], stride=2), block["conv2"], linear=True)
    shortcut = g.conv(x, block["shortcut"], stride=2, linear=True)
    return y._replace(name=g.add("Relu", g.add("Add", y.name, shortcut.name)))
