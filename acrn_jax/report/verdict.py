"""How well the probability of one person holds, as a table."""

from pathlib import Path

from acrn_jax.report.table import Table, render
from acrn_jax.results import PairCalibration, Pairs


def table(of: Pairs) -> Table:
    """A row for each data set that judged, and each rate of false alarms."""
    rows = []
    for one in of.judged:
        for alarm in one.alarms:
            found = "-" if alarm.found is None else f"{100 * alarm.found:.1f}"
            rows.append((
                one.on, f"{one.people:,}", f"{one.same:,}", f"{100 * one.error:.1f}", f"{alarm.size:,}",
                f"{100 * alarm.rate:g}", f"{100 * alarm.measured:.1f}", found,
            ))  # fmt: skip
        if not one.alarms:
            rows.append((one.on, f"{one.people:,}", f"{one.same:,}", f"{100 * one.error:.1f}", *["-"] * 4))
    columns = ("on", "people", "pairs of one person", "ECE (%)", "gallery", "false alarms wanted (%)", "measured (%)",
               "people found (%)")  # fmt: skip
    note = (
        "People whom it was not fitted on. ECE: expected calibration error, where half of the pairs show one person. "
        "False alarms: searches for people who are not in the gallery in which anything passes; people found: searches "
        "for people who are, in which a picture of theirs passes."
    )
    return Table(f"Probability of one person, fitted on {of.people:,} people of {of.fitted_on}", columns, rows, note)


def read(folder: Path) -> Table | None:
    """The table of a workdir's pairs.json, None where there is none; ValueError where it is damaged."""
    file = folder / "pairs.json"
    return table(PairCalibration.read(file).calibration.pairs) if file.is_file() else None


def text(of: Pairs) -> str:
    """For a terminal."""
    return render(table(of))
