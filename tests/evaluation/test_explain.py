import numpy as np
import pytest

from acrn_jax.evaluation import explain, fusion, protocols
from acrn_jax.schema import Labels

Q, G, D, A = 9, 40, 6, 4
RNG = np.random.default_rng(0)
F = [RNG.normal(size=(n, D)).astype(np.float32) for n in (Q, G)]
P = [RNG.random((n, A)).astype(np.float32) for n in (Q, G)]
FORMULA = explain.Formula(np.array([1.5, -0.7, 0.0, 3.0], np.float32), 0.5, feature_scale=12.0, attribute_scale=0.8)
F[1][17], P[1][17] = F[1][3], P[1][3]  # a repeated image


def distances(weights=FORMULA.weights, feature=1.0):
    """As `methods.rows` ranks ACRN."""
    own = fusion.distance_rows("squared_euclidean", *F)
    weighted = fusion.distance_rows("squared_euclidean", *(weights * p for p in P))
    return fusion.weighted_sum((feature / FORMULA.feature_scale, own), (0.5 / FORMULA.attribute_scale, weighted))


def test_shares_add_up_to_the_distance_that_ranks():
    whole = distances()(slice(0, Q))
    for q in range(Q):
        found = explain.shares(F[0][[q]], F[1], P[0][[q]], P[1], FORMULA)
        np.testing.assert_allclose(found.distance, whole[q], atol=1e-5)
        for g in (0, 17):
            for a in range(A):
                expected = 0.5 / 0.8 * float(FORMULA.weights[a]) ** 2 * (float(P[0][q, a]) - float(P[1][g, a])) ** 2
                assert found.attributes[g, a] == pytest.approx(expected, abs=1e-12)
    pairs = explain.shares(F[0], F[1][:Q], P[0], P[1][:Q], FORMULA)
    np.testing.assert_allclose(pairs.distance, np.diag(whole[:, :Q]), atol=1e-5)


def test_rank_without_is_the_rank_of_a_ranking_without():
    images, ranked = np.array([3, 17, 30]), np.arange(G) % 5 != 1
    everything = [distances()(slice(0, Q)), distances(feature=0.0)(slice(0, Q))]
    everything += [distances(FORMULA.weights * (np.arange(A) != a))(slice(0, Q)) for a in range(A)]
    for q in range(Q):
        found = explain.ranks(explain.shares(F[0][[q]], F[1], P[0][[q]], P[1], FORMULA), images, ranked=ranked)
        expected = []
        for matrix in everything:
            order = [g for g in np.argsort(matrix[q], kind="stable") if ranked[g]]
            expected.append([order.index(g) + 1 for g in images])
        np.testing.assert_array_equal(np.column_stack([found.now, found.without_feature, found.without]).T, expected)
    assert np.any(found.without != found.now[:, None])


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_what_does_not_add_up_is_refused(distance):
    with pytest.raises(ValueError, match=f"distance is {distance}, which is no sum"):
        explain.shares(F[0], F[1][:Q], P[0], P[1][:Q], FORMULA, distance=distance)


@pytest.mark.parametrize("cells", [explain._CELLS, 7 * 80])  # one block of queries, or five
def test_look_alikes_by_loops(cells, monkeypatch):
    monkeypatch.setattr(explain, "_CELLS", cells)
    rng = np.random.default_rng(1)
    query = Labels(rng.integers(1, 8, 30), rng.integers(1, 3, 30))
    gallery = Labels(rng.integers(-1, 9, 80), rng.integers(1, 3, 80))
    near, whole = rng.random((2, 30, 80)).astype(np.float32)
    expected = []
    for q in range(30):
        wrong = [g for g in range(80) if gallery.person_id[g] not in (-1, 0, query.person_id[q])]
        right = [
            g
            for g in range(80)
            if gallery.person_id[g] == query.person_id[q] and gallery.camera_id[g] != query.camera_id[q]
        ]
        first = min(wrong, key=lambda g: near[q, g])
        if right and all(near[q, first] < near[q, g] for g in right):
            best = min(right, key=lambda g: whole[q, g])
            if whole[q, best] < whole[q, first]:
                expected.append((near[q, first], q, first, best))
    unique, met = [], set()
    for _, q, wrong, best in sorted(expected):
        other = gallery.person_id[wrong]
        people = (min(query.person_id[q], other), max(query.person_id[q], other))
        if people not in met:
            met.add(people)
            unique.append((q, wrong, best))
    assert 4 < len(unique) < len(expected)
    for count in (100, 3):
        found = explain.confusions(
            lambda i: near[i], lambda i: whole[i], query, gallery, protocol=protocols.MARKET1501, count=count
        )
        assert list(zip(*(part.tolist() for part in found), strict=True)) == unique[:count]
    none = explain.confusions(
        lambda i: near[i], lambda i: near[i], query, gallery, protocol=protocols.MARKET1501, count=9
    )
    assert [len(part) for part in none] == [0, 0, 0]
