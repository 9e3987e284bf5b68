"""Runs a net over images, in order, the last batch padded."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np


def embed(
    module: Any, variables: dict[str, Any], batches: Iterable[dict[str, np.ndarray]], *, mean, deviation
) -> dict[str, np.ndarray]:
    """What a net says about N images.

    Args:
      module: its apply is (variables, images [B, H, W, 3] float, train) -> NamedTuple of arrays [B, ...] or None. Equal
        modules share one compiled program, so it must be hashable, as Flax modules are.
      variables: of the net.
      batches: dicts with image uint8 [B, H, W, 3] and valid bool [B]; B the same in all.
      mean, deviation: channel statistics of normalisation, of pixels in [0, 1].

    Returns:
      name -> float32 [N, ...] of every output that is not None.
    """
    variables = jax.device_put(variables)
    mean, deviation = (jax.device_put(np.asarray(v, np.float32)) for v in (mean, deviation))
    parts: list[dict[str, np.ndarray]] = []
    for batch in batches:
        outputs = jax.device_get(_forward(module, variables, jax.device_put(batch["image"]), mean, deviation))
        parts.append({name: value[batch["valid"]] for name, value in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@functools.partial(jax.jit, static_argnums=0)
def _forward(module, variables, images, mean, deviation):
    images = (images.astype(np.float32) / 255.0 - mean) / deviation
    outputs = module.apply(variables, images, train=False)._asdict()
    return {name: value.astype(np.float32) for name, value in outputs.items() if value is not None}
