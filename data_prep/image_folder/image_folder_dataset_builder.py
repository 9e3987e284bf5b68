"""Anyone's images: listed by one CSV (who is on each, camera, split, attributes), or told by their names (tree.py)."""

import csv as csv_format
import os
import pathlib
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.image_folder import labels, tree

COLUMNS = ("path", "person_id", "camera_id", "split")  # every further column is an attribute; camera_id may be missing
SPLITS = ("train", "val", "test", "query", "gallery")
_VALUES = {"1": 1, "0": 0, "-1": -1, "": -1}
_MISSING = ("nan", "<na>", "null", "none")  # what programs write for no value


class Builder(reid.ContentsBuilder):
    """A folder, and a CSV or a pattern of its names; the config's name is the user's name for the set."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="default")]

    def __init__(self, *, config: str | None = None, **kwargs):
        named = config in (None, "default")  # TFDS wants a name of its own, and an object for any other
        super().__init__(config="default" if named else tfds.core.BuilderConfig(name=config), **kwargs)

    @classmethod
    def completed(cls, options: dict) -> dict:
        return {"pattern": tree.PATTERN} | options if "raw_dir" in options and "csv" not in options else options

    def read(self, *, csv: str | os.PathLike | None = None, **options) -> reid.Contents:
        if csv is None:
            return tree.read(**options)
        if drawn := options.keys() - {"raw_dir"}:
            raise ValueError(f"--csv says who is where, and --{min(drawn)} would draw it; give one of the two.")
        return read(csv=csv, **options)


def read(*, raw_dir: str | os.PathLike, csv: str | os.PathLike) -> reid.Contents:
    """What the CSV lists.

    Args:
      raw_dir: folder that the paths are relative to.
      csv: UTF-8 with the columns path, person_id, camera_id (optional), split, and one for each attribute. person_id:
        integers >= 1, 0 for a distractor and -1 for junk; or names, which are numbered from 1 in sorted order while 0
        and -1 keep their meaning. camera_id: integers, empty or -1 if unknown. split: train, val, test, query or
        gallery. Attributes: 1, 0, or -1 or empty if unknown. Numbers may be written as 7, 007, +7 or 7.0.

    Returns:
      Contents whose protocol is that of `labels.protocol_of`, or "attributes" for sets without a query. Metadata
      `person_names` {name: number} is there where people had names.

    Raises:
      FileNotFoundError: no such folder or CSV, or a listed image that is not there.
      ValueError: a missing column or a wrong value, with the line's number.
    """
    raw_dir, csv = pathlib.Path(raw_dir), pathlib.Path(csv)
    if not raw_dir.is_dir():
        raise FileNotFoundError(f"No folder {raw_dir}; --raw_dir wants the one that the paths in the CSV start from.")
    if not csv.is_file():
        raise FileNotFoundError(f"No file {csv}; --csv wants a CSV with the columns path, person_id, camera_id, split.")
    lines, names = _lines(csv)
    person_names, notes = _person_names({row["person_id"] for row in lines.values()})
    splits: dict[str, list[reid.Example]] = {}
    seen: dict[str, int] = {}
    for number, row in lines.items():
        where, path = f"{csv}, line {number}", pathlib.PurePosixPath(row["path"])
        if path.is_absolute() or ".." in path.parts or not path.name:
            raise ValueError(f"{where}: path {row['path']!r}; wanted is a path below --raw_dir, such as 'a/0001.jpg'.")
        if str(path) in seen:
            raise ValueError(f"{where}: {path} was in line {seen[str(path)]} already; list each image once.")
        seen[str(path)] = number
        if row["split"] not in SPLITS:
            raise ValueError(f"{where}: split {row['split']!r}; wanted is one of {', '.join(SPLITS)}.")
        person_id, camera_id, attributes = _labels(where, row, person_names or {}, names)
        if not (raw_dir / path).is_file():
            raise FileNotFoundError(f"{where}: no file {raw_dir / path}; correct the path or remove the line.")
        example = reid.Example(raw_dir / path, str(path), person_id, camera_id, attributes)
        splits.setdefault(row["split"], []).append(example)
    if ("query" in splits) != ("gallery" in splits):
        raise ValueError(f"{csv} has the splits {', '.join(splits)}; query and gallery need each other.")
    protocol = "attributes"
    if "query" in splits:
        protocol, why = labels.protocol_of(splits["query"], splits["gallery"])
        notes += why
    about = {"attribute_names": names, "protocol": protocol} | ({"person_names": person_names} if person_names else {})
    return reid.Contents({split: splits[split] for split in SPLITS if split in splits}, about, notes=notes)


def _person_names(people: set[str]) -> tuple[dict[str, int] | None, list[str]]:
    """({name: number} where people have names, notes)."""
    if all(labels.is_integer(labels.number(person)) for person in people):
        return None, []
    names = sorted(person for person in people if labels.number(person) not in ("0", "-1"))
    notes = []
    if numbers := [name for name in names if labels.is_integer(labels.number(name))]:
        name = next(name for name in names if name not in numbers)
        notes.append(f"person_id has numbers ({numbers[0]}) and names ({name}): all of them are taken as names.")
    return {name: i for i, name in enumerate(names, start=1)}, notes


def _labels(
    where: str, row: dict[str, str], person_names: dict[str, int], attribute_names: list[str]
) -> tuple[int, int, list[int]]:
    """(person, camera, attributes) of one line of the CSV."""
    if row["person_id"].lower() in _MISSING:
        raise ValueError(f"{where}: person_id {row['person_id']!r}; give a number or a name, 0 for a distractor.")
    person_id = person_names.get(row["person_id"]) or int(labels.number(row["person_id"]))
    camera = labels.number(row.get("camera_id") or str(reid.UNKNOWN_CAMERA))
    for value, what in ((str(person_id), "person_id"), (camera, "camera_id")):
        if not labels.is_integer(value) or not -1 <= int(value) < 2**31:
            raise ValueError(f"{where}: {what} {value!r}; wanted is an integer from -1.")
    for name in attribute_names:
        if labels.number(row[name]) not in _VALUES:
            raise ValueError(f"{where}: {name} is {row[name]!r}; wanted is 1, 0, or -1 or nothing for unknown.")
    return person_id, int(camera), [_VALUES[labels.number(row[name])] for name in attribute_names]


def _lines(csv: pathlib.Path) -> tuple[dict[int, dict[str, str]], list[str]]:
    """({line number: {column: stripped text}}, attribute names)."""
    try:
        with csv.open(newline="", encoding="utf-8-sig") as file:
            rows = csv_format.DictReader(file, strict=True)
            columns = [column.strip() for column in rows.fieldnames or ()]
            rows.fieldnames = columns
            if missing := [name for name in COLUMNS if name not in columns and name != "camera_id"]:
                raise ValueError(f"{csv} has the columns {', '.join(columns) or '(none)'}; add {', '.join(missing)}.")
            if len(set(columns)) != len(columns) or "" in columns:
                raise ValueError(f"{csv}: each column needs a name of its own; it has {columns}.")
            lines = {}
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{csv}, line {rows.line_num}: not {len(columns)} values as the first line has.")
                lines[rows.line_num] = {name: value.strip() for name, value in row.items()}
    except (UnicodeDecodeError, csv_format.Error) as error:
        raise ValueError(f"{csv} is not a CSV in UTF-8 ({error}); save it as one.") from error
    if not lines:
        raise ValueError(f"{csv} lists no images; wanted is a line for each, below the names of the columns.")
    for number, row in lines.items():
        if not row["person_id"]:
            raise ValueError(f"{csv}, line {number}: no person_id; give a number or a name, 0 for a distractor.")
    return lines, [column for column in columns if column not in COLUMNS]
