"""Stores what a trained net says about images: features of a re-id run, attributes of an attribute run.

./launch.sh extract --workdir=R --out=features.npz [--dataset=... --config_name=... --split=query --data_dir=D]
"""

from pathlib import Path

import numpy as np
from absl import flags

from acrn_jax import build, runs
from acrn_jax.cli import distributed, shell
from acrn_jax.data import source

_WORKDIR = flags.DEFINE_string("workdir", None, "A trained run.")
_OUT = flags.DEFINE_string("out", None, "The .npz file to write.")
_DATASET = flags.DEFINE_string("dataset", None, "A prepared data set; default: the run's own.")
_CONFIG_NAME = flags.DEFINE_string("config_name", None, "Its configuration; default: the run's own.")
_SPLIT = flags.DEFINE_string("split", "query", "Its split.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where prepared data lies; default: where the run found it.")
_FOLDER = flags.DEFINE_string("folder", None, "Instead of a prepared set: all images below this folder.")


def main(argv):
    del argv
    shell.require(workdir=_WORKDIR.value, out=_OUT.value)
    config, out = runs.read_config(Path(_WORKDIR.value)), Path(_OUT.value)
    if out.suffix != ".npz":
        raise ValueError(f"--out={out} does not end in .npz, the format that extract writes.")
    if _FOLDER.value:
        split = source.open_folder(_FOLDER.value)
    else:
        data_dir = _DATA_DIR.value or config.data.dir
        dataset, name = _DATASET.value or config.data.name, _CONFIG_NAME.value or config.data.config
        split = source.open_split(data_dir, dataset, name, _SPLIT.value)
    found = runs.outputs(Path(_WORKDIR.value), split, batch=config.evaluate.batch)
    if "attribute_logits" in found:
        names, logits = runs.attribute_names(Path(_WORKDIR.value)), found["attribute_logits"]
        values = {
            "attributes": build.REPRESENTATIONS["probabilities"](logits),
            "logits": logits,
            "attribute_names": names,
        }
    else:
        values = {"feature": found["feature"]}
    labels = {"person_id": split.person_id, "camera_id": split.camera_id}
    runs.write_arrays(out, key=split.key, file_name=split.file_name, fingerprint=split.fingerprint, **labels, **values)
    print(f"{len(split)} images of {split.name} -> {out}: {', '.join(f'{k} {np.shape(v)}' for k, v in values.items())}")


if __name__ == "__main__":
    distributed.run(main)
