import numpy as np
import pytest
from scipy import stats

from acrn_jax.evaluation import correlation

RNG = np.random.default_rng(0)


def test_auc_by_pairs():
    p, labels = RNG.integers(0, 6, (60, 4)) / 5, RNG.integers(-1, 2, (60, 4))
    labels[:, 3] = np.abs(labels[:, 3])
    labels[:, 2] = -1
    labels[:5, 2] = 1
    found = correlation.auc(p, labels)
    assert np.isnan(found[2])
    for a in (0, 1, 3):
        yes, no = p[labels[:, a] == 1, a], p[labels[:, a] == 0, a]
        wins = [1.0 if x > y else 0.5 if x == y else 0.0 for x in yes for y in no]
        assert found[a] == pytest.approx(np.mean(wins))
    assert correlation.auc(np.array([[0.1], [0.9]]), np.array([[0], [1]]))[0] == 1


def test_rank_correlation_is_scipys_and_its_interval_a_plain_bootstrap():
    x = RNG.normal(size=20)
    y = np.round(x + RNG.normal(size=20), 1)
    y[3] = np.nan
    found = correlation.rank_correlation(x, y, resamples=400)
    keep = np.isfinite(y)
    x, y = x[keep], y[keep]
    assert (found.value, found.attributes) == (pytest.approx(stats.spearmanr(x, y).statistic), 19)
    drawn = np.random.default_rng(0).integers(0, 19, (400, 19))
    rho = [stats.spearmanr(x[i], y[i]).statistic for i in drawn]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(rho, [0.025, 0.975])))
    assert found.low < found.value < found.high


def test_values_that_span_one_correlate_as_others_do():
    x, y = np.array([0.0, 0.5, 1.0]), np.array([0.25, 1.0, 0.0])  # ranks 1 2 3 and 2 3 1: rho is 1 - 6 * 6 / 24
    assert correlation.spearman(x, y) == correlation.spearman(y, x) == pytest.approx(-0.5)


def test_what_has_no_correlation():
    assert np.isnan(correlation.rank_correlation([1.0, 2, 3], [5.0, 5, 5]).value)
    assert correlation.rank_correlation([1.0, np.nan, 3], [1.0, 2, 3])[3] == 2
    three = correlation.rank_correlation([1.0, 2, 3], [1.0, 2, 4])
    assert three.value == pytest.approx(1) and np.isnan(three.low)
    few = correlation.rank_correlation([1.0, 2, 3, 4], [1.0, 1, 1, 2], resamples=500)  # many resamples are constant
    assert np.isfinite([few.low, few.high]).all()
