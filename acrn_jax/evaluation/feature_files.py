"""Features and labels in files, whoever made them: what evaluation reads, and what extraction writes.

Files that `read` understands, told apart by their suffix (Q queries, G gallery images, M boxes, D values an image):

| files | holding | labels |
| --- | --- | --- |
| one .npz | query_features [Q, D], query_person_id [Q], query_camera_id [Q], gallery_*, perhaps mquery_* [M] | inside |
| one .npz | distances [Q, G] and the four label arrays of above | inside |
| .mat, one or more | query_f [Q, D], query_label [1, Q], query_cam [1, Q], gallery_*, perhaps mquery_* | inside |
| two .npz, query first | features (or feature, attributes) [N, D], person_id [N], camera_id [N] | inside |
| two .h5 or .npy, query first | emb [N, D] (.npy: the array itself) | two CSV files |
| one .npy | distances [Q, G] | two CSV files |
| one .npz, .h5 or .npy, as the two above | one set, to be ranked against itself | inside, or a CSV file |

A CSV file has the header person_id,camera_id and one line for each row of features; further columns are ignored.

Labels are integers: person_id 1 or more a person, 0 a distractor, -1 junk; camera_id -1 unknown. Floats without a
fraction (MATLAB's doubles), texts of digits ("0042") and cells of either are read as the integers that they spell;
anything else is an error. Without any camera ids every camera is unknown. Features are real numbers of any type, up to
1e150; they score as in float64.

Names in a .npz or .mat file that are none of the above are errors where they hold numbers or texts of digits, lest a
misspelt one be overlooked; what holds none (names of files, structs) is passed over, and so are names that end in
file_name, key or fingerprint.

.mat files are those of MATLAB 5 to 7 (save's default, scipy's savemat) and of 7.3, which are HDF5. No file is trusted:
pickles are not loaded, and damaged bytes end in an error that names the file.
"""

import csv
import importlib
import io
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from acrn_jax import extras, files
from acrn_jax.data_prep import matlab
from acrn_jax.evaluation import inputs
from acrn_jax.evaluation.inputs import Features, Search
from acrn_jax.schema import UNKNOWN, Labels

_MAX_MAT = 1 << 31  # bytes of one variable, the format's own limit
_RATIO = 1100  # bytes that deflate can make of one
_SETS = ("query", "gallery", "mquery")
_PLAIN = ("features", "feature", "attributes")  # names of the features of one set
_ALLOWED = ("file_name", "key", "fingerprint")
_FIELD = {"f": "features", "label": "person_id", "cam": "camera_id"}  # of .mat files


def read(features: Sequence[str | os.PathLike], labels: Sequence[str | os.PathLike] = ()) -> Search:
    """Reads one of the kinds of files in this module's table.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged, of no known kind, incomplete, labels that are no integers or do not match the rows, features
        that are not finite (the row is named), or nothing in it.
    """
    paths, label_paths = [Path(path) for path in features], [Path(path) for path in labels]
    suffixes = {path.suffix.lower() for path in paths}
    kind = suffixes.pop() if len(suffixes) == 1 else None
    if kind in (".npz", ".mat") and label_paths:
        raise ValueError(f"{paths[0]} holds its labels itself; leave {label_paths[0]} out.")
    if kind == ".mat":
        return _search(_mat(paths), paths[0], {new: old for old, new in _mat_names()})
    if kind == ".npz" and len(paths) == 1:
        return _one_npz(paths[0])
    if kind == ".npy" and len(paths) == 1 and len(label_paths) == 2:
        query, gallery = (_csv(path) for path in label_paths)
        return Search(query, gallery, distances=inputs.distances(_npy(paths[0]), query, gallery, str(paths[0])))
    if kind == ".npz" and len(paths) == 2:
        return _of_sets([read_set(path) for path in paths], paths)
    if kind in (".npy", ".h5", ".hdf5") and len(paths) in (1, 2):
        if len(label_paths) != len(paths):
            raise ValueError(
                f"{paths[0]} holds no labels, and there are {len(label_paths)} label files for {len(paths)} files of "
                "features; give one CSV file (person_id,camera_id) for each."
            )
        sets = []
        for path, label_path in zip(paths, label_paths, strict=True):
            values, own = (_npy if kind == ".npy" else _h5)(path), _csv(label_path)
            sets.append(Features(inputs.features(values, len(own.person_id), str(path), str(label_path)), own))
        return _of_sets(sets, paths)
    raise ValueError(
        f"Files of features are one .npz, .mat, .h5 or .npy, or two of one kind (query, gallery); got "
        f"{', '.join(map(str, paths)) or 'none'}."
    )


def read_set(path: str | os.PathLike) -> Features:
    """One set of images: an .npz with features (or feature, attributes), person_id and perhaps camera_id."""
    path = Path(path)
    return _set(_npz(path), path)


def _of_sets(sets: Sequence[Features], paths: Sequence[Path]) -> Search:
    query, gallery = sets[0], sets[-1]
    inputs.check_width(query.values, gallery.values, str(paths[0]), str(paths[-1]))
    return Search(query.labels, gallery.labels, query.values, gallery.values)


def _one_npz(path: Path) -> Search:
    found = _npz(path)
    if "distances" in found:
        names = [f"{who}_{what}" for who in ("query", "gallery") for what in ("person_id", "camera_id")]
        _check_names(path, found, ("distances", "query_person_id", "gallery_person_id"), names, {})
        query, gallery = (_labels(found, who, path, {}) for who in ("query", "gallery"))
        return Search(
            query, gallery, distances=inputs.distances(found["distances"], query, gallery, f"{path}: distances")
        )
    if "person_id" in found and not any(name.startswith("query_") for name in found):
        return _of_sets([_set(found, path)], [path])
    return _search(found, path, {})


def _search(found: dict[str, Any], path: Path, shown: Mapping[str, str]) -> Search:
    """Query and gallery, and the boxes of multi-query where they are there; `shown`: our name -> that of the file."""
    sets = [who for who in _SETS if who != "mquery" or any(name.startswith("mquery_") for name in found)]
    needed = [f"{who}_{what}" for who in sets for what in ("features", "person_id")]
    known = [f"{who}_{what}" for who in _SETS for what in ("features", "person_id", "camera_id")]
    _check_names(path, found, needed, known, shown)
    with_cameras = [who for who in sets if f"{who}_camera_id" in found]
    if with_cameras and with_cameras != sets:
        raise ValueError(
            f"{path} holds camera ids of {', '.join(with_cameras)} alone; give those of all images, or none."
        )
    read_sets = {}
    for who in sets:
        name = shown.get(f"{who}_features", f"{who}_features")
        labels = _labels(found, who, path, shown)
        label_name = shown.get(f"{who}_person_id", f"{who}_person_id")
        values = inputs.features(found[f"{who}_features"], len(labels.person_id), f"{path}: {name}", label_name)
        read_sets[who] = Features(values, labels)
    query, gallery = read_sets["query"], read_sets["gallery"]
    for who, other in read_sets.items():
        inputs.check_width(query.values, other.values, f"{path}: query", f"{path}: {who}")
    return Search(query.labels, gallery.labels, query.values, gallery.values, boxes=read_sets.get("mquery"))


def _set(found: dict[str, Any], path: Path) -> Features:
    name = next((name for name in _PLAIN if name in found), _PLAIN[0])
    more = ("logits", "attribute_names", "recognition_rate") if name == "attributes" else ()
    _check_names(path, found, (name, "person_id"), ("camera_id", *more), {})
    labels = _labels({f"set_{key}": value for key, value in found.items()}, "set", path, {})
    return Features(inputs.features(found[name], len(labels.person_id), f"{path}: {name}", "person_id"), labels)


# Checks


def _check_names(
    path: Path,
    found: Mapping[str, Any],
    needed: Sequence[str],
    known: Sequence[str],
    shown: Mapping[str, str] | None = None,
) -> None:
    shown = shown or {}
    present, listed = set(found), ", ".join(sorted(shown.get(name, name) for name in found)) or "nothing"
    missing = [shown.get(name, name) for name in needed if name not in present]
    strange = [
        shown.get(name, name)
        for name in sorted(present - {*needed, *known})
        if not name.endswith(_ALLOWED) and not _no_numbers(found[name])
    ]
    for name in (*needed, *known):
        if isinstance(found.get(name), matlab.Unreadable):
            raise ValueError(
                f"{path}: {shown.get(name, name)} is {found[name].kind}; save it as a plain array of numbers (labels "
                "may be texts of digits)."
            )
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}; it holds {listed}.")
    if strange:
        allowed = ", ".join(shown.get(name, name) for name in [*needed, *known] if name not in present)
        more = f", and could hold {allowed}" if allowed else "; leave it out"
        raise ValueError(f"{path} holds {', '.join(strange)}, which nothing here reads; it holds {listed}{more}.")


def _no_numbers(value: Any) -> bool:
    """Whether a value is neither numbers nor texts of digits, and so no misspelt feature or label: file names, say."""
    if isinstance(value, matlab.Unreadable | dict):
        return True
    values = np.asarray(value)
    return values.dtype.kind in "USO" and not all(map(inputs.spells, map(inputs.plain, values.ravel().tolist())))


def _labels(found: Mapping[str, Any], who: str, path: Path, shown: Mapping[str, str]) -> Labels:
    parts = []
    for what in ("person_id", "camera_id"):
        name = f"{who}_{what}"
        if name in found:
            parts.append(inputs.integers(found[name], f"{path}: {shown.get(name, name).removeprefix('set_')}"))
        else:
            parts.append(np.full(len(parts[0]), UNKNOWN))
    if len(parts[0]) != len(parts[1]):
        raise ValueError(
            f"{path}: {who} has {len(parts[0])} person ids and {len(parts[1])} camera ids; they must agree."
        )
    return Labels(*parts)


# Files


def _open(path: Path, wanted: str, load: Callable[[], Any]) -> Any:
    """What `load` gives; whatever damaged bytes make it raise becomes an error that names the file."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}; wanted is {wanted}.")
    try:
        return load()
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be read as {wanted}: {reason}.") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
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


def _npy(path: Path) -> np.ndarray:
    return _open(path, "an .npy file", lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _h5(path: Path) -> np.ndarray:
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


def _mat_names() -> list[tuple[str, str]]:
    """Pairs of a name in .mat files and ours."""
    return [(f"{who}_{old}", f"{who}_{new}") for who in _SETS for old, new in _FIELD.items()]


def _mat(paths: Sequence[Path]) -> dict[str, Any]:
    names, found = dict(_mat_names()), {}
    for path in paths:
        newer = path.is_file() and h5py.is_hdf5(path)
        for name, value in (_mat73(path) if newer else matlab.read_all(path, max_bytes=_MAX_MAT)).items():
            if names.get(name, name) in found:
                raise ValueError(f"{path} holds {name}, which an earlier file holds too.")
            found[names.get(name, name)] = value
    return found


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


def _csv(path: Path) -> Labels:
    def load():
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, strict=True)
            header = [name.strip() for name in next(lines, [])]
            if "person_id" not in header or "camera_id" not in header:
                raise ValueError(f"its first line is {','.join(header)!r}")
            rows = [row for row in lines if "".join(row).strip()]
        for number, row in enumerate(rows):
            if len(row) != len(header):
                raise ValueError(f"row {number} has {len(row)} fields, the header {len(header)}")
        return {name: np.array([row[header.index(name)] for row in rows]) for name in ("person_id", "camera_id")}

    found = _open(path, "a CSV file with the header person_id,camera_id", load)
    return Labels(*(inputs.integers(values, f"{path}: {name}") for name, values in found.items()))


# What extraction writes


def write_mat(path: str | os.PathLike, query: Features, gallery: Features) -> None:
    """Query and gallery as the variables query_f, query_label, query_cam, gallery_* of a MATLAB 5 file."""
    largest = max(part.values.nbytes for part in (query, gallery))
    if largest >= _MAX_MAT:
        raise ValueError(
            f"A variable of a MATLAB 5 file holds less than 2 GiB, and the features are {largest} bytes; write h5."
        )
    found = {}
    for who, part in (("query", query), ("gallery", gallery)):
        for name, value in zip(_FIELD, (part.values, *part.labels), strict=True):
            found[f"{who}_{name}"] = value if value.ndim == 2 else value[None].astype(np.int64)  # labels [1, N]
    with files.replacing(path) as partial:
        scipy.io.savemat(partial, found, appendmat=False)


Columns = Mapping[str, np.ndarray] | None  # name -> [N]


def write_h5(
    path: str | os.PathLike,
    features: Features,
    file_name: Sequence[str],
    columns: Columns = None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """One set: emb [N, D] of an HDF5 file, `more` arrays by name, numbers or texts; `write_csv`'s file beside it."""
    content = io.BytesIO()  # HDF5 itself would end the process on a full disk
    with h5py.File(content, "w") as file:
        file["emb"] = features.values
        for name, value in (more or {}).items():
            value = np.asarray(value)
            file[name] = value.astype(h5py.string_dtype()) if value.dtype.kind == "U" else value
    files.write_bytes(path, content.getvalue())
    write_csv(Path(path).with_suffix(".csv"), features.labels, file_name, columns)


def faiss() -> Any:
    """The FAISS package; ValueError where it is not installed."""
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ValueError(
            f"FAISS is not installed ({error}), the extra 'faiss': {extras.remedy('faiss', ['faiss-cpu'])}; or write "
            "npz or h5."
        ) from error


def write_faiss(path: str | os.PathLike, features: Features, file_name: Sequence[str], columns: Columns = None) -> None:
    """One set: a FAISS index of squared L2 distances, and `write_csv`'s file beside it."""
    package = faiss()
    index = package.IndexFlatL2(features.values.shape[1])
    index.add(np.ascontiguousarray(features.values, np.float32))
    with files.replacing(path, also=(RuntimeError,)) as partial:
        package.write_index(index, str(partial))
    write_csv(Path(path).with_suffix(".csv"), features.labels, file_name, columns)


def write_csv(
    path: str | os.PathLike,
    labels: Labels,
    file_name: Sequence[str],
    columns: Columns = None,
) -> None:
    """Labels as `read` wants them, and further columns [N] by name, in as few digits as tell their values apart."""
    columns = columns or {}
    numbers = (np.asarray(values).astype(str).tolist() for values in columns.values())
    rows = zip(*(values.tolist() for values in labels), map(str, file_name), *numbers, strict=True)
    files.write_csv(path, [("person_id", "camera_id", "file_name", *columns), *rows])
