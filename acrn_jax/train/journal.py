"""What training a phase leaves behind: checkpoints, lines of the log, warnings.

`Journal` is one run's. Runs that train in one step keep one each; see studies/vectorised.py.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from acrn_jax.train import checkpoint, logs, parallel
from acrn_jax.train.state import State


@dataclasses.dataclass(frozen=True)
class Phase:
    """A phase of training, as the loop and its journal know it."""

    name: str  # for messages
    folder: Path  # of checkpoints, scalars.jsonl and event files
    steps: int  # the step at which it ends
    batch: int  # images of a step, on all devices
    rate: Callable[[int], Any]  # step -> learning rate, for the log
    log_every: int  # steps
    save_every: int  # steps
    epoch: int = 1  # steps of an epoch, to know how long is long
    parts: int = 1  # how often a step's loops run (train/accumulate.py), to know its work
    profile_steps: int = 0  # how many steps are traced into `folder`/profile
    extra: Callable[[State], dict[str, float]] = lambda state: {}  # more scalars for the log, from the state


class Window:
    """The steps between two lines of the log: their scalars, and how long they took from when it is made."""

    def __init__(self, best_seconds: float | None = None):
        self._scalars: list[dict[str, Any]] = []
        self._began, self._best_seconds = time.monotonic(), best_seconds
        self.seconds = 0.0
        self.waited = 0.0  # seconds for images

    def __len__(self) -> int:
        return len(self._scalars)

    def fetch(self, batches: Iterator[Any]) -> Any:
        """The next batch, with the time that it takes."""
        began = time.monotonic()
        batch = next(batches)
        self.waited += time.monotonic() - began
        return batch

    def add(self, scalars: dict[str, Any]) -> None:
        """The scalars of one step more, on the device."""
        self._scalars.append(scalars)

    def close(self) -> None:
        """Waits for the device; the time is over when it has come to the end of the last step."""
        self._scalars = jax.device_get(self._scalars)
        self.seconds = time.monotonic() - self._began

    def means(self, place: Any = ()) -> dict[str, float]:
        """The mean of each scalar; `place`: which run's, of several in one step."""
        first = self._scalars[0]
        return {name: float(np.mean([np.asarray(one[name])[place] for one in self._scalars])) for name in first}

    def speed(self, batch: int) -> dict[str, float]:
        """Images and time of a step, the share of the time spent waiting for images, and of the chip's highest rate."""
        each = self.seconds / len(self)
        found = {"images_per_second": batch / each, "step_seconds": each, "waiting_share": self.waited / self.seconds}
        return found | ({"mfu": self._best_seconds / each} if self._best_seconds else {})


class Journal:
    """Of one run: restores and saves its state, watches its scalars and writes them down.

    As a context it closes its log. `running` says whether there is anything to train for.
    """

    running = True

    def __init__(self, phase: Phase):
        self.phase = phase
        self.checkpoints = checkpoint.Checkpoints(phase.folder / "checkpoints")
        self._scalars: logs.Scalars | None = None
        self._watch = Watch(phase.name, phase.epoch)

    def begin(self, start: State) -> State:
        """The state of the newest checkpoint, or `start`; says so, and opens the log if there is something to do."""
        state = self.checkpoints.restore(start) or start
        name, step, steps, folder = self.phase.name, int(state.step), self.phase.steps, self.phase.folder
        if step >= steps:
            print(f"{name}: nothing to do, step {step} of {steps} is reached ({folder}).", flush=True)
            return state
        if step:
            print(f"{name}: goes on from step {step} of {steps} ({folder}).", flush=True)
        self.open_log(step)
        return state

    def open_log(self, step: int) -> None:
        """Lines of the log after `step` are written anew; of several processes one writes."""
        if parallel.is_primary():
            self._scalars = logs.Scalars(self.phase.folder, first_step=step)

    def log(self, step: int, window: Window, state: State) -> tuple[str, str] | None:
        """Watches and writes what the steps of a window gave, up to `step`.

        Returns:
          a line for the eye, and what its words mean; None in processes that write nothing.
        """
        means = window.means() | window.speed(self.phase.batch)
        self.write(step, means, len(window), state)
        return (logs.line(means), logs.legend(means)) if parallel.is_primary() else None

    def write(self, step: int, means: dict[str, float], length: int, state: State) -> None:
        """Watches and writes the means of a window of `length` steps, with the learning rate."""
        means["learning_rate"] = float(self.phase.rate(step))
        self._watch(means, step, length)
        if self._scalars:
            self._scalars.write(step, means | self.phase.extra(state))

    def save(self, state: State) -> None:
        """Writes a checkpoint."""
        self.checkpoints.save(state)

    def finish(self, state: State) -> None:
        """Writes the last checkpoint, when training has ended or is stopped."""
        self.save(state)
        self.close()

    def close(self) -> None:
        """Waits until all checkpoints are written."""
        self.checkpoints.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: Any) -> None:
        if self._scalars:
            self._scalars.close()


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
        self._warned: set[str] = set()

    def __call__(self, means: dict[str, float], step: int, length: int) -> None:
        check(means, step, length, self._name)
        for prefix in ADVICE:
            if f"{prefix}undecided" not in means or prefix in self._warned:
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
                self._warned.add(prefix)
                wrong, advice = ADVICE[prefix]
                loss = means[f"{prefix}loss"]
                print(
                    f"{self._name}: warning: {wrong}. From step {since} to {step} the loss has stayed at its margin "
                    f"({loss:.3g}) for nearly all triplets; their mean distance is {distance:.3g} ({first:.3g} in the "
                    f"first steps), that of all images {means['spread']:.3g} ({spread:.3g}). Use {advice}.",
                    flush=True,
                )
