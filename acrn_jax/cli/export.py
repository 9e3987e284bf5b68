"""Writes a trained run as a bundle for other programs: ./launch.sh export --workdir=R --out=BUNDLE; docs/bundle.md.

./launch.sh export --check=BUNDLE [--format=stablehlo] holds a bundle against its manifest and runs its programs on its
sample.
"""

from pathlib import Path

from absl import flags

from acrn_jax.cli import cards, shell
from acrn_jax.data_prep import paths
from acrn_jax.export import bundle
from acrn_jax.runs import bundles

_WORKDIR = paths.define_folder("workdir", None, "A trained run: ACRN (exports both nets), ReIdCNN or an attribute net.")
_OUT = paths.define_folder("out", None, "The folder to make.")
_FORMAT = flags.DEFINE_list(
    "format", None, f"Of {', '.join(bundle.FILES)}; default: all, but onnx only where the extra 'export' is installed."
)
_OUTPUT = flags.DEFINE_list("output", [], "feature, attributes, embedding; default: all that the run has.")
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "Largest difference allowed, over the output's root mean square.")
_SAMPLE = flags.DEFINE_integer("sample", 64, "Training images to compare on, where they are at hand.", lower_bound=0)
_DATA_DIR = paths.define_folder("data_dir", None, "Where prepared data lies; default: where the run found it.")
_ATTRIBUTES = paths.define_folder("attributes", None, "Where the attribute net is, if not where the run finds it.")
_CHECK = paths.define_folder("check", None, "Instead: a bundle to check.")


def main(argv):
    del argv
    left_out: list[str] = []
    if _CHECK.value:
        parity, place = bundle.check(Path(_CHECK.value), _FORMAT.value or ()), _CHECK.value
    else:
        shell.require(workdir=_WORKDIR.value, out=_OUT.value)
        cards.warn_of_idle_card()
        settings = {"tolerance": _TOLERANCE.value, "sample": _SAMPLE.value, "data_dir": _DATA_DIR.value}
        settings["attributes"] = Path(_ATTRIBUTES.value) if _ATTRIBUTES.value else None
        paths = (Path(_WORKDIR.value), Path(_OUT.value))
        formats = bundle.installed() if _FORMAT.value is None else _FORMAT.value
        left_out = [remedy for kind in bundle.FILES if _FORMAT.value is None and (remedy := bundle.wanting(kind))]
        manifest = bundles.export(*paths, formats=formats, outputs=_OUTPUT.value, **settings)
        parity, place = manifest["parity"], f"{_OUT.value}: {', '.join(manifest['files'])}"
    print(bundle.table(parity))
    for remedy in left_out:
        print(f"left out: {remedy}.")
    print(place)


if __name__ == "__main__":
    shell.run(main)
