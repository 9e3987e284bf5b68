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


@pytest.mark.parametrize("grouped", [False, True])
def test_intervals_over_splits_seeds_and_queries_agree_with_loops(grouped):
    """Seeds that differ much more than queries do, unequal splits, people of unequal size: each level shows."""
    rng = np.random.default_rng(0)
    sizes, seeds = (12, 25), (3, 4)
    scores = [
        0.3 * rng.normal(size=(k, n, 2)) + rng.normal(size=(k, 1, 2)) + rng.normal(size=2)
        for n, k in zip(sizes, seeds, strict=True)
    ]
    person = [np.sort(rng.integers(0, 5, n)) for n in sizes]
    found = bootstrap.nested(scores, person if grouped else None, resamples=2500, seed=1)
    drawn = []
    for _ in range(2500):
        means = []
        for split in rng.integers(0, 2, 2):
            people = np.unique(person[split])
            rows = rng.integers(0, sizes[split], sizes[split])
            if grouped:
                rows = np.concatenate([np.flatnonzero(person[split] == p) for p in rng.choice(people, len(people))])
            chosen = rng.integers(0, seeds[split], seeds[split])
            means.append(np.mean([scores[split][s][rows].mean(axis=0) for s in chosen], axis=0))
        drawn.append(np.mean(means, axis=0))
    expected = np.quantile(drawn, [0.025, 0.975], axis=0)
    for column, interval in enumerate(found):
        assert interval.mean == pytest.approx(np.mean([s[:, :, column].mean() for s in scores]))
        assert interval[1:] == pytest.approx(expected[:, column], abs=0.15)
    alone = bootstrap.nested([scores[0][:1]], resamples=1000)  # one split, one seed: queries alone are drawn
    assert np.allclose(alone, bootstrap.resample(scores[0][0], None, 7, 1000), atol=0.06)
    with pytest.raises(ValueError, match="seeds, n, M"):
        bootstrap.nested([scores[0][0]])
