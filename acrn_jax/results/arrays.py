"""What evaluate and ablate leave in a workdir as arrays: the scores of each query or image."""

import os
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from acrn_jax import COMMAND


def _read_arrays(path: str | os.PathLike, verb: str) -> dict[str, np.ndarray]:
    again = f"run {COMMAND} {verb} again"
    try:
        with np.load(path, allow_pickle=False) as kept:
            arrays = dict(kept)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"There is no {path}; {again}.") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is not what {verb} writes, a file of arrays ({error}); {again}.") from error
    if "person_id" not in arrays:
        raise ValueError(
            f"{Path(path).parent} was evaluated by an older version, whose files lack people; evaluate it again."
        )
    count = len(arrays["person_id"])
    if odd := [name for name, values in arrays.items() if values.shape != (count,)]:
        raise ValueError(
            f"{path} is not what {verb} writes: {odd[0]} has shape {arrays[odd[0]].shape} for {count} people; {again}."
        )
    return arrays


class PerQuery(NamedTuple):
    """per_query.npz: each query's scores, method -> metric -> [Q]; those that are not `counted` have no match.

    `first_rank` is the rank of the first right image, method -> [Q]; older files do not have it.
    """

    key: np.ndarray  # [Q] str, of the image
    person_id: np.ndarray  # [Q]
    counted: np.ndarray  # [Q] bool
    scores: Mapping[str, Mapping[str, np.ndarray]]
    first_rank: Mapping[str, np.ndarray] = types.MappingProxyType({})

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Raises FileNotFoundError or ValueError, with a sentence that names the file."""
        arrays = _read_arrays(path, "evaluate")
        person_id, key, counted = (arrays.pop(name, None) for name in ("person_id", "key", "counted"))
        scores: dict[str, dict[str, np.ndarray]] = {}
        for name, values in arrays.items():
            method, _, metric = name.rpartition("/")
            scores.setdefault(method, {})[metric] = values
        first_rank = {method: of.pop("first_rank") for method, of in scores.items() if "first_rank" in of}
        if person_id is None or key is None or counted is None or "" in scores:
            raise ValueError(
                f"{path} is not what evaluate writes: key, person_id, counted and METHOD/METRIC are wanted; "
                f"run {COMMAND} evaluate again."
            )
        return cls(key, person_id, counted, scores, first_rank)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is written, by name."""
        scores = {f"{method}/{metric}": v for method, of in self.scores.items() for metric, v in of.items()}
        ranks = {f"{method}/first_rank": values for method, values in self.first_rank.items()}
        return {"key": self.key, "person_id": self.person_id, "counted": self.counted, **scores, **ranks}


class PerImage(NamedTuple):
    """per_image.npz of an attribute net: each test image's scores, metric -> [N]."""

    person_id: np.ndarray  # [N]
    scores: Mapping[str, np.ndarray]

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """Raises FileNotFoundError or ValueError, with a sentence that names the file."""
        arrays = _read_arrays(path, "ablate")
        return cls(arrays.pop("person_id"), arrays)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What is written, by name."""
        return {"person_id": self.person_id, **self.scores}
