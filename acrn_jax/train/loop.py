"""The training loop: given a state, a step, and batches; saves, logs, stops."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from acrn_jax.train import checkpoint, logs, measure, parallel
from acrn_jax.train.state import State


def fit(
    state: State,
    *,
    name: str,
    folder: Path,
    run: Callable[[State, Any], tuple[State, dict[str, Any]]],
    put: Callable[[dict[str, np.ndarray]], Any],
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    steps: int,
    rate: Callable[[int], Any],
    log_every: int,
    save_every: int,
    extra: Callable[[State], dict[str, float]] = lambda state: {},
    parts: int = 1,
    profile_steps: int = 0,
    epoch: int = 1,
) -> State:
    """Trains from the newest checkpoint in `folder`, or from `state`, to `steps`.

    Args:
      state: the start, and the shapes that a checkpoint must have.
      name: of the phase, for messages.
      folder: checkpoints, scalars.jsonl and event files go here.
      run: one step, compiled.
      put: moves a host batch to the devices, explicitly.
      batches: first step -> iterator from there on.
      steps: the phase's end.
      rate: step -> learning rate, for the log.
      log_every, save_every: in steps.
      extra: more scalars to log, from the state.
      parts: how often a step's loops run, to know its work.
      profile_steps: how many steps are traced into `folder`/profile.
      epoch: steps of one, to know how long is long.

    Raises:
      ValueError: the loss is not finite, the feature collapsed to one point, or a step does not fit into memory.
      KeyboardInterrupt: ctrl-C, after saving.
      SystemExit: SIGTERM (preemption), after saving; code 75 (EX_TEMPFAIL). With several processes it is enough that
        one gets it.
    """
    saved = checkpoint.Checkpoints(folder / "checkpoints")
    state = saved.restore(state) or state
    step = int(state.step)
    if step >= steps:
        print(f"{name}: nothing to do, step {step} of {steps} is reached ({folder}).", flush=True)
        saved.close()
        return state
    if step:
        print(f"{name}: goes on from step {step} of {steps} ({folder}).", flush=True)
    scalars = logs.Scalars(folder, first_step=step) if parallel.is_primary() else None
    window: list[dict[str, Any]] = []
    waited, started, watch = 0.0, 0.0, Watch(name, epoch)
    source = batches(step)
    cost = None
    with (
        contextlib.closing(scalars) if scalars else contextlib.nullcontext(),
        measure.memory_told(name),
        measure.traced(folder / "profile", steps=profile_steps if parallel.is_primary() else 0) as mark,
        stop_flag() as stopped,
    ):
        while step < steps and not stopped:
            if parallel.preempted(step):
                stopped.append(signal.SIGTERM)
                break
            began = time.monotonic()
            host = next(source)
            waited += time.monotonic() - began
            data = put(host)
            if cost is None:
                run, cost = measure.compiled(run, state, data, name=name, parts=parts)
                progress = logs.Progress(name, steps, first=step)  # of what is left compiling says nothing
                waited, started = 0.0, time.monotonic()
            mark(state)
            state, values = run(state, data)
            window.append(values)
            step += 1
            if step % log_every == 0 or step == steps:
                means = _means(window)  # waits for the device
                elapsed = time.monotonic() - started
                means["images_per_second"] = len(window) * len(host["image"]) * jax.process_count() / elapsed
                means["step_seconds"] = elapsed / len(window)
                means["waiting_share"] = waited / elapsed
                if cost.best_seconds:
                    means["mfu"] = cost.best_seconds / means["step_seconds"]
                means["learning_rate"] = float(rate(step))
                watch(means, step, len(window))
                if scalars:
                    scalars.write(step, means | extra(state))
                    progress.show(step, logs.line(means), logs.legend(means))
                window, waited, started = [], 0.0, time.monotonic()
            if step % save_every == 0 and step < steps:
                saved.save(state)
    saved.save(state)
    saved.close()
    if stopped:
        if stopped[0] == signal.SIGINT:
            raise KeyboardInterrupt
        print(f"{name}: stopped by a signal at step {step}, saved; run the same command again to go on.", flush=True)
        raise SystemExit(os.EX_TEMPFAIL)
    return state


def _means(window):
    values = jax.device_get(window)
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def check(means: dict[str, float], step: int, length: int, name: str) -> None:
    """ValueError if the means of a window of `length` steps say that training has failed."""
    if not np.isfinite(means["loss"]):
        raise ValueError(
            f"{name}: the loss is {means['loss']} between steps {step - length + 1} and {step}; lower the learning "
            "rate, or look at the data. The last checkpoint is from before."
        )
    if means.get("spread", 1.0) < 1e-7 and means.get("active", 0.0) > 0.99:
        raise ValueError(
            f"{name}: the feature collapsed by step {step}: all images lie at one point (mean distance "
            f"{means['spread']:.1g}), the loss stays at its margin ({means['loss']:.3g}). Use a lower learning rate, "
            "a soft margin, mining semi_hard or batch_all, or identity pre-training."
        )


ADVICE = {  # prefix of a triplet loss's scalars -> what is wrong where all its triplets stay undecided, what to do
    "": (
        "the feature has collapsed, or does not begin to spread",
        "a lower learning rate, a soft margin (loss.soft), reid.miner=semi_hard or batch_all, "
        "loss.distance_scale=unit_mean or an identity phase",
    ),
    "attribute_": (
        "weighted attributes tell nobody apart: the weights have collapsed, or the attribute net says the same of all",
        "a smaller loss.attribute_margin, loss.distance_scale=unit_mean, loss.attribute_miner=batch_all or a lower "
        "reid.attribute_weights.rate",
    ),
}


class Watch:
    """Looks at the means of each window: `check`, and says once of each triplet loss that it stays at its margin.

    That is so where for two epochs nearly all triplets are undecided (losses/triplet.py), with distances that have not
    grown to twice those of the first steps, as they do in a run that starts slowly. Under distance_scale=unit_mean
    distances keep their size when features shrink: there all triplets stay active while the features lie a thousandth
    as far apart as in the first steps.
    """

    def __init__(self, name: str, epoch: int):
        self._name, self._epoch = name, epoch
        self._first: dict[str, float] = {}  # prefix -> mean distance in the first window
        self._since: dict[str, int] = {}  # prefix -> step since which its loss stays
        self._told: set[str] = set()

    def __call__(self, means: dict[str, float], step: int, length: int) -> None:
        check(means, step, length, self._name)
        for prefix in ADVICE:
            if f"{prefix}undecided" not in means or prefix in self._told:
                continue
            distance = (means[f"{prefix}positive"] + means[f"{prefix}negative"]) / 2
            first = self._first.setdefault(prefix, distance)
            spread = self._first.setdefault("spread", means["spread"])
            since = self._since.setdefault(prefix, step - length)
            undecided = means[f"{prefix}undecided"] > 0.99 and distance < 2 * first
            shrunk = not prefix and means["active"] > 0.99 and means["spread"] < 1e-3 * spread
            if not (undecided or shrunk):
                self._since[prefix] = step
            elif step - since >= 2 * self._epoch:
                self._told.add(prefix)
                wrong, advice = ADVICE[prefix]
                loss = means[f"{prefix}loss"]
                print(
                    f"{self._name}: warning: {wrong}. From step {since} to {step} the loss has stayed at its margin "
                    f"({loss:.3g}) for nearly all triplets; their mean distance is {distance:.3g} ({first:.3g} in the "
                    f"first steps), that of all images {means['spread']:.3g} ({spread:.3g}). Use {advice}.",
                    flush=True,
                )


@contextlib.contextmanager
def stop_flag():
    """A list that a first SIGINT or SIGTERM fills; a second one acts as ever.

    With several processes one cannot stop for itself: JAX sees SIGTERM and tells all (parallel.preempted), and SIGINT
    is passed to it.
    """
    received: list[int] = []
    before = {}

    def handle(number, frame):
        received.append(number)
        for known, handler in before.items():
            signal.signal(known, handler)

    with contextlib.suppress(ValueError):  # only the main thread may set handlers
        if jax.process_count() > 1:
            before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
        else:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, handle)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
