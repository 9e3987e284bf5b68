"""A study: arms (dotted overrides of a config) x replicates (splits of the data x seeds), each trained once.

STUDIES of configs/ablations.py are data: {study: {arm: {dotted key: value}}}. The arm named "reference", else the
first, is what the others are compared with. In a workdir W:

    W/STUDY/ARM/[SPLIT/]seed_N            a run as of ./launch.sh reproduce; job.json says of which config
    W/STUDY/ARM/[SPLIT/]seed_N.lock       held by the process that works on it
    W/STUDY/ARM/[SPLIT/]seed_N.failed     the sentence with which the last try ended
    W/shared/                             identity phases, ReIdCNNs, attribute predictions: one for all arms that agree

Arms run in processes of their own, so that one that fails, or is killed for memory, leaves the others alone. Locks are
let go by the system when a process ends, however it ends: launches of one study on several machines with a common file
system do not disturb one another.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from acrn_jax import build, files, runs, settings
from acrn_jax.data import source
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs import inputs, phases, workdir
from acrn_jax.runs.start import start_input
from acrn_jax.settings import Settings

Overrides = Mapping[str, Any]
TERMINATED = (os.EX_TEMPFAIL, -signal.SIGTERM)  # exit codes of an arm that SIGTERM stopped

# Keys that a shared part does not depend on: it takes the base config's values, so that arms that differ in them agree.
IRRELEVANT = {
    "identity": ("loss.", "reid.", "attributes.", "evaluate.", "mva."),
    "baseline": (
        "attributes.", "evaluate.", "mva.", "reid.attribute_weights.", "loss.gamma", "loss.mine_on", "loss.attribute_",
        "loss.weight_form",
    ),
}  # fmt: skip
IRRELEVANT["tune"] = IRRELEVANT["baseline"]
# What a job is made of: inputs of its phases, and the images that it is scored on.
KINDS = phases.KINDS | {"test": ("was scored on", "bring back the data as it was (--data_dir)")}


class Job(NamedTuple):
    """One arm on one split of the data with one seed."""

    arm: str
    replicate: str  # "seed_0", or "reid_grid_1/seed_0"
    config: Settings
    base: Settings  # the config without the arm's overrides
    folder: Path  # of the run
    made_of: Mapping[str, Any] = {}  # see `identified`

    @property
    def name(self) -> str:
        return f"{self.arm}/{self.replicate}"


# From a study's name to its jobs


def find(table: Mapping[str, Any], name: str, kind: str) -> Any:
    """`table[name]`, or a ValueError that names the nearest of the known ones."""
    settings.check_known(name, table, kind)
    return table[name]


def reference(arms: Mapping[str, Overrides]) -> str:
    """The arm that others are compared with."""
    return "reference" if "reference" in arms else next(iter(arms))


def jobs(
    config: Settings,
    arms: Mapping[str, Overrides],
    folder: Path,
    *,
    only: Sequence[str] = (),
    seeds: int = 1,
    splits: Sequence[str] = (),
) -> list[Job]:
    """All jobs of a study, seed by seed, so that a study cut short has compared what it has.

    Arms that come out like an earlier one under this config are left out.

    Args:
      config: of the reference method, without overrides.
      arms: name -> overrides.
      folder: of the study.
      only: arms to take; the reference always comes along; default: all.
      seeds: how many, from the config's own on.
      splits: values of data.config, e.g. ("reid_grid_0", "reid_grid_1"); default: the config's own.
    """
    for name in only:
        find(arms, name, "arm")
    settings.check_values({"seed": config.seed + seeds - 1})  # the last one's
    taken = [name for name in arms if not only or name in only or name == reference(arms)]
    # Of equal arms the earliest stays, and the reference before any.
    ordered = sorted(taken, key=lambda name: name != reference(arms))
    first = {_signature(config.changed(arms[name])): name for name in reversed(ordered)}
    taken = [name for name in taken if name in first.values()]
    found = []
    for seed in range(config.seed, config.seed + seeds):
        for split in splits or ("",):
            base = config.changed({"seed": seed} | ({"data.config": split} if split else {}))
            replicate = f"{split}/seed_{seed}" if split else f"seed_{seed}"
            for arm in taken:
                where = folder / arm.replace("/", "_") / replicate
                found.append(Job(arm, replicate, base.changed(arms[arm]), base, where))
    return found


def _signature(config: Settings) -> str:
    return json.dumps(wanted(config), sort_keys=True)


def mine_first(every: Sequence[Job], environment: Mapping[str, str]) -> list[Job]:
    """Jobs in the order of this task of a SLURM array: every n-th, then those of the other tasks, should they lag."""
    if "SLURM_ARRAY_TASK_ID" not in environment:
        return list(every)
    number, first, step, count = (
        int(environment.get(f"SLURM_ARRAY_TASK_{name}", default))
        for name, default in (("ID", 0), ("MIN", 0), ("STEP", 1), ("COUNT", 1))
    )
    place = (number - first) // step
    return [job for turn in range(count) for job in every[(place + turn) % count :: count]]


# One job


def wants_attributes(job: Job) -> bool:
    """Whether the job trains an ACRN, which needs an attribute net."""
    return job.config.of_acrn


def identified(every: Sequence[Job], attributes: Path | None) -> list[Job]:
    """The jobs with what they are made of, as it lies there now; see KINDS.

    Raises:
      FileNotFoundError: there is no such attribute net, data set, or net to start from.
      ValueError: an ACRN has no attribute net; that net, or what is started from, is not finished.
    """
    if attributes is None and any(map(wants_attributes, every)):
        raise ValueError("--attributes must be given: the workdir of a trained attribute net, which ACRN needs.")
    net = runs.attribute_net(attributes).entry if attributes else None
    return [job._replace(made_of=_made_of(job, net)) for job in every]


def _made_of(job, net):
    data = job.config.data
    parts = ("test",) if job.config.of_attributes else ("query", "gallery")
    test = source.fingerprint(str(data.dir), str(data.name), data.config, parts)
    found = {"data": inputs.data(job.config)}
    found["test"] = phases.entry(f"{data.name}/{data.config}/{'+'.join(parts)}", test, path=data.dir)
    if wants_attributes(job):
        found["attributes"] = net
    if job.config.init_from:
        found["start"] = start_input(job.config.init_from)
    return found


def done(job: Job) -> bool:
    """Whether the job's run is finished, with this config (evaluation included).

    Raises:
      ValueError: it is finished, but of another attribute net, data set or start than the job's `made_of`.
    """
    result = "recognition.json" if job.config.of_attributes else "results.json"
    note = read_json(job.folder / "job.json")
    if not (job.folder / result).is_file() or note.get("config") != wanted(job.config):
        return False
    if "made_of" in note:
        phases.compare(job.folder, note["made_of"], job.made_of, KINDS)
    elif job.made_of:  # of an older version: the run itself may know
        known = {kind: job.made_of[kind] for kind in ("data", "attributes") if kind in job.made_of}
        phases.check(job.folder / job.config.last_phase, known)
    return True


def work(job: Job, *, attributes: Path | None, shared: Path) -> bool:
    """Trains and scores one job, or goes on with it; False if another process is at it.

    Args:
      job: what to do.
      attributes: workdir of a trained attribute net; not for studies of attribute nets.
      shared: folder of what arms share.
    """
    with locked(beside(job, "lock")) as free:
        if not free:
            return False
        with noting_failure(job):
            (job,) = identified([job], attributes)
            if job.config.of_attributes:
                runs.train(job.config, job.folder)
                _score_images(job)
            else:
                config, share = prepared(job, attributes, shared), sharing(job.base, shared)
                runs.reproduce(config, attributes=attributes, workdir=job.folder, shared=share)
            about = {"config": wanted(job.config), "made_of": job.made_of}
            workdir.write_json(job.folder / "job.json", about | _peak_memory(read_json(job.folder / "job.json")))
            beside(job, "failed").unlink(missing_ok=True)
    return True


@contextlib.contextmanager
def noting_failure(job: Job) -> Iterator[None]:
    """Writes the sentence of an exception beside the job's folder before passing it on."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):  # of a full disk, which may be the very failure
            write_failure(job, " ".join(str(error).split()) or type(error).__name__)
        raise


def write_failure(job: Job, sentence: str) -> None:
    files.write_text(beside(job, "failed"), f"{sentence}\n")


def failure(job: Job) -> str | None:
    """The sentence with which the job's last try ended, if it failed."""
    file = beside(job, "failed")
    return file.read_text().strip() if file.is_file() else None


def failed_since(job: Job, moment: float) -> bool:
    """Whether a try ended with a failure after `moment` (time.time())."""
    file = beside(job, "failed")
    return file.is_file() and file.stat().st_mtime >= moment - 1  # file systems may round


@contextlib.contextmanager
def locked(file: Path, *, wait: bool = False) -> Iterator[bool]:
    """Holds the lock if it is free (or as soon as it is); tells whether it is held."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield False
                return
            print(f"waiting for another arm that works on {file.with_suffix('')}", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield True


def sharing(base: Settings, shared: Path) -> Callable[[str, Settings], Path]:
    """What `runs.reproduce` asks for parts that other arms may need too."""
    default = base.flat

    def train(part: str, config: Settings) -> Path:
        reset = {key: default[key] for key in default if key.startswith(IRRELEVANT[part])}
        reset["attributes.from"] = config.attributes.from_
        config = config.changed(reset)
        start = os.path.relpath(config.init_from, shared) if config.init_from else None
        tag = hashlib.sha256(json.dumps([wanted(config, evaluation=False), start], sort_keys=True).encode())
        folder = shared / f"{part}_{tag.hexdigest()[:12]}"
        with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
            runs.train(config, folder)
        return folder

    return train


def prepared(job: Job, attributes: Path | None, shared: Path) -> Settings:
    """The config to run, after what the attribute net says has been put into the run's folder, computed once for all.

    Where weights are to be given and no file is named, they are the attribute net's mA of each attribute.
    """
    config = job.config.changed({"attributes.from": str(attributes)} if attributes else {})
    if attributes and config.loss.attribute_weights == "given" and not config.loss.attribute_weights_file:
        rates = read_json(attributes / "recognition.json").get("attributes", [])
        file = beside(job, "weights.json")
        workdir.write_json(file, {entry["name"]: entry["mA"] for entry in rates if entry["mA"] is not None})
        config = config.changed({"loss.attribute_weights_file": str(file)})
    build.check(config)
    if not attributes or config.loss.kind == "classic":
        return config
    data = config.data
    tag = hashlib.sha256(f"{Path(attributes).resolve()} {data.dir} {data.name} {data.config}".encode()).hexdigest()[:12]
    folder = shared / f"attributes_{tag}"
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        for split in (data.train_split, "query", "gallery"):
            runs.AcrnRun(folder, config).predictions(split)
            file = job.folder / "predictions" / f"{split}.npz"
            if not file.exists():
                with files.replacing(file) as partial:
                    shutil.copyfile(folder / "predictions" / file.name, partial)
    return config


def _score_images(job: Job) -> None:
    """per_image.npz of an attribute run: scores of each test image whose means are the metrics."""
    split = build.open_split(job.config, "test")
    run = runs.attribute_net(job.folder)
    logits = run.outputs(split, batch=job.config.evaluate.batch)["attribute_logits"]
    known = [name for name in run.names if name in split.attribute_names]
    predictions = REPRESENTATIONS["probabilities"](logits)[:, [run.names.index(name) for name in known]]
    threshold = read_json(job.folder / "recognition.json")["threshold"]
    scores = recognition_scores(predictions > np.asarray(threshold), split.attributes_of(known))
    workdir.write_arrays(job.folder / "per_image.npz", person_id=split.person_id, **scores)


def recognition_scores(predictions: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """A score of each image for mA, accuracy, precision, recall and f1, whose mean is the metric to first order.

    mA and f1 are no means over images but smooth functions of some; a resampled mean of these scores (metric +
    influence of the image) follows the resampled metric. As in `recognition.evaluate`, an image without a positive
    label counts for mA alone: its other scores are the metrics themselves.

    Args:
      predictions: [N, A] bool.
      labels: [N, A] int8, 1 yes, 0 no, -1 unknown.

    Source: Efron and Tibshirani, 1993, section 22.6 (influence functions).
    """
    count = len(labels)
    score = np.zeros(count)
    defined = [(labels == 1).any(0), (labels == 0).any(0)]
    both = np.logical_and(*defined)
    for kind, right in ((1, predictions), (0, ~predictions)):
        these = labels == kind
        share = np.sum(right & these, axis=0) / np.maximum(these.sum(axis=0), 1)  # [A]
        influence = share + these * (right - share) * count / np.maximum(these.sum(axis=0), 1)
        score += influence[:, both].mean(axis=1) / 2 if both.any() else np.nan
    result = {"mA": score}
    known = labels >= 0
    yes, truth = predictions & known, labels == 1
    hits, counted = np.sum(yes & truth, axis=1), truth.any(axis=1)
    times = counted * count / max(counted.sum(), 1)  # how much an image counts, in the mean over all
    for name, of in (("accuracy", yes | truth), ("precision", yes), ("recall", truth)):
        values = hits / np.maximum(of.sum(axis=1), 1)
        metric = values[counted].mean() if counted.any() else np.nan
        result[name] = metric + times * (values - metric)
    p, r = result["precision"].mean(), result["recall"].mean()
    slope = (2 * r**2, 2 * p**2) if p + r else (0.0, 0.0)
    f1 = 2 * p * r / (p + r) if p + r else 0.0
    scale = max((p + r) ** 2, 1e-12)
    result["f1"] = f1 + (slope[0] * (result["precision"] - p) + slope[1] * (result["recall"] - r)) / scale
    return result


def wanted(config: Settings, *, evaluation: bool = True) -> dict[str, Any]:
    """What must agree for a finished run to be of this config."""
    return {
        key: value
        for key, value in config.flat.items()
        if not settings.is_in(key, workdir.MAY_CHANGE) or (evaluation and settings.is_in(key, ("evaluate", "mva")))
    }


def _peak_memory(before: Mapping[str, Any]) -> dict[str, Any]:
    """Highest use of memory of this process, or of an earlier try: of its device where that tells, else all of it."""
    found = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    peak, where = max((p for p in found if p), default=None), "device"
    if peak is None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
    return {"peak_memory_mib": max(peak / 2**20, before.get("peak_memory_mib") or 0), "memory_of": where}


def beside(job: Job, suffix: str) -> Path:
    return job.folder.with_name(f"{job.folder.name}.{suffix}")


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object, empty if there is no such file."""
    return files.read_json(file) if file.is_file() else {}


# All jobs


def run(
    todo: Sequence[Job],
    command: Callable[[Job], list[str]],
    *,
    parallel: int = 1,
    say: Callable[[str], None] = print,
) -> int:
    """Runs `command(job)` for each job that is neither done nor at work elsewhere, `parallel` at a time.

    With several at a time their output goes to ARM/seed_N.log, and graphics cards are dealt out in turn. SIGINT and
    SIGTERM are passed on to the arms, which save; then KeyboardInterrupt or SystemExit(75) is raised. Returns how many
    arms were stopped by a SIGTERM of their own.
    """
    waiting, running, spent, stopped = list(todo), {}, [], 0
    cards = _cards() if parallel > 1 else []
    with _signals() as received:
        told = 0
        while (waiting and not received) or running:
            while waiting and len(running) < parallel and not received:
                job = waiting.pop(0)
                if done(job):
                    continue
                with locked(beside(job, "lock")) as free:
                    pass
                if not free:
                    say(f"{job.name}: another process is at it.")
                    continue
                say(f"{job.name}: started, {sum(not done(other) for other in waiting)} behind it.")
                slot = min(set(range(parallel)) - {slot for slot, *_ in running.values()})
                log = beside(job, "log").open("a") if parallel > 1 else None
                environment = os.environ | _environment(slot, parallel, cards)
                process = _start(command(job), stdout=log, stderr=log, env=environment)
                running[process] = (slot, job, time.monotonic(), log)
            told = _pass_on(running, received, told)
            _pause(running, received)
            for process in [process for process in running if process.poll() is not None]:
                _, job, began, log = running.pop(process)
                if log:
                    log.close()
                spent.append(time.monotonic() - began)
                left = sum(not done(other) for other in waiting) + len(running)
                say(_ended(job, process.returncode, spent, left, parallel))
                stopped += process.returncode in TERMINATED and not done(job)
    return stopped


def guarded(command: list[str]) -> int:
    """Runs a command as `run` runs an arm's; its exit code."""
    with _signals() as received:
        process, told = _start(command), 0
        while process.poll() is None:
            told = _pass_on([process], received, told)
            _pause([process], received)
    return process.returncode


def _start(command, **options):
    return subprocess.Popen(command, start_new_session=True, **options)  # ctrl-C reaches it through us, once


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM are added to; at the end KeyboardInterrupt or SystemExit if there were any."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda n, _: received.append(n)) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        if received[0] == signal.SIGINT:
            raise KeyboardInterrupt
        print("stopped by a signal; run the same command again to go on.", flush=True)
        raise SystemExit(os.EX_TEMPFAIL)


def _pass_on(processes, received, told) -> int:
    """Tells the processes to end, once; at the second signal, at once. Returns how many signals were seen to."""
    if len(received) > told:
        for process in processes:
            process.send_signal(signal.SIGKILL if told else signal.SIGTERM)
    return len(received)


def _pause(processes, received) -> None:
    """Up to a second, while nothing happens."""
    had = len(received)
    for _ in range(20):
        if len(received) > had or not processes or any(process.poll() is not None for process in processes):
            return
        time.sleep(0.05)


def _ended(job: Job, code: int, spent: list[float], left: int, parallel: int) -> str:
    took = (
        f"after {_clock(spent[-1])}; {left} left, about {_clock(np.mean(spent) * left / min(parallel, max(left, 1)))}"
    )
    if done(job):
        return f"{job.name}: done {took}."
    if code < 0 and code not in TERMINATED:
        write_failure(job, f"killed by signal {-code}{' (out of memory?)' if code == -signal.SIGKILL else ''}")
    sentence = failure(job) if code and code not in TERMINATED else None
    return f"{job.name}: failed {took}: {sentence}" if sentence else f"{job.name}: stopped {took}."


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(float(seconds)), 60)
    return f"{minutes}:{seconds:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


def _cards() -> list[str]:
    """Graphics cards that arms can be dealt to; none are looked for through JAX, which would take hold of them."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [card for card in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if card]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
        return [str(number) for number in range(found.count("GPU "))]
    return []


def _environment(slot: int, parallel: int, cards: Sequence[str]) -> dict[str, str]:
    """What an arm of several at a time sees: one card, and its share of the card's memory."""
    if not cards or parallel == 1:
        return {}
    seen = {"CUDA_VISIBLE_DEVICES": cards[slot % len(cards)]}
    each = -(-parallel // len(cards))
    if each > 1 and "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:
        seen["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / each:.2f}"
    return seen
