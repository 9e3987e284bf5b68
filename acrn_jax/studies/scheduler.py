"""Runs the jobs of a study, each in a process of its own: how many at a time, on which graphics card, until when.

A job that fails, or is killed for memory, leaves the others alone. Locks are let go by the system when a process ends,
however it ends: launches of one study on several machines with a common file system do not disturb one another.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

import numpy as np

from acrn_jax.studies.job import done, failure, locked, write_failure
from acrn_jax.studies.plan import Job
from acrn_jax.train import logs

TERMINATED = (os.EX_TEMPFAIL, -signal.SIGTERM)  # exit codes of a job that SIGTERM stopped


class _Running(NamedTuple):
    job: Job
    slot: int  # of those that run at a time
    began: float
    log: IO[str] | None


def run(
    jobs: Sequence[Job],
    command: Callable[[Job], list[str]],
    *,
    parallel: int = 1,
    report: Callable[[str], None] = print,
) -> int:
    """Runs `command(job)` for each job that is neither done nor at work elsewhere, `parallel` at a time.

    With several at a time their output goes to ARM/seed_N.log, and graphics cards are dealt out in turn. SIGINT and
    SIGTERM are passed on to the jobs, which save; then KeyboardInterrupt or SystemExit(75) is raised. Returns how many
    jobs were stopped by a SIGTERM of their own.
    """
    waiting, running, durations, stopped = list(jobs), {}, [], 0
    cards = _cards() if parallel > 1 else []
    with _signals() as received:
        handled = 0
        while (waiting and not received) or running:
            while waiting and len(running) < parallel and not received:
                job = waiting.pop(0)
                if done(job):
                    continue
                with locked(job.file("lock")) as free:
                    pass
                if not free:
                    report(f"{job.name}: another process is at it.")
                    continue
                report(f"{job.name}: started, {sum(not done(other) for other in waiting)} behind it.")
                slot = min(set(range(parallel)) - {other.slot for other in running.values()})
                log = job.file("log").open("a") if parallel > 1 else None
                environment = os.environ | _environment(slot, parallel, cards)
                process = _start(command(job), stdout=log, stderr=log, env=environment)
                running[process] = _Running(job, slot, time.monotonic(), log)
            handled = _pass_on(running, received, handled)
            _pause(running, received)
            for process in [process for process in running if process.poll() is not None]:
                ended = running.pop(process)
                if ended.log:
                    ended.log.close()
                durations.append(time.monotonic() - ended.began)
                left = sum(not done(other) for other in waiting) + len(running)
                report(_outcome(ended.job, process.returncode, durations, left, parallel))
                stopped += process.returncode in TERMINATED and not done(ended.job)
    return stopped


def run_one(command: list[str]) -> int:
    """Runs a command as `run` runs that of a job; its exit code."""
    with _signals() as received:
        process, handled = _start(command), 0
        while process.poll() is None:
            handled = _pass_on([process], received, handled)
            _pause([process], received)
    return process.returncode


def _start(command, **options):
    return subprocess.Popen(command, start_new_session=True, **options)  # ctrl-C reaches it through us, once


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM are added to; at the end KeyboardInterrupt or SystemExit if there were any."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        print("stopped by a signal; run the same command again to go on.", flush=True)
        raise SystemExit(os.EX_TEMPFAIL)


def _pass_on(processes, received, handled) -> int:
    """Tells the processes to end: the first signal lets them save, the second kills. Returns how many were handled."""
    if len(received) > handled:
        for process in processes:
            process.send_signal(signal.SIGKILL if handled else signal.SIGTERM)
    return len(received)


def _pause(processes, received) -> None:
    """Up to a second, while nothing happens."""
    had = len(received)
    for _ in range(20):
        if len(received) > had or not processes or any(process.poll() is not None for process in processes):
            return
        time.sleep(0.05)


def _outcome(job: Job, code: int, durations: list[float], left: int, parallel: int) -> str:
    """How a job ended, and how long those that are left will take."""
    expected = float(np.mean(durations)) * left / min(parallel, max(left, 1))
    took = f"after {_clock(durations[-1])}; {left} left, about {_clock(expected)}"
    if done(job):
        return f"{job.name}: done {took}."
    if code < 0 and code not in TERMINATED:
        write_failure(job, f"killed by signal {-code}{' (out of memory?)' if code == -signal.SIGKILL else ''}")
    sentence = failure(job) if code and code not in TERMINATED else None
    return f"{job.name}: failed {took}: {sentence}" if sentence else f"{job.name}: stopped {took}."


def _clock(seconds: float) -> str:
    return logs.clock(round(seconds))


def _cards() -> list[str]:
    """Graphics cards to deal out; not asked of JAX, which would take hold of them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [card for card in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if card]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
        return [str(number) for number in range(listed.count("GPU "))]
    return []


def _environment(slot: int, parallel: int, cards: Sequence[str]) -> dict[str, str]:
    """Of a job that runs beside others: one card, and its share of the card's memory."""
    if not cards or parallel == 1:
        return {}
    own = {"CUDA_VISIBLE_DEVICES": cards[slot % len(cards)]}
    each = -(-parallel // len(cards))
    if each > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        own["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / each:.2f}"
    return own
