"""Predicted speed, memory and hours of a config on chips that are not here: ./launch.sh bench roofline --config=FILE.

The step of each phase is traced, nothing is run: floating-point operations and bytes of its layer groups are counted
(benchmarks/_counts.py says how). A group takes as long as its operations at the chip's highest rate, or as its bytes at
the bandwidth of its memory, whichever is longer. That is a bound, which no program beats. `likely` is slower: products
at --share of the highest rate, 0.2, about what the best public trainings of convolutional nets reach, and memory at
0.8. The batch of the config is taken on each chip, gradients go round a ring, and nothing overlaps.

--measure runs the step on this CPU too, with the rates that this CPU is measured to have.
"""

import dataclasses
import math
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from acrn_jax import build, settings
from acrn_jax.cli import shell
from benchmarks import _counts, _programs


@dataclasses.dataclass(frozen=True)
class Chip:
    """Highest rates of one chip, from the maker's data sheet (docs/accelerators.md)."""

    bfloat16: float  # products with float32 sums, dense, operations/s
    float32: float  # products as JAX computes them by default: TF32 on NVIDIA's, bfloat16 passes on TPU
    bandwidth: float  # bytes/s of its memory
    memory: float  # bytes
    link: float  # bytes/s to its neighbours, one direction


CHIPS = {
    "A100": Chip(312e12, 156e12, 2.04e12, 80e9, 300e9),
    "H100": Chip(989e12, 494e12, 3.35e12, 80e9, 450e9),
    "H200": Chip(989e12, 494e12, 4.8e12, 141e9, 450e9),
    "RTX 4090": Chip(165e12, 82.6e12, 1.01e12, 24e9, 32e9),
    "TPU v5e": Chip(197e12, 197e12, 0.82e12, 16e9, 200e9),
    "TPU v6e": Chip(918e12, 918e12, 1.64e12, 32e9, 448e9),
}
SETS = {  # training images, people; attributes of the net beside
    "market1501": (12936, 751),
    "dukemtmc_reid": (16522, 702),
    "cuhk03": (26264, 1367),
    "msmt17": (32621, 1041),
    "cuhk01": (1940, 485),
    "peta": (11400, 5000),
}
CORE = 3800  # images/s that one CPU core decodes, crops and flips (docs/speed.md)
MEMORY_SHARE = 0.8  # of the bandwidth, in `likely`

_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment, e.g. configs/acrn_market1501.py.")
_CHIPS = flags.DEFINE_list("chips", list(CHIPS), "Chips of the table.")
_CHIP = flags.DEFINE_list(
    "chip", None, "One that is not in the table: name, TFLOP/s bfloat16 and float32, GB/s, GB, GB/s between chips."
)
_DEVICES = flags.DEFINE_multi_integer("devices", [1, 8, 64], "How many chips; may be repeated.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", None, "Images on each chip; default: the config's batch.", lower_bound=1)
_SHARE = flags.DEFINE_float("share", 0.2, "Of the highest rate of products, for `likely`.", 0.01, 1.0)
_IMAGES = flags.DEFINE_integer("images", None, "Images of the training set; default: by its name.", lower_bound=1)
_PEOPLE = flags.DEFINE_integer("people", None, "People in it; default: by its name.", lower_bound=2)
_ATTRIBUTES = flags.DEFINE_integer("attributes", 35, "Attributes of the attribute net.")
_MEASURE = flags.DEFINE_boolean("measure", False, "Run the step on this CPU, beside what its own rates predict.")


@dataclasses.dataclass(frozen=True)
class Labels:
    """As much of a split as the plan of an epoch looks at."""

    person_id: np.ndarray
    camera_id: np.ndarray

    def __len__(self):
        return len(self.person_id)


@dataclasses.dataclass(frozen=True)
class Counted:
    """The step of a phase, of so many images."""

    batch: int
    groups: dict[str, _counts.Cost]
    gradients: int  # bytes that chips exchange each step
    memory: int


def counted(
    config: settings.Settings, phase: str, *, people: int, attributes: int, accelerator: bool = True
) -> Counted:
    """Counts of a phase's step by layer groups; `accelerator`: of the program as it is lowered for one."""
    program = _programs.training_step(config, phase, attributes=attributes, people=people)
    traced = jax.make_jaxpr(program.step)(program.state, program.batch)
    found, inputs, outputs = _counts.operations(traced, accelerator=accelerator)
    gradients = sum(math.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(program.state.params))
    memory = _counts.peak_memory(found, inputs, outputs)
    return Counted(config.phase(phase).batch, _counts.costs(found), gradients, memory)


def seconds(count: Counted, chip: Chip, dtype: str, *, devices: int = 1, share: float = 1.0) -> tuple[float, float]:
    """(computing, communicating) of one step; with `share` < 1 at that part of the highest rate of products."""
    part = 1.0 if share == 1 else MEMORY_SHARE
    computing = sum(cost.seconds(share * getattr(chip, dtype), part * chip.bandwidth) for cost in count.groups.values())
    return computing, 2 * (devices - 1) / devices * count.gradients / (part * chip.link)


def largest_batch(small: Counted, large: Counted, chip: Chip) -> int:
    """Images whose step fits in a chip's memory, from the memory of two batches, as it grows with the batch."""
    each = (large.memory - small.memory) / (large.batch - small.batch)
    return max(int((chip.memory - (small.memory - each * small.batch)) / each), 0)


def steps(config: settings.Settings, phase: str, images: int, people: int) -> int:
    """Steps of a phase on so many images, the same number of each person."""
    labels = Labels(np.arange(images) % people + 1, np.arange(images) // people % 2)
    return settings.steps_of(config.phase(phase), len(build.epoch_plan(config, labels, phase)(0)))


def with_batch(config: settings.Settings, phase: str, batch: int) -> settings.Settings:
    """The config with about `batch` images in a step of the phase: whole people, whole triplets."""
    if phase != "reid":
        return config.changed({f"{phase}.batch": batch})
    if config.reid.miner == "offline":
        return config.changed({"reid.triplets": max(batch // 3, 1)})
    return config.changed({"reid.people": max(batch // config.reid.images, 2)})


def cpu() -> Chip:
    """The rates of this CPU, measured: a product of two matrices, and a sum whose arrays no cache holds."""

    def rate(work, run, *args):
        run = jax.jit(run)
        jax.block_until_ready(run(*args))
        taken = []
        for _ in range(5):
            began = time.perf_counter()
            jax.block_until_ready(run(*args))
            taken.append(time.perf_counter() - began)
        return work / min(taken)

    square, long = jnp.ones((2048, 2048)), jnp.ones(2**26)
    products = rate(2 * 2048**3, jnp.dot, square, square)
    moved = rate(2 * long.nbytes, lambda x: x + 1, long)
    return Chip(products, products, moved, math.inf, math.inf)


def measure(config: settings.Settings, phase: str, *, people: int, attributes: int) -> None:
    """Prints a step's predicted and measured time on this CPU."""
    program = _programs.training_step(config, phase, attributes=attributes, people=people)
    state, batch = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), (program.state, program.batch))
    if "person" in batch:  # as many of each as a miner wants
        batch["person"] = jnp.arange(len(batch["person"]), dtype=jnp.int32) // max(config.reid.images, 2) % people
    run = jax.jit(program.step)
    taken = []
    for _ in range(6):
        began = time.perf_counter()
        jax.block_until_ready(run(state, batch))
        taken.append(time.perf_counter() - began)
    count = counted(config, phase, people=people, attributes=attributes, accelerator=False)
    bound, _ = seconds(count, cpu(), "float32")
    took = float(np.median(taken[1:]))
    print(
        f"{phase}: {1e3 * took:.0f} ms on this CPU, whose rates bound it to {1e3 * bound:.0f} ms: {took / bound:.2f} x"
    )


def chips() -> dict[str, Chip]:
    """Those that are asked for.

    Raises:
      ValueError: one that the table does not have, or rates that are no numbers.
    """
    if _CHIP.value:
        try:
            name, *rates = _CHIP.value
            bfloat16, float32, bandwidth, memory, link = map(float, rates)
        except ValueError as error:
            raise ValueError(
                f"--chip={','.join(_CHIP.value)}: give a name and five numbers, e.g. --chip=L4,121,60,300,24,32, which "
                "are TFLOP/s in bfloat16 and float32, GB/s and GB of its memory, GB/s between chips."
            ) from error
        return {name: Chip(bfloat16 * 1e12, float32 * 1e12, bandwidth * 1e9, memory * 1e9, link * 1e9)}
    for name in _CHIPS.value:
        if name not in CHIPS:
            raise ValueError(
                f"There is no chip {name!r} in the table of {', '.join(CHIPS)}; give its rates: --chip=..."
            )
    return {name: CHIPS[name] for name in _CHIPS.value}


def main(argv: Any) -> None:
    del argv
    if _CONFIG.value is None:
        raise ValueError("Give --config=configs/acrn_market1501.py, or another.")
    config = settings.read(_CONFIG.value)
    config = config.changed({"data.dir": config.data.dir or "D", "attributes.from": config.attributes.from_ or "M"})
    images, people = SETS.get(config.data.name, (None, None))
    images, people = _IMAGES.value or images, _PEOPLE.value or people
    if not images or not people:
        raise ValueError(f"How large {config.data.name} is, is not known here; give --images and --people.")
    known = {"people": people, "attributes": _ATTRIBUTES.value}
    table, hours = chips(), {}
    for phase in config.phases:
        own = with_batch(config, phase, _BATCH.value) if _BATCH.value else config
        if _MEASURE.value:
            measure(own, phase, **known)
            continue
        count = counted(own, phase, **known)
        twice = counted(with_batch(own, phase, 2 * count.batch), phase, **known)
        planned = steps(config, phase, images, people)
        print_groups(phase, count, table, own.dtype)
        print_chips(phase, count, twice, table, own.dtype)
        for name, chip in table.items():
            slow = sum(seconds(count, chip, own.dtype, share=_SHARE.value)) / count.batch
            hours[name] = hours.get(name, 0) + slow * planned * config.phase(phase).batch / 3600
    if hours:
        told = ", ".join(f"{name} {value:.2g}" for name, value in hours.items())
        print(f"\nHours of the whole schedule on {images:,} images of {people:,} people, one chip, likely: {told}.")


def print_groups(phase: str, count: Counted, table: dict[str, Chip], dtype: str) -> None:
    total = _counts.total(count.groups)
    print(
        f"\n{phase}, {dtype}: {total.products / count.batch / 1e9:.3g} GFLOP of products and "
        f"{total.bytes / count.batch / 1e6:.3g} MB an image; a batch of {count.batch}.\n"
    )
    name, chip = next(iter(table.items()))
    print(f"| layers | GFLOP an image | MB an image | ms on {name} | bound by |\n| --- | --- | --- | --- | --- |")
    for group, cost in count.groups.items():
        each = Counted(count.batch, {group: cost}, 0, 0)
        by = "products" if cost.products / getattr(chip, dtype) > cost.bytes / chip.bandwidth else "memory"
        numbers = (cost.products / count.batch / 1e9, cost.bytes / count.batch / 1e6)
        print(f"| {group} | {numbers[0]:.3g} | {numbers[1]:.3g} | {1e3 * seconds(each, chip, dtype)[0]:.3g} | {by} |")


def print_chips(phase: str, count: Counted, twice: Counted, table: dict[str, Chip], dtype: str) -> None:
    print(
        f"\n| {phase} on | chips | ms a step, bound | likely | of it exchange | images/s, likely | cores for input | "
        "GB a chip | largest batch a chip |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
    )
    for name, chip in table.items():
        for devices in _DEVICES.value:
            bound = sum(seconds(count, chip, dtype, devices=devices))
            computing, exchange = seconds(count, chip, dtype, devices=devices, share=_SHARE.value)
            rate = devices * count.batch / (computing + exchange)
            times = [f"{1e3 * t:.3g}" for t in (bound, computing + exchange, exchange)]
            sizes = [f"{rate:,.0f}", math.ceil(rate / CORE), f"{count.memory / 1e9:.2g}"]
            cells = [name, devices, *times, *sizes, f"{largest_batch(count, twice, chip):,}"]
            print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    shell.run(main)
