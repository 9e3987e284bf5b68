"""ACRN, the re-identification net (Schumann and Stiefelhagen 2017, section 3.2; docs/method.md section 3)."""

import functools
from typing import Annotated, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from acrn_jax.models.inception import (
    ConvNorm,
    InceptionReduce,
    InceptionResidual,
    InceptionV3,
    Width,
    block,
    max_pool,
    scaled,
)
from acrn_jax.models.pooling import POOLINGS, GeM, onnx_pooled, pooled
from acrn_jax.rules import Count, Flag, NotNegative, one_of, whole
from acrn_jax.schema import Outputs

FEATURE_NORMS = ("none", "batch_norm", "l2", "bnneck")
STAGES = (256, 512, 768, 1024)  # channels after the v3 layer and after layers 2, 4 and 8
REDUCING = {2: 512, 4: 768, 8: 1024}
STEM = (32, 64, 96, 128)
# Optimiser group of each part.
GROUPS = dict.fromkeys(("stem", "v3", "layer", "gem", "feature", "classifier"), "scratch")


class ACRN(nn.Module):
    """Normalised images [B, H, W, 3] -> feature [B, feature_dim] and identity logits [B, people].

    | part | layers (channels times `width`) | map at 160 x 64 |
    | --- | --- | --- |
    | stem | 3x3 32, 3x3 64, pool, 3x3 96, 3x3 128, pool | 40 x 16 x 128 |
    | v3 layer | Inception-v3 mixed block, 256 | 40 x 16 x 256 |
    | layer 1 | inception-residual | 40 x 16 x 256 |
    | layer 2 | inception, stride 2 | 20 x 8 x 512 |
    | layer 3 | inception-residual | 20 x 8 x 512 |
    | layer 4 | inception, stride 2 | 10 x 4 x 768 |
    | layers 5 to 7 | inception-residual | 10 x 4 x 768 |
    | layer 8 | inception, stride 2 | 5 x 2 x 1024 |
    | feature | flatten (or pool, see pooling.py), dense 512 | 512 |
    | classifier | dense, only for identity training | people |

    With `last_stride` 1 layer 8 keeps the size of the map (Luo et al. 2019, section 3.5).

    `feature_norm` decides what f is: `none` the dense layer's output; `l2` that of length 1; `batch_norm` that after
    batch normalisation, everywhere; `bnneck` the triplet loss sees the output before the normalisation, classifier and
    ranking the one after (Luo et al. 2019). Of `l2` the classifier sees f times sqrt(feature_dim), so that its entries
    have the size of normalised ones: logits of vectors of length 1 are too small to tell many people apart (Wang et
    al., "NormFace", 2017, section 3.3).
    """

    num_people: int | None = None  # None: no classifier
    width: Width = 1.0
    feature_dim: Count = 512
    feature_norm: Annotated[str, one_of(*FEATURE_NORMS)] = "none"
    head_pooling: Annotated[str, one_of(*POOLINGS)] = "flatten"
    parts: Count = 1  # horizontal stripes of the last map, pooled on their own
    last_stride: Annotated[int, whole(1, 2)] = 2
    residual_scale: NotNegative = 0.2
    instance_norm: Flag = False  # of the stem's convolutions, see inception.ConvNorm
    axis_name: str | None = None
    dtype: Any = jnp.float32
    remat: Flag = False  # inception blocks and the stem's convolutions, see inception.block

    @nn.compact
    def __call__(self, images, *, train: bool) -> Outputs:
        if self.feature_norm not in FEATURE_NORMS:
            raise ValueError(f"feature_norm is {self.feature_norm!r}; known: {', '.join(FEATURE_NORMS)}.")
        conv = functools.partial(ConvNorm, axis_name=self.axis_name, dtype=self.dtype)
        x = images.astype(self.dtype)
        for i, channels in enumerate(STEM):
            stem = conv(scaled(channels, self.width), 3, instance=self.instance_norm, name=f"stem{i}")
            x = block(stem, self.remat)(x, train=train)
            if i % 2:
                x = max_pool(x)
        layers: list[nn.Module] = [InceptionV3(scaled(STAGES[0], self.width), conv, name="v3")]
        for i in range(1, 9):
            if i in REDUCING:
                stride = self.last_stride if i == max(REDUCING) else 2
                layers.append(InceptionReduce(scaled(REDUCING[i], self.width), conv, stride, name=f"layer{i}"))
            else:
                layers.append(InceptionResidual(conv, self.residual_scale, name=f"layer{i}"))
        for layer in layers:
            x = block(layer, self.remat)(x, train=train)
        x = pooled(x, self.head_pooling, self.parts, GeM(name="gem") if self.head_pooling == "gem" else None)
        dense = nn.Dense(self.feature_dim, dtype=jnp.float32, name="feature")(x.astype(jnp.float32))  # [B, D]
        feature = trained = dense
        if self.feature_norm == "l2":
            feature = trained = dense / jnp.sqrt(jnp.maximum(jnp.sum(dense**2, axis=1, keepdims=True), 1e-12))
        elif self.feature_norm in ("batch_norm", "bnneck"):
            feature = nn.BatchNorm(
                use_running_average=not train, momentum=0.9, axis_name=self.axis_name, name="feature_norm"
            )(dense)
            trained = feature if self.feature_norm == "batch_norm" else dense
        logits = None
        if self.num_people is not None:
            seen = feature * self.feature_dim**0.5 if self.feature_norm == "l2" else feature
            logits = nn.Dense(self.num_people, dtype=jnp.float32, name="classifier")(seen)
        return Outputs(feature=feature, trained_feature=trained, identity_logits=logits)


def onnx_layers(g: Any, x: Any, module: Any, layers: dict[str, Any], mean: np.ndarray, deviation: np.ndarray) -> str:
    """The net as nodes of an ONNX graph, see models.Model: name of the feature [B, D]."""
    x = g.normalise(x, mean, deviation)
    for i in range(len(STEM)):
        x = g.conv(x, layers[f"stem{i}"])
        if i % 2:
            x = g.pool(x)
    mixed = layers["v3"]
    branches = [g.chain(x, mixed[name]) for name in ("branch1", "branch5", "branch33")]
    x = g.concat(*branches, g.chain(g.pool(x, stride=1, op="AveragePool"), mixed["pool"]))
    for i in range(1, 9):
        layer = layers[f"layer{i}"]
        if i in REDUCING:
            stride = module.last_stride if i == max(REDUCING) else 2
            branches = (g.chain(x, layer[n], last_stride=stride) for n in ("branch3", "branch33"))
            x = g.concat(g.pool(x, stride=stride), *branches)
        else:
            mixed = g.concat(*(g.chain(x, layer[name]) for name in ("branch1", "branch3", "branch33")))
            mixed = g.conv(mixed, layer["mix"], linear=True, factor=module.residual_scale)
            x = x._replace(name=g.add("Relu", g.add("Add", x.name, mixed.name)))
    dense = dict(layers["feature"])
    if module.head_pooling == "flatten":  # flax flattens [rows, columns, C], ONNX [C, rows, columns]
        kernel = dense["kernel"].reshape(x.rows, x.columns, -1, module.feature_dim)
        dense["kernel"] = kernel.transpose(2, 0, 1, 3).reshape(-1, module.feature_dim)
        flat = g.add("Flatten", x.name)
    else:
        flat = onnx_pooled(g, x, module.head_pooling, module.parts, layers)
    feature = g.dense(flat, dense, layers.get("feature_norm"))
    if module.feature_norm != "l2":
        return feature
    squares = g.add("ReduceSumSquare", feature, g.constant([1], np.int64), keepdims=1)
    return g.add("Div", feature, g.add("Sqrt", g.add("Max", squares, g.constant(1e-12))))
