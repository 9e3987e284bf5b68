"""Distances as functions of query rows, so that no Q x G matrix is ever held; how features and attributes add up.

A gallery may be a memory-mapped file of any float type: it is read in parts, and no copy of a large one is made.

Identical gallery rows get identical distances. The matrix product alone does not grant that: its kernels add up the
last columns of a block in another order, so equal rows may differ in the last bit and ties fall at random. The columns
of repeated rows are therefore copied from the row's first place.

numpy multiplies the matrices on CPUs; `device_rows` does it on accelerators, or spread over several devices.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from acrn_jax.evaluation.ranking import Rows, Tiles

_PART = 1 << 14  # gallery rows that are converted at once
_ROWS = 8  # of distances that are worked on at once: they stay in a core's cache
_SMALL_BYTES = 1 << 27  # a gallery that takes no more than this as float32 is converted once and for all

Index = slice | np.ndarray
EVERYTHING = slice(None)


def squared_euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """Squared L2 distances of query [Q, D] and gallery [G, D]: |q|^2 + |g|^2 - 2 q.g, float32, never below 0."""
    query, gallery = _check(query, gallery)
    query_norm, gallery_norm = _squared_norms(query), _squared_norms(gallery)

    def tile(index, columns):
        matrix = _product(-2 * query[index], gallery, columns)
        theirs, own = gallery_norm[columns], query_norm[index, None]
        for start in range(0, len(matrix), _ROWS):
            part = slice(start, start + _ROWS)
            few = matrix[part]
            few += theirs
            few += own[part]
            np.maximum(few, 0, out=few)
        return matrix

    return _settled(tile, gallery)


def euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """L2 distances of query [Q, D] and gallery [G, D]."""
    squared = squared_euclidean_rows(query, gallery)

    def tile(index, columns):
        matrix = squared.tile(index, columns)
        return np.sqrt(matrix, out=matrix)

    return Tiles(tile)


def cosine_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """1 - cosine of query [Q, D] and gallery [G, D], in [0, 2]; ValueError for a row of zeros."""
    query, gallery = _check(query, gallery)
    query = query / _lengths(query, "query")[:, None]
    gallery_length = _lengths(gallery, "gallery")

    def tile(index, columns):
        matrix = _product(-query[index], gallery, columns)
        matrix /= gallery_length[columns]
        matrix += 1
        return matrix

    return _settled(tile, gallery)


DISTANCES = {"squared_euclidean": squared_euclidean_rows, "euclidean": euclidean_rows, "cosine": cosine_rows}


def distance_rows(name: str, query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """The distance of that name (key of DISTANCES) between query [Q, D] and gallery [G, D]."""
    if name not in DISTANCES:
        raise ValueError(f"There is no distance {name!r}; choose one of {', '.join(DISTANCES)}.")
    return DISTANCES[name](query, gallery)


def device_rows(name: str, query: np.ndarray, gallery: np.ndarray, *, devices: Sequence[Any] | None = None) -> Rows:
    """As `distance_rows`, computed by jax: the gallery lies spread over the devices, and each has its columns.

    For accelerators, and where there are several of them; on the CPU `distance_rows` is the quicker one.

    Args:
      name: key of DISTANCES.
      query: [Q, D].
      gallery: [G, D], may be memory-mapped; as float32 it must fit into the devices' memory together.
      devices: default all of jax.devices().
    """
    import jax  # here, so that ranking on the CPU does not wait for it

    from acrn_jax.ops import distance

    if name not in DISTANCES:
        raise ValueError(f"There is no distance {name!r}; choose one of {', '.join(DISTANCES)}.")
    query, gallery = _check(query, gallery)
    if name == "cosine":
        _lengths(query, "query"), _lengths(gallery, "gallery")
    mesh = jax.sharding.Mesh(np.array(devices or jax.devices()), ("gallery",))
    by_row, by_column = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("gallery",), (None, "gallery"))
    )
    size = -(-len(gallery) // mesh.size) * mesh.size  # a multiple: the last row fills up

    def part(index):
        start, stop, _ = index[0].indices(size)
        return gallery[np.minimum(np.arange(start, stop), len(gallery) - 1)].astype(np.float32)

    spread = jax.make_array_from_callback((size, gallery.shape[1]), by_row, part)
    pairwise = jax.jit(functools.partial(distance.pairwise, kind=name), out_shardings=by_column)
    copies, firsts = _repeated(gallery)

    def rows(index):
        asked = query[index]
        filled = np.zeros((1 << (len(asked) - 1).bit_length(), query.shape[1]), np.float32)  # few sizes to compile
        filled[: len(asked)] = asked
        matrix = np.array(np.asarray(pairwise(filled, spread))[: len(asked), : len(gallery)])
        matrix[:, copies] = matrix[:, firsts]
        return matrix

    return rows


def mahalanobis_rows(query: np.ndarray, gallery: np.ndarray, matrix: np.ndarray) -> Tiles:
    """(q - g)' M (q - g) of query [Q, A] and gallery [G, A]; M [A, A] symmetric, not always positive, nor is this."""
    query, gallery = _check(query, gallery)
    # Differences stay; what cancels gets small, as M may stretch some directions much.
    sums = [part.sum(axis=0, dtype=np.float64) for _, part in _parts(gallery)]
    centre = (np.sum(sums, axis=0) / len(gallery)).astype(np.float32)
    matrix = matrix.astype(np.float32)
    query = query - centre
    turned = query @ matrix
    query_norm = np.sum(turned * query, axis=1)
    gallery_norm = np.concatenate(
        [np.sum((part - centre) @ matrix * (part - centre), axis=1) for _, part in _parts(gallery)]
    )

    def tile(index, columns):
        distances = _product(-2 * turned[index], gallery, columns, centre)
        distances += gallery_norm[columns]
        distances += query_norm[index, None]
        return distances

    return _settled(tile, gallery)


def weighted_sum(*terms: tuple[float, Rows]) -> Rows:
    """Sum of factor * rows over the terms, at least one."""

    def total(matrices):
        result = None
        for (factor, _), matrix in zip(terms, matrices, strict=True):
            matrix *= np.float32(factor)
            result = matrix if result is None else np.add(result, matrix, out=result)
        return result

    tiles = [term.tile for _, term in terms if isinstance(term, Tiles)]
    if len(tiles) < len(terms):
        return lambda index: total(term(index) for _, term in terms)
    return Tiles(lambda index, columns: total(tile(index, columns) for tile in tiles))


def _check(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query, gallery = np.ascontiguousarray(query, np.float32), np.asarray(gallery)
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1] or not gallery.size:
        raise ValueError(
            f"Distances want query [Q, D] and gallery [G, D], got {list(query.shape)} and {list(gallery.shape)}."
        )
    if 4 * gallery.size <= _SMALL_BYTES or gallery.dtype == np.float32:
        gallery = np.ascontiguousarray(gallery, np.float32)  # itself, where it is that already
    return query, gallery


def _parts(gallery: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields slice, that part of gallery [G, D] as float32."""
    for start in range(0, len(gallery), _PART):
        part = slice(start, min(start + _PART, len(gallery)))
        yield part, np.ascontiguousarray(gallery[part], np.float32)


def _product(query: np.ndarray, gallery: np.ndarray, columns: Index, centre: np.ndarray | None = None) -> np.ndarray:
    """Query [q, D] times the transpose of some rows [g] of gallery, less `centre` [D] where given: [q, g] float32."""
    chosen = None if isinstance(columns, slice) else columns
    gallery = gallery[columns] if chosen is None else gallery
    if chosen is None and centre is None and gallery.dtype == np.float32:
        return query @ gallery.T
    result = np.empty((len(query), len(gallery if chosen is None else chosen)), np.float32)
    for start in range(0, result.shape[1], _PART):
        part = slice(start, min(start + _PART, result.shape[1]))
        values = np.asarray(gallery[part if chosen is None else chosen[part]], np.float32)
        result[:, part] = query @ (values if centre is None else values - centre).T
    return result


def _squared_norms(values: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [np.einsum("nd,nd->n", part, part) for _, part in _parts(values)] or [np.empty(0, np.float32)]
    )


def _lengths(values: np.ndarray, name: str) -> np.ndarray:
    norm = np.sqrt(_squared_norms(values))
    if not norm.all():
        raise ValueError(f"{name} row {int(np.argmin(norm))} is all zeros and has no cosine; choose another distance.")
    return norm


def _settled(tile: Callable[[Index, Index], np.ndarray], gallery: np.ndarray) -> Tiles:
    """The same distances, but those of identical gallery rows identical, in one tile and across tiles."""
    copies, firsts = _repeated(gallery)
    if not copies.size:
        return Tiles(tile)
    origin = np.unique(firsts)  # [n]
    place = np.full(len(gallery), -1)  # [G] of a repeated row in `origin`
    place[origin] = np.arange(len(origin))
    place[copies] = place[firsts]

    @functools.lru_cache(maxsize=2)  # of the tiles of one block of queries
    def origins(start, stop):
        return tile(slice(start, stop), origin)  # [q, n]

    def settled(index, columns):
        matrix = tile(index, columns)
        if isinstance(columns, slice) and columns == EVERYTHING:
            matrix[:, copies] = matrix[:, firsts]
        else:
            here = place[columns]
            values = origins(index.start, index.stop) if isinstance(index, slice) else tile(index, origin)
            matrix[:, here >= 0] = values[:, here[here >= 0]]
        return matrix

    return Tiles(settled)


def _repeated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that repeat an earlier one [n], and the first place of each [n]."""
    # A sum of bit patterns, exact and in one pass, leaves few rows to compare; without the sign, as 0.0 equals -0.0.
    prints = [part.view(np.uint32).sum(axis=1, dtype=np.uint32) & 0x7FFFFFFF for _, part in _parts(values)]
    _, inverse, count = np.unique(np.concatenate(prints), return_inverse=True, return_counts=True)
    first: dict[bytes, int] = {}
    suspects = np.flatnonzero(count[inverse] > 1).tolist()
    pairs = [(i, first.setdefault((values[i].astype(np.float32) + 0.0).tobytes(), i)) for i in suspects]
    copies, firsts = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2).T
    return copies, firsts
