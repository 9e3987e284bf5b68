import numpy as np
import pytest
from scipy import stats

from acrn_jax.evaluation import protocols, ranking, resampling
from acrn_jax.evaluation.metrics import METRICS
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
    ends = resampling.intervals(found, groups=groups, resamples=2000, seed=1)
    assert tuple(ends) == tuple(METRICS)
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
    ends = resampling.differences(first, first, resamples=20)
    assert set(ends.values()) == {(0, 0, 0)}
    second = first._replace(
        per_query={name: values / 2 for name, values in first.per_query.items()},
        metrics={name: value / 2 for name, value in first.metrics.items()},
    )
    ends = resampling.differences(first, second, resamples=3000)
    half = first.per_query["mAP_precision"][first.counted] / 2
    expected = stats.t.interval(0.95, half.size - 1, loc=half.mean(), scale=stats.sem(half))
    assert ends["mAP_precision"][1:] == pytest.approx(expected, abs=0.005)
    with pytest.raises(ValueError, match="same queries and metrics"):
        resampling.differences(first, first._replace(counted=~first.counted))


def test_interval_over_drawn_galleries_lies_about_the_metric():
    """People with many images in a view are drawn as often as others, so each of their queries less often."""
    rng, person = np.random.default_rng(0), np.repeat(np.arange(1, 11), [1, 1, 1, 1, 1, 6, 6, 6, 6, 6])
    labels = Labels(np.tile(person, 2), np.repeat([1, 2], len(person)))
    easy = labels.person_id[:, None] <= 5
    distances = rng.random((70, 70)) + 0.7 * ((labels.person_id[:, None] != labels.person_id) & easy)
    found = ranking.evaluate(distances, labels, labels, protocol=protocols.named("cuhk03_single_shot"))
    plain = found.per_query["rank1"][found.counted].mean()
    assert abs(found.metrics["rank1"] - plain) > 0.05
    for name, end in resampling.intervals(found, groups=labels.person_id, resamples=300).items():
        assert end.mean == pytest.approx(found.metrics[name]) and end.low <= end.mean <= end.high


def test_blocks_do_not_change_the_resamples(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(50, 2))
    whole = resampling.resample(scores, None, 3, 200)
    monkeypatch.setattr(resampling, "_CELLS", 130)
    assert np.allclose(whole, resampling.resample(scores, None, 3, 200))
    assert resampling.resample(scores, None, 4, 200) != whole


def test_refusals():
    with pytest.raises(ValueError, match=r"\[0, 2\] and None"):
        resampling.resample(np.ones((0, 2)))
    with pytest.raises(ValueError, match=r"\[3, 2\] and \[2\]"):
        resampling.resample(np.ones((3, 2)), np.ones(2))
    with pytest.raises(ValueError, match=r"got 0 and 0\.95"):
        resampling.resample(np.ones((3, 2)), resamples=0)
    assert resampling.resample(np.ones((3, 2)), resamples=1) == [(1, 1, 1)] * 2  # one is allowed


def people(scores, person):
    """The t-interval over people of means [n], each person once: half its width, by hand."""
    means = [np.mean(scores[person == p]) for p in np.unique(person)]
    return stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)


def test_few_people_get_the_interval_of_students_t():
    person = np.repeat(np.arange(6), 3)
    values = np.random.default_rng(0).normal(size=6)[person]
    end = resampling.resample(values[:, None], person)[0]
    assert (end.high - end.low) / 2 == pytest.approx(people(values, person), rel=0.15)
    alone = resampling.resample(values[:3, None], person[:3])[0]
    assert alone.mean == values[0] and np.isnan(alone[1:]).all()  # one person tells nothing of others


def test_intervals_over_splits_seeds_and_people_by_hand():
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(40), 2)
    of_people, of_seeds = rng.normal(size=40)[person], np.array([0.1, -0.4, 0.7])
    scores = of_seeds[:, None] + of_people  # [seeds, n]
    both = resampling.over_replicates([scores[..., None]], [person])[0]
    half = np.hypot(stats.t.ppf(0.975, 2) * stats.sem(of_seeds), people(of_people, person))
    assert both.mean == pytest.approx(scores.mean())
    assert (both.high - both.low) / 2 == pytest.approx(half, rel=0.03)
    # What a person does with one seed alone is in the seeds' spread already.
    noise = rng.normal(size=(3, 40))[:, person]
    noise -= noise.mean(axis=1, keepdims=True) - [[0.2], [0.0], [-0.2]]
    only = resampling.over_replicates([noise[..., None]], [person])[0]
    assert (only.high - only.low) / 2 == pytest.approx(stats.t.ppf(0.975, 2) * 0.2 / np.sqrt(3), rel=0.25)
    # One seed: people alone. Several splits: t over their means, unequal numbers of queries and seeds or not.
    alone = resampling.over_replicates([scores[:1, :, None]], [person])
    assert alone == resampling.resample(scores[0][:, None], person)
    splits = resampling.over_replicates([scores[..., None], 2 + scores[:1, :30, None]])[0]
    means = [scores.mean(), 2 + scores[0, :30].mean()]
    assert splits == pytest.approx((np.mean(means), *stats.t.interval(0.95, 1, np.mean(means), stats.sem(means))))
    with pytest.raises(ValueError, match="seeds, n, M"):
        resampling.over_replicates([scores])


WORLDS = {  # deviations of: splits, seeds, people, a person with a seed
    "seeds": (0, 1, 1, 1),
    "people": (0, 0.02, 5, 1),
    "both": (0, 0.5, 4, 1),
    "noise": (0, 0, 0, 3),
    "splits": (1, 0.3, 1, 1),
}


def coverage(world, splits, seeds, repeats, crowd=40):
    """How many of the intervals hold the true mean, 0."""
    deviation, rng, hits = WORLDS[world], np.random.default_rng((splits, seeds)), 0
    person = np.repeat(np.arange(crowd), 2)
    for _ in range(repeats):
        scores = [
            (
                deviation[0] * rng.normal()
                + deviation[1] * rng.normal(size=(seeds, 1))
                + (deviation[2] * rng.normal(size=crowd) + deviation[3] * rng.normal(size=(seeds, crowd)))[:, person]
            )[..., None]
            for _ in range(splits)
        ]
        end = resampling.over_replicates(scores, [person] * splits, resamples=400)[0]
        hits += end.low <= 0 <= end.high
    return hits / repeats


@pytest.mark.parametrize(
    ("world", "splits", "seeds"), [("seeds", 1, 2), ("people", 1, 2), ("people", 1, 1), ("splits", 2, 1)]
)
def test_intervals_cover(world, splits, seeds):
    """A bootstrap over two seeds covers 0.62 where seeds differ, one over two splits 0.5."""
    assert coverage(world, splits, seeds, 250) > 0.9  # of 0.95: 250 draws may miss by 0.04


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_intervals_cover_in_every_world(world):
    for splits, seeds in [(1, 2), (1, 3), (1, 5), (1, 10)] if world != "splits" else [(2, 1), (3, 2), (5, 1), (10, 1)]:
        found = coverage(world, splits, seeds, 2000)
        print(f"{world}: {splits} splits, {seeds} seeds: {found:.3f}")
        assert 0.935 < found < 0.995, (splits, seeds)
