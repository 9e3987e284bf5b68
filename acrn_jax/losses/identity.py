"""Cross-entropy over the training people."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0) -> jax.Array:
    """Softmax cross-entropy of each example.

    >>> import jax.numpy as jnp
    >>> print(cross_entropy(jnp.array([[0.0, 0.0], [0.0, 1.0]]), jnp.array([1, 0])))
    [0.6931472 1.3132616]

    Args:
      logits: [B, C] float; computed in float32 at least.
      labels: [B] int in [0, C).
      smoothing: share of the target that is spread evenly over all C people, in [0, 1].

    Returns:
      [B], >= 0; NaN for a label above C - 1.

    Raises:
      ValueError: shapes disagree, or smoothing outside [0, 1].

    Source: smoothing: Szegedy et al., "Rethinking the Inception Architecture", 2016, section 7.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"Cross-entropy wants logits [B, C] and labels [B]; got {logits.shape} and {labels.shape}.")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"Label smoothing is a share in [0, 1]; got {smoothing}.")
    log_probability = jax.nn.log_softmax(logits.astype(jnp.promote_types(logits.dtype, jnp.float32)))
    right = jnp.take_along_axis(log_probability, labels[:, None], axis=1)[:, 0]
    return -((1 - smoothing) * right + smoothing * jnp.mean(log_probability, axis=1))
