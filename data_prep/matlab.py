"""Reads MATLAB 5 files: numbers, texts, cells and structs.

SciPy reads them too, but a damaged file makes its reader crash the whole interpreter; this one ends in an error.

Source: The MathWorks, "MAT-File Format", chapter 1 (level 5).
"""

import contextlib
import itertools
import math
import os
import pathlib
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}  # data types
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _CHAR = 1, 2, 4  # array classes
_OTHERS = {3: "an object", 5: "a sparse matrix", 16: "a function", 17: "an object (a string array, table or the like)"}
_NUMERIC = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}  # of stored characters
_HEADER = 128  # bytes
_MAX_BYTES = 1 << 28  # of one variable, unpacked
_MAX_DEPTH = 16  # of cells and structs in one another


class Unreadable(NamedTuple):
    """Stands for a variable that is sound but of a kind that is not read."""

    kind: str


class _UnknownKindError(ValueError):
    """A variable is sound but of a kind that is not read."""


def read(path: str | os.PathLike, variable: str) -> Any:
    """One variable of a file.

    Returns:
      Numbers: an array of MATLAB's shape, at least two axes. Text of one line: str; of n lines: an object array [n] of
      str. Cells: an object array of values. A struct: {field: value}; several: an object array of those.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a MATLAB 5 file, damaged, without that variable, or with what is none of the above in it.
    """
    with _variables(path, f"with the variable {variable!r}", _MAX_BYTES) as found:
        for name, content, order in found:
            if name == variable:
                return _matrix(content, order, depth=0)
        raise ValueError(f"no variable {variable!r}")


def read_all(path: str | os.PathLike, *, max_bytes: int = _MAX_BYTES) -> dict[str, Any]:
    """All variables of a file by name, as `read` gives them, or Unreadable; unpacked, each has at most `max_bytes`."""
    with _variables(path, "with named variables", max_bytes, "save it anew with -v7") as found:
        return {name: _told(content, order) for name, content, order in found if name}


def _told(content: memoryview, order: str) -> Any:
    try:
        return _matrix(content, order, depth=0)
    except _UnknownKindError as error:
        return Unreadable(str(error))


@contextlib.contextmanager
def _variables(
    path: str | os.PathLike, wanted: str, max_bytes: int, remedy: str = "take the original file again"
) -> Iterator[Iterator[tuple[str, memoryview, str]]]:
    """Names, contents and byte order of a file's variables; what is raised over them becomes a named error."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}; wanted is a MATLAB 5 file {wanted}.")

    def found():
        with path.open("rb") as file:
            order = _byte_order(file.read(_HEADER))
            data = memoryview(file.read())
        for kind, content in _elements(data, order):
            content = _unpacked(content, order, max_bytes) if kind == _COMPRESSED else content
            if len(content):
                yield _name(content, order), content, order

    try:
        yield found()
    except Exception as error:  # whatever bytes may lead to
        raise ValueError(
            f"{path} cannot be read as a MATLAB 5 file ({str(error) or type(error).__name__}); "
            f"wanted is one {wanted}: {remedy}."
        ) from error


def _byte_order(header: bytes) -> str:
    order = {b"IM": "<", b"MI": ">"}.get(header[126:128])
    version = struct.unpack_from(order + "H", header, 124)[0] if order else 0
    if order is None or version != 0x0100:
        raise ValueError("it is of MATLAB 7.3, which is HDF5" if version == 0x0200 else "no such header")
    return order


def _elements(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """Type and content of one element after another."""
    place = 0
    while place < len(data):
        kind, size = struct.unpack_from(order + "II", data, place)
        start = place + 8
        if kind >> 16:  # four bytes or fewer lie in the tag itself
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
            if size > 4:
                raise ValueError("an element is longer than its place")
        else:
            place = start + size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(data):
            raise ValueError("it ends too early")
        yield kind, data[start : start + size]


def _unpacked(content: memoryview, order: str, max_bytes: int) -> memoryview:
    """The matrix in a compressed element."""
    inflate = zlib.decompressobj()
    data = inflate.decompress(content, max_bytes)
    if not inflate.eof:
        raise ValueError("a variable is too large, or ends too early")
    return next(content for kind, content in _elements(memoryview(data), order) if kind == _MATRIX)


def _name(content: memoryview, order: str) -> str:
    return str(next(itertools.islice(_elements(content, order), 2, None))[1], "latin-1")


def _matrix(content: memoryview, order: str, *, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError("too many cells in one another")
    if not len(content):
        return np.zeros((0, 0))
    parts = _elements(content, order)
    flags = int(_numbers(*next(parts), order)[0])
    if flags & 0xFF in _OTHERS or flags & 0x0800:
        raise _UnknownKindError(_OTHERS.get(flags & 0xFF, "an array of complex numbers"))
    shape = _numbers(*next(parts), order).tolist()
    next(parts)  # the name
    kind, count = flags & 0xFF, math.prod(shape)
    if not 2 <= len(shape) <= 32 or min(shape) < 0:
        raise ValueError(f"an array {shape} of no shape")
    if kind in _NUMERIC:
        with np.errstate(invalid="ignore"):
            return _numbers(*next(parts), order).astype(_NUMERIC[kind]).reshape(shape, order="F")
    if kind == _CHAR:
        return _text(shape, next(parts, (1, memoryview(b""))), order)
    fields = [""]
    if kind == _STRUCT:
        width = int(_numbers(*next(parts), order)[0])
        names = bytes(next(parts)[1])
        fields = [str(names[i : i + width].split(b"\0")[0], "ascii") for i in range(0, len(names), width)]
        if len(set(fields)) != len(fields) or (not fields and count > 1):
            raise ValueError("structs without fields, or with one twice")
    elif kind != _CELL:
        raise ValueError(f"an array of class {kind}, which is neither numbers, text, cells nor a struct")
    values = [_matrix(part, order, depth=depth + 1) for part_kind, part in parts if part_kind == _MATRIX]
    if len(values) != count * len(fields):
        raise ValueError(f"{len(values)} values for an array {shape} of {len(fields)} fields")
    if kind == _STRUCT:
        width = len(fields)
        values = [dict(zip(fields, values[i * width : (i + 1) * width], strict=True)) for i in range(count)]
        if count == 1:
            return values[0]
    cells = np.empty(count, object)
    cells[:] = values
    return cells.reshape(shape, order="F")


def _numbers(kind: int, content: memoryview, order: str) -> np.ndarray:
    """Stored numbers [N]."""
    if kind not in _STORED:
        raise ValueError(f"data of type {kind} where numbers are wanted")
    return np.frombuffer(content, np.dtype(order + _STORED[kind]))


def _text(shape: list[int], stored: tuple[int, memoryview], order: str) -> str | np.ndarray:
    kind, content = stored
    wide = "" if kind in (1, 2, 16) else "-le" if order == "<" else "-be"
    text = str(content, _ENCODINGS[kind] + wide)
    if shape[0] <= 1:
        return text
    if len(text) != math.prod(shape):
        raise ValueError(f"{len(text)} characters for a text {shape}")
    lines = np.empty(shape[0], object)  # they stand beside each other, as columns do
    lines[:] = [text[i :: shape[0]].rstrip() for i in range(shape[0])]
    return lines
