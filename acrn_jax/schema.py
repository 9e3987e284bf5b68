"""The contract between modules: what a batch, a net's output and a set of labels look like. Knows numpy alone.

A batch is a dict of arrays; B images of H x W pixels, A attributes:

| key | type | meaning |
| --- | --- | --- |
| image | uint8 [B, H, W, 3] | pixels 0 to 255; the train step normalises them on the device |
| person | int32 [B] | index of the person among the training people, 0 to people - 1 |
| camera_id | int32 [B] | camera, -1 unknown |
| attributes | int8 [B, A] | 1 yes, 0 no, -1 unknown (phase mva) |
| probabilities | float32 [B, A] | attributes as the frozen attribute net sees them (phase reid) |
| valid | bool [B] | false on rows that only fill the last batch of an evaluation |
"""

import difflib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

JUNK, DISTRACTOR = -1, 0  # person_id: neither right nor wrong; always wrong
UNKNOWN = -1  # camera_id, attribute

METHODS = (
    "ReIdCNN",
    "Attributes",
    "Attributes-KISSME",
    "ReIdCNN+Attributes",
    "ACRN",
    "Attributes-weighted",
    "ReIdCNN+Attributes-tuned",
    "ReIdCNN+Attributes-weighted",
)


class Labels(NamedTuple):
    """Who is on N images, and seen by which camera."""

    person_id: np.ndarray  # [N] int
    camera_id: np.ndarray  # [N] int


class Outputs(NamedTuple):
    """What a net returns; what it does not compute is None. Arrays of the accelerator."""

    feature: Any = None  # [B, D] what ranking compares
    trained_feature: Any = None  # [B, D] what the triplet loss sees (differs from feature for bnneck)
    identity_logits: Any = None  # [B, people]
    attribute_logits: Any = None  # [B, A]


def unknown(kind: str, name: Any, known: Iterable[str]) -> ValueError:
    """The error about a name that no table has; the nearest known one comes first."""
    known = list(known)
    near = difflib.get_close_matches(str(name).lower(), known, n=1, cutoff=0.4)
    nearest = f"did you mean {near[0]}? Known are" if near else "choose one of"
    return ValueError(f"There is no {kind} {name!r}; {nearest} {', '.join(known)}.")
