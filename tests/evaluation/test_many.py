"""Many settings in one pass, against ranking.evaluate of each by itself."""

import numpy as np
import pytest

from acrn_jax.evaluation import fusion, many, protocols, ranking
from acrn_jax.schema import Labels

Q, G = 11, 37


@pytest.mark.parametrize("block", [1, 4 * G * 3 * 4, 1 << 20], ids=["query by query", "four at a time", "all"])
def test_each_setting_is_ranked_as_by_itself(block, monkeypatch):
    monkeypatch.setattr(many, "_BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    query = Labels(np.r_[9, rng.integers(1, 6, Q - 1)], rng.integers(1, 3, Q))  # nobody else is person 9
    gallery = Labels(rng.integers(-1, 6, G), rng.integers(1, 3, G))  # with distractors and junk
    matrices = rng.integers(0, 4, (3, Q, G)).astype(np.float32)  # with ties
    terms = [lambda index, matrix=matrix: matrix[index].copy() for matrix in matrices]
    factors = np.array([[1, 0, 0], [0, 2, 0.5], [1, 1, 1], [0, 0, 0]], np.float32)
    found = many.per_query(terms, factors, query, gallery, protocol=protocols.MARKET1501)
    for i, row in enumerate(factors):
        rows = fusion.weighted_sum(*zip(row.tolist(), terms, strict=True))
        one = ranking.evaluate(rows, query, gallery, protocol=protocols.MARKET1501, no_match="skip")
        assert 0 < one.counted.sum() < Q
        for metric, values in one.per_query.items():
            of_setting = found[metric][i]
            np.testing.assert_allclose(of_setting[one.counted], values[one.counted], atol=1e-9, err_msg=f"{i} {metric}")
