"""acrn_jax.load: pictures in, features, attributes, distances and shares out, as the run itself ranks."""

import functools

import numpy as np
import PIL.Image
import pytest

from acrn_jax import build, runs
from acrn_jax.data import transforms
from acrn_jax.runs import bundles, face
from tests.fixtures import small_net


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of pictures, workdirs of an attribute net, an ACRN and a ReIdCNN), trained for a few steps."""
    raw, data, folder = (tmp_path_factory.mktemp(name) for name in ("raw", "data", "runs"))
    before = small_net.stand_in()
    try:
        small_net.prepare(raw, data, "mini")
        runs.train(small_net.config("mva", data, "mini").changed({"devices": 1}), folder / "attributes")
        reid = small_net.config("reid", data, "mini").changed({"devices": 1, "loss.gamma": 0.7})
        runs.train(reid.changed({"attributes.from": str(folder / "attributes")}), folder / "acrn")
        runs.train(reid.changed({"loss.kind": "classic"}), folder / "reidcnn")
        yield raw, folder
    finally:
        build.net = before


def test_distances_are_what_the_formula_says(made):
    raw, folder = made
    paths = sorted(raw.glob("*.jpg"))[:5]
    model, run = face.load(folder / "acrn"), runs.load_acrn(folder / "acrn", "")
    f, p, w = model.embed(paths), model.attributes(paths).probabilities, run.weights()
    assert f.shape == (5, 8) and p.shape == (5, 3) and len(w) == 3 and np.ptp(w)
    s, expected = run.scales, np.zeros((2, 3))
    for i in range(2):
        for j in range(3):
            d_f = sum((float(a) - float(b)) ** 2 for a, b in zip(f[i], f[2 + j], strict=True))
            d_w = sum((float(k) * (float(a) - float(b))) ** 2 for k, a, b in zip(w, p[i], p[2 + j], strict=True))
            expected[i, j] = d_f / s["feature"] + 0.7 * d_w / s["attribute"]
    found = model.distances(paths[:2], paths[2:])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    explained = model.explain(paths[:2], paths[2:4])
    for i, one in enumerate(explained):
        assert one.distance == pytest.approx(expected[i, i], rel=1e-4)
        assert one.feature + sum(one.attributes.values()) == pytest.approx(one.distance, rel=1e-5)
        assert list(one.attributes.values()) == sorted(one.attributes.values(), reverse=True)
        assert str(one).startswith(f"{one.distance:.4g}: feature ")
    alone = face.load(folder / "reidcnn")
    g, scale = alone.embed(paths), runs.load(folder / "reidcnn").scales["feature"]
    np.testing.assert_allclose(alone.distances(paths[0], paths[1])[0, 0], np.sum((g[0] - g[1]) ** 2) / scale, rtol=1e-4)
    net = face.load(folder / "attributes")
    np.testing.assert_array_equal(net.attributes(paths).probabilities, p)
    np.testing.assert_allclose(net.distances(paths[0], paths[1])[0, 0], np.sum((p[0] - p[1]) ** 2), rtol=1e-4)
    assert net.attributes(paths)["red"].shape == (5,) and "red" in str(net.attributes(paths))


def test_all_kinds_of_images_are_the_same_image(made):
    raw, folder = made
    path = sorted(raw.glob("*.jpg"))[0]
    pixels = transforms.decode(path.read_bytes(), key="")

    class Tensor:
        """As torch's: an array by __array__ alone."""

        def __array__(self, dtype=None, copy=None):
            return pixels

    embed = face.load(folder / "acrn").embed
    expected = embed(str(path))
    for image in (path, [path], PIL.Image.open(path), pixels, pixels[None], [pixels], Tensor(), [Tensor()]):
        np.testing.assert_array_equal(embed(image), expected)
    assert embed(raw).shape == (len(list(raw.glob("*.jpg"))), 8)


def test_wrong_images_and_places_are_refused(made, tmp_path):
    raw, folder = made
    model, net = face.load(folder / "acrn"), face.load(folder / "attributes")
    (tmp_path / "a.jpg").write_text("no picture")
    path, floats = sorted(raw.glob("*.jpg"))[0], np.zeros((1, 9, 9, 3), np.float32)
    for ask, kind, words in (
        (
            lambda: model.embed(floats),
            TypeError,
            r"Image 0 is an array float32 \[9, 9, 3\]; uint8 \[height, width, 3\]",
        ),
        (lambda: model.embed(np.zeros((9, 9), np.uint8)), TypeError, r"Image 0 is an array uint8 \[9, 9\]"),
        (lambda: model.embed(7), TypeError, "Images are int; give paths, PIL images or arrays"),
        (lambda: model.embed([7]), TypeError, "Image 0 is int"),
        (lambda: model.embed([]), ValueError, "There is no image; give at least one"),
        (lambda: model.embed(tmp_path / "b.jpg"), FileNotFoundError, "There is no image .*b.jpg"),
        (lambda: model.embed(tmp_path / "a.jpg"), ValueError, "a.jpg"),
        (lambda: model.explain([path], [path, path]), ValueError, "got 1 images and 2"),
        (lambda: net.embed(path), ValueError, "has no re-id net, so it gives no feature"),
        (lambda: face.load(folder / "reidcnn").attributes(path), ValueError, "has no attribute net"),
        (lambda: net.attributes(path)["hat"], KeyError, "no attribute 'hat'; the net knows red, green, blue"),
        (lambda: face.load(tmp_path), FileNotFoundError, "neither a trained run .* nor a bundle"),
    ):
        with pytest.raises(kind, match=words):
            ask()


def test_a_bundle_says_what_its_run_says(made, tmp_path):
    raw, folder = made
    paths = sorted(raw.glob("*.jpg"))[:4]
    for name in ("acrn", "attributes"):
        bundles.export(folder / name, tmp_path / name, formats=["stablehlo"], sample=0)
        run, bundle = face.load(folder / name), face.load(tmp_path / name)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
        close(bundle.attributes(paths).probabilities, run.attributes(paths).probabilities)
        close(bundle.distances(paths[:2], paths), run.distances(paths[:2], paths))
        assert bundle.attribute_names == run.attribute_names
    close(face.load(tmp_path / "acrn").embed(paths), face.load(folder / "acrn").embed(paths))
