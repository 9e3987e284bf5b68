"""Everything that a training step changes, as one pytree."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class State:
    """What a checkpoint holds. The data's position and all randomness follow from `step` and the run's seed."""

    step: Any  # int32 scalar: updates made so far
    params: dict[str, Any]  # {"net": ..., "attribute_weights": {"raw": [A]}} (the latter in phase reid with weights)
    batch_stats: dict[str, Any]
    scales: dict[str, Any]  # {"feature": s_f, "attribute": s_a}: what distances are divided by; 0: not measured yet
    opt: Any


def create(variables, tx, *, attribute_weights=None) -> State:
    """State before the first step from a net's `variables`, and raw attribute weights [A] if the phase learns any."""
    params = {"net": variables["params"]}
    if attribute_weights is not None:
        params["attribute_weights"] = {"raw": np.asarray(attribute_weights, np.float32)}
    params = jax.tree.map(jnp.asarray, params)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, variables.get("batch_stats", {})),
        scales={"feature": jnp.zeros((), jnp.float32), "attribute": jnp.zeros((), jnp.float32)},
        opt=tx.init(params),
    )
