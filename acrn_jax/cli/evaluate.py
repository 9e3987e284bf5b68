"""Scores a trained run: ./launch.sh evaluate --workdir=R [--baseline=C]; writes R/results.json and prints the table.

With --dataset=NAME/CONFIG the run is scored on another prepared data set, and everything goes to R/on_NAME_CONFIG.
"""

from pathlib import Path

from absl import flags

from acrn_jax import runs
from acrn_jax.cli import shell
from acrn_jax.report import tables

_WORKDIR = flags.DEFINE_string("workdir", None, "A trained run: ACRN, ReIdCNN or an attribute net.")
_BASELINE = flags.DEFINE_string("baseline", None, "The ReIdCNN run beside an ACRN run, for the rows that need it.")
_TUNE = flags.DEFINE_string("tune", None, "A ReIdCNN run that held people out, for ReIdCNN+Attributes-tuned.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the prepared data is, if not where the run found it.")
_DATASET = flags.DEFINE_string("dataset", None, "Another prepared data set to score on, NAME/CONFIG.")
_SETTINGS = {  # keys of config.evaluate; default: the run's
    "protocol": flags.DEFINE_string("protocol", None, "Protocol, if not the data set's own."),
    "no_match": flags.DEFINE_enum(
        "no_match", None, ("error", "skip", "count_as_miss"), "What to do with queries that have no right image."
    ),
    "draws": flags.DEFINE_integer("draws", None, "Repeats of protocols that draw."),
    "draw_seed": flags.DEFINE_integer("draw_seed", None, "Seed of these draws."),
    "probe_view": flags.DEFINE_enum("probe_view", None, ("1", "2", "both"), "Probes of cuhk03_single_shot."),
}


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value)
    baseline, tune = (Path(f) if f else None for f in (_BASELINE.value, _TUNE.value))
    results = runs.evaluate(
        Path(_WORKDIR.value),
        baseline=baseline,
        tune=tune,
        data_dir=_DATA_DIR.value,
        dataset=_DATASET.value,
        settings={key: flag.value for key, flag in _SETTINGS.items() if flag.value is not None},
    )
    if "methods" in results:
        print(tables.methods_table(results))
        if results.get("weights"):
            print(tables.weights_table(results))
        for method, reason in results.get("missing", {}).items():
            print(f"no row {method}: {reason}")
    folder = runs.folder_on(Path(_WORKDIR.value), _DATASET.value)
    print(f"written: {folder}/{'results' if 'methods' in results else 'recognition'}.json")


if __name__ == "__main__":
    shell.run(main)
