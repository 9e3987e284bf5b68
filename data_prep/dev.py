"""Dev configs: a data set's training half alone, split anew by people, to choose and compare on without the test half.

A fold's people are tested and all others train. The folds are disjoint slices of one permutation of the people, so
they depend on neither names nor order of files. CUHK03, which has no such half, is split
as a whole. All numbers are drawn with NumPy's default generator.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from acrn_jax.data_prep import reid

FOLDS, SEED = 5, 0
NAMES = tuple(f"dev_{fold}" for fold in range(FOLDS))


def fold_of(config: str) -> int | None:
    """The fold of a config named dev_N or ..._dev_N; None for any other."""
    match = re.fullmatch(r"(?:.+_)?dev_(\d+)", config, re.ASCII)
    return int(match[1]) if match else None


def tested(people: Iterable[int], fold: int, *, most: int | None = None) -> set[int]:
    """Who is tested in a fold: a FOLDS-th of the people, `most` at most.

    Raises:
      ValueError: fewer people than folds.
    """
    order = np.random.default_rng(SEED).permutation(sorted(set(people)))
    size = min(len(order) // FOLDS, most or len(order))
    if not size:
        raise ValueError(f"{len(order)} people are too few for {FOLDS} dev folds; give the whole training half.")
    return set(order[size * fold : size * (fold + 1)].tolist())


def query_and_gallery(
    examples: Sequence[reid.Example], *, seed: int = SEED
) -> tuple[list[reid.Example], list[reid.Example]]:
    """One image of each person and camera asks and the others are the gallery.

    Where the gallery shows the person in no other camera, the query joins it; so does the first of two lone images,
    and the second one asks. Which image asks depends on the seed and the names of that person's images in that camera
    alone.

    Raises:
      ValueError: nobody is seen by two cameras.
    """
    seen: dict[tuple[int, int], list[reid.Example]] = {}
    for example in sorted(examples, key=lambda e: (e.person_id, e.camera_id, e.file_name)):
        seen.setdefault((example.person_id, example.camera_id), []).append(example)
    asking, gallery = {}, []
    for who, images in seen.items():
        drawn = int(np.random.default_rng([seed, *who]).integers(len(images)))
        asking[who] = images[drawn]
        gallery += images[:drawn] + images[drawn + 1 :]
    cameras: dict[int, set[int]] = {}
    for example in gallery:
        cameras.setdefault(example.person_id, set()).add(example.camera_id)
    query = []
    for (person, camera), example in asking.items():
        if cameras.get(person, set()) - {camera}:
            query.append(example)
        else:
            cameras.setdefault(person, set()).add(camera)
            gallery.append(example)
    if not query:
        raise ValueError(f"None of {len(cameras)} people tested is seen by two cameras, so nothing can be scored.")
    return query, gallery


def contents(
    half: Sequence[reid.Example],
    fold: int,
    about: Mapping[str, object],
    *,
    official: reid.Counts,
    faults: Sequence[str] = (),
) -> reid.Contents:
    """What a dev config holds: `train`, `query` and `gallery`, all of the training half.

    Args:
      half: all images of the training half.
      fold: which, from 0.
      about: metadata but for `marks`.
      official: how much the whole training half holds; other numbers make the set partial.
      faults: of the files; where there are any, nothing is split.

    Raises:
      ValueError: too few people, or nobody to score.
    """
    if faults:
        return reid.Contents({"train": list(half)}, {**about, **marks(fold)}, faults=faults)
    chosen = tested((example.person_id for example in half), fold)
    query, gallery = query_and_gallery([example for example in half if example.person_id in chosen])
    train = [example for example in half if example.person_id not in chosen]
    found = reid.Contents({"training half": list(half)}, {}, {"training half": official})
    splits = {"train": train, "query": query, "gallery": gallery}
    return reid.Contents(splits, {**about, **marks(fold)}, shortfall=found.short(), faults=faults)


def marks(fold: int) -> dict:
    """What metadata says of a dev config; results on it then say that they are no official numbers."""
    return {"dev": True, "dev_fold": fold, "dev_seed": SEED}
