"""Reads PETA as it was released: ten folders of images, each with a Label.txt, and PETA.mat with official splits."""

import os
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acrn_jax.data_prep import matlab, reid


class Subset(NamedTuple):
    """One of the ten collections that PETA is made of."""

    images: int  # in the official release
    name: str  # pattern of its file names; group 1 is the person, group 2, where there is one, the camera


SUBSETS = {  # in the order of PETA.mat: by lower-cased name
    "3DPeS": Subset(1012, r"(\d+)_(?:B_)?(\d+)_FRAME_\d+_RGB\.bmp"),  # group 2 is a track
    "CAVIAR4REID": Subset(1220, r"(\d{4})_\d{3}\.jpg"),
    "CUHK": Subset(4563, r"(\d{4})\.png"),
    "GRID": Subset(1275, r"(\d{4})_(\d)_\d+_\d+_\d+_\d+_\d+\.jpeg"),
    "i-LID": Subset(477, r"(\d{4})_\d{3}\.jpg"),
    "MIT": Subset(888, r"(\d{5})_(?:male|female)_(?:fore|back)\.jpg"),
    "PRID": Subset(1134, r"(\d{4})_([ab])\.png"),
    "SARC3D": Subset(200, r"(\d{3})_(front|back|left|right)\.bmp"),
    "TownCentre": Subset(6967, r"(\d+)_\d+\.jpg"),
    "VIPeR": Subset(1264, r"(\d{3})_\d+_([12])\.bmp"),
}
_CAMERAS = {"a": 1, "b": 2, "front": 1, "back": 2, "left": 3, "right": 4}
_IMAGE_ENDINGS = (".bmp", ".jpg", ".jpeg", ".png")

_COLOURS = ("Black", "Blue", "Brown", "Green", "Grey", "Orange", "Pink", "Purple", "Red", "White", "Yellow")
COLOUR_ATTRIBUTES = tuple(
    part + colour for part in ("upperBody", "lowerBody", "hair", "footwear") for colour in _COLOURS
)
# Labelled, but not among the 35 that the field evaluates; the last four are in no column of PETA.mat.
_RARE = (
    "accessoryHeadphone personalLess15 carryingBabyBuggy hairBald footwearBoots lowerBodyCapri carryingShoppingTro "
    "carryingUmbrella personalFemale carryingFolder accessoryHairBand lowerBodyHotPants accessoryKerchief "
    "lowerBodyLongSkirt upperBodyLongSleeve lowerBodyPlaid lowerBodyThinStripes carryingLuggageCase upperBodyNoSleeve "
    "hairShort footwearStocking upperBodySuit carryingSuitcase lowerBodySuits upperBodySweater upperBodyThickStripes "
    "accessoryFaceMask lowerBodyLogo accessoryShawl lowerBodyThickStripes"
).split()
KNOWN_ATTRIBUTES = frozenset([*reid.PETA_ATTRIBUTES, *_RARE, *COLOUR_ATTRIBUTES])
_SPELLINGS = {"footwearSneakers": "footwearSneaker"}  # Label.txt's: PETA.mat's


class Image(NamedTuple):
    """One image of the release."""

    path: pathlib.Path
    subset: str
    local_id: int  # the person's number within the subset
    person_id: int  # 1 to 8699 over all of PETA, as in PETA.mat
    camera_id: int  # -1 where the file name gives none
    labels: frozenset[str]  # what Label.txt says of the person
    names: Sequence[str] = reid.PETA_ATTRIBUTES  # of the attributes that are wanted

    @property
    def file_name(self) -> str:
        return f"{self.subset}/{self.path.name}"

    @property
    def attributes(self) -> list[int]:
        """[A] of 1 or 0, whether each of `names` holds."""
        return [int(name in self.labels) for name in self.names]


def find_archives(raw_dir: str | os.PathLike) -> dict[str, pathlib.Path]:
    """Subset -> folder of its images, for what lies in `raw_dir` or up to two folders deeper.

    Raises:
      FileNotFoundError: no such folder, or none of the ten subsets in it.
    """
    raw_dir = pathlib.Path(raw_dir)
    if not raw_dir.is_dir():
        raise FileNotFoundError(f"No folder {raw_dir}; --raw_dir wants the one that PETA was unpacked into.")
    spelling = {name.lower(): name for name in SUBSETS}
    level = [raw_dir]
    for _ in range(3):
        for folder in level:
            found = {
                spelling[child.name.lower()]: child / "archive"
                for child in folder.iterdir()
                if child.name.lower() in spelling and (child / "archive" / "Label.txt").is_file()
            }
            if found:
                return {name: found[name] for name in SUBSETS if name in found}
        level = sorted(child for folder in level for child in folder.iterdir() if child.is_dir())
    raise FileNotFoundError(
        f"No PETA images in {raw_dir}; wanted is the folder that holds 'PETA dataset/VIPeR/archive/Label.txt' and the "
        "other nine subsets, as the official archive unpacks."
    )


def read_labels(path: pathlib.Path) -> dict[int, frozenset[str]]:
    """A Label.txt: person -> names of the attributes that hold, in PETA.mat's spelling.

    Raises:
      ValueError: an unknown attribute, a person twice or a line without a person's number.
    """
    people: dict[int, frozenset[str]] = {}
    for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        first, *names = line.split()
        person = first.split(".")[0]  # CUHK writes the file's name
        if not person.isdecimal():
            raise ValueError(
                f"{path}, line {number}: starts with {first!r}; wanted is a person's number or a file name."
            )
        if int(person) in people:
            raise ValueError(f"{path}, line {number}: person {first} comes a second time; keep one of the two lines.")
        names = [_SPELLINGS.get(name, name) for name in names]
        for name in names:
            if name not in KNOWN_ATTRIBUTES:
                raise ValueError(
                    f"{path}, line {number}: unknown attribute {name!r}; take Label.txt from the official release."
                )
        people[int(person)] = frozenset(names)
    return people


def read_images(archives: dict[str, pathlib.Path], names: Sequence[str] = reid.PETA_ATTRIBUTES) -> list[Image]:
    """All images with the attributes `names`, by subset and lower-cased file name: the order of PETA.mat's rows.

    Raises:
      ValueError: a file name outside the subset's grammar, or an image whose person Label.txt leaves out.
    """
    images, people_before = [], 0
    for subset, folder in archives.items():
        labels = read_labels(folder / "Label.txt")
        found = []
        for path in sorted(folder.iterdir(), key=lambda path: path.name.lower()):
            if path.name.startswith(".") or path.suffix.lower() not in _IMAGE_ENDINGS:
                continue
            match = re.fullmatch(SUBSETS[subset].name, path.name, re.IGNORECASE)
            if match is None:
                raise ValueError(f"{path} is not named as {subset}'s images are; remove it or restore its name.")
            person, camera = (*match.groups(), None)[:2]
            if int(person) not in labels:
                raise ValueError(f"{path} shows person {person}, who has no line in {folder / 'Label.txt'}.")
            camera_id = reid.UNKNOWN_CAMERA if camera is None else _CAMERAS.get(camera.lower()) or int(camera)
            found.append((path, int(person), camera_id))
        if not found:
            raise FileNotFoundError(f"{folder} holds a Label.txt but no images; unpack the official archive again.")
        # PETA.mat counts the people who have images, in the order of their numbers, on from the subset before.
        rank = {person: i for i, person in enumerate(sorted({person for _, person, _ in found}), people_before + 1)}
        people_before += len(rank)
        images += [Image(path, subset, person, rank[person], cam, labels[person], names) for path, person, cam in found]
    return images


class Table(NamedTuple):
    """PETA.mat."""

    ids: np.ndarray  # [N, 4] row, person 1..8699, subset 1..10, person within the subset
    labels: np.ndarray  # [N, 105] of 0 or 1
    names: list[str]  # [105]
    splits: list[dict[str, np.ndarray]]  # five times train, val, test: rows, from 0


def read_table(path: str | os.PathLike) -> Table:
    """PETA.mat (MATLAB 5).

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a MATLAB 5 file, or not PETA's.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"No file {path}; put PETA.mat, which holds the official splits, into --raw_dir or give --peta_mat=FILE."
        )
    try:
        peta = matlab.read(path, "peta")
        data = np.asarray(peta["data"], np.int64)
        names = [str(name) for name in peta["attribute"].ravel()]
        splits = [
            {name: np.asarray(cell[name], np.int64)[:, 0] - 1 for name in ("train", "val", "test")}
            for cell in peta["partion_attribute"].ravel()
        ]
    except Exception as error:  # a damaged file may hold anything in their place
        raise ValueError(f"{path} cannot be read as PETA.mat ({error}); take the original file again.") from error
    if data.ndim != 2 or data.shape[1] != 4 + len(names):
        raise ValueError(f"{path} has a table {data.shape} and {len(names)} attribute names; wanted is PETA.mat.")
    rows = np.concatenate([np.concatenate(list(split.values())) for split in splits])
    if rows.min() < 0 or rows.max() >= len(data):
        raise ValueError(f"{path} has splits that point outside its {len(data)} rows; take the original file again.")
    return Table(data[:, :4], data[:, 4:], names, splits)


def check_table(table: Table, images: list[Image]) -> None:
    """That row r of PETA.mat speaks of the r-th image: ids and every label.

    Raises:
      ValueError: the first row that does not.
    """
    if len(images) != len(table.ids):
        missing = [name for name in SUBSETS if name not in {image.subset for image in images}]
        raise ValueError(
            f"PETA.mat has {len(table.ids)} rows and the folders hold {len(images)} images"
            + (f" ({', '.join(missing)} missing)" if missing else "")
            + "; the official splits need all of them: unpack the release again."
        )
    subsets = list(SUBSETS)
    ids = np.array(
        [(i, im.person_id, subsets.index(im.subset) + 1, im.local_id) for i, im in enumerate(images, 1)]
    )  # [N, 4]
    labels = np.array([[name in image.labels for name in table.names] for image in images])  # [N, 105]
    wrong = np.flatnonzero((ids != table.ids).any(1) | (labels != table.labels).any(1))
    if wrong.size:
        row = wrong[0]
        raise ValueError(
            f"PETA.mat's row {row + 1} speaks of person {table.ids[row, 3]} of {subsets[table.ids[row, 2] - 1]} with "
            f"{table.labels[row].sum()} attributes, {images[row].file_name} is person {images[row].local_id} with "
            f"{labels[row].sum()} ({wrong.size} rows differ); a file is missing, added, or its label changed."
        )
