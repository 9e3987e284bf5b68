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


def batch_statistics(
    module: Any, variables: dict[str, Any], batches: Iterable[dict[str, np.ndarray]], *, mean, deviation
) -> dict[str, Any]:
    """Means and variances of every batch normalisation over N images, the tree of variables["batch_stats"].

    Each batch is normalised by its own statistics, as in training; of a layer the mean is that of all batches,
    and the variance that within batches and that between their means.

    Args:
      module, variables, batches, mean, deviation: see `embed`; all rows of batches are valid.
    """
    zeros, ones = (jax.tree.map(fill, variables["batch_stats"]) for fill in (np.zeros_like, np.ones_like))
    mean, deviation = (np.asarray(v, np.float32) for v in (mean, deviation))
    total, count, momentum = zeros, 0, None
    for batch in batches:
        moved = [
            jax.device_get(_statistics(module, variables["params"], old, batch["image"], mean, deviation))
            for old in ((zeros, ones) if momentum is None else (zeros,))
        ]
        if momentum is None:  # moved = momentum old + (1 - momentum) batch, in every layer
            change = jax.tree.map(np.subtract, moved[1], moved[0])
            momentum = np.median(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(change)]).astype(np.float64))
        own = jax.tree.map(functools.partial(_of_batch, momentum), moved[0])
        squares = _per_layer(own, lambda of: {"mean": of["mean"], "var": of["var"] + of["mean"] ** 2})
        total, count = jax.tree.map(np.add, total, squares), count + 1
    average = jax.tree.map(lambda value: value / count, total)
    found = _per_layer(average, lambda of: {"mean": of["mean"], "var": np.maximum(of["var"] - of["mean"] ** 2, 0)})
    return jax.tree.map(lambda value, old: value.astype(np.asarray(old).dtype), found, variables["batch_stats"])


def _of_batch(momentum, moved):
    return np.float64(moved) / (1 - momentum)


def _per_layer(tree, change):
    """A tree of statistics with `change` made in each of its layers, {"mean": ..., "var": ...}."""
    if set(tree) == {"mean", "var"}:
        return change(tree)
    return {name: _per_layer(below, change) for name, below in tree.items()}


@functools.partial(jax.jit, static_argnums=0)
def _statistics(module, params, statistics, images, mean, deviation):
    images = (images.astype(np.float32) / 255.0 - mean) / deviation
    variables = {"params": params, "batch_stats": statistics}
    return module.apply(variables, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]


@functools.partial(jax.jit, static_argnums=0)
def _forward(module, variables, images, mean, deviation):
    images = (images.astype(np.float32) / 255.0 - mean) / deviation
    outputs = module.apply(variables, images, train=False)._asdict()
    return {name: value.astype(np.float32) for name, value in outputs.items() if value is not None}
