"""CUHK03 in its own protocol: 20 splits with 100 test people each, single shot across the two views."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.cuhk03 import release


class Builder(reid.ContentsBuilder):
    """CUHK03 (Li et al., "DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification", CVPR 2014)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=f"{kind}_{number}")
        for kind in release.KINDS
        for number in range(release.TEST_SETS)
    ]

    def read(self, **options) -> reid.Contents:
        return read(self.builder_config.name, **options)


def read(config: str, *, raw_dir: str | os.PathLike) -> reid.Contents:
    """What one config holds.

    Args:
      config: KIND_NUMBER, the boxes that are tested and the test set, from 0.
      raw_dir: folder that holds cuhk-03.mat, in itself or up to three folders below; or that file.

    Returns:
      Contents with `train`, both kinds of images of everybody who is not tested, and the images of one kind of those
      who are, both as `query` and as `gallery`: the protocol draws from them.

    Raises:
      ValueError: the file is not as released, or has no such test set.
      FileNotFoundError: no such file.
    """
    kind, _, number = config.rpartition("_")
    path = release.find(raw_dir)
    if path is None:
        raise FileNotFoundError(f"No cuhk-03.mat in {raw_dir}; unpack cuhk03_release.zip there.")
    cuhk03 = release.read(path)
    if int(number) >= len(cuhk03.test_sets):
        raise ValueError(f"{path} has {len(cuhk03.test_sets)} test sets and {config} wants the one after {number}.")
    tested = set(cuhk03.test_sets[int(number)])
    train = [cuhk03.example(k, at) for k in release.KINDS for at in cuhk03.images[k] if at[:2] not in tested]
    test = [cuhk03.example(kind, at) for at in cuhk03.images[kind] if at[:2] in tested]
    if not train or not test:
        raise ValueError(f"{path}, testsets, set {int(number) + 1}: {len(test)} images to test, {len(train)} to train.")
    about = {"attribute_names": (), "protocol": "cuhk03_single_shot", "kind": kind, "test_set": int(number)}
    splits = {"train": train, "query": test, "gallery": test}
    return reid.Contents(splits, about, shortfall=cuhk03.shortfall())
