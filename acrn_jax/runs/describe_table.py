"""What an attribute net says about pictures, as text."""

import csv
import io
import json
import textwrap

import numpy as np

from acrn_jax.data import source
from acrn_jax.evaluation import calibration
from acrn_jax.report.table import Table, page_width, render
from acrn_jax.runs import search_table
from acrn_jax.runs.describing import Description

COLUMNS = 4  # pictures at most that stand beside each other


FORMATS = ("table", "csv", "json")


def text(found: Description, kind: str) -> str:
    """A description in one of FORMATS."""
    if kind == "json":
        return json.dumps(found.to_json(), indent=1) + "\n"
    if kind == "csv":
        lines = io.StringIO()
        csv.writer(lines, lineterminator="\n").writerows(found.rows())
        return lines.getvalue()
    return table(found)


def table(found: Description) -> str:
    """Few pictures as columns of a table, many as a list of what each is not known not to show."""
    text = _columns(found) if len(found.files) <= COLUMNS else _list(found)
    return text + source.told_of_folder(found.pictures)


def note(found: Description) -> str:
    """Where the net gives no answer, and what its probabilities are worth."""
    low, high = found.unknown
    band = f"unknown: a probability from {100 * low:g} to {100 * high:g} % (--unknown={low:g},{high:g})."
    return f"{band} {calibration.told(found.about)}"


def _columns(found):
    rows = [
        (
            name,
            search_table.rate(found.about, name),
            *(
                f"{answer} {100 * p:.0f} %"
                for answer, p in zip(found.answers[:, a], found.probabilities[:, a], strict=True)
            ),
        )
        for a, name in enumerate(found.names)
    ]
    columns = ("attribute", "recognition rate", *found.files)
    return render(Table(_caption(found), columns, rows, note(found)))


def _list(found):
    lines = textwrap.wrap(_caption(found), page_width())
    for file, answers, row in zip(found.files, found.answers, found.probabilities, strict=True):
        lines.append(file)
        for answer in ("yes", "unknown"):
            chosen = [a for a in np.argsort(-row, kind="stable") if answers[a] == answer]
            text = ", ".join(f"{found.names[a]} {100 * row[a]:.0f} %" for a in chosen) or "-"
            lines += textwrap.wrap(f"  {answer:8} {text}", page_width(), subsequent_indent=" " * 11)
    return "\n".join([*lines, *textwrap.wrap(note(found), page_width()), ""])


def _caption(found):
    pictures, attributes = len(found.files), len(found.names)
    counts = f"{pictures:,} picture{'s' * (pictures > 1)}, {attributes} attribute{'s' * (attributes > 1)}"
    return f"{counts}, as the net {found.net} sees them"
