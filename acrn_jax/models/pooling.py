"""From a map [B, H, W, C] to a vector [B, D]: all places kept, their mean, or their generalised mean, in stripes."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

POOLINGS = ("flatten", "average", "gem")
GEM_START = 3.0  # of the exponent, as in Radenovic et al.
_LEAST = 1e-6  # under values that are raised to a power


def stripes(rows: int, parts: int) -> list[tuple[int, int]]:
    """(start, stop) of horizontal stripes of `rows` rows; where `parts` do not divide them, neighbours share a row.

    >>> stripes(5, 2), stripes(4, 4)
    ([(0, 3), (2, 5)], [(0, 1), (1, 2), (2, 3), (3, 4)])

    Raises:
      ValueError: more parts than rows.
    """
    if parts > rows:
        raise ValueError(
            f"config.model.parts is {parts}, and the last map has {rows} rows; ask for at most {rows}, raise "
            "config.data.height, or set config.model.last_stride to 1."
        )
    return [(i * rows // parts, -(-(i + 1) * rows // parts)) for i in range(parts)]


class GeM(nn.Module):
    """Generalised mean over rows and columns, (mean x^p)^(1/p) with a learned p > 0: [B, H, W, C] -> [B, C].

    p = 1 is the mean and p towards infinity the maximum; p starts at 3. Values below 1e-6 count as 1e-6. Dividing by
    the largest value before, and multiplying by it afterwards, changes no result and keeps the powers in range.

    Source: Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018, equation 3.
    """

    @nn.compact
    def __call__(self, x):
        power = self.param("power", nn.initializers.constant(GEM_START), (), jnp.float32)
        x = jnp.maximum(x.astype(jnp.float32), _LEAST)
        most = jax.lax.stop_gradient(jnp.max(x, axis=(1, 2), keepdims=True))
        return most[:, 0, 0] * jnp.mean((x / most) ** power, axis=(1, 2)) ** (1 / power)


def pooled(x, pooling: str, parts: int, gem: Any):
    """[B, H, W, C] -> [B, D] float; D is H W C of `flatten` and otherwise C for each of the stripes, top to bottom.

    Args:
      x: map.
      pooling: a name in POOLINGS.
      parts: stripes that are pooled on their own; Sun et al., "Beyond Part Models: Person Retrieval with Refined Part
        Pooling", 2018, here with one feature of them all.
      gem: the layer of `gem`, one exponent for all stripes.

    Raises:
      ValueError: unknown pooling; more parts than rows, or parts of `flatten`, which keeps all places as it is.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"head_pooling is {pooling!r}; known: {', '.join(POOLINGS)}.")
    if pooling == "flatten":
        if parts != 1:
            raise ValueError(NO_PARTS.format(parts=parts))
        return x.reshape(x.shape[0], -1)
    mean = gem if pooling == "gem" else lambda stripe: jnp.mean(stripe, axis=(1, 2))
    return jnp.concatenate([mean(x[:, start:stop]) for start, stop in stripes(x.shape[1], parts)], axis=-1)


NO_PARTS = (
    "config.model.parts is {parts} with config.model.head_pooling flatten, which keeps every place of the map already; "
    "choose average or gem, or 1 part."
)


def onnx_pooled(g: Any, x: Any, pooling: str, parts: int, layers: dict[str, Any]) -> str:
    """`pooled` of average or gem as nodes of an ONNX graph: [B, C, rows, columns] -> name of [B, D]."""
    found = []
    for start, stop in stripes(x.rows, parts):
        edges = [g.constant([value], np.int64) for value in (start, stop, 2)]
        stripe = x._replace(name=g.add("Slice", x.name, *edges), rows=stop - start) if parts > 1 else x
        found.append(_onnx_gem(g, stripe, layers["gem"]["power"]) if pooling == "gem" else g.average(stripe))
    return g.add("Concat", *found, axis=1) if parts > 1 else found[0]


def _onnx_gem(g: Any, x: Any, power: np.ndarray) -> str:
    values = g.add("Max", x.name, g.constant(_LEAST))
    most = g.add("GlobalMaxPool", values)
    raised = g.add("Pow", g.add("Div", values, most), g.constant(power))
    mean = g.add("Pow", g.add("GlobalAveragePool", raised), g.constant(1 / power))
    return g.add("Flatten", g.add("Mul", most, mean))
