"""A table of ready text, and how it is rendered: terminal text, Markdown or LaTeX; report/html.py does HTML."""

import shutil
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """A caption, column titles, and rows of ready text; the first column names the row."""

    caption: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    note: str = ""
    breaks: tuple[int, ...] = ()  # columns that a new block begins with best, where a page is too narrow for one


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
    if _width(widths := [max(len(title), cell) for title, cell in zip(table.columns, cells, strict=True)]) > limit:
        heads = [_two_lines(title, cell) for title, cell in zip(table.columns, cells, strict=True)]
        widths = [max(cell, *map(len, head)) for head, cell in zip(heads, cells, strict=True)]

    lines, rule = textwrap.wrap(table.caption, limit, break_on_hyphens=False, break_long_words=False), ""
    for block in _blocks(widths, limit, table.breaks):
        block_widths = [widths[i] for i in block]
        height = max(len(heads[i]) for i in block)
        titles = zip(*([""] * (height - len(heads[i])) + heads[i] for i in block), strict=True)

        def line(cells: Sequence[str], widths=block_widths) -> str:
            first, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            return "  ".join([first.strip().ljust(widths[0]), *rest]).rstrip()

        rule = "-" * _width(block_widths)
        lines += [rule, *map(line, titles), rule, *(line([row[i] for i in block]) for row in table.rows)]
    lines.append(rule)
    lines += [line for note in table.note.splitlines() for line in textwrap.wrap(note, limit)]
    return "\n".join(lines) + "\n"


def page_width() -> int:
    """Characters that a line of text may take: of the terminal (COLUMNS, if set), 80 elsewhere."""
    return max(40, shutil.get_terminal_size().columns)


def _width(widths: Sequence[int]) -> int:
    return sum(widths) + 2 * (len(widths) - 1)


def _two_lines(title: str, width: int) -> list[str]:
    """A heading over a column of cells `width` wide, in at most two lines; "± sd" and the like stay whole."""
    return next(
        lines
        for w in range(max(width, 6), max(width, 99) + 1)
        if len(lines := textwrap.wrap(title, w, break_long_words=False)) <= 2
    )


def _blocks(widths: Sequence[int], limit: int, breaks: Sequence[int]) -> list[list[int]]:
    """Columns of each block: the first one, which names the row, and as many others as fit beside it."""
    blocks, start = [], 1
    while start < len(widths) or not blocks:
        end = start + 1
        while end < len(widths) and _width([widths[0], *widths[start : end + 1]]) <= limit:
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
