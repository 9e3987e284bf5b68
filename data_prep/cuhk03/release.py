"""Reads CUHK03 as it was released: cuhk-03.mat, a MATLAB 7.3 file, which is HDF5 with cells as object references.

Or as a folder of images with the names that the lists of the new protocol give them.
"""

import contextlib
import functools
import io
import math
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import h5py
import numpy as np
import PIL.Image

from acrn_jax.data_prep import reid
from acrn_jax.data_prep import release as folders

KINDS = ("labeled", "detected")  # boxes drawn by hand, and found by a detector
IMAGES = {"labeled": 14_096, "detected": 14_097}  # in the official release
PEOPLE = (843, 440, 77, 58, 49)  # of its five pairs of cameras
TEST_SETS, TESTED = 20, 100
IMAGES_PER_PERSON = 10  # at most: columns 1 to 5 of view 1, 6 to 10 of view 2

_MOST_PEOPLE = 999  # of a pair; file names have three digits
_LONGEST_SIDE = 4_000  # of an image, in pixels
_LARGEST_CHUNK = 1 << 26  # bytes that HDF5 takes into memory at once


class Place(NamedTuple):
    """Where an image stands, each counted from 1."""

    pair: int  # of cameras
    person: int  # within the pair
    number: int  # of the image, up to 10

    @property
    def view(self) -> int:
        return 1 if self.number <= IMAGES_PER_PERSON // 2 else 2

    @property
    def name(self) -> str:
        return f"{self.pair}_{self.person:03d}_{self.view}_{self.number:02d}.png"


class Release(NamedTuple):
    """cuhk-03.mat, or a folder of images."""

    people: tuple[int, ...]  # of each pair
    # Kind -> place -> what reads it and gives a PNG, or its file.
    images: dict[str, dict[Place, Callable[[], bytes] | pathlib.Path]]
    test_sets: list[list[tuple[int, int]]]  # (pair, person) of who is tested

    def person_id(self, place: Place) -> int:
        """From 1 on, over all pairs: 1 to 1467 in the official release."""
        return sum(self.people[: place.pair - 1]) + place.person

    def example(self, kind: str, place: Place) -> reid.Example:
        """The record of one image; its camera is the view, as views are all that the protocols tell apart."""
        image = self.images[kind][place]
        name = image.name if isinstance(image, pathlib.Path) else place.name
        return reid.Example(image, f"{kind}/{name}", self.person_id(place), place.view)

    def shortfall(self, *, test_sets: bool = True) -> list[str]:
        """What differs from the official release, a clause each; `test_sets`: in these too."""
        found = [
            (f"{kind}: {len(self.images[kind]):,} images", f"{IMAGES[kind]:,}", len(self.images[kind]) == IMAGES[kind])
            for kind in KINDS
        ]
        people, sizes = self.people, {len(tested) for tested in self.test_sets}
        found.append((f"people of the five pairs: {_listed(people)}", _listed(PEOPLE), people == PEOPLE))
        if test_sets:
            found.append((f"{len(self.test_sets)} test sets", f"{TEST_SETS}", len(self.test_sets) == TEST_SETS))
            found.append((f"test sets of {_listed(sorted(sizes))} people", f"{TESTED}", sizes == {TESTED}))
        return [f"{what}, officially {official}" for what, official, same in found if not same]


def find(raw_dir: str | os.PathLike, name: str = "cuhk-03.mat") -> pathlib.Path | None:
    """The file `name` in `raw_dir` or up to three folders below; `raw_dir` may be that file.

    Raises:
      FileNotFoundError: no `raw_dir`.
    """
    raw_dir = pathlib.Path(raw_dir)
    if not raw_dir.exists():
        raise FileNotFoundError(f"No {raw_dir}; --raw_dir wants the folder that holds cuhk-03.mat, or that file.")
    if raw_dir.is_file():
        return raw_dir
    found = (path for depth in range(4) for path in sorted(raw_dir.glob("*/" * depth + name)))
    return next((path for path in found if path.is_file()), None)


def read_folder(raw_dir: str | os.PathLike) -> tuple[Release, list[str]]:
    """Images in the folders `labeled` and `detected`, without test sets, and a fault for each that is wrongly named.

    One of the folders is enough. They lie in `raw_dir` or up to three levels below, nearest first; names are
    1_001_1_01.png, with any ending of an image.

    Raises:
      FileNotFoundError: neither of the folders, or no image in one.
    """
    places = (path for depth in range(4) for path in sorted(pathlib.Path(raw_dir).glob("*/" * depth + "*")))
    root = next((path.parent for path in places if path.name in KINDS and path.is_dir()), None)
    if root is None:
        raise FileNotFoundError(
            f"No cuhk-03.mat in {raw_dir}, and no folder {' or '.join(KINDS)} of images; unpack cuhk03_release.zip "
            "there, or give the folder that holds them."
        )
    images: dict[str, dict[Place, Callable[[], bytes] | pathlib.Path]] = {kind: {} for kind in KINDS}
    faults = []
    for kind in KINDS:
        if not (root / kind).is_dir():
            continue
        example = Place(1, 1, 1).name
        named, wrong = folders.read_names(root / kind, r"([1-5])_(\d{3})_[12]_(\d\d)\.\w+", example=example)
        faults += wrong
        for path, match in named:
            place = Place(*map(int, match.groups()))
            if path.stem + ".png" != place.name or not 1 <= place.number <= IMAGES_PER_PERSON:
                faults.append(f"{path}: images 1 to 5 are of view 1 and 6 to 10 of view 2; restore its name.")
            elif not 1 <= place.person <= PEOPLE[place.pair - 1]:
                most = PEOPLE[place.pair - 1]
                faults.append(f"{path}: pair {place.pair} has people 1 to {most}; remove it or restore its name.")
            elif place in images[kind]:
                faults.append(f"{path} and {images[kind][place]} are the same image by their names; remove one.")
            else:
                images[kind][place] = path
    return Release(PEOPLE, images, []), faults


def read(path: str | os.PathLike) -> Release:
    """The whole file, but for the images, which are read when they are asked for; it stays open for that.

    Raises:
      ValueError: not an HDF5 file, or not CUHK03's; names the file and the place in it.
    """
    path = pathlib.Path(path)
    with _reading(path, "opening it as HDF5 (MATLAB 7.3)"):
        file = h5py.File(path, "r", locking=False)
    images, people = {}, {}
    for kind in KINDS:
        images[kind], people[kind] = {}, []
        with _reading(path, kind):
            pairs = _references(_top(file, kind), "a reference for each of five pairs", lambda d: d.size == len(PEOPLE))
        for pair, reference in enumerate(pairs.flat, start=1):
            with _reading(path, f"{kind}, pair {pair}"):
                cells = _references(
                    file[reference],
                    f"references [{IMAGES_PER_PERSON}, people]",
                    lambda d: d.ndim == 2 and d.shape[0] == IMAGES_PER_PERSON and d.shape[1] <= _MOST_PEOPLE,
                ).T  # [M, 10]
            people[kind].append(len(cells))
            for (person, number), cell in np.ndenumerate(cells):
                place = Place(pair, person + 1, number + 1)
                where = f"{kind}, pair {pair}, person {place.person}, image {place.number}"
                with _reading(path, where):
                    if _is_image(file[cell]):
                        images[kind][place] = functools.partial(_png, file, cell, path, where)
    if people["labeled"] != people["detected"]:
        raise ValueError(
            f"{path}: {_listed(people['labeled'])} people are labeled in the five pairs and "
            f"{_listed(people['detected'])} detected; take the file from the official release again."
        )
    with _reading(path, "testsets"):
        sets = _references(_top(file, "testsets"), f"{TEST_SETS} references", lambda d: d.size <= 5 * TEST_SETS)
    test_sets = []
    for number, reference in enumerate(sets.flat):
        with _reading(path, f"testsets, set {number + 1}"):
            test_sets.append(_test_set(file[reference], people["labeled"]))
    return Release(tuple(people["labeled"]), images, test_sets)


@contextlib.contextmanager
def _reading(path: pathlib.Path, where: str) -> Iterator[None]:
    """Names file and place of whatever goes wrong; h5py raises many kinds for a broken file."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{path}, {where}: {error}; take the file from the official release again.") from error


def _top(file: h5py.File, name: str) -> object:
    """What has that name in the file itself: links elsewhere are not followed."""
    link = file.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        raise ValueError("there is nothing" if link is None else "it is a link elsewhere")
    return file[name]


def _dataset(found: object, wanted: str, fits: Callable[[h5py.Dataset], bool]) -> h5py.Dataset:
    """The object, if it is a dataset with its values in this file that fits."""
    if not isinstance(found, h5py.Dataset):
        raise ValueError(f"a {type(found).__name__} where {wanted} is wanted")
    if found.external or found.is_virtual:
        raise ValueError("its values lie in another file")
    if not found.shape or not fits(found) or math.prod(found.chunks or ()) * found.dtype.itemsize > _LARGEST_CHUNK:
        raise ValueError(f"{found.dtype} {list(found.shape or ())} where {wanted} is wanted")
    return found


def _references(found: object, wanted: str, fits: Callable[[h5py.Dataset], bool]) -> np.ndarray:
    """A MATLAB cell array, [..] of references to objects of the file."""
    are_references = lambda d: h5py.check_ref_dtype(d.dtype) is h5py.Reference
    return _dataset(found, wanted, lambda d: are_references(d) and fits(d))[()]


def _is_image(found: object) -> bool:
    """Whether a cell holds an image; else it is empty, for which MATLAB stores the two zeros of its size."""
    if isinstance(found, h5py.Dataset) and (not found.size or (found.ndim < 3 and found.size <= 4)):
        return False
    fits = lambda d: d.dtype == np.uint8 and d.ndim == 3 and d.shape[0] == 3 and max(d.shape) <= _LONGEST_SIDE
    return _dataset(found, f"an image uint8 [3, W, H] of at most {_LONGEST_SIDE} pixels a side", fits) is not None


def _png(file: h5py.File, cell: h5py.Reference, path: pathlib.Path, where: str) -> bytes:
    """The image [3, W, H] of a cell as an RGB file."""
    png = io.BytesIO()
    with _reading(path, where):
        PIL.Image.fromarray(np.ascontiguousarray(file[cell][()].T)).save(png, "png")
    return png.getvalue()


def _test_set(found: object, people: list[int]) -> list[tuple[int, int]]:
    """(pair, person) of everybody in a test set, from numbers [2, n]."""
    fits = lambda d: d.dtype.kind in "fiu" and d.ndim == 2 and d.shape[0] == 2 and d.shape[1] <= sum(people)
    rows = _dataset(found, "numbers [2, people]", fits)[()].T  # [n, 2]
    tested = []
    for row, (pair, person) in enumerate(rows.tolist(), start=1):
        whole = math.isfinite(pair) and math.isfinite(person) and pair == int(pair) and person == int(person)
        if not whole or not 1 <= pair <= len(people) or not 1 <= person <= people[int(pair) - 1]:
            raise ValueError(f"row {row} is pair {pair:g}, person {person:g}, and there is nobody of that number")
        tested.append((int(pair), int(person)))
    if len(set(tested)) != len(tested):
        raise ValueError("somebody comes twice")
    return tested


def _listed(numbers) -> str:
    return ", ".join(str(number) for number in numbers)
