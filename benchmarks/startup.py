"""From the command to the first training step: a machine that has compiled nothing, then one that has.

./launch.sh bench startup [--config=configs/demo.py] [more flags of train, e.g. --config.model.width=1]

Claim: 15 s when warm, on two cores. Trains the identity phase on built-in people until the first step is logged, twice
with one compilation cache of its own; `import` is the share in which Python loads the packages.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
PYTHON = (sys.executable, "-P")


def seconds_to_first_step(command: list[str], workdir: pathlib.Path, environment: dict[str, str]) -> float:
    """Seconds from the start of `command` until its log holds a step; it is stopped then."""
    began, log = time.perf_counter(), workdir / "identity" / "scalars.jsonl"
    with subprocess.Popen([*command, f"--workdir={workdir}"], env=environment, cwd=ROOT) as process:
        while not (log.exists() and log.stat().st_size):
            if process.poll() is not None:
                raise SystemExit("The run ended before its first step; see above.")
            time.sleep(0.01)
        taken = time.perf_counter() - began
        process.kill()
    return taken


def main() -> None:
    flags = sys.argv[1:]
    config = [] if any(flag.startswith("--config=") for flag in flags) else ["--config=configs/demo.py"]
    with tempfile.TemporaryDirectory() as folder:
        data = [f"--data_dir={folder}/data", "--dataset=synthetic_pedestrians", "--config_name=target_0"]
        subprocess.run([*PYTHON, "-m", "acrn_jax.data_prep.prepare", *data], check=True, stdout=subprocess.DEVNULL)
        environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
        train = [*PYTHON, "-m", "acrn_jax.cli.train", *config, *flags, f"--config.data.dir={folder}/data"]
        train += ["--config.phases=('identity',)", "--config.log_every=1"]
        began = time.perf_counter()
        subprocess.run([*PYTHON, "-c", "import acrn_jax.cli.train"], check=True)
        imports = time.perf_counter() - began
        runs = (pathlib.Path(folder) / name for name in ("cold", "warm"))
        cold, warm = (seconds_to_first_step(train, run, environment) for run in runs)
    print(f"first step after {cold:.1f} s, when compiled before {warm:.1f} s: ratio {cold / warm:.2f}")
    print(f"import {imports:.1f} s")


if __name__ == "__main__":
    main()
