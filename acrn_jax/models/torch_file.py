"""Files of torch.save holding a dict of tensors, read without torch and without running what a pickle may ask for.

Both layouts are known: the zip of torch 1.6 and later, and the chain of pickles before (torchvision's older weights).
A pickle in them can name three kinds of things: an ordered dict, "a tensor of this storage", and storages.
"""

import collections
import math
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of the chain of pickles
_TYPES = {  # of storages, all little-endian
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class _Storage(NamedTuple):
    key: str
    type: str
    size: int  # elements


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int  # this and the strides in elements
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Unpickler(pickle.Unpickler):
    """Makes dicts, lists, tuples, numbers, strings, `_Tensor` and `_Storage`, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            # A new function each time: pickles can set attributes of what they are given.
            return lambda storage, offset, shape, strides, *_: _Tensor(storage, offset, tuple(shape), tuple(strides))
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        raise ValueError(f"it asks for {module}.{name}, and weights need tensors and dicts alone")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, type_, key, _, size, *view = pid
        if kind != "storage" or type_ not in _TYPES.values() or any(v is not None for v in view):
            raise ValueError(f"it refers to {pid!r}, which is no plain storage")
        return _Storage(str(key), type_, int(size))


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a state dict that torch.save wrote, by name.

    Raises:
      ValueError: no such file, damaged, or one that holds or asks for anything else.
    """
    try:
        with open(path, "rb") as file:
            tensors, storages = _zipped(file) if file.peek(4)[:4] == b"PK\x03\x04" else _chained(file)
        return {name: _array(tensor, storages[tensor.storage.key]) for name, tensor in tensors.items()}
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path} cannot be read as weights of torch.save: {error or type(error).__name__}.") from error


def _zipped(file: BinaryIO):
    with zipfile.ZipFile(file) as archive:
        index = next((name for name in archive.namelist() if name.endswith("data.pkl")), None)
        if index is None:
            raise ValueError("it is a zip without data.pkl")
        folder = index.removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it is big-endian; save it anew on another machine")
        with archive.open(index) as pickled:
            tensors = _Unpickler(pickled).load()
        return tensors, {s.key: _values(s, archive.read(f"{folder}data/{s.key}")) for s in _storages(tensors)}


def _chained(file: BinaryIO):
    if _Unpickler(file).load() != _MAGIC or _Unpickler(file).load() != _PROTOCOL:
        raise ValueError("it does not begin as such a file does")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("it is big-endian; save it anew on another machine")
    tensors, keys = _Unpickler(file).load(), _Unpickler(file).load()
    storages, known = {}, {s.key: s for s in _storages(tensors)}
    for key in keys:  # each: its number of elements, 8 bytes, then the elements
        storage = known[key]
        if struct.unpack("<q", file.read(8)) != (storage.size,):
            raise ValueError(f"storage {key} has another size than its tensors say")
        storages[key] = _values(storage, file.read(storage.size * np.dtype(storage.type).itemsize))
    return tensors, storages


def _storages(tensors):
    if not isinstance(tensors, dict):
        raise ValueError(f"it holds a {type(tensors).__name__}; wanted is the state dict alone")
    for name, value in tensors.items():
        if not isinstance(name, str) or not isinstance(value, _Tensor):
            raise ValueError(f"{name!r} in it is no tensor; wanted is the state dict alone")
    return {tensor.storage for tensor in tensors.values()}


def _values(storage, data):
    values = np.frombuffer(data, storage.type)
    if values.size != storage.size:
        raise ValueError(f"storage {storage.key} has {values.size} elements and should have {storage.size}")
    return values


def _array(tensor, values):
    """The tensor's elements as an array of its own, after looking that they lie within the storage."""
    numbers = (tensor.offset, *tensor.shape, *tensor.strides)
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    size = math.prod(tensor.shape)
    if not all(isinstance(n, int) and n >= 0 for n in numbers) or size > values.size or (size and last >= values.size):
        raise ValueError(f"a tensor of shape {tensor.shape} reaches beyond its storage of {values.size} elements")
    strides = [step * values.itemsize for step in tensor.strides]
    return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False).copy()
