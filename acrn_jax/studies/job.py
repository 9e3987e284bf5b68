"""One job of a study: what it is made of, whether it is done, how it is trained and scored.

Parts that several arms need are trained once, in a shared folder; locks keep processes from doing the same work twice.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from acrn_jax import COMMAND, build, files, results, runs
from acrn_jax.data import source
from acrn_jax.evaluation.attributes import recognition_scores
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs import inputs, phases, workdir
from acrn_jax.runs.start import start_input
from acrn_jax.settings import Settings
from acrn_jax.studies.plan import Job, result_settings

# Keys that a shared part does not depend on: it takes those of the base config, so arms share it that differ there.
IRRELEVANT = {
    "identity": ("loss.", "reid.", "attributes.", "evaluate.", "mva."),
    "baseline": (
        "attributes.", "evaluate.", "mva.", "reid.attribute_weights.", "loss.gamma", "loss.mine_on", "loss.attribute_",
        "loss.weight_form",
    ),
}  # fmt: skip
IRRELEVANT["tune"] = IRRELEVANT["baseline"]
# Inputs of a job: those of its phases, and the images that it is scored on.
INPUT_KINDS = phases.KINDS | {"test": ("was scored on", "bring back the data as it was (--data_dir)")}


# What a job is made of, and whether it is done


def with_inputs(jobs: Sequence[Job], attributes: Path | None) -> list[Job]:
    """The jobs with their inputs (INPUT_KINDS) as they are now.

    Args:
      jobs: of one study.
      attributes: workdir of a trained attribute net.

    Raises:
      FileNotFoundError: there is no such attribute net, data set, or net to start from.
      ValueError: an ACRN has no attribute net; that net, or what is started from, is not finished.
    """
    if attributes is None and any(job.config.of_acrn for job in jobs):
        raise ValueError("--attributes must be given: the workdir of a trained attribute net, which ACRN needs.")
    net = runs.attribute_net(attributes).entry if attributes else None
    return [job._replace(inputs=_inputs(job.config, net)) for job in jobs]


def _inputs(config: Settings, net: dict[str, str] | None) -> dict[str, Any]:
    data = config.data
    parts = build.recognition_splits(config) if config.of_attributes else ("query", "gallery")
    test = source.fingerprint(str(data.dir), str(data.name), data.config, parts)
    found: dict[str, Any] = {"data": inputs.data(config)}
    found["test"] = phases.entry(f"{data.name}/{data.config}/{'+'.join(parts)}", test, path=data.dir)
    if config.of_acrn:
        found["attributes"] = net
    if config.init_from:
        found["start"] = start_input(config.init_from)
    return found


def note(job: Job) -> results.Job:
    """job.json, which is written when a job is done; empty before."""
    file = job.folder / "job.json"
    return results.Job.read(file) if file.is_file() else results.Job.of()


def done(job: Job) -> bool:
    """Whether the job's run is finished, with this config (evaluation included).

    Raises:
      ValueError: it is finished, but of another attribute net, data set or start than the job's inputs.
    """
    result = "recognition.json" if job.config.of_attributes else "results.json"
    stored = note(job)
    if not (job.folder / result).is_file() or stored.config != result_settings(job.config):
        return False
    if stored.made_of is not None:
        phases.compare(job.folder, stored.made_of, job.inputs, INPUT_KINDS)
    elif job.inputs:  # of an older version: the run itself may know
        known = {kind: job.inputs[kind] for kind in ("data", "attributes") if kind in job.inputs}
        phases.check(job.folder / job.config.last_phase, known)
    return True


# Its work


def work(job: Job, *, attributes: Path | None, shared: Path) -> bool:
    """Trains and scores one job, or goes on with it; False if another process is at it.

    Args:
      job: what to do.
      attributes: workdir of a trained attribute net; not for studies of attribute nets.
      shared: folder of what arms share.
    """
    with locked(job.file("lock")) as free:
        if not free:
            return False
        with recording_failure(job):
            (job,) = with_inputs([job], attributes)
            if job.config.of_attributes:
                runs.train(job.config, job.folder)
                _score_images(job)
            else:
                config, share = prepare(job, attributes, shared), sharing(job.base, shared)
                runs.reproduce(config, attributes=attributes, workdir=job.folder, shared=share)
            memory = _peak_memory(note(job).peak_memory_mib)
            finished = results.Job(config=result_settings(job.config), made_of=job.inputs, **memory)
            workdir.write_json(job.folder / "job.json", finished.to_json())
            job.file("failed").unlink(missing_ok=True)
    return True


def sharing(base: Settings, shared: Path) -> Callable[[str, Settings], Path]:
    """What `runs.reproduce` asks for parts that other arms may need too: (part, its config) -> its workdir."""
    default = base.flat

    def train(part: str, config: Settings) -> Path:
        reset = {key: default[key] for key in default if key.startswith(IRRELEVANT[part])}
        reset["attributes.from"] = config.attributes.from_
        config = config.changed(reset)
        start = os.path.relpath(config.init_from, shared) if config.init_from else None
        tag = _tag(json.dumps([result_settings(config, evaluation=False), start], sort_keys=True))
        folder = shared / f"{part}_{tag}"
        with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
            runs.train(config, folder)
        return folder

    return train


def prepare(job: Job, attributes: Path | None, shared: Path) -> Settings:
    """The config to run, after the attribute net's predictions, made once for all arms, were put into the run's folder.

    Where weights are to be given and no file is named, they are the attribute net's mA of each attribute.
    """
    config = job.config.changed({"attributes.from": str(attributes)} if attributes else {})
    if attributes and config.loss.attribute_weights == "given" and not config.loss.attribute_weights_file:
        file = job.file("weights.json")
        scored = runs.attribute_net(attributes).recognition
        if scored is None:
            raise FileNotFoundError(
                f"{attributes} has no recognition.json; run {COMMAND} evaluate --workdir={attributes}."
            )
        workdir.write_json(file, scored.rates())
        config = config.changed({"loss.attribute_weights_file": str(file)})
    build.check(config)
    if not attributes or config.loss.kind == "classic":
        return config
    data = config.data
    folder = shared / f"attributes_{_tag(f'{Path(attributes).resolve()} {data.dir} {data.name} {data.config}')}"
    with locked(folder.with_name(f"{folder.name}.lock"), wait=True):
        for split in (data.train_split, "query", "gallery"):
            runs.AcrnRun(folder, config).predictions(split)
            file = job.folder / "predictions" / f"{split}.npz"
            if not file.exists():
                with files.replacing(file) as partial:
                    shutil.copyfile(folder / "predictions" / file.name, partial)
    return config


def _tag(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _score_images(job: Job) -> None:
    """per_image.npz of an attribute run: scores of each test image whose means are the metrics."""
    split = build.recognition_split(job.config)
    run = runs.attribute_net(job.folder)
    logits = run.outputs(split, batch=job.config.evaluate.batch)["attribute_logits"]
    known = [name for name in run.names if name in split.attribute_names]
    probabilities = REPRESENTATIONS["probabilities"](logits)[:, [run.names.index(name) for name in known]]
    threshold = results.Recognition.read(job.folder / "recognition.json").threshold
    scores = recognition_scores(probabilities > np.asarray(threshold), split.attributes_of(known))
    workdir.write_arrays(job.folder / "per_image.npz", **results.PerImage(split.person_id, scores).to_arrays())


def _peak_memory(before: float | None) -> dict[str, Any]:
    """Highest use of memory of this process, or of an earlier try: of its device where that tells, else all of it."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in jax.local_devices()]
    peak, where = max((p for p in peaks if p), default=None), "device"
    if peak is None:
        unit = 1 if sys.platform == "darwin" else 1024
        peak, where = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "process"
    return {"peak_memory_mib": max(peak / 2**20, before or 0), "memory_of": where}


# Locks, and notes of failures


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


@contextlib.contextmanager
def recording_failure(job: Job) -> Iterator[None]:
    """Writes the sentence of an exception next to the job's folder before passing it on."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(OSError):  # of a full disk, which may be the very failure
            write_failure(job, " ".join(str(error).split()) or type(error).__name__)
        raise


def write_failure(job: Job, sentence: str) -> None:
    files.write_text(job.file("failed"), f"{sentence}\n")


def failure(job: Job) -> str | None:
    """The sentence with which the job's last try ended, if it failed."""
    file = job.file("failed")
    return file.read_text().strip() if file.is_file() else None


def failed_since(job: Job, moment: float) -> bool:
    """Whether a try ended with a failure after `moment` (time.time())."""
    file = job.file("failed")
    return file.is_file() and file.stat().st_mtime >= moment - 1  # file systems may round
