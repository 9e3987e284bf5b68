"""Market-1501: 1,501 people of six cameras in front of a supermarket, with junk, distractors and multi-query boxes."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import annotations, dev, reid, release

OFFICIAL = {  # counted in the files; the paper's 19,734 and 2,793 distractors are not what they hold
    "train": reid.Counts(12_936, 751),
    "query": reid.Counts(3_368, 750),
    "gallery": reid.Counts(19_732, 750),  # of them 2,798 with nobody's match (0000) and 3,819 that never count (-1)
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
BOXES = "gt_bbox"  # hand-drawn boxes, for multi-query
NAME = r"(-1|\d{4})_c([1-6])s[1-6]_\d{6}_\d{2}\.jpg(?:\.jpg)?"  # person, camera; 24 files end in .jpg.jpg
EXAMPLE = "0002_c1s1_000451_03.jpg"
_TRAIN_PEOPLE = int(  # bit i is person i: numbers of the 751, which follow no rule
    "1192818eed84eaac275c708bf503a63831384245addce35a2193da424824b6741d6dc81e205362200f23a4e10054d2"
    "d83fcc3f6943d984019b22c3ca8e1c9feddd49be8e6f1ef92440ac0bf5fcec9991cacf1da354b5464c1b1a7870e7ad"
    "316c665045bff3032e366effb3a7ba70d9f878b73528bc787dae1b4334fa3099487729550b0e762f69b8ef9ce767db"
    "cf82e5793cb9fa663caf0086b33528cf2eb503e15b56aa433fb2d5c0f0f9d2ae7cdf1ea556b07b0b31cc2958d01c84",
    16,
)
TRAIN_PEOPLE = frozenset(person for person in range(1, 1502) if _TRAIN_PEOPLE >> person & 1)


class Builder(reid.ContentsBuilder):
    """Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in ("default", *dev.NAMES)]

    def read(self, **options) -> reid.Contents:
        fold = dev.fold_of(self.builder_config.name)
        return read(**options) if fold is None else read_dev(fold, **options)


def read(*, raw_dir: str | os.PathLike, attributes_mat: str | os.PathLike | None = None) -> reid.Contents:
    """Train, query, gallery, and multi_query where gt_bbox is there.

    Args:
      raw_dir: the folder with bounding_box_train, bounding_box_test and query, or one above it.
      attributes_mat: market_attribute.mat, for attributes of the people.

    Raises:
      FileNotFoundError: a missing or empty folder, or no such file.
      ValueError: attributes_mat is not market_attribute.mat.
    """
    root = release.find_folder(raw_dir, list(FOLDERS.values()))
    folders = FOLDERS | ({"multi_query": BOXES} if release.child(root, BOXES) else {})
    labels = annotations.read_market(attributes_mat) if attributes_mat is not None else None
    splits, faults = release.read_splits(root, folders, NAME, example=EXAMPLE, labels=labels)
    if boxes := splits.pop("multi_query", None):
        asked = {(example.person_id, example.camera_id) for example in splits["query"]}
        if boxes := [box for box in boxes if (box.person_id, box.camera_id) in asked]:
            splits["multi_query"] = boxes
    about = {"protocol": "market1501"} | release.about(labels)
    return reid.Contents(splits, about, official=OFFICIAL, faults=faults)


def read_dev(
    fold: int, *, raw_dir: str | os.PathLike, attributes_mat: str | os.PathLike | None = None
) -> reid.Contents:
    """A fold of the training half: train, query, gallery; see `data_prep.dev`.

    Args:
      fold: from 0.
      raw_dir: as `read` takes it, or a folder with the images of bounding_box_train, whatever it is called.
      attributes_mat: market_attribute.mat, of which the training half is read.

    Raises:
      FileNotFoundError, ValueError: as of `read`; images in several folders; too few people.
    """
    labels = annotations.read_market(attributes_mat, parts=("train",)) if attributes_mat is not None else None
    half, faults = release.read_half(
        raw_dir, FOLDERS["train"], NAME, example=EXAMPLE, labels=labels, people=TRAIN_PEOPLE
    )
    about = {"protocol": "market1501"} | release.about(labels)
    return dev.contents(half, fold, about, official=OFFICIAL["train"], faults=faults)
