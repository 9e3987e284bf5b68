"""Shapes, sizes and parameter counts of the nets, against published tables and counts by hand."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from acrn_jax.models import acrn, inception, initialize, mva


def shapes(module, height, width, *, train=False):
    """Shapes of every named module's output, and of the variables, without computing anything."""
    image = jax.ShapeDtypeStruct((2, height, width, 3), np.float32)

    def run(x):
        return module.init_with_output(
            jax.random.key(0),
            x,
            train=train,
            capture_intermediates=True,
            mutable=["params", "batch_stats", "intermediates"],
        )

    out, variables = jax.eval_shape(run, image)
    return out, variables


def output_of(variables, *names):
    entry = variables["intermediates"]
    for name in names:
        entry = entry[name]
    return entry["__call__"][0]


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_googlenet_has_the_published_number_of_parameters():
    # torchvision's googlenet without auxiliary heads has 6,624,904 parameters, its last layer 1024 x 1000 + 1000; it
    # has batch normalisation and 3x3 kernels in the "5x5" branch.
    (_, last), variables = shapes(inception.GoogLeNet(branch_kernel=3), 224, 224)
    assert count(variables["params"]) == 6_624_904 - 1_025_000
    assert last.shape == (2, 7, 7, 1024)


def test_nine_blocks_have_the_published_channels_and_sizes():
    # Szegedy et al. 2015, table 1, output sizes at 224 x 224.
    published = {
        "3a": (28, 256), "3b": (28, 480), "4a": (14, 512), "4b": (14, 512), "4c": (14, 512), "4d": (14, 528),
        "4e": (14, 832), "5a": (7, 832), "5b": (7, 1024),
    }  # fmt: skip
    _, variables = shapes(inception.GoogLeNet(), 224, 224)
    found = {name: output_of(variables, f"inception{name}").shape for name in published}
    assert found == {name: (2, size, size, channels) for name, (size, channels) in published.items()}


def test_acrn_has_the_spatial_sizes_of_the_paper():
    _, variables = shapes(acrn.ACRN(751), 160, 64)
    wanted = {
        "stem0": (160, 64, 32), "stem1": (160, 64, 64), "stem2": (80, 32, 96), "stem3": (80, 32, 128),
        "v3": (40, 16, 256), "layer1": (40, 16, 256), "layer2": (20, 8, 512), "layer3": (20, 8, 512),
        "layer4": (10, 4, 768), "layer5": (10, 4, 768), "layer6": (10, 4, 768), "layer7": (10, 4, 768),
        "layer8": (5, 2, 1024), "feature": (512,), "classifier": (751,),
    }  # fmt: skip
    assert {name: output_of(variables, name).shape[1:] for name in wanted} == wanted


def unit(kernel, inputs, outputs):
    """Parameters of one convolution with batch normalisation."""
    return kernel * kernel * inputs * outputs + 2 * outputs


def test_acrn_has_the_parameters_of_its_table():
    stem = unit(3, 3, 32) + unit(3, 32, 64) + unit(3, 64, 96) + unit(3, 96, 128)
    v3 = unit(1, 128, 64)
    v3 += unit(1, 128, 48) + unit(5, 48, 64)
    v3 += unit(1, 128, 64) + unit(3, 64, 96) + unit(3, 96, 96)
    v3 += unit(1, 128, 32)

    def residual(c):
        one, three, thirds = c // 8, 3 * c // 16, c // 4
        branches = unit(1, c, one) + unit(1, c, one) + unit(3, one, one)
        branches += unit(1, c, one) + unit(3, one, three) + unit(3, three, thirds)
        return branches + unit(1, one + one + thirds, c)

    def reduce(c, out):
        half = (out - c) // 2
        return 2 * unit(1, c, c // 4) + unit(3, c // 4, half) + unit(3, c // 4, half) + unit(3, half, half)

    total = stem + v3 + residual(256) + reduce(256, 512) + residual(512) + reduce(512, 768)
    total += 3 * residual(768) + reduce(768, 1024) + (5 * 2 * 1024 * 512 + 512)
    _, variables = shapes(acrn.ACRN(None), 160, 64)
    assert count(variables["params"]) == total


def test_mva_sizes():
    out, variables = shapes(mva.MVA(35), 224, 224)
    assert out.attribute_logits.shape == (2, 35)
    assert output_of(variables, "global_dense").shape == (2, 600)
    for view in mva.VIEWS:
        assert output_of(variables, f"view_{view}", "conv1").shape == (2, 38, 112, 96)
        assert output_of(variables, f"view_{view}", "block1").shape == (2, 10, 28, 192)
        assert output_of(variables, f"view_{view}").shape == (2, 200)
    assert variables["params"]["head_dense"]["kernel"].shape == (1200, 2048)


@pytest.mark.parametrize("rows", [24, 32, 48, 112])
def test_bands_cover_the_map_in_equal_heights(rows):
    found = mva.bands(rows)
    assert len({stop - start for start, stop in found}) == 1
    assert found[0][0] == 0 and found[-1][1] == rows
    assert set().union(*(range(*band) for band in found)) == set(range(rows))
    assert all(0 <= a[1] - b[0] <= 2 for a, b in itertools.pairwise(found))  # a row or two are shared at most


def test_bands_of_112_rows_by_hand():
    assert mva.bands(112) == [(0, 38), (37, 75), (74, 112)]


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match=r"data\.height"):
        shapes(mva.MVA(3, width=0.125), 16, 16)


def test_views_can_be_left_out():
    _, variables = shapes(mva.MVA(3, width=0.25, views=("middle",)), 64, 32)
    assert [k for k in variables["params"] if k.startswith("view_")] == ["view_middle"]
    assert (
        variables["params"]["head_dense"]["kernel"].shape[0] == 152 + 52 - 4
    )  # 600 / 4 and 200 / 4, to multiples of 4


@pytest.mark.parametrize("window, stride", [(3, 2), (3, 1), (2, 2)])
@pytest.mark.parametrize("height, width", [(7, 6), (8, 5), (1, 4)])
def test_max_pool_is_a_maximum_over_windows(window, stride, height, width):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)

    def places(size):  # "SAME": output k sees window inputs from k * stride - before
        out = -(-size // stride)
        before = max((out - 1) * stride + window - size, 0) // 2
        return [
            [i for i in range(k * stride - before, k * stride - before + window) if 0 <= i < size] for k in range(out)
        ]

    wanted = np.array([[x[:, r][:, :, c].max((1, 2)) for c in places(width)] for r in places(height)])
    found = inception.max_pool(x, window=window, stride=stride)
    np.testing.assert_array_equal(found, wanted.transpose(2, 0, 1, 3))


def test_max_pool_sends_the_gradient_to_the_maximum_and_shares_it_among_ties():
    def total(x):
        return inception.max_pool(x, window=3, stride=3).sum()

    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    gradient = jax.grad(total)(x)
    assert gradient.sum() == 1 and gradient[0, 2, 2, 0] == 1
    tied = jax.grad(total)(np.ones((1, 3, 3, 1), np.float32))
    assert np.isclose(tied.sum(), 1) and (tied > 0).all()


def noise(*shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def seen_inside(captured):
    """Output of every named module, as {"layer1/mix": ...}."""
    flat = traverse_util.flatten_dict(captured["intermediates"], sep="/")
    return {name.removesuffix("/__call__"): value[0] for name, value in flat.items()}


SCALE = 0.7  # of the residual layers, not the default


@pytest.fixture(scope="module")
def trained_acrn():
    """Feature norm -> (outputs, what the modules said), of one batch in training; one program, which XLA shares."""
    nets = {n: acrn.ACRN(4, 0.0625, feature_dim=8, feature_norm=n, residual_scale=SCALE) for n in acrn.FEATURE_NORMS}
    variables = initialize.variables(nets["bnneck"], height=32, width=16, seed=0)
    options = {"train": True, "capture_intermediates": True, "mutable": ["batch_stats", "intermediates"]}
    found = jax.jit(lambda v, x: {n: net.apply(v, x, **options) for n, net in nets.items()})(
        variables, noise(6, 32, 16, 3)
    )
    return {n: (outputs, seen_inside(captured)) for n, (outputs, captured) in found.items()}


@pytest.mark.parametrize("norm", acrn.FEATURE_NORMS)
def test_feature_norms(trained_acrn, norm):
    out, _ = trained_acrn[norm]
    if norm == "l2":
        np.testing.assert_allclose(np.linalg.norm(out.feature, axis=1), 1, rtol=1e-5)
    if norm in ("batch_norm", "bnneck"):
        np.testing.assert_allclose(np.mean(out.feature, 0), 0, atol=1e-5)
        np.testing.assert_allclose(np.std(out.feature, 0), 1, atol=1e-2)
    same = np.array_equal(out.feature, out.trained_feature)
    assert same == (norm != "bnneck")


def test_residual_layers_add_their_scaled_branches_to_what_came_in(trained_acrn):
    _, found = trained_acrn["none"]
    before = {"layer1": "v3", "layer3": "layer2", "layer5": "layer4", "layer6": "layer5", "layer7": "layer6"}
    for layer, came_from in before.items():
        x, branches = found[came_from], found[f"{layer}/mix"]
        assert min(np.abs(x).max(), np.abs(branches).max()) > 1e-3
        np.testing.assert_allclose(found[layer], np.maximum(x + SCALE * branches, 0), atol=1e-5, err_msg=layer)


def test_each_local_view_sees_its_own_third_with_a_shortcut_around_its_convolutions():
    net = mva.MVA(3, width=0.0625)
    variables, images = initialize.variables(net, height=96, width=32, seed=0), noise(1, 96, 32, 3)
    options = {"train": False, "capture_intermediates": True, "mutable": ["intermediates"]}
    forward = jax.jit(lambda x: net.apply(variables, x, **options)[1])
    whole = seen_inside(forward(images))
    for place, view in enumerate(mva.VIEWS):
        changed = images.copy()
        changed[:, 32 * place + 6 : 32 * place + 26] += 1  # out of reach of the 7x7 convolution from other bands
        other = seen_inside(forward(changed))
        differing = [name for name in mva.VIEWS if not np.allclose(whole[f"view_{name}"], other[f"view_{name}"])]
        assert differing == [view]
        for block in (f"view_{view}/block0", f"view_{view}/block1"):
            branch, shortcut = whole[f"{block}/conv2"], whole[f"{block}/shortcut"]
            np.testing.assert_allclose(whole[block], np.maximum(branch + shortcut, 0), atol=1e-5)
            assert min(np.abs(branch).max(), np.abs(shortcut).max()) > 1e-3


def test_running_statistics_move_by_a_tenth():
    x, unit = noise(4, 5, 6, 3), inception.ConvNorm(2)
    kernel = noise(1, 1, 3, 2)
    norm = {"scale": np.ones(2, np.float32), "bias": np.zeros(2, np.float32)}
    before = {"norm": {"mean": np.array([0.5, -1.0], np.float32), "var": np.array([2.0, 1.0], np.float32)}}
    variables = {"params": {"conv": {"kernel": kernel}, "norm": norm}, "batch_stats": before}
    _, moved = unit.apply(variables, x, train=True, mutable=["batch_stats"])
    y = (x.reshape(-1, 3) @ kernel[0, 0]).astype(np.float64)
    after = moved["batch_stats"]["norm"]
    np.testing.assert_allclose(after["mean"], 0.9 * before["norm"]["mean"] + 0.1 * y.mean(0), rtol=1e-4)
    np.testing.assert_allclose(after["var"], 0.9 * before["norm"]["var"] + 0.1 * y.var(0), rtol=1e-4)


@pytest.mark.parametrize("train", [True, False])
def test_with_instance_norm_half_of_the_channels_know_their_own_image_alone(train):
    x, unit, rng = noise(4, 5, 6, 3), inception.ConvNorm(6, instance=True), np.random.default_rng(9)
    params = {
        "conv": {"kernel": noise(1, 1, 3, 6)},
        "instance": {"scale": rng.uniform(0.5, 2, 3), "bias": rng.normal(size=3)},
        "norm": {"scale": rng.uniform(0.5, 2, 3), "bias": rng.normal(size=3)},
    }
    stats = {"norm": {"mean": rng.normal(size=3), "var": rng.uniform(0.5, 2, 3)}}
    params, stats = jax.tree.map(np.float32, (params, stats))
    found, _ = unit.apply({"params": params, "batch_stats": stats}, x, train=train, mutable=["batch_stats"])
    y = (x.reshape(-1, 3) @ params["conv"]["kernel"][0, 0]).reshape(4, 5, 6, 6).astype(np.float64)
    for channel in range(6):
        half, place = ("instance", channel) if channel < 3 else ("norm", channel - 3)
        for image in range(4):
            seen = y[image if half == "instance" else slice(None), ..., channel]
            mean, variance = seen.mean(), seen.var()
            if half == "norm" and not train:
                mean, variance = stats["norm"]["mean"][place], stats["norm"]["var"][place]
            wanted = (y[image, ..., channel] - mean) / np.sqrt(variance + 1e-3)
            wanted = np.maximum(wanted * params[half]["scale"][place] + params[half]["bias"][place], 0)
            np.testing.assert_allclose(found[image, ..., channel], wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "net, early", [(acrn.ACRN, [f"stem{i}" for i in range(4)]), (mva.MVA, ["conv1", "conv2", "conv3"])]
)
def test_instance_norm_is_of_the_first_convolutions_and_costs_no_parameter(net, early):
    (_, plain), (_, other) = (shapes(net(3, width=0.0625, instance_norm=on), 64, 32) for on in (False, True))
    assert count(plain["params"]) == count(other["params"])
    flat = traverse_util.flatten_dict(other["params"], sep="/")
    found = {name.removesuffix("/instance/scale").removeprefix("trunk/") for name in flat if "instance/scale" in name}
    assert found == set(early)
    for name in flat:
        if name.endswith("/instance/scale"):
            assert flat[name].shape == flat[name.replace("instance", "norm")].shape


def test_unknown_feature_norm_is_refused():
    with pytest.raises(ValueError, match=r"known: none"):
        shapes(acrn.ACRN(4, feature_norm="l3"), 160, 64)


def test_initial_values_depend_on_seed_and_path_alone():
    net = acrn.ACRN(4, width=0.0625, feature_dim=8)
    first, again, other = (initialize.variables(net, height=32, width=16, seed=s) for s in (0, 0, 1))
    more = initialize.variables(acrn.ACRN(9, width=0.0625, feature_dim=8), height=32, width=16, seed=0)

    def kernel(variables):
        return variables["params"]["stem1"]["conv"]["kernel"]

    np.testing.assert_array_equal(kernel(first), kernel(again))
    np.testing.assert_array_equal(kernel(first), kernel(more))
    assert not np.array_equal(kernel(first), kernel(other))
    wide = initialize.variables(acrn.ACRN(4), height=160, width=64, seed=0)["params"]
    assert np.isclose(wide["layer5"]["branch33"]["conv1"]["conv"]["kernel"].std(), np.sqrt(2 / (9 * 96)), rtol=0.02)
    assert (wide["stem0"]["norm"]["scale"] == 1).all() and (wide["stem0"]["norm"]["bias"] == 0).all()


@pytest.mark.parametrize(
    "net", [mva.MVA(3, axis_name="data"), acrn.ACRN(5, feature_norm="bnneck", axis_name="data")], ids=["mva", "acrn"]
)
def test_every_batch_norm_sees_all_devices_and_moves_by_a_tenth(net):
    """Under pmap a layer without the axis would silently take statistics of its own share."""
    seen = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.BatchNorm):
            seen[context.module.path] = (context.module.axis_name, context.module.momentum)
        return call(*args, **kwargs)

    _, variables = shapes(net, 160, 64)
    share = jax.ShapeDtypeStruct((4, 2, 160, 64, 3), np.float32)
    forward = lambda v, x: net.apply(v, x, train=True, mutable=["batch_stats"])
    with nn.intercept_methods(note):
        jax.eval_shape(jax.vmap(forward, (None, 0), axis_name="data"), {**variables, "intermediates": {}}, share)
    assert len(seen) == sum(path[-1].key == "mean" for path, _ in jax.tree.leaves_with_path(variables["batch_stats"]))
    assert set(seen.values()) == {("data", 0.9)}


@pytest.mark.parametrize("net", [mva.MVA, acrn.ACRN])
def test_in_bfloat16_activations_stay_so_through_every_convolution_and_its_norm(net):
    """A norm that gives float32 would double the memory of what the gradient needs, unnoticed in any number."""
    _, variables = shapes(net(3, width=0.0625, dtype=jnp.bfloat16), 32, 16, train=True)
    flat = traverse_util.flatten_dict(variables["intermediates"], sep="/")
    found = {name: value[0].dtype for name, value in flat.items() if name.endswith(("conv/__call__", "norm/__call__"))}
    assert len(found) > 60 and set(found.values()) == {jnp.dtype(jnp.bfloat16)}
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves((variables["params"], variables["batch_stats"])))


class Thin(nn.Module):
    """In place of an inception layer, which takes long to compile."""

    @nn.compact
    def __call__(self, x, *, train):
        return x[:, :1, :1]


def test_the_classifier_sees_l2_features_as_large_as_normalised_ones(monkeypatch):
    for layer in ("InceptionV3", "InceptionResidual", "InceptionReduce"):
        monkeypatch.setattr(acrn, layer, lambda *_, name: Thin(name=name))
    monkeypatch.setattr(acrn, "STEM", (8,))
    net = acrn.ACRN(5, feature_dim=16, feature_norm="l2")
    variables = initialize.variables(net, height=4, width=4, seed=0)
    out = net.apply(variables, np.random.default_rng(0).normal(size=(3, 4, 4, 3)).astype(np.float32), train=False)
    np.testing.assert_allclose(np.linalg.norm(out.feature, axis=1), 1, rtol=1e-5)
    layer = variables["params"]["classifier"]
    np.testing.assert_allclose(out.identity_logits, 4 * out.feature @ layer["kernel"] + layer["bias"], rtol=1e-5)


@pytest.mark.parametrize("width", [1 / 64, 1 / 32])
def test_the_narrowest_nets_have_channels_in_every_branch(width):
    for net, size in ((acrn.ACRN(3, width=width), (32, 16)), (mva.MVA(3, width=width), (32, 16))):
        _, variables = shapes(net, *size)
        assert all(leaf.size for leaf in jax.tree.leaves(variables["params"]))
