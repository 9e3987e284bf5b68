"""Weighted cross-entropy of many yes-or-no attributes at once."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


def class_weights(
    ratio: np.ndarray, *, scheme: str = "wpal", names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Loss weights u of positives and v of negatives, from how frequent positives are.

    | scheme | u | v | source |
    | --- | --- | --- | --- |
    | wpal | 1 / (2 r) | 1 / (2 (1 - r)) | Yu et al., "Weakly-supervised Learning of Mid-level Features", 2016 |
    | deepmar | exp(1 - r) | exp(r) | Li et al., "Multi-attribute Learning", 2015, as in its public code |
    | none | 1 | 1 | |

    >>> class_weights([0.25, 0.5])
    (array([2., 1.], dtype=float32), array([0.6666667, 1.       ], dtype=float32))

    Args:
      ratio: [A], share r of positives among the known labels of the training split.
      scheme: one of the three.
      names: [A] names for the message; numbers where None.

    Returns:
      u and v, float32 [A] each.

    Raises:
      ValueError: unknown scheme; an attribute that nobody or everybody has, or whose ratio is not a number.
    """
    ratio = np.asarray(ratio, np.float64)
    constant = np.flatnonzero(~((ratio > 0) & (ratio < 1)))
    if len(constant):
        found = ", ".join(f"{names[int(i)] if names is not None else i} ({ratio[i]:g})" for i in constant)
        raise ValueError(f"Nothing to learn from attributes that nobody or everybody has; leave these out: {found}.")
    if scheme == "wpal":
        weights = 1 / (2 * ratio), 1 / (2 * (1 - ratio))
    elif scheme == "deepmar":
        weights = np.exp(1 - ratio), np.exp(ratio)
    elif scheme == "none":
        weights = np.ones_like(ratio), np.ones_like(ratio)
    else:
        raise ValueError(f"No scheme {scheme!r} of class weights; choose wpal, deepmar or none.")
    return weights[0].astype(np.float32), weights[1].astype(np.float32)


def weighted_cross_entropy(
    logits: jax.Array,
    labels: jax.Array,
    *,
    positive_weight: jax.Array | np.ndarray,
    negative_weight: jax.Array | np.ndarray,
    reduction: str = "sum",
) -> jax.Array:
    """Weighted multi-label cross-entropy of each example.

    >>> import jax.numpy as jnp
    >>> u, v = jnp.array([2.0, 1.0]), jnp.array([0.5, 1.0])
    >>> logits, labels = jnp.zeros((2, 2)), jnp.array([[1, 0], [0, -1]])
    >>> print(weighted_cross_entropy(logits, labels, positive_weight=u, negative_weight=v))
    [2.0794415 0.3465736]

    Args:
      logits: [B, A] float; computed in float32 at least.
      labels: [B, A] int: 1 yes, 0 no, -1 unknown (adds nothing).
      positive_weight: [A] u.
      negative_weight: [A] v.
      reduction: "sum" over attributes, or "mean": the sum divided by A, unknown ones counted.

    Returns:
      [B], >= 0.

    Raises:
      ValueError: shapes disagree, unknown reduction.

    Source: Yu et al., "Weakly-supervised Learning of Mid-level Features", 2016; docs/method.md, section 2.
    """
    if logits.ndim != 2 or labels.shape != logits.shape:
        raise ValueError(f"Attribute cross-entropy wants logits and labels [B, A]; got {logits.shape}, {labels.shape}.")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"No reduction {reduction!r} over attributes; choose sum or mean.")
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    # From logits: log p = log_sigmoid(logit) stays finite where p itself rounds to 0 or 1.
    yes = jnp.where(labels == 1, -positive_weight * jax.nn.log_sigmoid(logits), 0)
    no = jnp.where(labels == 0, -negative_weight * jax.nn.log_sigmoid(-logits), 0)
    return jnp.sum(yes + no, axis=1) / (logits.shape[1] if reduction == "mean" else 1)
