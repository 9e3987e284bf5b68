"""Drawn pedestrians: `source_N` with clean attribute labels, `target_N` with people seen by several cameras; N seeds.

A target's attributes are shown with a known probability each (people.py), so that learned attribute weights can be held
against the truth. README.md tells what is in the splits.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.synthetic_pedestrians import people, scene

SEEDS = 20  # configs source_0 to source_19 and target_0 to target_19
SOURCE_IMAGES = 2  # of each person
CAMERAS = 4
RELIABILITY = (0.1, 1.0)  # lowest and highest probability that a target image shows an attribute truthfully
SOURCE_SIZES = {"train": 2000, "val": 250, "test": 500}  # people
TARGET_SIZES = {"train": 200, "test": 200, "distractors": 250, "junk": 100}  # people, people, images, images


@dataclasses.dataclass(eq=False, kw_only=True)
class Config(tfds.core.BuilderConfig):
    """One data set to draw; anyone may make another: `Builder(config=Config(name=..., target=True, seed=..., ...))`."""

    name: str = ""
    target: bool = False
    seed: int = 0
    sizes: dict[str, int] = dataclasses.field(default_factory=dict)  # the keys of SOURCE_SIZES or TARGET_SIZES


class Row(NamedTuple):
    """One image to draw."""

    split: str
    file_name: str
    person: int  # row of the table of people
    person_id: int  # as stored: 0 a distractor, -1 junk
    camera: int  # from 0


class Plan(NamedTuple):
    """A target before it is drawn."""

    rows: list[Row]
    cameras: list[scene.Camera]
    looks: list[people.Look]  # of each person
    true: np.ndarray  # bool [people, A]
    shown: np.ndarray  # bool [rows, A]


def _config(*, target: bool, seed: int, tiny: bool = False) -> Config:
    """`source_3`, `target_0`, ...; the tiny ones are for tests."""
    kind, sizes = ("target", TARGET_SIZES) if target else ("source", SOURCE_SIZES)
    sizes = {name: max(4, size // 50) for name, size in sizes.items()} if tiny else sizes
    return Config(name=f"{kind}_{'tiny' if tiny else seed}", target=target, seed=seed, sizes=sizes)


class Builder(tfds.core.GeneratorBasedBuilder):
    """People drawn with Pillow; no raw data."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [
        *(_config(target=target, seed=seed) for target in (False, True) for seed in range(SEEDS)),
        *(_config(target=target, seed=0, tiny=True) for target in (False, True)),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        extras = {"seed": config.seed, "people": dict(config.sizes)}
        if config.target:
            extras["reliability"] = reliability(config.seed)
        about = reid.metadata(
            attribute_names=people.ATTRIBUTE_NAMES,
            protocol="market1501" if config.target else "attributes",
            **extras,
        )
        return tfds.core.DatasetInfo(
            builder=self, features=reid.features(len(people.ATTRIBUTE_NAMES)), metadata=about, disable_shuffling=True
        )

    def _split_generators(self, dl_manager) -> dict:
        config = self.builder_config
        splits = ("train", "query", "gallery") if config.target else ("train", "val", "test")
        return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict]]:
        config = self.builder_config
        for example in (target_examples if config.target else source_examples)(split, config.seed, config.sizes):
            yield reid.record(example, builder=self.name, config=config.name)


def reliability(seed: int) -> dict[str, float]:
    """{attribute: probability} of a target: how often its images show the attribute truthfully instead of at random."""
    return people.draw_reliability(*RELIABILITY, np.random.default_rng((seed, 0)))


def source_examples(split: str, seed: int, sizes: dict[str, int]) -> Iterator[reid.Example]:
    """The images of one split of a source, drawn one by one; splits share no person."""
    number = list(SOURCE_SIZES).index(split)
    first = sum(sizes[name] for name in list(SOURCE_SIZES)[:number])
    for person in range(first, first + sizes[split]):
        generator = np.random.default_rng((seed, 1, person))
        look = people.draw_look(generator, target=False)
        attributes = people.draw_attributes(1, generator)[0]
        for image in range(SOURCE_IMAGES):
            yield reid.Example(
                scene.photograph(look, attributes, scene.source_camera(generator), generator),
                f"{split}/{person + 1:04d}_{image}.jpg",
                person + 1,
                attributes=attributes,
            )


def target_examples(split: str, seed: int, sizes: dict[str, int]) -> Iterator[reid.Example]:
    """The images of one split of a target, drawn one by one; `attributes` are the people's true ones."""
    plan = target_plan(seed, sizes)
    for number, row in enumerate(plan.rows):
        if row.split == split:
            image = scene.photograph(
                plan.looks[row.person],
                plan.shown[number],
                plan.cameras[row.camera],
                np.random.default_rng((seed, 3, number)),
                cut=row.person_id == reid.JUNK,
            )
            yield reid.Example(image, row.file_name, row.person_id, row.camera + 1, plan.true[row.person])


def target_plan(seed: int, sizes: dict[str, int]) -> Plan:
    """All that decides the images of a target."""
    generator = np.random.default_rng((seed, 2))
    cameras = [scene.draw_camera(generator) for _ in range(CAMERAS)]
    count = sizes["train"] + sizes["test"] + sizes["distractors"]  # a distractor is a stranger seen once
    looks = [people.draw_look(generator, target=True) for _ in range(count)]
    true = people.draw_attributes(count, generator)
    rows = target_rows(sizes, generator)
    shown = people.show(true[[row.person for row in rows]], reliability(seed), generator)
    return Plan(rows, cameras, looks, true, shown)


def target_rows(sizes: dict[str, int], generator: np.random.Generator) -> list[Row]:
    """Who is seen where: the images of a target, all splits.

    A person is seen by two or three of the cameras; training people with three images from each, test people with one
    query and one or two gallery images from each, so that every query has a match from another camera.
    """
    rows: list[Row] = []

    def see(split, person, person_id, camera):
        file_name = (
            f"{split}/{person_id if person_id < 0 else f'{person_id:04d}'}_c{camera + 1}s1_{len(rows):06d}_01.jpg"
        )
        rows.append(Row(split, file_name, person, person_id, camera))

    train, test = sizes["train"], sizes["test"]
    for person in range(train + test):
        for camera in generator.permutation(CAMERAS)[: generator.integers(2, 4)].tolist():
            plan = ["train"] * 3 if person < train else ["query"] + ["gallery"] * int(generator.integers(1, 3))
            for split in plan:
                see(split, person, person + 1, camera)
    for stranger in range(sizes["distractors"]):
        see("gallery", train + test + stranger, reid.DISTRACTOR, int(generator.integers(CAMERAS)))
    for person in generator.integers(train, train + test, sizes["junk"]).tolist():
        see("gallery", person, reid.JUNK, int(generator.integers(CAMERAS)))
    return rows
