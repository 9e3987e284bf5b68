"""Says which attributes pictures of people show: yes, no or unknown, with calibrated probabilities.

./launch.sh describe photo.jpg    # with the net that ships
./launch.sh describe --workdir=M --images=FOLDER --format=csv --out=attributes.csv [--attribute=personalMale]

M is an attribute net, or a run that was trained with one. Paths may stand without --images. Attributes are guesses
from appearance; nobody is identified.
"""

import sys
from pathlib import Path

from absl import flags

from acrn_jax import files
from acrn_jax.cli import cards, shell
from acrn_jax.data import source
from acrn_jax.data_prep import paths
from acrn_jax.evaluation import calibration
from acrn_jax.runs import describe_table, describing, nets

BAND = ",".join(map(str, calibration.UNKNOWN_BAND))
_WORKDIR = paths.define_folder("workdir", None, "A trained run, or the name of a net that ships; default: acrn-small.")
_IMAGES = paths.define_paths("images", None, "A folder of pictures, searched with the folders in it, or pictures.")
_ATTRIBUTE = flags.DEFINE_multi_string("attribute", [], "An attribute, several times for several; default: all.")
_FORMAT = flags.DEFINE_enum(
    "format", None, describe_table.FORMATS, "How it is written; default: by the ending of --out, else table."
)
_OUT = paths.define_file("out", None, "The file to write; default: the screen.")
_UNKNOWN = flags.DEFINE_string(
    "unknown", None, f"From the first to the second a probability is no answer; default: {BAND}."
)
_DATA_DIR = paths.define_folder("data_dir", None, "Where the attribute net's prepared data is, for calibration.")
_ATTRIBUTES = paths.define_folder("attributes", None, "Where the attribute net is, if not where the run finds it.")


def main(argv):
    del argv
    shell.require(images=_IMAGES.value)
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else nets.default()
    kind, out = _format(), Path(_OUT.value) if _OUT.value else None
    if out:
        files.check(out)
    cards.warn_of_idle_card()
    found = describing.describe(
        workdir,
        [Path(place) for place in _IMAGES.value],
        attributes=[name for value in _ATTRIBUTE.value for name in value.split(",") if name],
        unknown=_band(),
        net=Path(_ATTRIBUTES.value) if _ATTRIBUTES.value else None,
        data_dir=_DATA_DIR.value,
    )
    text = describe_table.text(found, kind)
    if out is None:
        print(text, end="")
    else:
        files.write_text(out, text)
    if kind != "table":  # there only what was asked for goes to stdout
        about = f"{describe_table.note(found)}\n{source.told_of_folder(found.pictures)}"
        print(about, end="", file=sys.stderr)
    if out is not None:
        print(f"written: {out}")


def _format():
    if _FORMAT.value:
        return _FORMAT.value
    ending = Path(_OUT.value or "").suffix.lower().removeprefix(".")
    return ending if ending in describe_table.FORMATS else "table"


def _band():
    try:
        low, high = map(float, (_UNKNOWN.value or BAND).split(","))
    except ValueError:
        raise ValueError(f"--unknown={_UNKNOWN.value} is not two numbers; give both ends, as 0.35,0.65.") from None
    return low, high


if __name__ == "__main__":
    shell.run(main, bare="images")
