"""Files are written beside their place and moved into it, so that none is ever half there, and their errors name them.

Standard library and numpy alone, so that every room may use it.
"""

import contextlib
import csv
import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
CLOSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR)


class WriteError(OSError):
    """A file could not be written; the sentence names it, and says why and what can be done."""


@contextlib.contextmanager
def replacing(path: str | os.PathLike, *, also: tuple[type[Exception], ...] = ()) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` when the block ends well and is removed when it does not.

    Its name is one of its own, with the same ending, so that several writers do not meet in it. Folders above are made,
    a link is followed, and permissions are what the umask says. What is no regular file (/dev/stdout) is written
    itself.

    Args:
      path: the file to write.
      also: exceptions of the library that writes in the block, which are told as OSError is.

    Raises:
      WriteError: it could not be written.
    """
    with naming(path, also=also):
        place = Path(os.path.realpath(path))
        if place.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if place.exists() and not place.is_file():
            yield place
            return
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.stem}.{secrets.token_hex(4)}{place.suffix}")
        try:
            yield partial
            os.replace(partial, place)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def naming(path: str | os.PathLike, *, also: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Around writing: an OSError of the block, or one of `also`, becomes a WriteError that names `path`."""
    try:
        yield
    except WriteError:
        raise
    except (OSError, *also) as error:
        raise WriteError(failed(path, error)) from error


def check(path: str | os.PathLike) -> None:
    """WriteError where a file or folder cannot be written; before hours of work, not after."""
    path = Path(os.path.abspath(path))
    with naming(path):
        tempfile.TemporaryFile(
            dir=next(p for p in (*([path] if path.is_dir() else []), *path.parents) if p.exists())
        ).close()


def failed(path: str | os.PathLike, error: BaseException) -> str:
    """The sentence about a file that could not be written. Libraries often tell the system's reason in words alone."""
    text = " ".join(str(error).split())
    known = [code for code in (*FULL, *CLOSED) if getattr(error, "errno", None) == code or os.strerror(code) in text]
    reason = os.strerror(known[0]) if known else getattr(error, "strerror", None) or text or type(error).__name__
    remedy = "make room there, or write elsewhere" if known and known[0] in FULL else "write elsewhere"
    return f"{path} cannot be written: {reason}; {remedy} (--out, where the verb has it, or --workdir)."


@contextlib.contextmanager
def new_folder(path: str | os.PathLike) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when the block ends well and is removed when it does not."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with naming(path):
            partial.mkdir(parents=True)
            yield partial
            partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Writes a file of these bytes."""
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_text(path: str | os.PathLike, content: str) -> None:
    """Writes a file of this text, as UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes a value as JSON."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: str | os.PathLike, *keys: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it holds no JSON object, or one without all of `keys`; names the file.
    """
    remedy = "bring it back as it was, or delete it and run the command that wrote it again"
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); {remedy}.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is to hold a JSON object, not a {type(content).__name__}; {remedy}.")
    if missing := [key for key in keys if key not in content]:
        raise ValueError(f"{path} lacks {', '.join(missing)}; {remedy}.")
    return content


def write_csv(path: str | os.PathLike, rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows of cells, the header being the first, as CSV."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_arrays(path: str | os.PathLike, **arrays: Any) -> None:
    """Writes arrays by name as .npz, under the very name that is given."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(file, **arrays)


def sha256(path: str | os.PathLike) -> str:
    """Of a file's content, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
