"""Scalars of a run: one JSON object a line, TensorBoard event files, and a line for the eye."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyrefly: ignore
from tensorboardX.proto.summary_pb2 import Summary  # pyrefly: ignore

from acrn_jax import files


class Scalars:
    """Appends to `folder`/scalars.jsonl and to event files beside it; lines from `first_step` on are written anew."""

    def __init__(self, folder: Path, *, first_step: int = 0):
        self._file, self._folder = folder / "scalars.jsonl", folder / "events"
        if self._file.exists():  # a resumed run repeats the steps after its checkpoint
            lines = [line for line in self._file.read_text().splitlines(keepends=True) if _step(line) <= first_step]
            files.write_text(self._file, "".join(lines))
        with files.naming(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(self._folder / "events"))  # SummaryWriter's thread hangs on a full disk
        self._flushed = time.monotonic()
        if first_step:  # TensorBoard then drops later steps of earlier files
            self._write_event(first_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, values: dict[str, Any]) -> None:
        with files.naming(self._file), self._file.open("a") as out:
            out.write(json.dumps({"step": step, **values}) + "\n")
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write_event(step, summary=Summary(value=scalars))

    def close(self) -> None:
        with files.naming(self._folder):
            self._events.close()

    def _write_event(self, step, **content):
        with files.naming(self._folder):
            self._events.write_event(Event(step=step, wall_time=time.time(), **content))
            if time.monotonic() - self._flushed > 30:
                self._events.flush()
                self._flushed = time.monotonic()


WORDS = {  # a scalar, what the line for the eye calls it, and what that is
    "accuracy": ("accuracy", "answers that are right"),
    "active": ("active", "triplets inside the margin, which alone train"),
    "switched_on": ("on", "triplets that attributes bring inside the margin"),
    "switched_off": ("off", "triplets that attributes take out of it"),
    "mfu": ("MFU", "of the chip's highest rate"),
    "waiting_share": ("waiting", "of the time, for images"),
}


def line(means: dict[str, float]) -> str:
    """The scalars of some steps, for the eye; `legend` says what the words mean."""
    shares = {key: f"{word} {means[key]:.0%}" for key, (word, _) in WORDS.items() if key in means}
    speed = [f"{1000 * means['step_seconds']:.0f} ms/step {means['images_per_second']:.0f} images/s"]
    speed += [shares.pop(key) for key in ("mfu", "waiting_share") if key in shares]
    return " ".join([f"loss {means['loss']:.4f}", *shares.values(), *speed])


def legend(means: dict[str, float]) -> str:
    """What the words of `line` mean."""
    return "; ".join(f"{word}: {meaning}" for key, (word, meaning) in WORDS.items() if key in means)


class Progress:
    """One line that says how far a run is: rewritten in place on a terminal, every few seconds elsewhere."""

    def __init__(self, label: str, total: int, *, first: int = 0):
        self._label, self._total, self._first = label, total, first
        self._start = self._last = time.monotonic()
        self._live = sys.stderr.isatty()
        self._explained = False

    def show(self, step: int, text: str, legend: str = "") -> None:
        """The line, where it is time for one; before the first one a legend."""
        now = time.monotonic()
        if now - self._last < (0.5 if self._live else 10) and step < self._total:
            return
        self._last = now
        if legend and not self._explained:
            self._explained = True
            print(f"{self._label}: {legend}", file=sys.stderr)
        left = (now - self._start) / max(step - self._first, 1) * (self._total - step)
        line = f"{self._label} {step}/{self._total} {text} {clock(left)} left"
        print(
            f"\r\033[K{line}" if self._live else line,
            end="" if self._live and step < self._total else "\n",
            file=sys.stderr,
            flush=True,
        )


def clock(seconds: float) -> str:
    """Seconds as 75 -> "1:15"."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"] if line.endswith("\n") else float("inf")
    except ValueError:
        return float("inf")  # cut short by a kill
