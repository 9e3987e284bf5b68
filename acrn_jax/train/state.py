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
    # What the objective carries on. {"feature": s_f, "attribute": s_a}: what distances are divided by; 0: not measured
    # yet. With reid.memory also "memory", see losses/memory.py.
    scales: dict[str, Any]
    opt: Any


def create(variables, tx, *, attribute_weights=None, memory=None) -> State:
    """State before the first step, from a net's `variables`.

    If the phase has them, with raw attribute weights [A] to learn and an empty memory of losses/memory.py.
    """
    params = {"net": variables["params"]}
    if attribute_weights is not None:
        params["attribute_weights"] = {"raw": np.asarray(attribute_weights, np.float32)}
    params = jax.tree.map(jnp.asarray, params)
    return State(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=jax.tree.map(jnp.asarray, variables.get("batch_stats", {})),
        scales={"feature": jnp.zeros((), jnp.float32), "attribute": jnp.zeros((), jnp.float32)}
        | ({} if memory is None else {"memory": memory}),
        opt=tx.init(params),
    )
