"""What a step costs: its memory before the first one, its share of the chip's rate, traces for the profiler."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

# Dense bfloat16 products with float32 sums, floating-point operations a second of one JAX device, from the makers' data
# sheets; by the start of jax.Device.device_kind, up to a space or hyphen. What is not here is not guessed.
PEAKS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H200": 989e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40S": 362e12,
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
}
ADVICE = (
    "use a smaller batch, or --config.accumulate=2 (the same batch in parts), --config.model.remat=True or "
    "--config.dtype=bfloat16."
)
WARM_UP = 5  # steps before a trace


class Cost(NamedTuple):
    """Of one step; None: not known."""

    memory: int | None = None  # bytes on each device
    limit: int | None = None  # bytes that a device has
    best_seconds: float | None = None  # if the devices worked at their highest rate


def peak(kind: str) -> float | None:
    """Operations a second of a device, from `PEAKS`."""
    return next(
        (rate for name, rate in PEAKS.items() if kind == name or kind.startswith((f"{name} ", f"{name}-"))), None
    )


def compiled(run: Any, state: Any, batch: Any, *, name: str, parts: int = 1) -> tuple[Callable, Cost]:
    """`run` compiled for these arguments, before it is called, and what a call costs.

    Only functions out of jax.jit are; others come back as they are. XLA counts the work of the program as written:
    what is computed again (`remat`, `parts`) counts, too.

    Args:
      run: (state, batch) -> (state, scalars).
      state, batch: on the devices.
      name: of the phase, for messages.
      parts: how often a step's loops run (train/accumulate.py); XLA counts a loop's body once.

    Raises:
      ValueError: the devices have less memory than a step needs.
    """
    if not hasattr(run, "trace"):
        return run, Cost()
    lowered = run.lower(state, batch)
    program = lowered.compile()
    devices = jax.tree.leaves(state)[0].sharding.device_set
    device, local = next(iter(devices)), [d for d in devices if d.process_index == jax.process_index()]
    memory = needed(program)
    limit = available(device)
    if limit and device.platform == "cpu":
        limit //= len(local)  # they share the machine
    if memory and limit and memory > limit:
        raise ValueError(
            f"{name}: a step needs {memory / 2**30:.3g} GiB on each device, and {device.device_kind} has "
            f"{limit / 2**30:.3g} GiB; {ADVICE}"
        )
    if memory and limit and jax.process_index() == 0:
        print(f"{name}: a step needs {memory / 2**30:.2g} of {limit / 2**30:.3g} GiB on each device", flush=True)
    rate = peak(device.device_kind)
    return program, Cost(memory, limit, parts * work(lowered) / (rate * len(devices)) if rate else None)


def needed(program: Any) -> int | None:
    """Bytes that a compiled program holds on each device while it runs, arguments included."""
    found = program.memory_analysis()
    if found is None:
        return None
    held = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
    return held + found.temp_size_in_bytes + found.generated_code_size_in_bytes


def available(device: Any) -> int | None:
    """Bytes that a device lets JAX use; of a CPU all that the machine, or its container, has. None: not known."""
    if device.platform != "cpu":
        return (device.memory_stats() or {}).get("bytes_limit")
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limits.append(int(pathlib.Path(file).read_text()))
    return min(limits)


def work(lowered: Any) -> float:
    """Floating-point operations of a program on all devices.

    Counted before XLA optimises it: afterwards, convolutions may be library calls, whose work it does not know.
    """
    return float(lowered.cost_analysis()["flops"])


@contextlib.contextmanager
def explain_out_of_memory(name: str) -> Iterator[None]:
    """Turns a device's lack of memory into a ValueError of one sentence."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0].removeprefix("RESOURCE_EXHAUSTED: ")[:200].rstrip(".")
        raise ValueError(f"{name}: the device's memory does not suffice ({reason}); {ADVICE}") from error


@contextlib.contextmanager
def traced(folder: pathlib.Path, *, steps: int) -> Iterator[Callable[[Any], None]]:
    """A function to call with the state before each step: steps after `WARM_UP` others are traced by JAX's profiler.

    Args:
      folder: where traces go, for TensorBoard's profile plugin, Perfetto or XProf.
      steps: how many; 0: none.
    """
    calls, running = 0, False

    def mark(state: Any) -> None:
        nonlocal calls, running
        if steps and calls in (WARM_UP, WARM_UP + steps):
            jax.block_until_ready(state)
            (jax.profiler.stop_trace if running else lambda: jax.profiler.start_trace(folder))()
            running = not running
        calls += 1

    try:
        yield mark
    finally:
        if running:
            jax.profiler.stop_trace()
