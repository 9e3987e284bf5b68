"""From the trained numbers to the attribute weights w that distances use.

| form | w | at the start |
| --- | --- | --- |
| raw | the numbers themselves, of either sign | 1 |
| nonnegative | the same: the optimiser projects them to >= 0 after each step (`optax.keep_params_nonnegative`) | 1 |
| softplus | log(1 + exp(number)) > 0 | 1 |
| unit_rms | divided by their root mean square | 1 |
| unit_mean | divided so that the mean d_w over all pairs of the given attributes is 1 | all equal |

Hinge losses let raw weights drift in scale, so that gamma d_w changes its meaning during a run; the last two forms
cannot.
"""

import math

import jax
import jax.numpy as jnp

from acrn_jax.ops.distance import pair_mean

FORMS = ("raw", "nonnegative", "softplus", "unit_rms", "unit_mean")
FLOOR = 1e-12  # under a mean square or a mean distance: weights of 0 stay 0 with a finite gradient


def initial_weights(attributes: int, form: str = "raw") -> jax.Array:
    """Numbers to start from, float32 [A], for which `effective_weights` is 1 everywhere (unit_mean: equal everywhere).

    >>> print(initial_weights(3), initial_weights(2, "softplus"))
    [1. 1. 1.] [0.54132485 0.54132485]

    Raises:
      ValueError: unknown form.
    """
    _check(form)
    return jnp.full((attributes,), math.log(math.expm1(1)) if form == "softplus" else 1, jnp.float32)


def effective_weights(
    raw: jax.Array, *, form: str, attributes: jax.Array | None = None, distance: str = "squared_euclidean"
) -> jax.Array:
    """Attribute weights w from the trained numbers; differentiable in these, never in the attributes.

    >>> import jax.numpy as jnp
    >>> print(effective_weights(jnp.array([3.0, 4.0]), form="unit_rms"))
    [0.84852815 1.1313709 ]

    Args:
      raw: [A] float.
      form: a name in FORMS.
      attributes: [N, A] float, N >= 2, for "unit_mean" alone: a batch in training, the training set at test.
      distance: the kind of d_w, for "unit_mean" alone.

    Returns:
      [A].

    Raises:
      ValueError: unknown form; unit_mean without attributes, or for cosine, which no scale changes.
    """
    _check(form)
    if form == "softplus":
        return jax.nn.softplus(raw)
    if form == "unit_rms":
        return raw * jax.lax.rsqrt(jnp.maximum(jnp.mean(jnp.square(raw)), FLOOR))
    if form == "unit_mean":
        if attributes is None or distance == "cosine":
            raise ValueError("Weights of form unit_mean want attributes, and a distance other than cosine.")
        mean = jnp.maximum(pair_mean(jax.lax.stop_gradient(attributes) * raw, kind=distance), FLOOR)
        return raw / (jnp.sqrt(mean) if distance == "squared_euclidean" else mean)
    return raw


def _check(form: str) -> None:
    if form not in FORMS:
        raise ValueError(f"No form {form!r} of attribute weights; choose one of {', '.join(FORMS)}.")
