"""Optimiser groups and schedules. Every parameter belongs to one group, or it is an error."""

from collections.abc import Mapping
from typing import Any

import jax
import optax

# Top-level module of the net -> optimiser group; the first prefix that fits.
PREFIXES = {
    "attribute_weights": "attribute_weights",
    "trunk": "trunk",  # MVA's GoogLeNet: starts from ImageNet weights in the paper, so it has a rate of its own
    **dict.fromkeys(("view", "global_dense", "head_", "attributes"), "scratch"),  # MVA
    **dict.fromkeys(("stem", "v3", "layer", "feature", "classifier"), "scratch"),  # ACRN
}


def group_of(path: tuple[Any, ...]) -> str:
    """Group name of the parameter at `path` of State.params; ValueError if no group claims it."""
    keys = [entry.key for entry in path]
    top = keys[1] if keys[0] == "net" else keys[0]
    for prefix, group in PREFIXES.items():
        if top.startswith(prefix):
            return group
    raise ValueError(
        f"Parameter {'/'.join(keys)} is in no optimiser group; add its module to PREFIXES in train/optimizer.py "
        f"(now {', '.join(PREFIXES)})."
    )


def schedule(kind: str, *, rate: float, steps: int, every: int = 1, factor: float = 1.0, warmup: int = 0):
    """Learning rate as a function of the step.

    Args:
      kind: `staircase` (times `factor` after each `every` steps), `cosine` (to 0 at `steps`, after a linear warm-up of
        `warmup` steps) or `constant`.
      rate: highest learning rate.
      steps: length of the phase.
    """
    if kind == "staircase":
        return optax.exponential_decay(rate, transition_steps=max(every, 1), decay_rate=factor, staircase=True)
    if kind == "cosine":
        return optax.warmup_cosine_decay_schedule(0.0, rate, min(warmup, steps - 1), max(steps, 1))
    if kind == "constant":
        return optax.constant_schedule(rate)
    raise ValueError(f"schedule is {kind!r}; known: staircase, cosine, constant.")


def make(groups: Mapping[str, Mapping[str, Any]]) -> optax.GradientTransformation:
    """One optimiser for each group of parameters.

    Args:
      groups: name -> {"kind": "sgd" | "adam" | "adamw", "rate": schedule or float, "momentum", "decay",
        "nonnegative"}. `decay` is weight decay, on convolution and dense kernels alone, inside the group, so that a
        frozen group (rate 0.0) does not move; `nonnegative` projects values to >= 0 after each update.

    Parameters without a group are an error; so are groups without parameters.
    """
    return optax.partition(
        {name: _one(**settings) for name, settings in groups.items()},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: group_of(path), params),
    )


def _one(*, kind, rate, momentum=0.9, decay=0.0, nonnegative=False):
    if not callable(rate) and rate == 0.0:
        return optax.set_to_zero()
    decayed = optax.add_decayed_weights(decay, lambda params: jax.tree.map(lambda p: p.ndim > 1, params))
    # Flattened: one vector instead of hundreds of small arrays takes a third off XLA's compile time of a step.
    if kind == "sgd":
        # Decay before momentum: the L2 penalty of SGD as the paper's frameworks have it.
        parts = [decayed, optax.flatten(optax.trace(momentum))]
    elif kind == "adam":
        parts = [optax.flatten(optax.scale_by_adam())]
    elif kind == "adamw":
        parts = [optax.flatten(optax.scale_by_adam()), decayed]
    else:
        raise ValueError(f"optimiser is {kind!r}; known: sgd, adam, adamw.")
    parts.append(optax.scale_by_learning_rate(rate))
    return optax.chain(*parts, *([optax.keep_params_nonnegative()] if nonnegative else []))
