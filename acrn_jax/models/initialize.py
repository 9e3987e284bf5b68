"""First values of a net's variables, drawn on the host.

XLA compiles one random-number kernel for each shape of parameter, a minute for an inception net on a CPU; numpy takes a
fraction of a second and gives the same values on every device.
"""

import zlib
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from acrn_jax.models.pooling import GEM_START


def variables(module: nn.Module, *, height: int, width: int, seed: int, batch: int = 2) -> dict[str, Any]:
    """Variables {"params": ..., "batch_stats": ...} of `module` for images [B, height, width, 3], float32 numpy arrays.

    Kernels are normal with variance 2 / fan-in (He et al. 2015), dense layers 1 / fan-in; scales and variances are 1,
    biases and means 0. Each leaf's values depend on `seed`, its path and its shape alone, so layers can be added
    without changing others.
    """
    found = shapes(module, height=height, width=width, batch=batch)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _first_value(path, leaf.shape, seed), found)


def shapes(module: nn.Module, *, height: int, width: int, batch: int = 2) -> dict[str, Any]:
    """Shapes of the variables of `module` for images [B, height, width, 3], without values."""
    image = jax.ShapeDtypeStruct((batch, height, width, 3), np.float32)
    return dict(jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), image))


def _first_value(path, shape, seed):
    name = jax.tree_util.keystr(path)
    kind = path[-1].key
    if kind in ("scale", "var"):
        return np.ones(shape, np.float32)
    if kind in ("bias", "mean"):
        return np.zeros(shape, np.float32)
    if kind == "power":  # of a generalised mean
        return np.full(shape, GEM_START, np.float32)
    if kind != "kernel":
        raise ValueError(f"Variable {name} is of no known kind; tell models/initialize.py how it starts.")
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    gain = 2.0 if len(shape) == 4 else 1.0
    return (rng.standard_normal(shape) * np.sqrt(gain / np.prod(shape[:-1]))).astype(np.float32)
