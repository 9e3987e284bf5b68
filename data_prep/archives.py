"""Unpacks the zip and tar archives that data sets come in: regular files alone, and all inside one folder."""

import contextlib
import os
import pathlib
import re
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, NamedTuple

from acrn_jax.data_prep import disk

MAX_MEMBERS = 2_000_000  # Market-1501 with its 500,000 distractors has a quarter of that


class Member(NamedTuple):
    """One file of an archive."""

    name: str
    size: int  # bytes, unpacked
    open: Callable[[], IO[bytes]]


def is_archive(path: str | os.PathLike) -> bool:
    """Whether the path is a file that calls itself a zip or tar archive, by its name or its first bytes."""
    path = pathlib.Path(path)
    if not path.is_file():
        return False
    named = re.search(r"\.(zip|tar|tgz|tbz2?|txz|tar\.\w+)$", path.name, re.IGNORECASE)
    return bool(named) or zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpack(archive: str | os.PathLike, folder: str | os.PathLike) -> int:
    """Writes an archive's files below `folder`, which is made; gives their number.

    Raises:
      ValueError: not a readable archive (truncated, encrypted, of an unknown compression), or a member that is
        absolute, leaves the folder, is a link or a device, or comes twice. Names the archive and the member.
      OSError: fewer bytes free on the disk than the archive unpacks to.
    """
    archive, folder = pathlib.Path(archive), pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    with _named(archive), _members(archive) as members, disk.writing(folder):
        left = shutil.disk_usage(folder).free
        for member in members:
            name = _safe(member.name)
            if name.casefold() in seen:
                raise ValueError(f"{member.name!r} comes twice")
            seen.add(name.casefold())
            left -= member.size
            if left < 0 or len(seen) > MAX_MEMBERS:
                raise disk.DiskError(
                    f"{archive} unpacks to more than {'the disk has free' if left < 0 else f'{MAX_MEMBERS:,} files'}; "
                    "make room on the disk of --data_dir, or unpack it elsewhere and give the folder."
                )
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
            if path.stat().st_size != member.size:
                raise ValueError(f"{member.name!r} has {path.stat().st_size} bytes of {member.size}")
    return len(seen)


@contextlib.contextmanager
def _named(archive: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except disk.DiskError:
        raise
    except Exception as error:  # zipfile, tarfile and the decompressors raise a dozen kinds for broken files
        raise ValueError(
            f"{archive} cannot be unpacked ({str(error) or type(error).__name__}); download it again, or unpack it "
            "yourself and give the folder."
        ) from error


@contextlib.contextmanager
def _members(archive: pathlib.Path) -> Iterator[Iterator[Member]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            yield _zip_members(file)
    elif tarfile.is_tarfile(archive):
        with tarfile.open(archive) as file:
            yield _tar_members(file)
    else:
        raise ValueError("neither a zip nor a tar archive, or not all of it")


def _zip_members(file: zipfile.ZipFile) -> Iterator[Member]:
    for info in file.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if info.is_dir() or kind == stat.S_IFDIR:
            continue
        if kind not in (0, stat.S_IFREG):
            raise ValueError(f"{info.filename!r} is a link or a device")
        if info.flag_bits & 1:
            raise ValueError(f"{info.filename!r} is encrypted")
        yield Member(info.filename, info.file_size, lambda info=info: file.open(info))


def _tar_members(file: tarfile.TarFile) -> Iterator[Member]:
    for info in file:
        if info.isdir():
            continue
        source = file.extractfile(info) if info.isreg() else None
        if source is None:
            raise ValueError(f"{info.name!r} is a link or a device")
        yield Member(info.name, info.size, lambda source=source: source)


def _safe(name: str) -> str:
    """A member's name as a path below the folder, or ValueError."""
    parts = name.replace("\\", "/").split("/")
    if name[:1] in "/\\" or ".." in parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise ValueError(f"{name!r} would be written outside the folder")
    parts = [part for part in parts if part not in ("", ".")]
    if not parts:
        raise ValueError(f"{name!r} names no file")
    return "/".join(parts)
