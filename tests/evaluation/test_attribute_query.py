"""Wish lists, their ranking and their intervals, against loops, enumeration and finite differences."""

import itertools
import math

import numpy as np
import pytest

from acrn_jax.evaluation import attribute_query as aq
from acrn_jax.evaluation.attribute_query import WishList
from acrn_jax.schema import UNKNOWN

NAMES = list("abcdef")


def made(images=300, attributes=6, seed=0, unknown=0.05):
    """Labels of people of three images each, and probabilities that know something."""
    rng = np.random.default_rng(seed)
    person = np.arange(images) // 3 + 1
    share = np.linspace(0.1, 0.5, attributes)
    labels = (rng.random((images // 3, attributes)) < share)[person - 1].astype(np.int8)
    logits = 1.5 * (2 * labels - 1) + rng.normal(size=labels.shape) * 2
    labels[rng.random(labels.shape) < unknown] = UNKNOWN
    return labels, 1 / (1 + np.exp(-logits)), person


def kind_of(labels, wishes):
    """Of one image: "right", "wrong" or "unknown"."""
    states = [None if labels[a] == UNKNOWN else labels[a] == wanted for a, wanted in wishes.items()]
    return "wrong" if False in states else "unknown" if None in states else "right"


def test_lists_are_what_they_say():
    labels, *_ = made()
    lists = aq.draw(labels, each=6, seed=3)
    assert lists == aq.draw(labels, each=6, seed=3) != aq.draw(labels, each=6, seed=4)
    assert len({tuple(sorted(wish.wishes.items())) for wish in lists}) == len(lists)
    for wish in lists:
        kinds = [kind_of(row, wish.wishes) for row in labels]
        above, to = aq.BANDS[wish.band]
        assert above < kinds.count("right") / (kinds.count("right") + kinds.count("wrong")) <= to
        assert 1 in wish.wishes.values() and 1 <= len(wish.wishes) <= 5
    cells = [(wish.number, wish.band) for wish in lists]
    assert max(map(cells.count, cells)) == 6 and {number for number, _ in cells} == {1, 2, 3, 4, 5}
    with pytest.raises(ValueError, match="No wish list can be drawn"):
        aq.draw(np.ones((4, 2), np.int8))


def test_what_is_stored_comes_back_and_what_does_not_fit_is_told():
    labels, *_ = made()
    lists = aq.draw(labels, each=3)
    stored = aq.to_json(lists, NAMES)
    assert aq.of_json(stored, NAMES, labels) == [w._replace(wishes=dict(sorted(w.wishes.items()))) for w in lists]
    order = [3, 1, 0, 2, 5, 4]
    moved = aq.of_json(stored, [NAMES[i] for i in order], labels[:, order])
    assert aq.digest(moved, [NAMES[i] for i in order]) == aq.digest(lists, NAMES) != aq.digest(lists[1:], NAMES)
    for wrong, message in (
        ([], "no wish lists"),
        ({"lists": 1}, "Wish lists are"),
        ([{"want": ["hat"], "not": [], "band": "rare"}], "list 0 wishes for hat"),
        ([{"want": [], "not": [], "band": "rare"}], "No image is right for wish list 0"),
    ):
        with pytest.raises(ValueError, match=message):
            aq.of_json(wrong, NAMES, labels)


@pytest.mark.parametrize(
    ("rule", "cost"),
    [
        ("squares", lambda p: (1 - p) ** 2),
        ("product", lambda p: -math.log(p)),
        ("log_odds", lambda p: math.log((1 - p) / p)),
    ],
)
def test_scores_are_those_of_loops(rule, cost):
    labels, probabilities, _ = made(60)
    probabilities[30:] = probabilities[:30]  # ties between people
    lists = aq.draw(labels, each=4)
    found = aq.score(lambda wish: aq.costs(probabilities, wish.wishes, rule), labels, lists).per_list
    for number, wish in enumerate(lists):
        shown = []
        for i, row in enumerate(labels):
            kind = kind_of(row, wish.wishes)
            total = sum(cost(probabilities[i, a] if w else 1 - probabilities[i, a]) for a, w in wish.wishes.items())
            if kind != "unknown":
                shown.append((total, i, kind == "right"))
        order = [right for *_, right in sorted(shown)]
        ranks = [place for place, right in enumerate(order, 1) if right]
        wrong = len(order) - len(ranks)
        assert found["mAP_precision"][number] == pytest.approx(np.mean([(n + 1) / r for n, r in enumerate(ranks)]))
        for k in (1, 5, 10):
            assert found[f"rank{k}"][number] == (ranks[0] <= k)
        for k in (5, 10, 20):
            assert found[f"precision{k}"][number] == pytest.approx(sum(order[:k]) / k)
        for far in aq.FAR:
            accepted, alarms = 0, 0
            for right in order:
                alarms += not right
                if alarms > far * wrong + 1e-9:
                    break
                accepted += right
            assert found[f"recall_far{far:g}"][number] == pytest.approx(accepted / len(ranks))


def test_random_is_the_mean_over_all_orders():
    labels = np.array([[1], [1], [0], [0], [0], [-1]], np.int8)
    wish = WishList({0: 1}, "frequent")
    every = [
        aq.score(lambda _, order=order: np.array([*order, 0]), labels, [wish]).per_list
        for order in itertools.permutations(range(5))
    ]
    for name, values in aq.expected(labels, [wish]).per_list.items():
        assert values[0] == pytest.approx(np.mean([found[name][0] for found in every])), name


def test_influence_is_the_derivative_by_an_images_weight():
    rng = np.random.default_rng(0)
    hit = (rng.random(12) < 0.4).astype(float)

    def weighted(weight):
        total = sum(weight * hit)
        return sum(weight[i] * hit[i] * sum((weight * hit)[: i + 1]) / sum(weight[: i + 1]) for i in range(12)) / total

    step = 1e-6 * np.eye(12)
    slopes = [(weighted(1 + step[i]) - weighted(1 - step[i])) / 2e-6 for i in range(12)]
    np.testing.assert_allclose(aq._influence(hit), slopes, atol=1e-8)


def test_intervals_are_about_those_of_rankings_of_drawn_people():
    labels, probabilities, person = made(300, unknown=0)
    lists = [wish for wish in aq.draw(labels, each=5) if wish.band in ("common", "frequent")]

    def score(rows):
        return aq.score(lambda wish: aq.costs(probabilities[rows], wish.wishes), labels[rows], lists)

    rng, drawn = np.random.default_rng(0), []
    images = np.arange(300).reshape(100, 3)
    for _ in range(150):
        rows = images[rng.integers(0, 100, 100)].ravel()
        drawn.append(score(rows).mean()["mAP_precision"])
    interval = aq.intervals({"net": score(np.arange(300))}, person, resamples=2000)["net"]
    assert interval.mean == pytest.approx(score(np.arange(300)).mean()["mAP_precision"])
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.2)
    alone = aq.intervals({"net": score(np.arange(300))}, np.zeros(300, int), resamples=2000)["net"]
    assert alone.high - alone.low < 0.93 * (interval.high - interval.low)  # images of one person resemble each other


def test_rows_stand_in_the_right_order_and_the_oracle_is_perfect():
    labels, probabilities, person = made()
    lists = aq.draw(labels, each=5)
    found = aq.evaluate(probabilities, labels, person, NAMES, lists, weights={"product": np.ones(6)})
    rows = found["rows"]
    assert list(rows) == ["product", "squares", "log_odds", "learned_product", "marginal", "oracle", "random"]
    assert rows["learned_product"]["metrics"] == rows["product"]["metrics"]
    assert rows["oracle"]["metrics"]["mAP_precision"] == rows["oracle"]["metrics"]["recall_far0.001"] == 1
    mAP = {name: row["metrics"]["mAP_precision"] for name, row in rows.items()}
    assert mAP["random"] + 0.1 < mAP["product"] < 1 and abs(mAP["marginal"] - mAP["random"]) < 0.05
    assert rows["squares"]["change"]["mean"] == pytest.approx(mAP["squares"] - mAP["product"])
    assert rows["oracle"]["change"]["low"] > 0 and "interval" not in rows["random"] and "change" not in rows["product"]
    assert sum(found["counts"]["by_number"].values()) == sum(found["counts"]["by_band"].values()) == len(lists)
    by = rows["product"]["by_band"]
    assert mAP["product"] == pytest.approx(
        sum(n * by[band] for band, n in found["counts"]["by_band"].items()) / len(lists)
    )
    with pytest.raises(ValueError, match="as many person ids"):
        aq.evaluate(probabilities, labels, person[1:], NAMES, lists)
    with pytest.raises(ValueError, match=r"lie in \[0, 1\]"):
        aq.evaluate(probabilities * 2, labels, person, NAMES, lists)


def test_learned_weights_silence_an_attribute_that_knows_nothing():
    labels, probabilities, _ = made(600, unknown=0)
    probabilities = probabilities.copy()
    probabilities[:, 2] = np.random.default_rng(5).random(600)
    weights = aq.learn(probabilities, labels, aq.draw(labels, each=10))
    assert weights[2] < 0.4 * np.delete(weights, 2).min() and weights.shape == (6,)
