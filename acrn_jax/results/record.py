"""JSON objects as frozen dataclasses: a record's fields are the object's keys, its annotations what they may hold.

Standard library and numpy alone.
"""

import dataclasses
import functools
import numbers
import os
import types
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from acrn_jax import COMMAND, files

SCHEMA = 1


class Malformed(ValueError):
    """A value is not what a record wants there; the sentence says where it stands."""


def optional() -> Any:
    """A field that is left out of the file where it is None."""
    return dataclasses.field(default=None, metadata={"optional": True})


@typing.dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field, optional))
class Record:
    """A JSON object; each class below this one becomes a frozen dataclass of keyword arguments.

    Annotations may be str, bool, int, float, Any, records, tuples and mappings of these, and unions.
    """

    verb: ClassVar[str] = "evaluate"  # that writes the file

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(frozen=True, kw_only=True)(cls)

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """The record in a file.

        Raises:
          FileNotFoundError: no such file.
          ValueError: broken JSON, another schema, or an entry missing or of another kind; names file and entry.
        """
        if not os.path.isfile(path):
            raise FileNotFoundError(f"There is no {path}; run {COMMAND} {cls.verb} first.")
        tree = files.read_json(path)
        again = f"run {COMMAND} {cls.verb} again"
        if (schema := tree.get("schema", SCHEMA)) != SCHEMA:
            raise ValueError(
                f"{path} has schema {schema!r}, and this version of acrn_jax reads schema {SCHEMA}; read it with the "
                f"version that wrote it, or {again}."
            )
        try:
            return cls.parse(tree)
        except Malformed as error:
            raise ValueError(f"{path} is not what {cls.verb} writes: {error}; {again}.") from error

    @classmethod
    def of(cls, content: Mapping[str, Any] | Self | None = None, /, **entries: Any) -> Self:
        """The record of values that were just computed: a mapping, keyword arguments or both; a record passes.

        Raises:
          ValueError: an entry is missing, unknown, or of another kind.
        """
        if isinstance(content, cls):
            return cls.parse(content._entries() | entries, strict=True) if entries else content
        return cls.parse({**(content or {}), **entries}, strict=True)

    @classmethod
    def parse(cls, tree: Mapping[str, Any], where: str = "", *, strict: bool = False) -> Self:
        """The record of a JSON object, which stands at `where` in its file.

        Raises:
          Malformed: an entry is missing or of another kind, or (if `strict`) unknown.
        """
        if not isinstance(tree, Mapping):
            raise Malformed(f"{where} is to be an object, not {tree!r:.80}")
        prefix, kinds = f"{where}." if where else "", _kinds(cls)
        known = _fields(cls)
        if missing := [name for name, field in known.items() if _required(field) and name not in tree]:
            raise Malformed(f"{where or 'it'} lacks {', '.join(missing)}")
        if strict and (strays := [name for name in tree if name not in known]):
            raise Malformed(f"{prefix}{strays[0]} is no field of {cls.__name__} (acrn_jax/results)")
        return cls(
            **{name: parse_value(kinds[name], tree[name], f"{prefix}{name}", strict) for name in known if name in tree}
        )

    def to_json(self) -> dict[str, Any]:
        """What is written: dicts, lists, numbers and texts."""
        excluded = {name for name, field in _fields(type(self)).items() if field.metadata.get("optional")}
        return {k: plain(v) for k, v in self._entries().items() if v is not None or k not in excluded}

    def _entries(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in _fields(type(self))}


@functools.cache
def _fields(cls: Any) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls)}


def _required(field: dataclasses.Field) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _kinds(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def parse_value(kind: Any, value: Any, where: str, strict: bool) -> Any:
    """A value of JSON as the annotation `kind` has it."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return _parse_union(arguments, value, where, strict)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(parse_value(arguments[0], item, f"{where}[{i}]", strict) for i, item in enumerate(value))
    if isinstance(origin, type) and issubclass(origin, Mapping) and isinstance(value, Mapping):
        return {key: parse_value(arguments[1], item, f"{where}.{key}", strict) for key, item in value.items()}
    if isinstance(kind, type) and issubclass(kind, Record):
        return value if isinstance(value, kind) else kind.parse(value, where, strict=strict)
    if kind in _CHECKS and _CHECKS[kind](value):
        return value
    if isinstance(kind, type) and kind not in _CHECKS and isinstance(value, kind):
        return value  # of a class of ours, which no file holds
    raise Malformed(f"{where} is to be {_words(kind)}, not {value!r:.80}")


def _parse_union(kinds: tuple[Any, ...], value: Any, where: str, strict: bool) -> Any:
    if value is None and types.NoneType in kinds:
        return None
    others = [kind for kind in kinds if kind is not types.NoneType]
    if len(others) == 1:  # its own sentence may name a place further in
        return parse_value(others[0], value, where, strict)
    for kind in others:
        try:
            return parse_value(kind, value, where, strict)
        except Malformed:
            continue
    raise Malformed(f"{where} is to be {' or '.join(filter(None, map(_words, others)))}, not {value!r:.80}")


_CHECKS: dict[Any, Any] = {
    str: lambda value: isinstance(value, str),
    bool: lambda value: isinstance(value, bool),
    int: lambda value: isinstance(value, numbers.Integral) and not isinstance(value, bool),
    float: lambda value: isinstance(value, numbers.Real) and not isinstance(value, bool),
}
_WORDS = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}
_WORDS |= {tuple: "a list", Mapping: "an object"}


def _words(kind: Any) -> str:
    """What JSON calls a value of this kind; nothing for what no file holds."""
    return _WORDS.get(typing.get_origin(kind) or kind, "")


def plain(value: Any) -> Any:
    """Records, tuples and mappings as the dicts and lists of JSON."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
