"""Fits the probability that two pictures show one person on people whom a re-id net was not trained on, and judges it.

./launch.sh calibrate --workdir=R --dataset=cuhk01/871_multi_0 --data_dir=D
./launch.sh calibrate --workdir=acrn-small --dataset=cuhk01/871_multi_0 --data_dir=D --out=pairs.json

Of each --dataset half of the people are fitted on, the others judge it; sets of --judge only judge. What it writes lies
in the workdir as pairs.json, where search finds it; export takes it along.
"""

from pathlib import Path

from absl import flags

from acrn_jax.cli import cards, shell
from acrn_jax.data_prep import paths
from acrn_jax.report import verdict
from acrn_jax.runs import calibrating, pair_calibration

_WORKDIR = paths.define_folder("workdir", None, "A trained re-id run, or the name of a net that ships.")
_DATASET = flags.DEFINE_multi_string("dataset", [], "A prepared set NAME/CONFIG to fit on; may be given several times.")
_JUDGE = flags.DEFINE_multi_string("judge", [], "A prepared set NAME/CONFIG that only judges; likewise.")
_DATA_DIR = paths.define_folder("data_dir", None, "Where prepared data is; default: where the run was trained.")
_OUT = paths.define_file("out", None, "The file to write; default: WORKDIR/pairs.json; a net that ships wants one.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the draw of the people.", lower_bound=0)


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value)
    cards.warn_of_idle_card()
    workdir = Path(_WORKDIR.value)
    found = calibrating.calibrate(
        workdir,
        _DATASET.value,
        judge=_JUDGE.value,
        out=Path(_OUT.value) if _OUT.value else None,
        data_dir=_DATA_DIR.value,
        seed=_SEED.value,
    )
    print(verdict.text(found.calibration.pairs), end="")
    print(f"written: {_OUT.value or workdir / pair_calibration.FILE}")


if __name__ == "__main__":
    shell.run(main)
