import numpy as np
import pytest

from acrn_jax import schema
from acrn_jax.evaluation import fusion, protocols, ranking
from acrn_jax.schema import Labels
from tests import oracles


def labels(person, camera=None):
    return Labels(np.array(person), np.full(len(person), -1) if camera is None else np.array(camera))


def ranked(places, size=12):
    """One query whose right images stand at the given places."""
    person = np.full(size, 2)
    person[np.array(places) - 1] = 1
    return np.arange(size, dtype=np.float32)[None], labels([1], [0]), Labels(person, np.ones(size, int))


@pytest.mark.parametrize(
    ("places", "precision", "trapezoid"),
    [  # counted with the official MATLAB code and its Python twin
        ([1], 1, 1),
        ([2], 0.5, 0.25),
        ([5], 0.2, 0.1),
        ([1, 10], 0.6, 0.57778),
        ([3, 4], 0.41667, 0.29167),
        ([1, 2, 4, 7], 0.83036, 0.81101),
    ],
)
def test_golden_values(places, precision, trapezoid):
    found = ranking.evaluate(*ranked(places), protocol=protocols.MARKET1501)
    assert found.metrics["mAP_precision"] == pytest.approx(precision, abs=5e-6)
    assert found.metrics["mAP_trapezoid"] == pytest.approx(trapezoid, abs=5e-6)
    assert found.metrics["mINP"] == pytest.approx(len(places) / places[-1])
    assert found.first_rank.tolist() == places[:1]
    assert tuple(found.metrics) == schema.METRICS
    assert all(found.metrics[f"rank{k}"] == (places[0] <= k) for k in schema.RANKS)


def random_case(rng, protocol):
    """A small case with many ties; junk, distractors and queries without a match are frequent."""
    people = rng.integers(1, 6)
    if protocol == "all_vs_all":
        size = rng.integers(1, 9)
        query = gallery = Labels(rng.integers(1, people + 1, size), rng.integers(-1, 3, size))
    else:
        query = Labels(rng.integers(1, people + 1, rng.integers(1, 6)), rng.integers(0, 3, 5))
        query = Labels(query.person_id, query.camera_id[: len(query.person_id)])
        size = rng.integers(1, 30)
        gallery = Labels(rng.integers(-1, people + 2, size), rng.integers(0, 3, size))
        if protocol == "single_shot":
            once = np.unique(gallery.person_id, return_index=True)[1]
            kept = np.sort(np.concatenate([once, np.flatnonzero(gallery.person_id <= 0)]))
            gallery = Labels(gallery.person_id[kept], np.full(len(kept), -1))
    distances = rng.integers(0, rng.integers(2, 40), (len(query.person_id), len(gallery.person_id)))
    return distances.astype(rng.choice([np.float32, np.float64])), query, gallery


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("no_match", ["error", "skip", "count_as_miss"])
@pytest.mark.parametrize("protocol", ["market1501", "single_shot", "all_vs_all"])
def test_agrees_with_loops(protocol, no_match, seed, monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)
    rng, refused = np.random.default_rng(seed), 0
    for case in range(100):
        distances, query, gallery = random_case(rng, protocol)
        expected = oracles.ranking(distances, query, gallery, protocol, no_match)
        given = distances if case % 2 else lambda index, distances=distances: distances[index]
        if expected is None:
            refused += 1
            with pytest.raises(ValueError, match="right gallery image"):
                ranking.evaluate(given, query, gallery, protocol=protocols.named(protocol), no_match=no_match)
            continue
        before = distances.copy()
        found = ranking.evaluate(given, query, gallery, protocol=protocols.named(protocol), no_match=no_match)
        assert found.metrics == pytest.approx(expected, abs=1e-12)
        assert np.array_equal(distances, before)
        means = {name: values[found.counted].mean() for name, values in found.per_query.items()}
        assert means == pytest.approx(expected, abs=1e-12)
    assert refused < 95


def test_many_queries_in_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = (Labels(rng.integers(1, 9, n), rng.integers(0, 3, n)) for n in (100, 70))
    distances = rng.integers(0, 20, (100, 70)).astype(np.float32)
    whole = ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501, no_match="skip")
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)  # 16 queries a block
    asked = []

    def rows(index):
        asked.append(index.stop - index.start)
        return distances[index]

    blocks = ranking.evaluate(rows, query, gallery, protocol=protocols.MARKET1501, no_match="skip")
    assert asked == [16] * 6 + [4]
    np.testing.assert_equal(blocks, whole)
    assert whole.metrics == pytest.approx(oracles.ranking(distances, query, gallery, "market1501", "skip"))


def test_counts_queries_without_match():
    query, gallery = (
        labels([1, 7, 2], [0, 0, 0]),
        labels([1, 2, 0], [1, 0, 1]),
    )  # 7 is absent, 2 in its own camera alone
    distances = np.zeros((3, 3), np.float32)
    skipped = ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501, no_match="skip")
    missed = ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501, no_match="count_as_miss")
    assert (skipped.queries, skipped.gallery, skipped.queries_without_match) == (3, 3, 2)
    assert skipped.counted.tolist() == [True, False, False]
    assert (skipped.metrics["rank1"], missed.metrics["rank1"]) == (1, pytest.approx(1 / 3))
    with pytest.raises(ValueError, match=r"2 of 3 queries .* market1501.* query 1 \(person 7, camera 0\)"):
        ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501)


def test_huge_distances_are_not_infinite():
    distances, query, gallery = ranked([2])
    found = ranking.evaluate(distances + np.float32(3e38), query, gallery, protocol=protocols.MARKET1501)
    assert found.metrics["rank1"] == 0  # all tie there, so the order is that of the gallery


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_refuses_what_is_not_finite(wrong):
    distances, query, gallery = ranked([2])
    distances[0, 3] = wrong
    with pytest.raises(ValueError, match="query 0 and gallery image 3 is NaN or infinite"):
        ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501)


def test_refuses_what_does_not_fit():
    distances, query, gallery = ranked([2])
    market = {"protocol": protocols.MARKET1501}
    with pytest.raises(ValueError, match=r"Distances are \[1, 11\].* 1 query and 12 gallery"):
        ranking.evaluate(distances[:, 1:], query, gallery, **market)
    with pytest.raises(ValueError, match=r"\[1, 11\]; \[1, 12\] is wanted"):
        ranking.evaluate(lambda index: distances[index, 1:], query, gallery, **market)
    with pytest.raises(ValueError, match="gallery person_id"):
        ranking.evaluate(distances[:, :0], query, labels([]), **market)
    with pytest.raises(ValueError, match="query person_id is float64"):
        ranking.evaluate(distances, labels([1.0], [0]), gallery, **market)
    with pytest.raises(ValueError, match="1 person_id and 2 camera_id"):
        ranking.evaluate(distances, labels([1], [0, 1]), gallery, **market)
    with pytest.raises(ValueError, match="1 queries show no person"):
        ranking.evaluate(distances, labels([0], [0]), gallery, **market)
    with pytest.raises(ValueError, match="choose error, skip or count_as_miss"):
        ranking.evaluate(distances, query, gallery, no_match="ignore", **market)


def test_equal_images_stand_in_the_order_of_the_gallery():
    rng = np.random.default_rng(0)
    for count in (37, 500, 1003):  # odd widths, so that copies fall into the remainder of a kernel
        gallery = np.repeat(rng.normal(size=(1, 67)), count, axis=0)
        rows = fusion.squared_euclidean_rows(rng.normal(size=(5, 67)), gallery)
        person = np.full(count, 2)
        person[-1] = 1
        found = ranking.evaluate(rows, labels([1] * 5), labels(person), protocol=protocols.SINGLE_SHOT)
        assert found.first_rank.tolist() == [count] * 5


@pytest.mark.parametrize("protocol", ["market1501", "single_shot", "all_vs_all"])
def test_rank_list_is_a_stable_sort(protocol):
    rng = np.random.default_rng(3)
    for _ in range(50):
        distances, query, gallery = random_case(rng, protocol)
        queries = rng.permutation(len(query.person_id))[:2]
        found = ranking.rank_list(distances, query, gallery, protocol=protocols.named(protocol), k=6, queries=queries)
        for i, q in enumerate(queries):
            person, camera = query.person_id[q], query.camera_id[q]
            order = [
                g
                for g in np.argsort(distances[q], kind="stable")
                if gallery.person_id[g] != -1
                and not (protocol == "all_vs_all" and g == q)
                and not (protocol == "market1501" and (gallery.person_id[g], gallery.camera_id[g]) == (person, camera))
            ][:6]
            assert found.order[i].tolist() == order + [-1] * (6 - len(order))
            assert found.right[i, : len(order)].tolist() == (gallery.person_id[order] == person).tolist()
            assert found.distance[i, : len(order)].tolist() == distances[q, order].tolist()
            assert not found.right[i, len(order) :].any()
