"""What a search found, as text."""

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from acrn_jax.data import source
from acrn_jax.evaluation import calibration
from acrn_jax.report import cells, tables
from acrn_jax.report.table import Table, page_width, render

NO_IDENTITY = "The order says which pictures look most alike, not who is on them."
EXPLAINED = 3  # attributes that an explanation names


def table(results: dict[str, Any]) -> str:
    """What `search` found, as text."""
    wished = [*results["want"], *results["not"]]
    wanted = [f"look most alike to {results['query']}"] if results["query"] else []
    if results["want"]:
        wanted.append(f"seem to show {', '.join(results['want'])}")
    if results["not"]:
        wanted.append(f"seem not to show {', '.join(results['not'])}")
    verdict = results["same_person"] or {}
    known = verdict.get("kind") == "fitted"
    rows = [
        (
            str(entry["rank"]),
            entry["file"],
            f"{entry['distance']:.4g}",
            *([same_person(entry).removeprefix(", ")] if known else []),
            *(f"{100 * entry['probabilities'][n]:.0f} %" for n in wished),
        )
        for entry in results["results"]
    ]
    if about := results["probabilities"]:
        rows.insert(0, ("", "recognition rate", "", *[""] * known, *(rate(about, name) for name in wished)))
    notes = [NO_IDENTITY, _measured(results)]
    if results["gamma"] is not None:
        notes.append(f"gamma {results['gamma']:g}.")
    if about:
        notes.append(calibration.told(about))
    notes += verdict_notes(results)
    caption = f"Of {results['pictures']:,} pictures in {results['gallery']} those that {' and '.join(wanted)}"
    text = render(
        Table(caption, ("rank", "file", "distance", *["same person"] * known, *wished), rows, " ".join(notes))
    )
    for entry in results["results"]:
        if "rank_without" in entry:
            reason = f"{entry['rank']:>4}  {_reason(entry)}"
            text += textwrap.fill(reason, page_width(), subsequent_indent=" " * 6) + "\n"
    return text + source.told_of_folder(results)


def same_person(entry: Mapping[str, Any]) -> str:
    """The probability that a picture shows the query's person, and whether it passes; nothing where it is not known."""
    if entry.get("same_person") is None:
        return ""
    passes = {True: ", passes", False: ", no", None: ""}[entry.get("passes")]
    return f", {100 * entry['same_person']:.0f} %{passes}"


def verdict_notes(results: Mapping[str, Any]) -> list[str]:
    """Sentences on who may be shown: first whether anybody passes, then what probabilities are worth."""
    verdict = results["same_person"]
    if verdict is None:
        return []
    return [*([verdict["threshold"]["note"]] if verdict["threshold"] else []), verdict["note"]]


def page_title(results: Mapping[str, Any]) -> str:
    """Of search.html."""
    by = [*(["picture"] if results["query"] else []), *(["attributes"] if results["want"] or results["not"] else [])]
    return f"Search by {' and '.join(by)}: {len(results['results'])} of {results['pictures']:,} pictures"


def page_notes(results: Mapping[str, Any]) -> list[str]:
    """Sentences of search.html, without the machine's paths."""
    about = results["attributes"]
    low, high = (100 * edge for edge in results["unknown"])
    notes = [results["note"], *verdict_notes(results)[-1:], _measured(results)]  # the verdict itself stands above
    if any("shares" in entry for entry in results["results"]):
        notes.append("Below each picture: the shares of its distance.")
    if about["kind"] == "none":
        notes.append("No attribute net was at hand, so nothing is told of attributes.")
    else:
        why = {"why": "there was no labelled set at hand to fit a curve on"} if about["kind"] == "raw" else {}
        notes.append(
            f"Attributes with a probability above {high:g} % are named, from {low:g} to {high:g} % the answer is "
            f"unknown. {calibration.told({**about, **why})}"
        )
    notes += [note.replace(f"{results['gallery']}/", "") for note in results["notes"]]
    if count := len(results["unreadable"]):
        notes.append(f"{count:,} file{'s' * (count > 1)} could not be read as a picture and had to be skipped.")
    return notes


def _measured(results):
    """What the distances are, in one sentence."""
    if not results["query"]:
        return "distance: -log(probability of what is wished), summed over the wished attributes."
    kind = tables.DISTANCES[results["distance"]]
    made = "of features and weighted attributes, d_f / s_f + gamma d_w / s_a"
    made = "of attributes" if results["gamma"] is None else made if results["gamma"] else "of features, d_f / s_f"
    return f"distance: {kind}, {made}."


def _reason(entry):
    """Shares in per cent, the largest first, and the rank without each."""
    whole = max(entry["distance"], 1e-12)
    largest = sorted(entry["shares"], key=lambda n: -entry["shares"][n])
    named = [n for n in largest if n == "feature"] + [n for n in largest if n != "feature"][:EXPLAINED]
    return "; ".join(
        f"{n} {100 * entry['shares'][n] / whole:.0f} % (rank {entry['rank_without'][n]} without)" for n in named
    )


def percentages(entry: Mapping[str, Any]) -> list[str]:
    """Of the wished attributes, for a picture's caption."""
    return [f"{cells.attribute(name)} {100 * p:.0f} %" for name, p in entry["probabilities"].items()]


def rate(about: Mapping[str, Any], name: str) -> str:
    """An attribute's recognition rate in per cent."""
    rate = (about["recognition"] or {"mA": {}})["mA"].get(name)
    return "-" if rate is None else f"{100 * rate:.0f} %"


def rates(about: Mapping[str, Any], names: Iterable[str]) -> str:
    """Recognition rates of some attributes."""
    return ", ".join(f"{cells.attribute(name)} {rate(about, name)}" for name in names)
