import re

import numpy as np
import pytest

from acrn_jax.evaluation import protocols, ranking
from acrn_jax.schema import Labels


def labels(person, camera):
    return Labels(np.array(person), np.array(camera))


def test_market1501_wants_cameras():
    query, gallery = labels([1, 2], [1, 1]), labels([1, 0, -1], [-1, -1, -1])
    with pytest.raises(ValueError, match=r"1 of 3 gallery images have no camera.*single_shot or all_vs_all"):
        protocols.MARKET1501.check(query, gallery)
    gallery.camera_id[0] = 2
    protocols.MARKET1501.check(query, gallery)  # distractors and junk need none


def test_single_shot_wants_one_image_a_person():
    gallery = labels([5, 5, 4, 4, 4, 0, 0, -1, -1], [-1] * 9)
    protocols.SINGLE_SHOT.check(labels([3], [-1]), gallery)  # nobody asks for 4 or 5
    with pytest.raises(ValueError, match="person 5 has 2"):
        protocols.SINGLE_SHOT.check(labels([5], [-1]), gallery)
    with pytest.raises(ValueError, match="person 4 has 3"):
        protocols.SINGLE_SHOT.check(labels([5, 4], [-1, -1]), gallery)


@pytest.mark.parametrize("gallery", [([1, 2, 3], [0, 0, 0]), ([2, 1], [0, 0]), ([1, 2], [0, 1])])
def test_all_vs_all_wants_one_set(gallery):
    with pytest.raises(ValueError, match=f"2 query and {len(gallery[0])} gallery"):
        protocols.ALL_VS_ALL.check(labels([1, 2], [0, 0]), labels(*gallery))


@pytest.mark.parametrize("name", ["cuhk03_new", "cuhk03_single_shot", "cuhk03_torchreid", "cuhk03_open_reid"])
@pytest.mark.parametrize(("cameras", "shown"), [([1, 1, 1], "1 camera ids (1)"), ([1, 2, 5], "3 camera ids (1, 2, 5)")])
def test_cuhk03_wants_two_views(name, cameras, shown):
    query, gallery = labels([1, 2], cameras[:2]), labels([1, 0, -1], [*cameras[1:], 9])
    with pytest.raises(ValueError, match=rf"{re.escape(shown)}; choose market1501"):
        protocols.named(name).check(query, gallery)
    protocols.named(name).check(labels([1], [3]), labels([1, 0, -1], [5, 3, 9]))  # junk is of no view


@pytest.mark.parametrize(("probe_view", "found"), [("2", "view 2 .* 0 queries and 1"), ("both", "view 2 .* 0 queries")])
def test_single_shot_wants_queries_of_the_probe_view(probe_view, found):
    protocol = protocols.named("cuhk03_single_shot", probe_view=probe_view)
    query, gallery = labels([1, 1], [1, 1]), labels([1, 1], [1, 2])
    with pytest.raises(ValueError, match=f"{found}.*set probe_view"):
        protocol.draw(query, gallery, protocol)
    protocol = protocols.named("cuhk03_single_shot", probe_view="1")
    assert protocol.draw(query, gallery, protocol).probes.all()


def test_options_belong_to_the_protocols_that_draw():
    assert protocols.named("market1501", repeats=3).options == {}
    assert protocols.named("cuhk03_torchreid", repeats=3, probe_view="1").options == {"repeats": 3, "seed": 0}
    found = protocols.named("cuhk03_single_shot", seed=5, probe_view="2").options
    assert found == {"repeats": 10, "seed": 5, "probe_view": "2"}
    for wrong in ({"repeats": 0}, {"seed": -1}, {"probe_view": "3"}):
        with pytest.raises(ValueError, match=f"got .*{next(iter(wrong.values()))}"):
            protocols.named("cuhk03_single_shot", **wrong)


def test_multi_shot_ranks_everything_but_the_image_itself():
    query, gallery = labels([1, 2, 3], [1, 1, 1]), labels([1, 1, 2, 2, 3, 0, -1], [1] * 7)
    keys = np.array(["a", "b", "c"]), np.array(["a", "d", "e", "b", "f", "g", "h"])
    # The image itself is nearest in all three; then come wrong and right ones.
    distances = np.array([[0, 3, 1, 2, 4, 5, 0], [1, 2, 3, 0, 4, 5, 0], [5, 4, 3, 2, 1, 0, 0]], float)
    protocol = protocols.without_itself(protocols.MULTI_SHOT, *keys)
    found = ranking.evaluate(distances, query, gallery, protocol=protocol)
    assert found.first_rank.tolist() == [3, 3, 2] and found.queries_without_match == 0
    with_itself = ranking.evaluate(distances, query, gallery, protocol=protocols.MULTI_SHOT)
    assert with_itself.first_rank.tolist() == [1, 1, 2]  # files of features have no keys
    order = ranking.rank_list(distances, query, gallery, protocol=protocol, k=7).order
    assert order.tolist() == [[2, 3, 1, 4, 5, -1, -1], [0, 1, 2, 4, 5, -1, -1], [5, 4, 3, 2, 1, 0, -1]]


def test_an_image_is_not_its_own_match_under_any_protocol():
    query, gallery = labels([1, 2], [1, 1]), labels([1, 2, 0], [1, 1, 1])
    protocol = protocols.without_itself(protocols.SINGLE_SHOT, np.array(["a", "b"]), np.array(["a", "c", "d"]))
    found = ranking.evaluate(np.zeros((2, 3)), query, gallery, protocol=protocol, no_match="count_as_miss")
    assert found.queries_without_match == 1 and found.metrics["rank1"] == 0 and found.metrics["rank5"] == 0.5


@pytest.mark.parametrize("no_match", ["error", "skip"])
def test_one_camera_everywhere_is_told_what_scores_it(no_match):
    query, gallery = labels([1, 2, 3], [1, 1, 1]), labels([1, 1, 2, 4], [1] * 4)
    with pytest.raises(ValueError, match=r"under market1501.*; 2 of them have images that it leaves out, .*multi_shot"):
        ranking.evaluate(np.zeros((3, 4)), query, gallery, protocol=protocols.MARKET1501, no_match=no_match)
    ranking.evaluate(np.zeros((3, 4)), query, gallery, protocol=protocols.MULTI_SHOT, no_match="skip")


def test_named():
    assert all(protocols.named(name).name == name for name in protocols.PROTOCOLS)
    with pytest.raises(ValueError, match=r"no protocol 'market'; did you mean market1501\? Known are market1501, "):
        protocols.named("market")


def test_same_person_pairs_come_in_order():
    rng = np.random.default_rng(0)
    query, gallery = (labels(rng.integers(1, 5, n), np.zeros(n, int)) for n in (30, 20))
    rows, columns = protocols.same_person(query, gallery)(slice(7, 25))
    expected = [(q, g) for q in range(7, 25) for g in range(20) if query.person_id[q] == gallery.person_id[g]]
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected


def test_multi_query_is_the_mean_of_the_same_person_and_camera():
    boxes = labels([1, 1, 1, 2], [1, 1, 2, 1])
    features = np.array([[1.0, 0], [3, 0], [9, 9], [0, 5]])
    found = protocols.multi_query(features, boxes, labels([2, 1], [1, 1]))
    assert found.tolist() == [[0, 5], [2, 0]]
    with pytest.raises(ValueError, match=r"query 1 \(person 2, camera 2\) has no box"):
        protocols.multi_query(features, boxes, labels([1, 2], [1, 2]))
