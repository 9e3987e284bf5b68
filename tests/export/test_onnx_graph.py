"""The ONNX graph against the nets, one variant of each part."""

import numpy as np
import pytest

from acrn_jax import build
from acrn_jax.data import transforms
from acrn_jax.export import bundle
from acrn_jax.export.model import INPUTS, Model, Net, fed, input_of, live
from tests.export.conftest import config_of, drawn_variables
from tests.fixtures import small_net

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from acrn_jax.export import onnx_graph


def test_fold_is_layer_then_normalisation():
    rng = np.random.default_rng(0)
    kernel, bias, x = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=4), rng.normal(size=(5, 6, 2))
    norm = {name: rng.uniform(0.5, 2, 4) for name in ("scale", "bias", "mean", "var")}

    def layer(kernel, bias):
        out = np.zeros((3, 4, 4))
        for i in range(3):
            for j in range(4):
                for c in range(4):
                    out[i, j, c] = np.sum(x[i : i + 3, j : j + 3] * kernel[..., c]) + bias[c]
        return out

    wanted = (layer(kernel, bias) - norm["mean"]) / np.sqrt(norm["var"] + 0.1) * norm["scale"] + norm["bias"]
    np.testing.assert_allclose(layer(*onnx_graph.fold(kernel, bias, norm, 0.1)), wanted, atol=1e-12)


@pytest.mark.parametrize("taken", INPUTS)
@pytest.mark.parametrize(
    ("phase", "changes"),
    [
        ("reid", {"model.feature_norm": "l2", "model.head_pooling": "average", "data.height": 37}),
        ("reid", {"model.head_pooling": "gem", "model.parts": 2, "model.last_stride": 1, "model.instance_norm": True}),
        ("mva", {"model.layout": "torchvision", "model.branch_kernel": 3, "model.views": ("top", "bottom")}),
        ("mva", {"model.layout": "slim", "model.instance_norm": True, "data.height": 48, "data.width": 24}),
    ],
)
def test_graph_is_the_net(phase, changes, taken, tmp_path):
    config = config_of(phase, tmp_path, **changes)
    module, size = build.net(config, attributes=5), (config.data.height, config.data.width)
    net = Net(module, drawn_variables(module, *size), **config.data.preprocessing)
    model = Model(("attributes",), attributes=net) if phase == "mva" else Model(("feature",), reid=net)
    model = model._replace(input=taken)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
    onnx_graph.write(model, tmp_path / "model.onnx")
    found = onnx_graph.load(tmp_path / "model.onnx", threads=1)(fed(input_of(model), images, transforms.resize))
    for values in bundle.compare(live(model, images, transforms.resize), found).values():
        assert values["relative"] < 2e-5


def test_a_net_without_a_writer_is_refused_before_any_work(tmp_path):
    net = Net(small_net.Net(people=3), {}, 16, 8, (0.5,) * 3, (0.25,) * 3)
    message = r"^Net cannot be written as ONNX, .*leave onnx out of --format\.$"
    with pytest.raises(ValueError, match=message):
        bundle.write(
            tmp_path / "bundle",
            Model(("feature",), reid=net),
            ("stablehlo", "onnx"),
            images=np.zeros((1, 16, 8, 3), np.uint8),
            drawn=1,
            resized=transforms.resize,
            tolerance=1e-4,
            about={},
        )
    assert not list(tmp_path.iterdir())
