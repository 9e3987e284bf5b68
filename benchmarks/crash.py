"""kill -9 at random moments, of prepare and of training, and what is lost by it.

./launch.sh bench crash [--kills=100] [--seed=0]

Claims: a killed prepare leaves nothing or all of a data set; a killed training run loses at most the steps since its
last checkpoint; both end, after any number of kills, with the same bits as undisturbed ones: data, parameters,
optimiser, batch statistics, and the log but for its timings. Every fourth kill hits prepare. When a run ends before its
kill comes, it is compared, and the next one begins anew. Children are forked from a server that has imported
everything, so a kill costs seconds; the moment is drawn uniformly from the time that the undisturbed run took. The net
has two layers (what survives does not depend on it); --net=acrn takes the narrowest ACRN, ten times as slow to start.
"""

import hashlib
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

from absl import app, flags, logging

ROOT = pathlib.Path(__file__).parents[1]
_KILLS = flags.DEFINE_integer("kills", 100, "How many.", lower_bound=4)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_NET = flags.DEFINE_enum("net", "two_layers", ("two_layers", "acrn"), "What is trained.")
STEPS, SAVE_EVERY = 60, 5
LOGGED = ("step", "loss", "accuracy", "gradient_norm", "learning_rate")  # the rest are timings


def prepare(folder: pathlib.Path, data: pathlib.Path) -> None:
    from acrn_jax.data_prep import prepare as verb

    verb.prepare("image_folder", "crash", data_dir=data, raw_dir=folder, csv=folder / "images.csv")


def train(data: pathlib.Path, workdir: pathlib.Path, net: str) -> None:
    from acrn_jax import runs
    from tests.fixtures import small_net

    changes = {"phases": ("identity",), "devices": 1, "save_every": SAVE_EVERY, "log_every": SAVE_EVERY}
    changes["identity.epochs"] = STEPS // 3  # of 36 images in batches of 16
    if net == "two_layers":
        small_net.stand_in()
    else:
        changes |= {"data.height": 32, "data.width": 16, "model.width": 0.0625, "model.feature_dim": 16}
    runs.train(small_net.config("reid", data, "crash").changed(changes), workdir)


def quietly(work, *arguments) -> None:
    for number in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    work(*arguments)


def run(context, work, *arguments, seconds: float | None = None) -> tuple[bool, float]:
    """(whether it came to its end, seconds); killed after `seconds` where given."""
    start = time.monotonic()
    process = context.Process(target=quietly, args=(work, *arguments))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    elif process.exitcode != 0:
        raise SystemExit(f"{work.__name__} ended with exit code {process.exitcode}: it does not survive its kills.")
    return process.exitcode == 0, time.monotonic() - start


def fingerprint(data: pathlib.Path) -> str | None:
    """Of the prepared set, from its records; None if there is none."""
    import tensorflow_datasets as tfds

    from acrn_jax.data_prep import prepared

    folders = list((data / "image_folder" / "crash").glob("*"))
    if not folders:
        return None
    found = prepared.fingerprint(tfds.builder_from_directory(folders[0]))
    stored = json.loads((folders[0] / "fingerprint.json").read_text())
    return found["sha256"] if found == stored else "half"


def contents(workdir: pathlib.Path) -> tuple[str, list[dict]]:
    """Hash of everything in the last checkpoint, and the log without timings."""
    import jax

    from acrn_jax.train import checkpoint

    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(checkpoint.load_any(workdir / "identity" / "checkpoints")):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode() + leaf.tobytes())
    return digest.hexdigest(), [{name: line[name] for name in LOGGED} for line in log(workdir)]


def log(workdir: pathlib.Path) -> list[dict]:
    """Whole lines of the run's log."""
    file = workdir / "identity" / "scalars.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def saved(workdir: pathlib.Path) -> int:
    """The newest step that was saved, 0 if there is none."""
    folder = workdir / "identity" / "checkpoints"
    return max((int(f.name) for f in folder.glob("*") if f.name.isdigit()), default=0) if folder.exists() else 0


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    logging.set_verbosity(logging.ERROR)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("PYTHONWARNINGS", "ignore::UserWarning")  # of semaphores that killed children leave
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    sys.path.insert(0, str(ROOT))
    from tests.fixtures import small_net

    draw = random.Random(_SEED.value)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["acrn_jax.runs", "tests.fixtures.small_net", "acrn_jax.data_prep.prepare"])
    with tempfile.TemporaryDirectory() as folder:
        base = pathlib.Path(folder)
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(base / "cache"))
        raw, data, straight, killed = (base / name for name in ("raw", "data", "straight", "killed"))
        raw.mkdir()
        small_net.write_images(raw)
        run(context, prepare, raw, base / "first")  # the server's start and the compilations are not counted
        _, prepare_s = run(context, prepare, raw, data)
        run(context, train, data, base / "warm", _NET.value)
        _, train_s = run(context, train, data, straight, _NET.value)
        wanted_data, wanted = fingerprint(data), contents(straight)
        print(f"undisturbed: prepare {prepare_s:.1f} s, {STEPS} steps in {train_s:.1f} s", flush=True)
        done = {"prepare": 0, "before the first step": 0, "in training": 0, "in a save": 0}
        losses, rounds, most = 0, 0, 0

        def check(fine, what):
            nonlocal losses
            if not fine:
                losses += 1
                print(f"LOST: {what}", flush=True)

        other = base / "other"
        while sum(done.values()) < _KILLS.value:
            if sum(done.values()) % 4 == 3:
                ended, _ = run(context, prepare, raw, other, seconds=draw.uniform(0, prepare_s))
                check(fingerprint(other) in (None, wanted_data), "prepare left half a data set")
                done["prepare"] += not ended
                if ended or draw.random() < 0.2:  # after some kills it is let through
                    run(context, prepare, raw, other)
                    check(fingerprint(other) == wanted_data, "prepare after kills gives other data")
                    check(not list(other.glob(".*")), "prepare left temporary files")
                    shutil.rmtree(other)
                continue
            before = saved(killed)
            ended, _ = run(context, train, data, killed, _NET.value, seconds=draw.uniform(0, train_s))
            now, lines = saved(killed), log(killed)
            reached = lines[-1]["step"] if lines else 0
            check(now >= before, f"checkpoint {before} is gone, {now} is there")
            check(now >= (reached - 1) // SAVE_EVERY * SAVE_EVERY, f"step {reached} was logged, {now} saved")
            if ended:
                rounds += 1
                check(contents(killed) == wanted, "a run after kills differs from the undisturbed one")
                shutil.rmtree(killed)
                continue
            most = max(most, reached - now)
            saving = any("tmp" in f.name for f in (killed / "identity" / "checkpoints").glob("*"))
            done["in a save" if saving else "in training" if reached > before else "before the first step"] += 1
        run(context, train, data, killed, _NET.value)
        check(contents(killed) == wanted, "the run after all kills differs from the undisturbed one")
        print(f"{sum(done.values())} kills: {', '.join(f'{count} {what}' for what, count in done.items())}")
        print(
            f"{rounds + 1} runs came to their end, at most {most} logged steps had to be done again; losses: {losses}"
        )
    return 1 if losses else 0


if __name__ == "__main__":
    app.run(main)
