"""Trains the phases of a config: ./launch.sh train --config=configs/acrn_market1501.py --workdir=R."""

from pathlib import Path

from ml_collections import config_flags

from acrn_jax import runs
from acrn_jax.cli import distributed, shared_flags, shell
from acrn_jax.data_prep import paths

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Experiment, e.g. configs/mva_peta.py:small.", lock_config=True
)
_WORKDIR = paths.define_folder("workdir", None, "Checkpoints and logs go here; a stopped run goes on.")


def main(argv):
    del argv
    shell.require(config=_CONFIG.value, workdir=_WORKDIR.value)
    runs.train(shared_flags.config_of(_CONFIG.value), Path(_WORKDIR.value))


if __name__ == "__main__":
    distributed.run(main)
