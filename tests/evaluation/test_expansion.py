import numpy as np
import pytest

from acrn_jax.evaluation import expansion


def loops(query, gallery, k, alpha):
    expanded = []
    for own in query:
        near = sorted(range(len(gallery)), key=lambda j, own=own: (np.sum((own - gallery[j]) ** 2), j))[:k]
        total, weights = own.copy(), 1.0
        for j in near:
            cosine = own @ gallery[j] / (np.linalg.norm(own) * np.linalg.norm(gallery[j]) or 1)
            weight = 1.0 if alpha is None else (max(cosine, 0) ** alpha if cosine > 0 else 0)
            total += weight * gallery[j]
            weights += weight
        expanded.append(total / weights)
    return np.array(expanded)


@pytest.mark.parametrize("block", [1, 1 << 24])
@pytest.mark.parametrize("alpha", [None, 0.0, 0.5, 3.0])
def test_agrees_with_loops(alpha, block, monkeypatch):
    monkeypatch.setattr(expansion, "_BLOCK_BYTES", block)
    rng = np.random.default_rng(0)
    for case in range(40):
        query, gallery = (rng.normal(size=(n, 4)) for n in (rng.integers(1, 7), rng.integers(1, 20)))
        if case % 2:
            query, gallery = np.round(query), np.round(gallery)  # ties, and rows of zeros
        k = int(rng.integers(1, len(gallery) + 1))
        before = query.copy()
        settings = {} if alpha is None else {"alpha": alpha}
        function = expansion.average if alpha is None else expansion.alpha_weighted
        found = function(query, gallery, k=k, **settings)
        assert found.dtype == np.float64 and np.array_equal(query, before)
        np.testing.assert_allclose(found, loops(query, gallery, k, alpha), atol=1e-5)


def test_it_helps_where_features_are_noisy():
    rng = np.random.default_rng(0)
    person, centre = rng.integers(0, 20, 300), rng.normal(size=(20, 16))
    x = centre[person] + 0.9 * rng.normal(size=(300, 16))
    truth = centre[person[:50]]
    for found in (expansion.average(x[:50], x[50:]), expansion.alpha_weighted(x[:50], x[50:])):
        assert np.mean((found - truth) ** 2) < 0.7 * np.mean((x[:50] - truth) ** 2)


def test_refusals():
    x = np.ones((4, 3))
    with pytest.raises(ValueError, match="k is 5; with 4 gallery images it can be 1 to 4"):
        expansion.average(x, x)
    with pytest.raises(ValueError, match="alpha is -1"):
        expansion.alpha_weighted(x, x, k=2, alpha=-1)
    with pytest.raises(ValueError, match="queries 0 to 3 is NaN or infinite"):
        expansion.average(x, np.where(np.eye(4, 3) > 0, np.nan, x), k=1)
