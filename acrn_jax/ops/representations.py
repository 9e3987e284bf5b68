"""What attribute distances compare: each image's attribute logits as numbers, one table for numpy and for jax."""

from collections.abc import Callable
from typing import Any

import numpy as np

# (logits [N, A] float32, numpy or jax.numpy) -> [N, A] float32. The hyperbolic tangent never overflows, exp would.
REPRESENTATIONS: dict[str, Callable[..., Any]] = {
    "probabilities": lambda logits, xp=np: (0.5 * (1 + xp.tanh(logits / 2))).astype(np.float32),
    "logits": lambda logits, xp=np: logits.astype(np.float32),
    "binary": lambda logits, xp=np: (logits > 0).astype(np.float32),
}
