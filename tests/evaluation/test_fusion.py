import jax
import numpy as np
import pytest
from scipy.spatial import distance

from acrn_jax.evaluation import fusion

BLOCKS = [slice(0, 7), slice(3, 4), np.array([5, 0, 5])]


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(7, 33)), rng.normal(size=(41, 33))


@pytest.mark.parametrize("index", BLOCKS)
@pytest.mark.parametrize(
    ("name", "metric"), [("squared_euclidean", "sqeuclidean"), ("euclidean", "euclidean"), ("cosine", "cosine")]
)
def test_distances_agree_with_scipy(name, metric, index):
    query, gallery = data()
    found = fusion.distance_rows(name, query, gallery)(index)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, distance.cdist(query, gallery, metric)[index], rtol=1e-5, atol=1e-5)


def test_no_distance_below_zero():
    query = np.full((3, 50), 1e3) + data()[0][:3, :1]
    assert fusion.squared_euclidean_rows(query, query)(slice(0, 3)).min() >= 0
    assert np.isfinite(fusion.euclidean_rows(query, query)(slice(0, 3))).all()


@pytest.mark.parametrize("name", [*fusion.DISTANCES, "mahalanobis", "sum"])
def test_equal_rows_have_equal_distances(name):
    query, gallery = data()
    same = np.arange(37) % 3  # an odd number of rows: the bare product treats the last ones otherwise
    gallery = gallery[same]
    gallery[:, 0] = np.where(np.arange(37) < 36, 0.0, -0.0)
    if name == "mahalanobis":
        rows = fusion.mahalanobis_rows(query, gallery, np.diag(np.arange(33) - 9.0))
    elif name == "sum":
        parts = (fusion.distance_rows(kind, query, gallery) for kind in fusion.DISTANCES)
        rows = fusion.weighted_sum(*zip((0.1, 0.7, 3), parts, strict=True))
    else:
        rows = fusion.distance_rows(name, query, gallery)
    for index in BLOCKS:
        found = rows(index)
        assert np.array_equal(found, found[:, same])
        assert len(np.unique(found[0])) == 3


@pytest.mark.parametrize("name", [*fusion.DISTANCES, "mahalanobis"])
def test_tiles_of_a_mapped_file_in_any_type_without_a_copy(name, tmp_path, monkeypatch):
    monkeypatch.setattr(fusion, "_SMALL_BYTES", 0)
    monkeypatch.setattr(fusion, "_PART", 8)
    query, gallery = data()
    gallery[[30, 17, 9]] = gallery[3]
    metric = np.diag(np.arange(33) - 9.0)

    def made(values):
        if name == "mahalanobis":
            return fusion.mahalanobis_rows(query, values, metric)
        return fusion.distance_rows(name, query, values)

    whole = made(gallery.astype(np.float32))(slice(0, 7))
    for dtype, tolerance in ((np.float32, 1e-5), (np.float64, 1e-5), (np.float16, 5e-3)):
        np.save(tmp_path / "gallery.npy", gallery.astype(dtype))
        mapped = np.load(tmp_path / "gallery.npy", mmap_mode="r")
        rows = made(mapped)
        scale = np.abs(whole).max()
        np.testing.assert_allclose(rows(slice(0, 7)), whole, atol=tolerance * scale)
        parts = [rows.tile(slice(0, 7), columns) for columns in (np.arange(5), slice(5, 20), np.arange(20, 41))]
        joined = np.concatenate(parts, axis=1)
        np.testing.assert_allclose(joined, whole, atol=tolerance * scale)
        assert np.array_equal(joined[:, [30, 17, 9]], joined[:, [3, 3, 3]])
        assert rows.tile(slice(0, 7), np.arange(0)).shape == (7, 0)


@pytest.mark.parametrize("name", fusion.DISTANCES)
@pytest.mark.parametrize("images", [5, 41])
def test_devices_agree_with_numpy(name, images):
    query, gallery = data()
    gallery = gallery[:images]
    gallery[[4, 2]] = gallery[1]
    for devices in (None, jax.devices()[:1]):  # all eight
        rows = fusion.device_rows(name, query, gallery, devices=devices)
        for index in BLOCKS:
            found = rows(index)
            np.testing.assert_allclose(found, fusion.distance_rows(name, query, gallery)(index), rtol=1e-4, atol=1e-5)
            assert found.flags.writeable and np.array_equal(found[:, [4, 2]], found[:, [1, 1]])


def test_mahalanobis_is_the_quadratic_form():
    query, gallery = (values + 100 for values in data())
    matrix = np.random.default_rng(1).normal(size=(33, 33))
    matrix += matrix.T  # indefinite
    difference = query[:, None] - gallery[None]
    expected = np.einsum("qga,ab,qgb->qg", difference, matrix, difference)
    found = fusion.mahalanobis_rows(query, gallery, matrix)(slice(2, 7))
    assert expected.min() < 0
    np.testing.assert_allclose(found, expected[2:], rtol=1e-4, atol=1e-2)


def test_weighted_sum():
    query, gallery = data()
    parts = [(0.25, fusion.cosine_rows(query, gallery)), (2.0, fusion.euclidean_rows(query, gallery))]
    expected = distance.cdist(query, gallery, "cosine") / 4 + 2 * distance.cdist(query, gallery)
    for _ in range(2):  # the parts are not changed by use
        np.testing.assert_allclose(fusion.weighted_sum(*parts)(slice(0, 7)), expected, rtol=1e-5, atol=1e-5)


def test_refusals():
    query, gallery = data()
    with pytest.raises(ValueError, match=r"got \[7, 33\] and \[41, 32\]"):
        fusion.squared_euclidean_rows(query, gallery[:, 1:])
    with pytest.raises(ValueError, match=r"\[0, 33\]"):
        fusion.cosine_rows(query, gallery[:0])
    with pytest.raises(ValueError, match="no distance 'manhattan'; choose one of squared_euclidean"):
        fusion.distance_rows("manhattan", query, gallery)
    with pytest.raises(ValueError, match="no distance 'manhattan'"):
        fusion.device_rows("manhattan", query, gallery)
    gallery[4] = 0
    with pytest.raises(ValueError, match="gallery row 4 is all zeros"):
        fusion.device_rows("cosine", query, gallery)
    with pytest.raises(ValueError, match="gallery row 4 is all zeros"):
        fusion.cosine_rows(query, gallery)
