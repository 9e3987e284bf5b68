"""Probabilities of one person and thresholds for strangers, against counting."""

import itertools

import numpy as np
import pytest

from acrn_jax.evaluation import strangers, verdict


def test_a_curve_is_the_share_of_one_person_where_both_kinds_weigh_the_same():
    same, different = [1.0, 1, 1, 2] * 5, [1.0, 2, 2, 2, 2, 2, 2, 2] * 5
    curve = verdict.fit(same, different)
    np.testing.assert_allclose(curve.distance, [1, 2])
    np.testing.assert_allclose(curve.probability, [0.75 / (0.75 + 1 / 8), 0.25 / (0.25 + 7 / 8)])
    half = curve.probabilities(np.array([0.0, 1.5, 9]))
    np.testing.assert_allclose(half, [curve.probability[0], curve.probability.mean(), curve.probability[1]])
    rare = curve.probabilities(2.0, prior=0.1)  # 1 pair in 10: odds of the two kinds times 1/9
    np.testing.assert_allclose(rare / (1 - rare), 0.25 / (7 / 8) / 9)
    for wrong in (0, 1, -1, np.nan):
        with pytest.raises(ValueError, match="between 0 and 1"):
            curve.probabilities(1.0, prior=wrong)
    with pytest.raises(ValueError, match="two of each"):
        verdict.fit([1.0], different)
    with pytest.raises(ValueError, match="not finite"):
        verdict.fit([1.0, np.nan], different)


def test_calibration_error_by_hand():
    found = verdict.reliability([0.95, 0.95, 0.15], [0.15, 0.15, 0.15])
    np.testing.assert_allclose(found.same[[1, 9]], [(1 / 6) / (1 / 6 + 1 / 2), 1])
    assert found.error == pytest.approx(2 / 3 * abs(0.15 - 0.25) + 1 / 3 * 0.05)


def test_false_alarms_are_those_of_all_parts_of_the_gallery():
    rng = np.random.default_rng(0)
    distance, own = rng.random((4, 8)), np.zeros((4, 8), bool)
    own[:, :2], distance[:, 0] = True, 0
    searches = strangers.Searches(distance, own, np.array([1, 1, 2, 3]))
    alarms = [min(row[list(part)]) < 0.2 for row in distance[:, 2:] for part in itertools.combinations(range(6), 3)]
    assert 0 < np.mean(alarms) < 1
    assert strangers.alarm_rate(searches, 0.2, 3) == pytest.approx(np.mean(alarms))


def test_thresholds_keep_the_wanted_share_and_fall_with_the_gallery():
    rng = np.random.default_rng(1)
    searches = strangers.Searches(rng.random((200, 300)), np.zeros((200, 300), bool), np.arange(200) // 2)
    found = strangers.thresholds([searches])
    assert found.rate[0] == 0.01 and found.size[-1] == 300
    assert (np.diff(found.threshold, axis=0) <= 0).all() and (np.diff(found.threshold, axis=1) >= 0).all()
    assert (found.low <= found.high).all()
    threshold, low, high = found.of(0.1, 300)
    assert low < threshold < high
    assert 0.07 < np.mean(searches.distance.min(axis=1) < threshold) <= 0.1
    assert threshold == pytest.approx(1 - 0.9 ** (1 / 300), rel=0.4)
    assert found.of(0.1, 10**6) == found.of(0.1, 300)
    with pytest.raises(ValueError, match="was not measured"):
        found.of(0.001, 300)
