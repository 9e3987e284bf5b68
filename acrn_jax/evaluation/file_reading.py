"""Files to arrays by name, for `feature_files`; damaged bytes end in an error that names the file."""

import csv
import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from acrn_jax.data_prep import matlab
from acrn_jax.evaluation import inputs
from acrn_jax.schema import Labels

MAX_MAT = 1 << 31  # bytes of one variable, the format's own limit
_RATIO = 1100  # bytes that deflate can make of one


def _open(path: Path, wanted: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; whatever damaged bytes make it raise becomes an error that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; wanted is {wanted}.")
    try:
        return load()
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be read as {wanted}: {reason}.") from error


def npz(path: Path) -> dict[str, np.ndarray]:
    """Arrays of an .npz file by name."""

    def load():
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # numpy itself may stop reading before a member's checksum
            if damaged:
                raise ValueError(f"{damaged} is damaged")
        with np.load(path, allow_pickle=False) as file:
            return {name: member(file, name) for name in file.files}

    def member(file, name):
        try:
            return file[name]
        except ValueError as error:
            if "allow_pickle" not in str(error):
                raise
            return matlab.Unreadable("an array of Python objects, which could run anything")

    return _open(path, "an .npz file without pickled objects", load)


def npy(path: Path) -> np.ndarray:
    """The array of an .npy file, mapped to memory."""
    return _open(path, "an .npy file", lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def h5(path: Path) -> np.ndarray:
    """The data set emb of an HDF5 file."""

    def load():
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("emb"), h5py.Dataset):
                raise ValueError(f"it holds {', '.join(file) or 'nothing'}")
            values = file["emb"]
            if values.dtype.kind not in "fiu" or values.dtype.metadata:
                raise ValueError(f"emb is of type {values.dtype}")
            if math.prod(values.shape) * values.dtype.itemsize > _RATIO * path.stat().st_size:
                raise ValueError(f"emb {list(values.shape)} is more than a file of its size can hold")
            return values[()]

    return _open(path, "an HDF5 file with the data set emb [N, D]", load)


def mat(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB file of any version."""
    newer = path.is_file() and h5py.is_hdf5(path)
    return _mat73(path) if newer else matlab.read_all(path, max_bytes=MAX_MAT)


def _mat73(path: Path) -> dict[str, Any]:
    """Variables of a MATLAB 7.3 file, which is HDF5, as `matlab.read_all` gives those of a MATLAB 5 file."""

    def variable(file, place, depth=0):
        kind = place.attrs.get("MATLAB_class", "")
        kind = str(kind, "ascii") if isinstance(kind, bytes) else kind
        if not isinstance(place, h5py.Dataset) or place.external or depth > 1:
            return matlab.Unreadable("a struct, a sparse matrix or the like")
        if place.attrs.get("MATLAB_empty", 0):
            return np.zeros((0, 0))
        if math.prod(place.shape) * place.dtype.itemsize > _RATIO * path.stat().st_size:
            raise ValueError(f"{place.name} {list(place.shape)} is more than a file of its size can hold")
        if h5py.check_ref_dtype(place.dtype):  # cells
            values = np.empty(place.shape, object)
            values.ravel()[:] = [variable(file, file[cell], depth + 1) for cell in place[()].ravel()]
            return values.T
        if place.dtype.kind not in "fiu":
            return matlab.Unreadable(f"of type {place.dtype}")
        if kind != "char":
            return place[()].T if kind else place[()]  # MATLAB's axes stand in the other order
        lines = ["".join(map(chr, line)).rstrip() for line in place[()].T]
        return lines[0] if len(lines) == 1 else np.array(lines, object)

    def load():
        with h5py.File(path, "r") as file:
            own = [name for name in file if isinstance(file.get(name, getlink=True), h5py.HardLink)]
            return {name: variable(file, file[name]) for name in own if not name.startswith("#")}

    return _open(path, "a MATLAB 7.3 file", load)


def csv_labels(path: Path) -> Labels:
    """The columns person_id and camera_id of a CSV file."""
    found = csv_columns(path, ("person_id", "camera_id"))
    return Labels(*(inputs.integers(found[name], f"{path}: {name}") for name in Labels._fields))


def csv_columns(path: Path, wanted: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The columns of a CSV file with a header, name -> texts [N]; ValueError where it lacks a wanted one."""

    def load():
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = [name.strip() for name in next(lines, [])]
            if not set(wanted) <= set(header):
                raise ValueError(f"its first line is {','.join(header)!r}")
            if not wanted and len(set(header)) < len(header):
                raise ValueError("two columns have one name")
            rows = [row for row in lines if "".join(row).strip()]
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise ValueError(f"row {number} has {len(row)} fields, the header {len(header)}")
        return {name: np.array([row[i] for row in rows]) for i, name in enumerate(header)}

    return _open(path, f"a CSV file with the header {','.join(wanted)}" if wanted else "a CSV file", load)
