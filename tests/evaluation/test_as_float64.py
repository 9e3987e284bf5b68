"""Feature files whose distances float32 alone loses score as plain float64 loops over differences do."""

import numpy as np
import pytest

from acrn_jax.evaluation import (
    expansion,
    fusion,
    kissme,
    methods,
    operating_points,
    protocols,
    ranking,
    reranking,
    score,
)
from acrn_jax.schema import Labels
from tests import oracles

PEOPLE, WIDTH = 12, 24
QUERY = Labels(np.arange(PEOPLE) + 1, np.zeros(PEOPLE, int))
GALLERY = Labels(np.tile(np.arange(PEOPLE), 5) + 1, np.ones(5 * PEOPLE, int))


def ordinary():
    rng = np.random.default_rng(0)
    centre = rng.normal(size=(PEOPLE, WIDTH))
    query, gallery = centre.copy(), np.tile(centre, (5, 1))
    return query + 1.2 * rng.normal(size=query.shape), gallery + 1.2 * rng.normal(size=gallery.shape)


def outlier(query, gallery):
    gallery = gallery.copy()
    gallery[7] = 1e7
    return query, gallery


def two_heaps(query, gallery):
    """Half the people lie a long way off, so that no origin is near everybody."""
    return query + 3e4 * (QUERY.person_id % 2)[:, None], gallery + 3e4 * (GALLERY.person_id % 2)[:, None]


def far_query(query, gallery):
    query = query.copy()
    query[3] += 1e6
    return query, gallery


def tight(query, gallery):
    """People in pairs that are alike but for a ten-thousandth."""
    pair = np.random.default_rng(1).normal(size=(PEOPLE, WIDTH))
    return tuple(
        pair[(labels.person_id - 1) // 2] + 1e-4 * values
        for labels, values in ((QUERY, query), (GALLERY, gallery))
    )  # fmt: skip


DIRECTION = np.random.default_rng(2).normal(size=WIDTH)
CASES = {
    "ordinary": lambda q, g: (q, g),
    "common 3e3": lambda q, g: (q + 3e3 * DIRECTION, g + 3e3 * DIRECTION),
    "common 3e3, float32": lambda q, g: ((q + 3e3 * DIRECTION).astype("f"), (g + 3e3 * DIRECTION).astype("f")),
    "common 100, float16": lambda q, g: ((q + 100).astype(np.float16), (g + 100).astype(np.float16)),
    "common 1e9": lambda q, g: (q + 1e9, g + 1e9),
    "integers": lambda q, g: (np.round(q * 9 + 1e8).astype(np.int64), np.round(g * 9 + 1e8).astype(np.int64)),
    "tiny": lambda q, g: (q * 1e-30, g * 1e-30),
    "tiny, float32": lambda q, g: ((q * 1e-25).astype("f"), (g * 1e-25).astype("f")),
    "huge": lambda q, g: (q * 1e50, g * 1e50),
    "outlier": outlier,
    "two heaps": two_heaps,
    "two heaps, float32": lambda q, g: tuple(x.astype("f") for x in two_heaps(q, g)),
    "far query": far_query,
    "tight": tight,
}


@pytest.fixture(params=CASES)
def features(request):
    return CASES[request.param](*ordinary())


def squared(query, gallery):
    return np.array([[np.sum((q - g) ** 2) for g in gallery.astype(float)] for q in query.astype(float)])


def unit(values):
    values = values.astype(float)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


EXACT = {
    "squared_euclidean": squared,
    "euclidean": lambda q, g: np.sqrt(squared(q, g)),
    "cosine": lambda q, g: squared(unit(q), unit(g)) / 2,
}


def scores(distances):
    return oracles.ranking(distances, QUERY, GALLERY, "market1501", "error")


@pytest.mark.parametrize("distance", EXACT)
def test_a_file_scores_as_in_float64(features, distance, tmp_path):
    query, gallery = features
    wanted = EXACT[distance](query, gallery)
    found = fusion.distance_rows(distance, query, gallery)
    np.testing.assert_allclose(found(slice(0, PEOPLE)), wanted, rtol=2e-5)
    tiles = [found.tile(slice(2, 9), columns) for columns in (slice(0, 7), np.arange(7, 60))]
    np.testing.assert_allclose(np.concatenate(tiles, axis=1), wanted[2:9], rtol=2e-5)
    arrays = {f"{who}_{k}": v for who, of in (("query", QUERY), ("gallery", GALLERY)) for k, v in of._asdict().items()}
    np.savez(tmp_path / "f.npz", query_features=query, gallery_features=gallery, **arrays)
    results = score.score_files(
        [tmp_path / "f.npz"], protocol=protocols.MARKET1501, distance=distance, operating_points=True
    )
    assert results["methods"]["features"] == pytest.approx(scores(wanted), abs=1e-9)
    exact = operating_points.roc(wanted, QUERY, GALLERY, protocol=protocols.MARKET1501, fpr=(1e-3, 1e-2))
    assert [point["tpr"] for point in results["operating_points"]["roc"]] == pytest.approx(list(exact.tpr))


def test_parts_of_a_large_gallery_score_alike(features, monkeypatch):
    whole = fusion.squared_euclidean_rows(*features)(slice(0, PEOPLE))
    monkeypatch.setattr(fusion, "_SMALL_BYTES", 0)
    monkeypatch.setattr(fusion, "_PART", 16)
    np.testing.assert_allclose(fusion.squared_euclidean_rows(*features)(slice(0, PEOPLE)), whole, rtol=2e-5)


def test_expansion_re_ranking_and_metric_too(features):
    query, gallery = features
    nearest = np.argsort(squared(query, gallery), axis=1, kind="stable")[:, :3]
    wide = query.astype(float), gallery.astype(float)
    wanted = np.array([(q + wide[1][near].sum(axis=0)) / 4 for q, near in zip(wide[0], nearest, strict=True)])
    scale = np.abs(wide[0]).max()
    np.testing.assert_allclose(expansion.average(query, gallery, k=3), wanted, rtol=1e-12, atol=1e-14 * scale)

    both = np.concatenate([query, gallery])
    whole = squared(both, both)
    wanted = reranking.rerank_rows(lambda index: whole[index], PEOPLE, len(both), k1=5, k2=2)
    np.testing.assert_allclose(reranking.rerank(query, gallery, k1=5, k2=2), wanted, rtol=1e-4, atol=1e-5)

    metric = kissme.fit(np.random.default_rng(3).normal(size=(60, WIDTH)), np.arange(60) // 3 + 1)
    differences = wide[0][:, None] - wide[1][None]
    wanted = np.einsum("qga,ab,qgb->qg", differences, metric.matrix, differences)
    for rows in (kissme.rows(metric, query, gallery), fusion.mahalanobis_rows(query, gallery, metric.matrix)):
        np.testing.assert_allclose(rows(slice(0, PEOPLE)), wanted, rtol=1e-4)


def test_methods_with_saturated_attributes():
    """Attributes near 1 are told apart by their last digits, features by theirs."""
    query, gallery = (1 - 1e-6 / (1 + np.exp(-x)) for x in ordinary())
    features = [x + 1e6 for x in ordinary()]
    weights = np.random.default_rng(4).random(WIDTH)
    rows = methods.rows(
        methods.Features(*features), methods.Attributes(query, gallery, scale=1e-12), weights, gamma=0.5
    )
    wanted = squared(*features) + 0.5e12 * squared(weights * query, weights * gallery)
    np.testing.assert_allclose(rows["ACRN"](slice(0, PEOPLE)), wanted, rtol=1e-4)
    result = ranking.evaluate(rows["ACRN"], QUERY, GALLERY, protocol=protocols.MARKET1501)
    assert result.metrics == pytest.approx(scores(wanted), abs=1e-9)


@pytest.mark.parametrize("distance", EXACT)
@pytest.mark.parametrize("case", ["common 3e3, float32", "tight", "huge"])
def test_devices_too(case, distance):
    query, gallery = CASES[case](*ordinary())
    rows = fusion.device_rows(distance, query, gallery)
    np.testing.assert_allclose(rows(np.arange(3, 9)), EXACT[distance](query, gallery)[3:9], rtol=2e-5)
