"""CUHK03 in its own protocol: 20 splits with 100 test people each, single shot across the two views."""

import os
from typing import ClassVar

import tensorflow_datasets as tfds

from acrn_jax.data_prep import dev, reid
from acrn_jax.data_prep.cuhk03 import release


class Builder(reid.ContentsBuilder):
    """CUHK03 (Li et al., "DeepReID: Deep Filter Pairing Neural Network for Person Re-Identification", CVPR 2014)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=f"{kind}_{name}")
        for kind in release.KINDS
        for name in (*range(release.TEST_SETS), *dev.NAMES)
    ]

    def read(self, **options) -> reid.Contents:
        return read(self.builder_config.name, **options)


def read(config: str, *, raw_dir: str | os.PathLike) -> reid.Contents:
    """What one config holds.

    Args:
      config: KIND_NUMBER, the boxes that are tested and the test set, from 0; or KIND_dev_N, see `read_dev`.
      raw_dir: folder that holds cuhk-03.mat, in itself or up to three folders below; or that file.

    Returns:
      Contents with `train`, both kinds of images of everybody who is not tested, and the images of one kind of those
      who are, both as `query` and as `gallery`: the protocol draws from them.

    Raises:
      ValueError: the file is not as released, or has no such test set.
      FileNotFoundError: no such file.
    """
    fold = dev.fold_of(config)
    if fold is not None:
        return read_dev(config.removesuffix(f"_dev_{fold}"), fold, raw_dir=raw_dir)
    kind, _, number = config.rpartition("_")
    path = release.find(raw_dir)
    if path is None:
        raise FileNotFoundError(
            f"No cuhk-03.mat in {raw_dir}; unpack cuhk03_release.zip there. A folder of images has no test sets and "
            "serves configs such as detected_dev_0."
        )
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


def read_dev(kind: str, fold: int, *, raw_dir: str | os.PathLike) -> reid.Contents:
    """A fold of people whom both kinds show (one kind, where the other is not there); see `data_prep.dev`.

    Args:
      kind: the boxes that are tested, "labeled" or "detected".
      fold: from 0.
      raw_dir: as `read` takes it, or a folder of images, see `release.read_folder`.

    Returns:
      Contents with `train`, both kinds of images of everybody who is not tested; `query`, one image of the kind of
      each tested person and view; `gallery`, their other images of the kind.

    Raises:
      FileNotFoundError, ValueError: as of `read`; too few people.
    """
    path = release.find(raw_dir)
    cuhk03, faults = (release.read(path), []) if path else release.read_folder(raw_dir)
    about = {"attribute_names": (), "protocol": "cuhk03_new", "kind": kind, **dev.marks(fold)}
    if faults:
        return reid.Contents({}, about, faults=faults)
    people = {k: {cuhk03.person_id(at) for at in places} for k, places in cuhk03.images.items() if places}
    if kind not in people:
        raise FileNotFoundError(f"{raw_dir} has no {kind} images; choose a config of the other kind.")
    chosen = dev.tested(set.intersection(*people.values()), fold, most=release.TESTED)
    examples = {k: [cuhk03.example(k, at) for at in cuhk03.images[k]] for k in release.KINDS}
    query, gallery = dev.query_and_gallery([e for e in examples[kind] if e.person_id in chosen])
    train = [e for k in release.KINDS for e in examples[k] if e.person_id not in chosen]
    splits = {"train": train, "query": query, "gallery": gallery}
    return reid.Contents(splits, about, shortfall=cuhk03.shortfall(test_sets=False))
