import numpy as np
import pytest
from scipy import stats

from acrn_jax import schema
from acrn_jax.evaluation import bootstrap, protocols, ranking
from acrn_jax.schema import Labels


def result(seed, noise=1.0):
    rng = np.random.default_rng(seed)
    query, gallery = (Labels(rng.integers(1, 30, n), rng.integers(0, 3, n)) for n in (150, 200))
    distances = noise * rng.normal(size=(150, 200)) + (query.person_id[:, None] != gallery.person_id)
    return query, ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501, no_match="skip")


@pytest.mark.parametrize("grouped", [False, True])
def test_interval_of_every_metric_agrees_with_loops(grouped):
    query, found = result(0)
    groups = query.person_id if grouped else None
    ends = bootstrap.intervals(found, groups=groups, resamples=2000, seed=1)
    assert tuple(ends) == schema.METRICS
    rng, counted = np.random.default_rng(2), np.flatnonzero(found.counted)
    members = [counted[query.person_id[counted] == p] for p in np.unique(query.person_id[counted])]
    draws = []
    for _ in range(2000):
        if grouped:
            chosen = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        else:
            chosen = rng.choice(counted, len(counted))
        draws.append([values[chosen].mean() for values in found.per_query.values()])
    for (name, end), drawn in zip(ends.items(), np.transpose(draws), strict=True):
        assert end.mean == pytest.approx(found.metrics[name])
        assert (end.low, end.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


def test_differences_are_paired():
    _, first = result(0)
    ends = bootstrap.differences(first, first, resamples=20)
    assert set(ends.values()) == {(0, 0, 0)}
    second = first._replace(per_query={name: values / 2 for name, values in first.per_query.items()})
    ends = bootstrap.differences(first, second, resamples=3000)
    half = first.per_query["mAP_precision"][first.counted] / 2
    expected = stats.t.interval(0.95, half.size - 1, loc=half.mean(), scale=stats.sem(half))
    assert ends["mAP_precision"][1:] == pytest.approx(expected, abs=0.005)
    with pytest.raises(ValueError, match="same queries and metrics"):
        bootstrap.differences(first, first._replace(counted=~first.counted))


def test_blocks_do_not_change_the_resamples(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(50, 2))
    whole = bootstrap.resample(scores, None, 3, 200)
    monkeypatch.setattr(bootstrap, "_CELLS", 130)
    assert np.allclose(whole, bootstrap.resample(scores, None, 3, 200))
    assert bootstrap.resample(scores, None, 4, 200) != whole


def test_refusals():
    with pytest.raises(ValueError, match=r"\[0, 2\] and None"):
        bootstrap.resample(np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"\[3, 2\] and \[2\]"):
        bootstrap.resample(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match=r"got 0 and 0\.95"):
        bootstrap.resample(np.ones((3, 2)), resamples=0)
