import numpy as np
import pytest
from scipy import optimize

from acrn_jax.evaluation import calibration

RNG = np.random.default_rng(0)
TRUE = RNG.normal(size=(400, 5)) * 2
LABELS = (RNG.random((400, 5)) < 1 / (1 + np.exp(-(0.5 * TRUE - 1)))).astype(np.int8)
LABELS[::7] = -1


def test_platt_is_the_minimum_and_makes_probabilities_true():
    found = calibration.platt(TRUE, LABELS)
    assert found.fitted.all()
    for i in range(5):
        x, y = TRUE[LABELS[:, i] >= 0, i], LABELS[LABELS[:, i] >= 0, i]
        plus, minus = np.sum(y == 1), np.sum(y == 0)
        t = np.where(y == 1, (plus + 1) / (plus + 2), 1 / (minus + 2))

        def loss(c, x=x, t=t):
            p = 1 / (1 + np.exp(-(c[0] * x + c[1])))
            return -np.sum(t * np.log(p) + (1 - t) * np.log(1 - p))

        best = optimize.minimize(loss, [0.3, 0.0], method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-10}).x
        assert (found.slope[i], found.offset[i]) == pytest.approx(tuple(best), abs=1e-4)
    raw, better = 1 / (1 + np.exp(-TRUE)), found.probabilities(TRUE)
    assert np.all(calibration.expected_error(better, LABELS) < calibration.expected_error(raw, LABELS) - 0.05)


def test_platt_leaves_alone_what_it_cannot_fit():
    logits = np.array([[-2.0, 1.0, 3.0, 1.0], [-1.0, 2.0, 1.0, 1.0], [1.0, 3.0, -1.0, 1.0], [4.0, 4.0, -2.0, 1.0]])
    labels = np.array([[0, 1, 0, 0], [0, 1, 0, 1], [1, 1, 1, 0], [1, -1, 1, 1]])
    found = calibration.platt(logits, labels)  # separable, no negative, turned round, constant
    assert found.fitted.tolist() == [True, False, False, False] and 0 < found.slope[0] < 100
    np.testing.assert_allclose(found.probabilities(logits)[:, 1:], 1 / (1 + np.exp(-logits[:, 1:])))


def test_expected_error_by_loops():
    p, labels = RNG.random((200, 3)), RNG.integers(-1, 2, (200, 3))
    p[:4, 0] = (0.0, 0.1, 1.0, 0.95)
    labels[:, 2] = -1
    found = calibration.expected_error(p, labels)
    assert np.isnan(found[2])
    for i in range(2):
        error, known = 0.0, np.sum(labels[:, i] >= 0)
        for b in range(10):
            inside = [j for j in range(200) if labels[j, i] >= 0 and b / 10 <= p[j, i] < (b + 1) / 10 + (b == 9)]
            if inside:
                gap = np.mean([p[j, i] for j in inside]) - np.mean([labels[j, i] for j in inside])
                error += len(inside) / known * abs(gap)
        assert found[i] == pytest.approx(error, abs=1e-9)
    assert calibration.expected_error(np.array([[0.8], [0.8]]), np.array([[1], [1]]))[0] == pytest.approx(0.2)
