import numpy as np
import pytest

from acrn_jax.evaluation import kissme
from tests import oracles


def data(seed, size=60, width=5, cameras=3):
    rng = np.random.default_rng(seed)
    person = rng.integers(-1, 8, size)
    x = 3 + rng.normal(size=(9, width))[person] + rng.normal(size=(size, width)) * np.linspace(0.2, 2, width)
    return x, person, rng.integers(0, cameras, size)


def inverse(covariance, ridge):
    return np.linalg.inv(covariance + ridge * np.trace(covariance) / len(covariance) * np.eye(len(covariance)))


@pytest.mark.parametrize("cameras", ["known", "unknown", "partly", None])
@pytest.mark.parametrize("ridge", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(5))
def test_closed_form_agrees_with_pair_loops(seed, ridge, cameras):
    x, person, camera = data(seed)
    if cameras == "unknown":
        camera[:] = -1
    elif cameras == "partly":
        camera[np.flatnonzero(person > 0)[0]] = -1
    camera = None if cameras is None else camera
    similar, dissimilar, counts = oracles.kissme_covariances(x, person, camera)
    expected = inverse(similar, ridge) - inverse(dissimilar, ridge)
    found = kissme.fit(x, person, camera, ridge=ridge, project=False)
    np.testing.assert_allclose(found.matrix, expected, rtol=1e-9, atol=1e-9)
    assert [found.similar_pairs, found.dissimilar_pairs] == counts
    assert found.factor is None
    if not ridge:
        assert found.similar_condition == pytest.approx(np.linalg.cond(similar))
        assert found.dissimilar_condition == pytest.approx(np.linalg.cond(dissimilar))


def test_projection_is_the_nearest_positive_matrix():
    x, person, camera = data(1)
    free, found = (kissme.fit(x, person, camera, project=project) for project in (False, True))
    values, vectors = np.linalg.eigh(free.matrix)
    assert values[0] < 0 < values[-1]
    np.testing.assert_allclose(found.matrix, vectors * np.maximum(values, 0) @ vectors.T, atol=1e-9)
    np.testing.assert_allclose(found.factor @ found.factor.T, found.matrix, atol=1e-12)


def test_pca_fits_in_the_leading_components():
    x, person, camera = data(2)
    shown = person > 0
    basis = np.linalg.svd(x[shown] - x[shown].mean(axis=0))[2][:3].T
    inside = kissme.fit(x @ basis, person, camera, project=False)
    found = kissme.fit(x, person, camera, pca=3, project=False)
    np.testing.assert_allclose(found.matrix, basis @ inside.matrix @ basis.T, atol=1e-9)
    assert np.linalg.matrix_rank(kissme.fit(x, person, camera, pca=3).factor) <= 3


@pytest.mark.parametrize("project", [True, False])
def test_rows_are_the_quadratic_form(project):
    x, person, camera = data(3)
    metric = kissme.fit(x, person, camera, project=project)
    query, gallery = x[:6], x[6:40]
    difference = query[:, None] - gallery[None]
    expected = np.einsum("qga,ab,qgb->qg", difference, metric.matrix, difference)
    found = kissme.rows(metric, query, gallery)(slice(1, 6))
    np.testing.assert_allclose(found, expected[1:], rtol=1e-3, atol=1e-3)


def test_collinear_attributes_need_the_ridge():
    x, person, camera = data(4)
    x = np.concatenate([x, 1 - x[:, :1]], axis=1)  # as two ages that exclude each other
    assert np.isfinite(kissme.fit(x, person, camera).matrix).all()
    with pytest.raises(ValueError, match=r"singular .* raise ridge"):
        kissme.fit(x, person, camera, ridge=0)


def test_refusals():
    x, person, camera = data(5)
    with pytest.raises(ValueError, match="no pair of one person"):
        kissme.fit(x, np.arange(len(x)) + 1, camera)
    with pytest.raises(ValueError, match="no pair of one person"):
        kissme.fit(x, person, person + 1)  # everyone in one camera
    with pytest.raises(ValueError, match="no pair of two people"):
        kissme.fit(x, np.ones_like(person), camera)
    with pytest.raises(ValueError, match="no training image shows a person"):
        kissme.fit(x, np.zeros_like(person), camera)
    with pytest.raises(ValueError, match="pca is 6; it wants 1 to 5"):
        kissme.fit(x, person, camera, pca=6)
    with pytest.raises(ValueError, match=r"\[60, 5\], \[59\]"):
        kissme.fit(x, person[1:], camera)
    x[0, 0] = np.nan
    with pytest.raises(ValueError, match="NaN or infinite"):
        kissme.fit(x, person, camera)
