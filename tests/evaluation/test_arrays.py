"""The public calls on arrays: numbers as plain loops give them, any library's arrays, refusals, and no jax."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest

import acrn_jax
from acrn_jax import evaluation
from acrn_jax.evaluation import fusion, operating_points, protocols, ranking, reranking, resampling
from acrn_jax.schema import Labels
from tests import oracles

CASE = ([[0.2, 0.4, 0.9], [0.8, 0.1, 0.3]], [1, 2], [1, 1, 2], [1, 1], [2, 3, 2])  # of the docstring


def torchreid_rank(distances, q_pids, g_pids, q_camids, g_camids, max_rank):
    """CMC and mAP as torchreid's evaluate_rank defines them, query by query; equal distances in the gallery's order."""
    every_cmc, every_ap = [], []
    for i in range(len(distances)):
        order = sorted(range(len(distances[i])), key=lambda j: distances[i][j])
        kept = [j for j in order if not (g_pids[j] == q_pids[i] and g_camids[j] == q_camids[i])]
        hits = [int(g_pids[j] == q_pids[i]) for j in kept]
        if not any(hits):
            continue  # a query without a match is passed over
        running = np.cumsum(hits)
        every_cmc.append(np.minimum(running, 1)[:max_rank])
        precision = [running[n] / (n + 1.0) for n in range(len(hits)) if hits[n]]
        every_ap.append(np.sum(precision) / np.sum(hits))
    return np.mean(every_cmc, axis=0), np.mean(every_ap)


@pytest.mark.parametrize("seed", range(20))
def test_is_torchreids_evaluate_rank(seed):
    rng = np.random.default_rng(seed)
    q, g = int(rng.integers(5, 30)), int(rng.integers(30, 60))
    arrays = (
        rng.integers(0, 1 + 3 * (seed % 4 + 1), (q, g)).astype(np.float32),  # many ties
        *(rng.integers(1, 6, n) for n in (q, g)),
        *(rng.integers(0, 3, n) for n in (q, g)),
    )
    cmc, mean_ap = torchreid_rank(*arrays, max_rank=20)
    found = acrn_jax.evaluate(*arrays, no_match="skip", ranks=range(1, 21))
    assert found.mAP == pytest.approx(mean_ap, rel=1e-15, abs=0)
    assert [found.metrics[f"rank{k}"] for k in range(1, 21)] == pytest.approx(cmc, rel=1e-15, abs=0)


class WithArray:
    """As a torch tensor on the CPU shows itself to numpy."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class WithDlpack:
    def __init__(self, values):
        self.values = np.asarray(values)

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


@pytest.mark.parametrize("wrap", [np.array, tuple, WithArray, WithDlpack])
def test_arrays_of_any_library(wrap):
    found = acrn_jax.evaluate(*(wrap(x) for x in CASE))
    assert found.metrics == acrn_jax.evaluate(*CASE).metrics
    features = [wrap(x) for x in ([[0.0, 1.0], [2.0, 0.0]], [[0.0, 1.5], [2.0, 2.0], [2.0, 0.5]])]
    assert acrn_jax.evaluate(features, *CASE[1:]).mAP == acrn_jax.evaluate(tuple(features), *CASE[1:]).mAP > 0
    assert acrn_jax.rerank(*features, k1=2, k2=1).shape == (2, 3)
    assert acrn_jax.roc(wrap(CASE[0]), *CASE[1:]).genuine == 3


def test_jax_arrays():
    import jax.numpy as jnp

    assert acrn_jax.evaluate(*map(jnp.asarray, CASE)).mAP == 0.75
    half = jnp.asarray([[0.0], [4.0]], jnp.bfloat16)
    assert acrn_jax.evaluate((half, half), [1, 2], [1, 2], [1, 1], [2, 2]).mAP == 1


def test_labels_in_other_types():
    wanted = acrn_jax.evaluate(*CASE).metrics
    distances, *labels = CASE
    for kind in (np.float64, np.int8, np.uint16, str, object):
        assert acrn_jax.evaluate(distances, *(np.array(x).astype(kind) for x in labels)).metrics == wanted
    padded = [[f"{value:04}" for value in x] for x in labels]
    assert acrn_jax.evaluate(distances, *padded).metrics == wanted


@pytest.mark.parametrize("distance", [None, *fusion.DISTANCES])
@pytest.mark.parametrize("protocol", ["market1501", "multi_shot", "cuhk03_single_shot", "cuhk03_torchreid"])
def test_features_under_every_distance(distance, protocol):
    rng = np.random.default_rng(0)
    query, gallery = rng.normal(size=(12, 4)), rng.normal(size=(30, 4))
    labels = (
        Labels(np.arange(12) % 6 + 1, np.arange(12) // 6 + 1),
        Labels(np.arange(30) % 6 + 1, np.arange(30) % 4 // 2),
    )
    labels[1].camera_id[:] = np.arange(30) // 6 % 2 + 1
    (q_pids, q_camids), (g_pids, g_camids) = labels
    found = acrn_jax.evaluate((query, gallery), q_pids, g_pids, q_camids, g_camids, protocol, distance=distance)
    rows = fusion.distance_rows(distance or "squared_euclidean", query, gallery)
    wanted = ranking.evaluate(rows, *labels, protocol=protocols.named(protocol))
    assert found.metrics == wanted.metrics and found.deviation == wanted.deviation
    if protocol in ("market1501", "multi_shot"):
        matrix = rows(slice(0, 12))
        assert found.metrics == pytest.approx(oracles.ranking(matrix, *labels, protocol, "error"), abs=1e-12)
    curve = acrn_jax.roc((query, gallery), q_pids, g_pids, q_camids, g_camids, protocol, distance=distance, fpr=[0.1])
    one = operating_points.roc(rows, *labels, protocol=protocols.named(protocol), fpr=[0.1])
    assert (curve.tpr, curve.fpr, curve.threshold) == (one.tpr, one.fpr, one.threshold)


def test_options_of_protocols_that_draw():
    rng = np.random.default_rng(1)
    both = np.arange(40) % 8 + 1, np.arange(40) // 8 % 2 + 1
    case = (rng.random((40, 40)), both[0], both[0], both[1], both[1], "cuhk03_single_shot")
    found = acrn_jax.evaluate(*case, repeats=4, seed=3, probe_view="1")
    assert found.options == {"repeats": 4, "seed": 3, "probe_view": "1"} and set(found.deviation) == set(found.metrics)
    assert found.metrics == acrn_jax.evaluate(*case, repeats=4, seed=3, probe_view="1").metrics
    assert found.metrics != acrn_jax.evaluate(*case, repeats=4, seed=4, probe_view="1").metrics
    own = protocols.named("cuhk03_single_shot", repeats=4, seed=3, probe_view="1")
    assert found.metrics == acrn_jax.evaluate(*case[:5], own).metrics
    assert "repeats 4, seed 3, probe_view 1" in str(found)


def test_an_entry_adds_a_protocol(monkeypatch):
    """A rule of one's own: right images of camera 3 are left out, whoever asks."""
    own = protocols.MARKET1501._replace(name="mine", excluded=lambda q, g, rows, columns: g.camera_id[columns] == 3)
    monkeypatch.setitem(protocols.PROTOCOLS, "mine", own)
    closer = [[0.2, 0.1, 0.15], *CASE[0][1:]]  # query 0: its image of camera 3, somebody else's, its other image
    assert acrn_jax.evaluate(closer, *CASE[1:]).per_query["mINP"][0] == 2 / 3
    found = acrn_jax.evaluate(closer, *CASE[1:], protocol="mine")
    assert found.per_query["mINP"][0] == 1 / 2 and found.protocol == "mine"
    with pytest.raises(ValueError, match="did you mean mine"):
        acrn_jax.evaluate(*CASE, protocol="mime")


def test_the_record():
    found = acrn_jax.evaluate(*CASE, bootstrap=True)
    assert (found.mAP, found.mAP_precision, found.rank1, found.mINP) == (0.75, 0.75, 0.5, 0.75)
    assert found.queries == 2 and found.gallery == 3 and found.first_rank.tolist() == [1, 2]
    assert found.people.tolist() == [1, 2] and {"mAP", "rank5", "per_query", "bootstrap"} <= set(dir(found))
    ends = resampling.intervals(found.result, groups=np.array([1, 2]))
    assert found.intervals == ends == found.bootstrap() == acrn_jax.bootstrap(found)
    lines = str(found).splitlines()
    assert lines[0] == "protocol market1501: 2 queries, 3 gallery images" and repr(found) == str(found)
    assert "95 % interval" in lines[1] and lines[5].split()[:2] == ["r1", "50.0"]
    low, high = (100 * end for end in ends["rank1"][1:])
    assert lines[5].endswith(f"{low:.1f} to {high:.1f}")
    for twin in (copy.copy(found), pickle.loads(pickle.dumps(found))):
        assert twin.metrics == found.metrics
    with pytest.raises(AttributeError, match="no 'rank7'"):
        _ = found.rank7
    lost = acrn_jax.evaluate([[1, 2], [1, 2]], [1, 2], [1, 3], [1, 1], [2, 2], no_match="count_as_miss")
    assert "1 queries have no right gallery image" in str(lost)
    similar = 1 - np.eye(30)
    labels = [np.arange(30) + 1] * 2 + [np.zeros(30, int), np.ones(30, int)]
    assert "similarities" in str(acrn_jax.evaluate(1 - similar, *labels))


def test_differences():
    rng = np.random.default_rng(2)
    labels = [np.arange(60) % 20 + 1] * 2 + [np.ones(60, int), np.full(60, 2)]
    one, two = (acrn_jax.evaluate(rng.random((60, 60)), *labels) for _ in range(2))
    found = acrn_jax.bootstrap(one, two, resamples=200, level=0.9, seed=1)
    wanted = resampling.differences(one.result, two.result, groups=labels[0], seed=1, resamples=200, level=0.9)
    assert found == wanted and found["mAP_precision"].mean == pytest.approx(one.mAP - two.mAP)
    with pytest.raises(TypeError, match=r"wants what acrn_jax\.evaluate returns, got a float"):
        acrn_jax.bootstrap(0.5)
    with pytest.raises(ValueError, match="q_pids differ"):
        acrn_jax.bootstrap(one, acrn_jax.evaluate(rng.random((60, 60)), labels[0] + 1, labels[1] + 1, *labels[2:]))


def test_rerank_of_features_and_of_distances():
    rng = np.random.default_rng(3)
    query, gallery = rng.normal(size=(6, 3)), rng.normal(size=(20, 3))
    settings = {"k1": 5, "k2": 3}
    found = acrn_jax.rerank(query, gallery, lambda_value=0.2, **settings)
    assert np.array_equal(found, reranking.rerank(query, gallery, weight=0.2, **settings))

    def squared(a, b):
        return ((a[:, None] - b[None]) ** 2).sum(-1)

    three = squared(query, gallery), squared(query, query), squared(gallery, gallery)
    np.testing.assert_allclose(acrn_jax.rerank(*three, lambda_value=0.2, **settings), found, atol=1e-6)
    three = [np.sqrt(x) for x in three]
    root = acrn_jax.rerank(query, gallery, distance="euclidean", **settings)
    np.testing.assert_allclose(acrn_jax.rerank(*three, **settings), root, atol=1e-5)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (query, gallery)]
    turned = acrn_jax.rerank(query, gallery, distance="cosine", **settings)
    np.testing.assert_allclose(acrn_jax.rerank(*unit, **settings), turned, atol=1e-6)
    for bad, told in [
        ((three[0].T, *three[1:]), r"wants distances \[Q, G\], \[Q, Q\] and \[G, G\]"),
        ((query, gallery[:, :2]), "query features has 3 values an image"),
        ((np.full((6, 3), np.nan), gallery), "query features row 0 holds NaN"),
    ]:
        with pytest.raises(ValueError, match=told):
            acrn_jax.rerank(*bad)
    for distance, arrays in (("cosine", three), ("cosin", (query, gallery))):
        with pytest.raises(ValueError, match=r"distances already|did you mean cosine"):
            acrn_jax.rerank(*arrays, distance=distance)


class OnAnAccelerator:
    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")


@pytest.mark.parametrize(
    ("change", "kind", "told"),
    [
        ({0: [[0, np.nan, 1], [1, 2, 3]]}, ValueError, "distance of query 0 and gallery image 1 is NaN"),
        ({0: [[0, 1], [1, 2]]}, ValueError, r"distances is \[2, 2\], but there are 2 query and 3 gallery labels"),
        ({0: [[0, 1, 2], [1, 2]]}, ValueError, "rows differ in length"),
        ({0: [["a", "b", "c"]] * 2}, ValueError, "real numbers"),
        ({0: np.ones((2, 3), complex)}, ValueError, "real numbers"),
        ({0: np.ma.masked_array(np.ones((2, 3)), np.eye(2, 3))}, ValueError, "masked values"),
        ({0: OnAnAccelerator()}, TypeError, r"OnAnAccelerator that numpy cannot read \(can't convert cuda"),
        ({0: (np.eye(2, 4), np.eye(3, 5))}, ValueError, "query features has 4 values an image"),
        ({0: (np.eye(3), np.eye(3))}, ValueError, "query features has 3 rows, but q_pids has 2 labels"),
        ({0: (np.full((2, 3), np.inf), np.eye(3))}, ValueError, "query features row 0 holds NaN, an infinity"),
        ({0: np.zeros((2, 3, 4))}, ValueError, r"\[2, 3, 4\]"),
        ({1: [1, 2, 3]}, ValueError, "q_pids has 3 labels, but q_camids has 2"),
        ({1: [1, 2.5]}, ValueError, "q_pids row 1 is '2.5'; labels are integers"),
        ({1: [1, float("nan")]}, ValueError, "q_pids row 1 is 'nan'"),
        ({1: ["ann", "2"]}, ValueError, "q_pids row 0 is 'ann'"),
        ({1: [True, False]}, ValueError, "q_pids is of type bool"),
        ({1: [0, 1]}, ValueError, "or add 1 to all person ids"),
        ({2: [1, 1, -5]}, ValueError, "gallery person_id row 2 is -5"),
        ({4: [2, -3, 2]}, ValueError, "gallery camera_id row 1 is -3"),
        ({2: [], 4: []}, ValueError, "g_pids is empty"),
        ({2: [3, 3, 4]}, ValueError, "2 of 2 queries have no right gallery image .* set no_match"),
        ({3: None}, ValueError, "query or gallery alone"),
        ({3: None, 4: None}, ValueError, "have no camera .* choose the protocol multi_shot"),
        ({5: "market"}, ValueError, "no protocol 'market'; did you mean market1501"),
        ({5: 50}, TypeError, "A protocol is a name, such as 'market1501'"),
        ({"distance": "cosine"}, ValueError, "distance='cosine' is of features"),
        ({0: (np.eye(2, 3), np.eye(3)), "distance": "cosin"}, ValueError, "no distance 'cosin'; did you mean cosine"),
        ({"no_match": "ignore"}, ValueError, "choose error, skip or count_as_miss"),
        ({"repeats": 3}, ValueError, "repeats cannot be set: market1501 has no such option"),
        ({5: protocols.MARKET1501, "seed": 3}, ValueError, "beside a Protocol"),
        ({5: "cuhk03_single_shot", "repeats": 0}, ValueError, "repeats >= 1"),
        ({"ranks": (0, 1)}, ValueError, "ranks is"),
    ],
)
def test_refusals(change, kind, told):
    arrays = [*CASE, "market1501"]
    for place, value in change.items():
        if isinstance(place, int):
            arrays[place] = value
    options = {name: value for name, value in change.items() if isinstance(name, str)}
    with pytest.raises(kind, match=told) as caught:
        acrn_jax.evaluate(*arrays, **options)
    assert "\n" not in str(caught.value)
    if not options:
        with pytest.raises(kind):
            acrn_jax.roc(*arrays)


def test_refusals_that_files_have_too():
    values, person = np.random.default_rng(0).normal(size=(4, 2)), [1, 1, 2, 2]
    with pytest.raises(ValueError, match="find itself first under multi_shot; choose all_vs_all"):
        acrn_jax.evaluate((values, values), person, person, protocol="multi_shot")
    assert acrn_jax.evaluate((values, values), person, person, protocol="all_vs_all").queries == 4
    with pytest.raises(ValueError, match="query and gallery features differ"):
        acrn_jax.evaluate((values, values + 1), person, person, protocol="all_vs_all")
    with pytest.raises(ValueError, match="is of camera 1, and so is every gallery image"):
        acrn_jax.evaluate((values, values + 1), person, person, [1] * 4, [1] * 4)
    twins = acrn_jax.evaluate((values[:2], values[1:]), person[:2], person[1:], protocol="multi_shot")
    assert "the very same features" in str(twins)


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in "jax jaxlib flax optax grain tensorflow_datasets matplotlib numba PIL absl".split():
            raise ImportError(f"{name} is not for evaluation")
sys.meta_path.insert(0, Block())
import acrn_jax
case = [[0.2, 0.4, 0.9], [0.8, 0.1, 0.3]], [1, 2], [1, 1, 2], [1, 1], [2, 3, 2]
found = acrn_jax.evaluate(*case, bootstrap=True)
acrn_jax.bootstrap(found, found), acrn_jax.roc(*case)
acrn_jax.rerank([[0.0], [5.0]], [[0.1], [5.5], [4.9]], k1=2, k2=1)
acrn_jax.evaluate(([[0.0], [5.0]], [[0.1], [5.5], [4.9]]), *case[1:], distance="euclidean")
from acrn_jax.evaluation import METRICS, PROTOCOLS, feature_files, score
print(found.mAP)
"""


def test_evaluation_wants_no_jax():
    done = subprocess.run([sys.executable, "-c", BLOCKED], capture_output=True, text=True)
    assert done.stdout == "0.75\n", done.stderr


def test_names_are_lazy_and_listed():
    code = "import sys, acrn_jax; acrn_jax.__all__, dir(acrn_jax); print({'numpy', 'scipy', 'jax'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
    for module in (acrn_jax, evaluation):
        assert set(module.__all__) <= set(dir(module))
        assert all(getattr(module, name) is not None for name in module.__all__)
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            _ = module.nothing
    assert evaluation.PROTOCOLS is protocols.PROTOCOLS and acrn_jax.evaluate is evaluation.evaluate
