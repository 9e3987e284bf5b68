"""A run's folder: its config.json, and which other configs it takes.

A workdir holds config.json, a folder for each phase (checkpoints, scalars.jsonl, event files), predictions/ (what the
attribute net says about the data set) and the result files.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import COMMAND, files, settings
from acrn_jax.results import Results
from acrn_jax.runs import nets, phases
from acrn_jax.settings import Settings
from acrn_jax.train import parallel

# Keys, and whole sections, that change neither the result nor what a workdir holds: they may differ when a run goes on.
# What lies at a path that may change is known by its fingerprint; see phases.py.
MAY_CHANGE = frozenset((
    "attributes.from", "data.dir", "data.threads", "devices", "evaluate", "init_from", "log_every", "mva.calibrate",
    "model.remat", "mva.threshold", "parallel", "profile_steps", "save_every",
))  # fmt: skip


def write_json(path: Path, value: Any) -> None:
    """`files.write_json`; of several processes one does."""
    if parallel.is_primary():
        files.write_json(path, value)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """`files.write_arrays`; of several processes one does."""
    if parallel.is_primary():
        files.write_arrays(path, **arrays)


def store_config(workdir: Path, config: Settings) -> None:
    """Writes config.json, after `check_config`."""
    check_config(workdir, config)
    write_json(workdir / "config.json", config.tree)


def check_config(workdir: Path, config: Settings) -> None:
    """ValueError where the workdir is of another config, with the differing keys, or holds something else."""
    if (workdir / "config.json").exists():
        stored = read_config(workdir).flat
        if keys := settings.differing(config.flat, stored, MAY_CHANGE):
            raise ValueError(
                f"{workdir} is of another config: {settings.told(keys, stored, config.flat)}. Use another --workdir, "
                "or the same config."
            )
    elif (
        workdir.exists()
        and not all(p.name.startswith(".config.") for p in workdir.iterdir())  # of a run killed in its first moment
        and not any((workdir / p).exists() for p in ("data", "attribute_net", "predictions"))
    ):
        raise ValueError(
            f"{workdir} holds files but no config.json, so it is no run's folder; name an empty or new --workdir."
        )


def read_config(workdir: Path, *, attributes: Path | None = None, data_dir: str | None = None) -> Settings:
    """The settings of the run in `workdir`, its paths as they are found from here.

    Args:
      workdir: of the run; or a net that ships, or its name.
      attributes: where its attribute net is now; default: see `phases.locate`.
      data_dir: where its prepared data is now; default: likewise.

    Raises:
      FileNotFoundError: there is no run.
      ValueError: config.json is damaged; it says where.
    """
    workdir = nets.place(workdir)
    file = workdir / "config.json"
    if nets.is_net(workdir):
        config = settings.from_json(workdir / "card.json", nets.card(workdir)["config"])
    elif not file.is_file():
        raise FileNotFoundError(
            f"{workdir} holds no run (no config.json); make one with {COMMAND} train --workdir={workdir}."
            f"{nets.hint(workdir)}"
        )
    else:
        config = settings.from_json(file, files.read_json(file, "phases", *settings.SECTIONS))
    inputs = [phases.read(Path(workdir) / phase) or {} for phase in reversed(config.phases)]

    def now(kind, given, there):
        kept = next((of[kind].get("path") for of in inputs if of.get(kind)), None)
        return str(phases.locate(Path(workdir), given, kept, there)) if given else given

    name = str(config.data.name)
    place = data_dir or now("data", config.data.dir, lambda folder: Path(folder, name).is_dir())
    net = attributes or now(
        "attributes", config.attributes.from_, lambda f: Path(f, "attributes.json").is_file() or nets.is_net(f)
    )
    return config.changed({"data.dir": place, "attributes.from": str(nets.place(net)) if net else None})


def folder_on(workdir: Path, dataset: str | None) -> Path:
    """Where `evaluate` writes: the workdir, or workdir/on_NAME_CONFIG for another data set."""
    return workdir / f"on_{dataset.replace('/', '_')}" if dataset else workdir


def read_results(workdir: Path) -> Results:
    """results.json of a run that was evaluated after its training had ended.

    What older versions did not say there, of which inputs the run was made, is read from its phase.

    Raises:
      FileNotFoundError: it was not evaluated.
      ValueError: only before its training had ended, or the file is damaged.
    """
    file = Path(workdir) / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{workdir} has no results.json; run {COMMAND} evaluate --workdir={workdir} first.")
    results = Results.read(file)
    if stopped := results.unfinished:
        raise ValueError(
            f"{workdir} was evaluated at step {stopped.step} of {stopped.steps} of its training; let that come "
            f"to its end, then run {COMMAND} evaluate --workdir={workdir} again."
        )
    if not results.made_of and (inputs := phases.read(Path(workdir) / "reid")):
        return dataclasses.replace(results, made_of={"run": inputs})
    return results
