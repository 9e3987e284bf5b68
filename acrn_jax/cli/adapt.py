"""Measures an attribute net's batch statistics anew on unlabelled images of a target; writes it as another net.

./launch.sh adapt --workdir=M --dataset=market1501/dev_0 --data_dir=D --out=M2
./launch.sh adapt --workdir=M --folder=IMAGES --out=M2

M2 goes wherever M does: --attributes=M2, evaluate --workdir=M2, extract --workdir=M2.
"""

from pathlib import Path

from absl import flags

from acrn_jax import runs
from acrn_jax.cli import distributed, shell
from acrn_jax.data import source
from acrn_jax.data_prep import paths
from acrn_jax.runs import adaptation, extraction

_WORKDIR = paths.define_folder("workdir", None, "A trained attribute net.")
_OUT = paths.define_folder("out", None, "The folder of the adapted net: a new one.")
_DATASET = flags.DEFINE_string("dataset", None, "The target, a prepared data set NAME/CONFIG.")
_SPLIT = flags.DEFINE_string("split", "train", "Its split; labels are not looked at.")
_DATA_DIR = paths.define_folder("data_dir", None, "Where it lies; default: where the net's training found its data.")
_FOLDER = paths.define_path("folder", None, "Instead of a prepared set: all images below this folder.")


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value, out=_OUT.value)
    if bool(_DATASET.value) == bool(_FOLDER.value):
        raise ValueError("Name the target's images: --dataset=NAME/CONFIG or --folder=FOLDER, one of them.")
    net, out = Path(_WORKDIR.value), Path(_OUT.value)
    runs.attribute_net(net)
    if _FOLDER.value:
        split = extraction.open_pictures(Path(_FOLDER.value))
        print(source.told_of_folder(split.metadata), end="")
    else:
        name, _, config = str(_DATASET.value).partition("/")
        of = {"dataset": name, "config_name": config or "default", "data_dir": _DATA_DIR.value}
        [split] = extraction.open_splits(net, [_SPLIT.value], **of)
    adaptation.adapt(net, split, out)
    print(f"written: {out}, the attribute net {net} with statistics of {len(split):,} images of {split.name}")


if __name__ == "__main__":
    distributed.run(main)
