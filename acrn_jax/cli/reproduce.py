"""The whole chain of a config, over seeds, resumable.

./launch.sh reproduce --config=configs/acrn_market1501.py --attributes=M --data_dir=D --workdir=W --seeds=5

Of a ReIdCNN config (--config.loss.kind=classic) the ReIdCNN comes alone and --attributes is not needed.
"""

import os
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from acrn_jax import runs
from acrn_jax.cli import distributed, shared_flags, shell
from acrn_jax.data_prep import paths
from acrn_jax.report import html, tables
from acrn_jax.train import parallel

_CONFIG = config_flags.DEFINE_config_file("config", None, "Of ACRN, e.g. configs/acrn_peta.py:grid.", lock_config=True)
_ATTRIBUTES = paths.define_folder("attributes", None, "Workdir of a trained attribute net.")
_DATA_DIR = paths.define_folder("data_dir", None, "Folder made by ./launch.sh prepare.")
_WORKDIR = paths.define_folder("workdir", None, "One folder a seed goes here; a stopped run goes on.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "How many, from --config.seed on.", lower_bound=1)


def main(argv):
    del argv
    shell.require(config=_CONFIG.value, workdir=_WORKDIR.value)
    config, workdir = shared_flags.config_of(_CONFIG.value, _DATA_DIR.value), Path(_WORKDIR.value)
    attributes = shared_flags.attribute_net(_ATTRIBUTES.value, config)
    if config.loss.kind == "acrn":
        shell.require(attributes=attributes)
        config = config.changed({"attributes.from": str(attributes)})
    runs.check_seeds(workdir, config, _SEEDS.value)
    for seed in range(config.seed, config.seed + _SEEDS.value):
        of_seed, folder = config.changed({"seed": seed}), workdir / f"seed_{seed}"
        results = runs.reproduce(of_seed, attributes=attributes, workdir=folder)
        print(tables.methods_table(results), flush=True)
    if not parallel.is_primary():
        return
    report = html.write([workdir], workdir / "report.html")
    print(tables.methods_table(html.read(workdir).results))
    print(f"report: {os.path.relpath(report)}")


if __name__ == "__main__":
    distributed.run(main)
