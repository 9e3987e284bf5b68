"""What each phase minimises: composed by hand from the losses, and who gets a gradient."""

import jax
import numpy as np
import pytest

from acrn_jax.losses import objectives
from acrn_jax.schema import Outputs

SETTINGS = {
    "kind": "acrn", "miner": "batch_hard", "mine_on": "combined", "gamma": 0.5, "distance": "squared_euclidean",
    "distance_scale": "raw", "margin": 1.0, "soft": False, "temperature": 1.0, "reduction": "mean",
    "attribute_gradient": "stop", "identity_weight": 0.0, "smoothing": 0.0, "attribute_margin": 0.5,
    "attribute_miner": "batch_all", "attribute_weights": "learned", "attribute_weights_file": None,
    "weight_form": "raw",
}  # fmt: skip
START = {"feature": np.float32(0), "attribute": np.float32(0)}  # nothing is measured yet


def data(seed=0, b=6, d=3, a=4):
    rng = np.random.default_rng(seed)
    f, p = rng.normal(size=(b, d)).astype(np.float32), rng.random((b, a)).astype(np.float32)
    return f, p, np.array([0, 0, 1, 1, 2, 2], np.int32), rng.random(a).astype(np.float32) + 0.5


def reid_loss(*, miner, neck=False, given=None, memory_after=0, **settings):
    return objectives.ReidLoss(objectives.LossSettings(**settings), miner, neck, given, memory_after)


def run(settings, f, p, person, w, scales=START):
    objective = reid_loss(**settings)
    outputs = Outputs(feature=f, trained_feature=f)
    return objective({"attribute_weights": {"raw": w}}, outputs, {"person": person, "probabilities": p}, scales)


def by_loops(f, p, person, w, *, s_f=1.0, s_a=1.0, gamma=0.5, margin=1.0, attribute_margin=0.5):
    """L_acrn with batch-hard mining on the combined distance, plus L_att over all triplets."""
    b = len(f)
    d_f = [[((f[i] - f[j]) ** 2).sum() / s_f for j in range(b)] for i in range(b)]
    d_w = [[((w * p[i] - w * p[j]) ** 2).sum() / s_a for j in range(b)] for i in range(b)]
    total = [[d_f[i][j] + gamma * d_w[i][j] for j in range(b)] for i in range(b)]
    main, attribute = [], []
    for i in range(b):
        positives = [j for j in range(b) if j != i and person[j] == person[i]]
        negatives = [j for j in range(b) if person[j] != person[i]]
        main.append(max(0, margin + max(total[i][j] for j in positives) - min(total[i][j] for j in negatives)))
        attribute += [max(0, attribute_margin + d_w[i][j] - d_w[i][k]) for j in positives for k in negatives]
    return np.mean(main) + np.mean(attribute)


def test_acrn_with_attribute_loss_by_loops():
    f, p, person, w = data()
    loss, (scalars, _) = run(SETTINGS, f, p, person, w)
    np.testing.assert_allclose(loss, by_loops(f, p, person, w), rtol=1e-5)
    main = by_loops(f, p, person, w, attribute_margin=-1e9)
    np.testing.assert_allclose(scalars["attribute_loss"], loss - main, rtol=1e-4)
    np.testing.assert_allclose(scalars["weight_rms"], np.sqrt(np.mean(w**2)), rtol=1e-6)


def test_unit_mean_measures_first_then_moves_slowly():
    f, p, person, w = data()
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    s_f = np.mean([((f[i] - f[j]) ** 2).sum() for i, j in pairs])
    s_a = np.mean([((p[i] - p[j]) ** 2).sum() for i, j in pairs])  # of a, not of w * a: w keeps its own scale
    settings = SETTINGS | {"distance_scale": "unit_mean"}
    loss, (scalars, scales) = run(settings, f, p, person, w)
    np.testing.assert_allclose([scales["feature"], scales["attribute"]], [s_f, s_a], rtol=1e-5)
    np.testing.assert_allclose(loss, by_loops(f, p, person, w, s_f=s_f, s_a=s_a), rtol=1e-5)
    np.testing.assert_allclose(scalars["spread"], s_f, rtol=1e-5)
    _, (_, moved) = run(settings, 2 * f, p, person, w, scales)
    np.testing.assert_allclose(moved["feature"], 0.95 * s_f + 0.05 * 4 * s_f, rtol=1e-5)


def test_without_a_neck_the_scale_is_that_of_the_feature_that_is_trained():
    f, p, person, w = data()
    objective = reid_loss(**SETTINGS | {"distance_scale": "unit_mean"})
    given = ({"attribute_weights": {"raw": w}}, Outputs(3 * f, f), {"person": person, "probabilities": p}, START)
    _, (_, scales) = run(SETTINGS | {"distance_scale": "unit_mean"}, f, p, person, w)
    np.testing.assert_allclose(objective(*given)[1][1]["feature"], scales["feature"], rtol=1e-6)


def test_with_a_neck_the_scale_is_that_of_the_feature_that_is_ranked():
    f, p, person, w = data()
    settings = SETTINGS | {"distance_scale": "unit_mean", "neck": True}
    batch = {"person": person, "probabilities": p}
    params, ranked = {"attribute_weights": {"raw": w}}, 3 * f[:, ::-1] - 1
    _, (_, first) = reid_loss(**settings)(params, Outputs(ranked, ranked), batch, START)
    for scales in (START, first):  # the loss divides by the batch's own mean distance, at the first step and later
        loss, (scalars, moved) = reid_loss(**settings)(params, Outputs(ranked, f), batch, scales)
        np.testing.assert_allclose(moved["feature"], 9 * scalars["spread"], rtol=1e-5)
        plain, (other, _) = run(SETTINGS | {"distance_scale": "unit_mean"}, f, p, person, w)
        np.testing.assert_allclose([loss, scalars["spread"]], [plain, other["spread"]], rtol=1e-5)


@pytest.mark.parametrize("distance", ["squared_euclidean", "euclidean", "cosine"])
def test_equal_points_say_nothing_about_a_scale(distance):
    f, p, person, w = data()
    equal = np.tile(np.array([0.3, 0.1, 0.7, 1e-3], np.float32), (6, 1))
    equal[3] *= 1 + 1e-7  # up to rounding
    settings = SETTINGS | {"distance_scale": "unit_mean", "distance": distance}
    pairs = [(i, j) for i in range(6) for j in range(6) if i != j]
    of = {
        "squared_euclidean": lambda x, y: ((x - y) ** 2).sum(),
        "euclidean": lambda x, y: np.sqrt(((x - y) ** 2).sum()),
        "cosine": lambda x, y: 1 - (x @ y) / np.sqrt((x @ x) * (y @ y)),
    }[distance]
    s_a = np.mean([of(*p.astype(np.float64)[[i, j]]) for i, j in pairs])
    ordinary = run(settings, f, p, person, w)
    loss, (scalars, scales) = run(settings, f, equal, person, w)  # the first batch
    assert scales["attribute"] == 0 and np.isfinite(loss) and scalars["attribute_loss"] == pytest.approx(0.5, abs=1e-4)
    second, (_, scales) = run(settings, f, p, person, w, scales)
    np.testing.assert_allclose(scales["attribute"], s_a, rtol=1e-4)
    np.testing.assert_allclose(second, ordinary[0], rtol=1e-4)
    _, (_, scales) = run(settings, f, equal, person, w, scales)  # nor later
    np.testing.assert_allclose(scales["attribute"], s_a, rtol=1e-4)


def test_a_scale_of_exactly_one_is_a_scale():
    f, p, person, w = data()
    ones = {name: np.float32(1) for name in START}
    _, (_, first) = run(SETTINGS | {"distance_scale": "unit_mean"}, f, p, person, w)
    _, (_, moved) = run(SETTINGS | {"distance_scale": "unit_mean"}, f, p, person, w, ones)
    np.testing.assert_allclose(moved["feature"], 0.95 + 0.05 * first["feature"], rtol=1e-6)


def test_with_a_neck_raw_distances_keep_their_size_at_test():
    f, p, person, w = data()
    batch, params = {"person": person, "probabilities": p}, {"attribute_weights": {"raw": w}}
    ranked = 3 * f[:, ::-1] - 1  # 9 times as far apart
    loss, (_, scales) = reid_loss(**SETTINGS, neck=True)(params, Outputs(ranked, f), batch, START)
    np.testing.assert_allclose([scales["feature"], scales["attribute"]], [9, 1], rtol=1e-5)
    np.testing.assert_allclose(loss, by_loops(f, p, person, w), rtol=1e-5)  # of the trained feature, as it is


def test_only_the_attribute_loss_trains_the_weights():
    f, p, person, w = data()
    flow = {}
    for gradient in ("stop", "flow"):
        for margin in (0.5, 0.0):  # m_att 0 and well separated attributes: L_att is silent
            settings = SETTINGS | {"attribute_gradient": gradient, "attribute_margin": margin}
            separated = np.eye(4, dtype=np.float32)[person] if margin == 0 else p
            grad = jax.grad(lambda w, s=settings, a=separated: run(s, f, a, person, w)[0])(w)
            flow[gradient, margin] = np.abs(grad).sum()
    assert flow["stop", 0.5] > 0 and flow["stop", 0.0] == 0 and flow["flow", 0.0] > 0


def test_classic_needs_no_attributes():
    f, _, person, _ = data()
    objective = reid_loss(**SETTINGS | {"kind": "classic"})
    loss, (scalars, scales) = objective({}, Outputs(trained_feature=f), {"person": person}, START)
    zero = np.zeros((6, 1), np.float32)
    np.testing.assert_allclose(loss, by_loops(f, zero, person, np.zeros(1), attribute_margin=0), rtol=1e-5)
    assert scales["attribute"] == 1 and "switched_on" not in scalars


@pytest.mark.parametrize("kind", ["uniform", "given"])
def test_weights_that_are_not_learned(kind):
    f, p, person, w = data()
    given = None if kind == "uniform" else w
    settings = SETTINGS | {"attribute_weights": kind, "given": given}
    objective = reid_loss(**settings)
    loss, (scalars, _) = objective({}, Outputs(trained_feature=f), {"person": person, "probabilities": p}, START)
    fixed = np.ones(4) if kind == "uniform" else w
    attribute_part = by_loops(f, p, person, fixed) - by_loops(f, p, person, fixed, attribute_margin=-1e9)
    np.testing.assert_allclose(loss, by_loops(f, p, person, fixed) - attribute_part, rtol=1e-5)
    assert "attribute_loss" not in scalars


@pytest.mark.parametrize("kind", ["acrn", "classic"])
def test_identity_loss_beside_the_triplets_is_added_with_its_weight(kind):
    f, p, person, w = data()
    logits = np.random.default_rng(3).normal(size=(6, 3)).astype(np.float32)
    batch = {"person": person, "probabilities": p}
    params, outputs = {"attribute_weights": {"raw": w}}, Outputs(f, f, identity_logits=logits)
    without, _ = reid_loss(**SETTINGS | {"kind": kind})(params, outputs, batch, START)
    settings = SETTINGS | {"kind": kind, "identity_weight": 0.7, "smoothing": 0.3}
    loss, (scalars, _) = reid_loss(**settings)(params, outputs, batch, START)
    each = []
    for row, who in zip(logits.astype(np.float64), person, strict=True):
        wanted = [0.7 * (place == who) + 0.3 / 3 for place in range(3)]
        each.append(-sum(t * (z - np.log(np.exp(row).sum())) for t, z in zip(wanted, row, strict=True)))
    np.testing.assert_allclose(scalars["identity_loss"], np.mean(each), rtol=1e-5)
    np.testing.assert_allclose(loss, without + 0.7 * np.mean(each), rtol=1e-5)


def test_identity_by_hand():
    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]], np.float32))
    objective = objectives.IdentityLoss(smoothing=0.0)
    loss, (scalars, _) = objective({}, Outputs(identity_logits=logits), {"person": np.array([0, 2])}, START)
    np.testing.assert_allclose(loss, -(np.log(0.7) + np.log(0.25)) / 2, rtol=1e-5)
    assert scalars["accuracy"] == 0.5


def test_attributes_by_hand():
    logits = np.zeros((2, 2), np.float32)  # every probability is one half
    labels = np.array([[1, 0], [1, -1]], np.int8)
    objective = objectives.AttributeLoss(
        positive_weight=np.array([3.0, 1.0]), negative_weight=np.array([1.0, 5.0]), reduction="sum"
    )
    loss, _ = objective({}, Outputs(attribute_logits=logits), {"attributes": labels}, START)
    np.testing.assert_allclose(loss, (3 + 5 + 3) * np.log(2) / 2, rtol=1e-6)
    logits = np.array([[0.5, 0.5], [2.0, 3.0]], np.float32)
    _, (scalars, _) = objective({}, Outputs(attribute_logits=logits), {"attributes": labels}, START)
    np.testing.assert_allclose(scalars["accuracy"], 2 / 3)  # of three that are known
