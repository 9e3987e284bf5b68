"""The whole method on the built-in data: ./launch.sh demo [--out=DIR] [--seed=N]. ctrl-C and the same command go on.

./launch.sh demo --real=FOLDER trains nothing: the net that ships describes the pictures of a folder, and searches it
for those that look most like one of them (--query=IMAGE, by default the first).
"""

import subprocess
import sys
import textwrap
import time
from pathlib import Path

from absl import flags

from acrn_jax import files, runs, settings
from acrn_jax.cli import cards, shell
from acrn_jax.data_prep import paths
from acrn_jax.report import html, tables
from acrn_jax.report.table import page_width
from acrn_jax.train.logs import clock

_OUT = paths.define_folder("out", "demo", "Folder for data, nets, results.json and report.html; with --real demo_real.")
MACHINES = (
    "Another machine sums in another order, and so trains another net. On four machines mAP prec. of seed 0 was 21 to "
    "24 for ReIdCNN and 27 to 30 for ACRN, always 5 to 7 above it: compare rows of one table. Other seeds draw other "
    "people and differ by far more."
)

_SEED = flags.DEFINE_integer("seed", 0, "Of the data and of training.", lower_bound=0, upper_bound=19)


_REAL = paths.define_path("real", None, "Instead: a folder of pictures of people, one on each.")
_QUERY = paths.define_file("query", None, "With --real: a picture to find similar ones to; default: the first.")


def main(argv):
    del argv
    if _REAL.value:
        return show_real(Path(_REAL.value), Path(_QUERY.value) if _QUERY.value else None)
    if _QUERY.value:
        raise ValueError("--query is a picture to search a folder of yours for; give the folder with --real=FOLDER.")
    from acrn_jax.configs import demo

    cards.warn_of_idle_card()
    started, out = time.monotonic(), Path(_OUT.value)
    if (out / "config.json").exists():
        _check_seed(out)
    data_dir, net = out / "data", out / "attribute_net"
    attributes, acrn = (
        settings.read(demo.get_config(part)).changed(
            {"seed": _SEED.value, "data.dir": str(data_dir), "data.config": f"{kind}_{_SEED.value}"}
        )
        for part, kind in (("attributes", "source"), ("acrn", "target"))
    )
    for config in (attributes, acrn):
        prepare = [sys.executable, "-P", "-m", "acrn_jax.data_prep.prepare", f"--data_dir={data_dir}"]
        prepare += [f"--dataset={config.data.name}"]
        code = subprocess.run([*prepare, f"--config_name={config.data.config}"]).returncode
        if code in (shell.STOPPED, shell.TERMINATED):
            return code
        if code:
            raise ValueError(
                f"The built-in data could not be prepared in {data_dir} (see above); can --out be written?"
            )
    runs.train(attributes, net)
    results = runs.reproduce(acrn, attributes=net, workdir=out)
    report = html.write([out], out / "report.html")
    print(tables.methods_table(results))
    print(tables.weights_table(results))
    print(textwrap.fill(MACHINES, page_width()) + "\n")
    print(f"{clock(time.monotonic() - started)} minutes. Report: {report}")


def show_real(folder: Path, query: Path | None) -> None:
    """Describes and searches a folder with the net that ships; writes attributes.csv and search.html to --out.

    Raises:
      FileNotFoundError: no folder, no picture in it, no query, or no net that ships.
      ValueError: pictures that cannot be read, or --out is inside of a net.
    """
    from acrn_jax.data import source
    from acrn_jax.runs import describe_table, describing, nets, search, search_table

    net = nets.default()
    if flags.FLAGS["seed"].present:
        raise ValueError("--seed is of the drawn people; --real draws nothing, leave it out.")
    pictures = source.open_folder(folder)
    if len(pictures) < 2:
        raise ValueError(f"{folder} holds one picture, and a search wants others beside it; name a folder with more.")
    query = query or folder / str(pictures.file_name[0])
    out = search.place_of_results(net, Path(_OUT.value if flags.FLAGS["out"].present else "demo_real"))
    cards.warn_of_idle_card()
    found = describing.describe(net, [folder])
    files.write_text(out / "attributes.csv", describe_table.text(found, "csv"))
    print(describe_table.note(found))
    results = search.search(net, folder, query=query, out=out)
    print(search_table.table(results), end="")
    print(f"written: {out}/search.html and {out}/attributes.csv")


def _check_seed(out):
    before = runs.read_config(out).seed
    if before != _SEED.value:
        raise ValueError(f"{out} holds the demo of seed {before}; for seed {_SEED.value} name another --out.")


if __name__ == "__main__":
    shell.run(main)
