"""A partition of PETA from a file of indices that the user has, such as PETAzs: people of training and test disjoint.

The file (.npz, .json or .mat) holds lists of numbers of images, in the order of PETA.mat: `train`, `val`, `test`; or
`trainval` in place of the first two; `first_index`, 0 or 1: from which the numbers count; and perhaps `image_name`, the
name of each image of PETA in that order. Nothing is guessed.

Source of the split: Jia et al., "Rethinking of Pedestrian Attribute Recognition: A Reliable Evaluation under Zero-Shot
Pedestrian Identity Setting", 2021.
"""

import json
import os
import pathlib
import re
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from acrn_jax.data_prep import matlab
from acrn_jax.data_prep.peta import release

SPLITS = ("train", "val", "test", "trainval")


def read(path: str | os.PathLike, images: Sequence[release.Image]) -> dict[str, np.ndarray]:
    """Rows of `images` (all of PETA, in PETA.mat's order), counted from 0, of train, val and test, or train and test.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no such file of indices, numbers outside of PETA or in two splits, other names, or shared people.
    """
    path = pathlib.Path(path)
    held = _load(path)
    first = held.get("first_index")
    if first is None or np.size(first) != 1 or int(np.ravel(first)[0]) not in (0, 1):
        raise ValueError(
            f"{path} does not say whether its numbers count from 0 or 1; add first_index, 0 for lists made in Python."
        )
    splits = {
        name: _rows(path, name, held[name], int(np.ravel(first)[0]), len(images)) for name in SPLITS if name in held
    }
    if "trainval" in splits and not {"train", "val"} <= splits.keys():
        splits = {"train": splits["trainval"], "test": splits.get("test", np.zeros(0, int))}
    splits.pop("trainval", None)
    if not {"train", "test"} <= splits.keys() or not all(map(len, splits.values())):
        raise ValueError(f"{path} has {', '.join(held) or 'nothing'}; wanted are lists train, val and test.")
    _check_apart(path, splits, images)
    if "image_name" in held:
        _check_names(path, [str(name) for name in np.ravel(held["image_name"])], int(np.ravel(first)[0]), images)
    return splits


def _load(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"No file {path}; --partition wants the indices of the split, .npz, .json or .mat.")
    try:
        if path.suffix.lower() == ".npz":
            with np.load(path, allow_pickle=False) as kept:
                return dict(kept)
        if path.suffix.lower() == ".mat":
            return matlab.read_all(path)
        found = json.loads(path.read_text()) if path.suffix.lower() == ".json" else None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as a file of indices ({error}); write it again.") from error
    if not isinstance(found, dict):
        hint = ", which is never opened here: data_prep/peta/README.md has the line that turns it into .json"
        pickle = hint if path.suffix.lower() in (".pkl", ".pickle") else ""
        raise ValueError(f"{path} is no .npz, .json or .mat with lists of indices{pickle}.")
    return found


def _rows(path: pathlib.Path, name: str, values: Any, first: int, number: int) -> np.ndarray:
    rows = np.ravel(np.asarray(values))
    if rows.dtype.kind not in "iuf" or not rows.size or np.any(rows % 1):
        raise ValueError(f"{path}: {name} is no list of whole numbers; write the indices of its images.")
    rows = rows.astype(np.int64) - first
    wrong = rows[(rows < 0) | (rows >= number)]
    if wrong.size:
        raise ValueError(
            f"{path}: {name} has the number {wrong[0] + first}, outside of {first} to {number - 1 + first}; "
            f"is first_index, {first}, right?"
        )
    if len(np.unique(rows)) < len(rows):
        values, counts = np.unique(rows, return_counts=True)
        raise ValueError(f"{path}: {name} has the number {values[counts > 1][0] + first} twice; list each image once.")
    return rows


def _check_apart(path: pathlib.Path, splits: dict[str, np.ndarray], images: Sequence[release.Image]) -> None:
    """ValueError for an image in two splits, or people of train or val in test."""
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        both = np.intersect1d(splits.get(one, ()), splits.get(other, ()))
        if both.size:
            raise ValueError(
                f"{path} has {images[int(both[0])].file_name} in {one} and {other}; an image is in one split."
            )
    tested = {images[row].person_id: images[row].file_name for row in splits["test"]}
    for split in ("train", "val"):
        shared = [row for row in splits.get(split, ()) if images[row].person_id in tested]
        if shared:
            image = images[shared[0]]
            raise ValueError(
                f"{path} has {len(shared)} images of {split} that show people of test, e.g. {image.file_name} and "
                f"{tested[image.person_id]}: it is no zero-shot split of these images, or first_index is wrong."
            )


def _check_names(path: pathlib.Path, names: list[str], first: int, images: Sequence[release.Image]) -> None:
    """ValueError unless each name is its image's, or the image's number counted from 1 (00001.png)."""
    if len(names) != len(images):
        raise ValueError(f"{path}: image_name has {len(names):,} names, PETA has {len(images):,} images.")
    numbers = [re.fullmatch(r"0*(\d+)\.\w+", name) for name in names]
    if all(numbers):
        wrong = [i for i, found in enumerate(numbers) if found and int(found[1]) != i + 1]
        told = f"{names[wrong[0]]} as its image {wrong[0] + first}" if wrong else ""
    else:
        wrong = [i for i, (name, image) in enumerate(zip(names, images, strict=True)) if name != image.file_name]
        told = f"{names[wrong[0]]} where PETA has {images[wrong[0]].file_name}" if wrong else ""
    if wrong:
        raise ValueError(f"{path}: image_name has {told}; the file is of another order of images.")
