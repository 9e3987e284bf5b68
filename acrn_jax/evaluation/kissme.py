"""KISSME: a Mahalanobis metric from pairs of one person and pairs of two, in closed form.

M = S_similar^-1 - S_dissimilar^-1 with S = mean over pairs of (x_a - x_b)(x_a - x_b)'. No pair is built: over all
pairs within the groups of a grouping, sum (x_a - x_b)(x_a - x_b)' = sum_i n(i) x_i x_i' - sum_groups s s', n(i) being
the size of i's group and s its sum.

Differences from the official toolbox, on purpose: similar pairs are all pairs of one person in two cameras (there
every tenth); dissimilar pairs are the whole population of pairs of two people in two cameras (there 150,000 random
draws, cut to the number of similar pairs), so the fit has no seed; a ridge keeps S invertible (attribute probabilities
are nearly collinear); vectors are taken as they come (there l2-normalised first).

Source: Koestinger et al., "Large Scale Metric Learning from Equivalence Constraints", CVPR 2012, equations 8 to 16.
"""

from typing import NamedTuple

import numpy as np

from acrn_jax.evaluation import fusion
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import UNKNOWN


class KissMe(NamedTuple):
    """A fitted metric: d(x, y) = (x - y)' matrix (x - y)."""

    matrix: np.ndarray  # [A, A] float64
    factor: (
        np.ndarray | None
    )  # [A, R] with matrix = factor factor', so d = |x factor - y factor|^2; None if not projected
    similar_pairs: int
    dissimilar_pairs: int
    similar_condition: float  # condition number of S_similar, ridge included
    dissimilar_condition: float


def fit(
    x: np.ndarray,
    person_id: np.ndarray,
    camera_id: np.ndarray | None = None,
    *,
    ridge: float = 1e-3,
    project: bool = True,
    pca: int | None = None,
) -> KissMe:
    """Fits the metric on labelled vectors.

    Args:
      x: [N, A] float.
      person_id: [N] int; rows below 1 (distractors, junk) are left out.
      camera_id: [N] int; None, or a person of unknown camera (-1) anywhere: pairs are then taken whatever their
        cameras.
      ridge: share of the mean eigenvalue of S that is added to its diagonal, >= 0.
      project: project M to the positive semidefinite cone (negative eigenvalues become 0).
      pca: number of principal components that the metric sees, 1 to A; None: all of x.

    Raises:
      ValueError: shapes disagree, x is not finite, a sort of pair is missing, or an S is singular (ridge 0).
    """
    x, person, camera = _of_people(x, person_id, camera_id)
    if pca is not None and not 1 <= pca <= x.shape[1]:
        raise ValueError(f"KISSME: pca is {pca}; it wants 1 to {x.shape[1]}, the number of attributes.")
    x = x - x.mean(axis=0)  # differences stay, cancellation goes
    basis = np.eye(x.shape[1]) if pca is None else np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :pca]  # [A, R]
    x = x @ basis
    person, camera = (np.unique(labels, return_inverse=True)[1] for labels in (person, camera))
    person_camera = np.unique(person * len(x) + camera, return_inverse=True)[1]
    (both, n_both), (same, n_same), (seen, n_seen), (every, n_every) = (
        _within(x, groups) for groups in (person_camera, person, camera, np.zeros(len(x), np.int64))
    )
    similar = _inverse(same - both, n_same - n_both, ridge, "of one person (in two cameras, where known)")
    dissimilar = _inverse(
        every - same - seen + both,
        n_every - n_same - n_seen + n_both,
        ridge,
        "of two people (in two cameras, where known)",
    )
    metric = similar[0] - dissimilar[0]
    factor = None
    if project:
        values, vectors = np.linalg.eigh(metric)
        factor = basis @ (vectors * np.sqrt(np.maximum(values, 0)))
        matrix = factor @ factor.T
    else:
        matrix = basis @ metric @ basis.T
    return KissMe(matrix, factor, similar[1], dissimilar[1], similar[2], dissimilar[2])


def _of_people(x, person_id, camera_id) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(vectors float64, person, camera) of the rows that show people, checked; unknown cameras are all different."""
    x, person_id = np.asarray(x, np.float64), np.asarray(person_id)
    if x.ndim != 2 or person_id.shape != x.shape[:1] or (camera_id is not None and np.shape(camera_id) != x.shape[:1]):
        raise ValueError(
            f"KISSME wants x [N, A], person_id [N] and camera_id [N], got {list(x.shape)}, {list(person_id.shape)} and "
            f"{None if camera_id is None else list(np.shape(camera_id))}."
        )
    if not np.isfinite(x).all():
        raise ValueError("KISSME: x holds NaN or infinite values; check the attribute net's output.")
    people = person_id > 0
    x, person = x[people], person_id[people]
    camera = None if camera_id is None else np.asarray(camera_id)[people]
    if camera is None or np.any(camera == UNKNOWN):
        camera = np.arange(len(x))  # everyone a camera of their own: no pair shares one
    if not len(x):
        raise ValueError("KISSME: no training image shows a person (person_id 1 or more).")
    return x, person, camera


def rows(metric: KissMe, query: np.ndarray, gallery: np.ndarray) -> DistanceFn:
    """Distances of query [Q, A] and gallery [G, A] under the metric, as a function of query rows."""
    if metric.factor is not None:
        centre = np.mean(gallery, axis=0, dtype=np.float64)  # differences stay, what cancels gets small
        return fusion.squared_euclidean_rows(*(fusion.projected(x, metric.factor, centre) for x in (query, gallery)))
    return fusion.mahalanobis_rows(query, gallery, metric.matrix)


def _within(x: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, int]:
    """Sum of (x_a - x_b)(x_a - x_b)' over the unordered pairs within groups [N] (from 0): [A, A], and their number."""
    order = np.argsort(groups, kind="stable")
    size = np.bincount(groups)
    sums = np.add.reduceat(x[order], np.cumsum(size) - size, axis=0)  # [groups, A]
    return (x * size[groups, None]).T @ x - sums.T @ sums, int(np.sum(size * (size - 1) // 2))


def _inverse(scatter: np.ndarray, pairs: int, ridge: float, name: str) -> tuple[np.ndarray, int, float]:
    """Inverse of the ridged mean over pairs, their number, and the condition number."""
    if pairs < 1:
        raise ValueError(f"KISSME finds no pair {name} among the training images; it cannot be fitted on them.")
    covariance = scatter / pairs
    covariance = (covariance + covariance.T) / 2
    covariance += ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    condition = float(np.linalg.cond(covariance))
    if not condition < 1e14:
        raise ValueError(
            f"KISSME: the covariance of pairs {name} is singular (condition {condition:.0e}); raise ridge, now {ridge}."
        )
    return np.linalg.inv(covariance), pairs, condition
