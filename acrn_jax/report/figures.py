"""Charts of a report as data URIs, each with a text that says what it shows; no pyplot, no global state."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib import figure, ticker

from acrn_jax.evaluation.metrics import RANKS
from acrn_jax.report import cells, tables
from acrn_jax.report.seeds import method_names
from acrn_jax.results import Audit, Estimate, Results, Slice, Weight

# Okabe and Ito's palette, told apart by colour-blind readers; line styles and markers differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
STYLES = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
MOST_POINTS = 400  # of a drawn curve; more only makes the file larger
PANELS = (  # title of a chart, what it draws of a phase's scalars, axis text
    ("Loss", lambda key: "loss" in key, "loss"),
    ("Triplets", lambda key: "active" in key or "switched" in key, "share of triplets"),
    ("Distances", lambda key: key.endswith(("positive", "negative")), "mean distance"),
    ("Scales", lambda key: key in ("spread", "weight_rms") or key.startswith("scale_"), "value"),
    ("Accuracy", lambda key: key == "accuracy", "share right"),
    ("Learning rate", lambda key: key.startswith("learning_rate"), "learning rate"),
    ("Speed", lambda key: key == "images_per_second", "images a second"),
)
STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "svg.fonttype": "path",  # looks the same whatever fonts the reader has
    "svg.hashsalt": "acrn_jax",  # equal input, equal bytes
    "text.parse_math": False,  # names may hold dollars
}


class Chart(NamedTuple):
    """A picture ready for <img>: title, data URI and alternative text."""

    title: str
    uri: str
    text: str


@matplotlib.rc_context(STYLE)
def training(scalars: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Curves of one phase over its steps, one chart a kind of value that the scalars hold.

    Args:
      scalars: lines of the phase's scalars.jsonl, each with "step".
    """
    charts = []
    keys = list(dict.fromkeys(key for row in scalars for key in row))
    for title, wanted, axis_text in PANELS:
        curves = {key: _curve(scalars, key) for key in keys if wanted(key)}
        curves = {key: points for key, points in curves.items() if len(points)}
        if not curves:
            continue
        drawing, axes = _axes(height=2.7 + 0.2 * (1 + len(curves) // 2) * (len(curves) > 1))
        for i, (key, points) in enumerate(curves.items()):
            axes.plot(*points.T, STYLES[i % len(STYLES)], color=COLOURS[i % len(COLOURS)], label=_words(key), lw=1.6)
        axes.set_xlabel("step")
        axes.set_ylabel(axis_text)
        low, high = axes.get_ylim()
        axes.set_ylim(min(0.0, low), high + 0.03 * (high - min(0.0, low)))
        if len(curves) > 1:
            _legend(drawing)
        text = "; ".join(
            f"{_words(key)} from {points[0, 1]:.4g} to {points[-1, 1]:.4g}" for key, points in curves.items()
        )
        steps = np.concatenate(list(curves.values()))[:, 0]
        charts.append(_chart(drawing, title, f"Steps {steps.min():,.0f} to {steps.max():,.0f}: {text}."))
    return charts


@matplotlib.rc_context(STYLE)
def weight_scatter(of: Results, *, against: str = "reliability") -> Chart | None:
    """Learned weights over what is known of the attributes, or None where fewer than three attributes have both.

    Args:
      of: results of a run, or of `seeds.aggregate`.
      against: "reliability", "accuracy" or "between_within".
    """
    entries = [entry for entry in _weighted(of) if cells.finite(getattr(entry, against))]
    if len(entries) < 3:
        return None
    percent = against != "between_within"
    known = np.array([cells.mean(getattr(entry, against)) for entry in entries], float) * (100 if percent else 1)
    weights = np.array([cells.mean(entry.weight) for entry in entries], float)
    correlation = cells.mean(of.spearman_weight_reliability) if against == "reliability" else None
    if not cells.finite(correlation):
        correlation = spearman(np.abs(weights), known)
    drawing, axes = _axes()
    axes.scatter(known, weights, s=28, color=COLOURS[0], zorder=3)
    axes.margins(x=0.14, y=0.1)
    axes.axhline(0, color="#7F7F7F", lw=0.8)
    words = {"reliability": "true reliability", "accuracy": "accuracy on the target"}.get(against, "between / within")
    axes.set_xlabel(words + (" (%)" if percent else " variance"))
    axes.set_ylabel("learned weight")
    _name_points(drawing, axes, known, weights, [cells.attribute(entry.name) for entry in entries])
    count = f"{len(entries)} attributes"
    text = f"{count}; Spearman's correlation {correlation:.2f}; the values are in the table of weights."
    return _chart(drawing, f"Weight against {words} (Spearman {correlation:.2f})", text)


@matplotlib.rc_context(STYLE)
def weight_bars(of: Results) -> Chart | None:
    """Learned weights as bars, largest absolute weight on top, with 95 % intervals where they are over seeds."""
    entries = _weighted(of)
    if not entries:
        return None
    values = [cells.mean(entry.weight) for entry in entries]
    spread = [entry.weight.half_width if isinstance(entry.weight, Estimate) else 0.0 for entry in entries]
    drawing, axes = _axes(height=0.9 + 0.2 * len(entries))
    axes.barh(
        range(len(entries)), values, xerr=spread if any(spread) else None, color=COLOURS[5], ecolor="black", capsize=2
    )
    names = [cells.attribute(entry.name) for entry in entries]
    axes.set_yticks(range(len(entries)), names, fontsize=8.5)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.axvline(0, color="black", lw=0.8)
    axes.set_xlabel("learned weight")
    largest = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, values, strict=True))
    return _chart(drawing, "Learned weights", f"Bars, largest first: {largest}.")


@matplotlib.rc_context(STYLE)
def cmc(of: Results) -> Chart:
    """Share of queries with a right match among the first k, at the k that results hold (1, 5, 10, 20)."""
    drawing, axes = _axes(height=3.6)
    names = method_names(of)
    for i, name in enumerate(names):
        values = [cells.mean(of.methods[name].get(f"rank{k}")) for k in RANKS]
        axes.plot(
            RANKS,
            [np.nan if value is None else 100 * value for value in values],
            STYLES[i % len(STYLES)],
            marker=MARKERS[i % len(MARKERS)],
            color=COLOURS[i % len(COLOURS)],
            label=name,
            markersize=4.5,
            lw=1.4,
        )
    axes.set_xticks(RANKS)
    axes.set_xlabel("rank k")
    axes.set_ylabel("queries matched within k (%)")
    _legend(drawing)
    return _chart(drawing, "CMC", f"Cumulative matches of {', '.join(names)}; the values are in the table of methods.")


@matplotlib.rc_context(STYLE)
def slices(of: Audit) -> list[Chart]:
    """Small multiples of an audit: for each column its slices as points with intervals, all on one scale."""
    shown = [[one for one in in_order(of) if one.column == column.name] for column in of.columns]
    charts = []
    for column, members in zip(of.columns, shown, strict=True):
        values = [one.scores[of.tested] for one in members]
        drawing, axes = _axes(height=0.62 + 0.21 * len(members))
        for place, (one, value) in enumerate(zip(members, values, strict=True)):
            colour = COLOURS[1] if one.differs else COLOURS[0]
            if value.low is not None and value.high is not None:
                axes.plot([100 * value.low, 100 * value.high], [place, place], color=colour, lw=1.6)
            fill = colour if one.differs else "white"
            axes.plot(100 * value.mean, place, "o", color=colour, markerfacecolor=fill, markersize=5.5, zorder=3)
        total = sum(one.queries for one in members)
        overall = 100 * sum(one.queries * value.mean for one, value in zip(members, values, strict=True)) / total
        axes.axvline(overall, color="#7F7F7F", lw=0.9)
        names = [f"{one.name}  ({one.queries:,})" for one in members]
        axes.set_yticks(range(len(members)), names, fontsize=8.5)
        axes.set_ylim(len(members) - 0.5, -0.5)
        axes.set_xlim(0, 100)
        told = "; ".join(
            f"{one.name} {100 * value.mean:.1f}{' (differs)' if one.differs else ''}"
            for one, value in zip(members, values, strict=True)
        )
        charts.append(_chart(drawing, cells.attribute(column.name), f"{told}."))
    return charts


def in_order(of: Audit) -> list[Slice]:
    """The slices column by column."""
    place = {(column.name, name): (i, j) for i, column in enumerate(of.columns) for j, name in enumerate(column.slices)}
    return sorted(of.slices, key=lambda one: place[one.column, one.name])


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation of x [N] and y [N], ties sharing their mean rank; NaN if either is constant."""

    def ranks(values: np.ndarray) -> np.ndarray:
        _, place, count = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(count) - (count - 1) / 2)[place]

    x, y = (r - r.mean() for r in (ranks(x), ranks(y)))
    scale = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / scale) if scale else float("nan")


def _name_points(drawing: figure.Figure, axes: Any, x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> None:
    """Writes names beside points (x, y), each [N]: outermost in the list first, none over another or the frame."""
    drawing.draw_without_rendering()  # places the axes, so that texts can be measured
    taken = []
    for i in sorted(range(len(names)), key=lambda i: min(i, len(names) - 1 - i)):
        for shift, side in ((5, "left"), (-5, "right")):
            text = axes.annotate(
                names[i], (x[i], y[i]), (shift, 0), textcoords="offset points", ha=side, va="center", fontsize=8
            )
            box = text.get_window_extent().padded(3)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            if inside and not box.count_overlaps(taken) and not _points_in(box, axes, x, y):
                taken.append(box)
                break
            text.remove()


def _points_in(box: Any, axes: Any, x: np.ndarray, y: np.ndarray) -> bool:
    places = axes.transData.transform(np.column_stack([x, y]))
    return any(box.contains(*place) for place in places)


def _weighted(of: Results) -> list[Weight]:
    return [entry for entry in tables.by_weight(of) if cells.finite(entry.weight)]


def _curve(scalars: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    """(step, value) of rows with a finite value, thinned, [N, 2]; a step logged twice counts as logged last."""
    points = {row["step"]: row[key] for row in scalars if isinstance(row.get(key), int | float)}
    array = np.array(sorted(points.items()), dtype=float).reshape(-1, 2)
    array = array[np.isfinite(array[:, 1])]
    return array[np.unique(np.linspace(0, len(array) - 1, MOST_POINTS).round().astype(int))] if len(array) else array


def _axes(*, height: float = 2.9) -> tuple[figure.Figure, Any]:
    """An empty chart, 4.2 inches wide so that its text stays readable on a phone."""
    drawing = figure.Figure(figsize=(4.2, height), layout="constrained")
    axes = drawing.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    return drawing, axes


def _legend(drawing: figure.Figure) -> None:
    """Below the axes, where it covers no curve."""
    drawing.legend(
        loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, columnspacing=1.2, handlelength=2.6
    )


def _chart(drawing: figure.Figure, title: str, text: str) -> Chart:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return Chart(title, "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode(), text)


def _words(key: str) -> str:
    return key.replace("_", " ").replace("/", ", ")
