"""DukeMTMC-reID: 1,812 people of eight cameras, withdrawn by its authors in 2019; see the README."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import annotations, dev, reid, release

OFFICIAL = {
    "train": reid.Counts(16_522, 702),
    "query": reid.Counts(2_228, 702),
    "gallery": reid.Counts(17_661, 1_110),  # 408 of the people are in no query
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
NAME = r"(?!0000)(\d{4})_c([1-8])_f\d{7}\.jpg"  # person, camera
EXAMPLE = "0001_c2_f0046182.jpg"


class Builder(reid.ContentsBuilder):
    """DukeMTMC-reID (Ristani et al., ECCV Workshops 2016; Zheng et al., ICCV 2017)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("default", *dev.NAMES)]

    def read(self, **options) -> reid.Contents:
        fold = dev.fold_of(self.builder_config.name)
        return read(**options) if fold is None else read_dev(fold, **options)


def read(*, raw_dir: str | os.PathLike, attributes_mat: str | os.PathLike | None = None) -> reid.Contents:
    """Train, query and gallery.

    Args:
      raw_dir: the folder with bounding_box_train, bounding_box_test and query, or one above it.
      attributes_mat: duke_attribute.mat, for attributes of the people.

    Raises:
      FileNotFoundError: a missing or empty folder, or no such file.
      ValueError: attributes_mat is not duke_attribute.mat.
    """
    root = release.find_folder(raw_dir, list(FOLDERS.values()))
    labels = annotations.read_duke(attributes_mat) if attributes_mat is not None else None
    splits, faults = release.read_splits(root, FOLDERS, NAME, example=EXAMPLE, labels=labels)
    about = {"protocol": "market1501"} | release.about(labels)
    return reid.Contents(splits, about, official=OFFICIAL, faults=faults)


def read_dev(
    fold: int, *, raw_dir: str | os.PathLike, attributes_mat: str | os.PathLike | None = None
) -> reid.Contents:
    """A fold of the training half: train, query, gallery; see `data_prep.dev`.

    Args:
      fold: from 0.
      raw_dir: as `read` takes it, or a folder with the images of bounding_box_train.
      attributes_mat: duke_attribute.mat, of which the training half is read; it also says who is of that half.

    Raises:
      FileNotFoundError, ValueError: as of `read`; images in several folders or of the test half; too few people.
    """
    labels = annotations.read_duke(attributes_mat, parts=("train",)) if attributes_mat is not None else None
    others = set(FOLDERS.values()) - {FOLDERS["train"]}
    half, faults = release.read_half(raw_dir, FOLDERS["train"], NAME, example=EXAMPLE, labels=labels, others=others)
    about = {"protocol": "market1501"} | release.about(labels)
    return dev.contents(half, fold, about, official=OFFICIAL["train"], faults=faults)
