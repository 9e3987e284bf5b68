"""Scores a trained run: ./launch.sh evaluate --workdir=R [--baseline=C]; writes R/results.json and prints the table."""

from pathlib import Path

from absl import flags

from acrn_jax import runs
from acrn_jax.cli import shell
from acrn_jax.report import tables

_WORKDIR = flags.DEFINE_string("workdir", None, "A trained run: ACRN, ReIdCNN or an attribute net.")
_BASELINE = flags.DEFINE_string("baseline", None, "The ReIdCNN run beside an ACRN run, for the rows that need it.")
_TUNE = flags.DEFINE_string("tune", None, "A ReIdCNN run that held people out, for ReIdCNN+Attributes-tuned.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the prepared data is, if not where the run found it.")


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value)
    baseline, tune = (Path(f) if f else None for f in (_BASELINE.value, _TUNE.value))
    results = runs.evaluate(Path(_WORKDIR.value), baseline=baseline, tune=tune, data_dir=_DATA_DIR.value)
    if "methods" in results:
        print(tables.methods_table(results))
        if results.get("weights"):
            print(tables.weights_table(results))
    print(f"written: {_WORKDIR.value}/{'results' if 'methods' in results else 'recognition'}.json")


if __name__ == "__main__":
    shell.run(main)
