"""Stores what a trained net says about images: features of a re-id run, attributes of an attribute run.

./launch.sh extract --workdir=R --out=features.npz [--dataset=... --config_name=... --split=query --data_dir=D]
./launch.sh extract --workdir=R --out=features.mat    # query and gallery, as the field's scripts read them
./launch.sh extract --workdir=M --out=attributes.csv --folder=IMAGES    # what an attribute run says, a line an image
"""

from pathlib import Path

from absl import flags

from acrn_jax import runs
from acrn_jax.cli import distributed, shell
from acrn_jax.data import source
from acrn_jax.data_prep import paths
from acrn_jax.evaluation import feature_files
from acrn_jax.runs import extraction

_WORKDIR = paths.define_folder("workdir", None, "A trained run.")
_OUT = paths.define_file("out", None, "The file to write: .npz, .csv, .mat, .h5 or .faiss.")
_FORMAT = flags.DEFINE_enum("format", None, list(feature_files.written()), "Its format; default: by its ending.")
_DATASET = flags.DEFINE_string("dataset", None, "A prepared data set; default: the run's own.")
_CONFIG_NAME = flags.DEFINE_string("config_name", None, "Its configuration; default: the run's own.")
_SPLIT = flags.DEFINE_string("split", "query", "Its split; mat has query and gallery.")
_DATA_DIR = paths.define_folder("data_dir", None, "Where prepared data lies; default: where the run found it.")
_FOLDER = paths.define_path("folder", None, "Instead of a prepared set: all images below this folder, or one image.")


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value, out=_OUT.value)
    workdir, out = Path(_WORKDIR.value), Path(_OUT.value)
    runs.read_config(workdir)  # before anything else, if there is no run
    format = feature_files.format_of(out, _FORMAT.value)
    if _FOLDER.value and format == "mat":
        raise ValueError(
            "a .mat file holds query and gallery of a prepared data set; write npz, csv or h5 of a --folder."
        )
    if _FOLDER.value:
        splits = [extraction.open_pictures(Path(_FOLDER.value))]
        print(source.told_of_folder(splits[0].metadata), end="")
    else:
        names = ("query", "gallery") if format == "mat" else (_SPLIT.value,)
        of = {"dataset": _DATASET.value, "config_name": _CONFIG_NAME.value, "data_dir": _DATA_DIR.value}
        splits = extraction.open_splits(workdir, names, **of)
    print(extraction.extract(workdir, splits, out, format=format))


if __name__ == "__main__":
    distributed.run(main)
