"""Tables of result files.

Files hold fractions in [0, 1]; tables show per cent. A value is a number, None or NaN (shown as "-"), or an `Estimate`
over seeds (shown as mean ± half of its 95 % interval), so one function serves a run and an aggregate of runs.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from acrn_jax import results
from acrn_jax.evaluation.metrics import METRICS, RANKS
from acrn_jax.report import cells, published
from acrn_jax.report.seeds import OverSeeds, check_same, method_names
from acrn_jax.report.table import Table, render
from acrn_jax.results import (
    Ledger,
    LedgerAttribute,
    LedgerRun,
    Recognition,
    Results,
    Spread,
    StudyRow,
    StudyTable,
    Weight,
)

PRECISIONS = (
    "mAP prec.: the mean of the precisions at the right images; mAP trap.: the area under precision over recall by the "
    "trapezoid rule of Market-1501's code. rK: right within the first K."
)
CHOSEN = {"gamma": 3, "weights": 0}  # what arms of a study may choose -> digits
INSTANCE_METRICS = {"mA": "mA", "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}
DEV = "dev, no official split"
DISTANCES = {"squared_euclidean": "squared Euclidean", "euclidean": "Euclidean", "cosine": "cosine (1 - cosine)"}


# Methods of re-id runs


def methods_table(of: Results, *, format: str = "text") -> str:
    """The methods of one run (or of `seeds.aggregate`) as "text", "markdown" or "latex"."""
    return render(methods(of), format)


def methods(of: Results) -> Table:
    """Rows in schema.METHODS' order, missing ones left out, each followed by the paper's on the paper's data sets."""
    paper = _published(of)
    rows = []
    for name in method_names(of):
        values, std = of.methods[name], (of.deviation or {}).get(name, {})
        row = (cells.percent_over_repeats(values.get(metric), std.get(metric)) for metric in METRICS)
        rows.append((name, *row))
        if paper and name in paper.methods:
            rows.append(_published_row(f"{name}, paper", paper, paper.methods[name]))
    return Table(describe(of), _metric_columns("method"), rows, " ".join(_notes_of_methods(of, paper)))


def _notes_of_methods(of: Results, paper: published.Published | None) -> list[str]:
    notes = []
    if paper:
        notes.append(f'Rows named "paper": {paper.title}; its mAP is our {METRICS[paper.mean_average_precision].title}')
        if of.protocol not in paper.protocols or of.partial:
            notes.append("This run's protocol or part of the data set is another than the paper's: do not compare.")
    notes.append(PRECISIONS)
    if of.deviation and _runs_aggregated(of) == 1:
        notes.append(f"± is the standard deviation over {(of.protocol_options or {}).get('repeats', '?')} draws.")
    notes += of.hints
    if isinstance(of, OverSeeds) and of.excluded:
        notes.append(f"Not in every run, so left out: {', '.join(of.excluded)}.")
    return notes


def others(of: Results) -> Table | None:
    """Other systems that the paper's table lists for this data set, or None where it has no such table."""
    paper = _published(of)
    if not paper:
        return None
    rows = [_published_row(name, paper, values) for name, values in paper.others.items()]
    return Table(f"Other systems in the paper ({paper.title})", _metric_columns("method"), rows)


def comparison(runs: Mapping[str, Results]) -> Table:
    """Several runs' methods in one table, {name: results}.

    Raises:
      ValueError: the runs do not share data set, split, protocol and fingerprint.
    """
    check_same(list(runs.values()), list(runs))
    rows = [
        (f"{method} [{run}]", *(cells.percent(of.methods[method].get(metric)) for metric in METRICS))
        for method in dict.fromkeys(m for of in runs.values() for m in method_names(of))
        for run, of in runs.items()
        if method in of.methods
    ]
    nets = {run: net for run, of in runs.items() if (net := results.source(of.made_of, "attributes"))}
    several = len({net.fingerprint for net in nets.values()}) > 1
    named = "; ".join(f"{run}: {net.name} ({net.fingerprint[:12]})" for run, net in nets.items())
    note = f"The runs have different attribute nets: {named}." if several else ""
    caption = f"Runs beside each other: {describe(next(iter(runs.values())))}"
    return Table(caption, _metric_columns("method"), rows, note)


def describe(of: Results) -> str:
    """Data set, protocol and sizes in one line."""
    text = (
        f"{of.dataset}{_dev(of)}, {of.split}{_trained_elsewhere(of)}, protocol {of.protocol}{_options(of)}: "
        f"{cells.count(of.queries)} queries, {cells.count(of.gallery)} gallery images"
    )
    if of.partial:
        text += ", part of the data set only"
    if of.people_seen_in_training:
        text += f", {of.people_seen_in_training} people of train among them"
    if of.queries_without_match:
        text += f", {of.queries_without_match} queries without a match ({of.no_match or ''})"
    return text + _over_runs(of)


def distance(of: Results) -> str:
    """What the distances of a run's rank lists are made of, as one sentence; none where its results do not say."""
    loss, scales = of.config.get("loss") or {}, of.scales or {}
    if "distance" not in loss:
        return ""
    kind = f"{DISTANCES.get(loss['distance'], loss['distance'])} distances"
    if of.gamma is None:
        return f"d = d_f: {kind} of features, as they are."
    plain = not scales or scales["feature"] == scales["attribute"] == 1
    formula = f"d_f + {of.gamma:g} d_w" if plain else f"d_f / s_f + {of.gamma:g} d_w / s_a"
    values = (
        "not scaled" if plain else ", ".join(f"s_{name[0]} = {scales[name]:.3g}" for name in ("feature", "attribute"))
    )
    return f"d = {formula}: {kind} of features (d_f) and of weighted attributes (d_w), {values}."


def _metric_columns(first: str) -> tuple[str, ...]:
    return (first, *(metric.title for metric in METRICS.values()))


def _published(of: Results) -> published.Published | None:
    if _trained_elsewhere(of) or of.dev:
        return None  # the paper trains and tests on one data set, by its official split
    # The paper's CUHK03 is the detected one.
    return None if "labeled" in of.dataset else published.PAPER.get(of.dataset.split("/")[0])


def _published_row(title: str, paper: published.Published, values: Sequence[float | None]) -> tuple[str, ...]:
    by_metric = dict(zip((paper.mean_average_precision, *(f"rank{k}" for k in RANKS)), values, strict=True))
    return (title, *(cells.printed(by_metric.get(metric)) for metric in METRICS))


def _trained_elsewhere(of: Results | Recognition) -> str:
    text = "" if of.trained_on in (None, of.dataset) else f", trained on {of.trained_on}"
    if of.unfinished:
        text += f", NOT FINISHED: step {cells.count(of.unfinished.step)} of {cells.count(of.unfinished.steps)}"
    return text


def _dev(of: Results | Recognition | LedgerRun | StudyTable) -> str:
    return f" ({DEV})" if of.dev else ""


def _options(of: Results) -> str:
    options = of.protocol_options or {}
    return f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else ""


def _runs_aggregated(of: Results) -> int:
    return of.runs_aggregated if isinstance(of, OverSeeds) else 1


def _over_runs(of: Results) -> str:
    count = _runs_aggregated(of)
    return f"; mean and 95 % interval over {count} runs" if count > 1 else ""


# Learned weights


def weights_table(of: Results, *, format: str = "text") -> str:
    """Attributes by learned weight (the paper's table 6), with what is known of their reliability."""
    return render(weights(of), format)


def weights(of: Results) -> Table:
    """Attributes by |learned weight|, largest first; columns that no attribute has are left out."""
    entries = by_weight(of)
    columns: dict[str, tuple[str, Callable[..., str]]] = {"weight": ("weight", cells.number)}
    for key, title, text in (
        ("reliability", "true reliability", cells.percent),
        ("accuracy", "balanced accuracy", cells.percent),
        ("between_within", "between / within", cells.number),
    ):
        if any(cells.finite(getattr(entry, key)) for entry in entries):
            columns[key] = (title, text)
    rows = [
        (cells.attribute(entry.name), *(text(getattr(entry, key)) for key, (_, text) in columns.items()))
        for entry in entries
    ]
    notes = []
    if cells.finite(of.spearman_weight_reliability):
        notes.append(f"Spearman of weight and reliability: {cells.number(of.spearman_weight_reliability, 2)}.")
    if paper := _published(of):
        highest, lowest = paper.weights
        notes.append(f"The paper's highest: {highest}; its lowest: {lowest}.")
    caption = f"Attributes by learned weight on {of.dataset}{_dev(of)}{_over_runs(of)}"
    return Table(caption, ("attribute", *(title for title, _ in columns.values())), rows, " ".join(notes))


def by_weight(of: Results) -> list[Weight]:
    """The learned weights, largest absolute weight first, undefined ones last."""

    def size(entry: Weight) -> float:
        return abs(cells.mean(entry.weight) or 0.0) if cells.finite(entry.weight) else -1.0

    return sorted(of.weights or (), key=size, reverse=True)


# Recognition of attributes


def recognition_table(recognition: Recognition) -> str:
    """How well attributes are recognised: all together, then each (the paper's tables 1 and 2)."""
    return f"{render(recognition_summary(recognition))}\n{render(recognition_attributes(recognition))}"


def recognition_summary(recognition: Recognition) -> Table:
    """The mA and the four instance metrics: over all test images, people seen in training, people not seen."""
    rows = [
        (title, *(cells.percent(getattr(part, metric)) for metric in INSTANCE_METRICS))
        for title, part in (
            ("all", recognition),
            ("people seen in training", recognition.seen),
            ("people not seen", recognition.unseen),
        )
        if part
    ]
    threshold = recognition.threshold
    several = isinstance(threshold, tuple)
    note = "A threshold per attribute." if several else f"Threshold {cells.number(threshold, 2)}."
    if calibrated := recognition.calibrated:
        target = INSTANCE_METRICS.get(calibrated.target, calibrated.target)
        note += f" Each has the best {target} on {calibrated.split}."
    if recognition.undefined:
        note += f" Attributes without a positive or a negative image, and so without mA: {recognition.undefined}."
    if trained := recognition.images_trained_on:
        note += f" The net was trained on {trained:,} of these images."
        note += "" if recognition.unseen else " Nothing is left for scores of people whom training did not show."
    if recognition.dataset.startswith("peta"):
        rates = ", ".join(f"{name} {mA}" for name, mA in published.RECOGNITION.items())
        note += f" The paper's mA on PETA: {rates}."
    on = f"{recognition.dataset}{_dev(recognition)}, {recognition.split}{_trained_elsewhere(recognition)}"
    caption = f"Attribute recognition on {on}"
    return Table(caption, ("images of", *INSTANCE_METRICS.values()), rows, note)


def recognition_attributes(recognition: Recognition) -> Table:
    """Attributes by mA, best first, undefined ones last; the paper's beside ours on PETA."""
    entries = sorted(recognition.attributes, key=lambda entry: -entry.mA if cells.finite(entry.mA) else math.inf)
    on_peta = recognition.dataset.startswith("peta")
    rows = [
        (
            cells.attribute(entry.name),
            cells.percent(entry.mA),
            *([cells.printed(published.ATTRIBUTES.get(entry.name))] if on_peta else []),
            cells.count(entry.positives),
            cells.count(entry.negatives),
        )
        for entry in entries
    ]
    columns = ("attribute", "mA", *(["paper"] if on_peta else []), "positives", "negatives")
    return Table(f"Attributes by recognition rate on {recognition.dataset}{_dev(recognition)}", columns, rows)


# The attribute ledger

LEDGER = {  # column of a ledger: title, in per cent or not
    "recognition": ("mA", True),
    "recognition_seen": ("mA seen", True),
    "recognition_unseen": ("mA unseen", True),
    "recognition_disjoint": ("mA disjoint", True),
    "calibration_error": ("ECE", True),
    "reliability": ("known", True),
    "accuracy": ("accuracy", True),
    "auc": ("AUC", True),
    "between_within": ("between / within", False),
    "mAP_change": ("mAP without", True),
    "rank1_change": ("r1 without", True),
}


def ledger(content: Ledger) -> Table:
    """The attribute ledger, the largest weight first; columns that no attribute has are left out."""
    columns = [c for c in LEDGER if any(getattr(entry, c) for entry in content.attributes)]

    def row(entry: LedgerAttribute) -> tuple[str, ...]:
        texts = (_spread(getattr(entry, c), LEDGER[c][1], sign=c.endswith("_change")) for c in columns)
        return (cells.attribute(entry.name), _spread(entry.weight), *texts)

    count = len(content.runs)
    notes = ["Weight: its size." + (" ±: standard deviation over runs." if count > 1 else "")]
    if "recognition" in columns:
        notes.append(f"mA: recognition on {', '.join(str(net.dataset) for net in content.recognition)}.")
    if "recognition_disjoint" in columns and content.recognition_disjoint:
        disjoint = content.recognition_disjoint[0].dataset
        notes.append(f"Disjoint: on {disjoint}, people whom training never shows.")
    if {"calibration_error", "accuracy", "auc"} & set(columns):
        notes.append("ECE, balanced accuracy and AUC: against the target's labels.")
    notes.append("Without: change of ACRN's scores when the attribute is left out; below 0, the attribute helps.")
    dev = next((_dev(run) for run in content.runs if run.dev), "")
    caption = f"Attribute ledger on {content.target}{dev}, {count} run{'s' * (count > 1)}"
    titles = ("attribute", "weight", *(LEDGER[c][0] for c in columns))
    return Table(caption, titles, [row(entry) for entry in content.attributes], " ".join(notes))


def ledger_spearman(content: Ledger) -> Table:
    """What the weights of a ledger follow: Spearman's correlation with each column."""
    rows = []
    for column, entry in content.spearman.items():
        interval = f"{entry.low:+.2f} to {entry.high:+.2f}" if cells.finite(entry.low) else "-"
        value = f"{entry.value:+.2f}" if cells.finite(entry.value) else "-"
        title = LEDGER[column][0] if column in LEDGER else column
        rows.append((title, value, interval, cells.count(entry.attributes)))
    columns = ("weight's size and", "Spearman", "95 % interval", "attributes")
    return Table("What attribute weights follow", columns, rows, f"{content.interval.capitalize()}.")


def ledger_gain(content: Ledger) -> Table | None:
    """What better recognition of each attribute would give, the largest gain first; None if the ledger has no gains."""
    known = [(entry.name, entry.gain) for entry in content.attributes if entry.gain]
    rows = [
        (
            cells.attribute(name),
            cells.percent(gain.accuracy),
            f"{100 * gain.mean:+.2f}",
            f"{100 * gain.low:+.2f} to {100 * gain.high:+.2f}" if cells.finite(gain.low) else "-",
        )
        for name, gain in sorted(known, key=lambda pair: -pair[1].mean)
    ]
    note = (
        "Points of ACRN's mAP (precision) if so many more of the net's answers for this attribute alone were right, "
        "drawn image by image. Intervals are over people and, of several runs, seeds or splits; they are not corrected "
        "for the number of attributes."
    )
    rise = f"balanced accuracy raised by {100 * (content.rise or 0):g} points"
    caption = f"Which attribute to label: {rise} on {content.target}"
    return Table(caption, ("attribute", "accuracy", "mAP gained", "95 % interval"), rows, note) if known else None


def _spread(entry: Spread | None, per_cent: bool = False, *, sign: bool = False) -> str:
    """Mean and standard deviation of a ledger's entry."""
    if not entry:
        return "-"
    factor, digits = (100, 2 if sign else 1) if per_cent else (1, 3)
    text = f"{factor * entry.mean:{'+' if sign else ''}.{digits}f}"
    return text if entry.deviation is None else f"{text} ± {factor * entry.deviation:.{digits}f}"


# Studies

COSTS = {"seconds": "s", "images_per_second": "images/s", "peak_memory_mib": "MiB"}


def study(content: StudyTable, *, method: str | None = None) -> Table:
    """One method's arms of a study: means, and differences to the reference with their intervals.

    Raises:
      ValueError: the study has no such method.
    """
    known = list(dict.fromkeys(row.method for row in content.rows if row.method))
    if method and known and method not in known:
        raise ValueError(f"The table has no method {method!r}; it has {', '.join(known)}.")
    method = method or ("ACRN" if "ACRN" in known else next(iter(known), None))
    by_cell = {(row.arm, row.metric): row for row in content.rows if row.method == method}
    metrics = [m for m in ("mAP_precision", "rank1", "mA", "f1") if any(metric == m for _, metric in by_cell)]
    costs = [c for c in COSTS if any(getattr(row, c) is not None for row in by_cell.values())]  # settings have none
    titles = {name: entry.title for name, entry in METRICS.items()} | INSTANCE_METRICS
    chosen = [number for number in CHOSEN if any(metric == number for _, metric in by_cell)]
    columns, breaks = ["arm", "seeds"], []
    for metric in metrics:
        breaks.append(len(columns))
        columns += [titles[metric], "± sd", "change", "95 %"]
    rows = []
    for arm in dict.fromkeys(row.arm for row in content.rows):
        of_arm = [by_cell.get((arm, metric)) for metric in metrics]
        first = next(filter(None, of_arm), StudyRow(arm=arm, seeds=0))
        scores = [text for row in of_arm for text in _study_cells(row or StudyRow(arm=arm, seeds=0))]
        ours = [cells.number(row.mean, CHOSEN[n]) if (row := by_cell.get((arm, n))) else "-" for n in chosen]
        rows.append((arm, str(first.seeds), *scores, *ours, *(cells.number(getattr(first, c), 0) for c in costs)))
    breaks.append(len(columns))
    columns += [*chosen, *(COSTS[cost] for cost in costs)]
    return Table(_study_caption(content, method), tuple(columns), rows, _study_notes(content), tuple(breaks))


def _study_cells(row: StudyRow) -> tuple[str, ...]:
    """Mean, standard deviation, difference and its interval."""
    ends = [cells.signed_percent(end) for end in (row.low, row.high)]
    interval = "-" if "-" in ends else " to ".join(ends)
    return cells.percent(row.mean), cells.percent(row.deviation), cells.signed_percent(row.difference), interval


def _study_notes(content: StudyTable) -> str:
    notes = [f"Interval: {content.interval}."]
    if len(content.attribute_nets) > 1:  # of replicates on different data
        notes.append(f"{len(content.attribute_nets)} attribute nets: {', '.join(content.attribute_nets.values())}.")
    notes += [f"failed: {name}: {why}" for name, why in content.failed.items()]
    if content.missing:
        notes.append(f"not there yet: {', '.join(content.missing)}.")
    return "\n".join(notes)


def _study_caption(content: StudyTable, method: str | None) -> str:
    first, *more = content.datasets or ("nothing",)
    on = f"{first} and {len(more)} more" if more else first
    caption = f"{content.study}, {method or 'no method'} on {on}{_dev(content)}, protocol {content.protocol}"
    return f"{caption}, change over {content.reference}"
