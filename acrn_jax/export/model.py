"""What a bundle holds: one or two nets behind one function from pixels to named outputs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax.evaluation import embed
from acrn_jax.ops.representations import REPRESENTATIONS

OUTPUTS = ("feature", "attributes", "embedding")
INPUTS = ("uint8_nhwc", "float_nchw")
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
    """Images -> `outputs`, names of OUTPUTS.

    `input`, one of INPUTS: uint8 [B, H, W, 3] of any size, which each net resizes and normalises itself; or float32
    [B, 3, H, W] of the net's size, normalised already.

    `embedding` is z = concat(feature_factor f, attribute_factors a) with a in the representation that the run's
    distances use; `attributes` are probabilities always.
    """

    outputs: tuple[str, ...]
    reid: Net | None = None
    attributes: Net | None = None
    representation: str = "probabilities"
    feature_factor: float = 1.0
    attribute_factors: np.ndarray | None = None  # [A]
    input: str = "uint8_nhwc"


def input_of(model: Model) -> dict[str, Any]:
    """What the exported function takes, as the manifest says it; names in `shape` stand for any size.

    Raises:
      ValueError: no such input, or one that two nets of different sizes or normalisations would have to share.
    """
    if model.input not in INPUTS:
        raise ValueError(f"There is no input {model.input!r}; known: {', '.join(INPUTS)}.")
    entry: dict[str, Any] = {"name": "images", "colours": "RGB"}
    if model.input == "uint8_nhwc":
        return entry | {"dtype": "uint8", "shape": ["batch", "height", "width", 3]}
    net, *others = filter(None, (model.reid, model.attributes))
    if any(other[2:] != net[2:] for other in others):
        raise ValueError(
            f"The re-id net takes images of {net.height} x {net.width}, the attribute net of {others[0].height} x "
            f"{others[0].width}, or normalised otherwise, so one float image cannot serve both; name the outputs of "
            "one net (--output=feature, or attributes), or leave --input out."
        )
    shape = ["batch", 3, net.height, net.width]
    return entry | {"dtype": "float32", "shape": shape, "mean": list(net.mean), "deviation": list(net.deviation)}


def fed(entry: dict[str, Any], images: Any, resized: Callable[[np.ndarray, int, int], np.ndarray]) -> np.ndarray:
    """Images uint8 [B, H, W, 3] as an exported function takes them.

    Args:
      entry: of `input_of`.
      images: an array, or a sequence of images of any sizes where these are resized here.
      resized: as of `live`.
    """
    if entry["dtype"] == "uint8":
        return np.asarray(images)
    pixels = np.stack([resized(image, *entry["shape"][2:]) for image in images]) / np.float32(255)
    mean, deviation = (np.asarray(entry[name], np.float32) for name in ("mean", "deviation"))
    return ((pixels - mean) / deviation).transpose(0, 3, 1, 2)


def forward(model: Model, images: jax.Array) -> dict[str, jax.Array]:
    """The exported function: images as `model.input` says -> name -> float32 [B, ...]."""

    def run(net):
        if model.input == "float_nchw":
            return net.module.apply(net.variables, images.transpose(0, 2, 3, 1), train=False)
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
