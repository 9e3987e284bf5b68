"""Chance by all orders there are, and the sentences about scores that no distances give."""

import itertools

import numpy as np
import pytest

from acrn_jax.evaluation import hints, protocols, ranking
from acrn_jax.schema import Labels
from tests import oracles

QUERY = Labels(np.array([1, 2, 1]), np.array([0, 1, 1]))
GALLERY = Labels(np.array([1, 1, 2, 0, -1, 1]), np.array([1, 0, 0, 1, 0, 0]))


@pytest.mark.parametrize("no_match", ["skip", "count_as_miss"])
@pytest.mark.parametrize("name", ["market1501", "multi_shot"])
def test_chance_is_the_mean_over_all_orders(name, no_match):
    orders = list(itertools.permutations(range(6)))
    expected = np.mean([oracles.ranking([o] * 3, QUERY, GALLERY, name, no_match)["mAP_precision"] for o in orders])
    protocol = protocols.named(name)
    found = ranking.evaluate(np.zeros((3, 6)), QUERY, GALLERY, protocol=protocol, no_match=no_match)
    assert found.chance == pytest.approx(expected)


def test_chance_over_drawn_galleries_is_that_of_one_right_image_among_the_drawn():
    query = gallery = Labels(np.repeat(np.arange(1, 8), 2), np.tile([1, 2], 7))
    protocol = protocols.named("cuhk03_single_shot")
    found = ranking.evaluate(np.zeros((14, 14)), query, gallery, protocol=protocol)
    assert found.chance == pytest.approx(sum(1 / rank for rank in range(1, 8)) / 7)


def scored(distances, query, gallery):
    return ranking.evaluate(distances, query, gallery, protocol=protocols.MARKET1501)


def test_similarities_are_told_with_the_numbers():
    rng, person = np.random.default_rng(0), np.arange(1, 21)
    query, gallery = Labels(person, 0 * person), Labels(person, 0 * person + 1)
    distances = rng.random((20, 20)) + 1 - np.eye(20)
    found = scored(distances, query, gallery)
    assert found.chance == pytest.approx(sum(1 / rank for rank in range(1, 21)) / 20)  # 18 %
    assert hints.hints(found, distances, of="distances") == []
    upside_down = scored(-distances, query, gallery)
    (told,) = hints.hints(upside_down, -distances, of="distances")
    assert "mAP of 5.0 % is far below chance: random ones give an mAP of 18.0 %" in told and "similarities?" in told
    (told,) = hints.hints(upside_down, lambda index: -distances[index])
    assert "18.0 %" in told and "cameras rather than people" in told


def test_chance_itself_is_no_reason_for_a_hint():
    for seed in range(30):
        rng = np.random.default_rng(seed)
        query, gallery = (Labels(rng.integers(1, 9, n), np.full(n, camera)) for n, camera in ((30, 0), (60, 1)))
        distances = rng.random((30, 60))
        assert hints.hints(scored(distances, query, gallery), distances) == []


@pytest.mark.parametrize("value", [0.0, 0.3, 1e9, -2.5])
def test_a_feature_that_is_the_same_for_all_images_is_told(value):
    person = np.arange(1, 11)
    query, gallery = Labels(person, 0 * person), Labels(person, 0 * person + 1)
    distances = np.full((10, 10), value, np.float32)
    (told,) = hints.hints(scored(distances, query, gallery), distances)
    assert "equally far from all gallery images" in told and "29.3 %" in told  # (1 + 1/2 + ... + 1/10) / 10


def test_a_gallery_of_one_image_cannot_be_told_apart():
    one = Labels(np.array([1]), np.array([1]))
    assert hints.hints(scored(np.ones((1, 1)), Labels(np.array([1]), np.array([0])), one), np.ones((1, 1))) == []


def test_nothing_but_misses_is_no_score():
    person = np.arange(1, 6)
    query = gallery = Labels(person, 0 * person)
    for no_match in ("skip", "count_as_miss"):
        with pytest.raises(ValueError, match=r"None of 5 queries has a right gallery image .*; 5 of them have images"):
            ranking.evaluate(np.ones((5, 5)), query, gallery, protocol=protocols.MARKET1501, no_match=no_match)
