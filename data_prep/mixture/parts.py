"""The parts of a mixture: prepared data sets, which they are and what of them is taken."""

import functools
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow_datasets as tfds

from acrn_jax import COMMAND
from acrn_jax.data_prep import prepared, reid

WANTED = "wanted is DATASET/CONFIG:SPLIT, or several splits joined by '+', such as market1501/dev_0:train"


class Part(NamedTuple):
    """Some splits of one prepared data set."""

    dataset: str
    config: str
    splits: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.config}"

    def __str__(self) -> str:
        return f"{self.name}:{'+'.join(self.splits)}"


class Image(NamedTuple):
    """One image of a part."""

    example: reid.Example  # as the part has it, with attributes in the order of the part's names
    sha256: bytes  # of the image's bytes


def parse(text: str) -> list[Part]:
    """The parts that a text such as "market1501/dev_0:train,peta/reid_3dpes:train+query" names.

    Raises:
      ValueError: something else, one data set and config twice, or a mixture of mixtures.
    """
    found: list[Part] = []
    for item in (item.strip() for item in text.split(",")):
        match = re.fullmatch(r"(\w+)/(\w[\w.-]*):(\w+(?:\+\w+)*)", item)
        if not match:
            raise ValueError(f"--parts has {item!r}; {WANTED}.")
        part = Part(match[1], match[2], tuple(match[3].split("+")))
        if part.dataset == "mixture":
            raise ValueError(f"--parts has {item}, a mixture itself; give its own parts instead.")
        if part.name in {other.name for other in found} or len(set(part.splits)) < len(part.splits):
            raise ValueError(f"--parts has {item} and splits of {part.name} before; give each once, with '+' between.")
        found.append(part)
    return found


def folder(data_dir: str | os.PathLike, part: Part) -> pathlib.Path:
    """Where a part lies prepared, in its newest version.

    Raises:
      FileNotFoundError: it does not.
    """
    place = pathlib.Path(data_dir) / part.dataset / part.config
    versions = [file.parent for file in place.glob("*/dataset_info.json") if re.fullmatch(r"[\d.]+", file.parent.name)]
    if not versions:
        raise FileNotFoundError(
            f"--parts has {part}, but {part.name} is not prepared in {data_dir}; prepare it there first: {COMMAND} "
            f"prepare --dataset={part.dataset} --config_name={part.config} --data_dir={data_dir} ..."
        )
    return max(versions, key=lambda version: [int(number) for number in version.name.split(".")])


def traces(data_dir: str | os.PathLike, text: str) -> dict:
    """What options.json keeps of --parts; what lies prepared counts where all of it is there."""
    parts = parse(text)
    try:
        held = hashlib.sha256()
        for part in parts:
            marks = json.loads((folder(data_dir, part) / "fingerprint.json").read_text())
            held.update("".join(f"{marks[split]['sha256']}\n" for split in part.splits).encode())
    except (OSError, ValueError, KeyError):
        return {"parts": [*map(str, parts)]}
    return {"parts": [*map(str, parts)], "parts_sha256": held.hexdigest()}


def open_part(data_dir: str | os.PathLike, part: Part) -> tuple[tfds.core.DatasetBuilder, dict, dict]:
    """(builder, fingerprint, options that it was prepared with) of a part.

    Raises:
      FileNotFoundError: it is not prepared.
      ValueError: it lacks a split, or is not what was written.
    """
    place = folder(data_dir, part)
    builder = tfds.builder_from_directory(place)
    for split in part.splits:
        if split not in builder.info.splits:
            raise ValueError(f"--parts has {part}, but {part.name} has the splits {', '.join(builder.info.splits)}.")
    try:
        stored = json.loads((place / "fingerprint.json").read_text())
        options = json.loads((place / "options.json").read_text())
    except (OSError, ValueError):
        raise ValueError(
            f"{place} was not written by prepare, or not wholly; remove it and prepare it again."
        ) from None
    if prepared.fingerprint(builder) != stored:
        raise ValueError(f"{place} is not what was written; remove it and prepare it again.")
    return builder, stored, options


def images(builder: tfds.core.DatasetBuilder, part: Part) -> Iterator[Image]:
    """The images of a part's splits, in order; one that several splits hold comes once.

    Raises:
      ValueError: two splits have different images of one name.
    """
    seen: dict[str, bytes] = {}
    for split in part.splits:
        source = prepared.records(builder, split)
        for i, record in enumerate(source):
            name, digest = record["file_name"].decode(), hashlib.sha256(record["image"]).digest()
            if name in seen:
                if seen[name] != digest:
                    raise ValueError(f"{part} has two different images of the name {name}; take fewer of its splits.")
                continue
            seen[name] = digest
            labels = int(record["person_id"]), int(record["camera_id"]), record["attributes"]
            yield Image(reid.Example(functools.partial(_image, source, i), name, *labels), digest)


def _image(source, i: int) -> bytes:
    return source[i]["image"]
