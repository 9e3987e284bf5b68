"""Scalars of a run: one JSON object a line, TensorBoard event files, and a line for the eye."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from acrn_jax import files


class Scalars:
    """Appends to `folder`/scalars.jsonl and to event files beside it; lines from `first_step` on are written anew."""

    def __init__(self, folder: Path, *, first_step: int = 0):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "scalars.jsonl"
        if self._file.exists():  # a resumed run repeats the steps after its checkpoint
            lines = [line for line in self._file.read_text().splitlines(keepends=True) if _step(line) <= first_step]
            files.write_text(self._file, "".join(lines))
        self._events = SummaryWriter(str(folder / "events"), purge_step=first_step or None)

    def write(self, step: int, values: dict[str, Any]) -> None:
        with self._file.open("a") as out:
            out.write(json.dumps({"step": step, **values}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._events.close()


class Progress:
    """One line that says how far a run is: rewritten in place on a terminal, every few seconds elsewhere."""

    def __init__(self, label: str, total: int, *, first: int = 0):
        self._label, self._total, self._first = label, total, first
        self._start = self._last = time.monotonic()
        self._live = sys.stderr.isatty()

    def show(self, step: int, text: str) -> None:
        now = time.monotonic()
        if now - self._last < (0.5 if self._live else 10) and step < self._total:
            return
        self._last = now
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
