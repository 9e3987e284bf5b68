"""Scores of each query of evaluated runs in one small file that can be published, so that intervals can be recomputed.

It holds no images and no paths: what results.json says of each run, and for each query and method the average precision
and the rank of the first right image.

    ./launch.sh report --workdir=W/seed_0,W/seed_1 --evidence=market1501_dev.npz
    ./launch.sh ablate --study=methods --on=market1501_dev.npz
"""

import json
import os
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from acrn_jax import COMMAND
from acrn_jax.evaluation.metrics import RANKS
from acrn_jax.results import PerQuery, Results
from acrn_jax.runs import workdir

ENDING = ".npz"
_CMC = tuple(f"rank{k}" for k in RANKS)
Arrays = dict[str, dict[str, np.ndarray]]  # method -> metric -> [Q]


def write(workdirs: Sequence[str | os.PathLike], path: str | os.PathLike) -> list[str]:
    """Writes the scores of evaluated runs, none of which may be of the same data set, split and seed as another.

    Args:
      workdirs: runs.
      path: of the file, which ends in .npz.

    Returns:
      The runs' names in the file, DATASET/CONFIG/seed_N.

    Raises:
      FileNotFoundError: a run is not evaluated.
      ValueError: two runs of one name, a run evaluated by a version that kept no first ranks, or another ending.
    """
    path, arrays, origin = pathlib.Path(path), {}, {}
    if path.suffix != ENDING:
        raise ValueError(f"A file of evidence ends in {ENDING}, not {path.name!r}.")
    for folder in map(pathlib.Path, workdirs):
        about, scored = Results.read(folder / "results.json"), PerQuery.read(folder / "per_query.npz")
        name = f"{about.dataset}/seed_{about.seeds.get('seed', about.config.get('seed', 0))}"
        if name in origin:
            raise ValueError(f"{origin[name]} and {folder} are both {name}; one file holds one run of each.")
        if missing := [method for method in scored.scores if method not in scored.first_rank]:
            raise ValueError(f"{folder} has no first ranks of {missing[0]}; run {COMMAND} evaluate again.")
        origin[name] = folder
        arrays[f"{name}|about"] = np.array(json.dumps(_without_places(about.to_json())))
        arrays |= {f"{name}|person_id": scored.person_id.astype(np.int32), f"{name}|counted": scored.counted}
        for method, scores in scored.scores.items():
            arrays[f"{name}|{method}|mAP_precision"] = scores["mAP_precision"].astype(np.float32)
            arrays[f"{name}|{method}|first_rank"] = scored.first_rank[method].astype(np.int32)
            if any(np.any(scores[metric] % 1) for metric in _CMC):  # means over drawn galleries
                arrays |= {f"{name}|{method}|{metric}": scores[metric].astype(np.float32) for metric in _CMC}
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_arrays(path, **arrays)
    return list(origin)


def read(path: str | os.PathLike) -> dict[str, tuple[Results, PerQuery]]:
    """Run's name -> what results.json says of it, its methods' scores, of the metrics mAP_precision and rank k.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is no such file, or damaged.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(f"There is no file {path}; {COMMAND} report --evidence=FILE writes one.")
    try:
        with np.load(path, allow_pickle=False) as kept:
            entries = dict(kept)
        runs: dict[str, dict[str, np.ndarray]] = {}
        for entry, values in entries.items():
            name, _, rest = entry.partition("|")
            runs.setdefault(name, {})[rest] = values
        return {name: _run(of) for name, of in runs.items()}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is no file that {COMMAND} report --evidence=FILE writes ({error}).") from error


def _run(of: dict[str, np.ndarray]) -> tuple[Results, PerQuery]:
    about = Results.parse(json.loads(str(of.pop("about"))))
    person_id, counted = of.pop("person_id"), of.pop("counted")
    scores: Arrays = {}
    for entry, values in of.items():
        method, _, metric = entry.partition("|")
        scores.setdefault(method, {})[metric] = values.astype(np.float64 if metric != "first_rank" else values.dtype)
    first = {method: found.pop("first_rank") for method, found in scores.items()}
    for method, found in scores.items():
        for k, metric in zip(RANKS, _CMC, strict=True):
            found.setdefault(metric, np.where(counted, (first[method] > 0) & (first[method] <= k), 0).astype(float))
    key = np.array([f"query {i}" for i in range(len(person_id))])
    return about, PerQuery(key, person_id, counted, scores, first)


def _without_places(tree: Any) -> Any:
    """The tree with only the last part of each path, which says nothing to others."""
    if isinstance(tree, Mapping):
        return {key: _without_places(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_without_places(value) for value in tree]
    return pathlib.PurePath(tree).name if isinstance(tree, str) and tree.startswith(("/", "../", "~")) else tree
