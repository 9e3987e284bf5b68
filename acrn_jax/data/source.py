"""Prepared data sets as random-access records: label columns read once, images as the bytes they were published in."""

import dataclasses
import difflib
import functools
import hashlib
import json
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from acrn_jax import COMMAND, schema
from acrn_jax.data_prep import pictures

MIXTURE = "mixture"  # name of the data set whose records are those of others
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 4096  # records read at once: the reader's own threads work within one call


@dataclasses.dataclass(frozen=True)
class Split:
    """N records of one split, or of a part of it."""

    name: str  # dataset/config/split, for messages and result files
    key: np.ndarray  # [N] str, unique: dataset/config/relative path
    file_name: np.ndarray  # [N] str, relative path
    person_id: np.ndarray  # [N] int32
    camera_id: np.ndarray  # [N] int32
    attributes: np.ndarray  # [N, A] int8: 1 yes, 0 no, -1 unknown
    attribute_names: tuple[str, ...]  # [A]
    metadata: dict[str, Any]
    fingerprint: str  # sha256 of the prepared split; of a part: of that and the places taken
    rows: np.ndarray  # [N] int64, places in the prepared split
    read: Callable[[int], bytes]  # place in the prepared split -> encoded image

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def protocol(self) -> str:
        """How the data set wants to be evaluated, as its builder says."""
        return self.metadata["protocol"]

    @property
    def labels(self) -> schema.Labels:
        """Who is on the images, and seen by which camera."""
        return schema.Labels(self.person_id, self.camera_id)

    def attributes_of(self, names: Sequence[str]) -> np.ndarray:
        """Labels of those attributes, [N, len(names)] int8; -1 (unknown) for one that the data set does not have."""
        columns = np.pad(self.attributes, ((0, 0), (0, 1)), constant_values=-1)
        place = {name: column for column, name in enumerate(self.attribute_names)}
        return columns[:, [place.get(name, -1) for name in names]]

    def image_bytes(self, i: int) -> bytes:
        """Encoded image of record i, as published."""
        return self.read(int(self.rows[i]))

    def take(self, indices: np.ndarray) -> "Split":
        """The records at `indices` ([M] int, or [N] bool) as a split of their own; images stay where they are."""
        indices = np.asarray(indices)
        if indices.dtype == bool and indices.shape != (len(self),):
            raise ValueError(f"The mask has shape {indices.shape}, {self.name} has {len(self)} records.")
        indices = np.flatnonzero(indices) if indices.dtype == bool else indices.astype(np.int64)
        part = hashlib.sha256(self.fingerprint.encode() + indices.astype("<i8").tobytes()).hexdigest()
        columns = ("key", "file_name", "person_id", "camera_id", "attributes", "rows")
        taken = {name: getattr(self, name)[indices] for name in columns}
        return dataclasses.replace(self, fingerprint=part, **taken)


def open_split(
    data_dir: str | pathlib.Path, dataset: str, config_name: str, split: str, *, keep_bytes: int = 2**30
) -> Split:
    """Opens one split of a prepared data set.

    One pass reads all records (about 1.2 s for 19,000 of Market-1501's size). Encoded images stay in memory where a
    split has no more than `keep_bytes` of them, since one read from disk costs as much as decoding a small JPEG.

    Raises:
      FileNotFoundError: the folder is missing, or the data set is not prepared in it.
      ValueError: no such split, or not a data set of this project.
    """
    folder = _folder(pathlib.Path(data_dir), dataset, config_name)
    builder = tfds.builder_from_directory(folder)
    name = f"{dataset}/{config_name}/{split}"
    if split not in builder.info.splits:
        raise ValueError(f"{dataset}/{config_name} has no split {split!r}; it has {', '.join(builder.info.splits)}.")
    # Parsing the records here instead of by TFDS reads a split five times as fast.
    raw = tfds.decode.DeserializeMethod.RAW_BYTES
    source = builder.as_data_source(split, deserialize_method=raw).data_source
    stored = _stored_fingerprint(folder, split)
    images, columns, kept, digest = [], [], 0, hashlib.sha256()
    for start in range(0, len(source), _CHUNK):
        for record in source.__getitems__(range(start, min(start + _CHUNK, len(source)))):
            image, *labels = _parse(record)
            columns.append(labels)
            if stored is None:
                _update(digest, image, *labels)
            kept += len(image)
            if kept <= keep_bytes:
                images.append(image)
    if not columns:
        raise ValueError(f"Split {name} holds no images; prepare it again from complete raw data.")
    key, file_name, person_id, camera_id, attributes = zip(*columns, strict=True)
    metadata = dict(builder.info.metadata or {})
    attribute_names = tuple(metadata.get("attribute_names", ()))
    if len(attributes[0]) != len(attribute_names):
        raise ValueError(f"{name} has {len(attributes[0])} attributes a record but {len(attribute_names)} names.")
    return Split(
        name=name,
        key=np.array(key),
        file_name=np.array(file_name),
        person_id=np.array(person_id, np.int32),
        camera_id=np.array(camera_id, np.int32),
        attributes=np.array(attributes, np.int8).reshape(len(key), len(attribute_names)),
        attribute_names=attribute_names,
        metadata=metadata,
        fingerprint=stored or digest.hexdigest(),
        rows=np.arange(len(key), dtype=np.int64),
        read=images.__getitem__ if kept <= keep_bytes else functools.partial(_read_image, source),
    )


def splits(data_dir: str | pathlib.Path, dataset: str, config_name: str) -> tuple[str, ...]:
    """Names of the splits of a prepared data set.

    Raises:
      FileNotFoundError: as `open_split`.
    """
    return tuple(tfds.builder_from_directory(_folder(pathlib.Path(data_dir), dataset, config_name)).info.splits)


def fingerprint(data_dir: str | pathlib.Path, dataset: str, config_name: str, splits: Sequence[str]) -> str:
    """What `open_split` would say of one split, `join` of several: of what lies prepared there, without reading it all.

    Raises as `open_split`.
    """
    folder = _folder(pathlib.Path(data_dir), dataset, config_name)
    found = [
        _stored_fingerprint(folder, split) or open_split(data_dir, dataset, config_name, split).fingerprint
        for split in splits
    ]
    return _joined_fingerprint(found)


def _joined_fingerprint(found: Sequence[str]) -> str:
    return found[0] if len(found) == 1 else hashlib.sha256(" ".join(found).encode()).hexdigest()


def _folder(data_dir: pathlib.Path, dataset: str, config_name: str) -> pathlib.Path:
    """Folder of the newest prepared version."""
    prepare = f"{COMMAND} prepare --dataset={dataset} --config_name={config_name} --data_dir={data_dir}"
    if not data_dir.is_dir():
        raise FileNotFoundError(f"There is no data folder {data_dir}; make it with: {prepare}")
    found = [file.parent for file in data_dir.glob("*/*/*/dataset_info.json") if _VERSION.fullmatch(file.parent.name)]
    wanted = [folder for folder in found if folder.parent == data_dir / dataset / config_name]
    if not wanted:
        there = {"/".join(folder.parts[-3:-1]) for folder in found}
        near = difflib.get_close_matches(f"{dataset}/{config_name}", there, n=6, cutoff=0)
        more = f" and {len(there) - len(near)} more" if len(there) > len(near) else ""
        raise FileNotFoundError(
            f"{dataset}/{config_name} is not prepared in {data_dir} (there: {', '.join(near) or 'nothing'}{more}); "
            f"prepare it with: {prepare}"
        )
    return max(wanted, key=lambda folder: [int(part) for part in folder.name.split(".")])


def _stored_fingerprint(folder: pathlib.Path, split: str) -> str | None:
    file = folder / "fingerprint.json"
    return json.loads(file.read_text()).get(split, {}).get("sha256") if file.exists() else None


def _update(digest: Any, image: bytes, key: str, file_name: str, person_id: int, camera_id: int, attributes) -> None:
    """Adds one record to a fingerprint, field by field behind its length, exactly as data_prep/prepared.py does."""
    numbers = f"{person_id} {camera_id}".encode()
    for field in (key.encode(), file_name.encode(), numbers, np.array(attributes, np.int8).tobytes(), image):
        digest.update(len(field).to_bytes(8, "little"))
        digest.update(field)


def _parse(record: bytes) -> tuple[bytes, str, str, int, int, Sequence[int]]:
    """Serialised record -> image, key, file_name, person_id, camera_id, attributes."""
    feature = tf_example_pb2.Example.FromString(record).features.feature
    image, key, file_name = (feature[name].bytes_list.value[0] for name in ("image", "key", "file_name"))
    person_id, camera_id = (feature[name].int64_list.value[0] for name in ("person_id", "camera_id"))
    return image, key.decode(), file_name.decode(), person_id, camera_id, tuple(feature["attributes"].int64_list.value)


def _read_image(source: Sequence[bytes], i: int) -> bytes:
    return _parse(source[i])[0]


def open_folder(folder: str | pathlib.Path, known: Mapping[str, pictures.Seen] | None = None) -> Split:
    """All pictures below a folder, in the order of their paths; nobody is known on them (person_id 0, camera -1).

    Metadata has `unreadable`, `passed_over` and `notes`, see `pictures.Found`, which `told_of_folder` says in words,
    and `seen`, name -> `pictures.Seen`, to be given as `known` when the folder is opened again.

    Raises:
      FileNotFoundError: no such folder, or no picture in it.
      ValueError: none that can be read.
    """
    return _of_pictures(pictures.find(folder, known), name=str(folder))


def told_of_folder(metadata: Mapping[str, Any], *, shown: int = 10) -> str:
    """What is to be known of the pictures and what `open_folder` left out, in lines, or nothing."""
    text = "".join(f"{note}\n" for note in metadata.get("notes", ()))
    if unreadable := metadata.get("unreadable"):
        count, lines = len(unreadable), [f"  {name}: {reason}" for name, reason in unreadable.items()]
        more = [f"  and {count - shown:,} more"] if count > shown else []
        text += f"Skipped {count} file{'s' * (count > 1)} not readable as a picture:\n"
        text += "\n".join([*lines[:shown], *more, ""])
    if passed_over := metadata.get("passed_over"):
        text += f"Passed over, as pictures end in {', '.join(pictures.ENDINGS)}:\n"
        text += "".join(f"  {line}\n" for line in pictures.told(passed_over))
    return text


def open_files(paths: Sequence[pathlib.Path], names: Sequence[str], *, name: str) -> Split:
    """Image files, called `names`, as a split `name` on which nobody is known (person_id 0, camera -1).

    Metadata as of `open_folder`.

    Raises:
      ValueError: one that cannot be read; names it.
    """
    found = pictures.look_at(paths, names, {})
    for path, called in zip(paths, names, strict=True):
        if fault := found.unreadable.get(called):
            raise ValueError(f"Image {str(path)!r} cannot be decoded: {fault}; replace it.")
    return _of_pictures(found, name=name)


def _of_pictures(found: pictures.Found, *, name: str) -> Split:
    count, digests = len(found.paths), tuple(seen.digest for seen in found.seen)
    # What a net said about pixels of another rule is not used again.
    fingerprint = hashlib.sha256(pictures.RULE + "".join(digests).encode()).hexdigest()
    return Split(
        name=name,
        key=np.array(found.names),
        file_name=np.array(found.names),
        person_id=np.zeros(count, np.int32),
        camera_id=np.full(count, schema.UNKNOWN, np.int32),
        attributes=np.zeros((count, 0), np.int8),
        attribute_names=(),
        metadata={
            "protocol": "none",
            "seen": dict(zip(found.names, found.seen, strict=True)),
            "unreadable": found.unreadable,
            "passed_over": found.passed_over,
            "notes": found.notes,
        },
        fingerprint=fingerprint,
        rows=np.arange(count, dtype=np.int64),
        read=functools.partial(_read_file, tuple(found.paths), digests, found.content),
    )


def _read_file(paths: Sequence[pathlib.Path], digests: Sequence[str], content: Sequence[bytes | None], i: int) -> bytes:
    """As it was when it was looked at."""
    if (data := content[i]) is not None:
        return data
    try:
        data = paths[i].read_bytes()
    except OSError as error:
        raise ValueError(
            f"{paths[i]} has gone since it was listed ({error.strerror}); run the command again."
        ) from error
    if hashlib.sha256(data).hexdigest() != digests[i]:
        raise ValueError(f"{paths[i]} was changed since it was looked at; run the command again.")
    return data


def join(splits: Sequence[Split]) -> Split:
    """Several splits of one data set as one, in the given order; a single one is given back as it is."""
    if len(splits) == 1:
        return splits[0]
    first, lengths = splits[0], [len(split) for split in splits]
    columns = ("key", "file_name", "person_id", "camera_id", "attributes")
    return dataclasses.replace(
        first,
        name="+".join([first.name, *(split.name.rsplit("/", 1)[-1] for split in splits[1:])]),
        fingerprint=_joined_fingerprint([split.fingerprint for split in splits]),
        rows=np.arange(sum(lengths), dtype=np.int64),
        read=functools.partial(_read_joined, tuple(splits), np.cumsum([0, *lengths])),
        **{name: np.concatenate([getattr(split, name) for split in splits]) for name in columns},
    )


def part_numbers(split: Split) -> np.ndarray:
    """Which part of a mixture each record is of, from 0 in the order of its metadata, int64 [N]; of another set 0."""
    last = [part["people"][1] for part in split.metadata.get("parts", ())]
    return np.searchsorted(last[:-1], split.person_id)  # people are numbered part by part


def parts(split: Split) -> list[tuple[str, Split]]:
    """The records of each part of a mixture, named as they are there: [("market1501", split), ...]."""
    number, found = part_numbers(split), []
    for i, part in enumerate(split.metadata["parts"]):
        rows, name = np.flatnonzero(number == i), f"{part['dataset']}/{part['config']}"
        if len(rows):
            there = np.array([file.removeprefix(f"{name}/") for file in split.file_name[rows]])
            own = dataclasses.replace(split.take(rows), name=f"{split.name} ({name})", file_name=there)
            found.append((part["dataset"], own))
    return found


def _read_joined(splits: Sequence[Split], starts: np.ndarray, i: int) -> bytes:
    which = int(np.searchsorted(starts, i, side="right")) - 1
    return splits[which].image_bytes(i - int(starts[which]))
