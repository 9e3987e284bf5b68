"""CUHK01: 971 people on a campus, twice in each of two cameras, in the two splits of the field."""

import os
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid, release

PEOPLE, IMAGES = 971, 3_884
TRAINED = (485, 871)  # people who train; the other 486 or 100 are tested
SPLITS = 10  # seeds of the drawn splits
PROTOCOLS = {"single": "single_shot", "multi": "market1501"}
NAME = r"(?!0000)(\d{4})00([1-4])\.png"  # person; images 1 and 2 are of camera A, 3 and 4 of camera B


def config_names() -> tuple[str, ...]:
    return tuple(f"{trained}_{shots}_{i}" for trained in TRAINED for shots in PROTOCOLS for i in range(SPLITS))


class Builder(reid.ContentsBuilder):
    """CUHK01 (Li et al., "Human Reidentification with Transferred Metric Learning", ACCV 2012)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in config_names()]

    def read(self, **options) -> reid.Contents:
        return read(self.builder_config.name, **options)


def read(config: str, *, raw_dir: str | os.PathLike) -> reid.Contents:
    """What one config holds.

    Args:
      config: TRAINED_SHOTS_SEED, one of `config_names()`. One seed tests the same people single and multi shot, and its
        100 are among its 486.
      raw_dir: the folder with `campus`, one above it, or the one that the images are in.

    Returns:
      Contents with `train`, all images of who is not tested; `query` of camera A and `gallery` of camera B: all images
      there (multi), or one of each person, drawn (single).

    Raises:
      FileNotFoundError: a missing or empty folder.
      ValueError: no image of one of the cameras, or too few people for a split.
    """
    trained, shots, seed = config.split("_")
    folder = _folder(raw_dir)
    named, faults = release.read_names(folder, NAME, example="0001001.png")
    own: dict[int, dict[int, list[reid.Example]]] = {}  # person -> camera -> images
    for path, match in named:
        person, camera = int(match[1]), (int(match[2]) + 1) // 2
        example = reid.Example(path, f"campus/{path.name}", person, camera)
        own.setdefault(person, {1: [], 2: []})[camera].append(example)
    faults += _cameras(folder, own)
    generator = np.random.default_rng(int(seed))
    order = generator.permutation(sorted(own)).tolist()
    count = len(order) * int(trained) // PEOPLE  # of a part of the release, the same share
    if named and not 0 < count < len(order):
        raise ValueError(f"{folder} shows {len(order)} people, too few to train on some and test on others.")
    splits: dict[str, list[reid.Example]] = {"train": [], "query": [], "gallery": []}
    tested = set(order[count:])
    for person, views in sorted(own.items()):
        drawn = {camera: int(generator.integers(max(len(images), 1))) for camera, images in views.items()}
        for split, camera in (("query", 1), ("gallery", 2)):
            images = views[camera]
            if person not in tested:
                splits["train"] += images
            else:
                splits[split] += images if shots == "multi" else images[drawn[camera] :][:1]
    about = {"attribute_names": (), "protocol": PROTOCOLS[shots], "seed": int(seed)}
    found = (f"{len(named):,} images of {len(own):,} people", f"{IMAGES:,} of {PEOPLE:,}")
    short = [] if (len(named), len(own)) == (IMAGES, PEOPLE) else [f"{found[0]}, officially {found[1]}"]
    return reid.Contents(splits, about, official=_official(int(trained), shots), shortfall=short, faults=faults)


def _folder(raw_dir: str | os.PathLike) -> pathlib.Path:
    """The folder with the images."""
    raw_dir = pathlib.Path(raw_dir)
    if raw_dir.is_dir() and any(raw_dir.glob("[0-9]" * 7 + ".png")):
        return raw_dir
    root = release.find_folder(raw_dir, ["campus"])
    return release.child(root, "campus") or root


def _cameras(folder: pathlib.Path, own: dict[int, dict[int, list[reid.Example]]]) -> list[str]:
    """A fault for each person who is seen by one camera alone.

    Raises:
      ValueError: one camera saw nobody.
    """
    faults = []
    for camera, other, letter, numbers in ((1, 2, "A", (1, 2)), (2, 1, "B", (3, 4))):
        without = [person for person, views in sorted(own.items()) if not views[camera]]
        if own and len(without) == len(own):
            names = " or ".join(f"PPPP{number:03d}.png" for number in numbers)
            raise ValueError(f"{folder} has no image of camera {letter}, named {names}; unpack the release again.")
        for person in without:
            names = " or ".join(f"{person:04d}{number:03d}.png" for number in numbers)
            faults.append(
                f"{own[person][other][0].image} shows person {person}, of whom there is no image of camera {letter}, "
                f"{names}; restore it, or remove the person's images."
            )
    return faults


def _official(trained: int, shots: str) -> dict[str, reid.Counts]:
    tested, each = PEOPLE - trained, {"single": 1, "multi": 2}[shots]
    test = reid.Counts(each * tested, tested)
    return {"train": reid.Counts(4 * trained, trained), "query": test, "gallery": test}
