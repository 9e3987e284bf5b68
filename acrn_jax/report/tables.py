"""Tables of a run's results, as terminal text, Markdown, LaTeX, or (through report/html.py) HTML.

Files hold fractions in [0, 1]; tables show per cent. A value is a number, None or NaN (shown as "-"), or an `Estimate`
over seeds (shown as mean ± half of its 95 % interval), so one function serves a run and an aggregate of runs.
"""

import math
import shutil
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import schema
from acrn_jax.evaluation.metrics import METRICS, RANKS
from acrn_jax.report import paper

PRECISIONS = (
    "mAP prec.: the mean of the precisions at the right images; mAP trap.: the area under precision over recall by the "
    "trapezoid rule of Market-1501's code. rK: right within the first K."
)
SAME = (
    "dataset", "split", "protocol", "protocol_options", "no_match", "fingerprint", "queries", "gallery", "partial",
    "unfinished",
)  # fmt: skip
INSTANCE_METRICS = {"mA": "mA", "accuracy": "accuracy", "precision": "precision", "recall": "recall", "f1": "F1"}


class Table(NamedTuple):
    """A caption, column titles, and rows of ready text; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    breaks: tuple[int, ...] = ()  # columns that a new block begins with best, where a page is too narrow for one


class Estimate(NamedTuple):
    """Mean over seeds, their standard deviation (n - 1), and half the width of the mean's 95 % interval."""

    mean: float
    deviation: float
    half_width: float


def methods_table(results: Mapping[str, Any], *, format: str = "text") -> str:
    """The methods of one results.json (or of `aggregate`) as "text", "markdown" or "latex"."""
    return render(methods(results), format)


def weights_table(results: Mapping[str, Any], *, format: str = "text") -> str:
    """Attributes by learned weight (the paper's table 6), with what is known of their reliability."""
    return render(weights(results), format)


def recognition_table(recognition: Mapping[str, Any], *, format: str = "text") -> str:
    """How well attributes are recognised: all together, then each (the paper's tables 1 and 2)."""
    return f"{render(recognition_summary(recognition), format)}\n{render(recognition_attributes(recognition), format)}"


def methods(results: Mapping[str, Any]) -> Table:
    """Rows in schema.METHODS' order, missing ones left out, each followed by the paper's on the paper's data sets."""
    published = _published(results)
    rows = []
    for name in method_names(results):
        spread = (results.get("deviation") or {}).get(name, {})
        values = results["methods"][name]
        rows.append((name, *(_drawn_percent(values.get(metric), spread.get(metric)) for metric in METRICS)))
        if published and name in published.methods:
            rows.append(_paper_row(f"{name}, paper", published, published.methods[name]))
    notes = []
    if published:
        notes.append(
            f'Rows named "paper": {published.title}; its mAP is our {METRICS[published.mean_average_precision].title}'
        )
        if results["protocol"] not in published.protocols or results.get("partial"):
            notes.append("This run's protocol or part of the data set is another than the paper's: do not compare.")
    notes.append(PRECISIONS)
    if results.get("deviation") and results.get("runs_aggregated", 1) == 1:
        notes.append(f"± is the standard deviation over {results['protocol_options']['repeats']} draws.")
    notes += results.get("hints") or ()
    if results.get("left_out"):
        notes.append(f"Not in every run, so left out: {', '.join(results['left_out'])}.")
    return Table(describe(results), _columns(), rows, " ".join(notes))


def _columns() -> tuple[str, ...]:
    return ("method", *(metric.title for metric in METRICS.values()))


def others(results: Mapping[str, Any]) -> Table | None:
    """Other systems that the paper's table lists for this data set, or None where it has no such table."""
    published = _published(results)
    if not published:
        return None
    rows = [_paper_row(name, published, values) for name, values in published.others.items()]
    return Table(
        f"Other systems in the paper ({published.title})",
        _columns(),
        rows,
    )


def comparison(runs: Mapping[str, Mapping[str, Any]]) -> Table:
    """Several runs' methods in one table, {name: results}.

    Raises:
      ValueError: the runs do not share data set, split, protocol and fingerprint.
    """
    check_same(list(runs.values()), list(runs))
    rows = [
        (f"{method} [{run}]", *(_percent(results["methods"][method].get(metric)) for metric in METRICS))
        for method in dict.fromkeys(m for results in runs.values() for m in method_names(results))
        for run, results in runs.items()
        if method in results["methods"]
    ]
    nets = {run: net for run, results in runs.items() if (net := _made_of(results, "attributes"))}
    several = len({net["fingerprint"] for net in nets.values()}) > 1
    told = "; ".join(f"{run}: {net['name']} ({net['fingerprint'][:12]})" for run, net in nets.items())
    note = f"The runs have different attribute nets: {told}." if several else ""
    caption = f"Runs beside each other: {describe(next(iter(runs.values())))}"
    return Table(caption, _columns(), rows, note)


def weights(results: Mapping[str, Any]) -> Table:
    """Attributes by |learned weight|, largest first; columns that no attribute has are left out."""
    items = by_weight(results)
    columns = {"weight": ("weight", _number)}
    for key, title, show in (
        ("reliability", "true reliability", _percent),
        ("accuracy", "balanced accuracy", _percent),
        ("between_within", "between / within", _number),
    ):
        if any(finite(item.get(key)) for item in items):
            columns[key] = (title, show)
    rows = [(display(item["name"]), *(show(item.get(key)) for key, (_, show) in columns.items())) for item in items]
    notes = []
    if finite(results.get("spearman_weight_reliability")):
        notes.append(f"Spearman of weight and reliability: {_number(results['spearman_weight_reliability'], 2)}.")
    if published := _published(results):
        highest, lowest = published.weights
        notes.append(f"The paper's highest: {highest}; its lowest: {lowest}.")
    caption = f"Attributes by learned weight on {results['dataset']}{_seeds(results)}"
    return Table(caption, ("attribute", *(title for title, _ in columns.values())), rows, " ".join(notes))


def recognition_summary(recognition: Mapping[str, Any]) -> Table:
    """The mA and the four instance metrics: over all test images, people seen in training, people not seen."""
    rows = [
        (title, *(_percent(part.get(key)) for key in INSTANCE_METRICS))
        for title, part in (
            ("all", recognition),
            ("people seen in training", recognition.get("seen")),
            ("people not seen", recognition.get("unseen")),
        )
        if part
    ]
    threshold = recognition.get("threshold")
    note = "A threshold per attribute." if isinstance(threshold, list) else f"Threshold {_number(threshold, 2)}."
    if calibrated := recognition.get("calibrated"):
        note += f" Each has the best {INSTANCE_METRICS[calibrated['target']]} on {calibrated['split']}."
    if recognition.get("undefined"):
        note += f" Attributes without a positive or a negative image, and so without mA: {recognition['undefined']}."
    if str(recognition["dataset"]).startswith("peta"):
        note += f" The paper's mA on PETA: {', '.join(f'{name} {mA}' for name, mA in paper.RECOGNITION.items())}."
    caption = f"Attribute recognition on {recognition['dataset']}, {recognition.get('split', 'test')}"
    return Table(caption + _elsewhere(recognition), ("images of", *INSTANCE_METRICS.values()), rows, note)


def recognition_attributes(recognition: Mapping[str, Any]) -> Table:
    """Attributes by mA, best first, undefined ones last; the paper's beside ours on PETA."""
    items = sorted(
        recognition.get("attributes") or (), key=lambda item: -item["mA"] if finite(item.get("mA")) else math.inf
    )
    on_peta = str(recognition["dataset"]).startswith("peta")
    rows = [
        (
            display(item["name"]),
            _percent(item.get("mA")),
            *([_plain(paper.ATTRIBUTES.get(item["name"]))] if on_peta else []),
            _count(item.get("positives")),
            _count(item.get("negatives")),
        )
        for item in items
    ]
    columns = ("attribute", "mA", *(["paper"] if on_peta else []), "positives", "negatives")
    return Table(f"Attributes by recognition rate on {recognition['dataset']}", columns, rows)


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


def ledger(content: Mapping[str, Any]) -> Table:
    """The attribute ledger of a ledger.json, the largest weight first; columns that no attribute has are left out."""
    columns = [c for c in LEDGER if any(entry.get(c) for entry in content["attributes"])]
    rows = [
        (
            display(entry["name"]),
            _spread(entry["weight"]),
            *(_spread(entry.get(c), LEDGER[c][1], sign=c.endswith("_change")) for c in columns),
        )
        for entry in content["attributes"]
    ]
    count = len(content["runs"])
    notes = ["Weight: its size." + (" ±: standard deviation over runs." if count > 1 else "")]
    if "recognition" in columns:
        notes.append(f"mA: recognition on {', '.join(str(about['dataset']) for about in content['recognition'])}.")
    if "recognition_disjoint" in columns:
        notes.append(f"Disjoint: on {content['recognition_disjoint'][0]['dataset']}, people whom training never shows.")
    if {"calibration_error", "accuracy", "auc"} & set(columns):
        notes.append("ECE, balanced accuracy and AUC: against the target's labels.")
    notes.append("Without: change of ACRN's scores when the attribute is left out; below 0, the attribute helps.")
    caption = f"Attribute ledger on {content['target']}, {count} run{'s' * (count > 1)}"
    return Table(caption, ("attribute", "weight", *(LEDGER[c][0] for c in columns)), rows, " ".join(notes))


def ledger_spearman(content: Mapping[str, Any]) -> Table:
    """What the weights of a ledger.json follow: Spearman's correlation with each column."""
    rows = []
    for column, entry in content["spearman"].items():
        ends = f"{entry['low']:+.2f} to {entry['high']:+.2f}" if finite(entry["low"]) else "-"
        value = f"{entry['value']:+.2f}" if finite(entry["value"]) else "-"
        rows.append((LEDGER[column][0], value, ends, _count(entry["attributes"])))
    columns = ("weight's size and", "Spearman", "95 % interval", "attributes")
    return Table("What attribute weights follow", columns, rows, f"{content['interval'].capitalize()}.")


COSTS = {"seconds": "s", "images_per_second": "images/s", "peak_memory_mib": "MiB"}


def study(content: Mapping[str, Any], *, method: str | None = None) -> Table:
    """One method's arms of a study's table.json: means, and differences to the reference with their intervals.

    Raises:
      ValueError: the study has no such method.
    """
    methods = list(dict.fromkeys(row["method"] for row in content["rows"] if row["method"]))
    if method and methods and method not in methods:
        raise ValueError(f"The table has no method {method!r}; it has {', '.join(methods)}.")
    method = method or ("ACRN" if "ACRN" in methods else next(iter(methods), None))
    cells = {(row["arm"], row["metric"]): row for row in content["rows"] if row["method"] == method}
    metrics = [m for m in ("mAP_precision", "rank1", "mA", "f1") if any(metric == m for _, metric in cells)]
    told = [c for c in COSTS if any(row[c] is not None for row in cells.values())]  # not of settings of finished runs

    def signed(value):
        return f"{100 * value:+.1f}" if finite(value) else "-"

    columns, rows, breaks = ["arm", "seeds"], [], []
    for metric in metrics:
        breaks.append(len(columns))
        columns += [METRICS[metric].title if metric in METRICS else INSTANCE_METRICS[metric], "± sd", "change", "95 %"]
    for arm in dict.fromkeys(row["arm"] for row in content["rows"]):
        found = [cells.get((arm, metric), {}) for metric in metrics]
        line = [arm, str(next((row["seeds"] for row in found if row), 0))]
        for row in found:
            ends = [signed(row.get(end)) for end in ("low", "high")]
            interval = "-" if "-" in ends else " to ".join(ends)
            line += [_percent(row.get("mean")), _percent(row.get("deviation")), signed(row.get("difference")), interval]
        first = next(filter(None, found), {})
        rows.append((*line, *(_number(first.get(cost), 0) for cost in told)))
    notes = [f"Interval: {content['interval']}."]
    if len(nets := content.get("attribute_nets") or {}) > 1:  # of replicates on different data
        notes.append(f"{len(nets)} attribute nets: {', '.join(nets.values())}.")
    notes += [f"failed: {name}: {why}" for name, why in content["failed"].items()]
    if content["missing"]:
        notes.append(f"not there yet: {', '.join(content['missing'])}.")
    first, *others = content["datasets"] or ["nothing"]
    on = f"{first} and {len(others)} more" if others else first
    caption = f"{content['study']}, {method or 'no method'} on {on}, protocol {content['protocol']}"
    caption += f", change over {content['reference']}"
    return Table(caption, (*columns, *(COSTS[c] for c in told)), rows, "\n".join(notes), (*breaks, len(columns)))


def _spread(entry: Mapping[str, Any] | None, per_cent: bool = False, *, sign: bool = False) -> str:
    """Mean and deviation of a ledger's entry."""
    if not entry:
        return "-"
    factor, digits = (100, 2 if sign else 1) if per_cent else (1, 3)
    shown = f"{factor * entry['mean']:{'+' if sign else ''}.{digits}f}"
    return shown if entry["deviation"] is None else f"{shown} ± {factor * entry['deviation']:.{digits}f}"


def aggregate(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Results of several seeds as one: metrics and weights become `Estimate`s.

    Args:
      runs: contents of results.json files, one a seed, all on the same data and protocol.

    Returns:
      the first run's entries, with "methods", "weights" and "spearman_weight_reliability" over seeds, "runs_aggregated"
      (how many) and "left_out" (methods that some run lacks).

    Raises:
      ValueError: no run, or runs of different data sets, protocols or fingerprints; names the difference.
    """
    if not runs:
        raise ValueError("There are no results to aggregate; give at least one run.")
    check_same(runs, [f"run {i + 1}" for i in range(len(runs))])
    if len(runs) == 1:
        return {**runs[0], "runs_aggregated": 1}
    names = method_names(runs[0])
    common = [name for name in names if all(name in run["methods"] for run in runs)]
    weighted = [{item["name"]: item for item in run.get("weights") or ()} for run in runs]
    return {
        **runs[0],
        "methods": {
            name: {metric: estimate(run["methods"][name].get(metric) for run in runs) for metric in METRICS}
            for name in common
        },
        "weights": [
            {
                "name": name,
                "reliability": weighted[0][name].get("reliability"),  # a property of the data, not of a seed
                **{
                    key: estimate(items[name].get(key) for items in weighted)
                    for key in ("weight", "accuracy", "between_within")
                },
            }
            for name in weighted[0]
            if all(name in items for items in weighted)
        ],
        "spearman_weight_reliability": estimate(run.get("spearman_weight_reliability") for run in runs),
        "runs_aggregated": len(runs),
        "left_out": list(dict.fromkeys(m for run in runs for m in method_names(run) if m not in common)),
    }


def check_same(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raises ValueError unless all runs were measured on the same images by the same rules; names the difference."""
    for name, run in zip(names, runs, strict=True):
        for key in SAME:
            if run.get(key) != runs[0].get(key):
                raise ValueError(
                    f"Results of different {key} do not belong in one table: {names[0]} has {runs[0].get(key)!r}, "
                    f"{name} has {run.get(key)!r}; evaluate them on the same prepared data with the same protocol."
                )


def check_made_of(runs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Raises ValueError unless all runs were made with one attribute net and of one training set; names both.

    Results of older versions do not tell, and pass.
    """
    for kind, what in (("attributes", "attribute nets"), ("data", "training images")):
        made = [(name, one) for name, run in zip(names, runs, strict=True) if (one := _made_of(run, kind))]
        for name, one in made[1:]:
            first, other = made[0]
            if one["fingerprint"] != other["fingerprint"]:
                raise ValueError(
                    f"Seeds of different {what} have no common mean: {first} has {other['name']} (fingerprint "
                    f"{other['fingerprint'][:12]}), {name} has {one['name']} ({one['fingerprint'][:12]}); keep each "
                    "in a --workdir of its own."
                )


def _made_of(results: Mapping[str, Any], kind: str) -> Mapping[str, str] | None:
    """An input of the run's last phase: name and fingerprint."""
    return ((results.get("made_of") or {}).get("run") or {}).get(kind)


def estimate(values: Iterable[float | None]) -> Estimate | None:
    """Mean, deviation and 95 % t-interval; None if a run has no value, deviation NaN for a single run."""
    values = list(values)
    if not values or not all(finite(value) for value in values):
        return None
    if len(values) == 1:
        return Estimate(float(values[0]), math.nan, math.nan)
    deviation = float(np.std(values, ddof=1))
    return Estimate(float(np.mean(values)), deviation, t_quantile(len(values) - 1) * deviation / math.sqrt(len(values)))


def t_quantile(degrees: int, coverage: float = 0.95) -> float:
    """Half-width in standard errors that covers `coverage` of Student's t with `degrees` >= 1 degrees of freedom.

    With t = sqrt(degrees) tan(angle) the density becomes cos(angle)^(degrees - 1) on [0, pi / 2): no tail to cut off.
    """
    angle = np.linspace(0.0, math.pi / 2, 100_001)
    density = np.cos(angle) ** (degrees - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(float(np.interp(coverage, share / share[-1], angle)))


KINDS = {"squared_euclidean": "squared Euclidean", "euclidean": "Euclidean", "cosine": "cosine (1 - cosine)"}


def distance(results: Mapping[str, Any]) -> str:
    """What the distances of a run's rank lists are made of, as one sentence; none where its results do not say."""
    loss, scales = (results.get("config") or {}).get("loss") or {}, results.get("scales") or {}
    if "distance" not in loss:
        return ""
    kind = f"{KINDS.get(loss['distance'], loss['distance'])} distances"
    if results.get("gamma") is None:
        return f"d = d_f: {kind} of features, as they are."
    plain = not scales or scales["feature"] == scales["attribute"] == 1
    made = f"d_f + {results['gamma']:g} d_w" if plain else f"d_f / s_f + {results['gamma']:g} d_w / s_a"
    values = (
        "not scaled" if plain else ", ".join(f"s_{name[0]} = {scales[name]:.3g}" for name in ("feature", "attribute"))
    )
    return f"d = {made}: {kind} of features (d_f) and of weighted attributes (d_w), {values}."


def describe(results: Mapping[str, Any]) -> str:
    """Data set, protocol and sizes in one line."""
    return (
        f"{results['dataset']}, {results.get('split', 'query/gallery')}{_elsewhere(results)}, protocol "
        f"{results['protocol']}{_options(results)}: "
        f"{_count(results.get('queries'))} queries, {_count(results.get('gallery'))} gallery images"
        + (", part of the data set only" if results.get("partial") else "")
        + (
            f", {results['people_seen_in_training']} people of train among them"
            if results.get("people_seen_in_training")
            else ""
        )
        + (
            f", {results['queries_without_match']} queries without a match ({results.get('no_match', '')})"
            if results.get("queries_without_match")
            else ""
        )
        + _seeds(results)
    )


def method_names(results: Mapping[str, Any]) -> list[str]:
    """The methods that the results hold, the known ones first and in schema.METHODS' order."""
    known = [name for name in schema.METHODS if name in results["methods"]]
    return known + [name for name in results["methods"] if name not in schema.METHODS]


def by_weight(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Entries of "weights", largest absolute weight first."""
    return sorted(
        results.get("weights") or (), key=lambda item: -abs(mean(item["weight"])) if finite(item["weight"]) else 1
    )


def display(attribute: str) -> str:
    """The literature's name of a PETA attribute; other names as they are."""
    return paper.DISPLAY.get(attribute, attribute)


def mean(value: float | Estimate | None) -> float | None:
    """The number itself, or an estimate's mean."""
    return value.mean if isinstance(value, Estimate) else value


def finite(value: float | Estimate | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(mean(value))


def render(table: Table, format: str = "text") -> str:
    """A table as "text", "markdown" or "latex".

    Raises:
      ValueError: another format.
    """
    if format not in FORMATS:
        raise ValueError(f"There is no table format {format!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[format](table)


def _text(table: Table) -> str:
    """Fits the page: where it is too narrow, headings take two lines, and columns come in blocks below each other.

    No cell is cut, so that a row of long ones may still be wider.
    """
    limit = page_width()
    cells = [max([1, *map(len, column)]) for column in zip(*table.rows, strict=True)] or [1] * len(table.columns)
    heads = [[title] for title in table.columns]
    if _wide(widths := [max(len(title), cell) for title, cell in zip(table.columns, cells, strict=True)]) > limit:
        heads = [_two_lines(title, cell) for title, cell in zip(table.columns, cells, strict=True)]
        widths = [max(cell, *map(len, head)) for head, cell in zip(heads, cells, strict=True)]

    lines, rule = textwrap.wrap(table.caption, limit, break_on_hyphens=False, break_long_words=False), ""
    for block in _blocks(widths, limit, table.breaks):
        mine = [widths[i] for i in block]
        tall = max(len(heads[i]) for i in block)
        titles = zip(*([""] * (tall - len(heads[i])) + heads[i] for i in block), strict=True)

        def line(cells: Sequence[str], mine=mine) -> str:
            first, *rest = (cell.rjust(width) for cell, width in zip(cells, mine, strict=True))
            return "  ".join([first.strip().ljust(mine[0]), *rest]).rstrip()

        rule = "-" * _wide(mine)
        lines += [rule, *map(line, titles), rule, *(line([row[i] for i in block]) for row in table.rows)]
    lines.append(rule)
    lines += [line for note in table.note.splitlines() for line in textwrap.wrap(note, limit)]
    return "\n".join(lines) + "\n"


def page_width() -> int:
    """Columns that text may take: of the terminal (COLUMNS, if set), 80 elsewhere."""
    return max(40, shutil.get_terminal_size().columns)


def _wide(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _two_lines(title: str, width: int) -> list[str]:
    """A heading over a column of cells `width` wide, in at most two lines; "± sd" and the like stay whole."""
    return next(
        lines for w in range(max(width, 6), 99) if len(lines := textwrap.wrap(title, w, break_long_words=False)) <= 2
    )


def _blocks(widths: Sequence[int], limit: int, breaks: Sequence[int]) -> list[list[int]]:
    """Columns of each block: the first one, which names the row, and as many others as fit beside it."""
    blocks, start = [], 1
    while start < len(widths) or not blocks:
        end = start + 1
        while end < len(widths) and _wide([widths[0], *widths[start : end + 1]]) <= limit:
            end += 1
        if end < len(widths):
            end = max((place for place in breaks if start < place <= end), default=end)
        blocks.append([0, *range(start, min(end, len(widths)))])
        start = end
    return blocks


def _markdown(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(map(escape_markdown, cells))} |"

    rule = "| --- |" + " ---: |" * (len(table.columns) - 1)
    lines = [escape_markdown(table.caption), "", line(table.columns), rule, *map(line, table.rows)]
    return "\n".join(lines + (["", escape_markdown(table.note)] if table.note else [])) + "\n"


def _latex(table: Table) -> str:
    def line(cells: Iterable[str]) -> str:
        return " & ".join(map(escape_latex, cells)) + r" \\"

    caption = escape_latex(f"{table.caption}. {table.note}".strip())
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}", r"\hline", line(table.columns), r"\hline"]
    lines += [*map(line, table.rows), r"\hline", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


FORMATS: dict[str, Callable[[Table], str]] = {"text": _text, "markdown": _markdown, "latex": _latex}


def escape_markdown(text: str) -> str:
    """Text in which Markdown finds nothing to interpret, fit for a table's cell."""
    return "".join("\\" + c if c in "\\|`*_<[]" else c for c in " ".join(text.split()))


LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
}


def escape_latex(text: str) -> str:
    """Text in which LaTeX finds nothing to interpret."""
    return "".join(LATEX.get(c, c) for c in " ".join(text.split()))


def _elsewhere(results: Mapping[str, Any]) -> str:
    trained_on = results.get("trained_on", results["dataset"])
    told = "" if trained_on == results["dataset"] else f", trained on {trained_on}"
    if stopped := results.get("unfinished"):
        told += f", NOT FINISHED: step {_count(stopped['step'])} of {_count(stopped['steps'])}"
    return told


def _options(results: Mapping[str, Any]) -> str:
    options = results.get("protocol_options") or {}
    return f" ({', '.join(f'{name} {value}' for name, value in options.items())})" if options else ""


def _published(results: Mapping[str, Any]) -> paper.Published | None:
    name = str(results["dataset"])
    if _elsewhere(results):
        return None  # the paper trains and tests on one data set
    return None if "labeled" in name else paper.PAPER.get(name.split("/")[0])  # the paper's CUHK03 is the detected one


def _paper_row(title: str, published: paper.Published, values: Sequence[float | None]) -> tuple[str, ...]:
    shown = dict(zip((published.mean_average_precision, *(f"rank{k}" for k in RANKS)), values, strict=True))
    return (title, *(_plain(shown.get(metric)) for metric in METRICS))


def _seeds(results: Mapping[str, Any]) -> str:
    count = results.get("runs_aggregated", 1)
    return f"; mean and 95 % interval over {count} runs" if count > 1 else ""


def _number(value: float | Estimate | None, digits: int = 3, factor: float = 1.0) -> str:
    if not finite(value):
        return "-"
    shown = f"{factor * mean(value):.{digits}f}"
    if isinstance(value, Estimate) and math.isfinite(value.half_width):
        shown += f" ± {factor * value.half_width:.{digits}f}"
    return shown


def _percent(value: float | Estimate | None) -> str:
    return _number(value, 1, 100.0)


def _drawn_percent(value: float | Estimate | None, deviation: float | None) -> str:
    """With the deviation over draws, where the value is not over seeds."""
    drawn = finite(deviation) and not isinstance(value, Estimate)
    return _percent(value) + (f" ± {100 * deviation:.1f}" if drawn else "")


def _plain(value: float | None) -> str:
    return _number(value, 1)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
