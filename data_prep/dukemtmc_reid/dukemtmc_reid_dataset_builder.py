"""DukeMTMC-reID: 1,812 people of eight cameras, withdrawn by its authors in 2019; see the README."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import annotations, reid, release

OFFICIAL = {
    "train": reid.Counts(16_522, 702),
    "query": reid.Counts(2_228, 702),
    "gallery": reid.Counts(17_661, 1_110),  # 408 of the people are in no query
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
NAME = r"(?!0000)(\d{4})_c([1-8])_f\d{7}\.jpg"  # person, camera


class Builder(reid.ContentsBuilder):
    """DukeMTMC-reID (Ristani et al., ECCV Workshops 2016; Zheng et al., ICCV 2017)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="default")]

    def read(self, **options) -> reid.Contents:
        return read(**options)


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
    splits, faults = release.read_splits(root, FOLDERS, NAME, example="0001_c2_f0046182.jpg", labels=labels)
    about = {"protocol": "market1501"} | release.about(labels)
    return reid.Contents(splits, about, official=OFFICIAL, faults=faults)
