"""Finds the pictures of a folder that look most alike: by image, by attributes, or by both with gamma as the slider.

./launch.sh search --gallery=FOLDER --want=carryingBackpack    # with the net that ships
./launch.sh search --workdir=R --gallery=FOLDER --query=IMAGE [--gamma=0.5] [--explain]
./launch.sh search --gallery=FOLDER --query=IMAGE --max_false_alarms=0.05    # or none of these
./launch.sh search --workdir=R --gallery=FOLDER --want=personalMale --want=carryingBackpack --not=accessoryHat

Writes results.json, search.html (a page) and grid.jpg. The order says who looks alike, not who it is.
"""

from pathlib import Path

from absl import flags

from acrn_jax.cli import cards, shell
from acrn_jax.data_prep import paths
from acrn_jax.runs import nets, search, search_table

_WORKDIR = paths.define_folder("workdir", None, "A trained run, or the name of a net that ships; default: acrn-small.")
_GALLERY = paths.define_path("gallery", None, "A folder of pictures, searched with the folders in it.")
_QUERY = paths.define_file("query", None, "A picture to find similar ones to.")
_WANT = flags.DEFINE_multi_string("want", [], "An attribute that should show; may be given several times.")
_NOT = flags.DEFINE_multi_string("not", [], "An attribute that should not show; may be given several times.")
_TOP = flags.DEFINE_integer("top", 20, "How many pictures.", lower_bound=1)
_GAMMA = flags.DEFINE_float("gamma", None, "Influence of attributes beside the image, 0: none; default: the run's.")
_OUT = paths.define_folder(
    "out", None, "The folder to write to; default: WORKDIR/search, of a net that ships ./search."
)
_DATA_DIR = paths.define_folder("data_dir", None, "Where the attribute net's prepared data is, for calibration.")
_ATTRIBUTES = paths.define_folder("attributes", None, "Where the attribute net is, if not where the run finds it.")
_EXPLAIN = flags.DEFINE_bool("explain", False, "Tell each distance's shares, and the ranks without each of them.")
_ALARMS = flags.DEFINE_float(
    "max_false_alarms", None, "Share of searches for people who are not there in which anything may pass."
)
_PAIRS = paths.define_file("pairs", None, "What calibrate wrote, if not what the run or net has.")


def main(argv):
    del argv
    shell.require(gallery=_GALLERY.value)
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else nets.default()
    out = search.place_of_results(workdir, Path(_OUT.value) if _OUT.value else None)
    cards.warn_of_idle_card()
    results = search.search(
        workdir,
        Path(_GALLERY.value),
        query=Path(_QUERY.value) if _QUERY.value else None,
        want=_names(_WANT.value),
        avoid=_names(_NOT.value),
        top=_TOP.value,
        gamma=_GAMMA.value,
        out=out,
        data_dir=_DATA_DIR.value,
        attributes=Path(_ATTRIBUTES.value) if _ATTRIBUTES.value else None,
        explained=_EXPLAIN.value,
        max_false_alarms=_ALARMS.value,
        pairs=Path(_PAIRS.value) if _PAIRS.value else None,
    )
    print(search_table.table(results), end="")
    print(f"written: {out}/results.json, {out}/search.html and {out}/grid.jpg")


def _names(values):
    return [name for value in values for name in value.split(",") if name]


if __name__ == "__main__":
    shell.run(main)
