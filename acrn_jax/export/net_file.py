"""A trained net as two files of a folder: weights.safetensors, half as large as in training, and card.json.

The card says what the net is, what it was trained on and by, how well it does, and the SHA-256 of the weights.
docs/models.md lists its keys.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from acrn_jax import COMMAND, files

NAME, VERSION = "acrn_jax net", 1
CARD, WEIGHTS = "card.json", "weights.safetensors"
KINDS = ("attributes", "reid", "acrn")
KEYS = ("format", "name", "kind", "config", "attribute_names", "made_of", "step", "values", "sha256")  # in every card
LIMIT = 4 * 2**20  # bytes of a file
TRAINED_ON = "trained_on"  # int64 [N], see `digest_of`; all else in the file are values of the net
_HALF = np.finfo(np.float16)


def rounded(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Values as they are stored: float16, but float32 where that would not hold them.

    Those are arrays with a number beyond its range, and variances (named .../var) below its normal numbers: what is
    divided by their root would be far off, while a weight that small adds nothing.
    """
    return {name: value if _too_wide(name, value) else value.astype(np.float16) for name, value in values.items()}


def _too_wide(name, value):
    size = np.abs(value[value != 0])
    small = name.endswith("/var") and size.size and size.min() < _HALF.smallest_normal
    return bool(small or (size.size and size.max() > _HALF.max))


def write(
    folder: Path, values: Mapping[str, np.ndarray], trained_on: np.ndarray, *, large: bool = False
) -> dict[str, Any]:
    """Writes weights.safetensors and returns what the card says of it: sha256 and bytes.

    Args:
      folder: that exists.
      values: of the net by name, float32.
      trained_on: digests of the images that it was trained on, int64 [N].
      large: a file of more than LIMIT bytes is meant.

    Raises:
      ValueError: a value is not finite, or the file is too large.
    """
    if wrong := [name for name, value in values.items() if not np.isfinite(value).all()]:
        raise ValueError(f"{wrong[0]} holds values that are not finite; such a net says nothing, so it is not written.")
    content = save(rounded(values) | {TRAINED_ON: np.unique(trained_on)}, {"format": f"{NAME} {VERSION}"})
    if len(content) > LIMIT and not large:
        raise ValueError(
            f"{WEIGHTS} would have {len(content) / 2**20:.1f} MiB, more than the {LIMIT // 2**20} MiB that a net is to "
            "have that goes into the package; train a narrower one (--config.model.width), or pass --large."
        )
    files.write_bytes(folder / WEIGHTS, content)
    return {"sha256": files.sha256(folder / WEIGHTS), "bytes": len(content)}


def read_card(folder: Path) -> dict[str, Any]:
    """card.json of a net.

    Raises:
      FileNotFoundError: there is none.
      ValueError: damaged, of a newer format, or no card.
    """
    card = files.read_json(folder / CARD, "format")
    name, _, version = str(card["format"]).rpartition(" ")
    if name != NAME or not version.isdigit():
        raise ValueError(f"{folder / CARD} is of format {card['format']!r}; {f'{NAME} {VERSION}'!r} is wanted.")
    if int(version) > VERSION:
        raise ValueError(
            f"{folder / CARD} is of format {card['format']!r}, newer than {f'{NAME} {VERSION}'!r}, which this version "
            "of acrn_jax reads; update acrn_jax."
        )
    card = files.read_json(folder / CARD, *KEYS)
    if card["kind"] not in KINDS:
        raise ValueError(f"{folder / CARD} says kind {card['kind']!r}; known: {', '.join(KINDS)}.")
    return card


def check(folder: Path, card: Mapping[str, Any]) -> None:
    """Holds the weights against the card.

    Raises:
      FileNotFoundError: they are not there.
      ValueError: they are not those that the card is of.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing beside its {CARD}; copy the whole folder again.")
    if (found := files.sha256(file)) != card["sha256"]:
        size = f"{file.stat().st_size:,} bytes, sha256 {found[:12]}"
        raise ValueError(
            f"{file} is damaged, or of another net: it has {size}, and {CARD} says {card.get('bytes', 0):,} bytes, "
            f"{str(card['sha256'])[:12]}; copy the folder again ({COMMAND} models --verify looks at all)."
        )


def read(folder: Path, card: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(values of the net by name, float32; digests of the images that it was trained on), after `check`."""
    check(folder, card)
    try:
        found = load((folder / WEIGHTS).read_bytes())
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is no file of safetensors ({error}); export the run again.") from error
    trained_on = found.pop(TRAINED_ON)
    return {name: value.astype(np.float32) for name, value in found.items()}, trained_on
