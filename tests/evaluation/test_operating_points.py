import numpy as np
import pytest

from acrn_jax.evaluation import fusion, operating_points, protocols, ranking
from acrn_jax.schema import Labels


def status(i, j, query, gallery, protocol):
    """What the pair of query i and gallery image j is: "genuine", "impostor", or None where it counts nowhere."""
    person, camera = query.person_id[i], query.camera_id[i]
    if gallery.person_id[j] == -1:
        return None
    if gallery.person_id[j] != person or person == 0:
        return "impostor"
    if protocol == "market1501" and gallery.camera_id[j] == camera:
        return None
    if protocol == "all_vs_all" and i == j:
        return None
    return "genuine"


def best_threshold(accepted_wrong, total_wrong, candidates, rate):
    """The largest candidate threshold that accepts no more than rate of the wrong ones."""
    return max(t for t in candidates if accepted_wrong(t) <= rate * total_wrong + 1e-9)


def random_case(rng, protocol, strangers=False):
    people = rng.integers(1, 5)
    if protocol == "all_vs_all":
        size = rng.integers(2, 9)
        query = gallery = Labels(rng.integers(1, people + 1, size), rng.integers(0, 3, size))
    else:
        sizes = rng.integers(1, 7), rng.integers(1, 15)
        query, gallery = (
            Labels(rng.integers(low, people + 2, size), rng.integers(0, 3, size))
            for low, size in zip((0 if strangers else 1, -1), sizes, strict=True)
        )
    shape = len(query.person_id), len(gallery.person_id)
    distances = rng.integers(-3, 6, shape) / 2 if rng.random() < 0.5 else rng.normal(size=shape)
    return distances.astype(rng.choice([np.float32, np.float64])), query, gallery


@pytest.mark.parametrize("protocol", ["market1501", "all_vs_all"])
def test_roc_agrees_with_loops(protocol, monkeypatch):
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)
    rng, refused, rates = np.random.default_rng(0), 0, [0.0, 0.1, 0.29, 0.5, 1.0]
    for case in range(60):
        distances, query, gallery = random_case(rng, protocol)
        sorts = {"genuine": [], "impostor": [], None: []}
        for i, j in np.ndindex(distances.shape):
            sorts[status(i, j, query, gallery, protocol)].append(distances[i, j])
        genuine, impostor = np.array(sorts["genuine"]), np.array(sorts["impostor"])
        given = distances if case % 2 else lambda index, distances=distances: distances[index]
        if not genuine.size or not impostor.size:
            refused += 1
            with pytest.raises(ValueError, match=r"right gallery image|nobody but the query's person"):
                operating_points.roc(given, query, gallery, protocol=protocols.named(protocol))
            continue
        found = operating_points.roc(given, query, gallery, protocol=protocols.named(protocol), fpr=rates)
        assert (found.genuine, found.impostor) == (genuine.size, impostor.size)
        for rate, threshold in zip(rates, found.threshold, strict=True):
            candidates = [*impostor, np.inf]
            assert threshold == best_threshold(lambda t, d=impostor: np.sum(d < t), impostor.size, candidates, rate)
        assert found.fpr.tolist() == [np.mean(impostor < t) for t in found.threshold]
        assert found.tpr.tolist() == [np.mean(genuine < t) for t in found.threshold]
        again = operating_points.rates(given, query, gallery, found.threshold, protocol=protocols.named(protocol))
        np.testing.assert_equal(again._asdict(), found._asdict())
    assert refused < 40


def test_order_statistics_of_many_values():
    rng = np.random.default_rng(0)
    places = np.array([0, 1, 777, 5000, 9_999])
    for dtype in (np.float32, np.float64):
        for values in (rng.normal(size=10_000), rng.normal(1e-3, 1e-9, 10_000), rng.integers(-2, 3, 10_000) * 0.0):
            values = values.astype(dtype)
            found, below = operating_points._order_statistics(lambda values=values: np.split(values, 4), places)
            assert np.array_equal(found, np.sort(values)[places])
            assert np.array_equal(below, [np.sum(values < v) for v in found])


def test_watch_list_agrees_with_loops(monkeypatch):
    protocol = "market1501"
    monkeypatch.setattr(ranking, "_BLOCK_BYTES", 1)
    rng, refused, rates = np.random.default_rng(1), 0, [0.0, 0.34, 0.5, 1.0]
    for _ in range(150):
        distances, query, gallery = random_case(rng, protocol, strangers=True)
        listed, strangers, excluded = [], [], 0  # (distance of the first right image, its rank); nearest distance
        for i, row in enumerate(distances):
            kinds = [status(i, j, query, gallery, protocol) for j in range(len(row))]
            order = sorted((d, j) for j, d in enumerate(row) if kinds[j])
            places = [place for place, (_, j) in enumerate(order) if kinds[j] == "genuine"]
            known = query.person_id[i] > 0 and query.person_id[i] in gallery.person_id
            if places:
                listed.append((order[places[0]][0], places[0] + 1))
            elif known:
                excluded += 1
            else:
                strangers.append(order[0][0] if order else np.inf)
        arguments = {"protocol": protocols.named(protocol), "far": rates, "ranks": (1, 3)}
        if not listed or not strangers:
            refused += 1
            with pytest.raises(ValueError, match="queries of both sorts"):
                operating_points.identification(distances, query, gallery, **arguments)
            continue
        found = operating_points.identification(distances, query, gallery, **arguments)
        assert (found.listed, found.strangers, found.excluded) == (len(listed), len(strangers), excluded)
        nearest = np.array(strangers)
        for n, rate in enumerate(rates):
            candidates = [*nearest, np.inf]
            threshold = best_threshold(lambda t, d=nearest: np.sum(d < t), nearest.size, candidates, rate)
            assert found.threshold[n] == threshold
            assert found.far[n] == np.mean(nearest < threshold)
            for k in (1, 3):
                assert found.dir[k][n] == np.mean([d < threshold and rank <= k for d, rank in listed])
    assert refused < 100


def test_chance_lies_on_the_diagonal_and_good_features_above():
    rng = np.random.default_rng(0)
    person = rng.integers(1, 40, 800)
    labels = [Labels(person[part], np.full(400, camera)) for camera, part in enumerate((slice(400), slice(400, None)))]
    centre = rng.normal(size=(40, 16))
    for signal in (0, 1):
        x = signal * centre[person] + 0.7 * rng.normal(size=(800, 16))
        rows = fusion.squared_euclidean_rows(x[:400], x[400:])
        found = operating_points.roc(rows, *labels, protocol=protocols.MARKET1501, fpr=(0.01, 0.1, 0.5))
        assert np.all(found.fpr <= (0.01, 0.1, 0.5)) and found.fpr == pytest.approx((0.01, 0.1, 0.5), abs=1e-4)
        if signal:
            assert found.tpr[0] > 0.5
        else:
            assert found.tpr == pytest.approx(found.fpr, abs=0.03)


def test_refusals():
    query, gallery = Labels(np.array([1, 2]), np.array([0, 0])), Labels(np.array([1, 2, -1]), np.array([1, 1, 1]))
    distances, market = np.ones((2, 3), np.float32), protocols.MARKET1501
    with pytest.raises(ValueError, match=r"rates are \[1\.5\]"):
        operating_points.roc(distances, query, gallery, protocol=market, fpr=(1.5,))
    with pytest.raises(ValueError, match=r"rates are \[\]"):
        operating_points.identification(distances, query, gallery, protocol=market, far=())
    with pytest.raises(ValueError, match="query 1 and gallery image 0 is NaN"):
        operating_points.roc(np.array([[0, 1, 2], [np.nan, 1, 2]]), query, gallery, protocol=market)
    with pytest.raises(ValueError, match="Query 1 is junk"):
        operating_points.identification(
            distances, query._replace(person_id=np.array([1, -1])), gallery, protocol=market
        )
    with pytest.raises(ValueError, match="no watch list"):
        operating_points.identification(distances, query, query, protocol=protocols.ALL_VS_ALL)
    with pytest.raises(ValueError, match=r"2 of 2 query images have no camera \(-1\)"):
        operating_points.identification(
            distances, query._replace(camera_id=np.array([-1, -1])), gallery, protocol=market
        )
    with pytest.raises(ValueError, match="0 of 2 show a person who is not"):
        operating_points.identification(distances, query, gallery, protocol=market)
