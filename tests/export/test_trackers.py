"""The programs of docs/trackers.md: features and matches of a tracker, and z in FAISS."""

import importlib.util
import itertools
import pathlib
import re
import sys
import types

import numpy as np
import pytest
from PIL import Image

import acrn_jax
from acrn_jax.export import bundle, stablehlo
from acrn_jax.runs import bundles

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "trackers.md"
TRACKER, FAISS = re.findall("```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


class Session:
    """onnxruntime's, where that is not installed: the bundle's StableHLO program behind the same two calls."""

    def __init__(self, path, providers):
        assert providers == ["CPUExecutionProvider"] and path.endswith(".onnx")
        self.program = stablehlo.load(pathlib.Path(path).with_suffix(".stablehlo"))

    def run(self, names, feeds):
        found = self.program(feeds["images"])
        return [found[name] for name in names]


@pytest.fixture(scope="module")
def tracker(run, tmp_path_factory):
    """(workdir, what the page's program defines)."""
    folder = tmp_path_factory.mktemp("tracker")
    formats = [kind for kind in ("stablehlo", "onnx") if not bundle.wanting(kind)]
    bundles.export(run[0], folder / "bundle", formats=formats, outputs=["feature"], input="float_nchw")
    defined = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        if importlib.util.find_spec("onnxruntime") is None:
            patch.setitem(sys.modules, "onnxruntime", types.SimpleNamespace(InferenceSession=Session))
        exec(compile(TRACKER, str(PAGE), "exec"), defined)
    return run[0], defined


def test_it_is_as_short_as_it_says():
    assert len([line for line in TRACKER.splitlines() if line and "import" not in line]) <= 20


def test_features_are_the_runs(tracker):
    workdir, defined = tracker
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    boxes = [(3, 5, 43, 85), (60, 10, 76, 50), (0, 0, 120, 90)]
    crops = [Image.fromarray(frame[top:bottom, left:right]) for left, top, right, bottom in boxes]
    wanted = acrn_jax.load(workdir).embed([crop.resize((16, 40), Image.Resampling.BILINEAR) for crop in crops])
    wanted /= np.sqrt((wanted**2).sum(axis=1))[:, None]
    np.testing.assert_allclose(defined["features"](frame, boxes), wanted, atol=1e-4)
    assert (wanted @ wanted.T)[~np.eye(3, dtype=bool)].max() < 0.999, "boxes that differ must give features that do"
    if not isinstance(defined["net"], Session):  # jax's programs want an image at least
        assert defined["features"](frame, []).shape == (0, wanted.shape[1])


def test_matches_are_the_best_of_all(tracker):
    """Against every way to give tracks boxes, where one that is too far costs the limit."""
    rng = np.random.default_rng(1)
    for tracks, boxes, most in ((3, 4, 0.8), (4, 3, 0.5), (4, 4, 0.2), (2, 0, 0.5)):
        a, b = (
            v / np.linalg.norm(v, axis=1, keepdims=True) for v in (rng.random((n, 3)) - 0.3 for n in (tracks, boxes))
        )
        distance = 1 - a @ b.T
        found = tracker[1]["matches"](a, b, most)
        assert all(distance[pair] < most for pair in found)
        assert len({t for t, _ in found}) == len({n for _, n in found}) == len(found)
        ways = itertools.permutations([*range(boxes), *[None] * tracks], tracks)
        costs = (sum(most if n is None else min(distance[t, n], most) for t, n in enumerate(way)) for way in ways)
        cost = sum(distance[pair] for pair in found) + most * (tracks - len(found))
        assert np.isclose(cost, min(costs))


def test_faiss_ranks_by_the_runs_distance(run, tmp_path, monkeypatch):
    pytest.importorskip("faiss", reason="the extra 'faiss' is not installed")
    bundles.export(run[0], tmp_path / "bundle", formats=["npz"], outputs=["feature", "embedding"])
    monkeypatch.chdir(tmp_path)
    defined = {}
    exec(compile(FAISS, str(PAGE), "exec"), defined)
    with np.load(tmp_path / "bundle" / "sample.npz") as sample:
        wanted = acrn_jax.load(run[0]).distances(sample["images"][:3], sample["images"])
    np.testing.assert_array_equal(defined["nearest"], np.argsort(wanted, axis=1)[:, :5])
    np.testing.assert_allclose(defined["distance"], np.sort(wanted, axis=1)[:, :5], rtol=1e-3, atol=1e-3)
