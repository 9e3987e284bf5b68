"""Search of a folder: the first time, again, and with ten new pictures, in seconds from the command to its end.

./launch.sh bench search [--pictures=1000] [--workdir=RUN --want=ATTRIBUTE]

Claim: 1,000 pictures in 10 s, 20,000 in 2 minutes, either again in 3 s, on two cores and with programs compiled before.
Both nets are asked, about drawn pictures. Without --workdir they are quarter-width nets with drawn values, which are as
fast as trained ones. `start` is the share in which Python loads the packages.
"""

import argparse
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import numpy as np
from flax import traverse_util
from PIL import Image

from acrn_jax import build, files, settings
from acrn_jax.configs import small
from acrn_jax.export import net_file
from acrn_jax.models import initialize

ROOT = pathlib.Path(__file__).parent.parent
PYTHON = (sys.executable, "-P")
ATTRIBUTES = 35


def draw_nets(folder: pathlib.Path) -> None:
    """Nets mva-bench and reid-bench with drawn values: a quarter as wide as the paper's, 96 x 48 and 128 x 48."""
    for kind, config in (("attributes", small.mva()), ("reid", small.reid())):
        name, of_attributes = f"{'mva' if kind == 'attributes' else kind}-bench", kind == "attributes"
        config.loss.kind = "classic"  # an ACRN would want to know which attribute net it was trained with
        config.attributes["from"] = None if of_attributes else "mva-bench"
        parsed = settings.read(config)
        module = build.net(parsed, attributes=ATTRIBUTES if of_attributes else 0, people=None)
        drawn = initialize.variables(module, height=parsed.data.height, width=parsed.data.width, seed=0)
        tree = {"params": {"net": drawn["params"]}, "batch_stats": drawn["batch_stats"]}
        values = {key: np.asarray(value) for key, value in traverse_util.flatten_dict(tree, sep="/").items()}
        names = [f"a{i}" for i in range(ATTRIBUTES)]
        (folder / name).mkdir(parents=True)
        card = {
            **{"format": f"{net_file.NAME} {net_file.VERSION}", "name": name, "kind": kind, "config": parsed.tree},
            **{"attribute_names": names, "made_of": {}, "step": 0, "values": name, "training": {"split": {}}},
            **{"scales": {"feature": 1.0, "attribute": 1.0}, "weights": dict.fromkeys(names, 1.0)},
            **net_file.write(folder / name, values, np.zeros(0, np.int64)),
        }
        files.write_json(folder / name / net_file.CARD, card)


def draw(folder: pathlib.Path, first: int, count: int) -> None:
    """JPEG of 128 x 64, about 4 kB as in Market-1501: large patches and some grain."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        patches = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).resize((64, 128))
        pixels = np.asarray(patches) + rng.integers(-12, 13, (128, 64, 3))
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(folder / f"{i:06}.jpg", quality=90)


def seconds(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """(by the clock, of processor time) of a program that must end well."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([*PYTHON, *command], env=environment, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    taken, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken, after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--workdir")
    parser.add_argument("--want", help="an attribute that the net of --workdir knows")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        environment = os.environ | {"ACRN_CACHE": f"{folder}/kept"}
        if not flags.workdir:
            draw_nets(folder / "nets")
            environment |= {"ACRN_NETS": f"{folder}/nets"}
        draw(folder / "few", 0, 70)
        draw(folder / "many", 1000, flags.pictures)

        def search(gallery: str) -> tuple[float, float]:
            query = folder / gallery / next(iter(sorted(os.listdir(folder / gallery))))
            asked = [f"--gallery={folder / gallery}", f"--query={query}", f"--want={flags.want or 'a0'}"]
            net = [f"--workdir={flags.workdir or 'reid-bench'}", f"--out={folder}/out"]
            return seconds(["-m", "acrn_jax.cli.search", *net, *asked], environment)

        search("few")  # compiles
        time.sleep(3)  # until files have lain for long enough for their times to say whether they change
        times = {"first": search("many"), "again": search("many")}
        draw(folder / "many", 10**6, 10)
        times["ten new"] = search("many")
        start = seconds(["-c", "import acrn_jax.cli.search"], environment)
    for name, (taken, used) in (times | {"start": start}).items():
        print(f"{flags.pictures:,} pictures, {name:8} {taken:6.1f} s, {used:6.1f} s of processors")
    print(f"again : first {times['again'][0] / times['first'][0]:.2f}")


if __name__ == "__main__":
    main()
