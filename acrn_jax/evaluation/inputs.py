"""What is ranked, whoever made it: arrays of any library and labels, under the same rules from a file or in a call.

Labels are integers: person_id 1 or more a person, 0 a distractor, -1 junk; camera_id -1 unknown. Floats without a
fraction (MATLAB's doubles) and texts of digits ("0042") are read as the integers that they spell; anything else is an
error. Features are real numbers of any type, up to 1e150; they score as in float64.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from acrn_jax.evaluation import protocols
from acrn_jax.schema import UNKNOWN, Labels

_PART = 1 << 14  # rows that are looked at at once
_LARGEST = 1e150  # feature whose square float64 holds


class Features(NamedTuple):
    """N images."""

    values: np.ndarray  # [N, D]
    labels: Labels  # [N]


class Search(NamedTuple):
    """What is to be ranked: features of query and gallery, or their distances; what a file does not hold is None."""

    query_labels: Labels  # [Q]
    gallery_labels: Labels  # [G]
    query: Any = None  # [Q, D] float
    gallery: Any = None  # [G, D]
    distances: Any = None  # [Q, G]
    boxes: Any = None  # Features [M, D] for multi-query


def as_array(values: Any, name: str) -> np.ndarray:
    """A numpy array of what is one, or a list, or an array on the CPU of another library (__array__, __dlpack__).

    Raises:
      TypeError: numpy cannot read it, a tensor on an accelerator, say.
      ValueError: rows of several lengths, or masked values.
    """
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values; leave those images out, or fill them in.")
    try:
        if hasattr(values, "__dlpack__") and not hasattr(values, "__array__"):
            values = np.from_dlpack(values)
        values = np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} is no array: its rows differ in length ({_first_sentence(error)}).") from error
    except (TypeError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"{name} is a {type(values).__name__} that numpy cannot read ({_first_sentence(error)}); give a plain "
            "array in the CPU's memory: of a torch tensor, tensor.detach().float().cpu()."
        ) from error
    # bfloat16 and the like, as JAX brings them to numpy
    extended = values.dtype.kind == "V" and values.dtype.names is None and "float" in values.dtype.name
    return values.astype(np.float32) if extended else values


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")[:120]


def plain(value: Any) -> Any:
    """A label without what is around it: a cell of one number, the type bytes."""
    value = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if isinstance(value, bytes):
        return str(value, "latin-1")
    whole = isinstance(value, int | float) and not isinstance(value, bool) and value == math.trunc(value)
    return str(int(value)) if whole else value


def spells(value: Any) -> bool:
    """Whether a value is the text of an integer."""
    return isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 16


def integers(values: Any, name: str) -> np.ndarray:
    """Labels [N] int64, given as [N], [1, N] or [N, 1]; ValueError for what spells no integers."""
    values = np.atleast_1d(values)  # the label of one image may come alone
    if values.ndim != 1 and not (values.ndim == 2 and 1 in values.shape):
        raise ValueError(f"{name} is {list(values.shape)}; give one label for each row of features.")
    values = values.ravel()
    if not values.size:
        raise ValueError(f"{name} is empty; an evaluation wants at least one image in query and gallery.")
    wanted = "labels are integers (floats without a fraction and texts of digits are read as such)"
    if values.dtype.kind in "iuf":
        good = (values == np.trunc(values)) & (np.abs(values.astype(np.float64)) <= 2**53)  # not NaN, not infinite
        found = np.where(good, values, 0).astype(np.int64)
    elif values.dtype.kind in "USO":
        texts = [plain(value) for value in values.tolist()]
        good = np.array([spells(text) for text in texts])
        found = np.array([int(v) if right else 0 for v, right in zip(texts, good, strict=True)], np.int64)
    else:
        raise ValueError(f"{name} is of type {values.dtype}; {wanted}.")
    if not good.all():
        row = int(np.argmin(good))
        raise ValueError(f"{name} row {row} is {str(values.tolist()[row])[:40]!r}; {wanted}.")
    return found


def features(values: Any, count: int, name: str, label_name: str = "") -> np.ndarray:
    """Features [N, D], checked part by part: a memory-mapped file stays one."""
    values = numbers(values, name, "[N, D]")
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} rows, but {label_name} has {count} labels; they must agree.")
    for start in range(0, len(values), _PART):
        part = values[start : start + _PART]
        good = (np.isfinite(part) if part.dtype.itemsize < 8 else np.abs(part) <= _LARGEST).all(axis=1)
        if not good.all():
            row = start + int(np.argmin(good))
            raise ValueError(f"{name} row {row} holds NaN, an infinity or a number beyond {_LARGEST:g}.")
    return values


def distances(values: Any, query: Labels, gallery: Labels, name: str) -> np.ndarray:
    values = numbers(values, name, "[Q, G]")
    wanted = (len(query.person_id), len(gallery.person_id))
    if values.shape != wanted:
        raise ValueError(
            f"{name} is {list(values.shape)}, but there are {wanted[0]} query and {wanted[1]} gallery labels."
        )
    return values


def numbers(values: Any, name: str, wanted: str) -> np.ndarray:
    values = np.asanyarray(values)
    if values.ndim != 2 or values.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {values.dtype} {list(values.shape)}; real numbers {wanted} are wanted.")
    if not values.size:
        raise ValueError(f"{name} is empty, {list(values.shape)}; an evaluation wants at least one image.")
    return values


def check_width(query: np.ndarray, other: np.ndarray, name: str, other_name: str) -> None:
    if query.shape[1] != other.shape[1]:
        raise ValueError(
            f"{name} has {query.shape[1]} values an image, {other_name} has {other.shape[1]}; take both from one net."
        )


def labels(person: Any, camera: Any, person_name: str, camera_name: str) -> Labels:
    """Labels of one set of images; camera None: every camera is unknown."""
    people = integers(as_array(person, person_name), person_name)
    if camera is None:
        return Labels(people, np.full(len(people), UNKNOWN))
    cameras = integers(as_array(camera, camera_name), camera_name)
    if len(cameras) != len(people):
        raise ValueError(f"{person_name} has {len(people)} labels, but {camera_name} has {len(cameras)}.")
    return Labels(people, cameras)


def search(distances_or_features: Any, q_pids: Any, g_pids: Any, q_camids: Any = None, g_camids: Any = None) -> Search:
    """The arrays of a call as a `Search`.

    Args:
      distances_or_features: [Q, G], or a pair of [Q, D] and [G, D].
      q_pids: [Q].
      g_pids: [G].
      q_camids: [Q], or None.
      g_camids: [G], or None.

    Raises:
      TypeError: not to be read as arrays.
      ValueError: shapes, labels or numbers that cannot be ranked; one sentence.
    """
    query, gallery = labels(q_pids, q_camids, "q_pids", "q_camids"), labels(g_pids, g_camids, "g_pids", "g_camids")
    if (q_camids is None) != (g_camids is None):
        raise ValueError("Camera ids are given of query or gallery alone; give those of both, or none.")
    if isinstance(distances_or_features, tuple | list) and len(distances_or_features) == 2:
        first, second = (
            as_array(x, name)
            for x, name in zip(distances_or_features, ("query features", "gallery features"), strict=True)
        )
        if first.ndim != 1 or second.ndim != 1:  # else these are two rows of distances
            first = features(first, len(query.person_id), "query features", "q_pids")
            second = features(second, len(gallery.person_id), "gallery features", "g_pids")
            check_width(first, second, "query features", "gallery features")
            return Search(query, gallery, first, second)
    values = as_array(distances_or_features, "distances")
    return Search(query, gallery, distances=distances(values, query, gallery, "distances"))


def check(search: Search, protocol: protocols.Protocol) -> None:
    """Raises ValueError where the protocol does not fit what is to be ranked, before anything is computed."""
    query, gallery = search.query_labels, search.gallery_labels
    protocol.check(query, gallery)
    if _nothing_excluded(search, protocol) and np.array_equal(search.query, search.gallery):
        raise ValueError(
            f"Query and gallery features are the same, so every query would find itself first under {protocol.name}; "
            "choose all_vs_all, which leaves it out."
        )
    if protocol.one_set and not np.array_equal(search.query, search.gallery):
        raise ValueError(f"{protocol.name} ranks a set against itself, but query and gallery features differ.")
    cameras = np.unique(gallery.camera_id)
    one = len(cameras) == 1 and cameras[0] != UNKNOWN
    if protocol.excluded is protocols.MARKET1501.excluded and one and cameras[0] in query.camera_id:
        first = int(np.argmax(query.camera_id == cameras[0]))
        raise ValueError(
            f"Query {first} is of camera {cameras[0]}, and so is every gallery image: under {protocol.name} there is "
            "nothing to find; check the camera ids, or choose multi_shot (all_vs_all for a set against itself)."
        )


def same_pictures(search: Search, protocol: protocols.Protocol) -> list[str]:
    """A hint where queries have a right gallery image with the very features of theirs, which nothing leaves out."""
    if not _nothing_excluded(search, protocol):
        return []
    query, gallery = (
        list(zip(labels.person_id.tolist(), (np.asarray(row, np.float64).tobytes() for row in rows), strict=True))
        for labels, rows in ((search.query_labels, search.query), (search.gallery_labels, search.gallery))
    )
    there = set(map(hash, gallery))
    twins = sum(hash(image) in there for image in query)
    if not twins:
        return []
    return [
        f"{twins} of {len(query)} queries have a gallery image of their person with the very same features, which "
        f"{protocol.name} counts as right: where it is the same picture, leave it out of the gallery."
    ]


def _nothing_excluded(search: Search, protocol: protocols.Protocol) -> bool:
    return protocol.excluded is protocols.MULTI_SHOT.excluded and search.query is not None
