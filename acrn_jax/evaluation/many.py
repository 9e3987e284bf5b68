"""Many settings of a distance, all of them ranked in one compiled pass.

A setting is a sum of given distances ("terms"), factor by term. So S settings over T terms are factors [S, T] times
terms [T, q, G].
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax.evaluation import metrics, protocols
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import JUNK, Labels

_BLOCK_BYTES = 1 << 26  # of the terms of one block of queries
_AT_ONCE = 16  # settings whose distances are held at once


def per_query(
    terms: Sequence[DistanceFn],
    factors: np.ndarray,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
) -> dict[str, np.ndarray]:
    """Scores of each query under S settings, metric -> [S, Q], as `ranking.evaluate` gives them one by one.

    Args:
      terms: [T] distances.
      factors: [S, T].
      query: [Q].
      gallery: [G].
      protocol: one that draws no galleries.

    Returns:
      those of queries without a match say nothing.
    """
    total, width = len(query.person_id), len(gallery.person_id)
    step = max(1, min(total, _BLOCK_BYTES // (4 * width * len(terms))))
    pairs = protocols.same_person(query, gallery)
    most = max(np.bincount(pairs(slice(0, total))[0], minlength=total).max(), 1)
    junk = gallery.person_id == JUNK
    scores = {name: np.zeros((len(factors), total)) for name in metrics.METRICS}
    for start in range(0, total, step):
        block = slice(start, min(start + step, total))
        count = block.stop - start
        rows, columns = pairs(block)
        out = protocol.excluded(query, gallery, rows, columns)
        excluded = np.tile(junk, (step, 1))
        excluded[rows[out] - start, columns[out]] = True
        right, valid = np.zeros((step, most), np.int32), np.zeros((step, most), bool)
        for q, own in _by_query(rows[~out] - start, columns[~out]):
            right[q, : len(own)], valid[q, : len(own)] = own, True
        matrices = np.zeros((len(terms), step, width), np.float32)
        for term, matrix in zip(terms, matrices, strict=True):
            matrix[:count] = term(block)
        ranks = np.asarray(_ranks(matrices, factors, right, excluded))[:, :count]
        for name, values in metrics.of_many(ranks, valid[:count]).items():
            scores[name][:, block] = values
    return scores


@jax.jit
def _ranks(terms, factors, right, excluded):
    """Ranks [S, q, R] of gallery images right [q, R] by sums of terms [T, q, G] with factors [S, T]."""
    columns = jnp.arange(terms.shape[2], dtype=jnp.int32)

    def one(factor):
        # Element by element, not as a matrix product, whose last columns add up in another order: ties stay ties.
        distance = sum(factor[t] * terms[t] for t in range(len(terms)))
        distance = jnp.where(excluded, jnp.inf, distance)
        wanted = jnp.take_along_axis(distance, right, axis=1)[:, :, None]  # [q, R, 1]
        every = distance[:, None, :]
        before = (every < wanted) | ((every == wanted) & (columns < right[:, :, None]))
        return 1 + jnp.sum(before, axis=2, dtype=jnp.int32)

    return jax.lax.map(one, factors, batch_size=min(_AT_ONCE, len(factors)))


def _by_query(rows: np.ndarray, columns: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for q in np.unique(rows):
        yield int(q), columns[rows == q]
