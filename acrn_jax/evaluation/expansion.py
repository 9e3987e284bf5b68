"""Query expansion: a query becomes a mean of itself and what it finds first.

Both take single features or the combined embedding z, whose squared distance is the combined one. Neighbours are the k
nearest gallery images by squared Euclidean distance, whoever they show: nothing is known of people or cameras. For a
protocol's junk that means leaving it out of the gallery before. Nothing is normalised: ranking by cosine does not mind
the length of a query, ranking by another distance wants a mean of the features' own length, which this is.
"""

from collections.abc import Callable

import numpy as np

from acrn_jax.evaluation import fusion, reranking

_BLOCK_BYTES = 1 << 24


def average(query: np.ndarray, gallery: np.ndarray, *, k: int = 5) -> np.ndarray:
    """Mean of each query and its k nearest gallery features, [Q, D] float64.

    Args:
      query: [Q, D].
      gallery: [G, D].
      k: 1 to G.

    Raises:
      ValueError: shapes disagree, k is out of range, or a distance is not finite.

    Source: Chum et al., "Total Recall: Automatic Query Expansion with a Generative Feature Model for Object
    Retrieval", ICCV 2007.
    """
    return _expand(query, gallery, k, lambda own, found: np.ones(found.shape[:2]))


def alpha_weighted(query: np.ndarray, gallery: np.ndarray, *, k: int = 5, alpha: float = 3.0) -> np.ndarray:
    """As `average`, a gallery feature weighted by its cosine with the query to the power of alpha (0 where negative).

    Args:
      query: [Q, D].
      gallery: [G, D].
      k: 1 to G.
      alpha: at least 0; 0 is the plain mean of positive cosines.

    Source: Radenović, Tolias and Chum, "Fine-tuning CNN Image Retrieval with No Human Annotation", TPAMI 2019.
    """
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}; it can be 0 or more.")

    def weigh(own, found):  # [q, D], [q, k, D]
        lengths = np.linalg.norm(own, axis=1)[:, None] * np.linalg.norm(found, axis=2)
        cosine = np.einsum("qd,qkd->qk", own, found) / np.where(lengths > 0, lengths, 1)
        return np.where(cosine > 0, np.maximum(cosine, 0) ** alpha, 0)

    return _expand(query, gallery, k, weigh)


def _expand(
    query: np.ndarray, gallery: np.ndarray, k: int, weigh: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> np.ndarray:
    rows = fusion.squared_euclidean_rows(query, gallery)
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k is {k}; with {len(gallery)} gallery images it can be 1 to {len(gallery)}.")
    result = np.array(query, np.float64)
    step = max(1, _BLOCK_BYTES // (8 * max(len(gallery), k * query.shape[1])))
    for start in range(0, len(query), step):
        block = slice(start, min(start + step, len(query)))
        matrix = rows(block)
        if not np.isfinite(matrix.max() - matrix.min()):
            raise ValueError(f"A distance of queries {start} to {block.stop - 1} is NaN or infinite.")
        own, found = result[block], np.asarray(gallery[reranking.nearest(matrix, k)], np.float64)
        weight = weigh(own, found)
        result[block] = (own + np.einsum("qk,qkd->qd", weight, found)) / (1 + weight.sum(axis=1, keepdims=True))
    return result
