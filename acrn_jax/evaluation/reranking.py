"""k-reciprocal re-ranking, sparse and in blocks of images, so that no N x N matrix is ever held.

With N = Q + G images, query first, d the distance, and N(i, k) the k + 1 images nearest to i, itself among them:

  R(i, k) = {j in N(i, k): i in N(j, k)}
  R*(i)   = R(i, k1) and every R(j, k1 / 2), j in R(i, k1), that R(i, k1) holds more than two thirds of
  V(i, j) = exp(-d(i, j) / max_m d(i, m)) for j in R*(i), else 0; then each row is divided by its sum
  V(i)   <- mean of V(j) over the k2 images nearest to i
  d_J     = 1 - s / (2 - s), s = sum_j min(V(q, j), V(g, j))
  result  = (1 - weight) d_J + weight d(q, g) / max_m d(q, m)

Equally near images stand in the order of their index. k1 / 2 is rounded half to even, as the authors' code does.

Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017, equations 2 to 12;
the division by the largest distance is that of their code.
"""

import itertools
from collections.abc import Callable, Iterator
from concurrent import futures

import numpy as np
from scipy import sparse

from acrn_jax.evaluation import fusion
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import unknown

_BLOCK_BYTES = 1 << 24  # of one float32 block of distances
_GROUP = 16  # columns that share one minimum in the search for the nearest


def rerank(
    query: np.ndarray,
    gallery: np.ndarray,
    *,
    distance: str = "squared_euclidean",
    k1: int = 20,
    k2: int = 6,
    weight: float = 0.3,
) -> np.ndarray:
    """Re-ranked distances of features.

    For the combined distance of ACRN give the embedding z, whose squared distance it is.

    Args:
      query: [Q, D].
      gallery: [G, D].
      distance: before, a key of fusion.DISTANCES.
      k1: neighbours that are searched for reciprocal ones, 1 to Q + G - 1.
      k2: images that the local query expansion averages, 1 (none) to Q + G.
      weight: lambda, the original distance's share of the result, in [0, 1].

    Returns:
      [Q, G] float32, smaller is more alike.

    Raises:
      ValueError: shapes disagree, a feature is not finite, or k1, k2 or weight are out of range.
    """
    if distance not in fusion.DISTANCES:
        raise unknown("distance", distance, fusion.DISTANCES)
    if distance == "cosine":  # half the squared distance of rows of unit length, and the scale does not matter
        query, gallery = fusion.unit(query, "query"), fusion.unit(gallery, "gallery")
    features = _joined(query, gallery)
    if distance == "euclidean":
        return rerank_rows(
            fusion.euclidean_rows(features, features), len(query), len(features), k1=k1, k2=k2, weight=weight
        )
    rows = fusion.squared_euclidean_rows(features, features)
    wide = np.result_type(features, rows(slice(0, 1)))  # float64 where the distances are

    def pairs(first, second):  # straight differences: nothing cancels
        found = np.empty(len(first), wide)
        for start in range(0, len(first), 1 << 13):
            part = slice(start, start + (1 << 13))
            difference = np.subtract(features[first[part]], features[second[part]], dtype=wide)
            found[part] = np.einsum("nd,nd->n", difference, difference)
        return found

    return _rerank(rows, pairs, len(query), len(features), k1, k2, weight)


def rerank_rows(
    rows: DistanceFn, queries: int, images: int, *, k1: int = 20, k2: int = 6, weight: float = 0.3
) -> np.ndarray:
    """Re-ranked distances [Q, G] float32 of any symmetric distance.

    Args:
      rows: distances among all images, query before gallery: index [n] -> [n, Q + G]. They are asked for twice.
      queries: Q.
      images: Q + G.
      k1: see `rerank`, as k2 and weight.
    """
    return _rerank(rows, None, queries, images, k1, k2, weight)


def nearest(matrix: np.ndarray, k: int) -> np.ndarray:
    """Columns [q, k] of the k smallest in each row of [q, N] without NaN, ascending; of equal ones the first column."""
    total, width = matrix.shape
    size = max(1, min(_GROUP, width // (4 * k)))
    groups = width // size
    grouped = matrix[:, : groups * size].reshape(total, size, groups)  # a view: column s * groups + g is in group g
    least = np.concatenate([grouped.min(axis=1), matrix[:, groups * size :]], axis=1)
    bound = np.partition(least, k - 1, axis=1)[:, k - 1]  # at least k entries are no larger
    row, group = np.divmod(np.flatnonzero(least <= bound[:, None]), least.shape[1])
    inside = group < groups
    column = np.where(inside, group, groups * (size - 1) + group)[:, None] + groups * np.arange(size)
    values = matrix[row[:, None], np.minimum(column, width - 1)]
    wanted = values <= bound[row, None]
    wanted[~inside, 1:] = False  # the columns behind the last whole group are groups of one
    row, column, values = np.broadcast_to(row[:, None], wanted.shape)[wanted], column[wanted], values[wanted]
    order = np.lexsort((column, values, row))
    starts = np.searchsorted(row[order], np.arange(total))
    return column[order][starts[:, None] + np.arange(k)]


def _joined(query: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    query, gallery = np.asarray(query), np.asarray(gallery)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"Re-ranking wants query [Q, D] and gallery [G, D], got {list(query.shape)} and {list(gallery.shape)}."
        )
    for name, values in (("query", query), ("gallery", gallery)):
        finite = np.isfinite(values.sum(axis=1))
        if not finite.all():
            raise ValueError(f"The features of {name} row {int(np.argmin(finite))} are not all finite.")
    return np.concatenate([query, gallery])


def _rerank(
    rows: DistanceFn,
    pairs: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    queries: int,
    images: int,
    k1: int,
    k2: int,
    weight: float,
) -> np.ndarray:
    if not 0 < queries < images:
        raise ValueError(
            f"Re-ranking wants at least one query and one gallery image, got {queries} of {images} images."
        )
    if not 1 <= k1 < images:
        raise ValueError(f"k1 is {k1}; with {images} images in query and gallery it can be 1 to {images - 1}.")
    if not 1 <= k2 <= images:
        raise ValueError(f"k2 is {k2}; with {images} images in query and gallery it can be 1 to {images}.")
    if not 0 <= weight <= 1:
        raise ValueError(f"The weight of the original distance is {weight}; it can be 0 to 1.")
    near = np.empty((images, max(k1 + 1, k2)), np.int32)
    largest = np.empty(images)
    result = np.empty((queries, images - queries), np.float32)
    for block, matrix in _blocks(rows, images):
        near[block], largest[block] = nearest(matrix, near.shape[1]), matrix.max(axis=1)
        largest[block][largest[block] <= 0] = 1  # all images alike: their distances are 0 anyway
        own = slice(block.start, min(block.stop, queries))
        if own.start < own.stop:
            result[own] = matrix[: own.stop - own.start, queries:] * (weight / largest[own, None])
    vectors = _reciprocal(near, k1)
    _weigh(vectors, rows, pairs, largest)
    if k2 > 1:
        expansion = sparse.csr_array(
            (np.full(images * k2, 1 / k2, np.float32), near[:, :k2].ravel(), np.arange(images + 1) * k2),
            shape=(images, images),
        )
        vectors = sparse.csr_array(expansion @ vectors)
    for block, shared in _shared(vectors[:queries], sparse.csc_array(vectors[queries:])):
        result[block] += (1 - weight) * (1 - shared / (2 - shared))
    return result


def _blocks(rows: DistanceFn, images: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields block of images, their distances [n, N]; the next block is computed beside the work on this one."""

    def compute(block):
        matrix = np.asarray(rows(block))
        if matrix.shape != (block.stop - block.start, images):
            wanted = [block.stop - block.start, images]
            raise ValueError(
                f"Distances of images {block.start} to {block.stop - 1} are {list(matrix.shape)}, not {wanted}."
            )
        if not np.isfinite(matrix.max() - matrix.min()):  # NaN and infinity come through
            raise ValueError(f"A distance of images {block.start} to {block.stop - 1} is NaN or infinite.")
        return matrix

    step = max(16, _BLOCK_BYTES // (4 * images))
    blocks = [slice(start, min(start + step, images)) for start in range(0, images, step)]
    with futures.ThreadPoolExecutor(1) as beside:
        pending = beside.submit(compute, blocks[0])
        for block, following in itertools.zip_longest(blocks, blocks[1:]):
            matrix = pending.result()
            if following:
                pending = beside.submit(compute, following)
            yield block, matrix


def _reciprocal(near: np.ndarray, k1: int) -> sparse.csr_array:
    """R*(i) as the nonzero pattern of a matrix [N, N], from neighbours [N, >= k1 + 1]."""
    images, half = len(near), int(np.around(k1 / 2))
    mutual, mutual_half = (np.empty((images, k + 1), bool) for k in (k1, half))
    step = max(16, _BLOCK_BYTES // images)
    blocks = [np.arange(start, min(start + step, images)) for start in range(0, images, step)]
    for block in blocks:
        for found, k in ((mutual, k1), (mutual_half, half)):
            back = near[near[block, : k + 1], : k + 1]  # [n, k + 1, k + 1]
            found[block] = (back == block[:, None, None]).any(axis=2)
    sizes = mutual_half.sum(axis=1)
    count, columns = np.zeros(images, np.int64), []
    for block in blocks:
        member = np.zeros((len(block), images), bool)
        place, which = np.nonzero(mutual[block])
        candidate = near[block[place], which]  # [m] the images of R(i, k1)
        member[place, candidate] = True
        others, valid = near[candidate, : half + 1], mutual_half[candidate]  # [m, half + 1]
        held = (member[place[:, None], others] & valid).sum(axis=1)
        valid &= (3 * held > 2 * sizes[candidate])[:, None]
        member[np.broadcast_to(place[:, None], valid.shape)[valid], others[valid]] = True
        count[block] = member.sum(axis=1)
        columns.append((np.flatnonzero(member) % images).astype(np.int32))
    pointer = np.concatenate([[0], np.cumsum(count)])
    return sparse.csr_array(
        (np.ones(pointer[-1], np.float32), np.concatenate(columns), pointer), shape=(images, images)
    )


def _weigh(vectors: sparse.csr_array, rows: DistanceFn, pairs, largest: np.ndarray) -> None:
    """Writes exp(-distance / largest), normalised by row, into the entries."""
    images, pointer = vectors.shape[0], vectors.indptr
    first = np.repeat(np.arange(images), np.diff(pointer))
    if pairs is not None:
        distance = pairs(first, vectors.indices)
    else:
        distance = np.empty(len(first))
        for block, matrix in _blocks(rows, images):
            part = slice(pointer[block.start], pointer[block.stop])
            distance[part] = matrix[first[part] - block.start, vectors.indices[part]]
    value = np.exp(-distance / largest[first])
    vectors.data[:] = value / np.bincount(first, value, images)[first]


def _shared(query: sparse.csr_array, gallery: sparse.csc_array) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields block of queries, sum_j min(V(q, j), V(g, j)) [q, G] over the few g that share an entry with q."""
    height, pointer = np.diff(gallery.indptr), gallery.indptr
    work = np.concatenate([[0], np.cumsum(height[query.indices])])[query.indptr]  # [Q + 1] entries to visit before q
    start = 0
    while start < query.shape[0]:
        stop = int(np.searchsorted(work, work[start] + (1 << 21), side="right")) - 1
        stop = min(max(stop, start + 1), start + max(16, _BLOCK_BYTES // (8 * gallery.shape[0])))
        part = slice(query.indptr[start], query.indptr[stop])
        entry, value = query.indices[part], query.data[part]
        place = np.repeat(np.arange(stop - start), np.diff(query.indptr[start : stop + 1]))
        times = height[entry]
        inside = np.arange(times.sum()) - np.repeat(np.cumsum(times) - times - pointer[entry], times)
        least = np.minimum(np.repeat(value, times), gallery.data[inside])
        cell = np.repeat(place * gallery.shape[0], times) + gallery.indices[inside]
        shared = np.bincount(cell, least, (stop - start) * gallery.shape[0])
        yield slice(start, stop), shared.astype(np.float32).reshape(stop - start, -1)
        start = stop
