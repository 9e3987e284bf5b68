"""Market-1501: 1,501 people of six cameras in front of a supermarket, with junk, distractors and multi-query boxes."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import annotations, reid, release

OFFICIAL = {  # counted in the files; the paper's 19,734 and 2,793 distractors are not what they hold
    "train": reid.Counts(12_936, 751),
    "query": reid.Counts(3_368, 750),
    "gallery": reid.Counts(19_732, 750),  # of them 2,798 with nobody's match (0000) and 3,819 that never count (-1)
}
FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
BOXES = "gt_bbox"  # hand-drawn boxes, for multi-query
NAME = r"(-1|\d{4})_c([1-6])s[1-6]_\d{6}_\d{2}\.jpg(?:\.jpg)?"  # person, camera; 24 files end in .jpg.jpg


class Builder(reid.ContentsBuilder):
    """Market-1501 (Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="default")]

    def read(self, **options) -> reid.Contents:
        return read(**options)


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
    splits, faults = release.read_splits(root, folders, NAME, example="0002_c1s1_000451_03.jpg", labels=labels)
    if boxes := splits.pop("multi_query", None):
        asked = {(example.person_id, example.camera_id) for example in splits["query"]}
        if boxes := [box for box in boxes if (box.person_id, box.camera_id) in asked]:
            splits["multi_query"] = boxes
    about = {"protocol": "market1501"} | release.about(labels)
    return reid.Contents(splits, about, official=OFFICIAL, faults=faults)
