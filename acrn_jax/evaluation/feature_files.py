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

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import files
from acrn_jax.data_prep import matlab
from acrn_jax.evaluation import file_reading, inputs
from acrn_jax.evaluation.file_writing import MAT_FIELDS, faiss, write_csv, write_faiss, write_h5, write_mat
from acrn_jax.evaluation.inputs import Features, Search
from acrn_jax.schema import UNKNOWN, Labels

_SETS = ("query", "gallery", "mquery")
_PLAIN = ("features", "feature", "attributes")  # names of the features of one set
_ALLOWED = ("file_name", "key", "fingerprint")


def read(features: Sequence[str | os.PathLike], labels: Sequence[str | os.PathLike] = ()) -> Search:
    """Reads one of the kinds of files in this module's table.

    Raises:
      FileNotFoundError: no such file.
      ValueError: damaged, of no known kind, incomplete, labels that are no integers or do not match the rows, features
        that are not finite (the row is named), or nothing in it.
    """
    paths, label_paths = [Path(path) for path in features], [Path(path) for path in labels]
    suffixes = {path.suffix.lower() for path in paths}
    read_one = next((f.read for f in FORMATS.values() if suffixes and suffixes <= set(f.suffixes)), None)
    found = read_one(paths, label_paths) if read_one else None
    if found is None:
        readable = [f.suffixes[0] for f in FORMATS.values() if f.read]
        raise ValueError(
            f"Files of features are one {', '.join(readable[:-1])} or {readable[-1]}, or two of one kind (query, "
            f"gallery); got {', '.join(map(str, paths)) or 'none'}."
        )
    return found


def query_names(features: Sequence[str | os.PathLike]) -> np.ndarray | None:
    """The first of `names_of_queries` [Q] str, or None."""
    return next(iter(names_of_queries(features).values()), None)


def names_of_queries(features: Sequence[str | os.PathLike]) -> dict[str, np.ndarray]:
    """Names of the queries, where files that `read` understands hold them: "key" and "file_name" -> [Q] str.

    They are the arrays query_key and query_file_name of one .npz, key and file_name of the first of two.
    """
    path = Path(features[0])
    if path.suffix.lower() != ".npz":
        return {}
    found, prefix = file_reading.npz(path), "query_" if len(features) == 1 else ""
    names = {name: np.asarray(found[prefix + name]) for name in ("key", "file_name") if prefix + name in found}
    return {name: values.astype(str) for name, values in names.items() if values.ndim == 1}


def read_set(path: str | os.PathLike) -> Features:
    """One set of images: an .npz with features (or feature, attributes), person_id and perhaps camera_id."""
    path = Path(path)
    return _set(file_reading.npz(path), path)


def with_csv_labels(
    read_values: Callable[[Path], np.ndarray], paths: Sequence[Path], label_paths: Sequence[Path]
) -> Search | None:
    """Files that hold the features of one set each, read by `read_values`, with their labels in CSV files beside them.

    Raises:
      ValueError: not as many label files as files of features.
    """
    if len(paths) not in (1, 2):
        return None
    if len(label_paths) != len(paths):
        raise ValueError(
            f"{paths[0]} holds no labels, and there are {len(label_paths)} label files for {len(paths)} files of "
            "features; give one CSV file (person_id,camera_id) for each."
        )
    sets = []
    for path, label_path in zip(paths, label_paths, strict=True):
        values, own = read_values(path), file_reading.csv_labels(label_path)
        sets.append(Features(inputs.features(values, len(own.person_id), str(path), str(label_path)), own))
    return _of_sets(sets, paths)


def _read_npy(paths: Sequence[Path], label_paths: Sequence[Path]) -> Search | None:
    if len(paths) == 1 and len(label_paths) == 2:
        query, gallery = (file_reading.csv_labels(path) for path in label_paths)
        values = file_reading.npy(paths[0])
        return Search(query, gallery, distances=inputs.distances(values, query, gallery, str(paths[0])))
    return with_csv_labels(file_reading.npy, paths, label_paths)


def _read_npz(paths: Sequence[Path], label_paths: Sequence[Path]) -> Search | None:
    _no_labels_beside(paths, label_paths)
    if len(paths) == 1:
        return _one_npz(paths[0])
    return _of_sets([read_set(path) for path in paths], paths) if len(paths) == 2 else None


def _read_mat(paths: Sequence[Path], label_paths: Sequence[Path]) -> Search:
    _no_labels_beside(paths, label_paths)
    names = {f"{who}_{old}": f"{who}_{new}" for who in _SETS for old, new in MAT_FIELDS.items()}
    found: dict[str, Any] = {}
    for path in paths:
        for name, value in file_reading.mat(path).items():
            if names.get(name, name) in found:
                raise ValueError(f"{path} holds {name}, which an earlier file holds too.")
            found[names.get(name, name)] = value
    return _search(found, paths[0], {new: old for old, new in names.items()})


def _no_labels_beside(paths: Sequence[Path], label_paths: Sequence[Path]) -> None:
    if label_paths:
        raise ValueError(f"{paths[0]} holds its labels itself; leave {label_paths[0]} out.")


def _of_sets(sets: Sequence[Features], paths: Sequence[Path]) -> Search:
    query, gallery = sets[0], sets[-1]
    inputs.check_width(query.values, gallery.values, str(paths[0]), str(paths[-1]))
    return Search(query.labels, gallery.labels, query.values, gallery.values)


def _one_npz(path: Path) -> Search:
    found = file_reading.npz(path)
    if "distances" in found:
        names = [f"{who}_{what}" for who in ("query", "gallery") for what in ("person_id", "camera_id")]
        _check_names(path, found, ("distances", "query_person_id", "gallery_person_id"), names, {})
        query, gallery = (_labels(found, who, path, {}) for who in ("query", "gallery"))
        values = inputs.distances(found["distances"], query, gallery, f"{path}: distances")
        return Search(query, gallery, distances=values)
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


# The formats


class Content(NamedTuple):
    """What is written of one set of N images."""

    name: str  # of the values: "feature" or "attributes"
    features: Features  # [N, D]
    key: np.ndarray  # [N]
    file_name: np.ndarray  # [N]
    fingerprint: str  # of the set
    more: Mapping[str, Any]  # further arrays by name: logits, attribute_names ...

    @property
    def arrays(self) -> dict[str, Any]:
        """The values and what goes with them, by name."""
        return {self.name: self.features.values, **self.more}

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """The values one by one, name -> [N]: attributes by their names."""
        names = self.more.get("attribute_names") or [f"{self.name}_{i}" for i in range(self.features.values.shape[1])]
        return dict(zip(names, self.features.values.T, strict=True))


class Format(NamedTuple):
    """A kind of file: how it is told apart, read and written; None where it is not."""

    suffixes: tuple[str, ...]
    # (files of features, files of labels) -> what is to be ranked; None for a number of files that it does not come in
    read: Callable[[Sequence[Path], Sequence[Path]], Search | None] | None = None
    write: Callable[[Path, Sequence[Content]], None] | None = None
    sets: int = 1  # that one file is written of; 2 are query and gallery
    all_arrays: bool = False  # whether it holds Content.arrays, or the values alone
    ready: Callable[[], Any] = lambda: None  # raises ValueError where the package that writes it is missing


def _write_npz(path: Path, sets: Sequence[Content]) -> None:
    (one,) = sets
    whose = {"key": one.key, "file_name": one.file_name, "fingerprint": one.fingerprint}
    files.write_arrays(path, **whose, **one.features.labels._asdict(), **one.arrays)


def _write_beside(write: Callable[..., None], path: Path, sets: Sequence[Content]) -> None:
    (one,) = sets
    columns = one.columns if one.more else None  # of attributes, whose columns have names
    write(path, one.features, one.file_name, columns, **({"more": one.more} if write is write_h5 else {}))


def _write_csv(path: Path, sets: Sequence[Content]) -> None:
    (one,) = sets
    write_csv(path, one.features.labels, one.file_name, one.columns)


FORMATS: dict[str, Format] = {
    "npz": Format((".npz",), _read_npz, _write_npz, all_arrays=True),
    "csv": Format((".csv",), None, _write_csv),
    "mat": Format((".mat",), _read_mat, lambda path, sets: write_mat(path, *(one.features for one in sets)), sets=2),
    "h5": Format(
        (".h5", ".hdf5"),
        functools.partial(with_csv_labels, file_reading.h5),
        functools.partial(_write_beside, write_h5),
        all_arrays=True,
    ),
    "npy": Format((".npy",), _read_npy),
    "faiss": Format((".faiss", ".index"), None, functools.partial(_write_beside, write_faiss), ready=faiss),
}


def write(path: Path, sets: Sequence[Content], format: str) -> None:
    """Writes one file of that format; ValueError for one that is read only."""
    writer = FORMATS[format].write
    if writer is None:
        raise ValueError(f"Files of format {format} are read, not written; choose {', '.join(written())}.")
    writer(path, sets)


def written() -> dict[str, Format]:
    """The formats that can be written."""
    return {name: one for name, one in FORMATS.items() if one.write}


def format_of(out: Path, name: str | None) -> str:
    """The format to write: what is asked for, or what the suffix says; ValueError where these disagree."""
    known = written()
    by_suffix = next((name for name, one in known.items() if out.suffix in one.suffixes), None)
    if by_suffix is None or (name or by_suffix) != by_suffix:
        asked = name or f"{', '.join(list(known)[:-1])} or {list(known)[-1]}"
        wanted = [name] if name in known else list(known)
        raise ValueError(
            f"--out={out} does not end as a file of format {asked} does; endings are "
            f"{', '.join(suffix for each in wanted for suffix in known[each].suffixes)}."
        )
    return by_suffix
