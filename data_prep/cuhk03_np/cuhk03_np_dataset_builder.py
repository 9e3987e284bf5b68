"""CUHK03 in the new protocol: 767 people train, 700 are tested, all their images are searched as in Market-1501."""

import hashlib
import os
import pathlib
import re
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax.data_prep import dev, matlab, reid, release
from acrn_jax.data_prep.cuhk03 import release as cuhk03

OFFICIAL = {
    kind: {"train": reid.Counts(train, 767), "query": reid.Counts(1_400, 700), "gallery": reid.Counts(gallery, 700)}
    for kind, train, gallery in (("labeled", 7_368, 5_328), ("detected", 7_365, 5_332))
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}  # of the set as images
NAME = r"(\d{4})_c([12])(?!\d).*"  # person, view
EXAMPLE = "0001_c1_1.png"


class Builder(reid.ContentsBuilder):
    """CUHK03-NP (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name)
        for kind in cuhk03.KINDS
        for name in (kind, *(f"{kind}_{fold}" for fold in dev.NAMES))
    ]

    def read(self, **options) -> reid.Contents:
        kind, fold = self.builder_config.name.split("_")[0], dev.fold_of(self.builder_config.name)
        return read(kind, **options) if fold is None else read_dev(kind, fold, **options)


def read(kind: str, *, raw_dir: str | os.PathLike, protocol_mat: str | os.PathLike | None = None) -> reid.Contents:
    """What one config holds.

    Args:
      kind: "labeled" or "detected".
      raw_dir: folder that holds cuhk-03.mat, in itself or up to three folders below; or that file; or, without
        cuhk-03.mat, a folder with KIND/{bounding_box_train,query,bounding_box_test}, as cuhk03-np.zip unpacks.
      protocol_mat: cuhk03_new_protocol_config_KIND.mat; by default in or below `raw_dir`, in the folder of cuhk-03.mat
        or in the one above.

    Raises:
      ValueError: a file is not as released.
      FileNotFoundError: no such file or folder.
    """
    mat = cuhk03.find(raw_dir)
    extras = {}
    if mat is None:
        splits, faults = _read_images(pathlib.Path(raw_dir), kind)
    else:
        path = pathlib.Path(protocol_mat) if protocol_mat else _find_protocol(raw_dir, mat, kind)
        splits, faults = protocol_splits(path, cuhk03.read(mat), kind)
        extras["protocol_mat_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    about = {"attribute_names": (), "protocol": "cuhk03_new", "kind": kind} | extras
    return reid.Contents(splits, about, OFFICIAL[kind], faults=faults)


def read_dev(
    kind: str, fold: int, *, raw_dir: str | os.PathLike, protocol_mat: str | os.PathLike | None = None
) -> reid.Contents:
    """A fold of the training half: train, query, gallery; see `data_prep.dev`.

    Args:
      kind: "labeled" or "detected".
      fold: from 0.
      raw_dir, protocol_mat: as `read` takes them; without cuhk-03.mat, KIND/bounding_box_train is enough, or a folder
        with its images.

    Raises:
      FileNotFoundError, ValueError: as of `read`; images in several folders or of the test half; too few people.
    """
    about = {"attribute_names": (), "protocol": "cuhk03_new", "kind": kind}
    if cuhk03.find(raw_dir) is None:
        raw, other = pathlib.Path(raw_dir).absolute(), next(k for k in cuhk03.KINDS if k != kind)
        root, within = _kind_folder(raw, kind), set(raw.parts[-2:])
        if root is None and (_kind_folder(raw, other) or (other in within and kind not in within)):
            raise FileNotFoundError(f"{raw_dir} has {other} images and no {kind}; choose {other}_dev_{fold}.")
        others = set(FOLDERS.values()) - {FOLDERS["train"]}
        half, faults = release.read_half(root or raw_dir, FOLDERS["train"], NAME, example=EXAMPLE, others=others)
    else:
        whole = read(kind, raw_dir=raw_dir, protocol_mat=protocol_mat)
        half, faults, about = whole.splits["train"], whole.faults, whole.metadata
    return dev.contents(half, fold, about, official=OFFICIAL[kind]["train"], faults=faults)


class Protocol(NamedTuple):
    """A cuhk03_new_protocol_config_KIND.mat with N images."""

    names: list[str]  # [N], such as 1_001_1_01.png
    person_id: np.ndarray  # [N] int, 1 to 1467
    camera_id: np.ndarray  # [N] int, the view
    splits: dict[str, np.ndarray]  # train, query, gallery -> rows, from 0


def read_protocol(path: str | os.PathLike) -> Protocol:
    """The official split, from its MATLAB 5 file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a MATLAB 5 file, or not such a split.
    """
    names = np.asarray(matlab.read(path, "filelist"), object).ravel().tolist()
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: filelist holds more than names; take the original file again.")
    person_id, camera_id = _whole(path, "labels"), _whole(path, "camId")
    splits = {split: _whole(path, f"{split}_idx") - 1 for split in FOLDERS}
    if not len(names) == len(person_id) == len(camera_id):
        raise ValueError(
            f"{path} has {len(names)} names in filelist, {len(person_id)} labels and {len(camera_id)} camId; "
            "take the original file again."
        )
    for split, rows in splits.items():
        if rows.size and not 0 <= rows.min() <= rows.max() < len(names):
            raise ValueError(
                f"{path}: {split}_idx points outside the {len(names)} names; take the original file again."
            )
    return Protocol(names, person_id, camera_id, splits)


def protocol_splits(
    path: str | os.PathLike, cuhk: cuhk03.Release, kind: str
) -> tuple[dict[str, list[reid.Example]], list[str]]:
    """Splits as the protocol's file gives them, and a fault for each of its rows that cuhk-03.mat contradicts.

    Raises:
      FileNotFoundError, ValueError: see `read_protocol`.
    """
    protocol = read_protocol(path)
    faults = []
    examples: dict[int, reid.Example] = {}
    for row, name in enumerate(protocol.names):
        match = re.fullmatch(r"(\d)_(\d{3})_[12]_(\d\d)\.png", name, re.ASCII)
        place = cuhk03.Place(*(int(group) for group in match.groups())) if match else None
        said = (int(protocol.person_id[row]), int(protocol.camera_id[row]))
        where = f"{path}, filelist {row + 1}: {name}"
        if place is None or place.name != name:
            faults.append(f"{where} is not a name such as 1_001_1_01.png.")
        elif place not in cuhk.images[kind]:
            faults.append(f"{where} is not among the {kind} images of cuhk-03.mat.")
        elif said != (cuhk.person_id(place), place.view):
            faults.append(
                f"{where} is labelled person {said[0]} in view {said[1]}, and by its name it is person "
                f"{cuhk.person_id(place)} in view {place.view}."
            )
        else:
            examples[row] = cuhk.example(kind, place)
    chosen = [protocol.names[row] for rows in protocol.splits.values() for row in rows]
    if len(set(chosen)) != len(chosen):
        twice = next(name for i, name in enumerate(chosen) if name in chosen[:i])
        faults.append(f"{path}: {twice} comes twice in the splits.")
    splits = {split: [examples[row] for row in rows if row in examples] for split, rows in protocol.splits.items()}
    return splits, faults


def _find_protocol(raw_dir: str | os.PathLike, mat: pathlib.Path, kind: str) -> pathlib.Path:
    """Where the protocol's file lies by default."""
    name = f"cuhk03_new_protocol_config_{kind}.mat"
    places = [cuhk03.find(raw_dir, name)] if pathlib.Path(raw_dir).is_dir() else []
    places += [folder / name for folder in mat.absolute().parents[:2]]
    found = next((path for path in places if path is not None and path.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"No {name} in {raw_dir}; put it there or give --protocol_mat=FILE.")
    return found


def _read_images(raw_dir: pathlib.Path, kind: str) -> tuple[dict[str, list[reid.Example]], list[str]]:
    """Splits of images that lie there as files, and a fault for each that is wrongly named."""
    root = _kind_folder(raw_dir, kind)
    if root is None:
        raise FileNotFoundError(
            f"No cuhk-03.mat in {raw_dir}, and no folder {kind} with bounding_box_train, query and bounding_box_test; "
            "unpack cuhk03_release.zip or cuhk03-np.zip there."
        )
    return release.read_splits(root, FOLDERS, NAME, example=EXAMPLE)


def _kind_folder(raw_dir: pathlib.Path, kind: str) -> pathlib.Path | None:
    """The folder of a kind with its training images, in or below raw_dir."""
    places = [raw_dir] if raw_dir.name == kind else []
    places += [path for depth in range(4) for path in sorted(raw_dir.glob("*/" * depth + kind))]
    return next((path for path in places if (path / FOLDERS["train"]).is_dir()), None)


def _whole(path: str | os.PathLike, variable: str) -> np.ndarray:
    """A variable of whole numbers, [N] int64."""
    values = np.asarray(matlab.read(path, variable))
    if values.dtype.kind not in "iuf" or (np.abs(values) > 1e9).any() or (values != np.round(values)).any():
        raise ValueError(f"{path}: {variable} holds more than whole numbers; take the original file again.")
    return values.ravel().astype(np.int64)
