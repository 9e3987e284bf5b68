"""What is looked at before image files become a data set: that they can be read, are not repeated, and have room."""

import hashlib
import itertools
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent import futures

from acrn_jax.data_prep import pictures, reid


def check_room(images: list[str | os.PathLike], data_dir: pathlib.Path) -> None:
    """That the disk has room for a copy of the images; two while TFDS sorts more than a gigabyte."""
    size = sum(os.path.getsize(image) for image in images)
    needed, free = size * (2.1 if size > 1 << 30 else 1.1), shutil.disk_usage(data_dir).free
    if needed > free:
        raise OSError(f"{data_dir} has {free / 1e9:.2f} GB free and {needed / 1e9:.2f} GB are needed; make room first.")


def check_images(paths: list[pathlib.Path]) -> list[str]:
    """That every file decodes; gives the notes of `pictures.notes`.

    Raises:
      ValueError: names the first file that does not, and says how many.
    """
    looks = look_at(paths)
    bad = [path for path, look in looks.items() if look.fault]
    if bad:
        raise ValueError(
            f"{len(bad)} of {len(paths)} images cannot be read, the first is {bad[0]} ({looks[bad[0]].fault}); "
            "replace them, from the original where they are broken."
        )
    return pictures.notes(looks)


def look_at(paths: list[pathlib.Path]) -> dict[pathlib.Path, pictures.Look]:
    """What the files' pictures are like."""
    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            looks = list(_progress(pool.map(pictures.look, paths), total=len(paths), what="Checking images"))
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # or leaving would wait for all of them
            raise
    return dict(zip(paths, looks, strict=True))


def image_files(contents: reid.Contents) -> list[pathlib.Path]:
    """The files, once each, that the examples' images lie in."""
    images = [example.image for examples in contents.splits.values() for example in examples]
    return sorted({pathlib.Path(image) for image in images if not isinstance(image, bytes) and not callable(image)})


def repeated(paths: list[pathlib.Path]) -> list[list[pathlib.Path]]:
    """Groups of files with the same bytes."""
    by_size: dict[int, list[pathlib.Path]] = {}
    for path in paths:
        by_size.setdefault(path.stat().st_size, []).append(path)
    by_bytes: dict[bytes, list[pathlib.Path]] = {}
    for path in itertools.chain.from_iterable(group for group in by_size.values() if len(group) > 1):
        by_bytes.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(path)
    return [group for group in by_bytes.values() if len(group) > 1]


def _progress(items: Iterable, *, total: int, what: str) -> Iterator:
    """The items, with a line on stderr now and then."""
    live, start, last = sys.stderr.isatty(), time.monotonic(), 0.0
    for count, item in enumerate(items, start=1):
        yield item
        elapsed = time.monotonic() - start
        if count == total or elapsed - last > (0.2 if live else 10):
            last = elapsed
            line = f"{what} {count:,} of {total:,}, {count / max(elapsed, 1e-9):,.0f}/s"
            print(
                f"\r{line}\x1b[K" if live and count < total else f"\r{line}" if live else line,
                file=sys.stderr,
                end="" if live and count < total else "\n",
                flush=True,
            )
