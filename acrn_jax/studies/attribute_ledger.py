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

With a rise, `attribute_gain` adds what would be gained if the attribute were recognised so much better.

Values are means over the runs (seeds, splits), with their deviation. Spearman's correlation of the weight with each
column is over attributes, and so is its bootstrap interval.

Source: Schumann and Stiefelhagen, CVPRW 2017, tables 2 and 6.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from acrn_jax import COMMAND, build, files
from acrn_jax.evaluation import calibration, correlation
from acrn_jax.results import Ledger, LedgerAttribute, LedgerNet, LedgerRun, Spearman, Spread
from acrn_jax.runs.run import recognition_of
from acrn_jax.runs.workdir import write_json
from acrn_jax.studies import attribute_gain, finished, sweeps
from acrn_jax.studies.finished import FinishedRun

OF_NETS = ("recognition", "recognition_seen", "recognition_unseen", "recognition_disjoint")
OF_RUNS = (
    "calibration_error", "reliability", "accuracy", "auc", "between_within", "mAP_change", "rank1_change",
)  # fmt: skip
COLUMNS = (*OF_NETS, *OF_RUNS)
BOOTSTRAP = "95 % bootstrap over attributes, 10,000 resamples, seed 0"

Values = dict[str, dict[str, float]]  # column -> attribute -> value; what is unknown is missing
Column = dict[str, Spread | None]  # attribute -> value over runs; None where no run knows one


def collect(
    workdirs: Sequence[Path], *, disjoint: Path | None = None, out: Path | None = None, rise: float | None = None
) -> Ledger:
    """The ledger of finished ACRN runs on one data set.

    Args:
      workdirs: evaluated runs, or folders that hold them as seed_N.
      disjoint: an attribute run that was tested on people whom its training never showed.
      out: as of `finished.load`.
      rise: of each attribute's balanced accuracy, to say what would be gained; see `attribute_gain.gains`.

    Raises:
      FileNotFoundError: no run, or it is not evaluated.
      ValueError: runs of several data sets or with different attributes; no ACRN run; a rise that is none.
    """
    if rise is not None:
        attribute_gain.check(rise)
    folders = [run for workdir in workdirs for run in _expand(Path(workdir))]
    found, nets, names, target = [], {}, (), ""
    for folder in folders:
        run = finished.load(folder, out=out)
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
    extra = [_recognition(disjoint, "_disjoint")] if disjoint else []
    table = _columns([values for _, values in found], [values for _, values in [*nets.values(), *extra]], names)
    gain = {} if rise is None else attribute_gain.gains([run for run, _ in found], rise)
    weight = {name: spread.mean for name, spread in table["weight"].items() if spread}
    order = sorted(weight, key=lambda name: -weight[name])
    return Ledger(
        target=target,
        runs=tuple(_run(run, names) for run, _ in found),
        recognition=tuple(net for net, _ in nets.values()),
        recognition_disjoint=tuple(net for net, _ in extra),
        attributes=tuple(
            LedgerAttribute.of({"name": n, "gain": gain.get(n)} | {c: table[c][n] for c in table}) for n in order
        ),
        spearman={column: rho for column in COLUMNS if (rho := _spearman(weight, table[column])).attributes},
        interval=BOOTSTRAP,
        rise=rise,
    )


def _columns(of_runs: Sequence[Values], of_nets: Sequence[Values], names: Sequence[str]) -> dict[str, Column]:
    """Weight and COLUMNS over runs, those of attribute nets over the nets."""
    table = {column: _over([values.get(column, {}) for values in of_runs], names) for column in ("weight", *OF_RUNS)}
    for column in OF_NETS:
        table[column] = _over([values[column] for values in of_nets if column in values], names)
    return {column: table[column] for column in ("weight", *COLUMNS)}


def _run(run: FinishedRun, names: Sequence[str]) -> LedgerRun:
    scores = run.results
    return LedgerRun(
        workdir=str(run.folder),
        dataset=scores.dataset,
        dev=scores.dev,
        protocol=scores.protocol,
        seed=run.config.seed,
        mAP_precision=scores.methods["ACRN"]["mAP_precision"],
        rank1=scores.methods["ACRN"]["rank1"],
        weights={name: float(w) for name, w in zip(names, run.weights, strict=True)},
    )


def _spearman(weight: Mapping[str, float], column: Column) -> Spearman:
    """Correlation of the weights with a column; None for what is undefined."""
    values = [entry.mean if (entry := column[name]) else np.nan for name in weight]
    rho = correlation.rank_correlation(list(weight.values()), values)
    value, low, high = (float(v) if np.isfinite(v) else None for v in (rho.value, rho.low, rho.high))
    return Spearman(value=value, low=low, high=high, attributes=rho.attributes)


def write(folder: Path, content: Ledger) -> None:
    """Writes ledger.json and ledger.csv, the columns' means and standard deviations."""
    write_json(folder / "ledger.json", content.to_json())
    columns = ("weight", *COLUMNS)
    of_gain = () if content.rise is None else ("gain", "gain_low", "gain_high")
    rows = [["attribute", *(name for column in columns for name in (column, f"{column}_deviation")), *of_gain]]
    for entry in content.attributes:
        spreads = [getattr(entry, column) for column in columns]
        rows.append([entry.name, *(cell for s in spreads for cell in ((s.mean, s.deviation) if s else (None, None)))])
        rows[-1] += [getattr(entry.gain, end, None) for end in ("mean", "low", "high")][: len(of_gain)]
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


def _recognition(net: Path, suffix: str) -> tuple[LedgerNet, Values]:
    """(what to say about it, its columns) of an attribute run."""
    if (whole := recognition_of(net)) is None:
        raise FileNotFoundError(f"{net} has no recognition.json; run {COMMAND} evaluate --workdir={net} first.")
    parts = {"": whole} if suffix else {"": whole, "_seen": whole.seen, "_unseen": whole.unseen}
    about = {f"mA{name}": part.mA for name, part in parts.items() if part}
    values = {f"recognition{name}{suffix}": part.rates() for name, part in parts.items() if part and part.attributes}
    return LedgerNet.of(about, workdir=str(net), dataset=whole.dataset, split=whole.split), values


def _of_run(run: FinishedRun) -> Values:
    values: Values = {"weight": {n: abs(float(w)) for n, w in zip(run.names, run.weights, strict=True)}}
    for column in ("reliability", "accuracy", "between_within"):
        known = {entry.name: getattr(entry, column) for entry in run.results.weights or ()}
        values[column] = {name: value for name, value in known.items() if value is not None}
    values |= _against_labels(run)
    sweep = sweeps.leave_one_out(run, None)
    scores = sweeps.score(run, sweep._replace(settings={a: {"ACRN": of["ACRN"]} for a, of in sweep.settings.items()}))
    for column, metric in (("mAP_change", "mAP_precision"), ("rank1_change", "rank1")):
        whole = scores["all"].metrics["ACRN", metric]
        values[column] = {n: scores[f"without_{n}"].metrics["ACRN", metric] - whole for n in run.names}
    return values


def _against_labels(run: FinishedRun) -> Values:
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


def _over(values: Sequence[Mapping[str, float]], names: Sequence[str]) -> Column:
    """Mean, standard deviation (n - 1) and number of an attribute's values, None where it has none."""
    table: Column = {}
    for name in names:
        own = [of[name] for of in values if name in of]
        std = float(np.std(own, ddof=1)) if len(own) > 1 else None
        table[name] = Spread(mean=float(np.mean(own)), deviation=std, runs=len(own)) if own else None
    return table
