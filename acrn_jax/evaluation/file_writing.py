"""Features and labels to files, each written whole or not at all; `feature_files` reads them back."""

import importlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io

from acrn_jax import extras, files
from acrn_jax.evaluation.file_reading import MAX_MAT
from acrn_jax.evaluation.inputs import Features
from acrn_jax.schema import Labels

MAT_FIELDS = {"f": "features", "label": "person_id", "cam": "camera_id"}  # a name in .mat files and ours


def write_mat(path: str | os.PathLike, query: Features, gallery: Features) -> None:
    """Query and gallery as the variables query_f, query_label, query_cam, gallery_* of a MATLAB 5 file."""
    largest = max(part.values.nbytes for part in (query, gallery))
    if largest >= MAX_MAT:
        raise ValueError(
            f"A variable of a MATLAB 5 file holds less than 2 GiB, and the features are {largest} bytes; write h5."
        )
    found = {}
    for who, part in (("query", query), ("gallery", gallery)):
        for name, value in zip(MAT_FIELDS, (part.values, *part.labels), strict=True):
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
