"""What a prepared data set holds: its fingerprint, its labels, and tables for the eye."""

import hashlib
import json
import pathlib

import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid


def fingerprint(builder: tfds.core.DatasetBuilder) -> dict:
    """What a prepared set holds: per split "images", "people", "cameras" and "sha256" over its records in order, and
    "sha256" over all splits.

    A record is hashed field by field, each behind its length, so that the value depends on what is stored and not on
    how a version of protobuf lays it out.
    """
    found: dict = {}
    for split in builder.info.splits:
        digest, people, cameras = hashlib.sha256(), set(), set()
        for record in records(builder, split):
            numbers = f"{record['person_id']} {record['camera_id']}".encode()
            for field in (record["key"], record["file_name"], numbers, record["attributes"].tobytes(), record["image"]):
                digest.update(len(field).to_bytes(8, "little"))
                digest.update(field)
            people.add(int(record["person_id"]))
            cameras.add(int(record["camera_id"]))
        found[split] = {
            "images": builder.info.splits[split].num_examples,
            "people": sum(person >= 1 for person in people),
            "cameras": len(cameras - {reid.UNKNOWN_CAMERA}),
            "sha256": digest.hexdigest(),
        }
    parts = "".join(f"{split} {found[split]['sha256']}\n" for split in sorted(found))
    return found | {"sha256": hashlib.sha256(parts.encode()).hexdigest()}


def labels(builder: tfds.core.DatasetBuilder) -> reid.Contents:
    """What a prepared set holds, without the images."""
    splits = {
        split: [
            reid.Example(b"", record["file_name"].decode(), int(record["person_id"]), int(record["camera_id"]))
            for record in records(builder, split)
        ]
        for split in builder.info.splits
    }
    return reid.Contents(splits, dict(builder.info.metadata or {}))


def records(builder: tfds.core.DatasetBuilder, split: str):
    """The records of one split, with images as they are stored."""
    return builder.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})


def table(folder: pathlib.Path) -> str:
    """Split, images, people, cameras and attributes of a prepared folder, as text."""
    marks = json.loads((folder / "fingerprint.json").read_text())
    attributes = len(json.loads((folder / "metadata.json").read_text())["attribute_names"])
    rows = [("split", "images", "people", "cameras", "attributes")]
    for split, mark in marks.items():
        if split != "sha256":
            counts = (mark["images"], mark["people"], mark["cameras"], attributes)
            rows.append((split, *(f"{count:,}" if count else "-" for count in counts)))
    return aligned(rows)


def told(folder: pathlib.Path, *, shown: int = 10) -> str:
    """How a prepared folder is scored and what is to be known of it, as text; nothing for one of an earlier version."""
    file = folder / "notes.json"
    about = json.loads(file.read_text()) if file.exists() else {"summary": "", "notes": []}
    more = [f"and {len(about['notes']) - shown:,} more notes"] if len(about["notes"]) > shown else []
    return "\n".join([*([about["summary"]] if about["summary"] else []), *about["notes"][:shown], *more])


def aligned(rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"{row[0]:12}" + "".join(f"{cell:>12}" for cell in row[1:]) for row in rows)
