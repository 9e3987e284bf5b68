"""Nets that ship: folders of a net's weights and card, known by name wherever a run's workdir is asked for.

They lie in acrn_jax/nets/NAME, or in the folder that the environment variable ACRN_NETS names. Nothing is ever written
into them. acrn_jax/export/net_file.py has their format.
"""

import difflib
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from acrn_jax import COMMAND
from acrn_jax.data import source
from acrn_jax.export import net_file

VARIABLE = "ACRN_NETS"
DEFAULT = "acrn-small"  # of verbs that are given no --workdir


def homes() -> list[Path]:
    """Folders of nets, the package's own first."""
    given = os.environ.get(VARIABLE)
    return [Path(__file__).parents[1] / "nets", *([Path(given).expanduser()] if given else [])]


def known() -> dict[str, Path]:
    """Name -> folder of each net; of two of one name the package's own."""
    found: dict[str, Path] = {}
    for home in homes():
        for card in sorted(home.glob(f"*/{net_file.CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def default() -> Path:
    """The name of the net that verbs take where none is named.

    Raises:
      FileNotFoundError: it is not there.
    """
    if DEFAULT not in known():
        raise FileNotFoundError(
            f"There is no net {DEFAULT}, which is taken where none is named; name a trained run or a net with --workdir"
            f" ({COMMAND} models lists the nets that are there), or put it into a folder that {VARIABLE} names."
        )
    return Path(DEFAULT)


def is_net(folder: str | Path) -> bool:
    """Whether a folder holds a net that ships, and no run."""
    return (Path(folder) / net_file.CARD).is_file() and not (Path(folder) / "config.json").is_file()


def place(folder: str | Path) -> Path:
    """The folder that a path or the name of a net means; what exists is a path. An unknown one stays as it is."""
    path = Path(folder)
    if path.exists() or len(path.parts) != 1:
        return path
    return known().get(path.name, path)


def hint(folder: str | Path) -> str:
    """What to say after a path that holds nothing: which nets it might have meant, or nothing."""
    path = Path(folder)
    if path.exists() or len(path.parts) != 1 or not (names := list(known())):
        return ""
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    if near:
        return f" Did you mean the net {' or '.join(near)}?"
    return f" Nets that are known by name: {', '.join(names)} ({COMMAND} models)."


def refuse_to_write(folder: Path, flag: str = "--out") -> None:
    """ValueError where results would go into the folder of a net."""
    for place in (folder, *folder.parents):
        if is_net(place):
            raise ValueError(f"{place} is a net that ships, into which nothing is written; name a folder with {flag}.")


def card(folder: str | Path) -> dict[str, Any]:
    """card.json of a net; see net_file.read_card for what is refused."""
    return net_file.read_card(Path(folder))


def state(folder: Path) -> dict[str, Any]:
    """The values of a net as a checkpoint holds them: nested dicts of float32."""
    values, _ = _read(folder)
    about = card(folder)
    tree: dict[str, Any] = traverse_util.unflatten_dict(dict(values), sep="/")
    scales = about.get("scales") or {}
    return {
        "step": np.array(about["step"], np.int32),  # arrays, as checkpoints want them
        "params": tree["params"],
        "batch_stats": tree.get("batch_stats", {}),
        "scales": {name: np.array(scales.get(name, 0), np.float32) for name in ("feature", "attribute")},
        "opt": {},
    }


def trained_on(folder: Path) -> np.ndarray:
    """Digests of the images that a net was trained on, see `digests`."""
    return _read(folder)[1]


def digests(split: source.Split) -> np.ndarray:
    """[N] int64, the first 8 bytes of the SHA-256 of each image's file: an image is known by them in any data set."""
    found = [hashlib.sha256(split.image_bytes(i)).digest()[:8] for i in range(len(split))]
    return np.frombuffer(b"".join(found), "<i8").astype(np.int64)


def _read(folder):
    return net_file.read(Path(folder), card(folder))


def weights(folder: Path) -> np.ndarray:
    """[A] the attribute weights that a net's distances use."""
    about = card(folder)
    return np.array([about["weights"][name] for name in about["attribute_names"]], np.float32)
