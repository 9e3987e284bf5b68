import numpy as np
import pytest
from scipy.spatial import distance

from acrn_jax import schema
from acrn_jax.evaluation import kissme, methods, protocols, ranking
from acrn_jax.schema import Labels

RNG = np.random.default_rng(0)
FEATURE = {name: (RNG.normal(size=(4, 8)), RNG.normal(size=(9, 8))) for name in ("acrn", "baseline")}
QUERY, GALLERY, TRAIN = (RNG.random((n, 3)) for n in (4, 9, 40))
TRAIN_LABELS = Labels(RNG.integers(1, 6, 40), RNG.integers(0, 2, 40))
WEIGHTS = np.array([2.0, -1.0, 0.5])


def rows(**changes):
    given = {
        "acrn": methods.Features(*FEATURE["acrn"], scale=4.0),
        "attributes": methods.Attributes(QUERY, GALLERY, scale=0.5, train=TRAIN, train_labels=TRAIN_LABELS),
        "weights": WEIGHTS,
        "gamma": 0.3,
        "baseline": methods.Features(*FEATURE["baseline"], scale=10.0),
        "tuned_factor": 0.07,
    }
    return methods.rows(**(given | changes))


@pytest.mark.parametrize(
    ("name", "metric"), [("squared_euclidean", "sqeuclidean"), ("euclidean", "euclidean"), ("cosine", "cosine")]
)
def test_eight_rows(name, metric):
    found = rows(distance=name)
    own, base = (distance.cdist(*FEATURE[run], metric) for run in ("acrn", "baseline"))
    plain, weighted = distance.cdist(QUERY, GALLERY, metric), distance.cdist(QUERY * WEIGHTS, GALLERY * WEIGHTS, metric)
    expected = {
        "ReIdCNN": base,
        "Attributes": plain,
        "ReIdCNN+Attributes": base / 10 + 0.5 * plain / 0.5,
        "ACRN": own / 4 + 0.3 * weighted / 0.5,
        "Attributes-weighted": weighted,
        "ReIdCNN+Attributes-tuned": base / 10 + 0.07 * plain / 0.5,
        "ReIdCNN+Attributes-weighted": base / 10 + 0.3 * weighted / 0.5,
    }
    assert tuple(found) == schema.METHODS
    for method, values in expected.items():
        np.testing.assert_allclose(found[method](slice(0, 4)), values, rtol=1e-4, atol=1e-5, err_msg=method)
    matrix = kissme.fit(TRAIN, *TRAIN_LABELS).matrix
    difference = QUERY[:, None] - GALLERY[None]
    values = np.einsum("qga,ab,qgb->qg", difference, matrix, difference)
    np.testing.assert_allclose(found["Attributes-KISSME"](slice(0, 4)), values, rtol=1e-3, atol=1e-3)


def test_rows_that_lack_an_input_are_left_out():
    attributes = methods.Attributes(QUERY, GALLERY)
    assert tuple(rows(baseline=None, attributes=attributes)) == ("Attributes", "ACRN", "Attributes-weighted")
    assert set(schema.METHODS) - set(rows(tuned_factor=None)) == {"ReIdCNN+Attributes-tuned"}
    with pytest.raises(ValueError, match=r"3 attributes want as many weights, got \[2\]"):
        rows(weights=WEIGHTS[1:])


def test_people_of_one_camera_have_a_kissme_row_too():
    one = Labels(TRAIN_LABELS.person_id, np.ones(40, int))
    attributes = methods.Attributes(QUERY, GALLERY, scale=0.5, train=TRAIN, train_labels=one)
    matrix = kissme.fit(TRAIN, TRAIN_LABELS.person_id).matrix  # pairs whatever their cameras
    difference = QUERY[:, None] - GALLERY[None]
    values = np.einsum("qga,ab,qgb->qg", difference, matrix, difference)
    np.testing.assert_allclose(
        rows(attributes=attributes)["Attributes-KISSME"](slice(0, 4)), values, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("cameras", ["several", "one", "unknown"])
def test_tuned_factor_is_the_best_candidate(cameras):
    rng = np.random.default_rng(1)
    person = np.repeat(np.arange(1, 31), 4)
    camera = {"several": np.tile([0, 0, 1, 2], 30), "one": np.ones(120, int), "unknown": np.full(120, -1)}[cameras]
    feature = rng.normal(size=(31, 8))[person] + 1.2 * rng.normal(size=(120, 8))
    attribute = (rng.random((31, 6)) > 0.5)[person] * 0.4 + rng.random((120, 6))
    person[7] = 0  # a distractor is left out
    shown = person > 0
    given = {"feature_scale": 3.0, "attribute_scale": 0.2, "candidates": (0.0, 0.1, 1.0, 100.0)}
    best, scores = methods.tune_factor(feature, attribute, Labels(person, camera), **given)
    f, a = (distance.cdist(x[shown], x[shown], "sqeuclidean").astype(np.float32) for x in (feature, attribute))
    labels = Labels(person[shown], camera[shown])
    protocol = protocols.MARKET1501 if cameras == "several" else protocols.ALL_VS_ALL
    for factor, score in scores.items():
        expected = ranking.evaluate(f / 3 + factor * a / 0.2, labels, labels, protocol=protocol)
        assert score == pytest.approx(expected.metrics["mAP_precision"], abs=1e-3)
    assert scores[best] == max(scores.values()) > max(scores[0.0], scores[100.0])
