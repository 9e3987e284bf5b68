"""Several arms or seeds of one shape trained in one compiled step: vmap over everything that a step changes.

Arms go together if their configs differ in nothing but VARY, and their seeds give as many people and steps. Parameters,
statistics, optimiser state, scales, loss constants and, where seeds differ, batches get a leading axis [V]; the step
counter does not. Each arm keeps a folder, log and checkpoints of its own, as if it had been trained alone, so that a
stopped study goes on either way.

Batched parameters turn convolutions into grouped ones, which accelerators run well and CPUs badly: there it pays for
short runs of narrow nets alone, by the compilations that are saved. The other way, lax.map, takes arm after arm in one
program; benchmarks/vectorised.py measures both.
"""

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax import build, runs
from acrn_jax.settings import Settings
from acrn_jax.studies import arms
from acrn_jax.train import checkpoint, logs, loop
from acrn_jax.train import step as steps
from acrn_jax.train.state import State, create

VARY = ("loss.gamma", "loss.margin", "loss.attribute_margin", "seed")
CONSTANTS = {"loss.gamma": "gamma", "loss.margin": "margin", "loss.attribute_margin": "attribute_margin"}
_AXES = State(step=None, params=0, batch_stats=0, scales=0, opt=0)


class Part(NamedTuple):
    """What build.train_phase was asked to do for one arm."""

    config: Settings
    folder: Path
    split: Any
    columns: dict[str, np.ndarray]
    variables: dict[str, Any]
    module: Callable[[str | None], Any]
    weights: Any
    names: tuple[str, ...]


def groups(jobs: Sequence[arms.Job], *, most: int = 8) -> list[list[arms.Job]]:
    """Jobs that are to be trained together, at least two each; their number of steps is looked at later."""
    found: dict[str, list[arms.Job]] = {}
    for job in jobs:
        config = job.config
        if arms.done(job) or not config.of_acrn or config.parallel != "jit":
            continue
        same = {key: value for key, value in arms.wanted(config).items() if key not in VARY}
        found.setdefault(json.dumps(same, sort_keys=True), []).append(job)
    cut = [group[i : i + most] for group in found.values() for i in range(0, len(group), most)]
    return [group for group in cut if len(group) > 1]


def train(group: Sequence[arms.Job], *, attributes: Path, shared: Path, together: str = "vmap") -> None:
    """Trains phase reid of a group's runs as far as it goes; `arms.work` then finds it done.

    Jobs at which another process is, or that cannot begin, are left out; one whose loss is not finite is written off
    and the others go on. `together`: "vmap" or "map".
    """
    with contextlib.ExitStack() as stack:
        parts: dict[str, Part] = {}
        for job in group:
            if not stack.enter_context(arms.locked(arms.beside(job, "lock"))):
                continue
            with contextlib.suppress(Exception), arms.noting_failure(job):
                config, share = arms.prepared(job, attributes, shared), arms.sharing(job.base, shared)
                config = runs.begin(config, attributes=attributes, shared=share)
                runs.train(config, job.folder, train_phase=_collector(parts, job.name))
        shapes: dict[tuple[int, ...], list[arms.Job]] = {}
        for job in (job for job in group if job.name in parts):
            part = parts[job.name]
            per_epoch = len(build.epoch_plan(part.config, part.split, "reid")(0))
            at = max((int(p.name) for p in (part.folder / "checkpoints").glob("*") if p.name.isdigit()), default=0)
            people = int(part.columns["person"].max())
            shapes.setdefault((per_epoch, people, at), []).append(job)
        for alike in shapes.values():
            if len(alike) > 1:
                _fit(alike, [parts[job.name] for job in alike], together)


def _collector(parts, name):
    def collect(
        config, phase, folder, split, *, columns, objective, variables, module, attribute_weights, attribute_names
    ):
        if phase != "reid":
            raise ValueError(f"Phase {phase} is not trained together.")
        parts[name] = Part(config, folder, split, columns, variables, module, attribute_weights, attribute_names)

    return collect


class Program(NamedTuple):
    """A compiled step of V arms."""

    state: State  # [V] before the first step
    run: Any  # jitted, (state, batch) -> (state, scalars [V])
    batches: Callable[[int], Any]  # first step -> iterator of batches, [seeds, B, ...] each
    steps: int
    rate: Callable[[int], Any]


def program(parts: Sequence[Part], together: str = "vmap") -> Program:
    """The step of several arms; `together` as in `train`."""
    first = parts[0].config
    per_epoch = len(build.epoch_plan(first, parts[0].split, "reid")(0))
    wanted = ("scratch", *(() if parts[0].weights is None else ("attribute_weights",)))
    count, tx, rates = build.optimisation(first, "reid", per_epoch, wanted)
    seeds = sorted({part.config.seed for part in parts})
    of_seed = {part.config.seed: part for part in parts}
    constants = {
        name: jnp.asarray([part.config.flat[key] for part in parts], jnp.float32)
        for key, name in CONSTANTS.items()
        if not (first.loss.soft and name != "gamma")
    }
    run = step_of(
        first,
        parts[0].names,
        parts[0].module(None).apply,
        tx,
        constants,
        jnp.asarray([part.config.seed for part in parts]),
        [seeds.index(part.config.seed) for part in parts],
        together,
    )

    def batches(start):
        each = [
            build.batches(p.config, p.split, "reid", p.columns, steps=count)[0](start)
            for p in (of_seed[seed] for seed in seeds)
        ]
        for rows in zip(*each, strict=True):
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    states = [create(part.variables, tx, attribute_weights=part.weights) for part in parts]
    return Program(stack(states), jax.jit(run, donate_argnums=0), batches, count, rates["scratch"])


def step_of(
    config: Settings,
    names: tuple[str, ...],
    apply: Callable,
    tx: Any,
    constants: dict[str, jax.Array],
    seeds: jax.Array,
    which: Sequence[int],
    together: str,
) -> Callable[[State, Any], tuple[State, dict[str, Any]]]:
    """(state [V], batches [seeds, B, ...]) -> (state, scalars [V]), to be compiled.

    Args:
      config: of any of the arms.
      names: of the attributes.
      apply: the net.
      tx: the optimiser.
      constants: of the loss, [V] each.
      seeds: [V] of the steps' randomness.
      which: [V] which of the batches an arm sees.
      together: "vmap", or "map": one arm after the other.
    """

    def one(state, batch, constants, seed):
        objective, _ = build.reid_objective(config, names, **constants)
        return steps.train_step(
            state,
            batch,
            apply=apply,
            objective=objective,
            tx=tx,
            mean=np.asarray(config.data.mean, np.float32),
            deviation=np.asarray(config.data.deviation, np.float32),
            seed=seed,
            parts=config.accumulate,
        )

    shared = len(set(which)) == 1  # one batch for all: no copies
    which = jnp.asarray(which)

    def by_vmap(state, batch):
        batch = jax.tree.map(lambda x: x[0] if shared else x[which], batch)
        return jax.vmap(one, (_AXES, None if shared else 0, 0, 0), (_AXES, 0))(state, batch, constants, seeds)

    def by_map(state, batch):
        def follow(inputs):
            changing, constant, seed, place = inputs
            mine = jax.tree.map(lambda x: x[place], batch)
            new, scalars = one(_moved(changing, state.step), mine, constant, seed)
            return _moved(new, None), scalars

        new, scalars = jax.lax.map(follow, (_moved(state, None), constants, seeds, which))
        return _moved(new, state.step + 1), scalars

    return {"vmap": by_vmap, "map": by_map}[together]


def _moved(state: State, step: Any) -> State:
    return dataclasses.replace(state, step=step)


def stack(states: Sequence[State]) -> State:
    """V states of one step as one, [V] everywhere but in `step`."""
    step, *others = states[0].step, *(_moved(state, None) for state in states)
    return _moved(jax.tree.map(lambda *leaves: jnp.stack(leaves), *others), step)


def unstack(state: State, place: int) -> State:
    """The state of one arm."""
    return _moved(jax.tree.map(lambda x: x[place], _moved(state, None)), state.step)


def _fit(jobs, parts, together):
    """The training loop of train/loop.py for several runs."""
    made, count = program(parts, together), len(parts)
    saved = [checkpoint.Checkpoints(part.folder / "checkpoints") for part in parts]
    found = [kept for i, one in enumerate(saved) if (kept := one.restore(unstack(made.state, i))) is not None]
    state = made.state
    if len(found) == count and len({int(one.step) for one in found}) == 1:
        state = stack(found)
    step = began_at = int(state.step)
    if step >= made.steps:
        return
    print(
        f"reid: {count} runs in one step, {made.steps - step} steps: {', '.join(job.name for job in jobs)}", flush=True
    )
    if step:
        print(f"reid: they go on from step {step} of {made.steps}.", flush=True)
    scalars = [logs.Scalars(part.folder, first_step=step) for part in parts]
    per_epoch = len(build.epoch_plan(parts[0].config, parts[0].split, "reid")(0))
    watches = [loop.Watch(f"{job.name}: reid", per_epoch) for job in jobs]
    first, alive, window, run = parts[0].config, [True] * count, [], None
    started, progress = 0.0, logs.Progress("reid", made.steps, first=step)
    source = made.batches(step)

    def save():
        for i, one in enumerate(saved):
            if alive[i]:
                one.save(unstack(state, i))

    with loop.stop_flag() as stopped:
        while step < made.steps and not stopped and any(alive):
            host = next(source)
            data = jax.device_put(host)
            if run is None:  # compiled ahead, so that the log's speed and time left are training's
                run = made.run.lower(state, data).compile()
                started, progress = time.monotonic(), logs.Progress("reid", made.steps, first=step)
            state, values = run(state, data)
            window.append(values)
            step += 1
            if step % first.log_every == 0 or step == made.steps:
                every = jax.device_get(window)
                rows = len(window) * host["image"].shape[1]
                speed = rows / (time.monotonic() - started)  # of each arm; all of them together see `count` times it
                for i, job in enumerate(jobs):
                    if not alive[i]:
                        continue
                    means = {name: float(np.mean([v[name][i] for v in every])) for name in every[0]}
                    means |= {"images_per_second": speed * count, "learning_rate": float(made.rate(step))}
                    try:
                        with arms.noting_failure(job):
                            watches[i](means, step, len(window))
                    except ValueError as error:
                        print(f"{job.name}: {error}", flush=True)
                        alive[i] = False
                        continue
                    names = parts[i].names if parts[i].weights is not None else ()
                    raw = np.asarray(state.params["attribute_weights"]["raw"][i]) if names else ()
                    weights = {f"weight/{n}": float(w) for n, w in zip(names, raw, strict=True)}
                    scalars[i].write(step, means | weights)
                progress.show(step, f"{count} runs, {speed * count:.0f} images/s together")
                window, started = [], time.monotonic()
            if step % first.save_every == 0 and step < made.steps:
                save()
    if step > began_at:
        save()
    for one in (*saved, *scalars):
        one.close()
    if stopped:
        print(f"stopped by a signal at step {step}, saved; run the same command again to go on.", flush=True)
        raise SystemExit(os.EX_TEMPFAIL)
