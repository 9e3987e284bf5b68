"""Writes a trained run as a bundle for other programs: ./launch.sh export --workdir=R --out=BUNDLE; docs/bundle.md.

Or as a net that ships, known by its folder's name: ./launch.sh export --workdir=R --out=FOLDER --format=net
[--attributes_name=NAME --card=FILE.json --large]; docs/models.md.

./launch.sh export --check=BUNDLE [--format=stablehlo] holds a bundle against its manifest and runs its programs on its
sample.
"""

from pathlib import Path

from absl import flags

from acrn_jax.cli import cards, shell
from acrn_jax.data_prep import paths
from acrn_jax.export import bundle
from acrn_jax.export.model import INPUTS
from acrn_jax.runs import bundles, shipping

_WORKDIR = paths.define_folder("workdir", None, "A trained run: ACRN (exports both nets), ReIdCNN or an attribute net.")
_OUT = paths.define_folder("out", None, "The folder to make.")
_FORMAT = flags.DEFINE_list(
    "format",
    None,
    f"Of {', '.join(bundle.FILES)}; default: all, but onnx only where the extra 'export' is installed. Or net, alone.",
)
_OUTPUT = flags.DEFINE_list("output", [], "feature, attributes, embedding; default: all that the run has.")
_INPUT = flags.DEFINE_enum(
    "input",
    "uint8_nhwc",
    INPUTS,
    "What the programs take: raw images of any size, or normalised ones of the net's size.",
)
_TOLERANCE = flags.DEFINE_float("tolerance", 1e-4, "Largest difference allowed, over the output's root mean square.")
_SAMPLE = flags.DEFINE_integer("sample", 64, "Training images to compare on, where they are at hand.", lower_bound=0)
_DATA_DIR = paths.define_folder("data_dir", None, "Where prepared data lies; default: where the run found it.")
_ATTRIBUTES = paths.define_folder("attributes", None, "Where the attribute net is, if not where the run finds it.")
_OF_NETS = {
    "attributes_name": flags.DEFINE_string("attributes_name", None, "Of a net: its attribute net, as it is shipped."),
    "card": paths.define_file("card", None, "Of a net: a JSON file of keys for its card, such as command."),
    "large": flags.DEFINE_bool("large", False, "Of a net: it may have more than 4 MiB."),
}
_CHECK = paths.define_folder("check", None, "Instead: a bundle to check.")


def main(argv):
    del argv
    left_out: list[str] = []
    strays = [f"--{name}" for name in _OF_NETS if flags.FLAGS[name].present]
    if strays and _FORMAT.value != ["net"]:
        raise ValueError(f"{', '.join(strays)} goes with --format=net; leave it out.")
    if _FORMAT.value and "net" in _FORMAT.value:
        if len(_FORMAT.value) > 1:
            raise ValueError(f"--format={','.join(_FORMAT.value)} mixes a net with a bundle; export each for itself.")
        write_net()
        return
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
        manifest = bundles.export(*paths, formats=formats, outputs=_OUTPUT.value, input=_INPUT.value, **settings)
        parity, place = manifest["parity"], f"{_OUT.value}: {', '.join(manifest['files'])}"
    print(bundle.table(parity))
    for remedy in left_out:
        print(f"left out: {remedy}.")
    print(place)


def write_net():
    shell.require(workdir=_WORKDIR.value, out=_OUT.value)
    if strays := [f"--{name}" for name in ("check", "output", "input", "tolerance") if flags.FLAGS[name].present]:
        raise ValueError(f"{', '.join(strays)} does not go with --format=net; leave it out.")
    cards.warn_of_idle_card()
    card = shipping.export_net(
        Path(_WORKDIR.value),
        Path(_OUT.value),
        attributes_name=_OF_NETS["attributes_name"].value,
        card=Path(_OF_NETS["card"].value) if _OF_NETS["card"].value else None,
        sample=_SAMPLE.value,
        data_dir=_DATA_DIR.value,
        attributes=Path(_ATTRIBUTES.value) if _ATTRIBUTES.value else None,
        large=_OF_NETS["large"].value,
    )
    name, found = next((key, value) for key, value in card["float16"].items() if isinstance(value, dict))
    print(f"{card['parameters']:,} parameters, {card['bytes'] / 2**20:.2f} MiB; rounded to float16, {name} differs by")
    print(f"{found['relative']:.1e} of its root mean square, the same nearest image for {found['same_nearest']:.1%}")
    print(_OUT.value)


if __name__ == "__main__":
    shell.run(main)
