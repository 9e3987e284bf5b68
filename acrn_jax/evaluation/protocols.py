"""Named protocols: which gallery images a query is ranked against, and which data a protocol fits.

Common to all: a gallery image with person_id -1 (junk) is in nobody's ranking, one with person_id 0 (distractor) is
wrong for everybody, an image of the query's person is right unless the protocol leaves it out, every other one is
wrong.

| name | left out of the images of the query's person | fits |
| --- | --- | --- |
| market1501 | those of the query's camera | Market-1501, DukeMTMC-reID, MSMT17, any set with known cameras |
| market1501_multi_query | the same, with features from `multi_query` | Market-1501 with gt_bbox |
| cuhk03_new | the same, with the view as camera | CUHK03 in its 767/700 split |
| cuhk03_single_shot | the same, and all but the images drawn (below) | CUHK03's 20 splits, any set of two views |
| cuhk03_torchreid, cuhk03_open_reid | the same; rank k over drawn images | the same, to compare with two libraries |
| single_shot | none | VIPeR, PRID, i-LID: one gallery image for each query's person |
| multi_shot | none | sets of one camera, or of unknown ones: several gallery images for a query's person |
| all_vs_all | the query itself, by index | a set ranked against itself, whatever its cameras |

An image that is both query and gallery is never in its own ranking, whatever the protocol, where keys tell which one
that is (`without_itself`): in the sets of a run, but not in files of features, which have no keys.

Three protocols draw, and give means and deviations over `repeats` draws; rank lists show all images:

  cuhk03_single_shot  one probe of everybody in the probe view against one image of everybody in the other view, both
                      drawn anew in each repeat; probe_view both: either way round, then averaged. The paper's protocol.
                      One image is right, so mAP_precision is the mean reciprocal rank
  cuhk03_torchreid    every image is a query; rank k is over one gallery image a person, drawn anew for each query from
                      those not left out. Both average precisions and mINP are over all images that are not left out
  cuhk03_open_reid    the same, rank k without all images of the query's camera, other people's too

A person without an image in the other view is a query without a match. Distractors are drawn as a person each.

Source: Li et al., "DeepReID", CVPR 2014, for single shot; the evaluators of KaiyangZhou/deep-person-reid (its
use_metric_cuhk03) and Cysu/open-reid (its "cuhk03" CMC) for the other two.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np

from acrn_jax.schema import JUNK, UNKNOWN, Labels, unknown

PROBE_VIEWS = ("1", "2", "both")


class Draws(NamedTuple):
    """Rankings of one gallery image a person, drawn anew in each round; a repeat is one or more rounds."""

    rounds: int
    probes: np.ndarray  # [Q] bool, which queries can be drawn
    # query -> its rankings, as numbers of rounds [n] and gallery images [n, P]
    of: Callable[[int], list[tuple[np.ndarray, np.ndarray]]]


class Protocol(NamedTuple):
    """A rule by which queries are ranked against a gallery."""

    name: str
    # (query, gallery, rows [n], columns [n]) -> bool [n]: which of these pairs of one person the ranking leaves out
    excluded: Callable[[Labels, Labels, np.ndarray, np.ndarray], np.ndarray]
    check: Callable[[Labels, Labels], None]  # raises ValueError where the data does not fit
    draw: Callable[[Labels, Labels, "Protocol"], Draws] | None = None  # None: all gallery images are ranked
    all_shot_precision: bool = True  # average precision and mINP are over all images, even if rank k is over drawn ones
    repeats: int | None = None  # of draws
    seed: int | None = None  # of draws
    probe_view: str | None = None  # 1: the view with the lower camera id, 2: the other, or both
    one_set: bool = False  # query and gallery are the same images in the same order

    @property
    def options(self) -> dict[str, Any]:
        """The options that this protocol has."""
        values = {name: getattr(self, name) for name in ("repeats", "seed", "probe_view")}
        return {name: value for name, value in values.items() if value is not None}


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
    for key, values in labels._asdict().items():
        if values.min() < JUNK:
            raise ValueError(
                f"{name} {key} row {int(np.argmin(values))} is {values.min()}; persons are 1 or more, distractors 0 "
                "and junk -1, cameras 0 or more and unknown ones -1."
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


def telling_cameras(labels: Labels) -> np.ndarray | None:
    """Camera ids [N], or None where they tell no views of a person apart: one is unknown, or nobody is seen by two."""
    seen = np.unique(np.stack(labels)[:, labels.person_id > 0], axis=1)[0]  # a person as often as cameras show one
    return labels.camera_id if cameras_known(labels) and len(seen) > len(np.unique(seen)) else None


def multi_query(features: np.ndarray, boxes: Labels, query: Labels) -> np.ndarray:
    """Query features of `market1501_multi_query`.

    Args:
      features: [M, D] of all boxes (gt_bbox); they are averaged as they are, without normalisation.
      boxes: who is on them, [M].
      query: [Q].

    Returns:
      [Q, D] float64, the mean feature of all boxes with the query's person and camera.

    Raises:
      ValueError: a query has no box.
    """
    means = np.empty((len(query.person_id), features.shape[1]))
    for i, (person, camera) in enumerate(zip(*query, strict=True)):
        own = (boxes.person_id == person) & (boxes.camera_id == camera)
        if not own.any():
            raise ValueError(
                f"multi_query: query {i} (person {person}, camera {camera}) has no box; give the whole gt_bbox folder."
            )
        means[i] = features[own].mean(axis=0, dtype=np.float64)
    return means


def _same_camera(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return query.camera_id[rows] == gallery.camera_id[columns]


def _check_cameras(query: Labels, gallery: Labels) -> None:
    for name, labels in (("query", query), ("gallery", gallery)):
        if not cameras_known(labels):
            unknown = np.sum((labels.camera_id == UNKNOWN) & (labels.person_id > 0))
            raise ValueError(
                f"The protocol leaves out images of a query's camera, but {unknown} of {len(labels.camera_id)} "
                f"{name} images have no camera (-1); choose the protocol multi_shot, single_shot or all_vs_all."
            )


def _check_single_shot(query: Labels, gallery: Labels) -> None:
    people, counts = np.unique(gallery.person_id[gallery.person_id > 0], return_counts=True)
    several = np.isin(people, query.person_id) & (counts > 1)
    if several.any():
        first = int(np.argmax(several))
        raise ValueError(
            f"single_shot wants one gallery image of each query's person, but person {people[first]} has "
            f"{counts[first]}; choose multi_shot, or market1501 where cameras are known, or keep one image a person."
        )


def _check_same_set(query: Labels, gallery: Labels) -> None:
    if not all(np.array_equal(q, g) for q, g in zip(query, gallery, strict=True)):
        raise ValueError(
            f"all_vs_all ranks one set against itself, but the labels of {len(query.person_id)} query and "
            f"{len(gallery.person_id)} gallery images differ; give the same images, in the same order, as both, "
            "or choose multi_shot."
        )


def _nothing(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return np.zeros(len(rows), bool)


def _itself(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows == columns


def _views(query: Labels, gallery: Labels) -> np.ndarray:
    return np.unique(np.concatenate([labels.camera_id[labels.person_id != JUNK] for labels in (query, gallery)]))


def _check_two_views(query: Labels, gallery: Labels) -> None:
    _check_cameras(query, gallery)
    views = _views(query, gallery)
    if len(views) != 2:
        raise ValueError(
            f"The protocols of CUHK03 want images of two views, but query and gallery are of {len(views)} camera ids "
            f"({', '.join(map(str, views[:6]))}); choose market1501, or multi_shot for one camera."
        )


def _identity(labels: Labels) -> np.ndarray:
    """[N] person ids; whoever shows nobody is somebody of his own."""
    return np.where(labels.person_id > 0, labels.person_id, -1 - np.arange(len(labels.person_id)))


def _one_each(
    candidates: np.ndarray, identity: np.ndarray, generator: np.random.Generator, repeats: int = 1
) -> np.ndarray:
    """Draws one of each identity's candidates, indices [n]: [repeats, P]."""
    candidates = candidates[np.argsort(identity[candidates], kind="stable")]
    _, first, count = np.unique(identity[candidates], return_index=True, return_counts=True)
    return candidates[first + generator.integers(count, size=(repeats, len(count)))]


def _draw_pairs(query: Labels, gallery: Labels, protocol: Protocol) -> Draws:
    """Probes and gallery of cuhk03_single_shot; a round is one direction of a repeat."""
    views = _views(query, gallery)
    probe_views = [0, 1] if protocol.probe_view == "both" else [PROBE_VIEWS.index(protocol.probe_view)]
    identity, shown, drawn = _identity(gallery), gallery.person_id != JUNK, {}
    for number, (repeat, view) in enumerate(itertools.product(range(protocol.repeats), probe_views)):
        generator = np.random.default_rng((protocol.seed, repeat, view))
        candidates = np.flatnonzero(query.camera_id == views[view])
        others = np.flatnonzero((gallery.camera_id == views[1 - view]) & shown)
        if not candidates.size or not others.size:
            raise ValueError(
                f"{protocol.name} from view {view + 1} to the other has {candidates.size} queries and {others.size} "
                "gallery images; set probe_view to the other view, or give query and gallery images of both."
            )
        columns = _one_each(others, identity, generator)
        for probe in _one_each(candidates, query.person_id, generator)[0]:
            drawn.setdefault(probe, []).append((np.array([number]), columns))
    probes = np.isin(query.camera_id, views[probe_views])
    return Draws(protocol.repeats * len(probe_views), probes, lambda i: drawn.get(i, []))


def _draw_gallery(query: Labels, gallery: Labels, protocol: Protocol, *, other_camera: bool) -> Draws:
    """Gallery images of the two libraries' readings; a round is a repeat, and each query has its own draw in it."""
    identity = _identity(gallery)
    order = np.argsort(identity, kind="stable")
    order = order[gallery.person_id[order] != JUNK]
    person, camera = gallery.person_id[order], gallery.camera_id[order]

    def of(i: int) -> list[tuple[np.ndarray, np.ndarray]]:
        kept = camera != query.camera_id[i]
        if not other_camera:
            kept |= person != query.person_id[i]
        generator = np.random.default_rng((protocol.seed, i))
        return [(np.arange(cast(int, protocol.repeats)), _one_each(order[kept], identity, generator, protocol.repeats))]

    return Draws(protocol.repeats, np.ones(len(query.person_id), bool), of)


# Source: Zheng et al., "Scalable Person Re-identification: A Benchmark", ICCV 2015, and its evaluation code.
MARKET1501 = Protocol("market1501", _same_camera, _check_cameras)
SINGLE_SHOT = Protocol("single_shot", _nothing, _check_single_shot)
MULTI_SHOT = Protocol("multi_shot", _nothing, lambda query, gallery: None)
ALL_VS_ALL = Protocol("all_vs_all", _itself, _check_same_set, one_set=True)
CUHK03_SINGLE_SHOT = Protocol(
    "cuhk03_single_shot", _same_camera, _check_two_views, _draw_pairs, False, repeats=10, seed=0, probe_view="both"
)
CUHK03_TORCHREID = Protocol(
    "cuhk03_torchreid",
    _same_camera,
    _check_two_views,
    functools.partial(_draw_gallery, other_camera=False),
    repeats=10,
    seed=0,
)
CUHK03_OPEN_REID = CUHK03_TORCHREID._replace(
    name="cuhk03_open_reid", draw=functools.partial(_draw_gallery, other_camera=True)
)
PROTOCOLS = {  # all that there are, by name; an entry adds one to calls, configs, flags and messages
    protocol.name: protocol
    for protocol in (
        MARKET1501,
        MARKET1501._replace(name="market1501_multi_query"),
        MARKET1501._replace(name="cuhk03_new", check=_check_two_views),
        CUHK03_SINGLE_SHOT,
        CUHK03_TORCHREID,
        CUHK03_OPEN_REID,
        SINGLE_SHOT,
        MULTI_SHOT,
        ALL_VS_ALL,
    )
}


def without_itself(protocol: Protocol, query: np.ndarray, gallery: np.ndarray) -> Protocol:
    """The protocol in which, too, no image is in its own ranking.

    Args:
      protocol: any.
      query: keys of the images [Q], which say which image is the same.
      gallery: keys [G].
    """
    _, numbers = np.unique(np.concatenate([query, gallery]), return_inverse=True)
    of_query, of_gallery = np.split(numbers, [len(query)])

    def excluded(query: Labels, gallery: Labels, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return protocol.excluded(query, gallery, rows, columns) | (of_query[rows] == of_gallery[columns])

    return protocol._replace(excluded=excluded)


def named(name: str, *, repeats: int = 10, seed: int = 0, probe_view: str = "both") -> Protocol:
    """The protocol of that name; the options are for those that draw (probe_view: cuhk03_single_shot).

    Raises:
      ValueError: no such protocol (lists them), or an option out of range.
    """
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    if repeats < 1 or seed < 0 or probe_view not in PROBE_VIEWS:
        raise ValueError(
            f"A protocol draws with repeats >= 1, seed >= 0 and probe_view {', '.join(PROBE_VIEWS)}; got {repeats}, "
            f"{seed} and {probe_view!r}."
        )
    protocol, options = PROTOCOLS[name], {"repeats": repeats, "seed": seed, "probe_view": probe_view}
    return protocol._replace(**{key: options[key] for key in protocol.options})
