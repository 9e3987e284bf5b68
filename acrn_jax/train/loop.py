"""The training loop: given a state, a step, and batches; saves, logs, stops."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from acrn_jax.train import logs, measure, parallel
from acrn_jax.train.journal import Journal, Phase, Window
from acrn_jax.train.state import State


def fit(
    state: State,
    phase: Phase,
    *,
    run: Callable[[State, Any], tuple[State, dict[str, Any]]],
    put: Callable[[dict[str, np.ndarray]], Any],
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    journal: Journal | None = None,
) -> State:
    """Trains from the newest checkpoint, or from `state`, to the end of the phase.

    Args:
      state: the start, and the shapes that a checkpoint must have.
      phase: what is trained, and where it is kept.
      run: one step, compiled.
      put: moves a host batch to the devices, explicitly.
      batches: first step -> iterator from there on.
      journal: restores, logs and saves, with the methods of Journal; default: the phase's own.

    Raises:
      ValueError: the loss is not finite, the feature collapsed to one point, or a step does not fit into memory.
      KeyboardInterrupt: ctrl-C, after saving.
      SystemExit: SIGTERM (preemption), which one of several processes got, after saving; code 75 (EX_TEMPFAIL).
    """
    journal = journal or Journal(phase)
    state = journal.begin(state)
    step = int(state.step)
    if step >= phase.steps:
        journal.close()
        return state
    source, window, cost = batches(step), Window(), None
    with (
        journal,
        measure.explain_out_of_memory(phase.name),
        measure.traced(phase.folder / "profile", steps=phase.profile_steps if parallel.is_primary() else 0) as mark,
        stop_flag() as stopped,
    ):
        while step < phase.steps and journal.running and not stopped:
            if parallel.preempted(step):
                stopped.append(signal.SIGTERM)
                break
            data = put(window.fetch(source))
            if cost is None:
                run, cost = measure.compiled(run, state, data, name=phase.name, parts=phase.parts)
                progress = logs.Progress(phase.name, phase.steps, first=step)  # compiling says nothing of what is left
                window = Window(cost.best_seconds)
            mark(state)
            state, scalars = run(state, data)
            window.add(scalars)
            step += 1
            if step % phase.log_every == 0 or step == phase.steps:
                window.close()
                if shown := journal.log(step, window, state):
                    progress.show(step, *shown)
                window = Window(cost.best_seconds)
            if step % phase.save_every == 0 and step < phase.steps:
                journal.save(state)
    journal.finish(state)
    if stopped:
        _leave(stopped[0], f"{phase.name}: stopped by a signal at step {step}")
    return state


def _leave(number: int, sentence: str) -> None:
    """Ends the program after a signal, when all is saved."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    print(f"{sentence}, saved; run the same command again to go on.", flush=True)
    raise SystemExit(os.EX_TEMPFAIL)


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
