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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax import build, runs
from acrn_jax.build import PhaseTask
from acrn_jax.runs import phases
from acrn_jax.settings import Settings
from acrn_jax.studies.job import done, locked, prepare, recording_failure, sharing
from acrn_jax.studies.plan import Job, result_settings
from acrn_jax.train import loop
from acrn_jax.train import step as steps
from acrn_jax.train.journal import Journal, Window
from acrn_jax.train.state import State

VARY = ("loss.gamma", "loss.margin", "loss.attribute_margin", "seed")
CONSTANTS = {"loss.gamma": "gamma", "loss.margin": "margin", "loss.attribute_margin": "attribute_margin"}
_AXES = State(step=None, params=0, batch_stats=0, scales=0, opt=0)


def groups(jobs: Sequence[Job], *, most: int = 8) -> list[list[Job]]:
    """Jobs that are to be trained together, at least two each; their number of steps is looked at later."""
    alike: dict[str, list[Job]] = {}
    for job in jobs:
        config = job.config
        if done(job) or not config.of_acrn or config.parallel != "jit":
            continue
        fixed = {key: value for key, value in result_settings(config).items() if key not in VARY}
        alike.setdefault(json.dumps(fixed, sort_keys=True), []).append(job)
    cut = [group[i : i + most] for group in alike.values() for i in range(0, len(group), most)]
    return [group for group in cut if len(group) > 1]


def train(group: Sequence[Job], *, attributes: Path, shared: Path, how: str = "vmap") -> None:
    """Trains phase reid of a group's runs as far as it goes; `job.work` then finds it done.

    Jobs at which another process is, or that cannot begin, are left out; one whose loss is not finite is recorded as
    failed and the others go on. `how`: "vmap" or "map".
    """
    with contextlib.ExitStack() as stack:
        begun: list[tuple[Job, PhaseTask]] = []
        for job in group:
            if not stack.enter_context(locked(job.file("lock"))):
                continue
            with contextlib.suppress(Exception), recording_failure(job):
                begun += [(job, task) for task in tasks(job, attributes, shared)]
        shapes: dict[tuple[int, ...], list[tuple[Job, PhaseTask]]] = {}
        for job, task in begun:
            per_epoch = len(build.epoch_plan(task.config, task.split, "reid")(0))
            people = int(task.columns["person"].max())
            shapes.setdefault((per_epoch, people, phases.progress(task.folder).step), []).append((job, task))
        for alike in shapes.values():
            if len(alike) > 1:
                _fit(alike, how)


def tasks(job: Job, attributes: Path, shared: Path) -> list[PhaseTask]:
    """What a job is to train, made ready as `job.work` does it."""
    found: list[PhaseTask] = []

    def collect(task: PhaseTask) -> None:
        if task.phase != "reid":
            raise ValueError(f"Phase {task.phase} is not trained together.")
        found.append(task)

    config, share = prepare(job, attributes, shared), sharing(job.base, shared)
    config = runs.begin(config, attributes=attributes, shared=share)
    runs.train(config, job.folder, train_phase=collect)
    return found


class Program(NamedTuple):
    """A compiled step of V arms."""

    phase: loop.Phase  # of all together
    state: State  # [V] before the first step
    run: Any  # jitted, (state, batch) -> (state, scalars [V])
    batches: Callable[[int], Any]  # first step -> iterator of batches, [seeds, B, ...] each


def program(tasks: Sequence[PhaseTask], how: str = "vmap") -> Program:
    """The step of several arms; `how` as in `train`."""
    config = tasks[0].config
    phase, tx = tasks[0].plan()
    seeds = sorted({task.config.seed for task in tasks})
    of_seed = {task.config.seed: task for task in tasks}
    constants = {
        name: jnp.asarray([task.config.flat[key] for task in tasks], jnp.float32)
        for key, name in CONSTANTS.items()
        if not (config.loss.soft and name != "gamma")
    }
    run = step_of(
        config,
        tasks[0].attribute_names,
        tasks[0].module(None).apply,
        tx,
        constants=constants,
        seeds=jnp.asarray([task.config.seed for task in tasks]),
        which=[seeds.index(task.config.seed) for task in tasks],
        how=how,
    )

    def batches(start: int) -> Iterator[dict[str, np.ndarray]]:
        each = [of_seed[seed].batches(phase.steps)(start) for seed in seeds]
        for rows in zip(*each, strict=True):
            yield {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    states = [task.start(tx) for task in tasks]
    return Program(
        dataclasses.replace(phase, batch=phase.batch * len(tasks), profile_steps=0),
        stack(states),
        jax.jit(run, donate_argnums=0),
        batches,
    )


def step_of(
    config: Settings,
    names: tuple[str, ...],
    apply: Callable,
    tx: Any,
    *,
    constants: dict[str, jax.Array],
    seeds: jax.Array,
    which: Sequence[int],
    how: str = "vmap",
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
      how: "vmap", or "map": one arm after the other.
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
    places = jnp.asarray(which)

    def by_vmap(state, batch):
        batch = jax.tree.map(lambda x: x[0] if shared else x[places], batch)
        return jax.vmap(one, (_AXES, None if shared else 0, 0, 0), (_AXES, 0))(state, batch, constants, seeds)

    def by_map(state, batch):
        def follow(inputs):
            changing, constant, seed, place = inputs
            rows = jax.tree.map(lambda x: x[place], batch)
            new, scalars = one(_at_step(changing, state.step), rows, constant, seed)
            return _at_step(new, None), scalars

        new, scalars = jax.lax.map(follow, (_at_step(state, None), constants, seeds, places))
        return _at_step(new, state.step + 1), scalars

    return {"vmap": by_vmap, "map": by_map}[how]


def _at_step(state: State, step: Any) -> State:
    return dataclasses.replace(state, step=step)


def stack(states: Sequence[State]) -> State:
    """V states of one step as one, [V] everywhere but in `step`."""
    step, *others = states[0].step, *(_at_step(state, None) for state in states)
    return _at_step(jax.tree.map(lambda *leaves: jnp.stack(leaves), *others), step)


def unstack(state: State, place: int) -> State:
    """The state of one arm."""
    return _at_step(jax.tree.map(lambda x: x[place], _at_step(state, None)), state.step)


class GroupJournal(Journal):
    """Of several runs that train in one step: a journal of each, but for those whose loss was not finite."""

    def __init__(self, phase: loop.Phase, members: Sequence[tuple[Job, PhaseTask]]):
        self.phase = phase
        self._jobs = [job for job, _ in members]
        self._journals = [Journal(_own_phase(phase, job, task, i)) for i, (job, task) in enumerate(members)]
        self._alive = [True] * len(members)
        self._first = 0

    def begin(self, start: State) -> State:
        """The state of the newest checkpoints, if all are of one step, else `start`."""
        restored = [one.checkpoints.restore(unstack(start, i)) for i, one in enumerate(self._journals)]
        found = [state for state in restored if state is not None]
        state = stack(found) if len(found) == len(restored) and len({int(one.step) for one in found}) == 1 else start
        self._first, steps, name = int(state.step), self.phase.steps, self.phase.name
        if self._first >= steps:
            return state
        names = ", ".join(job.name for job in self._jobs)
        print(f"{name}: {len(restored)} runs in one step, {steps - self._first} steps: {names}", flush=True)
        if self._first:
            print(f"{name}: they go on from step {self._first} of {steps}.", flush=True)
        for one in self._journals:
            one.open_log(self._first)
        return state

    def log(self, step: int, window: Window, state: State) -> tuple[str, str]:
        """As `Journal.log`; a run whose loss is not finite is recorded as failed, and takes no part from then on."""
        speed = window.speed(self.phase.batch)["images_per_second"]  # of all: each sees that of the whole group
        for i, (job, one) in enumerate(zip(self._jobs, self._journals, strict=True)):
            if not self._alive[i]:
                continue
            try:
                with recording_failure(job):
                    one.write(step, window.means(i) | {"images_per_second": speed}, len(window), state)
            except ValueError as error:
                print(f"{job.name}: {error}", flush=True)
                self._alive[i] = False
        self.running = any(self._alive)
        return f"{len(self._jobs)} runs, {speed:.0f} images/s together", ""

    def save(self, state: State) -> None:
        """A checkpoint of each run that has not failed."""
        for i, one in enumerate(self._journals):
            if self._alive[i]:
                one.save(unstack(state, i))

    def finish(self, state: State) -> None:
        """As `Journal.finish`; before the first step there is nothing to save."""
        if int(state.step) > self._first:
            self.save(state)
        self.close()

    def close(self) -> None:
        """As `Journal.close`."""
        for one in self._journals:
            one.close()

    def __exit__(self, *error: Any) -> None:
        for one in self._journals:
            one.__exit__(*error)


def _own_phase(phase: loop.Phase, job: Job, task: PhaseTask, place: int) -> loop.Phase:
    """What the journal of one run of a group is to know."""
    names = task.attribute_names if task.attribute_weights is not None else ()

    def weights(state: State) -> dict[str, float]:
        raw = np.asarray(state.params["attribute_weights"]["raw"][place]) if names else ()
        return {f"weight/{name}": float(w) for name, w in zip(names, raw, strict=True)}

    return dataclasses.replace(phase, name=f"{job.name}: {phase.name}", folder=task.folder, extra=weights)


def _fit(members: Sequence[tuple[Job, PhaseTask]], how: str) -> None:
    """Trains several runs to the end of their phase, from where they are."""
    made = program([task for _, task in members], how)
    journal = GroupJournal(made.phase, members)
    loop.fit(made.state, made.phase, run=made.run, put=jax.device_put, batches=made.batches, journal=journal)
