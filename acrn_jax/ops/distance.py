"""Distances between rows of arrays, one table, computed in float32 whatever the input's precision.

| kind | value | at its singular point |
| --- | --- | --- |
| squared_euclidean | sum (x - y)^2 | - |
| euclidean | sqrt(sum (x - y)^2) | gradient 0 where x = y |
| cosine | 1 - x.y / (norm of x * norm of y), in [0, 2] | distance 1, gradient 0 where x or y is 0 |
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Distance(NamedTuple):
    """One kind of distance, computed between all rows or between rows of equal number."""

    pairwise: Callable[[jax.Array, jax.Array], jax.Array]  # [N, D], [M, D] -> [N, M]
    paired: Callable[[jax.Array, jax.Array], jax.Array]  # [..., D], [..., D] -> [...]


def pairwise(x: jax.Array, y: jax.Array, *, kind: str) -> jax.Array:
    """Distance of every row of x to every row of y, never below 0.

    Args:
      x: [N, D] float; less than float32 is computed as float32.
      y: [M, D] float.
      kind: a name in DISTANCES.

    Returns:
      [N, M]. Rounding is relative to the spread of the rows: equal rows may lie a little above 0.

    Raises:
      ValueError: unknown kind, or shapes that are not [N, D] and [M, D].
    """
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"pairwise wants x [N, D] and y [M, D]; got {x.shape} and {y.shape}.")
    return _look_up(kind).pairwise(_widen(x), _widen(y))


def paired(x: jax.Array, y: jax.Array, *, kind: str) -> jax.Array:
    """Distance of each row of x to the row of y at the same place.

    Args:
      x: [..., D] float, usually [N, D]; less than float32 is computed as float32.
      y: [..., D] float, broadcasts against x.
      kind: a name in DISTANCES.

    Returns:
      [...], usually [N]; exactly 0 for equal rows (for cosine: that are not all zeros).

    Raises:
      ValueError: unknown kind, or rows of different length.
    """
    if x.shape[-1] != y.shape[-1]:
        raise ValueError(f"paired wants rows of one length; got {x.shape} and {y.shape}.")
    return _look_up(kind).paired(_widen(x), _widen(y))


def pair_mean(x: jax.Array, *, kind: str) -> jax.Array:
    """Mean distance over all ordered pairs of different rows.

    Args:
      x: [N, D] float, N >= 2. Equal rows at different places count as a pair.
      kind: a name in DISTANCES.

    Returns:
      Scalar, differentiable.

    Raises:
      ValueError: unknown kind, or fewer than two rows.
    """
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(f"A mean over pairs wants x [N, D] with at least two rows; got {x.shape}.")
    if kind == "squared_euclidean":  # closed form: no [N, N]
        x = _widen(x)
        return 2 * jnp.sum(jnp.square(x - jnp.mean(x, axis=0))) / (len(x) - 1)
    different = ~jnp.eye(len(x), dtype=bool)
    return jnp.sum(jnp.where(different, pairwise(x, x, kind=kind), 0)) / (len(x) * (len(x) - 1))


def _look_up(kind: str) -> Distance:
    if kind not in DISTANCES:
        raise ValueError(f"No distance {kind!r}; choose one of {', '.join(DISTANCES)}.")
    return DISTANCES[kind]


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y.T, precision=jax.lax.Precision.HIGHEST)  # accelerators would round to tf32 or bfloat16


def _pairwise_squared(x: jax.Array, y: jax.Array) -> jax.Array:
    # Distances do not change with the origin; near the rows' mean the three terms cancel less.
    origin = jax.lax.stop_gradient(jnp.mean(y, axis=0))
    x, y = x - origin, y - origin
    squares = jnp.sum(jnp.square(x), axis=1)[:, None] + jnp.sum(jnp.square(y), axis=1)[None, :]
    return jnp.maximum(squares - 2 * _dot(x, y), 0)


def _paired_squared(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x - y), axis=-1)


def _root(squared: jax.Array) -> jax.Array:
    # Masked before and after: the derivative of sqrt at 0 is infinite, and infinity times 0 is NaN.
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _unit(x: jax.Array) -> jax.Array:
    norm = _root(jnp.sum(jnp.square(x), axis=-1, keepdims=True))
    return x / jnp.where(norm > 0, norm, 1)


def _pairwise_cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    # Half the squared distance of unit rows: 1 - x.y would lose what tells rows apart that point the same way.
    x, y = _unit(x), _unit(y)
    return _pairwise_squared(x, y) / 2 + _lacking(x)[:, None] + _lacking(y)[None, :]


def _paired_cosine(x: jax.Array, y: jax.Array) -> jax.Array:
    x, y = _unit(x), _unit(y)
    return _paired_squared(x, y) / 2 + _lacking(x) + _lacking(y)


def _lacking(x: jax.Array) -> jax.Array:
    """A half for unit rows that are zeros after all: 1 - x.y is 1 there, and half a squared distance is 1/2 or 0."""
    return jnp.where(jnp.any(x != 0, axis=-1), 0, 0.5)


DISTANCES: dict[str, Distance] = {
    "squared_euclidean": Distance(_pairwise_squared, _paired_squared),
    "euclidean": Distance(
        lambda x, y: _root(_pairwise_squared(x, y)),
        lambda x, y: _root(_paired_squared(x, y)),
    ),
    "cosine": Distance(_pairwise_cosine, _paired_cosine),
}
