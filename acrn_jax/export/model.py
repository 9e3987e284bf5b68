"""What a bundle holds: one or two nets behind one function from raw pixels to named outputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax.evaluation import embed
from acrn_jax.ops.representations import REPRESENTATIONS

OUTPUTS = ("feature", "attributes", "embedding")
_BITS = 11  # of each half of a weight; Pillow's weights have 22 bits behind the point


class Net(NamedTuple):
    """A net, its values, and the size and normalisation (of pixels in [0, 1]) that it was trained with."""

    module: Any
    variables: dict[str, Any]
    height: int
    width: int
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


class Model(NamedTuple):
    """Images uint8 [B, H, W, 3] -> `outputs`, names of OUTPUTS.

    `embedding` is z = concat(feature_factor f, attribute_factors a) with a in the representation that the run's
    distances use; `attributes` are probabilities always.
    """

    outputs: tuple[str, ...]
    reid: Net | None = None
    attributes: Net | None = None
    representation: str = "probabilities"
    feature_factor: float = 1.0
    attribute_factors: np.ndarray | None = None  # [A]


def forward(model: Model, images: jax.Array) -> dict[str, jax.Array]:
    """The exported function: images uint8 [B, H, W, 3] of any size -> name -> float32 [B, ...]."""

    def run(net):
        pixels = resize(images, net.height, net.width) / 255.0
        pixels = (pixels - np.asarray(net.mean, np.float32)) / np.asarray(net.deviation, np.float32)
        return net.module.apply(net.variables, pixels, train=False)

    feature = run(model.reid).feature if model.reid else None
    logits = run(model.attributes).attribute_logits if model.attributes else None
    return {name: value.astype(jnp.float32) for name, value in _assemble(jnp, model, feature, logits).items()}


def live(model: Model, images: np.ndarray, resized: Callable[[np.ndarray, int, int], np.ndarray]) -> dict[str, Any]:
    """The same outputs as evaluation computes them, for comparison.

    Args:
      model: what is exported.
      images: uint8 [B, H, W, 3].
      resized: the preprocessing of training and evaluation: image, height, width -> uint8 [height, width, 3].
    """

    def run(net, output):
        pixels = np.stack([resized(image, net.height, net.width) for image in images])
        batch = {"image": pixels, "valid": np.ones(len(pixels), bool)}
        return embed.embed(net.module, net.variables, [batch], mean=net.mean, deviation=net.deviation)[output]

    feature = run(model.reid, "feature") if model.reid else None
    logits = run(model.attributes, "attribute_logits") if model.attributes else None
    return {name: np.asarray(value, np.float32) for name, value in _assemble(np, model, feature, logits).items()}


def _assemble(xp, model, feature, logits):
    values = {}
    for name in model.outputs:
        if name == "feature":
            values[name] = feature
        elif name == "attributes":
            values[name] = REPRESENTATIONS["probabilities"](logits, xp)
        else:
            attributes = REPRESENTATIONS[model.representation](logits, xp)
            parts = [model.feature_factor * feature, model.attribute_factors * attributes]
            values[name] = xp.concatenate(parts, axis=1)
    return values


def resize(images: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear with antialiasing, bit for bit what Pillow gives: uint8 [B, h, w, 3] -> float32 whole numbers.

    Pillow resizes columns, rounds to whole levels, resizes rows and rounds again, with weights of 22 bits. A weight's
    upper and lower 11 bits are multiplied apart, so that float32 sums are exact, on tensor cores too.
    """
    x = images.astype(jnp.float32)
    for axis, size in ((2, width), (1, height)):
        upper, lower = _weights(images.shape[axis], size)
        equation = "bhwc,pw->bhpc" if axis == 2 else "bhwc,ph->bpwc"
        high, low = (jnp.einsum(equation, x, part, precision=jax.lax.Precision.HIGHEST) for part in (upper, lower))
        # floor((2^11 high + low + 2^21) / 2^22), all whole numbers below 2^24
        x = jnp.floor((high + jnp.floor(low / 2**_BITS + 2 ** (_BITS - 1))) / 2**_BITS)
    return x  # weights are positive with sum 1: no clipping


def _weights(length, size: int):
    """Upper and lower 11 bits of the weights [size, length] of a line's pixels in its resized pixels, float32.

    `length` may be symbolic. With m = max(length, size), pixel j weighs max(0, 2m - |(2j + 1) size - (2i + 1) length|)
    in pixel i, divided by the sum over j. Whole numbers throughout: exact for lines up to sqrt(2^20 size) pixels.
    """
    source, target = jnp.arange(length, dtype=jnp.int32), np.arange(size, dtype=np.int32)
    longest = jnp.maximum(jnp.asarray(length, jnp.int32), size)
    distance = jnp.abs((2 * source + 1) * size - (2 * target[:, None] + 1) * jnp.asarray(length, jnp.int32))
    parts = jnp.maximum(2 * longest - distance, 0).astype(jnp.uint32)  # [size, length]
    total = jnp.sum(parts, axis=1, keepdims=True, dtype=jnp.uint32)
    shifted = parts << _BITS
    upper, rest = shifted // total, shifted % total
    lower = ((rest << _BITS) + total // 2) // total
    return upper.astype(jnp.float32), lower.astype(jnp.float32)
