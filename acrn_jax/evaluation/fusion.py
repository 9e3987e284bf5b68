"""Distances as functions of query rows, so that no Q x G matrix is ever held; how features and attributes add up.

A gallery may be a memory-mapped file of any float type: it is read in parts, and no copy of a large one is made.

Identical gallery rows get identical distances. The matrix product alone does not grant that: its kernels add up the
last columns of a block in another order, so equal rows may differ in the last bit and ties fall at random. The columns
of repeated rows are therefore copied from the row's first place.

Distances come out as float64 would give them, to about 1e-5 of each, whatever the features have in common and however
large or small they are: |q|^2 + |g|^2 - 2 q.g in float32 alone loses what is small beside |q|^2 and |g|^2. So

  features are seen from a row in their middle, unless they lie around 0 anyway,
  a distance that is small even beside what is left is computed from the difference itself, in float64,
  where these are many, the product is one of float64, as is everything, the result too, where lengths differ by a
  factor of more than a hundred or leave float32's range.

numpy multiplies the matrices on CPUs; `device_rows` does it on accelerators, or spread over several devices.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from acrn_jax.evaluation.ranking import DistanceFn, Tiles
from acrn_jax.schema import unknown

_PART = 1 << 14  # gallery rows that are converted at once for a product
_FEW = 1 << 10  # rows that are converted at once for anything else: they stay in a cache
_PAIRS = 1 << 12  # rows that are subtracted at once
_ROWS = 8  # of distances that are worked on at once: they stay in a core's cache
_SMALL_BYTES = 1 << 27  # rows that take no more than this in their arithmetic are converted once and for all
_SAMPLE = 1000  # gallery rows whose median is the origin
# A distance below this share of |q|^2 + |g|^2 is one that rounding may have moved by 1e-5 of it, or more.
_DOUBTFUL = {np.float32: 1e-2, np.float64: 1e-11}
_CROWD = 64  # one of so many distances doubtful, and the product is computed in float64
_UNEVEN = 1e4  # ratio of the largest |x|^2 to the median one, from which on float32 does not do
_RANGE = (1e-20, 1e30)  # of |x|^2 in float32

Index = slice | np.ndarray
EVERYTHING = slice(None)


def squared_euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """Squared L2 distances of query [Q, D] and gallery [G, D], never below 0; float32 where that is enough."""
    return _squared(*_sides(query, gallery))


def euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """L2 distances of query [Q, D] and gallery [G, D]."""
    squared = squared_euclidean_rows(query, gallery)

    def tile(index, columns):
        matrix = squared.tile(index, columns)
        return np.sqrt(matrix, out=matrix)

    return Tiles(tile)


def cosine_rows(query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """1 - cosine of query [Q, D] and gallery [G, D], in [0, 2]; ValueError for a row of zeros.

    It is half the squared distance of rows of unit length.
    """
    squared = _squared(*_sides(query, gallery, unit=True))

    def tile(index, columns):
        matrix = squared.tile(index, columns)
        matrix /= 2
        return matrix

    return Tiles(tile)


DISTANCES = {"squared_euclidean": squared_euclidean_rows, "euclidean": euclidean_rows, "cosine": cosine_rows}


def distance_rows(name: str, query: np.ndarray, gallery: np.ndarray) -> Tiles:
    """The distance of that name (key of DISTANCES) between query [Q, D] and gallery [G, D]."""
    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    return DISTANCES[name](query, gallery)


def device_rows(
    name: str, query: np.ndarray, gallery: np.ndarray, *, devices: Sequence[Any] | None = None
) -> DistanceFn:
    """As `distance_rows`, computed by jax: the gallery lies spread over the devices, and each has its columns.

    For accelerators, and where there are several of them; on the CPU `distance_rows` is the quicker one, and takes over
    where float32 is not enough.

    Args:
      name: key of DISTANCES.
      query: [Q, D].
      gallery: [G, D], may be memory-mapped; as float32 it must fit into the devices' memory together.
      devices: default all of jax.devices().
    """
    import jax  # here, so that ranking on the CPU does not wait for it

    from acrn_jax.ops import distance

    if name not in DISTANCES:
        raise unknown("distance", name, DISTANCES)
    queries, images = _sides(query, gallery, unit=name == "cosine")
    if queries.kind != np.float32:
        return distance_rows(name, query, gallery)
    mesh = jax.sharding.Mesh(np.array(devices or jax.devices()), ("gallery",))
    by_row, by_column = (
        jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))
        for axes in (("gallery",), (None, "gallery"))
    )
    size = -(-len(images) // mesh.size) * mesh.size  # a multiple: the last row fills up

    def part(index):
        start, stop, _ = index[0].indices(size)
        return images.take(np.minimum(np.arange(start, stop), len(images) - 1), np.float32)

    spread = jax.make_array_from_callback((size, images.values.shape[1]), by_row, part)
    pairwise = jax.jit(functools.partial(distance.pairwise, kind="squared_euclidean"), out_shardings=by_column)
    copies, firsts = _repeated(images.values)

    def rows(index):
        few = queries.take(index, np.float32)
        filled = np.zeros((1 << (len(few) - 1).bit_length(), few.shape[1]), np.float32)  # few sizes to compile
        filled[: len(few)] = few
        matrix = np.array(np.asarray(pairwise(filled, spread))[: len(few), : len(images)])
        row, column = _doubtful(matrix, queries.norms(np.float32)[index], images.norms(np.float32))
        matrix[row, column] = _direct(queries, images, index, EVERYTHING, row, column)
        matrix[:, copies] = matrix[:, firsts]
        return {"euclidean": np.sqrt, "cosine": lambda squared: squared / 2}.get(name, np.asarray)(matrix)

    return rows


def mahalanobis_rows(query: np.ndarray, gallery: np.ndarray, matrix: np.ndarray) -> DistanceFn:
    """(q - g)' M (q - g) of query [Q, A] and gallery [G, A]; M [A, A] symmetric, not always positive, nor is this.

    With the eigenvalues of M it is one squared distance less another.
    """
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    centre = _middle(np.asarray(gallery)[_some(len(gallery))])

    def stretched(by):
        factor = vectors * np.sqrt(np.maximum(by, 0))
        return squared_euclidean_rows(projected(query, factor, centre), projected(gallery, factor, centre))

    return weighted_sum((1.0, stretched(values)), (-1.0, stretched(-values)))


def projected(values: np.ndarray, factor: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """(values [N, D] - centre [D]) times factor [D, R], float64 [N, R]; equal rows stay equal."""
    values = np.asarray(values)
    result = np.concatenate([(values[part].astype(np.float64) - centre) @ factor for part in _parts(len(values))])
    copies, firsts = _repeated(values)
    result[copies] = result[firsts]
    return result


def weighted_sum(*terms: tuple[float, DistanceFn]) -> DistanceFn:
    """Sum of factor * rows over the terms, at least one."""

    def total(matrices: Iterable[np.ndarray]) -> Any:
        result = None
        for (factor, _), matrix in zip(terms, matrices, strict=True):
            matrix *= matrix.dtype.type(factor)
            if result is None or result.dtype != matrix.dtype:
                result = matrix if result is None else result + matrix
            else:
                result += matrix
        return result

    tiles = [term.tile for _, term in terms if isinstance(term, Tiles)]
    if len(tiles) < len(terms):
        return lambda index: total(term(index) for _, term in terms)
    return Tiles(lambda index, columns: total(tile(index, columns) for tile in tiles))


class _Side:
    """Vectors [N, D] of any type, as they are compared: of unit length where lengths [N] are given, less the origin."""

    def __init__(self, values: np.ndarray, lengths: np.ndarray | None, origin: np.ndarray | None):
        self.values, self.lengths, self.origin = values, lengths, origin
        self.kind: Any = np.float32  # of the arithmetic
        self.kept: dict[Any, np.ndarray] = {}  # all rows, where they are small
        self.squares: dict[Any, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.values)

    def take(self, index: Index, kind: Any) -> np.ndarray:
        """Some rows [n, D], rounded to `kind` after what is common is taken off."""
        if kind in self.kept:
            return self.kept[kind][index]
        rows = self.values[index]
        if self.lengths is not None:
            rows = rows / self.lengths[index, None]
        if self.origin is not None:
            wide = np.result_type(rows, kind)
            rows = rows.astype(wide, copy=False) - self.origin.astype(wide)
        return np.ascontiguousarray(rows, kind)

    def of(self, kind: Any) -> "_Side":
        """Itself, from now on in arithmetic of `kind`."""
        self.kind, self.kept = kind, {}
        if self.values.size * kind().itemsize <= _SMALL_BYTES and not self.plain(kind):
            self.kept[kind] = np.concatenate([self.take(part, kind) for part in _parts(len(self))])
        return self

    def norms(self, kind: Any) -> np.ndarray:
        """Squared lengths of all rows [N]."""
        if kind not in self.squares:
            parts = (self.take(part, kind) for part in _parts(len(self)))
            self.squares[kind] = np.concatenate([np.einsum("nd,nd->n", rows, rows) for rows in parts])
        return self.squares[kind]

    def product(self, queries: np.ndarray, columns: Index) -> np.ndarray:
        """Queries [q, D] times the transpose of some rows [g]: [q, g] of the queries' type."""
        kind = queries.dtype.type
        whole = self.kept.get(kind, self.values if self.plain(kind) else None)
        if whole is not None and isinstance(columns, slice):
            return queries @ whole[columns].T
        places = range(len(self))[columns] if isinstance(columns, slice) else columns
        result = np.empty((len(queries), len(places)), kind)
        for part in _parts(len(places), _PART):
            chosen = slice(places[part].start, places[part].stop) if isinstance(places, range) else places[part]
            result[:, part] = queries @ self.take(chosen, kind).T
        return result

    def plain(self, kind: Any) -> bool:
        """Whether the rows are compared as they come."""
        return self.lengths is None and self.origin is None and self.values.dtype == kind


def _sides(query: np.ndarray, gallery: np.ndarray, *, unit: bool = False) -> tuple[_Side, _Side]:
    """Query and gallery as they are compared; what they have in common goes."""
    query, gallery = (
        np.asarray(values, np.float64 if np.asarray(values).dtype.itemsize > 8 else None) for values in (query, gallery)
    )
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1] or not gallery.size:
        raise ValueError(
            f"Distances want query [Q, D] and gallery [G, D], got {list(query.shape)} and {list(gallery.shape)}."
        )
    lengths = [_lengths(values, name) if unit else None for values, name in ((query, "query"), (gallery, "gallery"))]
    sample = _Side(gallery, lengths[1], None).take(_some(len(gallery)), np.float64)
    origin = _middle(sample)
    if origin @ origin <= np.median(np.sum((sample - origin) ** 2, axis=1)):
        origin = None  # no more in common than apart
    sides = tuple(_Side(*side, origin) for side in zip((query, gallery), lengths, strict=True))
    with np.errstate(over="ignore", under="ignore"):
        norms = np.concatenate([side.of(np.float32).norms(np.float32) for side in sides])
        typical, largest = np.median(norms), norms.max()
        enough = _RANGE[0] < typical and largest < min(_RANGE[1], _UNEVEN * typical)
    of_query, of_gallery = sides if enough else (side.of(np.float64) for side in sides)
    return of_query, of_gallery


def _squared(query: _Side, gallery: _Side) -> Tiles:
    """Squared distances."""

    def attempt(index, columns, kind):
        """Of arithmetic `kind`, and the places [n] and [n] where that is not to be trusted."""
        matrix = gallery.product(-2 * query.take(index, kind), columns)
        own, theirs = query.norms(kind)[index], gallery.norms(kind)[columns]
        for start in range(0, len(matrix), _ROWS):
            part = slice(start, start + _ROWS)
            few = matrix[part]
            few += theirs
            few += own[part, None]
        return matrix, *_doubtful(matrix, own, theirs)

    def tile(index, columns):
        matrix, row, column = attempt(index, columns, query.kind)
        if query.kind == np.float32 and len(row) * _CROWD > matrix.size:
            finer, row, column = attempt(index, columns, np.float64)
            matrix[:] = finer
        matrix[row, column] = _direct(query, gallery, index, columns, row, column)
        return matrix

    return _settled(tile, gallery.values)


def _doubtful(matrix: np.ndarray, own: np.ndarray, theirs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places [n] and [n] of squared distances [q, g] that are small beside the squared lengths own [q] + theirs [g]."""
    share, nothing = matrix.dtype.type(_DOUBTFUL[matrix.dtype.type]), np.zeros(0, np.int64)
    rows = np.flatnonzero(matrix.min(axis=1) < share * (own + theirs.max())) if matrix.size else nothing
    found = [np.flatnonzero(matrix[row] < share * (own[row] + theirs)) for row in rows]
    return np.repeat(rows, [len(columns) for columns in found]), np.concatenate(found or [nothing])


def _direct(query: _Side, gallery: _Side, index: Index, columns: Index, row: np.ndarray, column: np.ndarray):
    """Squared distances [n] at places of a tile, as sums of squared differences."""
    queries, images = np.arange(len(query))[index][row], np.arange(len(gallery))[columns][column]
    result = np.empty(len(row))
    for start in range(0, len(row), _PAIRS):
        part = slice(start, start + _PAIRS)
        difference = query.take(queries[part], np.float64) - gallery.take(images[part], np.float64)
        result[part] = np.einsum("nd,nd->n", difference, difference)
    return result


def unit(values: np.ndarray, name: str) -> np.ndarray:
    """Rows [N, D] float64 of unit length; ValueError for a row of zeros."""
    return np.asarray(values, np.float64) / _lengths(np.asarray(values), name)[:, None]


def _some(count: int) -> np.ndarray:
    """DistanceFn [n] out of `count`, far enough from one another."""
    return np.arange(0, count, -(-count // _SAMPLE))


def _middle(sample: np.ndarray) -> np.ndarray:
    """Median [D] of rows [n, D], float64: one row far away does not move it, as it would the mean."""
    return np.median(np.asarray(sample, np.float64), axis=0)


def _parts(count: int, size: int = _FEW) -> Iterator[slice]:
    """Slices of `count` rows, `size` in each."""
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _lengths(values: np.ndarray, name: str) -> np.ndarray:
    """Lengths [N] float64 of rows, none 0."""
    parts = (values[part].astype(np.float64) for part in _parts(len(values)))
    norm = np.concatenate([np.linalg.norm(part, axis=1) for part in parts] or [np.zeros(0)])
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
    """DistanceFn that repeat an earlier one [n], and the first place of each [n]."""
    # A sum of bit patterns, exact and in one pass, leaves few rows to compare; without the sign, as 0.0 equals -0.0.
    kind = np.dtype(f"u{values.dtype.itemsize}")
    parts = (np.ascontiguousarray(values[part], values.dtype.newbyteorder("=")) for part in _parts(len(values)))
    prints = [part.view(kind).sum(axis=1, dtype=kind) & (np.iinfo(kind).max >> 1) for part in parts]
    _, inverse, count = np.unique(np.concatenate(prints), return_inverse=True, return_counts=True)
    first: dict[bytes, int] = {}
    suspects = np.flatnonzero(count[inverse] > 1).tolist()
    pairs = [(i, first.setdefault((values[i] + values.dtype.type(0)).tobytes(), i)) for i in suspects]
    copies, firsts = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2).T
    return copies, firsts
