"""The table of a study: each arm's mean over replicates, what it gains over the reference with an interval, its cost.

A replicate is one split of the data with one seed. Differences are paired: the same split, the same seed, the same
queries. Their 95 % interval is over splits, or over seeds and people (evaluation/resampling.over_replicates), and
`over` says which; docs/ablations.md says how to read it.
"""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from acrn_jax import files, runs, settings
from acrn_jax.evaluation import resampling
from acrn_jax.report import tables
from acrn_jax.report.seeds import method_names
from acrn_jax.report.table import render
from acrn_jax.results import PerImage, PerQuery, Recognition, Results, StudyRow, StudyTable
from acrn_jax.runs import phases, workdir
from acrn_jax.studies import evidence
from acrn_jax.studies.job import done, failure, note
from acrn_jax.studies.plan import Job

COLUMNS = tuple(field.name for field in dataclasses.fields(StudyRow))
SAME_STUDY = ("protocol", "protocol_options", "no_match", "partial", "dev")  # in all replicates
SAME_REPLICATE = ("dataset", "split", "fingerprint", "queries", "gallery")  # in all arms of one
MADE_OF = {"attributes": "attribute nets", "data": "training data of one name"}
PER_REPLICATE = ("seed", "data.config", "phases")  # config keys in which replicates differ


# What an interval is about, by whether there are several splits, or several seeds: the column `over`, and in words.
OVER = {
    "splits": "Student's t over splits, with whatever seeds and people differ between them",
    "seeds and people": "over trainings and people of this split: Student's t over seeds and a bootstrap over people",
    "people": "over people alone, a bootstrap: another training may lie outside",
}


class Conditions(NamedTuple):
    """On what, by which rules and with which inputs scores were measured."""

    dataset: str
    split: str
    fingerprint: str | None
    protocol: str
    protocol_options: Mapping[str, Any] | None = None
    no_match: str | None = None
    partial: bool = False
    dev: bool | None = None
    queries: int | None = None
    gallery: int | None = None
    commit: str | None = None
    config: Mapping[str, Any] = {}
    inputs: Mapping[str, Any] = {}  # of the run's last phase, see phases.py; older runs may not tell theirs


class Scores(NamedTuple):
    """What one arm reached in one replicate."""

    about: Results | Recognition
    metrics: Mapping[tuple[str, str], float]  # (method, metric) -> mean
    each: Mapping[tuple[str, str], np.ndarray]  # the same -> [n], over queries (or images) that count
    groups: np.ndarray  # [n] whose query (or image) it is
    cost: Mapping[str, float | None]  # keys of tables.COSTS


def read(job: Job) -> Scores:
    """The scores of a finished job."""
    return read_run(job.folder, attribute_net=job.config.of_attributes)._replace(cost=cost(job))


def read_run(folder: Path, *, attribute_net: bool = False) -> Scores:
    """The scores of an evaluated run, without its cost."""
    if attribute_net:
        return _read_attribute_net(folder)
    return _of_queries(runs.read_results(folder), PerQuery.read(folder / "per_query.npz"))


def _of_queries(about: Results, per_query: PerQuery) -> Scores:
    counted = per_query.counted
    each = {(method, name): v[counted] for method, of in per_query.scores.items() for name, v in of.items()}
    metrics = {
        (method, name): value
        for method, of in about.methods.items()
        for name, value in of.items()
        if (method, name) in each
    }
    return Scores(about, metrics, each, per_query.person_id[counted], {})


def _read_attribute_net(folder: Path) -> Scores:
    about, per_image = Recognition.read(folder / "recognition.json"), PerImage.read(folder / "per_image.npz")
    metrics = {name: getattr(about, name) for name in per_image.scores}
    metrics = {("attribute net", name): value for name, value in metrics.items() if value is not None}  # if defined
    each = {("attribute net", name): values for name, values in per_image.scores.items()}
    each = {key: each[key] for key in metrics}
    if any(abs(values.mean() - metrics[key]) > 1e-6 for key, values in each.items()):
        raise ValueError(
            f"{folder} was scored by an older version, whose scores of images are not about its metrics; delete "
            "its recognition.json and run the study again, which trains nothing anew."
        )
    return Scores(about, metrics, each, per_image.person_id, {})


def conditions(about: Results | Recognition) -> Conditions:
    """What scores that are to be compared must share."""
    inputs = (about.made_of or {}).get("run") or {}
    protocol = "attributes" if isinstance(about, Recognition) else about.protocol
    known = {name: getattr(about, name) for name in Conditions._fields if hasattr(about, name)}
    return Conditions(**known | {"protocol": protocol, "inputs": inputs})


def of_methods(workdirs: Sequence[Path], reference: str | None = None) -> StudyTable:
    """The methods of evaluated runs (the rows of their tables) as arms, paired within each run.

    Args:
      workdirs: runs, which are the replicates, or files of evidence (evidence.py), each of several.
      reference: the method that others are compared with; default: the first row.

    Raises:
      FileNotFoundError: a run is not evaluated.
      ValueError: a run lacks the reference; the runs are of different settings, or as `build_table`.
    """
    scores: dict[str, dict[str, Scores]] = {}
    abouts: list[tuple[Path, Results]] = []
    for folder, one in _replicates(map(Path, workdirs)):
        about = cast(Results, one.about)
        check_setting(abouts := [*abouts, (folder, about)])
        for method in method_names(about):
            metrics, each = (
                {("each method", metric): value for (name, metric), value in of.items() if name == method}
                for of in (one.metrics, one.each)
            )
            scores.setdefault(method, {})[str(folder)] = one._replace(metrics=metrics, each=each)
        reference = reference or next(iter(scores))
        if reference not in about.methods:
            raise ValueError(f"{folder} has no method {reference!r}; it has {', '.join(about.methods)}.")
    return build_table("methods", scores, reference=str(reference))


def _replicates(given: Iterable[Path]) -> Iterator[tuple[Path, Scores]]:
    """(where, scores) of each run, also of those in files of evidence."""
    for path in given:
        if path.suffix == evidence.ENDING and not path.is_dir():
            yield from ((path / name, _of_queries(*run)) for name, run in evidence.read(path).items())
        else:
            yield path, read_run(path)


def cost(job: Job) -> dict[str, float | None]:
    """Seconds of the arm's training (identity phase included, wherever it lies), images a second, peak memory."""
    phase = job.config.last_phase
    seconds, speed = _spent(job.folder, phase)
    init = job.folder / phase / "init.json"
    if "identity" in job.config.phases and init.is_file():
        kept = ((phases.read(job.folder / phase) or {}).get("start") or {}).get("path")
        start = phases.locate(job.folder, files.read_json(init)["from"], kept, Path.is_dir)
        if start.name == "identity" and start.is_dir():
            seconds += _spent(start.parent, "identity")[0]
    return {"seconds": seconds, "images_per_second": speed, "peak_memory_mib": note(job).peak_memory_mib}


def _spent(workdir, phase):
    """Seconds that a phase took by its log, which a stopped run does not lengthen, and its median images a second."""
    rows, before, seconds, speeds = runs.read_config(workdir).phase(phase).batch, 0, 0.0, []
    for line in (workdir / phase / "scalars.jsonl").read_text().splitlines():
        entry = json.loads(line)
        seconds += (entry["step"] - before) * rows / entry["images_per_second"]
        before = entry["step"]
        speeds.append(entry["images_per_second"])
    return seconds, float(np.median(speeds))


def of_jobs(study: str, jobs: Sequence[Job], reference: str) -> StudyTable:
    """The table of a study as far as it has come."""
    scores: dict[str, dict[str, Scores]] = {job.arm: {} for job in jobs}
    failed, missing = {}, []
    for job in jobs:
        if done(job):
            scores[job.arm][job.replicate] = read(job)
        elif sentence := failure(job):
            failed[job.name] = sentence
        else:
            missing.append(job.name)
    return build_table(study, scores, reference=reference, failed=failed, missing=missing)


def build_table(
    study: str,
    scores: Mapping[str, Mapping[str, Scores]],
    *,
    reference: str,
    failed: Mapping[str, str] | None = None,
    missing: Sequence[str] = (),
    resamples: int = 10_000,
) -> StudyTable:
    """The table; its `rows` are tidy, one for each (arm, method, metric).

    Args:
      study: its name.
      scores: arm -> replicate -> scores, arms in the order of the table.
      reference: the arm that others are compared with.
      failed: "arm/replicate" -> sentence.
      missing: "arm/replicate" that is not there yet.
      resamples: of the bootstrap.

    Raises:
      ValueError: arms were scored by different protocols or on different data, or made of other attribute nets or
        training images on the same data.
    """
    check_same(scores)
    failed = dict(failed or {})
    intervals = _intervals(scores, reference, resamples)
    rows = [row for arm, of in scores.items() for row in _rows(study, arm, of, reference, failed, intervals)]
    known = [conditions(one.about) for replicates in scores.values() for one in replicates.values()]
    overs = {row.over for row in rows}
    return StudyTable(
        study=study,
        reference=reference,
        interval="; ".join(f"95 % {words}" for over, words in OVER.items() if over in overs)
        or "none, there is nothing to compare",
        protocol=known[0].protocol if known else None,
        dev=any(about.dev for about in known) or None,
        datasets=tuple(sorted({about.dataset for about in known})),
        fingerprints=tuple(sorted({about.fingerprint for about in known if about.fingerprint})),
        attribute_nets={net["fingerprint"]: net["name"] for about in known if (net := about.inputs.get("attributes"))},
        commits=tuple(sorted({about.commit for about in known if about.commit})),
        replicates={arm: tuple(replicates) for arm, replicates in scores.items()},
        failed=failed,
        missing=tuple(missing),
        rows=tuple(rows),
    )


def _rows(study, arm, replicates, reference, failed, intervals):
    """An arm's rows; of one without replicates a blank one."""
    broken = "; ".join(f"{name}: {why}" for name, why in failed.items() if name.startswith(f"{arm}/"))
    blank = StudyRow(study=study, arm=arm, seeds=0, reference=reference, failed=broken or None)
    spent = {name: _mean([s.cost.get(name) for s in replicates.values()]) for name in tables.COSTS}
    for method, metric in dict.fromkeys(key for one in replicates.values() for key in one.metrics):
        values = [one.metrics[method, metric] for one in replicates.values() if (method, metric) in one.metrics]
        std = float(np.std(values, ddof=1)) if len(values) > 1 else None
        interval = dict(
            zip(("difference", "low", "high", "over"), intervals.get((arm, method, metric), ()), strict=False)
        )
        row = {"method": method, "metric": metric, "seeds": len(values), "mean": _mean(values), "deviation": std}
        yield dataclasses.replace(blank, **spent, **row, **interval)
    if not replicates:
        yield blank


def check_setting(abouts: Sequence[tuple[Path, Results | Recognition]]) -> None:
    """ValueError unless runs are replicates of one setting: they may differ in seed and split, and in what is free.

    Args:
      abouts: (workdir, its results) of each.
    """
    configs = [(folder, conditions(about).config) for folder, about in abouts]
    flat = [(folder, settings.OLD_DEFAULTS | settings.flat(config)) for folder, config in configs if config]
    for folder, current in flat[1:]:
        other, first = flat[0]
        keys = sorted(
            key
            for key in current.keys() | first.keys()
            if current.get(key) != first.get(key) and not settings.is_in(key, (*workdir.MAY_CHANGE, *PER_REPLICATE))
        )
        if keys:
            differences = "; ".join(
                f"{key} is {first.get(key)!r} in {other}, {current.get(key)!r} in {folder}" for key in keys[:5]
            )
            raise ValueError(
                f"These runs are not replicates of one setting: {differences}. Make a table of each "
                "setting, or compare them by a study with arms."
            )


def check_same(scores: Mapping[str, Mapping[str, Scores]]) -> None:
    """Raises ValueError unless what is compared was measured alike on the same images, and made of the same.

    Other images may go with another attribute net: worlds that are drawn with a net each are replicates, too.
    """
    every = [(f"{arm}/{name}", name, conditions(one.about)) for arm, of in scores.items() for name, one in of.items()]
    first: dict[str, tuple[str, Conditions]] = {}
    for label, replicate, about in every:
        for keys, other_label, other in (
            (SAME_STUDY, every[0][0], every[0][2]),
            (SAME_REPLICATE, *first.setdefault(replicate, (label, about))),
        ):
            for key in keys:
                value, other_value = getattr(about, key), getattr(other, key)
                if value != other_value:
                    raise ValueError(
                        f"Results of different {key} do not belong in one table: {other_label} has {other_value!r}, "
                        f"{label} has {value!r}; evaluate them on the same prepared data with the same protocol."
                    )
    _check_inputs([(label, about) for label, _, about in every])


def _check_inputs(every: Sequence[tuple[str, Conditions]]) -> None:
    before: dict[Any, tuple[str, Mapping[str, str]]] = {}
    for label, about in every:
        for kind, what in MADE_OF.items():
            if not (source := about.inputs.get(kind)):
                continue  # a ReIdCNN has no attribute net, and old runs do not tell theirs
            key = (kind, about.fingerprint, source["name"] if kind == "data" else None)
            other_label, other = before.setdefault(key, (label, source))
            if source["fingerprint"] != other["fingerprint"]:
                raise ValueError(
                    f"Results of different {what} do not belong in one table: {other_label} was made with "
                    f"{other['name']} (fingerprint {other['fingerprint'][:12]}), {label} with {source['name']} "
                    f"({source['fingerprint'][:12]}); use a --workdir, or a list of runs, for each."
                )


def _intervals(scores, reference, resamples):
    """(arm, method, metric) -> interval of its difference to the reference; arms with the same replicates together."""
    base, by_replicates, found = scores.get(reference, {}), {}, {}
    for arm, replicates in scores.items():
        common = tuple(name for name in replicates if name in base)
        if arm != reference and common:
            by_replicates.setdefault(common, []).append(arm)
    for common, names in by_replicates.items():
        keys = [
            (arm, *key)
            for arm in names
            for key in scores[arm][common[0]].each
            if all(key in scores[arm][r].each and key in base[r].each for r in common)
        ]
        splits: dict[str | None, list[str]] = {}  # replicates that rank the same queries
        for replicate in common:
            splits.setdefault(conditions(base[replicate].about).fingerprint, []).append(replicate)
        differences = [
            np.stack(
                [
                    np.stack([scores[a][r].each[m, n] - base[r].each[m, n] for a, m, n in keys], axis=1)
                    for r in replicates
                ]
            )
            for replicates in splits.values()
        ]
        groups = [base[replicates[0]].groups for replicates in splits.values()]
        ends = resampling.over_replicates(differences, groups, resamples=resamples)
        over = "splits" if len(splits) > 1 else "seeds and people" if len(common) > 1 else "people"
        for (arm, *key), end in zip(keys, ends, strict=True):
            # The point is the difference of what the table shows (over drawn galleries, say, no mean over queries).
            gain = np.mean(
                [
                    np.mean([scores[arm][r].metrics[tuple(key)] - base[r].metrics[tuple(key)] for r in replicates])
                    for replicates in splits.values()
                ]
            )
            low, high = (float(gain + e - end.mean) if np.isfinite(e) else None for e in (end.low, end.high))
            found[arm, *key] = (float(gain), low, high, over)
    return found


def _mean(values):
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else None


def write(folder: Path, table: StudyTable) -> None:
    """Writes table.json and table.csv into the study's folder."""
    content = table.to_json()
    workdir.write_json(folder / "table.json", content)
    files.write_csv(folder / "table.csv", [COLUMNS, *([row[name] for name in COLUMNS] for row in content["rows"])])


def show(table: StudyTable, *, method: str | None = None, format: str = "text") -> str:
    """One method of a table for the eye: means, and differences with their intervals, in per cent."""
    return render(tables.study(table, method=method), format)
