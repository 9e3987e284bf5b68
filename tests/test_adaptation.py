"""Statistics of a target in an attribute net; the oracle is NumPy on all images at once. Two layers as nets."""

import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from acrn_jax import build, runs
from acrn_jax.data import pipeline
from acrn_jax.evaluation import embed
from acrn_jax.runs import adaptation, phases
from acrn_jax.schema import Outputs
from tests.fixtures import small_net


class Twice(nn.Module):
    """Normalisation of pixels, a layer, normalisation again."""

    momentum: float

    @nn.compact
    def __call__(self, images, *, train):
        norm = {"use_running_average": not train, "momentum": self.momentum}
        x = nn.BatchNorm(**norm, name="first")(images)
        return Outputs(feature=nn.BatchNorm(**norm, name="second")(nn.Dense(5, name="dense")(x)))


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_statistics_are_those_of_all_images(momentum):
    drawn = np.random.default_rng(0)
    images = (drawn.random((4, 8, 6, 3, 3)) * np.linspace(40, 250, 4)[:, None, None, None, None]).astype(np.uint8)
    mean, deviation = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    module = Twice(momentum)
    variables = jax.device_get(module.init(jax.random.key(1), images[0].astype(np.float32), train=False))
    batches = [{"image": batch, "valid": np.ones(8, bool)} for batch in images]
    found = embed.batch_statistics(module, variables, batches, mean=mean, deviation=deviation)
    pixels = (images.astype(np.float64) / 255 - mean) / deviation
    np.testing.assert_allclose(found["first"]["mean"], pixels.mean((0, 1, 2, 3)), rtol=1e-4)
    np.testing.assert_allclose(found["first"]["var"], pixels.var((0, 1, 2, 3)), rtol=1e-4)
    own = [pixels[i].mean((0, 1, 2)) for i in range(4)], [pixels[i].var((0, 1, 2)) for i in range(4)]
    seen = np.stack([(pixels[i] - own[0][i]) / np.sqrt(own[1][i] + 1e-5) for i in range(4)])
    after = seen @ variables["params"]["dense"]["kernel"] + variables["params"]["dense"]["bias"]
    np.testing.assert_allclose(found["second"]["mean"], after.mean((0, 1, 2, 3)), atol=1e-4)
    np.testing.assert_allclose(found["second"]["var"], after.var((0, 1, 2, 3)), rtol=1e-3)
    assert found["first"]["mean"].dtype == np.float32


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data/ and the attribute net net/."""
    place, before = tmp_path_factory.mktemp("adapt"), small_net.stand_in()
    (place / "raw").mkdir()
    small_net.prepare(place / "raw", place / "data", "people")
    try:
        runs.train(small_net.config("mva", place / "data", "people", steps=4), place / "net")
        yield place
    finally:
        build.net = before


def test_the_adapted_net_is_another_net_with_the_same_parameters(place):
    net = runs.load(place / "net")
    split = build.open_split(net.config, "test")
    before = net.fingerprint
    made = adaptation.adapt(place / "net", split, place / "adapted", batch=4)
    assert made.names == net.names and made.fingerprint != before == runs.load(place / "net").fingerprint
    jax.tree.map(np.testing.assert_array_equal, made.variables["params"], net.variables["params"])
    images = np.stack(list(_images(net, split)))
    pixels = (images / 255 - np.array(net.config.data.mean)) / np.array(net.config.data.deviation)
    conv = nn.Conv(6, (3, 3), strides=2).apply({"params": net.variables["params"]["trunk"]}, pixels.astype(np.float32))
    stored = made.variables["batch_stats"]["trunk_norm"]
    np.testing.assert_allclose(stored["mean"], np.mean(conv, axis=(0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(stored["var"], np.var(conv, axis=(0, 1, 2)), rtol=1e-3)
    kept = phases.read(made.phase)
    assert (
        kept["statistics"]["name"] == split.name and (made.workdir / kept["data"]["path"]).resolve() == place / "data"
    )
    assert runs.evaluate(place / "adapted").split == "test"


def _images(net, split):
    data = net.config.data
    for batch in pipeline.eval_batches(split, batch=len(split), threads=1, height=data.height, width=data.width):
        yield from batch["image"]


def test_what_cannot_be_done_is_told(place, tmp_path):
    split = build.open_split(runs.load(place / "net").config, "test")
    with pytest.raises(ValueError, match="statistics want at least a batch of 64"):
        adaptation.adapt(place / "net", split, tmp_path / "new")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "kept").write_text("x")
    with pytest.raises(ValueError, match="old is not empty; give a new folder"):
        adaptation.adapt(place / "net", split, tmp_path / "old", batch=4)
    with pytest.raises(FileNotFoundError, match="holds no finished attribute net"):
        adaptation.adapt(tmp_path / "nowhere", split, tmp_path / "new", batch=4)
    assert not (tmp_path / "new").exists()
    command = [sys.executable, "-m", "acrn_jax.cli.adapt", f"--workdir={place}/net", f"--out={tmp_path}/new"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "--dataset=NAME/CONFIG or --folder=FOLDER, one of them" in done.stderr
