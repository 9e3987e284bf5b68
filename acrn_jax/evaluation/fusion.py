"""Distances as functions of query rows, so that no Q x G matrix is ever held; how features and attributes add up.

Identical gallery rows get identical distances. The matrix product alone does not grant that: its kernels add up the
last columns of a block in another order, so equal rows may differ in the last bit and ties fall at random. The columns
of repeated rows are therefore copied from the row's first place.
"""

import numpy as np

from acrn_jax.evaluation.ranking import Rows


def squared_euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Rows:
    """Squared L2 distances of query [Q, D] and gallery [G, D]: |q|^2 + |g|^2 - 2 q.g, float32, never below 0."""
    query, gallery = _check(query, gallery)
    query_norm, gallery_norm = _squared_norms(query), _squared_norms(gallery)
    copies, firsts = _repeated(gallery)

    def rows(index):
        matrix = (-2 * query[index]) @ gallery.T  # [q, G]
        matrix += gallery_norm
        matrix += query_norm[index, None]
        np.maximum(matrix, 0, out=matrix)
        matrix[:, copies] = matrix[:, firsts]
        return matrix

    return rows


def euclidean_rows(query: np.ndarray, gallery: np.ndarray) -> Rows:
    """L2 distances of query [Q, D] and gallery [G, D]."""
    squared = squared_euclidean_rows(query, gallery)

    def rows(index):
        matrix = squared(index)
        return np.sqrt(matrix, out=matrix)

    return rows


def cosine_rows(query: np.ndarray, gallery: np.ndarray) -> Rows:
    """1 - cosine of query [Q, D] and gallery [G, D], in [0, 2]; ValueError for a row of zeros."""
    query, gallery = (
        _unit(values, name) for values, name in zip(_check(query, gallery), ("query", "gallery"), strict=True)
    )
    copies, firsts = _repeated(gallery)

    def rows(index):
        matrix = -query[index] @ gallery.T  # [q, G]
        matrix += 1
        matrix[:, copies] = matrix[:, firsts]
        return matrix

    return rows


DISTANCES = {"squared_euclidean": squared_euclidean_rows, "euclidean": euclidean_rows, "cosine": cosine_rows}


def distance_rows(name: str, query: np.ndarray, gallery: np.ndarray) -> Rows:
    """The distance of that name (key of DISTANCES) between query [Q, D] and gallery [G, D]."""
    if name not in DISTANCES:
        raise ValueError(f"There is no distance {name!r}; choose one of {', '.join(DISTANCES)}.")
    return DISTANCES[name](query, gallery)


def mahalanobis_rows(query: np.ndarray, gallery: np.ndarray, matrix: np.ndarray) -> Rows:
    """(q - g)' M (q - g) of query [Q, A] and gallery [G, A]; M [A, A] symmetric, not always positive, nor is this."""
    query, gallery = _check(query, gallery)
    copies, firsts = _repeated(gallery)
    centre = gallery.mean(axis=0)  # differences stay; what cancels gets small, as M may stretch some directions much
    query, gallery = query - centre, gallery - centre
    turned, turned_gallery = query @ matrix.astype(np.float32), gallery @ matrix.astype(np.float32)
    query_norm, gallery_norm = np.sum(turned * query, axis=1), np.sum(turned_gallery * gallery, axis=1)

    def rows(index):
        distances = (-2 * turned[index]) @ gallery.T  # [q, G]
        distances += gallery_norm
        distances += query_norm[index, None]
        distances[:, copies] = distances[:, firsts]
        return distances

    return rows


def weighted_sum(*terms: tuple[float, Rows]) -> Rows:
    """Sum of factor * rows over the terms, at least one."""
    (first_factor, first), *others = terms

    def rows(index):
        total = first(index)
        total *= np.float32(first_factor)
        for factor, term in others:
            matrix = term(index)
            matrix *= np.float32(factor)
            total += matrix
        return total

    return rows


def _check(query: np.ndarray, gallery: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query, gallery = (np.ascontiguousarray(values, np.float32) for values in (query, gallery))
    if query.ndim != 2 or gallery.ndim != 2 or query.shape[1] != gallery.shape[1] or not gallery.size:
        raise ValueError(
            f"Distances want query [Q, D] and gallery [G, D], got {list(query.shape)} and {list(gallery.shape)}."
        )
    return query, gallery


def _squared_norms(values: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", values, values)


def _unit(values: np.ndarray, name: str) -> np.ndarray:
    norm = np.sqrt(_squared_norms(values))
    if not norm.all():
        raise ValueError(f"{name} row {int(np.argmin(norm))} is all zeros and has no cosine; choose another distance.")
    return values / norm[:, None]


def _repeated(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows that repeat an earlier one [n], and the first place of each [n]."""
    # A sum of bit patterns, exact and in one pass, leaves few rows to compare; without the sign, as 0.0 equals -0.0.
    prints = values.view(np.uint32).sum(axis=1, dtype=np.uint32) & 0x7FFFFFFF
    _, inverse, count = np.unique(prints, return_inverse=True, return_counts=True)
    first: dict[bytes, int] = {}
    pairs = [(i, first.setdefault((values[i] + 0.0).tobytes(), i)) for i in np.flatnonzero(count[inverse] > 1).tolist()]
    copies, firsts = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2).T
    return copies, firsts
