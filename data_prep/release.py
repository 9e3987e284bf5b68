"""Finds a released data set on disk and reads its file names; what the re-id builders have in common."""

import os
import pathlib
import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from acrn_jax.data_prep import annotations, reid

IMAGE_ENDINGS = (".bmp", ".jpg", ".jpeg", ".png")
_SHOWN = 8  # names in a message


class Named(NamedTuple):
    """An image file and what its name says."""

    path: pathlib.Path
    match: re.Match[str]


def find_folder(raw_dir: str | os.PathLike, wanted: Sequence[str], *, depth: int = 3) -> pathlib.Path:
    """The folder that holds all `wanted` entries: raw_dir itself, or one up to `depth` levels below, nearest first.

    Entries are files or folders; capitals may differ. Hidden folders and `__MACOSX` are not looked into.

    Raises:
      FileNotFoundError: no such raw_dir, or no folder with all of them in it; says what is there.
      ValueError: two such folders on one level.
    """
    raw_dir = pathlib.Path(raw_dir)
    if not raw_dir.is_dir():
        raise FileNotFoundError(f"No folder {raw_dir}; --raw_dir wants the one that the release was unpacked into.")
    level, nearest = [raw_dir], (-1, raw_dir, list(wanted))  # how many were found, where, which are missing there
    for remaining in range(depth, -1, -1):
        found = []
        for folder in level:
            there = {path.name.lower() for path in folder.iterdir()}
            missing = [name for name in wanted if name.lower() not in there]
            if not missing:
                found.append(folder)
            nearest = max(nearest, (len(wanted) - len(missing), folder, missing), key=lambda entry: entry[0])
        if len(found) > 1:
            raise ValueError(f"{found[0]} and {found[1]} both hold {_listed(wanted)}; give one of them as --raw_dir.")
        if found:
            return found[0]
        if remaining:
            level = [below for folder in level for below in _folders(folder)]
    count, folder, missing = nearest
    if count > 0:
        raise FileNotFoundError(f"{folder} has no {_listed(missing)}; unpack the release again.")
    there = _listed(sorted(os.listdir(raw_dir))) or "nothing"
    raise FileNotFoundError(
        f"No folder with {_listed(wanted)} in {raw_dir}, which holds {there}; "
        "--raw_dir wants the one that the release was unpacked into."
    )


def child(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The entry `name` of a folder, whatever its capitals; None where there is none."""
    if (folder / name).exists():
        return folder / name
    return next((path for path in sorted(folder.iterdir()) if path.name.lower() == name.lower()), None)


def read_names(folder: pathlib.Path, pattern: str, *, example: str) -> tuple[list[Named], list[str]]:
    """The images of a folder, sorted by name, and a fault for each that is not named by the regular expression.

    Passed over: folders, hidden files (such as .DS_Store and ._0001.jpg), and whatever does not end as an image does
    (IMAGE_ENDINGS; Thumbs.db for instance).

    Args:
      folder: of the images.
      pattern: of a whole name.
      example: a right name, for the fault's sentence.

    Raises:
      FileNotFoundError: no image in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder; unpack the release again.")
    named, faults = [], []
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.is_file())
    for name in names:
        if not _is_image(folder / name):
            continue
        if match := re.fullmatch(pattern, name, re.ASCII):
            named.append(Named(folder / name, match))
        else:
            faults.append(f"{folder / name} is not named as {example} is; remove it or restore its name.")
    if not named and not faults:
        raise FileNotFoundError(f"{folder} holds no images; unpack the release again.")
    return named, faults


def read_splits(
    root: pathlib.Path,
    folders: dict[str, str],
    pattern: str,
    *,
    example: str,
    labels: annotations.Annotations | None = None,
) -> tuple[dict[str, list[reid.Example]], list[str]]:
    """Splits of folders whose file names begin with person and camera, and a fault for each name that is wrong.

    Args:
      root: of the folders.
      folders: split -> folder.
      pattern: of a whole name; group 1 is the person (0 a distractor, -1 junk), group 2 the camera.
      example: a right name, for the fault's sentence.
      labels: attributes of the people.

    Raises:
      FileNotFoundError: a folder is missing or without images.
    """
    splits, faults = {}, []
    for split, name in folders.items():
        named, wrong = read_names(child(root, name) or root / name, pattern, example=example)
        faults += wrong
        splits[split] = [_example(name, image, labels) for image in named]
    return splits, faults


def read_half(
    raw_dir: str | os.PathLike,
    name: str,
    pattern: str,
    *,
    example: str,
    labels: annotations.Annotations | None = None,
    people: Collection[int] = (),
    others: Collection[str] = (),
) -> tuple[list[reid.Example], list[str]]:
    """The images of a release's training folder, wherever they lie, and a fault for each that is none of it.

    Args:
      raw_dir: holds the folder `name`, in itself or up to three levels below, or that folder's images and no others.
      name: of the training folder; file names begin with it, whatever the folder is called.
      pattern, example, labels: as `read_splits` takes them.
      people: everybody in the training half; none: not known, then those in `labels`, if there are any.
      others: names of the release's other folders, which are not taken for it.

    Raises:
      FileNotFoundError: no such folder and no images.
      ValueError: images in several folders, or in one of the others.
    """
    folder = _half_folder(raw_dir, name)
    if folder.absolute().name.lower() in others:
        raise ValueError(f"{folder} is not the training half; a dev config wants the images of {name} alone.")
    named, faults = read_names(folder, pattern, example=example)
    examples = [_example(name, image, labels) for image in named]
    known = set(people or (labels.of_person if labels else ()))
    strangers = [e for e in examples if e.person_id < 1 or (known and e.person_id not in known)]
    faults += [
        f"{e.image} shows person {e.person_id}, who is not of the training half; a dev config wants the images of "
        f"{name} alone."
        for e in strangers
    ]
    return examples, faults


def _half_folder(raw_dir: str | os.PathLike, name: str, *, depth: int = 3) -> pathlib.Path:
    """Where the images of the training folder `name` lie: see `read_half`."""
    try:
        root = find_folder(raw_dir, [name])
        return child(root, name) or root / name
    except FileNotFoundError:
        level = [pathlib.Path(raw_dir)]
        if not level[0].is_dir():
            raise
    holding = []
    for _ in range(depth + 1):
        holding += [folder for folder in level if any(map(_is_image, folder.iterdir()))]
        level = [below for folder in level for below in _folders(folder)]
    if not holding:
        raise FileNotFoundError(
            f"{raw_dir} has neither {name} nor images; --raw_dir wants the release or the images of {name}."
        )
    if len(holding) > 1:
        raise ValueError(
            f"{holding[0]} and {holding[1]} both hold images and neither is called {name}; a dev config wants the "
            f"images of {name} alone, in one folder."
        )
    return holding[0]


def about(labels: annotations.Annotations | None) -> dict:
    """What metadata says of the attributes."""
    if labels is None:
        return {"attribute_names": []}
    return {"attribute_names": list(labels.names), "invalid_annotations": list(labels.invalid)}


def _example(folder: str, image: Named, labels: annotations.Annotations | None) -> reid.Example:
    """What a name that begins with person and camera says; `folder` comes before it."""
    person, camera = int(image.match[1]), int(image.match[2])
    known = labels.attributes(person) if labels else ()
    return reid.Example(image.path, f"{folder}/{image.path.name}", person, camera, known)


def _is_image(path: pathlib.Path) -> bool:
    return not path.name.startswith(".") and path.name.lower().endswith(IMAGE_ENDINGS) and path.is_file()


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith(".") and e.name != "__MACOSX")
    return [folder / name for name in names]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
