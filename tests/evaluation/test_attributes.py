import numpy as np
import pytest

from acrn_jax.evaluation import attributes
from tests import oracles

LABELS = np.array([[1, 0, 1, 1], [1, 1, 0, -1], [0, 1, 0, -1], [0, 0, 0, -1]])
PROBABILITIES = np.array([[0.9, 0.6, 0.2, 0.1], [0.4, 0.8, 0.1, 0.9], [0.3, 0.2, 0.3, 0.9], [0.7, 0.5, 0.1, 0.2]])


def test_hand_numbers():
    found = attributes.evaluate(PROBABILITIES, LABELS)
    # Attribute 0: 1 of 2 positives, 1 of 2 negatives. 1: 1 of 2 and (0.5 is not above 0.5) 1 of 2. 2: 0 of 1, 3 of 3.
    np.testing.assert_allclose(found.attribute_mA, [0.5, 0.5, 0.5, np.nan])
    assert found.mA == pytest.approx(0.5)
    assert found.positives.tolist() == [2, 2, 1, 1]
    assert found.negatives.tolist() == [2, 2, 3, 0]
    assert found.undefined == 1
    # Truth {0, 2, 3}, {0, 1}, {1}, {}; said {0, 1}, {1}, {}, {0}. The last image has no positive label and is left out.
    assert found.images == 3
    assert found.accuracy == pytest.approx((1 / 4 + 1 / 2 + 0) / 3)
    assert found.precision == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert found.recall == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert found.f1 == pytest.approx(2 * (1 / 2) * (5 / 18) / (1 / 2 + 5 / 18))


@pytest.mark.parametrize("seed", range(30))
def test_agrees_with_loops(seed):
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, (rng.integers(4, 30), 6))
    labels[0] = 1
    probabilities = rng.random(labels.shape).round(1)
    threshold = rng.random(6).round(1) if seed % 2 else 0.5
    found = attributes.evaluate(probabilities, labels, threshold=threshold)
    each, means = oracles.attributes(probabilities, labels, np.broadcast_to(threshold, 6))
    np.testing.assert_allclose(found.attribute_mA, each)
    assert found.mA == pytest.approx(np.nanmean(each))
    assert [found.accuracy, found.precision, found.recall, found.f1] == pytest.approx(means)


def test_nothing_defined_is_nan_not_a_score():
    found = attributes.evaluate(np.full((3, 2), 0.2), np.zeros((3, 2), int))
    assert np.isnan([found.mA, found.accuracy, found.f1]).all()
    assert (found.undefined, found.images) == (2, 0)


@pytest.mark.parametrize("target", attributes.TARGETS)
def test_calibrated_thresholds_are_the_best(target):
    rng = np.random.default_rng(0)
    for _ in range(200):
        labels = rng.integers(-1, 2, (rng.integers(1, 12), 3)) if rng.random() < 0.5 else rng.integers(0, 2, (9, 3))
        probabilities = rng.random(labels.shape).round(rng.integers(0, 3)).astype(np.float32)
        found = attributes.calibrate(probabilities, labels, target=target)
        for a, (best, cuts) in enumerate(oracles.thresholds(probabilities, labels, target)):
            if best is None:
                assert found[a] == 0.5
                continue
            values = np.unique(probabilities[labels[:, a] != -1, a].astype(float))
            cut = max([v for v in values if v <= found[a]], default=-1)  # says the same as the threshold
            assert cut in cuts
            ends = [(c, min([v for v in values if v > c], default=1)) for c in cuts]
            assert abs(found[a] - 0.5) == pytest.approx(min(abs((low + high) / 2 - 0.5) for low, high in ends))


def test_neighbouring_floats_can_be_told_apart():
    low = np.float32(0.3)
    probabilities = np.array([[low], [np.nextafter(low, np.float32(1))]])
    threshold = attributes.calibrate(probabilities, np.array([[0], [1]]))
    assert attributes.evaluate(probabilities, np.array([[0], [1]]), threshold=threshold).mA == 1


@pytest.mark.parametrize(("target", "expected"), [("mA", [0.5, 0.5]), ("f1", [0.5, -0.5])])
def test_calibration_keeps_the_half_where_the_target_is_undefined(target, expected):
    found = attributes.calibrate(np.full((2, 2), [0.3, 0.0]), np.array([[0, 1], [0, -1]]), target=target)
    assert found.tolist() == expected  # f1 of attribute 1: all yes, although its probability is 0
    with pytest.raises(ValueError, match="for mA or f1, not for 'recall'"):
        attributes.calibrate(PROBABILITIES, LABELS, target="recall")


def test_seen():
    assert attributes.seen(np.array([0, -1, 3, 4]), np.array([4, 5, 0, -1, 3])).tolist() == [1, 0, 0, 0, 1]


def test_between_within():
    person = np.array([1, 2, 1, 2, 0, 0, 3])
    x = np.array([[0.0, 0.5], [0.6, 0.5], [0.2, 0.5], [1.0, 0.5], [9, 9], [5, 5], [7, 7]])
    # Means 0.1 and 0.8, around 0.45: between 0.35^2. Within: (2 * 0.1^2 + 2 * 0.2^2) / (4 - 2).
    np.testing.assert_allclose(attributes.between_within(x, person), [0.1225 / 0.05, np.nan])
    assert np.isnan(attributes.between_within(x, np.arange(7) + 1)).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"\[4, 4\] and \[4, 3\]"):
        attributes.evaluate(PROBABILITIES, LABELS[:, 1:])
    with pytest.raises(ValueError, match=r"1, 0 or -1; got \[2\]"):
        attributes.evaluate(PROBABILITIES, LABELS + 1)
    with pytest.raises(ValueError, match="sigmoid"):
        attributes.evaluate(PROBABILITIES * 5, LABELS)
    with pytest.raises(ValueError, match=r"4 attributes need as many thresholds.*\[3\]"):
        attributes.evaluate(PROBABILITIES, LABELS, threshold=np.full(3, 0.5))


@pytest.mark.parametrize("share", [(0.34, 0.33, 0.33), (0.5, 0.4, 0.1)], ids=["many positive", "many images without"])
def test_recognition_scores_average_to_the_metrics_and_follow_resamples(share):
    rng = np.random.default_rng(0)
    labels = rng.choice((-1, 0, 1), (400, 6), p=share).astype(np.int8)
    labels[:, 5] = np.where(labels[:, :5].max(axis=1) == 1, 1, -1)  # no negatives: mA leaves it out
    labels[:9] = -1  # nothing is known of these
    probabilities = np.clip(0.35 * rng.random((400, 6)) + 0.4 * (labels == 1) + 0.15, 0, 1)
    probabilities[9:40] = 0  # nothing is said of these
    scores = attributes.recognition_scores(probabilities > 0.5, labels)
    whole = attributes.evaluate(probabilities, labels)
    by_loops = oracles.attributes(probabilities, labels, np.full(6, 0.5))[1]
    for name, value in zip(("accuracy", "precision", "recall", "f1"), by_loops, strict=True):
        assert scores[name].mean() == pytest.approx(value), name
    for name, values in scores.items():
        assert values.mean() == pytest.approx(getattr(whole, name)), name
    resampled = []
    for _ in range(40):
        rows = rng.integers(0, 400, 400)
        again = attributes.evaluate(probabilities[rows], labels[rows])
        resampled.append([(values[rows].mean(), getattr(again, name)) for name, values in scores.items()])
    for approximate, exact in np.moveaxis(resampled, 0, 2):
        assert np.abs(approximate - exact).max() < 0.15 * np.ptp(exact) + 1e-9


def test_recognition_scores_of_one_image_and_of_none_that_counts():
    scores = attributes.recognition_scores(np.array([[True, False]]), np.array([[1, 0]], np.int8))
    assert all(scores[name].tolist() == [1.0] for name in ("accuracy", "precision", "recall", "f1"))
    assert np.isnan(scores["mA"]).all()  # neither attribute has both kinds
    nobody = attributes.recognition_scores(np.array([[True], [False]]), np.array([[0], [-1]], np.int8))
    assert np.isnan([values.mean() for values in nobody.values()]).all()  # as the metrics
