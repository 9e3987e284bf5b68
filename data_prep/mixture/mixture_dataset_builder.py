"""Several prepared data sets as one to train on, with the people and cameras of each kept apart."""

import collections
import os
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.mixture import parts as parts_of


class Builder(reid.ContentsBuilder):
    """Prepared data sets, joined; the config's name is the user's name for the mixture."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name="default")]

    def __init__(self, *, config: str | None = None, **kwargs):
        named = config in (None, "default")  # TFDS wants a name of its own, and an object for any other
        super().__init__(config="default" if named else tfds.core.BuilderConfig(name=config), **kwargs)

    def read(self, **options) -> reid.Contents:
        return read(**options)


def read(*, parts: str, parts_dir: str | os.PathLike) -> reid.Contents:
    """Split `train`: the images of people of all parts.

    People and known cameras are numbered anew from 1, one part after the other and within a part in the order of its
    own numbers; unknown cameras stay unknown, as cameras are compared within a person alone. Distractors and junk are
    left out. `file_name` is the key that the record has in its part, "market1501/dev_0/bounding_box_train/...".
    Attributes are joined by name, unknown (-1) where a part does not have them. Metadata `parts` has an entry for each
    part, see `_entry`.

    Args:
      parts: as `parts.parse` reads them.
      parts_dir: where they lie prepared.

    Raises:
      ValueError: parts that are not as wanted, or without people.
      FileNotFoundError: a part is not prepared.
    """
    chosen = parts_of.parse(parts)
    opened = [parts_of.open_part(parts_dir, part) for part in chosen]
    names = tuple(dict.fromkeys(name for builder, *_ in opened for name in _attribute_names(builder)))
    examples: list[reid.Example] = []
    entries, notes, people, cameras = [], [], 0, 0
    where: dict[bytes, dict[str, str]] = collections.defaultdict(dict)  # image -> {part: name of the first there}
    for part, (builder, marks, options) in zip(chosen, opened, strict=True):
        images = list(parts_of.images(builder, part))
        shown = [image for image in images if image.example.person_id >= 1]
        if not shown:
            raise ValueError(f"{part} shows no people with a number, only distractors or junk; leave it out.")
        for image in shown:
            where[image.sha256].setdefault(part.name, f"{part.name}/{image.example.file_name}")
        own = [image.example for image in shown]
        found = _renumbered(part, own, people, cameras, _columns(_attribute_names(builder), names))
        entry = _entry(part, found, marks, left_out=len(images) - len(shown), people=people, cameras=cameras)
        about = {name: value for name, value in dict(builder.info.metadata).items() if name != "attribute_names"}
        entries.append({**entry, "options": options, "metadata": about})
        notes.append(_note(part, entry))
        examples, people, cameras = examples + found, entry["people"][1], cameras + entry["cameras"]
    faults = [
        f"{' and '.join(names.values())} are one picture, whose person would be two people; leave one of these parts "
        "out, or take other splits."
        for names in where.values()
        if len(names) > 1
    ]
    about = {"attribute_names": names, "protocol": "attributes", "parts": entries}
    return reid.Contents({"train": examples}, about, faults=faults, notes=notes)


def _attribute_names(builder: tfds.core.DatasetBuilder) -> list[str]:
    return list(builder.info.metadata["attribute_names"])


def _columns(own: list[str], names: tuple[str, ...]) -> np.ndarray:
    """[len(names)] which of a part's attributes each is, -1 for one that it does not have."""
    return np.array([own.index(name) if name in own else -1 for name in names], int)


def _renumbered(
    part: parts_of.Part, examples: list[reid.Example], people: int, cameras: int, columns: np.ndarray
) -> list[reid.Example]:
    """The examples of one part as the mixture has them, after so many people and cameras of other parts."""
    person_of = {p: people + i for i, p in enumerate(sorted({e.person_id for e in examples}), start=1)}
    known = sorted({e.camera_id for e in examples} - {reid.UNKNOWN_CAMERA})
    camera_of = {camera: cameras + i for i, camera in enumerate(known, start=1)}
    return [
        reid.Example(
            example.image,
            f"{part.name}/{example.file_name}",
            person_of[example.person_id],
            camera_of.get(example.camera_id, reid.UNKNOWN_CAMERA),
            np.append(example.attributes, -1)[columns].astype(np.int8),  # the last one is unknown
        )
        for example in examples
    ]


def _entry(
    part: parts_of.Part, examples: list[reid.Example], marks: dict, *, left_out: int, people: int, cameras: int
) -> dict:
    """What metadata say of one part: where it is from, its fingerprints, its numbers in the mixture."""
    known = {example.camera_id for example in examples} - {reid.UNKNOWN_CAMERA}
    return {
        "dataset": part.dataset,
        "config": part.config,
        "fingerprints": {split: marks[split]["sha256"] for split in part.splits},  # of each split that was taken
        "images": len(examples),
        "left_out": left_out,  # distractors and junk
        "people": [people + 1, people + len({example.person_id for example in examples})],  # first and last number
        "cameras": len(known),
        "first_camera": cameras + 1 if known else None,
        "no_camera": sum(example.camera_id == reid.UNKNOWN_CAMERA for example in examples),  # images
    }


def _note(part: parts_of.Part, entry: dict) -> str:
    first, last = entry["people"]
    text = f"{part}: {entry['images']:,} images of {last - first + 1:,} people (now {first:,} to {last:,}), "
    text += f"{entry['cameras']:,} cameras" + (f", {entry['no_camera']:,} images without" if entry["no_camera"] else "")
    return text + (f", {entry['left_out']:,} distractors and junk left out." if entry["left_out"] else ".")
