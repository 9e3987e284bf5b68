"""The attribute ledger: weights beside everything that they might follow, with error bars.

./launch.sh ledger --workdir=R[,R2,...] [--disjoint=M2] [--rise=0.1]

writes ledger.json and ledger.csv and prints them. acrn_jax/studies/attribute_ledger.py says what the columns are.
"""

from pathlib import Path

from absl import flags

from acrn_jax import files
from acrn_jax.cli import shell
from acrn_jax.data_prep import paths
from acrn_jax.report import tables
from acrn_jax.report.table import render
from acrn_jax.studies import attribute_ledger

_WORKDIR = paths.define_folders("workdir", None, "Evaluated ACRN runs, or folders that hold them as seed_N.")
_DISJOINT = paths.define_folder("disjoint", None, "An attribute run tested on people whom its training never showed.")
_OUT = paths.define_folder("out", None, "The folder to write to; default: the first workdir.")
_RISE = flags.DEFINE_float("rise", None, "Say what is gained if an attribute's balanced accuracy rises so: 0.1.")


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value or None)
    out = Path(_OUT.value or _WORKDIR.value[0])
    files.check(out)
    content = attribute_ledger.collect(
        [Path(folder) for folder in _WORKDIR.value],
        disjoint=Path(_DISJOINT.value) if _DISJOINT.value else None,
        out=out if _OUT.value else None,
        rise=_RISE.value,
    )
    attribute_ledger.write(out, content)
    print(render(tables.ledger(content)))
    print(render(tables.ledger_spearman(content)), end="")
    if gain := tables.ledger_gain(content):
        print(f"\n{render(gain)}", end="")
    print(f"written: {out}/ledger.json and {out}/ledger.csv")


if __name__ == "__main__":
    shell.run(main)
