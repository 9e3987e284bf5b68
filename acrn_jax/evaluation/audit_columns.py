"""Columns of an audit: from a CSV file, from attribute labels, from pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from acrn_jax.evaluation import file_reading
from acrn_jax.evaluation.audit import Column
from acrn_jax.schema import UNKNOWN

JOINED_BY = ("key", "file_name", "person_id")  # columns of a CSV file, the first of which names its rows
_GAPS = ("", "nan", "na", "none", "unknown")
_LUMA = (0.299, 0.587, 0.114)
_SEX, _AGES = "personalMale", ("personalL", "age")  # PETA's and Market-1501's names
HEIGHT, BRIGHTNESS, SHARPNESS = "image height", "brightness", "sharpness"


def from_csv(path: Path, names: Mapping[str, np.ndarray], person_id: np.ndarray) -> dict[str, Column]:
    """Columns of a CSV file for Q queries: name -> column; cells that are empty or "unknown", and queries without a
    row, have no value. A column of numbers is one of float.

    Args:
      path: with a header. Its rows are joined to the queries by the first of JOINED_BY in it; without any of these they
        are the queries, in order.
      names: "key", "file_name" -> [Q] str, where the queries have such.
      person_id: [Q].

    Raises:
      FileNotFoundError, ValueError: no such file, a broken one, or one whose rows cannot be joined; one sentence.
    """
    table = file_reading.csv_columns(path)
    by = next((name for name in JOINED_BY if name in table), None)
    if by is None:
        count = len(next(iter(table.values())))
        if count != len(person_id):
            raise ValueError(
                f"{path} has {count:,} rows for {len(person_id):,} queries, and no column {', '.join(JOINED_BY[:-1])} "
                f"or {JOINED_BY[-1]} to join them by."
            )
        rows = np.arange(count)
    else:
        known = dict(names) | {"person_id": person_id.astype(str)}
        if by not in known:
            raise ValueError(f"{path} is joined by {by}, which the queries do not have; join by person_id.")
        rows = _join(path, by, table.pop(by), known[by])
    return {name: Column(_values(np.append(cells, "")[rows])) for name, cells in table.items() if name not in JOINED_BY}


def _join(path: Path, by: str, cells: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Row of each query [Q], -1 without one."""
    texts = [str(int(cell)) if by == "person_id" and cell.strip().isdecimal() else cell for cell in cells.tolist()]
    place = {text: i for i, text in enumerate(texts)}
    if len(place) < len(texts):
        twice = next(text for i, text in enumerate(texts) if place[text] != i)
        raise ValueError(f"{path} has two rows of {by} {twice}; give one.")
    rows = np.array([place.get(text, -1) for text in wanted.tolist()])
    if np.all(rows < 0):
        raise ValueError(
            f"{path} has no row of any query: its first {by} is {next(iter(texts), 'missing')}, that of the queries "
            f"{wanted[0]}."
        )
    return rows


def _values(cells: np.ndarray) -> np.ndarray:
    """Texts, "" where nothing is known, or floats, NaN where nothing is."""
    texts = np.array([cell.strip() for cell in cells.tolist()])
    texts[np.isin(np.char.lower(texts), _GAPS)] = ""
    if set(texts.tolist()) <= {"", "0", "1", str(UNKNOWN)}:  # an attribute's
        texts[texts == str(UNKNOWN)] = ""
    try:
        found = np.array([float(text) if text else np.nan for text in texts.tolist()])
    except ValueError:
        return texts
    found[~np.isfinite(found)] = np.nan
    return found


def from_attributes(values: np.ndarray, names: Sequence[str]) -> dict[str, Column]:
    """Labels [Q, A] as columns; what tells sex and age as "sex" and "age", no columns of their own.

    Args:
      values: int, 1 yes, 0 no, -1 unknown.
      names: [A].
    """
    ages = [i for i, name in enumerate(names) if name.startswith(_AGES) and name != _SEX]
    words = np.array(["no", "yes", ""])  # the last is place -1
    found = {}
    if _SEX in names:
        found["sex"] = np.array(["female", "male", ""])[values[:, names.index(_SEX)]]
    if ages:
        sure = (values[:, ages] == 1).sum(axis=1) == 1
        shown = np.array([names[i].removeprefix("personal").removeprefix("age") for i in ages])
        found["age"] = np.where(sure, shown[np.argmax(values[:, ages] == 1, axis=1)], "")
    found |= {name: words[values[:, i]] for i, name in enumerate(names) if name != _SEX and i not in ages}
    return {name: Column(cells, "label") for name, cells in found.items()}


def measured(pixels: np.ndarray) -> tuple[float, float, float]:
    """Height in pixels, brightness (mean luma, 0 to 255) and sharpness of a picture uint8 [h, w, 3].

    Sharpness is the variance of the Laplacian (4 neighbours) of luma; blurred pictures have little. NaN below 3 x 3.
    """
    luma = pixels @ np.array(_LUMA)
    if min(luma.shape) < 3:
        return float(len(luma)), float(luma.mean()), float("nan")
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    return float(len(luma)), float(luma.mean()), float(laplacian.var())


def of_measures(values: Sequence[tuple[float, float, float]]) -> dict[str, Column]:
    """Columns of what `measured` says of each query's picture."""
    return {
        name: Column(of, "picture")
        for name, of in zip((HEIGHT, BRIGHTNESS, SHARPNESS), np.array(values, np.float64).reshape(-1, 3).T, strict=True)
    }
