"""The program of a training step, of any config, from shapes alone: lowered, counted or compiled without data."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from acrn_jax import build
from acrn_jax.losses import memory, objectives
from acrn_jax.models import initialize
from acrn_jax.settings import Settings
from acrn_jax.train import state, step


class Program(NamedTuple):
    """One training step; state and batch are shapes (or arrays of these shapes)."""

    step: Callable  # (state, batch, axis_name=None) -> (state, scalars)
    state: Any
    batch: dict[str, Any]


def training_step(config: Settings, phase: str, *, attributes: int = 35, people: int = 751) -> Program:
    """The step of a phase as training runs it (build.train_phase), for so many attributes and training people."""
    own, data = config.phase(phase), config.data
    columns = {"person": ((), np.int32)}
    weights, objective = None, objectives.IdentityLoss(config.identity.smoothing)
    if phase == "mva":
        columns = {"attributes": ((attributes,), np.int8)}
        ones = np.ones(attributes, np.float32)
        objective = objectives.AttributeLoss(ones, ones, config.mva.reduction)
    elif phase == "reid":
        objective, weights = build.reid_objective(config, tuple(map(str, range(attributes))))
        if config.loss.kind == "acrn":
            columns["probabilities"] = ((attributes,), np.float32)
    classify = phase == "identity" or (phase == "reid" and config.loss.identity_weight > 0)

    def net(axis_name):
        return build.net(config, attributes=attributes, people=people if classify else None, axis_name=axis_name)

    groups = ("trunk", "scratch", *(() if weights is None else ("attribute_weights",)))
    _, tx, _ = build.optimisation(config, phase, per_epoch=100, groups=groups)
    image = jax.ShapeDtypeStruct((own.batch, data.height, data.width, 3), np.uint8)

    def first_state():
        variables = initialize.shapes(net(None), height=data.height, width=data.width)
        variables = jax.tree.map(lambda leaf: jax.numpy.zeros(leaf.shape, leaf.dtype), variables)
        kept = None
        if phase == "reid" and config.reid.memory:
            width = config.model.feature_dim
            kept = memory.empty(
                config.reid.memory, dimensions=width, attributes=attributes if weights is not None else 0
            )
        return state.create(variables, tx, attribute_weights=weights, memory=kept)

    def run(state, batch, axis_name=None):
        return step.train_step(
            state,
            batch,
            apply=net(axis_name).apply,
            objective=objective,
            tx=tx,
            mean=np.asarray(data.mean, np.float32),
            deviation=np.asarray(data.deviation, np.float32),
            seed=config.seed,
            axis_name=axis_name,
            parts=config.accumulate,
        )

    shapes = {name: jax.ShapeDtypeStruct((own.batch, *shape), kind) for name, (shape, kind) in columns.items()}
    return Program(run, jax.eval_shape(first_state), {"image": image} | shapes)


def extraction(config: Settings, *, attributes: int = 35, batch: int = 128) -> tuple[Callable, Any, Any]:
    """(what maps uint8 images to the net's outputs, its variables, images): the last two as shapes."""
    data, net = config.data, build.net(config, attributes=attributes)
    variables = initialize.shapes(net, height=data.height, width=data.width)

    def run(variables, images):
        rows = step.normalise(images, mean=np.asarray(data.mean), deviation=np.asarray(data.deviation))
        return net.apply(variables, rows, train=False)

    return run, variables, jax.ShapeDtypeStruct((batch, data.height, data.width, 3), np.uint8)


def over_devices(program: Program, devices: list[Any], *, wrapper: str = "jit") -> Any:
    """The step over devices, as a function out of jax.jit that can be lowered for any platform.

    `pmap` is here what jax.pmap makes of the step, shard_map of one device's share, as jax.pmap itself lowers for the
    devices that are there alone.
    """
    if wrapper == "jit":
        return step.jitted(program.step, devices).run
    from jax.sharding import Mesh, PartitionSpec

    whole, split = PartitionSpec(), PartitionSpec("data")
    share = functools.partial(program.step, axis_name="data")
    mesh = Mesh(np.array(devices), ("data",))
    return jax.jit(jax.shard_map(share, mesh=mesh, in_specs=(whole, split), out_specs=whole, check_vma=False))
