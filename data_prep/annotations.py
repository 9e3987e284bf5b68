"""Attributes of the people of Market-1501 and DukeMTMC-reID, from the MATLAB files of Lin et al.

Where an attribute means what one of PETA's does it carries PETA's name, so that a net trained on PETA can be scored on
it; the others are named after their field. Colours keep their field's name: they are one dominant colour a person,
PETA's are all that are seen.

Source: Lin et al., "Improving Person Re-identification by Attribute and Identity Learning", Pattern Recognition 2019;
meaning of fields and values: README.md of vana77/Market-1501_Attribute and of vana77/DukeMTMC-attribute.
"""

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from acrn_jax.data_prep import matlab

UNKNOWN = -1
PARTS = ("train", "test")
_INVALID = 0  # two values of duke_attribute.mat, in no legend

# Attribute name -> ((field, value), ...) that must all hold; of each field the other values mean no.
Rules = dict[str, tuple[tuple[str, int], ...]]


def _colours(part: str, names: str) -> Rules:
    return {part + name: ((part + name, 2),) for name in names.split()}


_COMMON: Rules = {
    "personalMale": (("gender", 1),),
    "accessoryHat": (("hat", 2),),
    "carryingBackpack": (("backpack", 2),),
    "bag": (("bag", 2),),
    "handbag": (("handbag", 2),),
}
MARKET: Rules = {
    **_COMMON,
    "hairLong": (("hair", 2),),
    "upperBodyShortSleeve": (("up", 2),),
    "lowerBodyShorts": (("down", 2), ("clothes", 2)),
    "lowerBodyShortSkirt": (("down", 2), ("clothes", 1)),
    "downShort": (("down", 2),),
    "dress": (("clothes", 1),),
    "ageYoung": (("age", 1),),
    "ageTeenager": (("age", 2),),
    "ageAdult": (("age", 3),),
    "ageOld": (("age", 4),),
    **_colours("up", "black white red purple yellow gray blue green"),
    **_colours("down", "black white pink purple yellow gray blue green brown"),
}
DUKE: Rules = {
    **_COMMON,
    "boots": (("boots", 2),),
    "shoesLight": (("shoes", 2),),
    "topLong": (("top", 2),),
    **_colours("up", "black white red purple gray blue green brown"),
    **_colours("down", "black white red gray blue green brown"),
}


class Annotations(NamedTuple):
    """Attributes of people."""

    names: tuple[str, ...]  # [A]
    of_person: dict[int, np.ndarray]  # person id -> int8 [A]: 1 yes, 0 no, -1 unknown
    people: dict[str, int]  # "train" and "test", as far as read -> how many
    invalid: tuple[str, ...]  # "FIELD of person NNNN" for each value that means nothing, now unknown

    def attributes(self, person_id: int) -> np.ndarray:
        """Those of one person [A] int8; all unknown for whom the file leaves out."""
        return self.of_person.get(person_id, np.full(len(self.names), UNKNOWN, np.int8))


def read_market(path: str | os.PathLike, parts: tuple[str, ...] = PARTS) -> Annotations:
    """market_attribute.mat, 27 fields of 751 + 750 people; see `_read`."""
    return _read(path, "market_attribute", MARKET, parts)


def read_duke(path: str | os.PathLike, parts: tuple[str, ...] = PARTS) -> Annotations:
    """duke_attribute.mat, 23 fields of 702 + 1,110 people; see `_read`."""
    return _read(path, "duke_attribute", DUKE, parts)


def _read(path: str | os.PathLike, variable: str, rules: Rules, wanted: tuple[str, ...]) -> Annotations:
    """The wanted parts of a struct of train and test, each a struct of fields [1, N], joined by name on `image_index`.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a MATLAB 5 file, or not this one: a field missing, unknown or of another length, a person twice.
    """
    try:
        tables = matlab.read(path, variable)
        parts = {part: _fields(tables[part]) for part in wanted}
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} has a {variable} that is no struct of {' and '.join(wanted)}, each of rows."
        ) from error
    legend: dict[str, set[int]] = {}
    for field, value in (condition for conditions in rules.values() for condition in conditions):
        legend.setdefault(field, {1, 2}).update({1, 2, 3, 4} if field == "age" else {value})
    of_person: dict[int, np.ndarray] = {}
    invalid: list[str] = []
    for part, fields in parts.items():
        people = _people(fields.pop("image_index", ()), f"{path}, {part}")
        _check(fields, legend, len(people), f"{path}, {part}")
        for field in sorted(fields):
            invalid += [f"{field} of person {people[i]:04d}" for i in np.flatnonzero(fields[field] == _INVALID)]
        table = np.stack([_attribute(fields, conditions) for conditions in rules.values()], axis=1)  # [N, A]
        for person, row in zip(people, table, strict=True):
            if person in of_person:
                raise ValueError(f"{path}: person {person:04d} comes twice; take the original file again.")
            of_person[person] = row
    counts = {part: len(next(iter(fields.values()))) for part, fields in parts.items()}
    return Annotations(tuple(rules), of_person, counts, tuple(invalid))


def _fields(table: dict[str, np.ndarray]) -> dict[str, Any]:
    """Name -> [N] numbers; of `image_index` texts."""
    return {
        name: [str(cell) for cell in values.ravel()] if name == "image_index" else values.ravel()
        for name, values in table.items()
    }


def _people(index: Iterable[str], where: str) -> list[int]:
    people = []
    for text in index:
        if not re.fullmatch(r"\d{4}", text, re.ASCII) or text == "0000":
            raise ValueError(f"{where}: image_index has {text[:20]!r}; wanted are person numbers such as '0002'.")
        people.append(int(text))
    if not people:
        raise ValueError(f"{where}: no people in image_index; take the original file again.")
    return people


def _check(fields: dict[str, np.ndarray], legend: dict[str, set[int]], people: int, where: str) -> None:
    for names, what in ((fields.keys() - legend.keys(), "an unknown"), (legend.keys() - fields.keys(), "no")):
        if names:
            raise ValueError(f"{where}: {what} field {', '.join(sorted(names))}; take the original file again.")
    for field, values in fields.items():
        if len(values) != people or values.dtype.kind not in "uif":
            found = f"{values.dtype} [{len(values)}]"
            raise ValueError(f"{where}: {field} is {found}; wanted is a number for each of {people} people.")
        if strange := set(values.tolist()) - legend[field] - {_INVALID}:
            known = ", ".join(map(str, sorted(legend[field])))
            raise ValueError(f"{where}: {field} has the value {min(strange)}; wanted are {known}.")


def _attribute(fields: dict[str, np.ndarray], conditions: tuple[tuple[str, int], ...]) -> np.ndarray:
    """Whether all conditions hold, [N] int8; unknown where a field's value is invalid."""
    holds = np.all([fields[field] == value for field, value in conditions], axis=0)
    known = np.all([fields[field] != _INVALID for field, _ in conditions], axis=0)
    return np.where(known, holds, UNKNOWN).astype(np.int8)
