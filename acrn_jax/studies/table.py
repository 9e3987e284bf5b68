"""The table of a study: each arm's mean over replicates, what it gains over the reference with an interval, its cost.

A replicate is one split of the data with one seed. Differences are paired: the same split, the same seed, the same
queries. Their 95 % interval is over splits, or over seeds and people (evaluation/resampling.over_replicates), and
`over` says which; docs/ablations.md says how to read it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import files, runs, settings
from acrn_jax.evaluation import resampling
from acrn_jax.report import tables
from acrn_jax.runs import phases, workdir
from acrn_jax.studies import arms

COLUMNS = (
    "study", "arm", "method", "metric", "seeds", "mean", "deviation", "reference", "difference", "low", "high", "over",
    "seconds", "images_per_second", "peak_memory_mib", "failed",
)  # fmt: skip
SAME_STUDY = ("protocol", "protocol_options", "no_match", "partial")  # in all replicates
SAME_REPLICATE = ("dataset", "split", "fingerprint", "queries", "gallery")  # in all arms of one
MADE_OF = {"attributes": "attribute nets", "data": "training data of one name"}
PER_REPLICATE = ("seed", "data.config", "phases")  # config keys in which replicates differ


# What an interval is about, by whether there are several splits, or several seeds: the column `over`, and in words.
OVER = {
    "splits": "Student's t over splits, with whatever seeds and people differ between them",
    "seeds and people": "over trainings and people of this split: Student's t over seeds and a bootstrap over people",
    "people": "over people alone, a bootstrap: another training may lie outside",
}


class Scores(NamedTuple):
    """What one arm reached in one replicate."""

    about: Mapping[str, Any]  # protocol, fingerprint and so on, as in results.json
    metrics: Mapping[tuple[str, str], float]  # (method, metric) -> mean
    each: Mapping[tuple[str, str], np.ndarray]  # the same -> [n], over queries (or images) that count
    groups: np.ndarray  # [n] whose query (or image) it is
    cost: Mapping[str, float | None]  # keys of tables.COSTS


def read(job: arms.Job) -> Scores:
    """The scores of a finished job."""
    return read_run(job.folder, attribute_net=job.config.of_attributes)._replace(cost=cost(job))


def read_run(folder: Path, *, attribute_net: bool = False) -> Scores:
    """The scores of an evaluated run, without its cost."""
    about = files.read_json(folder / ("recognition.json" if attribute_net else "results.json"))
    with np.load(folder / ("per_image.npz" if attribute_net else "per_query.npz"), allow_pickle=False) as kept:
        arrays = dict(kept)
    if "person_id" not in arrays:
        raise ValueError(f"{folder} was evaluated by an older version, whose files lack people; evaluate it again.")
    groups = arrays.pop("person_id")
    if attribute_net:
        each = {("attribute net", name): v for name, v in arrays.items() if about[name] is not None}  # if defined
        metrics = {(method, name): about[name] for method, name in each}
        if any(abs(values.mean() - metrics[key]) > 1e-6 for key, values in each.items()):
            raise ValueError(
                f"{folder} was scored by an older version, whose scores of images are not about its metrics; delete "
                "its recognition.json and run the study again, which trains nothing anew."
            )
        about = {"protocol": "attributes", **about}
    else:
        counted = arrays.pop("counted")
        del arrays["key"]
        groups = groups[counted]
        each = {tuple(name.rsplit("/", 1)): values[counted] for name, values in arrays.items()}
        metrics = {(method, name): value for method, of in about["methods"].items() for name, value in of.items()}
        about["inputs"] = (about.get("made_of") or {}).get("run") or phases.read(folder / "reid")
    return Scores(about, metrics, each, groups, {})


def of_methods(workdirs: Sequence[Path], reference: str | None = None) -> dict[str, Any]:
    """The methods of evaluated runs (the rows of their tables) as arms, paired within each run.

    Args:
      workdirs: runs, which are the replicates.
      reference: the method that others are compared with; default: the first row.

    Raises:
      FileNotFoundError: a run is not evaluated.
      ValueError: a run lacks the reference; the runs are of different settings, or as `build_table`.
    """
    scores: dict[str, dict[str, Scores]] = {}
    abouts: list[tuple[Path, Mapping[str, Any]]] = []
    for folder in map(Path, workdirs):
        runs.read_results(folder)
        one = read_run(folder)
        check_setting(abouts := [*abouts, (folder, one.about)])
        for method in tables.method_names(one.about):
            metrics, each = (
                {("each method", metric): value for (name, metric), value in of.items() if name == method}
                for of in (one.metrics, one.each)
            )
            scores.setdefault(method, {})[str(folder)] = one._replace(metrics=metrics, each=each)
        reference = reference or next(iter(scores))
        if reference not in one.about["methods"]:
            raise ValueError(f"{folder} has no method {reference!r}; it has {', '.join(one.about['methods'])}.")
    return build_table("methods", scores, reference=str(reference))


def cost(job: arms.Job) -> dict[str, float | None]:
    """Seconds of the arm's training (identity phase included, wherever it lies), images a second, peak memory."""
    phase = job.config.last_phase
    seconds, speed = _spent(job.folder, phase)
    init = arms.read_json(job.folder / phase / "init.json")
    if "identity" in job.config.phases and init:
        kept = ((phases.read(job.folder / phase) or {}).get("start") or {}).get("path")
        start = phases.locate(job.folder, init["from"], kept, Path.is_dir)
        if start.name == "identity" and start.is_dir():
            seconds += _spent(start.parent, "identity")[0]
    note = arms.read_json(job.folder / "job.json")
    return {"seconds": seconds, "images_per_second": speed, "peak_memory_mib": note.get("peak_memory_mib")}


def _spent(workdir, phase):
    """Seconds that a phase took by its log, which a stopped run does not lengthen, and its median images a second."""
    rows, before, seconds, speeds = runs.read_config(workdir).phase(phase).batch, 0, 0.0, []
    for line in (workdir / phase / "scalars.jsonl").read_text().splitlines():
        entry = json.loads(line)
        seconds += (entry["step"] - before) * rows / entry["images_per_second"]
        before = entry["step"]
        speeds.append(entry["images_per_second"])
    return seconds, float(np.median(speeds))


def of_jobs(study: str, jobs: Sequence[arms.Job], reference: str) -> dict[str, Any]:
    """The table of a study as far as it has come."""
    scores: dict[str, dict[str, Scores]] = {job.arm: {} for job in jobs}
    failed, missing = {}, []
    for job in jobs:
        if arms.done(job):
            scores[job.arm][job.replicate] = read(job)
        elif sentence := arms.failure(job):
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
) -> dict[str, Any]:
    """The table as one JSON object; its `rows` are tidy, one for each (arm, method, metric).

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
    rows = []
    for arm, replicates in scores.items():
        broken = "; ".join(f"{name}: {why}" for name, why in failed.items() if name.startswith(f"{arm}/"))
        blank = dict.fromkeys(COLUMNS) | {"study": study, "arm": arm, "reference": reference, "failed": broken or None}
        spent = {name: _mean([s.cost.get(name) for s in replicates.values()]) for name in tables.COSTS}
        keys = dict.fromkeys(key for one in replicates.values() for key in one.metrics)
        for method, metric in keys:
            values = [one.metrics[method, metric] for one in replicates.values() if (method, metric) in one.metrics]
            row = blank | spent | {"method": method, "metric": metric, "seeds": len(values), "mean": _mean(values)}
            row["deviation"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            if interval := intervals.get((arm, method, metric)):
                row |= dict(zip(("difference", "low", "high", "over"), interval, strict=True))
            rows.append(row)
        if not replicates:
            rows.append(blank | {"seeds": 0})
    abouts = [one.about for replicates in scores.values() for one in replicates.values()]
    return {
        "schema": 1,
        "study": study,
        "reference": reference,
        "interval": "; ".join(f"95 % {OVER[over]}" for over in OVER if any(row["over"] == over for row in rows))
        or "none, there is nothing to compare",
        "protocol": abouts[0]["protocol"] if abouts else None,
        "datasets": sorted({about["dataset"] for about in abouts}),
        "fingerprints": sorted({about["fingerprint"] for about in abouts}),
        "attribute_nets": _attribute_nets(abouts),
        "commits": sorted({about["commit"] for about in abouts if "commit" in about}),
        "replicates": {arm: list(replicates) for arm, replicates in scores.items()},
        "failed": failed,
        "missing": list(missing),
        "rows": rows,
    }


def _attribute_nets(abouts) -> dict[str, str]:
    """Fingerprint -> name of the attribute nets; runs of older versions do not tell theirs."""
    nets = [net for about in abouts if (net := (about.get("inputs") or {}).get("attributes"))]
    return {net["fingerprint"]: net["name"] for net in nets}


def check_setting(abouts: Sequence[tuple[Path, Mapping[str, Any]]]) -> None:
    """ValueError unless runs are replicates of one setting: they may differ in seed and split, and in what is free.

    Args:
      abouts: (workdir, its results) of each.
    """
    flat = []
    for folder, about in abouts:
        if "config" in about:
            flat.append((folder, settings.OLD_DEFAULTS | settings.flat(about["config"])))
    for folder, mine in flat[1:]:
        other, first = flat[0]
        keys = sorted(
            key
            for key in mine.keys() | first.keys()
            if mine.get(key) != first.get(key) and not settings.is_in(key, (*workdir.MAY_CHANGE, *PER_REPLICATE))
        )
        if keys:
            told = "; ".join(
                f"{key} is {first.get(key)!r} in {other}, {mine.get(key)!r} in {folder}" for key in keys[:5]
            )
            raise ValueError(
                f"These runs are not replicates of one setting: {told}. Make a table of each "
                "setting, or compare them by a study with arms."
            )


def check_same(scores: Mapping[str, Mapping[str, Scores]]) -> None:
    """Raises ValueError unless what is compared was measured alike on the same images, and made of the same.

    Other images may go with another attribute net: worlds that are drawn with a net each are replicates, too.
    """
    every = [(f"{arm}/{name}", name, one) for arm, of in scores.items() for name, one in of.items()]
    first: dict[str, tuple[str, Scores]] = {}
    for label, replicate, one in every:
        for keys, other_label, other in (
            (SAME_STUDY, every[0][0], every[0][2]),
            (SAME_REPLICATE, *first.setdefault(replicate, (label, one))),
        ):
            for key in keys:
                mine, theirs = one.about.get(key), other.about.get(key)
                if mine != theirs:
                    raise ValueError(
                        f"Results of different {key} do not belong in one table: {other_label} has {theirs!r}, {label} "
                        f"has {mine!r}; evaluate them on the same prepared data with the same protocol."
                    )
    before: dict[Any, tuple[str, Mapping[str, str]]] = {}
    for label, _, one in every:
        for kind, what in MADE_OF.items():
            if not (made := (one.about.get("inputs") or {}).get(kind)):
                continue  # a ReIdCNN has no attribute net, and old runs do not tell theirs
            key = (kind, one.about["fingerprint"], made["name"] if kind == "data" else None)
            other_label, theirs = before.setdefault(key, (label, made))
            if made["fingerprint"] != theirs["fingerprint"]:
                raise ValueError(
                    f"Results of different {what} do not belong in one table: {other_label} was made with "
                    f"{theirs['name']} (fingerprint {theirs['fingerprint'][:12]}), {label} with {made['name']} "
                    f"({made['fingerprint'][:12]}); use a --workdir, or a list of runs, for each."
                )


def _intervals(scores, reference, resamples):
    """(arm, method, metric) -> interval of its difference to the reference; arms with the same replicates together."""
    base, together, found = scores.get(reference, {}), {}, {}
    for arm, replicates in scores.items():
        common = tuple(name for name in replicates if name in base)
        if arm != reference and common:
            together.setdefault(common, []).append(arm)
    for common, names in together.items():
        keys = [
            (arm, *key)
            for arm in names
            for key in scores[arm][common[0]].each
            if all(key in scores[arm][r].each and key in base[r].each for r in common)
        ]
        splits: dict[str, list[str]] = {}  # replicates that rank the same queries
        for replicate in common:
            splits.setdefault(base[replicate].about["fingerprint"], []).append(replicate)
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


def write(folder: Path, table: Mapping[str, Any]) -> None:
    """Writes table.json and table.csv into the study's folder."""
    workdir.write_json(folder / "table.json", dict(table))
    files.write_csv(folder / "table.csv", [COLUMNS, *([row[name] for name in COLUMNS] for row in table["rows"])])


def show(table: Mapping[str, Any], *, method: str | None = None, format: str = "text") -> str:
    """One method of a table for the eye: means, and differences with their intervals, in per cent."""
    return tables.render(tables.study(table, method=method), format)
