"""PETA: 35 attributes of 19,000 pedestrian images from ten collections, seven of which also serve re-identification."""

import csv
import hashlib
import os
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.peta import partition as partition_file
from acrn_jax.data_prep.peta import release

OFFICIAL_SPLITS = 5
REID_SUBSETS = {  # config: (subset, protocol)
    "reid_grid": ("GRID", "market1501"),
    "reid_viper": ("VIPeR", "single_shot"),
    "reid_prid": ("PRID", "single_shot"),
    "reid_3dpes": ("3DPeS", "market1501"),
    "reid_ilid": ("i-LID", "single_shot"),
    "reid_caviar4reid": ("CAVIAR4REID", "single_shot"),
    "reid_sarc3d": ("SARC3D", "market1501"),
}
TRIALS = "reid_grid_trial"  # configs _0 to _9: GRID's official trials
ZERO_SHOT = "zero_shot"  # configs _0 to _4: the runs of PETAzs, from a file that the user has
WHOLE = ("reid_viper_whole", "reid_prid_whole")  # nobody trains, all are tested: nets of other sets are looked at here
TRIALS_FILE = pathlib.Path(__file__).parent / "grid_trials.txt"
GRID_PEOPLE = 250  # whom two cameras saw
SPLIT_SEEDS = 10  # configs reid_SUBSET_0 to _9; without a number the seed is --seed, 0 by default
ROLES = ("train", "query", "gallery", "distractor")


def config_names() -> list[str]:
    return (
        [f"random_{i}" for i in range(OFFICIAL_SPLITS)]
        + ["disjoint", *REID_SUBSETS, *WHOLE]
        + [f"{name}_{seed}" for name in (*REID_SUBSETS, TRIALS) for seed in range(SPLIT_SEEDS)]
        + [f"{ZERO_SHOT}_{i}" for i in range(OFFICIAL_SPLITS)]
    )


class Builder(reid.ContentsBuilder):
    """PETA (Deng et al., "Pedestrian Attribute Recognition At Far Distance", ACM Multimedia 2014)."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First."}
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in config_names()]

    def read(self, **options) -> reid.Contents:
        return read(self.builder_config.name, **options)


def read(
    config: str,
    *,
    raw_dir: str | os.PathLike,
    peta_mat: str | os.PathLike | None = None,
    split_file: str | os.PathLike | None = None,
    partition: str | os.PathLike | None = None,
    seed: int | None = None,
    colours: bool = False,
) -> reid.Contents:
    """What one config holds.

    Args:
      config: one of `config_names()`.
      raw_dir: folder that holds "PETA dataset", or that folder itself.
      peta_mat: PETA.mat, for the `random_` configs; PETA.mat in or below `raw_dir` by default.
      split_file: for the `reid_` configs, a CSV `path,role` in place of the drawn split.
      partition: for the `zero_shot_` configs, the file of indices; see partition.py.
      seed: of the drawn splits (`disjoint` and `reid_`), 0 by default.
      colours: whether the 44 colours of clothes, shoes and hair follow the 35 attributes.

    Raises:
      ValueError: an option that the config does not take, or input that is not as released.
      FileNotFoundError: missing folder or file.
    """
    kind, _, number = config.rpartition("_") if config[-1].isdigit() else (config, "", "")
    if split_file is not None and kind not in REID_SUBSETS:
        raise ValueError(f"--split_file is for the reid_ configs; {config} has its own splits.")
    if (partition is None) == (kind == ZERO_SHOT):
        raise ValueError(
            f"{config} wants --partition=FILE, the indices of the published split (data_prep/peta/README.md)."
            if partition is None
            else f"--partition is for the {ZERO_SHOT}_ configs; {config} has its own splits."
        )
    if seed is not None and (number or kind in WHOLE or split_file is not None):
        raise ValueError(
            f"--seed={seed} has no effect here: {config} and a split file each fix the split; leave it out."
        )
    archives = release.find_archives(raw_dir)
    names = reid.PETA_ATTRIBUTES + (release.COLOUR_ATTRIBUTES if colours else ())
    about: dict = {"attribute_names": names}
    if kind == "random":
        images = release.read_images(archives, names)
        table = release.read_table(peta_mat or _find_table(pathlib.Path(raw_dir)))
        release.check_table(table, images)
        splits = {split: [_example(images[row]) for row in rows] for split, rows in table.splits[int(number)].items()}
        about |= {"protocol": "attributes", "official_split": int(number), "subsets": list(archives)}
    elif kind == ZERO_SHOT:
        images = release.read_images(archives, names)
        rows_of = partition_file.read(str(partition), images)
        splits = {split: [_example(images[row]) for row in rows] for split, rows in rows_of.items()}
        digest = hashlib.sha256(pathlib.Path(str(partition)).read_bytes()).hexdigest()
        about |= {"protocol": "attributes", "subsets": list(archives), "partition_sha256": digest}
    elif kind == "disjoint":
        images = release.read_images(archives, names)
        splits = disjoint_splits(images, seed=seed or 0)
        about |= {"protocol": "attributes", "seed": seed or 0, "subsets": list(archives)}
    else:
        subset, protocol = REID_SUBSETS[kind.removesuffix("_trial").removesuffix("_whole")]
        if subset not in archives:
            raise FileNotFoundError(f"{config} needs {subset}/archive, and {raw_dir} has {', '.join(archives)} alone.")
        images = release.read_images({subset: archives[subset]}, names)
        about |= {"protocol": protocol, "subsets": [subset]}
        if kind == TRIALS:
            about["official_trial"] = int(number)
            splits = trial_splits(images, int(number))
        elif kind in WHOLE:
            splits = whole_splits(images, subset)
        elif split_file is not None:
            splits = read_split_file(split_file, images)
            about["split_file_sha256"] = hashlib.sha256(pathlib.Path(split_file).read_bytes()).hexdigest()
        else:
            about["seed"] = int(number or seed or 0)
            splits = reid_splits(images, subset, seed=about["seed"])
    expected = sum(
        release.SUBSETS[name].images for name in (about["subsets"] if kind.startswith("reid_") else release.SUBSETS)
    )
    short = [] if len(images) == expected else [f"{len(images):,} images, officially {expected:,}"]
    return reid.Contents(splits, about, shortfall=short)


def disjoint_splits(images: list[release.Image], *, seed: int) -> dict[str, list[reid.Example]]:
    """Train, val and test with half, a tenth and the rest of the images, and nobody in two of them."""
    people, count = np.unique([image.person_id for image in images], return_counts=True)  # [P] each
    order = np.random.default_rng(seed).permutation(len(people))
    share = np.cumsum(count[order]) / len(images)  # [P] of all images, up to and with this person
    which = np.searchsorted((0.5, 0.6), share, side="left")  # [P] 0 train, 1 val, 2 test
    split_of = dict(zip(people[order].tolist(), which.tolist(), strict=True))
    return {
        split: [_example(image) for image in images if split_of[image.person_id] == i]
        for i, split in enumerate(("train", "val", "test"))
    }


def reid_splits(images: list[release.Image], subset: str, *, seed: int) -> dict[str, list[reid.Example]]:
    """Train, query and gallery: half the people who can be found again train, the others test; see the README.

    GRID, VIPeR, PRID and SARC3D: the query is a person's first camera (lowest number), the gallery the others. 3DPeS:
    the query is one of a person's tracks, drawn; the gallery holds the others. i-LID and CAVIAR4REID: one image, drawn,
    is the gallery's, the others are queries. People of GRID and PRID seen by one camera are the gallery's distractors,
    except PRID's from camera a, who are left out.
    """
    of_person, single = _people(images, subset)
    generator = np.random.default_rng(seed)
    people = generator.permutation(sorted(of_person.keys() - set(single))).tolist()
    return _roles(of_person, single, subset, set(people[: len(people) // 2]), generator)


def whole_splits(images: list[release.Image], subset: str) -> dict[str, list[reid.Example]]:
    """Query and gallery of VIPeR or PRID with all people: camera a asks, and the gallery is all of camera b.

    Of PRID camera a's people are queries where camera b saw them too; its others are left out.
    """
    of_person, single = _people(images, subset)
    splits = _roles(of_person, single, subset, set(), np.random.default_rng(0))  # which draws nothing
    return {split: splits[split] for split in ("query", "gallery")}


def trial_splits(images: list[release.Image], trial: int) -> dict[str, list[reid.Example]]:
    """Train, query and gallery of GRID's official trial, from 0: who trains is listed, the rest is as in `reid_splits`.

    Raises:
      ValueError: the images are not those of the people whom the trials count.
    """
    of_person, single = _people(images, "GRID")
    for person, own in of_person.items():
        if (person in single) == (1 <= person <= GRID_PEOPLE):
            seen = "one camera" if person in single else "several cameras"
            raise ValueError(
                f"{own[0].path} shows person {person}, whom {seen} saw; the official trials are of a release in which "
                f"several saw people 1 to {GRID_PEOPLE} and one each of the others: take GRID from PETA again."
            )
    return _roles(of_person, single, "GRID", grid_trials()[trial], np.random.default_rng(0))  # which draws nothing


def grid_trials() -> list[set[int]]:
    """Who trains in each of GRID's ten official trials, 125 people each; the other 125 of 1 to 250 are tested."""
    lines = (line for line in TRIALS_FILE.read_text().splitlines() if not line.startswith("#"))
    return [{int(number) for number in line.split()} for line in lines]


def _people(images: list[release.Image], subset: str) -> tuple[dict[int, list[release.Image]], list[int]]:
    """Person -> images, and who can be nobody's match: people of GRID and PRID whom one camera saw."""
    of_person: dict[int, list[release.Image]] = {}
    for image in images:
        of_person.setdefault(image.local_id, []).append(image)
    single = []
    if subset in ("GRID", "PRID"):
        single = [person for person, own in of_person.items() if len({image.camera_id for image in own}) == 1]
    return of_person, single


def _roles(
    of_person: dict[int, list[release.Image]],
    single: list[int],
    subset: str,
    trained: set[int],
    generator: np.random.Generator,
) -> dict[str, list[reid.Example]]:
    """Train, query and gallery, where `trained` are the people who train; some sub-sets draw with `generator`."""
    people = sorted(of_person.keys() - set(single))
    splits = {"train": [im for p in people if p in trained for im in of_person[p]], "query": [], "gallery": []}
    for person in (person for person in people if person not in trained):
        own = of_person[person]
        cameras = sorted({image.camera_id for image in own})
        if subset in ("i-LID", "CAVIAR4REID"):
            shown = int(generator.integers(len(own)))
            queries = [image for i, image in enumerate(own) if i != shown]
        elif subset == "3DPeS":
            asked = generator.choice(cameras) if len(cameras) > 1 else None
            queries = [image for image in own if image.camera_id == asked]
        else:
            queries = [image for image in own if image.camera_id == cameras[0]]
        splits["query"] += queries
        splits["gallery"] += [image for image in own if image not in queries]
    distractors = [im for person in single for im in of_person[person] if subset == "GRID" or im.camera_id == 2]
    found = {split: [_example(image, local=True) for image in chosen] for split, chosen in splits.items()}
    found["gallery"] += [_example(image, local=True)._replace(person_id=reid.DISTRACTOR) for image in distractors]
    return found


def read_split_file(path: str | os.PathLike, images: list[release.Image]) -> dict[str, list[reid.Example]]:
    """Train, query and gallery as a CSV `path,role` gives them.

    A path is SUBSET/NAME, or NAME; images that the file does not list are left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: a missing column, an unknown path or role, an image twice, a person in train and test, an empty split.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No split file {path}; wanted is a CSV with the columns path,role.")
    by_name = {image.path.name: image for image in images}
    roles: dict[str, dict[str, release.Image]] = {role: {} for role in ROLES}
    seen: dict[str, int] = {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if missing := {"path", "role"} - set(rows.fieldnames or ()):
            raise ValueError(f"{path} has the columns {rows.fieldnames}; {', '.join(sorted(missing))} missing.")
        for row in rows:
            where, role, name = (
                f"{path}, line {rows.line_num}",
                row["role"],
                pathlib.PurePosixPath(row["path"] or "").name,
            )
            if role not in ROLES:
                raise ValueError(f"{where}: unknown role {role!r}; there are {', '.join(ROLES)}.")
            if name not in by_name or row["path"] not in (name, by_name[name].file_name):
                raise ValueError(
                    f"{where}: no image {row['path']!r} in {images[0].subset}; paths look like {images[0].file_name}."
                )
            if name in seen:
                raise ValueError(f"{where}: {name} was in line {seen[name]} already; list each image once.")
            seen[name] = rows.line_num
            roles[role][name] = by_name[name]
    for role in ("train", "query", "gallery"):
        if not roles[role]:
            raise ValueError(f"{path} gives no image the role {role}; train, query and gallery each need some.")
    tested = {image.local_id for role in ("query", "gallery") for image in roles[role].values()}
    for name, image in roles["train"].items():
        if image.local_id in tested:
            raise ValueError(f"{path}: person {image.local_id} ({name}) is in train and in the test roles; choose one.")
    splits = {r: [_example(image, local=True) for image in roles[r].values()] for r in ("train", "query", "gallery")}
    splits["gallery"] += [
        _example(image, local=True)._replace(person_id=reid.DISTRACTOR) for image in roles["distractor"].values()
    ]
    return splits


def _find_table(raw_dir: pathlib.Path) -> pathlib.Path:
    """PETA.mat in `raw_dir`, or in one folder of it."""
    return next(iter([*raw_dir.glob("PETA.mat"), *raw_dir.glob("*/PETA.mat")]), raw_dir / "PETA.mat")


def _example(image: release.Image, *, local: bool = False) -> reid.Example:
    """`local`: number people within the subset, from 1 (VIPeR counts from 0)."""
    person = image.local_id + (image.subset == "VIPeR") if local else image.person_id
    return reid.Example(image.path, image.file_name, person, image.camera_id, image.attributes)
