"""Studies: what a setting changes, with intervals. docs/ablations.md.

./launch.sh ablate --study=gamma --config=configs/acrn_peta.py:grid --attributes=M --data_dir=D --workdir=W --seeds=5

trains what is missing of the study in configs/ablations.py and writes W/gamma/table.csv and table.json. What needs no
training of nets is had from finished runs in seconds, and so is what one row of their tables has over another:

./launch.sh ablate --study=gamma --on=W/seed_0,W/seed_1 [--values=0,0.1,0.5]
./launch.sh ablate --study=methods --on=W/seed_0,W/seed_1 --method=ReIdCNN+Attributes
"""

import math
import os
import sys
import time
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

from acrn_jax.cli import cards, shared_flags, shell
from acrn_jax.data_prep import paths
from acrn_jax.studies import job, plan, scheduler, sweeps, table, vectorised

_STUDY = flags.DEFINE_string(
    "study", None, "Its name: of configs/ablations.py, or with --on one that needs no training."
)
_CONFIG = config_flags.DEFINE_config_file("config", None, "Of the reference, e.g. configs/demo.py.", lock_config=True)
_ATTRIBUTES = paths.define_folder("attributes", None, "Workdir of a trained attribute net.")
_DATA_DIR = paths.define_folder("data_dir", None, "Folder made by ./launch.sh prepare.")
_WORKDIR = paths.define_folder("workdir", None, "Runs go to WORKDIR/STUDY; a stopped study goes on.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many, from --config.seed on.", lower_bound=1)
_SPLITS = flags.DEFINE_list("splits", [], "Values of data.config to repeat all on, e.g. reid_grid_0,reid_grid_1.")
_ARMS = flags.DEFINE_list("arms", [], "Some arms of the study; the reference comes along. Default: all.")
_ON = paths.define_paths(
    "on", [], "Evaluated runs for a study of test-time settings; --study=methods also takes files of report --evidence."
)
_VALUES = flags.DEFINE_list("values", [], "With --on: settings to try, numbers. Default: the study's own.")
_PARALLEL = flags.DEFINE_integer("parallel", 1, "Arms at a time, graphics cards dealt out in turn.", lower_bound=1)
_VECTORISED = flags.DEFINE_bool("vectorised", False, "Arms and seeds of one shape are trained in one compiled step.")
_METHOD = flags.DEFINE_string("method", None, "Row of the results to show; the files hold all. Default: ACRN.")
_JOB = flags.DEFINE_string("job", None, "ARM/REPLICATE: this one alone, in this process, and no table.")


def main(argv):
    del argv
    shell.require(study=_STUDY.value)
    if _ON.value:
        return on_finished_runs()
    shell.require(config=_CONFIG.value, workdir=_WORKDIR.value)
    from acrn_jax.configs import ablations

    study, config = _STUDY.value, shared_flags.config_of(_CONFIG.value, _DATA_DIR.value)
    arms = plan.find(ablations.STUDIES, study, "study")
    folder, shared = Path(_WORKDIR.value) / study, Path(_WORKDIR.value) / "shared"
    jobs = plan.jobs(config, arms, folder, only=_ARMS.value, seeds=_SEEDS.value, splits=_SPLITS.value)
    attributes = shared_flags.attribute_net(_ATTRIBUTES.value, config)
    if _JOB.value:
        return in_this_process(jobs, attributes, shared)
    jax.config.update("jax_platforms", "cpu")  # of this process alone, which deals cards out and takes hold of none
    jobs = job.with_inputs(jobs, attributes)
    for one in jobs:
        job.done(one)  # refuses what is of other nets or data, before any work
    again = [sys.executable, "-P", "-m", "acrn_jax.cli.ablate", *sys.argv[1:]]
    todo, began = plan.array_order(jobs, os.environ), time.time()
    if _VECTORISED.value:
        if scheduler.run_one([*again, "--job=vectorised"]) in scheduler.TERMINATED:
            return shell.TERMINATED
        todo = [one for one in todo if not job.failed_since(one, began)]
    stopped = scheduler.run(
        todo,
        lambda one: [*again, f"--job={one.name}"],
        parallel=_PARALLEL.value,
        report=lambda text: print(text, flush=True),
    )
    found = table.of_jobs(study, jobs, plan.reference(arms))
    table.write(folder, found)
    print(table.show(found, method=_METHOD.value))
    print(f"written: {folder}/table.csv, table.json")
    return 1 if found.failed else shell.TERMINATED if stopped else 0


def in_this_process(jobs, attributes, shared):
    """The work of --job: one job, or those that train in one step."""
    cards.warn_of_idle_card()
    if _JOB.value == "vectorised":
        for group in vectorised.groups(job.with_inputs(jobs, attributes)):
            vectorised.train(group, attributes=attributes, shared=shared)
        return 0
    one = plan.find({one.name: one for one in jobs}, _JOB.value, "job")
    if not job.work(one, attributes=attributes, shared=shared):
        print(f"{one.name}: another process is at it.")
    return 0


def on_finished_runs():
    """A study on the features of finished runs."""
    try:
        values = [float(value) for value in _VALUES.value] or None
    except ValueError as error:
        raise ValueError(f"--values={','.join(_VALUES.value)} are not all numbers.") from error
    if wrong := [value for value in values or () if not 0 <= value < math.inf]:
        raise ValueError(f"--values has {wrong[0]:g}; give numbers of at least 0.")
    if given := [f"--{name}" for name in shared_flags.of_evaluation()]:
        raise ValueError(f"{', '.join(given)} does not go with --on: finished runs are scored as they were evaluated.")
    study, method, folders = _STUDY.value, _METHOD.value, [Path(folder) for folder in _ON.value]
    plan.find(dict.fromkeys(("methods", *sweeps.SWEEPS)), study, "study on finished runs")
    if study == "methods":  # the rows of their results, compared with the row --method
        found, name, method = table.of_methods(folders, method), study, None
    else:
        if files := [str(path) for path in folders if path.is_file()]:
            raise ValueError(f"--on={files[0]} is a file; --study={study} wants folders of runs, methods takes files.")
        name, place = f"{study}_on_features", _WORKDIR.value
        found = sweeps.study(study, folders, values, out=Path(place) / name if place else None)
    if _WORKDIR.value:
        table.write(Path(_WORKDIR.value) / name, found)
    print(table.show(found, method=method))
    if _WORKDIR.value:
        print(f"written: {_WORKDIR.value}/{name}/table.csv, table.json")


if __name__ == "__main__":
    shell.run(main)
