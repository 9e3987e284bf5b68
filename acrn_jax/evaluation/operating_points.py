"""Operating points: how often a threshold on the distance is right, for pairs (ROC) and for a watch list (DIR).

A pair is accepted where its distance is below the threshold. Genuine pairs show one person and are not left out by the
protocol; impostor pairs show two, distractors included, junk not. No pair is sampled and none is sorted: thresholds
are exact order statistics of all Q x G distances, found digit by digit in two passes over them (four for float64).

Source: Phillips, Grother and Micheals, "Evaluation Methods in Face Recognition", Handbook of Face Recognition, 2011,
where the watch list is open-set identification.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from acrn_jax.evaluation import protocols, ranking
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import JUNK, Labels

RATES = (1e-4, 1e-3, 1e-2, 1e-1)
_DIGIT = 16  # bits of a distance that one pass settles
_PIECE = 1 << 17  # distances that are counted at once: they stay in the cache


class Roc(NamedTuple):
    """Pairs accepted at thresholds; rates are fractions in [0, 1]."""

    threshold: np.ndarray  # [n] accept a distance below it; inf accepts all
    fpr: np.ndarray  # [n] accepted share of impostor pairs
    tpr: np.ndarray  # [n] accepted share of genuine pairs
    genuine: int  # pairs
    impostor: int

    def __str__(self) -> str:
        rows = zip(self.fpr, self.tpr, self.threshold, strict=True)
        lines = [f"FPR {fpr:<9.3g} TPR {100 * tpr:5.1f} %  distance below {at:.6g}" for fpr, tpr, at in rows]
        return "\n".join([f"{self.genuine:,} genuine and {self.impostor:,} impostor pairs", *lines])


class Identification(NamedTuple):
    """Watch list at thresholds; rates are fractions in [0, 1]."""

    threshold: np.ndarray  # [n]
    far: np.ndarray  # [n] share of strangers that any gallery image accepts
    dir: dict[int, np.ndarray]  # k -> [n] share of listed queries whose person is accepted and among the first k images
    listed: int  # queries with a right gallery image
    strangers: int  # queries whose person is not in the gallery
    excluded: int  # queries of listed people whose right images the protocol all leaves out; they count nowhere


def roc(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
    fpr: Sequence[float] = RATES,
) -> Roc:
    """The largest thresholds that accept no more than the wanted shares of impostor pairs.

    Args:
      distances: see `ranking.evaluate`; asked for several times, with the same answer each time.
      query: [Q].
      gallery: [G].
      protocol: what is left out.
      fpr: wanted false positive rates (false alarm rates) in [0, 1]; a fine grid of them draws the curve.

    Raises:
      ValueError: as `ranking.evaluate`; a rate is not in [0, 1], or there is no genuine or no impostor pair.
    """
    query, gallery = ranking._check(query, gallery, protocol)
    wanted = _check_rates(fpr)
    genuine: list[np.ndarray] = []

    def impostors():
        genuine.clear()
        for right, wrong in _pairs(distances, query, gallery, protocol):
            genuine.append(right)
            yield wrong

    total = _impostors(query, gallery)
    allowed = _allowed(wanted, total)
    threshold, below = _order_statistics(impostors, np.minimum(allowed, total - 1))
    threshold, below = np.where(allowed < total, threshold, np.inf), np.where(allowed < total, below, total)
    right = np.sort(np.concatenate(genuine))
    if not right.size:
        raise ValueError(f"No query has a right gallery image under {protocol.name}; do both come from one data set?")
    return Roc(threshold, below / total, np.searchsorted(right, threshold) / right.size, right.size, total)


def rates(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    threshold: Sequence[float] | np.ndarray,
    *,
    protocol: protocols.Protocol,
) -> Roc:
    """What given thresholds accept, e.g. those that `roc` chose on other people; arguments as there."""
    query, gallery = ranking._check(query, gallery, protocol)
    threshold = np.atleast_1d(np.asarray(threshold, np.float64))
    accepted, genuine = np.zeros((2, len(threshold)), np.int64), 0
    for right, wrong in _pairs(distances, query, gallery, protocol):
        accepted += [[np.count_nonzero(values < t) for t in threshold] for values in (right, wrong)]
        genuine += right.size
    total = _impostors(query, gallery)
    if not genuine:
        raise ValueError(f"No query has a right gallery image under {protocol.name}; do both come from one data set?")
    return Roc(threshold, accepted[1] / total, accepted[0] / genuine, genuine, total)


def identification(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
    far: Sequence[float] = RATES,
    ranks: Sequence[int] = (1,),
) -> Identification:
    """Detection and identification rates of an open-set gallery, a watch list, at wanted false alarm rates.

    A stranger raises a false alarm where any valid gallery image is nearer than the threshold. A listed person is
    found at rank k where an image of theirs is nearer than the threshold and among the k nearest valid images; of equal
    distances the lower index comes first.

    Args:
      distances: see `ranking.evaluate`.
      query: [Q]; person_id 0 is a stranger, as is everybody whom the gallery does not show.
      gallery: [G] the watch list; distractors (0) are on it too.
      protocol: what is left out; not all_vs_all.
      far: wanted false alarm rates in [0, 1].
      ranks: the k.

    Raises:
      ValueError: as `ranking.evaluate`; a rate is not in [0, 1], or there is no stranger or nobody who is listed.
    """
    query, gallery = protocols.check_labels(query, "query"), protocols.check_labels(gallery, "gallery")
    if protocol.one_set:
        raise ValueError(f"{protocol.name} ranks a set against itself, which is no watch list; choose market1501.")
    protocol.check(query, gallery)
    wanted = _check_rates(far)
    if np.any(query.person_id < 0):
        raise ValueError(f"Query {int(np.argmax(query.person_id < 0))} is junk (person_id -1); leave such queries out.")
    total, nobody = len(query.person_id), max(query.person_id.max(), gallery.person_id.max()) + 1
    query = Labels(np.where(query.person_id == 0, nobody, query.person_id), query.camera_id)  # not the distractors
    kept = gallery.person_id != JUNK
    nearest, own, rank = np.full(total, np.inf), np.full(total, np.inf), np.full(total, ranking.NO_RANK)
    stranger = ~np.isin(query.person_id, gallery.person_id)
    for block, rows, columns, excluded, matrix in _blocks(distances, query, gallery, protocol):
        matrix[:, ~kept] = np.inf
        nearest[block] = matrix.min(axis=1)
        rows, columns = rows[~excluded], columns[~excluded]
        order = np.lexsort((columns, matrix[rows - block.start, columns], rows))
        listed, first = np.unique(rows[order], return_index=True)
        column, row = columns[order][first], matrix[listed - block.start]
        own[listed] = row[np.arange(len(listed)), column]
        before = row < own[listed, None]
        before |= (row == own[listed, None]) & (np.arange(row.shape[1]) < column[:, None])
        rank[listed] = 1 + before.sum(axis=1)
    listed = rank != ranking.NO_RANK
    if not stranger.any() or not listed.any():
        raise ValueError(
            f"A watch list wants queries of both sorts; {stranger.sum()} of {total} show a person who is not in the "
            f"gallery and {listed.sum()} have a right gallery image under {protocol.name}."
        )
    alarms, allowed = np.sort(nearest[stranger]), _allowed(wanted, int(stranger.sum()))
    threshold = np.append(alarms, np.inf)[allowed]
    found = {k: np.mean((own[listed] < threshold[:, None]) & (rank[listed] <= k), axis=1) for k in ranks}
    false = np.searchsorted(alarms, threshold) / alarms.size
    return Identification(threshold, false, found, int(listed.sum()), alarms.size, int(np.sum(~listed & ~stranger)))


def _check_rates(wanted: Sequence[float]) -> np.ndarray:
    values = np.asarray(wanted, np.float64)
    if values.ndim != 1 or not values.size or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"Wanted rates are {values.tolist()}; give at least one, each in [0, 1].")
    return values


def _allowed(rate: np.ndarray, total: int) -> np.ndarray:
    """How many of all may be accepted; a rate like 0.29 of 100 is 29 although the product is a little less."""
    return np.floor(rate * total * (1 + 1e-12)).astype(np.int64)


def _impostors(query: Labels, gallery: Labels) -> int:
    """Number of impostor pairs, at least one."""
    people, count = np.unique(gallery.person_id, return_counts=True)
    place = np.minimum(np.searchsorted(people, query.person_id), len(people) - 1)
    same = np.sum(count[place] * (people[place] == query.person_id))
    total = len(query.person_id) * int(np.sum(gallery.person_id != JUNK)) - int(same)
    if not total:
        raise ValueError("The gallery shows nobody but the query's person; a false alarm is impossible.")
    return total


def _blocks(distances, query: Labels, gallery: Labels, protocol: protocols.Protocol):
    return ranking._blocks(distances, query, gallery, protocol, "skip", np.ones(len(query.person_id), bool))


def _pairs(
    distances: np.ndarray | DistanceFn, query: Labels, gallery: Labels, protocol: protocols.Protocol
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields distances of genuine [n] and impostor [m] pairs, block by block."""
    kept = gallery.person_id != JUNK
    for block, rows, columns, excluded, matrix in _blocks(distances, query, gallery, protocol):
        rows = rows - block.start
        wrong = np.tile(kept, (len(matrix), 1))
        wrong[rows, columns] = False
        yield matrix[rows[~excluded], columns[~excluded]], matrix[wrong]


def _order_statistics(blocks: Callable[[], Iterator[np.ndarray]], places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that would stand at `places` [n], from 0, if all blocks' values were sorted; how many are smaller.

    Each pass over the blocks counts the values that agree with a wanted one so far by their next 16 bits.
    """
    rest, prefix, bits, shift = places.copy(), np.zeros(len(places), np.uint64), None, None
    while shift != 0:
        groups, group = np.unique(prefix, return_inverse=True)
        counts = np.zeros(len(groups) << _DIGIT, np.int64)
        piece = max(_PIECE, 2 * len(counts))
        for values in (block[start : start + piece] for block in blocks() for start in range(0, block.size, piece)):
            if bits is None:
                bits = values.dtype.itemsize * 8
                shift = bits
            digit = _keys(values) >> (shift - _DIGIT)
            if shift < bits:
                head = digit >> _DIGIT
                known = groups.astype(head.dtype)
                place = np.minimum(np.searchsorted(known, head), len(known) - 1)
                same = known[place] == head
                digit = (place[same] << _DIGIT) + (digit[same] & ((1 << _DIGIT) - 1)).astype(np.int64)
            counts += np.bincount(digit.astype(np.int64), minlength=len(counts))
        shift -= _DIGIT
        upto = np.cumsum(counts.reshape(len(groups), -1), axis=1)
        for i, g in enumerate(group):
            found = int(np.searchsorted(upto[g], rest[i], side="right"))
            rest[i] -= upto[g][found - 1] if found else 0
            prefix[i] = (int(prefix[i]) << _DIGIT) + found
    return _values(prefix, bits), places - rest


def _keys(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the floats."""
    size = values.dtype.itemsize
    bits = (values + values.dtype.type(0)).view(f"u{size}")  # -0.0 becomes 0.0
    top = bits.dtype.type(1 << (8 * size - 1))
    return np.where(bits & top, ~bits, bits | top)


def _values(keys: np.ndarray, bits: int) -> np.ndarray:
    """Floats [n] float64 of such integers."""
    keys = keys.astype(f"u{bits // 8}")
    top = keys.dtype.type(1 << (bits - 1))
    return np.where(keys & top, keys ^ top, ~keys).view(f"f{bits // 8}").astype(np.float64)
