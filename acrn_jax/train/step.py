"""One training step: pure, told everything, and two ways to run it.

Under jit the batch is one global array, so batch statistics and mining see all of it; under pmap the net's batch norm
averages over `axis_name` and the outputs are gathered before the loss. Both give the same state (tests/train).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from acrn_jax.train import accumulate
from acrn_jax.train.state import State


def normalise(images, *, mean, deviation):
    """uint8 [B, H, W, 3] -> float32: (x / 255 - mean) / deviation for each channel."""
    return (images.astype(jnp.float32) / 255.0 - jnp.asarray(mean)) / jnp.asarray(deviation)


def train_step(
    state: State,
    batch: dict[str, Any],
    *,
    apply: Callable,
    objective: Callable,
    tx: optax.GradientTransformation,
    mean,
    deviation,
    seed: int,
    axis_name: str | None = None,
    parts: int = 1,
) -> tuple[State, dict[str, Any]]:
    """One update.

    Args:
      state: what the step changes.
      batch: arrays as in schema.py; under pmap one device's share.
      apply: (variables, images, train, mutable) -> (Outputs, {"batch_stats"}), the net; its variables hold a collection
        "random" of one entry "rows": a key [B] for each row's own randomness.
      objective: (params, outputs, batch, scales) -> (loss, (scalars, scales)), in the global batch.
      tx: optimiser over state.params.
      mean, deviation: channel statistics of normalisation, in [0, 1].
      seed: of the run; row r of the global batch draws from fold_in(fold_in(seed, step), r): the same whether a run is
        resumed, and on whatever devices and in whatever parts the batch is computed.
      axis_name: pmap axis.
      parts: how many the batch is computed in, see train/accumulate.py.

    Returns:
      the new state, and scalars of the step (float32).
    """
    images = normalise(batch["image"], mean=mean, deviation=deviation)
    labels = {name: value for name, value in batch.items() if name != "image"}
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    rows = jnp.arange(len(images))  # in the global batch
    if axis_name is not None:
        labels = jax.lax.all_gather(labels, axis_name, tiled=True)
        rows += len(images) * jax.lax.axis_index(axis_name)

    def forward(params, inputs):
        images, rows = inputs
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
        variables = {"params": params["net"], "batch_stats": state.batch_stats, "random": {"rows": keys}}
        outputs, moved = apply(variables, images, train=True, mutable=["batch_stats"])
        return outputs, moved["batch_stats"]

    def loss_of(params, outputs):
        if axis_name is not None:
            outputs = jax.lax.all_gather(outputs, axis_name, tiled=True)
        return objective(params, outputs, labels, state.scales)

    def at_once(params, inputs):
        outputs, stats = forward(params, inputs)
        loss, extra = loss_of(params, outputs)
        return loss, (extra, stats)

    if parts == 1:
        differentiated = jax.value_and_grad(at_once, has_aux=True)
    else:
        differentiated = accumulate.value_and_grad(forward, loss_of, parts)
    (loss, ((scalars, scales), stats)), grads = differentiated(state.params, (images, rows))
    if axis_name is not None:
        # Each device differentiates the same global loss, and the gather's transpose sums over devices: so the mean.
        grads = jax.lax.pmean(grads, axis_name)
    updates, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, updates)
    scalars = {"loss": loss, "gradient_norm": jnp.linalg.norm(ravel_pytree(grads)[0]), **scalars}
    return State(state.step + 1, params, stats, scales, opt), scalars


class Runner(NamedTuple):
    """A step on given devices."""

    run: Callable  # (state, batch) -> (state, scalars)
    put: Callable  # host batch (of several processes: this one's share) -> devices
    place: Callable  # first state -> devices, as `run` gives it back: else the second call would compile anew


def jitted(step: Callable, devices: list[Any]) -> Runner:
    """`step` over a global batch that is split over `devices`, of this process and of others."""
    mesh = Mesh(np.array(devices), ("data",), axis_types=(AxisType.Auto,))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    run = jax.jit(step, in_shardings=(whole, split), out_shardings=whole, donate_argnums=0)
    if whole.is_fully_addressable:
        put, place = (functools.partial(jax.device_put, device=sharding) for sharding in (split, whole))
        return Runner(run, put, place)

    def put_share(batch):
        count = len(devices) // len(split.addressable_devices)
        shape = lambda x: (len(x) * count, *x.shape[1:])
        return {name: jax.make_array_from_process_local_data(split, x, shape(x)) for name, x in batch.items()}

    def place_copy(leaf):  # device_put would compare the values of all processes, leaf by leaf
        value = np.asarray(leaf)
        return jax.make_array_from_callback(value.shape, whole, lambda index: value[index].copy())

    return Runner(run, put_share, functools.partial(jax.tree.map, place_copy))


def pmapped(step: Callable, devices: list[Any], axis_name: str = "data") -> Runner:
    """As `jitted`, by jax.pmap: the batch goes in as [devices, B / devices, ...], the state stays whole."""
    run = jax.pmap(
        functools.partial(step, axis_name=axis_name), axis_name, in_axes=(None, 0), out_axes=None, devices=devices
    )

    def put(batch):
        return jax.tree.map(lambda x: np.asarray(x).reshape(len(devices), -1, *x.shape[1:]), batch)

    return Runner(run, put, lambda state: state)


WRAPPERS = {"jit": jitted, "pmap": pmapped}
