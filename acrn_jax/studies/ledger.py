"""The attribute ledger: what each attribute's learned weight is, and everything that it might follow.

    weight                       size of the learned weight, abs(w): its sign changes no distance
    recognition                  mA on the attribute net's own test split
    recognition_seen, _unseen    the same, of people whom its training showed or did not show
    recognition_disjoint         mA of another attribute run, on people whom training never shows
    calibration_error            expected calibration error, 10 bins of equal width, by the target's labels
    reliability                  probability that the attribute is shown truthfully, which built-in data knows
    accuracy, auc                balanced accuracy at 0.5, area under the ROC curve, by the target's labels
    between_within               variance between people over variance within a person, on the target
    mAP_change, rank1_change     of ACRN when the attribute is left out of its distance; below 0: the attribute helps

Values are means over the runs (seeds, splits), with their deviation. Spearman's correlation of the weight with each
column is over attributes, and so is its bootstrap interval.

Source: Schumann and Stiefelhagen, CVPRW 2017, tables 2 and 6.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import build, files
from acrn_jax.evaluation import calibration, correlation
from acrn_jax.runs.workdir import write_json
from acrn_jax.studies import arms, cached

OF_NETS = ("recognition", "recognition_seen", "recognition_unseen", "recognition_disjoint")
OF_RUNS = (
    "calibration_error", "reliability", "accuracy", "auc", "between_within", "mAP_change", "rank1_change",
)  # fmt: skip
COLUMNS = (*OF_NETS, *OF_RUNS)
BOOTSTRAP = "95 % bootstrap over attributes, 10,000 resamples, seed 0"

Values = dict[str, dict[str, float]]  # column -> attribute -> value; what is unknown is missing


def collect(workdirs: Sequence[Path], *, disjoint: Path | None = None, out: Path | None = None) -> dict[str, Any]:
    """The ledger of finished ACRN runs on one data set, fit for JSON.

    Args:
      workdirs: evaluated runs, or folders that hold them as seed_N.
      disjoint: an attribute run that was tested on people whom its training never showed.
      out: as of `cached.load`.

    Raises:
      FileNotFoundError: no run, or it is not evaluated.
      ValueError: runs of several data sets or with different attributes; no ACRN run.
    """
    folders = [run for workdir in workdirs for run in _expand(Path(workdir))]
    found, nets, names, target = [], {}, (), ""
    for folder in folders:
        run = cached.load(folder, out=out)
        if found and (run.names, run.config.data.name) != (names, target):
            raise ValueError(
                f"{folder} is a run on {run.config.data.name} with {len(run.names)} attributes, {folders[0]} one on "
                f"{target} with {len(names)}; one ledger is of one data set and one list of attributes."
            )
        names, target = run.names, run.config.data.name
        print(f"{folder}: leaving out each of {len(names)} attributes", flush=True)
        found.append((run, _of_run(run)))
        net = os.path.realpath(str(run.config.attributes.from_))
        nets.setdefault(net, _recognition(Path(net), ""))
    parts = [values for _, values in found]
    extra = [_recognition(disjoint, "_disjoint")] if disjoint else []
    about = {"recognition": [about for about, _ in nets.values()], "recognition_disjoint": [a for a, _ in extra]}
    table = {column: _over([values.get(column, {}) for values in parts], names) for column in ("weight", *OF_RUNS)}
    of_nets = [values for _, values in [*nets.values(), *extra]]
    table |= {column: _over([values[column] for values in of_nets if column in values], names) for column in OF_NETS}
    weight = [table["weight"][name]["mean"] for name in names]
    correlations = {}
    for column in COLUMNS:
        values = [entry["mean"] if (entry := table[column][name]) else np.nan for name in names]
        rho = correlation.rank_correlation(weight, values)
        if rho.attributes:
            correlations[column] = {k: _number(v) for k, v in rho._asdict().items()}
    order = np.argsort(-np.array(weight), kind="stable")
    return {
        "schema": 1,
        "target": target,
        "runs": [
            {
                "workdir": str(run.folder),
                "dataset": run.results["dataset"],
                "protocol": run.results["protocol"],
                "seed": run.config.seed,
                "mAP_precision": run.results["methods"]["ACRN"]["mAP_precision"],
                "rank1": run.results["methods"]["ACRN"]["rank1"],
                "weights": {n: float(w) for n, w in zip(names, run.weights, strict=True)},
            }
            for run, _ in found
        ],
        **about,
        "attributes": [
            {"name": names[i], **{column: table[column][names[i]] for column in ("weight", *COLUMNS)}} for i in order
        ],
        "spearman": correlations,
        "interval": BOOTSTRAP,
    }


def write(folder: Path, content: dict[str, Any]) -> None:
    """Writes ledger.json and ledger.csv, the columns' means and deviations."""
    write_json(folder / "ledger.json", content)
    columns = ("weight", *COLUMNS)
    rows = [["attribute", *(name for column in columns for name in (column, f"{column}_deviation"))]]
    for entry in content["attributes"]:
        cells = [(entry[column] or {}).get(key) for column in columns for key in ("mean", "deviation")]
        rows.append([entry["name"], *cells])
    files.write_csv(folder / "ledger.csv", rows)


def _expand(folder: Path) -> list[Path]:
    if (folder / "config.json").is_file():
        return [folder]
    seeds = sorted(folder.glob("seed_*"), key=lambda path: (len(path.name), path.name))
    if found := [seed for seed in seeds if (seed / "results.json").is_file()]:
        return found
    raise FileNotFoundError(
        f"{folder} holds neither a run (config.json) nor evaluated ones (seed_N); --workdir takes what reproduce made."
    )


def _recognition(net: Path, suffix: str) -> tuple[dict[str, Any], Values]:
    """(what to say about it, its columns) of an attribute run."""
    file = net / "recognition.json"
    if not file.is_file():
        raise FileNotFoundError(f"{net} has no recognition.json; run ./launch.sh evaluate --workdir={net} first.")
    content = arms.read_json(file)
    about, values = {"workdir": str(net), **{key: content.get(key) for key in ("dataset", "split", "mA")}}, {}
    for part in ("", *(() if suffix else ("_seen", "_unseen"))):
        of = content.get(part[1:], {}) if part else content
        if part and of:
            about[f"mA{part}"] = of.get("mA")
        if of.get("attributes"):
            entries = of["attributes"]
            values[f"recognition{part}{suffix}"] = {e["name"]: e["mA"] for e in entries if e["mA"] is not None}
    return about, values


def _of_run(run: cached.Run) -> Values:
    values: Values = {"weight": {n: abs(float(w)) for n, w in zip(run.names, run.weights, strict=True)}}
    for column in ("reliability", "accuracy", "between_within"):
        entries = run.results.get("weights") or ()
        values[column] = {e["name"]: e[column] for e in entries if e.get(column) is not None}
    values |= _against_labels(run)
    sweep = cached.leave_one_out(run, None)
    scores = cached.score(run, sweep._replace(settings={a: {"ACRN": of["ACRN"]} for a, of in sweep.settings.items()}))
    for column, metric in (("mAP_change", "mAP_precision"), ("rank1_change", "rank1")):
        whole = scores["all"].metrics["ACRN", metric]
        values[column] = {n: scores[f"without_{n}"].metrics["ACRN", metric] - whole for n in run.names}
    return values


def _against_labels(run: cached.Run) -> Values:
    """Columns that want the target's labels, over its query and gallery images that show a person."""
    splits = [build.open_split(run.config, name) for name in ("query", "gallery")]
    common = [name for name in run.names if name in splits[0].attribute_names]
    if not common:
        return {}
    predictions, labels = [], []
    for split in (split.take(split.person_id > 0) for split in splits):
        found = run.run.predictions(split.name.split("/")[-1], out=run.kept)
        predictions.append(found.of(split, "probabilities")[:, [run.names.index(name) for name in common]])
        labels.append(split.attributes_of(common))
    probabilities, truth = np.concatenate(predictions), np.concatenate(labels)
    scores = {
        "calibration_error": calibration.expected_error(probabilities, truth),
        "auc": correlation.auc(probabilities, truth),
    }
    return {
        column: {n: float(v) for n, v in zip(common, of, strict=True) if np.isfinite(v)}
        for column, of in scores.items()
    }


def _over(values: list[dict[str, float]], names: Sequence[str]) -> dict[str, dict[str, Any] | None]:
    """Mean, deviation (n - 1) and number of an attribute's values, None where it has none."""
    table: dict[str, dict[str, Any] | None] = {}
    for name in names:
        own = [of[name] for of in values if name in of]
        deviation = float(np.std(own, ddof=1)) if len(own) > 1 else None
        table[name] = {"mean": float(np.mean(own)), "deviation": deviation, "runs": len(own)} if own else None
    return table


def _number(value):
    return value if isinstance(value, int) else (float(value) if np.isfinite(value) else None)
