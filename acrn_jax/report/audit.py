"""An audit as tables, small multiples, Markdown and a page of its own; the report of a run has it as a section."""

import os
from pathlib import Path
from typing import Any

from acrn_jax import files
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.report import cells, figures, page
from acrn_jax.report.table import Table, render
from acrn_jax.results import Audit, Cameras, Range, Slice

FILES = ("audit.json", "audit.md", "audit.html")
GROUPS = ("sex", "gender", "age")  # columns whose slices are groups of people
SHOWN = ("mAP_precision", "rank1")


def write(folder: str | os.PathLike, audit: Audit) -> None:
    """audit.json, audit.md and audit.html in a folder."""
    content = section(audit)
    folder = Path(folder)
    files.write_json(folder / "audit.json", audit.to_json())
    files.write_text(folder / "audit.md", markdown(audit, content))
    title = f"Audit: {audit.dataset}"
    html = page.template("audit.html").render(title=title, about=_about(audit), audit=content, id="audit")
    files.write_text(folder / "audit.html", html)


def text(audit: Audit) -> str:
    """What a terminal shows: the verdict, the slices that differ, and what is left out."""
    content = section(audit, charts=False)
    parts = [content["verdict"] + "\n", *(render(table) for table in content["first"])]
    return "\n".join([*parts, *content["notes"], ""])


def markdown(audit: Audit, content: dict[str, Any]) -> str:
    """All tables, without charts."""
    tables = [*content["first"], *content["more"], *content["hardest"], content["all"]]
    head = [f"# Audit: {audit.dataset}", _about(audit), f"**{content['verdict']}**", *content["notes"]]
    return "\n\n".join([*head, *(render(table, "markdown") for table in tables)])


def section(audit: Audit, *, charts: bool = True) -> dict[str, Any]:
    """What audit_section.html shows."""
    differing = [one for one in audit.slices if one.differs]
    ordered = figures.in_order(audit)
    groups = [one for one in ordered if one.column.lower() in GROUPS]
    title = METRICS[audit.tested].title
    unknown = [f"{column.name} {column.unknown:,}" for column in audit.columns if column.unknown]
    return {
        "verdict": _verdict(audit, differing),
        "notes": [*audit.notes, *([f"Queries without a value: {', '.join(unknown)}."] if unknown else [])],
        "first": [_slices("Slices that differ from the rest beyond chance", differing, audit)] if differing else [],
        "charts": figures.slices(audit) if charts else [],
        "legend": f"{title} in per cent with 95 % intervals; the line is over all queries of the column. Filled: "
        "differs from the rest beyond chance. Beside the names: queries. Few people have no interval.",
        "more": [
            *([_slices("Groups of people", groups, audit)] if groups else []),
            *([_confusions(audit.cameras), _explained(audit.cameras)] if audit.cameras else []),
        ],
        "hardest": [_hardest(one, title) for one in differing],
        "all": _slices(f"All slices. {audit.rule}", ordered, audit),
    }


def _about(audit: Audit) -> str:
    of = f"{audit.method} on " if audit.method else ""
    overall = ", ".join(
        f"{METRICS[n].title} {percent(audit.overall[n])}" for n in SHOWN if n in audit.overall and n in METRICS
    )
    return (
        f"{of}{audit.dataset}, protocol {audit.protocol}: {audit.queries:,} queries of {audit.people:,} people; "
        f"{overall} (per cent, with 95 % intervals over people)."
    )


def _verdict(audit: Audit, differing: list[Slice]) -> str:
    tested = sum(one.adjusted is not None for one in audit.slices)
    title = METRICS[audit.tested].title
    if not tested:
        return "No slice can be told from the rest: there are too few people, or no columns."
    if not differing:
        return f"None of {tested} slices differs from the rest in {title} beyond chance."
    worst = min(differing, key=lambda one: one.difference)
    told = f"{len(differing)} of {tested} slices differ from the rest in {title} beyond chance"
    if worst.difference >= 0:
        return f"{told}; none of these is worse."
    return f"{told}; the worst is {_called(worst)}, {100 * -worst.difference:.1f} lower."


def _called(one: Slice) -> str:
    return f"{cells.attribute(one.column)}: {one.name}"


def percent(of: Range) -> str:
    """A mean with its interval."""
    if of.low is None or of.high is None:
        return cells.percent(of.mean)
    return f"{100 * of.mean:.1f} ({100 * of.low:.1f} to {100 * of.high:.1f})"


def _slices(caption: str, slices: list[Slice], audit: Audit) -> Table:
    shown = [name for name in SHOWN if name in audit.overall]
    columns = ("slice", "queries", "people", *(METRICS[n].title for n in shown), "minus rest", "p")
    rows = [
        (
            _called(one),
            cells.count(one.queries),
            cells.count(one.people),
            *(percent(one.scores[name]) for name in shown),
            cells.signed_percent(one.difference),
            "-" if one.adjusted is None else f"{one.adjusted:.3f}",
        )
        for one in slices
    ]
    return Table(caption, columns, rows)


def _hardest(one: Slice, title: str) -> Table:
    rows = [
        (of.query, cells.percent(of.score), "none" if of.first_rank is None else cells.count(of.first_rank))
        for of in one.hardest
    ]
    return Table(_called(one), ("query", title, "first right at rank"), rows)


def _confusions(cameras: Cameras) -> Table:
    rows = [
        (
            f"camera {of.camera}",
            cells.count(of.queries),
            f"{of.wrong:,} ({100 * of.wrong / max(of.queries, 1):.0f} %)",
            *(f"{n:,} ({e:.0f})" for n, e in zip(of.first, of.expected, strict=True)),
        )
        for of in cameras.confusions
    ]
    columns = ("queries of", "queries", "first image wrong", *(f"of camera {camera}" for camera in cameras.gallery))
    note = (
        "In brackets: as many as there would be if wrong first images came by chance from the images of other people."
    )
    return Table("Confusions: cameras of wrong first images", columns, rows, note)


def _explained(cameras: Cameras) -> Table:
    between = "variance of distances to other people that lies between cameras"
    rows = [(between, percent(cameras.explained), cells.percent(cameras.explained_chance))]
    wrong, own, expected = 0, 0, 0.0
    for of in cameras.confusions:
        wrong += of.wrong
        if of.camera in cameras.gallery:
            place = cameras.gallery.index(of.camera)
            own, expected = own + of.first[place], expected + of.expected[place]
    if wrong:
        share, by_chance = (cells.percent(n / wrong) for n in (own, expected))
        rows.append(("wrong first images that are of the query's camera", share, by_chance))
    note = ""
    if probe := cameras.probe:
        rows.append(
            ("cameras told by a linear classifier on features", percent(probe.accuracy), cells.percent(probe.chance))
        )
        note = (
            f"The classifier is fitted on one half of {probe.people:,} people and judged on the other: "
            f"{probe.images:,} gallery images of {probe.cameras} cameras, each weighing the same."
        )
    return Table("How much cameras explain", ("", "per cent", "by chance"), rows, note)
