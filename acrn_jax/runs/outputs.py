"""What a net says about a split: computed once, kept in a file, known by one stamp.

The stamp is of the values that really speak (their average where config.ema keeps one) and of the split's images. A
file of another stamp is never taken; it is written anew.
"""

import dataclasses
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from acrn_jax.data import source
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs import workdir
from acrn_jax.train import parallel

NAMES = {"feature": "feature", "attribute_logits": "logits"}  # output -> its name in a file


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What an attribute net says about the records of one split."""

    key: np.ndarray  # [N] str
    logits: np.ndarray  # [N, A] float32
    names: tuple[str, ...]  # [A]

    def of(self, split: source.Split, representation: str) -> np.ndarray:
        """Attributes of the split's records, joined by key, float32 [N, A]."""
        place = {key: i for i, key in enumerate(self.key)}
        missing = [key for key in split.key if key not in place]
        if missing:
            raise ValueError(
                f"The stored attribute predictions lack {len(missing)} records of {split.name}, e.g. {missing[0]}."
            )
        return REPRESENTATIONS[representation](self.logits[[place[key] for key in split.key]])


def kept(
    compute: Callable[[], dict[str, np.ndarray]], split: source.Split, stamp: str, files: Sequence[Path]
) -> dict[str, np.ndarray]:
    """Outputs of a net for a split, from the first of the files that has them, else computed and kept in files[0].

    Args:
      compute: gives the outputs, name -> [N, ...].
      split: of N images.
      stamp: of the net and the split.
      files: the first is written, the others are looked into alone.
    """
    for file in dict.fromkeys(files):
        if parallel.broadcast(parallel.is_primary() and stamp_of(file) == stamp):
            with np.load(file, allow_pickle=False) as stored:
                # Older files hold what search kept under the output's own name.
                names = [(name, kept) for name, own in NAMES.items() for kept in (own, name) if kept in stored.files]
                return {name: stored[kept] for name, kept in names}
    if parallel.is_primary() and files[0].exists():
        print(f"{files[0]} is of another net or data set; computing it anew.", flush=True)
    found = compute()
    arrays = {known: found[name] for name, known in NAMES.items() if name in found}
    workdir.write_arrays(files[0], key=split.key, stamp=stamp, **arrays)
    return found


def stamp_of(file: Path) -> str | None:
    """What a kept file of arrays is of; None where there is none that can be read."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return str(stored["stamp"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
