"""What a disk that is full, or may not be written, says: one sentence that names the folder."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterator

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # said of writing alone
CLOSED = (errno.EACCES, errno.EPERM, errno.ENOTDIR)


class DiskError(OSError):
    """A folder could not be written; the sentence names it, and says why and what can be done."""


@contextlib.contextmanager
def writing(folder: str | os.PathLike) -> Iterator[None]:
    """Around what writes below `folder`: what the disk is the reason of becomes a DiskError.

    Libraries raise other kinds (array_record RuntimeError), with the system's reason in words alone.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        here = pathlib.Path(getattr(error, "filename", None) or "/").absolute().is_relative_to(os.path.abspath(folder))
        reasons = [
            os.strerror(code)
            for code in (*FULL, *(CLOSED if here else ()))
            if getattr(error, "errno", None) == code or os.strerror(code) in str(error)
        ]
        if isinstance(error, DiskError) or not reasons:
            raise
        raise DiskError(
            f"{folder} cannot be written: {reasons[0]}; make room there, or name another place with --data_dir."
        ) from error


def sentence(error: BaseException) -> str:
    """One line for the reader of an error, without error numbers."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error)
