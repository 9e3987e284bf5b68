import contextlib

import numpy as np
import pytest

from acrn_jax.evaluation import fusion, protocols, ranking
from acrn_jax.evaluation.metrics import METRICS, RANKS
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
    assert tuple(found.metrics) == tuple(METRICS)
    assert all(found.metrics[f"rank{k}"] == (places[0] <= k) for k in RANKS)


def random_case(rng, protocol):
    """A small case with many ties; junk, distractors and queries without a match are frequent."""
    people = rng.integers(1, 6)
    if protocol.startswith("cuhk03"):  # often one set as both, as CUHK03 is tested
        size = rng.integers(2, 20)
        gallery = Labels(rng.integers(-1, people + 2, size), rng.integers(1, 3, size))
        gallery.person_id[:2], gallery.camera_id[:2] = 1, (1, 2)
        both = rng.random() < 0.5
        shown = gallery.person_id > 0
        query = Labels(gallery.person_id[shown], gallery.camera_id[shown])
        if not both:
            query = Labels(np.append(rng.integers(1, people + 2, 5), [1, 1]), np.append(rng.integers(1, 3, 5), [1, 2]))
    elif protocol == "all_vs_all":
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
@pytest.mark.parametrize("protocol", ["market1501", "cuhk03_new", "single_shot", "all_vs_all"])
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


def listed_draws(protocol, query, gallery):
    """All draws as the protocol makes them: (repeat, round, query, images)."""
    draws = protocol.draw(query, gallery, protocol)
    per_repeat = draws.rounds // protocol.repeats
    for i in range(len(query.person_id)):
        for numbers, images in draws.of(i):
            yield from ((n // per_repeat, n, i, drawn) for n, drawn in zip(numbers, images, strict=True))


DRAWING = [(name, "both") for name, p in protocols.PROTOCOLS.items() if p.draw]
DRAWING += [("cuhk03_single_shot", "1"), ("cuhk03_single_shot", "2")]


@pytest.mark.parametrize("no_match", ["error", "skip", "count_as_miss"])
@pytest.mark.parametrize(("name", "probe_view"), DRAWING)
def test_drawn_rankings_agree_with_loops(name, probe_view, no_match, monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)
    rng, refused = np.random.default_rng(7), 0
    for case in range(60):
        distances, query, gallery = random_case(rng, name)
        protocol = protocols.named(name, repeats=3, seed=case, probe_view=probe_view)
        draws = list(listed_draws(protocol, query, gallery))
        expected = oracles.drawn(distances, query, gallery, name, no_match, draws)
        asked = query
        if probe_view != "both":  # who is never asked needs no match
            view = query.camera_id == int(probe_view)
            asked = Labels(query.person_id[view], query.camera_id[view])
        rows = distances[query.camera_id == int(probe_view)] if probe_view != "both" else distances
        all_shot = oracles.ranking(rows, asked, gallery, name, no_match)
        if expected is None or all_shot is None:
            refused += 1
            with pytest.raises(ValueError, match="right gallery image"):
                ranking.evaluate(distances, query, gallery, protocol=protocol, no_match=no_match)
            continue
        found = ranking.evaluate(distances, query, gallery, protocol=protocol, no_match=no_match)
        means, deviation = expected
        assert tuple(found.metrics) == tuple(METRICS)
        assert found.metrics == pytest.approx(all_shot | means, abs=1e-12)
        assert found.deviation == pytest.approx(deviation, abs=1e-12)
        matched = [any(p == q and c != k for p, c in zip(*gallery, strict=True)) for q, k in zip(*asked, strict=True)]
        assert found.queries_without_match == matched.count(False)
        assert set(np.flatnonzero(found.counted)) == {
            i for _, _, i, images in draws if no_match != "skip" or query.person_id[i] in gallery.person_id[images]
        }
    assert refused < 55


@pytest.mark.parametrize(("name", "probe_view"), DRAWING)
def test_draws_follow_the_rules(name, probe_view):
    rng = np.random.default_rng(8)
    for case in range(30):
        _, query, gallery = random_case(rng, name)
        protocol = protocols.named(name, repeats=2, seed=case, probe_view=probe_view)
        asked = {}
        for _, number, i, images in listed_draws(protocol, query, gallery):
            asked.setdefault(number, []).append(i)
            person, camera = query.person_id[i], query.camera_id[i]
            allowed = [
                j
                for j, (p, c) in enumerate(zip(*gallery, strict=True))
                if (p != -1 and c != camera) or (name == "cuhk03_torchreid" and p not in (-1, person))
            ]
            assert set(images) <= set(allowed) and len(set(images)) == len(images)
            shown = [gallery.person_id[j] for j in images if gallery.person_id[j] > 0]
            assert sorted(shown) == sorted({gallery.person_id[j] for j in allowed} - {0})  # everybody once
            assert {j for j in allowed if gallery.person_id[j] == 0} <= set(images)
        for queries in asked.values():
            if name != "cuhk03_single_shot":
                assert queries == list(range(len(query.person_id)))
                continue
            (view,) = {query.camera_id[i] for i in queries}
            assert probe_view in ("both", str(view))
            wanted = {p for p, c in zip(*query, strict=True) if c == view}
            assert sorted(query.person_id[i] for i in queries) == sorted(wanted)
        assert len(asked) == (4 if (name, probe_view) == ("cuhk03_single_shot", "both") else 2)


def two_views():
    """27 images of 8 people in two views, all as query and gallery; two images of person 2 have nothing to find."""
    kept = ~np.isin(np.arange(32), [1, 6, 7, 12, 29])
    both = Labels(np.repeat(np.arange(1, 9), 4)[kept], np.tile([1, 1, 2, 2], 8)[kept])
    i = np.arange(27)
    spread = (i[:, None] * 13 + i * 29 + i[:, None] * i * 5) % 101 + i / 100
    return spread + np.where(both.person_id[:, None] == both.person_id, 0, 30), both


@pytest.mark.parametrize(
    ("name", "rank1", "rank5"),
    [("cuhk03_torchreid", 0.44038, 0.88486), ("cuhk03_open_reid", 0.45509, 0.92761)],
)
def test_agrees_with_the_libraries_whose_names_the_protocols_carry(name, rank1, rank5):
    """Their evaluators on these distances, with 20,000 draws in place of 10."""
    distances, both = two_views()
    protocol = protocols.named(name, repeats=1000)
    found = ranking.evaluate(distances, both, both, protocol=protocol, no_match="skip")
    assert found.metrics["mAP_precision"] == pytest.approx(0.48587644862877, abs=1e-12)
    error = 5 / np.sqrt(1000)
    assert found.metrics["rank1"] == pytest.approx(rank1, abs=error * found.deviation["rank1"])
    assert found.metrics["rank5"] == pytest.approx(rank5, abs=error * found.deviation["rank5"])
    assert (found.queries_without_match, set(found.deviation)) == (2, {"rank1", "rank5", "rank10", "rank20"})


def test_single_shot_is_what_all_draws_give_on_average():
    """Every probe against every choice of one image a person, counted out for rank 1 and the reciprocal rank."""
    distances, both = two_views()
    people = [p for p in range(1, 9) if p != 2]
    expected = []
    for person in people:
        for view in (1, 2):
            probes = np.flatnonzero((both.person_id == person) & (both.camera_id == view))
            others = [np.flatnonzero((both.person_id == p) & (both.camera_id != view)) for p in range(1, 9)]
            for probe in probes:
                for own in others[person - 1]:
                    before = [  # chances that the image drawn of each other person is nearer
                        np.mean(distances[probe, images] < distances[probe, own])
                        for p, images in enumerate(others, start=1)
                        if p != person and images.size
                    ]
                    count = np.array([1.0])  # of people before
                    for chance in before:
                        count = np.convolve(count, [1 - chance, chance])
                    share = 1 / (2 * len(people) * len(probes) * len(others[person - 1]))
                    expected.append(share * np.array([count[0], count @ (1 / np.arange(1, len(count) + 1))]))
    protocol = protocols.named("cuhk03_single_shot", repeats=1000)
    found = ranking.evaluate(distances, both, both, protocol=protocol, no_match="skip")
    for name, value in zip(("rank1", "mAP_precision"), sum(expected), strict=True):
        assert found.metrics[name] == pytest.approx(value, abs=5 * found.deviation[name] / np.sqrt(1000))
    assert found.metrics["mINP"] == found.metrics["mAP_precision"]
    ways = [
        ranking.evaluate(
            distances, both, both, no_match="skip", protocol=protocols.named("cuhk03_single_shot", probe_view=view)
        ).metrics
        for view in ("1", "2", "both")
    ]
    assert all(ways[2][name] == pytest.approx((ways[0][name] + ways[1][name]) / 2) for name in ways[2])


def test_draws_depend_on_the_seed_alone(monkeypatch):
    distances, both = two_views()
    for name in ("cuhk03_single_shot", "cuhk03_torchreid"):
        first, other = (
            ranking.evaluate(distances, both, both, no_match="skip", protocol=protocols.named(name, seed=seed))
            for seed in (0, 1)
        )
        monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)
        again = ranking.evaluate(distances, both, both, no_match="skip", protocol=protocols.named(name, seed=0))
        np.testing.assert_equal(again, first)
        assert other.metrics["rank1"] != first.metrics["rank1"]
        once = protocols.named(name, repeats=1)
        assert np.isnan(ranking.evaluate(distances, both, both, no_match="skip", protocol=once).deviation["rank1"])


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


def test_many_queries_and_a_gallery_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = (Labels(rng.integers(1, 9, n), rng.integers(0, 3, n)) for n in (100, 70))
    distances = rng.integers(0, 20, (100, 70)).astype(np.float32)
    monkeypatch.setattr(ranking, "_WIDTH", 2)
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 4 * 2 * 64)  # 64 queries at first, cut down to 16 and fewer
    tiles = ranking.Tiles(lambda index, columns: distances[index][:, columns].copy())
    found = ranking.evaluate(tiles, query, gallery, protocol=protocols.MARKET1501, no_match="skip")
    assert found.metrics == pytest.approx(oracles.ranking(distances, query, gallery, "market1501", "skip"))


@pytest.mark.parametrize("protocol", ["market1501", "single_shot", "all_vs_all"])
def test_a_gallery_in_parts_agrees_with_loops(protocol, monkeypatch):
    """With ties on a grid and repeated images, in this part and in others."""
    rng = np.random.default_rng(5)
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 64)
    for case in range(150):
        monkeypatch.setattr(ranking, "_WIDTH", int(rng.integers(1, 9)))
        _, query, gallery = random_case(rng, protocol)
        q, g = len(query.person_id), len(gallery.person_id)
        features = rng.normal(size=(g, 5))[rng.integers(0, g, g)] if case % 2 else rng.integers(0, 2, (g, 5))
        asked = features if protocol == "all_vs_all" else np.concatenate([features[:1], rng.integers(0, 2, (q - 1, 5))])
        rows = fusion.squared_euclidean_rows(asked, features)
        if case % 3 == 0:
            rows = fusion.weighted_sum((0.5, rows), (1.0, fusion.euclidean_rows(asked, features)))
        expected = oracles.ranking(rows(slice(0, q)), query, gallery, protocol, "count_as_miss")
        if expected is None:
            continue
        found = ranking.evaluate(rows, query, gallery, protocol=protocols.named(protocol), no_match="count_as_miss")
        assert found.metrics == pytest.approx(expected, abs=1e-12)


def test_a_gallery_in_parts_is_asked_for_each_distance_once(monkeypatch):
    rng = np.random.default_rng(0)
    query, gallery = (Labels(rng.integers(1, 9, n), rng.integers(0, 3, n)) for n in (60, 70))
    distances, asked = rng.normal(size=(60, 70)), np.zeros((60, 70), int)
    monkeypatch.setattr(ranking, "_WIDTH", 10)

    def tile(index, columns):
        if isinstance(columns, slice):
            asked[index, columns] += 1
        return distances[index][:, columns].copy()

    found = ranking.evaluate(ranking.Tiles(tile), query, gallery, protocol=protocols.MARKET1501)
    assert np.all(asked == 1)
    np.testing.assert_equal(found, ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501))
    distances[40, 50] = np.nan
    with pytest.raises(ValueError, match="query 40 and gallery image 50 is NaN"):
        ranking.evaluate(ranking.Tiles(tile), query, gallery, protocol=protocols.MARKET1501)
    with pytest.raises(ValueError, match=r"queries have no right gallery image"):
        alone = query._replace(person_id=query.person_id + 50)
        ranking.evaluate(ranking.Tiles(tile), alone, gallery, protocol=protocols.MARKET1501)


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_labels_are_refused_before_there_are_distances_as_they_are_with_them(name):
    """`check` says what `evaluate` would say of any distances, and nothing where it would say nothing."""
    said = set()
    for seed in range(60):
        distances, query, gallery = random_case(np.random.default_rng(seed), name)
        for no_match in ("error", "skip", "count_as_miss", "no such policy"):
            case, answers = {"protocol": protocols.PROTOCOLS[name], "no_match": no_match}, []
            for ask, given in ((ranking.evaluate, (distances,)), (ranking.check, ())):
                try:
                    ask(*given, query, gallery, **case)
                    answers.append("")
                except ValueError as error:
                    answers.append(str(error))
            assert answers[0] == answers[1], (seed, no_match)
            said.add(answers[0].lstrip("0123456789 ")[:12])
    assert "" in said and len(said) > 1


def test_one_query_that_shows_nobody_is_refused():
    with pytest.raises(ValueError, match=r"1 queries show no person .*, the first is query 1"):
        ranking.evaluate(np.ones((3, 3)), labels([1, 0, 2]), labels([1, 2, 3]), protocol=protocols.MULTI_SHOT)


def test_a_match_in_a_view_that_is_not_asked_is_none():
    query, gallery = labels([1, 2], [1, 2]), labels([2, 3], [1, 2])  # person 2 alone, asked in view 2
    for view in ("1", "2"):
        case = {"protocol": protocols.named("cuhk03_single_shot", probe_view=view), "no_match": "skip"}
        for ask, given in ((ranking.evaluate, (np.ones((2, 2)),)), (ranking.check, ())):
            with contextlib.nullcontext() if view == "2" else pytest.raises(ValueError, match="None of 2 queries has"):
                ask(*given, query, gallery, **case)


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


@pytest.mark.parametrize("protocol", ["market1501", "single_shot", "all_vs_all", "cuhk03_single_shot"])
def test_rank_list_is_a_stable_sort(protocol):
    rng, by_camera = np.random.default_rng(3), protocol in ("market1501", "cuhk03_single_shot")
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
                and not (by_camera and (gallery.person_id[g], gallery.camera_id[g]) == (person, camera))
            ][:6]
            assert found.order[i].tolist() == order + [-1] * (6 - len(order))
            assert found.right[i, : len(order)].tolist() == (gallery.person_id[order] == person).tolist()
            assert found.distance[i, : len(order)].tolist() == distances[q, order].tolist()
            assert not found.right[i, len(order) :].any()
