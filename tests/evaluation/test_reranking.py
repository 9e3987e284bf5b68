import numpy as np
import pytest

from acrn_jax.evaluation import fusion, reranking


def dense(distance, queries, k1, k2, weight):
    """Image by image, from the formulas alone; distance [N, N]."""
    images, distance = len(distance), np.asarray(distance).tolist()
    order = [sorted(range(images), key=lambda j, i=i: (distance[i][j], j)) for i in range(images)]

    def reciprocal(k):
        near = [set(places[: k + 1]) for places in order]
        return [{j for j in near[i] if i in near[j]} for i in range(images)]

    scaled = [[d / (max(row) or 1) for d in row] for row in distance]
    vectors, whole, half = np.zeros((images, images)), reciprocal(k1), reciprocal(round(k1 / 2))
    for i, own in enumerate(whole):
        expanded = set(own)
        for j in own:
            if len(own & half[j]) > 2 / 3 * len(half[j]):
                expanded |= half[j]
        for j in expanded:
            vectors[i, j] = np.exp(-scaled[i][j])
        if expanded:
            vectors[i] /= vectors[i].sum()
    if k2 > 1:
        vectors = np.array([np.mean([vectors[j] for j in order[i][:k2]], axis=0) for i in range(images)])
    result = np.zeros((queries, images - queries))
    for q in range(queries):
        for g in range(queries, images):
            shared = sum(min(a, b) for a, b in zip(vectors[q].tolist(), vectors[g].tolist(), strict=True) if a and b)
            result[q, g - queries] = (1 - weight) * (1 - shared / (2 - shared)) + weight * scaled[q][g]
    return result


def squared(features):
    return np.sum((features[:, None] - features[None]) ** 2, axis=2)


def random_case(rng):
    """Few images, often on a grid, so that distances tie, or repeated."""
    images, size = rng.integers(3, 16), rng.integers(1, 5)
    features = rng.normal(size=(images, size))
    kind = rng.integers(4)
    if kind == 1:
        features = np.round(2 * features)
    elif kind == 2:
        features = features[rng.integers(0, images, images)]
    elif kind == 3:
        features = rng.integers(0, 2, (images, size)).astype(float)
    settings = {"k1": rng.integers(1, images), "k2": rng.integers(1, min(images, 8) + 1), "weight": rng.random()}
    return features.astype(np.float32), int(rng.integers(1, images)), settings


@pytest.mark.parametrize("seed", range(4))
def test_equals_the_formulas(seed, monkeypatch):
    rng = np.random.default_rng(seed)
    for case in range(60):
        monkeypatch.setattr(reranking, "_BLOCK_BYTES", int(rng.choice([1, 1 << 24])))
        features, queries, settings = random_case(rng)
        expected = dense(squared(features.astype(np.float64)), queries, **settings)
        found = reranking.rerank(features[:queries], features[queries:], **settings)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=f"{case} {settings}")
        rows = fusion.squared_euclidean_rows(features, features)
        given = reranking.rerank_rows(rows, queries, len(features), **settings)
        np.testing.assert_allclose(given, expected, atol=1e-5, err_msg=f"{case} {settings}")


def test_combined_distance_equals_its_embedding():
    rng = np.random.default_rng(0)
    feature, attribute = rng.normal(size=(60, 8)), rng.random((60, 5))
    parts = (fusion.squared_euclidean_rows(values, values) for values in (feature, attribute))
    rows = fusion.weighted_sum(*zip((1 / 4, 0.5 / 0.3), parts, strict=True))
    z = np.concatenate([feature / 2, np.sqrt(0.5 / 0.3) * attribute], axis=1)
    np.testing.assert_allclose(reranking.rerank_rows(rows, 20, 60), reranking.rerank(z[:20], z[20:]), atol=1e-5)


def test_the_defaults_at_more_images_in_any_block(monkeypatch):
    rng = np.random.default_rng(0)
    person = rng.integers(0, 10, 200)
    features = (rng.normal(size=(10, 16))[person] + rng.normal(size=(200, 16))).astype(np.float32)
    features[133] = features[7]
    found = reranking.rerank(features[:40], features[40:])
    np.testing.assert_allclose(found, dense(squared(features.astype(np.float64)), 40, 20, 6, 0.3), atol=1e-5)
    monkeypatch.setattr(reranking, "_BLOCK_BYTES", 1)
    np.testing.assert_allclose(reranking.rerank(features[:40], features[40:]), found, atol=1e-6)
    right = person[:40, None] == person[None, 40:]
    before, after = (
        np.take_along_axis(right, np.argsort(d, axis=1)[:, :10], axis=1).mean()
        for d in (squared(features)[:40, 40:], found)
    )
    assert after > before + 0.05


def test_weight_1_is_the_distance_and_equal_images_have_none():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(40, 4)).astype(np.float32)
    distance = squared(features)
    found = reranking.rerank(features[:10], features[10:], weight=1.0)
    np.testing.assert_allclose(found, (distance / distance.max(axis=1, keepdims=True))[:10, 10:], atol=1e-5)
    same = np.ones((8, 3), np.float32)
    np.testing.assert_allclose(
        reranking.rerank(same[:2], same[2:], k1=3), dense(np.zeros((8, 8)), 2, 3, 6, 0.3), atol=1e-6
    )


@pytest.mark.parametrize("width", [1, 5, 63, 64, 65, 700, 1031])
def test_nearest_is_a_stable_sort(width):
    rng = np.random.default_rng(width)
    for kinds in (2, 30, 10**6):
        matrix = rng.integers(0, kinds, (9, width)).astype(np.float32)
        for k in {1, min(3, width), width}:
            assert np.array_equal(reranking.nearest(matrix, k), np.argsort(matrix, axis=1, kind="stable")[:, :k])


def test_refusals():
    x = np.random.default_rng(0).normal(size=(9, 4))
    with pytest.raises(ValueError, match=r"k1 is 20; with 9 images .* 1 to 8"):
        reranking.rerank(x[:4], x[4:])
    with pytest.raises(ValueError, match=r"k2 is 10; .* 1 to 9"):
        reranking.rerank(x[:4], x[4:], k1=3, k2=10)
    with pytest.raises(ValueError, match=r"weight .* 1\.5; it can be 0 to 1"):
        reranking.rerank(x[:4], x[4:], k1=3, weight=1.5)
    with pytest.raises(ValueError, match=r"\[4, 4\] and \[5, 3\]"):
        reranking.rerank(x[:4], x[4:, :3], k1=3)
    with pytest.raises(ValueError, match="at least one query and one gallery image"):
        reranking.rerank(x[:0], x, k1=3)
    with pytest.raises(ValueError, match=r"images 0 to 8 are \[9, 8\], not \[9, 9\]"):
        reranking.rerank_rows(lambda index: squared(x)[index, 1:], 4, 9, k1=3)
    distance = squared(x)
    distance[3, 5] = np.nan
    with pytest.raises(ValueError, match="images 0 to 8 is NaN or infinite"):
        reranking.rerank_rows(lambda index: distance[index], 4, 9, k1=3)
    x[6, 1] = np.inf
    with pytest.raises(ValueError, match="gallery row 2 are not all finite"):
        reranking.rerank(x[:4], x[4:], k1=3)
