"""What a study consists of: arms (dotted overrides of a config) x replicates (splits of the data x seeds).

STUDIES of configs/ablations.py are data: {study: {arm: {dotted key: value}}}. The arm named "reference", else the
first, is what the others are compared with. In a workdir W:

    W/STUDY/ARM/[SPLIT/]seed_N            a run as of ./launch.sh reproduce; job.json says of which config
    W/STUDY/ARM/[SPLIT/]seed_N.lock       held by the process that works on it
    W/STUDY/ARM/[SPLIT/]seed_N.failed     the sentence with which the last try ended
    W/shared/                             identity phases, ReIdCNNs, attribute predictions: one for all arms that agree
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from acrn_jax import settings
from acrn_jax.runs import workdir
from acrn_jax.settings import Settings

Overrides = Mapping[str, Any]


class Job(NamedTuple):
    """One arm on one split of the data with one seed."""

    arm: str
    replicate: str  # "seed_0", or "reid_grid_1/seed_0"
    config: Settings
    base: Settings  # the config without the arm's overrides
    folder: Path  # of the run
    inputs: Mapping[str, Any] = {}  # what it is made of, see job.with_inputs

    @property
    def name(self) -> str:
        return f"{self.arm}/{self.replicate}"

    def file(self, suffix: str) -> Path:
        """The file next to the run's folder with this suffix: lock, failed, log."""
        return self.folder.with_name(f"{self.folder.name}.{suffix}")


def find(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """`table[name]`, or a ValueError that names the nearest of the known ones."""
    settings.check_known(name, table, kind)
    return table[name]


def reference(arms: Mapping[str, Overrides]) -> str:
    """The arm that others are compared with."""
    return "reference" if "reference" in arms else next(iter(arms))


def jobs(
    config: Settings,
    arms: Mapping[str, Overrides],
    folder: Path,
    *,
    only: Sequence[str] = (),
    seeds: int = 1,
    splits: Sequence[str] = (),
) -> list[Job]:
    """All jobs of a study, seed by seed, so that a study cut short has compared what it has.

    Arms that come out like an earlier one under this config are left out.

    Args:
      config: of the reference method, without overrides.
      arms: name -> overrides.
      folder: of the study.
      only: arms to take; the reference always comes along; default: all.
      seeds: how many, from the config's own on.
      splits: values of data.config, e.g. ("reid_grid_0", "reid_grid_1"); default: the config's own.
    """
    for name in only:
        find(arms, name, "arm")
    settings.check_values({"seed": config.seed + seeds - 1})  # the last one's
    taken = [name for name in arms if not only or name in only or name == reference(arms)]
    # Of equal arms the earliest stays, and the reference before any.
    ordered = sorted(taken, key=lambda name: name != reference(arms))
    first = {_as_text(config.changed(arms[name])): name for name in reversed(ordered)}
    taken = [name for name in taken if name in first.values()]
    found = []
    for seed in range(config.seed, config.seed + seeds):
        for split in splits or ("",):
            base = config.changed({"seed": seed} | ({"data.config": split} if split else {}))
            replicate = f"{split}/seed_{seed}" if split else f"seed_{seed}"
            for arm in taken:
                where = folder / arm.replace("/", "_") / replicate
                found.append(Job(arm, replicate, base.changed(arms[arm]), base, where))
    return found


def _as_text(config: Settings) -> str:
    return json.dumps(result_settings(config), sort_keys=True)


def result_settings(config: Settings, *, evaluation: bool = True) -> dict[str, Any]:
    """The keys that a run's result depends on, dotted; two configs that agree in them have the same result.

    Args:
      config: of the run.
      evaluation: with those of evaluation, which training does not depend on.
    """
    return {
        key: value
        for key, value in config.flat.items()
        if not settings.is_in(key, workdir.MAY_CHANGE) or (evaluation and settings.is_in(key, ("evaluate", "mva")))
    }


def array_order(jobs: Sequence[Job], environment: Mapping[str, str]) -> list[Job]:
    """Jobs in the order of this task of a SLURM array: every n-th, then those of the other tasks, should they lag."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return list(jobs)
    number, first, step, count = (
        int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
        for name, default in (("ID", 0), ("MIN", 0), ("STEP", 1), ("COUNT", 1))
    )
    place = (number - first) // step
    return [job for turn in range(count) for job in jobs[(place + turn) % count :: count]]
