"""Scores of anyone's feature files as terminal text; reads what evaluation/score.py returns."""

from collections.abc import Mapping
from typing import Any

from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.report import tables
from acrn_jax.report.table import Table, render
from acrn_jax.results import Results


def table(results: Mapping[str, Any]) -> str:
    """Scores with their intervals, and operating points where there are some, as text."""
    rows = []
    for name, metric in METRICS.items():
        ends = results["intervals"][name]
        low, high = (None if ends[end] is None else f"{100 * ends[end]:.1f}" for end in ("low", "high"))
        value = f"{100 * results['methods']['features'][name]:.1f}"
        rows.append((metric.title, value, f"{low} to {high}" if low and high else "-"))
    steps = [f"{name} {results[name]}" for name in ("distance", "kissme", "expand", "rerank") if results.get(name)]
    notes = [*steps, *(["multi-query"] if results["multi_query"] else [])]
    junk, distractors = results["gallery_junk"], results["gallery_distractors"]
    notes.append(f"{junk:,} junk and {distractors:,} distractors in the gallery")
    if results["deviation"]:
        notes.append(f"means over {results['protocol_options']['repeats']} draws, the interval is over people")
    if results.get("chance") is not None:
        notes.append(f"random distances give an mAP (precision) of {100 * results['chance']:.1f}")
    note = " ".join(["; ".join(notes) + ".", *results.get("hints", ())])
    caption = tables.describe(Results.parse(results))
    text = render(Table(caption, ("metric", "per cent", "95 % interval"), rows, note))
    for point in (results.get("operating_points") or {}).get("roc", ()):
        text += (
            f"TPR {100 * point['tpr']:.1f} % at FPR {point['fpr']:.2g} (wanted {point['wanted']:g}), distance below "
            f"{'-' if point['threshold'] is None else format(point['threshold'], '.6g')}\n"
        )
    watch_list = (results.get("operating_points") or {}).get("identification")
    for point in (watch_list or {}).get("points", ()):
        text += f"DIR {100 * point['dir']:.1f} % at FAR {point['far']:.2g} (wanted {point['wanted']:g}), rank 1\n"
    return text
