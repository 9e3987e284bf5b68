"""Optimiser groups and schedules. Every parameter belongs to one group, or it is an error."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from acrn_jax.rules import CountOrZero, NotNegative, Positive, number, one_of


@dataclasses.dataclass(frozen=True)
class Group:
    """How one group of parameters is trained, as the config says it."""

    kind: Annotated[str, one_of("sgd", "adam", "adamw")]
    rate: NotNegative
    momentum: Annotated[float, number(0, 1)]
    decay: NotNegative
    schedule: Annotated[str, one_of("staircase", "cosine", "constant")]
    every_epochs: NotNegative
    every_steps: CountOrZero
    factor: Positive
    warmup_epochs: NotNegative

    def learning_rate(self, steps: int, per_epoch: int) -> Callable[[int], Any]:
        """As a function of the step, for a phase of `steps` with `per_epoch` of them an epoch."""
        return schedule(
            self.schedule,
            rate=self.rate,
            steps=steps,
            every=self.every_steps or round(self.every_epochs * per_epoch) or steps,
            factor=self.factor,
            warmup=round(self.warmup_epochs * per_epoch),
        )


def group_of(path: tuple[Any, ...], prefixes: Mapping[str, str]) -> str:
    """Group name of the parameter at `path` of State.params; ValueError if no group claims it."""
    keys = [entry.key for entry in path]
    if keys[0] != "net":
        return keys[0]
    for prefix, group in prefixes.items():
        if keys[1].startswith(prefix):
            return group
    raise ValueError(
        f"Parameter {'/'.join(keys)} is in no optimiser group; add its module to the net's GROUPS "
        f"(now {', '.join(prefixes)})."
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


def make(groups: Mapping[str, Mapping[str, Any]], prefixes: Mapping[str, str]) -> optax.GradientTransformation:
    """One optimiser for each group of parameters.

    Args:
      groups: name -> {"kind": "sgd" | "adam" | "adamw", "rate": schedule or float, "momentum", "decay",
        "nonnegative"}. `decay` is weight decay, on convolution and dense kernels alone, inside the group, so that a
        frozen group (rate 0.0) does not move; `nonnegative` projects values to >= 0 after each update.
      prefixes: beginning of a top-level module's name in the net -> its group; the first that fits. What lies beside
        the net ("attribute_weights") is a group of its own.

    Parameters without a group are an error; so are groups without parameters.
    """
    return optax.partition(
        {name: _one(**settings) for name, settings in groups.items()},
        lambda params: jax.tree_util.tree_map_with_path(lambda path, _: group_of(path, prefixes), params),
    )


class Averaged(NamedTuple):
    """State of an optimiser that keeps an average of the parameters."""

    count: Any  # int32 scalar: updates made so far
    average: Any  # as the parameters
    inner: Any  # the optimiser's own


def averaged(inner: optax.GradientTransformation, decay: float) -> optax.GradientTransformation:
    """`inner`, with an exponential moving average of the parameters in its state (weights to evaluate with).

    After t updates the decay is min(decay, (1 + t) / (10 + t)), so that a short run's average forgets its start.
    """

    def init(params):
        copy = jax.tree.map(lambda p: jnp.array(p, copy=True), params)  # a step gives its inputs' memory away
        return Averaged(jnp.zeros((), jnp.int32), copy, inner.init(params))

    def update(gradients, state, params=None):
        updates, own = inner.update(gradients, state.inner, params)
        now = jnp.minimum(decay, (1.0 + state.count) / (10.0 + state.count))
        new = optax.apply_updates(params, updates)
        average = jax.tree.map(lambda a, p: now * a + (1 - now) * p, state.average, new)
        return updates, Averaged(state.count + 1, average, own)

    return optax.GradientTransformation(init, update)


def final_params(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that a state, stored or not, is used with: their average where one was kept."""
    opt = saved["opt"]
    opt = opt._asdict() if isinstance(opt, Averaged) else opt
    return opt["average"] if isinstance(opt, Mapping) and "average" in opt else saved["params"]


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
