"""Named protocols: which gallery images a query is ranked against, and which data a protocol fits.

Common to all: a gallery image with person_id -1 (junk) is in nobody's ranking, one with person_id 0 (distractor) is
wrong for everybody, an image of the query's person is right unless the protocol leaves it out, every other one is
wrong.

| name | left out of the images of the query's person | fits |
| --- | --- | --- |
| market1501 | those of the query's camera | Market-1501, DukeMTMC-reID, MSMT17, any set with known cameras |
| market1501_multi_query | the same, with features from `multi_query` | Market-1501 with gt_bbox |
| cuhk03_new | the same, with the view as camera | CUHK03 in its 767/700 split |
| single_shot | none | VIPeR, PRID, i-LID: one gallery image for each query's person |
| all_vs_all | the query itself, by index | a set ranked against itself, whatever its cameras |
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from acrn_jax.schema import UNKNOWN, Labels


class Protocol(NamedTuple):
    """A rule by which queries are ranked against a gallery."""

    name: str
    # (query, gallery, rows [n], columns [n]) -> bool [n]: which of these pairs of one person the ranking leaves out
    left_out: Callable[[Labels, Labels, np.ndarray, np.ndarray], np.ndarray]
    check: Callable[[Labels, Labels], None]  # raises ValueError where the data does not fit


def check_labels(labels: Labels, name: str) -> Labels:
    """Labels as two integer arrays [N], N >= 1.

    Raises:
      ValueError: empty, other shapes, or no integers.
    """
    labels = Labels(*(np.asarray(values) for values in labels))
    for key, values in labels._asdict().items():
        if values.ndim != 1 or values.size == 0 or values.dtype.kind not in "iu":
            raise ValueError(
                f"{name} {key} is {values.dtype} {list(values.shape)}; give one integer for each of at least one image."
            )
    if labels.person_id.shape != labels.camera_id.shape:
        raise ValueError(
            f"{name} has {len(labels.person_id)} person_id and {len(labels.camera_id)} camera_id; they must agree."
        )
    return labels


def same_person(query: Labels, gallery: Labels) -> Callable[[slice], tuple[np.ndarray, np.ndarray]]:
    """Finds pairs of one person: block of queries -> rows [n], columns [n], ordered by row, then column."""
    order = np.argsort(gallery.person_id, kind="stable")  # [G]
    people = gallery.person_id[order]

    def pairs(block: slice) -> tuple[np.ndarray, np.ndarray]:
        person = query.person_id[block]
        first = np.searchsorted(people, person)
        count = np.searchsorted(people, person, side="right") - first  # [q]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        rows = np.repeat(np.arange(len(query.person_id))[block], count)
        return rows, order[np.repeat(first, count) + within]

    return pairs


def cameras_known(labels: Labels) -> bool:
    """Whether every image that shows a person has a camera."""
    return not np.any((labels.camera_id == UNKNOWN) & (labels.person_id > 0))


def multi_query(features: np.ndarray, boxes: Labels, query: Labels) -> np.ndarray:
    """Query features of `market1501_multi_query`.

    Args:
      features: [M, D] of all boxes (gt_bbox); they are averaged as they are, without normalisation.
      boxes: who is on them, [M].
      query: [Q].

    Returns:
      [Q, D] float32, the mean feature of all boxes with the query's person and camera.

    Raises:
      ValueError: a query has no box.
    """
    means = np.empty((len(query.person_id), features.shape[1]), np.float32)
    for i, (person, camera) in enumerate(zip(*query, strict=True)):
        mine = (boxes.person_id == person) & (boxes.camera_id == camera)
        if not mine.any():
            raise ValueError(
                f"multi_query: query {i} (person {person}, camera {camera}) has no box; give the whole gt_bbox folder."
            )
        means[i] = features[mine].mean(axis=0, dtype=np.float64)
    return means


def _same_camera(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return query.camera_id[rows] == gallery.camera_id[columns]


def _check_cameras(query: Labels, gallery: Labels) -> None:
    for name, labels in (("query", query), ("gallery", gallery)):
        if not cameras_known(labels):
            unknown = np.sum((labels.camera_id == UNKNOWN) & (labels.person_id > 0))
            raise ValueError(
                f"The protocol leaves out images of a query's camera, but {unknown} of {len(labels.camera_id)} "
                f"{name} images have no camera (-1); choose the protocol single_shot or all_vs_all."
            )


def _check_single_shot(query: Labels, gallery: Labels) -> None:
    people, counts = np.unique(gallery.person_id[gallery.person_id > 0], return_counts=True)
    several = np.isin(people, query.person_id) & (counts > 1)
    if several.any():
        first = int(np.argmax(several))
        raise ValueError(
            f"single_shot wants one gallery image of each query's person, but person {people[first]} has "
            f"{counts[first]}; choose market1501 (cameras known) or all_vs_all, or keep one image a person."
        )


def _check_same_set(query: Labels, gallery: Labels) -> None:
    if not all(np.array_equal(q, g) for q, g in zip(query, gallery, strict=True)):
        raise ValueError(
            f"all_vs_all ranks one set against itself, but the labels of {len(query.person_id)} query and "
            f"{len(gallery.person_id)} gallery images differ; give the same images, in the same order, as both."
        )


def _nothing(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), bool)


def _itself(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows == columns


# Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and its evaluation code.
MARKET1501 = Protocol("market1501", _same_camera, _check_cameras)
SINGLE_SHOT = Protocol("single_shot", _nothing, _check_single_shot)
ALL_VS_ALL = Protocol("all_vs_all", _itself, _check_same_set)
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        MARKET1501,
        MARKET1501._replace(name="market1501_multi_query"),
        MARKET1501._replace(name="cuhk03_new"),
        SINGLE_SHOT,
        ALL_VS_ALL,
    )
}


def named(name: str) -> Protocol:
    """The protocol of that name, or a ValueError that lists them."""
    if name not in PROTOCOLS:
        raise ValueError(f"There is no protocol {name!r}; choose one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
