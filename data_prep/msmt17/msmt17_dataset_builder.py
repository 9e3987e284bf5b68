"""MSMT17: 4,101 people of fifteen cameras on a campus, on four days; both releases, V1 and V2."""

import os
import pathlib
import re
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import dev, reid, release

OFFICIAL = {
    "train": reid.Counts(32_621, 1_041),
    "query": reid.Counts(11_659, 3_060),
    "gallery": reid.Counts(82_161, 3_060),
}
FOLDERS = {"V1": ("train", "test"), "V2": ("mask_train_v2", "mask_test_v2")}  # V2: faces are blurred
LISTS = {  # split -> what it is made of; each list is of one of the two folders
    "train": ("list_train.txt", "list_val.txt"),
    "query": ("list_query.txt",),
    "gallery": ("list_gallery.txt",),
}
PATH = r"(\d{4})/(\d{4})_\d{3}_(\d{2})_\w+\.jpg"  # person, person, camera
CAMERAS = 15
TRAIN_PEOPLE = OFFICIAL["train"].people  # train and test both count from 0; test people are numbered on from here


class Builder(reid.ContentsBuilder):
    """MSMT17 (Wei et al., "Person Transfer GAN to Bridge Domain Gap for Person Re-Identification", CVPR 2018)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("default", *dev.NAMES)]

    def read(self, **options) -> reid.Contents:
        fold = dev.fold_of(self.builder_config.name)
        return read(**options) if fold is None else read_dev(fold, **options)


def read(*, raw_dir: str | os.PathLike) -> reid.Contents:
    """Train (list_train and list_val together), query and gallery.

    Args:
      raw_dir: the folder with the four lists and the two folders of images, or one above it.

    Raises:
      FileNotFoundError: a missing folder, or a missing or empty list.
      ValueError: a list that is no text.
    """
    names = [name for lists in LISTS.values() for name in lists]
    root = release.find_folder(raw_dir, names)
    found = {version: [release.child(root, name) for name in folders] for version, folders in FOLDERS.items()}
    version = next((version for version, folders in found.items() if all(folders)), None)
    if version is None:
        raise FileNotFoundError(f"{root} has lists but neither train and test nor mask_train_v2 and mask_test_v2.")
    splits, faults = {}, []
    for split, lists in LISTS.items():
        folder = found[version][split != "train"]
        splits[split] = []
        for name in lists:
            examples, wrong = read_list(release.child(root, name), folder, after=TRAIN_PEOPLE * (split != "train"))
            splits[split] += examples
            faults += wrong
    for pair in (("train",), ("query", "gallery")):
        faults += _twice([example for split in pair for example in splits[split]])
    about = {"protocol": "market1501", "attribute_names": [], "release": version}
    return reid.Contents(splits, about, official=OFFICIAL, faults=faults)


def read_dev(fold: int, *, raw_dir: str | os.PathLike) -> reid.Contents:
    """A fold of the training half: train, query, gallery; see `data_prep.dev`.

    Args:
      fold: from 0.
      raw_dir: as `read` takes it; list_train.txt, list_val.txt and the folder of training images are enough.

    Raises:
      FileNotFoundError, ValueError: as of `read`; too few people.
    """
    root = release.find_folder(raw_dir, LISTS["train"])
    found = {version: release.child(root, train) for version, (train, _) in FOLDERS.items()}
    version = next((version for version, folder in found.items() if folder), None)
    if version is None:
        raise FileNotFoundError(f"{root} has lists but neither train nor mask_train_v2; unpack the release again.")
    half, faults = [], []
    for name in LISTS["train"]:
        examples, wrong = read_list(release.child(root, name), found[version], after=0)
        half += examples
        faults += wrong
    about = {"protocol": "market1501", "attribute_names": [], "release": version}
    return dev.contents(half, fold, about, official=OFFICIAL["train"], faults=[*faults, *_twice(half)])


def read_list(path: pathlib.Path, folder: pathlib.Path, *, after: int) -> tuple[list[reid.Example], list[str]]:
    """Images of one list, lines "0000/0000_000_01_0303morning_0015_0.jpg 0", and a fault for each line that is wrong.

    Args:
      path: of the list.
      folder: of its images.
      after: what person number 0 is counted on from.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no text ({error}); take the list from the release.") from error
    examples, faults = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where, words = f"{path}, line {number}", line.split()
        match = re.fullmatch(PATH, words[0], re.ASCII)
        if match is None or len(words) != 2 or not re.fullmatch(r"\d{1,4}", words[1], re.ASCII):
            faults.append(f"{where}: {line[:200]!r}; wanted is '0000/0000_000_01_0303morning_0015_0.jpg 0'.")
        elif not int(match[1]) == int(match[2]) == int(words[1]):
            faults.append(f"{where}: {words[0]} is of person {int(match[2])}, the line says {words[1]}.")
        elif not 1 <= int(match[3]) <= CAMERAS:
            faults.append(f"{where}: {words[0]} is of camera {match[3]}; there are 01 to {CAMERAS}.")
        elif not (folder / words[0]).is_file():
            faults.append(f"{where}: there is no file {folder / words[0]}; unpack the release again.")
        else:
            name = f"{folder.name}/{words[0]}"
            examples.append(reid.Example(folder / words[0], name, after + 1 + int(words[1]), int(match[3])))
    if not examples and not faults:
        raise FileNotFoundError(f"{path} lists no images; take the list from the release.")
    return examples, faults


def _twice(examples: list[reid.Example]) -> list[str]:
    seen: set[str] = set()
    repeated = [e.file_name for e in examples if e.file_name in seen or seen.add(e.file_name)]
    return [f"{name} is listed twice; each image belongs to one list." for name in repeated]
