"""ImageNet weights: every name finds its place, the forward is the source net's, and anything else is refused."""

import functools
import os
import pickle

import flax.linen as nn
import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from acrn_jax.models import inception, mva, pretrained, torch_file
from tests.fixtures import googlenet

WIDTH = 1 / 16


@pytest.fixture(autouse=True)
def _torch(monkeypatch):
    googlenet.fake_torch(monkeypatch)


@functools.cache
def trunk(width=WIDTH, kernel=3):
    """Shapes of MVA's trunk, by place."""
    net = mva.MVA(2, width=width, branch_kernel=kernel, views=())
    image = jax.ShapeDtypeStruct((1, 64, 32, 3), np.float32)
    variables = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: leaf.shape for name, leaf in flat.items() if name.split("/")[1] == "trunk"}


def save(path, arrays):
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".safetensors":
        safetensors.numpy.save_file({n: np.array(a, order="C") for n, a in arrays.items()}, path)
    else:
        (googlenet.save_zip if path.suffix == ".pth" else googlenet.save_chain)(path, googlenet.tensors(arrays))
    return path


def load(path, layout="torchvision", **net):
    return pretrained.load(path, trunk(**net), layout=layout)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors", ".npz"])
def test_every_kind_of_file_gives_the_same_arrays(tmp_path, ending):
    arrays = googlenet.torchvision(WIDTH)
    found = pretrained.read(save(tmp_path / f"weights{ending}", arrays))
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array, strict=True)


def test_the_full_net_of_torchvision_fits(tmp_path):
    arrays = googlenet.torchvision()
    found = load(save(tmp_path / "googlenet.pth", arrays), width=1.0)
    assert len(found.values) == 57 * 5 == len(trunk(1.0))
    assert {label: len(names) for label, names in found.dropped.items()} == {
        "num_batches_tracked": 57, "aux1": 4, "aux2": 3, "fc": 2,
    }  # fmt: skip
    assert sum(a.size for n, a in found.values.items() if n.startswith("params")) == 5_599_904  # torchvision's, less fc
    np.testing.assert_array_equal(
        found.values["params/trunk/inception4c/branch5/conv1/conv/kernel"][2, 0, 5, 7],
        arrays["inception4c.branch3.1.conv.weight"][7, 5, 2, 0],
    )


@pytest.mark.parametrize("layout", ["ours", "torchvision", "slim"])
@pytest.mark.parametrize("height, width", [(66, 43)])  # even, then odd on the way down, where the layouts differ
def test_forward_is_that_of_the_source_net(tmp_path, layout, height, width):
    if layout == "slim":
        arrays = googlenet.slim(WIDTH)
        theirs = {t: f"InceptionV1/{s}" for t, s in googlenet.units()}
        values = load(save(tmp_path / "inception_v1.npz", arrays), layout).values

        def unit(name):
            weight = arrays[f"{theirs[name]}/weights"].transpose(3, 2, 0, 1)
            rest = [arrays[f"{theirs[name]}/BatchNorm/{n}"] for n in ("beta", "moving_mean", "moving_variance")]
            return weight, 1.0, *rest

    else:
        kernel = 5 if layout == "ours" else 3
        arrays = googlenet.torchvision(WIDTH, kernel)
        path = save(tmp_path / "weights.pth", arrays)
        if layout == "ours":  # no weights in circulation have it; the names are as good as any
            places, _ = pretrained.rename(arrays, pretrained.RULES["torchvision"], path=path)
            values = {place: arrays[name] for name, place in places.items()}
            values = {p: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for p, a in values.items()}
        else:
            values = load(path).values

        def unit(name):
            leaves = ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")
            return [arrays[f"{name}.{leaf}"] for leaf in leaves]

    image = np.random.default_rng(1).uniform(-1, 1, (height, width, 3)).astype(np.float32)
    variables = {k: v["trunk"] for k, v in traverse_util.unflatten_dict(values, sep="/").items()}
    net = inception.GoogLeNet(WIDTH, branch_kernel=5 if layout == "ours" else 3, layout=layout)
    found = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, image[None])
    for ours, wanted in zip(found, googlenet.forward(image, unit, layout), strict=True):
        assert ours.shape[1:] == wanted.shape and wanted.std() > 0.01
        np.testing.assert_allclose(ours[0], wanted, atol=1e-4 * wanted.max())


@pytest.mark.parametrize("layout", inception.LAYOUTS)
def test_pixels_come_to_the_trunk_in_the_range_of_its_weights(layout):
    mean, deviation = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    pixels = np.random.default_rng(0).uniform(size=(1, 32, 16, 3)).astype(np.float32)

    def record(call, args, kwargs, context):
        if isinstance(context.module, inception.GoogLeNet):
            raise Seen(args[0])
        return call(*args, **kwargs)

    class Seen(Exception):
        pass

    net = mva.MVA(1, width=WIDTH, views=(), layout=layout, mean=mean, deviation=deviation)
    with nn.intercept_methods(record), pytest.raises(Seen) as seen:
        net.init(jax.random.key(0), (pixels - np.float32(mean)) / np.float32(deviation), train=False)
    wanted = (pixels - np.float32(mean)) / np.float32(deviation) if layout == "ours" else 2 * pixels - 1
    np.testing.assert_allclose(seen.value.args[0], wanted, atol=1e-6)


@pytest.mark.parametrize("window", [2, 3])
@pytest.mark.parametrize("size", [2, 3, 4, 7, 8])
def test_ceil_pooling_is_torchs(window, size):
    # Windows every second place from the first on, as long as the one before did not reach the end.
    x = np.random.default_rng(0).normal(size=size).astype(np.float32)
    wanted = [x[:window].max()]
    for start in range(2, size, 2):
        if start - 2 + window < size:
            wanted.append(x[start : start + window].max())
    grid = x[None, :, None, None] + np.zeros((1, size, size, 1), np.float32)
    found = inception.max_pool(grid, window=window, padding="ceil")
    np.testing.assert_array_equal(found[0, :, 0, 0], wanted)
    assert found.shape == (1, len(wanted), len(wanted), 1)


# Weights of another net


def test_names_and_shapes_must_fit(tmp_path):
    arrays, path = googlenet.torchvision(WIDTH), tmp_path / "weights.safetensors"

    def refused(message, arrays, layout="torchvision", **net):
        with pytest.raises(ValueError, match=message):
            load(save(path, arrays), layout, **net)

    refused(r"1 names that no rule of this net knows: conv4\.conv\.weight", arrays | {"conv4.conv.weight": np.ones(3)})
    less = {name: a for name, a in arrays.items() if not name.startswith("inception5b.branch1")}
    refused(r"lacks 5 of the trunk's 285 arrays: batch_stats/trunk/inception5b/branch1/conv0/norm/mean", less)
    refused(r"1 arrays of other shapes: params/trunk/conv3/norm/scale is \(3,\), wanted \(12,\)",
            arrays | {"conv3.bn.weight": np.ones(3, np.float32)})  # fmt: skip
    refused(r"4 channels after the first convolution, this net 64; .*width=1\.0 alone", arrays, width=1.0)
    refused(r"Pass --config\.model\.branch_kernel=3\.$", arrays, kernel=5)
    refused(r"Pass --config\.model\.layout=torchvision --config\.model\.branch_kernel=3\.$", arrays, "ours", kernel=5)
    refused(r"holds neither torchvision's googlenet nor TF-slim's", {"layer1.0.conv1.weight": np.ones(3)})


def test_of_many_strange_names_five_are_told(tmp_path):
    with pytest.raises(ValueError, match=r"holds 8 names .* knows: name0, name1, name2, name3, name4 and 3 more\.$"):
        pretrained.rename([f"name{i}" for i in range(8)], [("other.", "x")], path=tmp_path)
    with pytest.raises(ValueError, match=r"holds 5 names .* knows: name0, name1, name2, name3, name4\.$"):
        pretrained.rename([f"name{i}" for i in range(5)], [("other.", "x")], path=tmp_path)


def test_slim_names_must_fit(tmp_path):
    arrays, path = googlenet.slim(WIDTH), tmp_path / "inception_v1.npz"
    found = load(save(path, arrays), "slim")
    assert found.dropped == {"global_step": ["global_step"], "Logits": ["InceptionV1/Logits/Conv2d_0c_1x1/weights"]}
    assert (found.values["params/trunk/conv3/norm/scale"] == 1).all()
    with pytest.raises(ValueError, match=r"Pass --config\.model\.layout=slim\.$"):
        load(path, "torchvision")
    twice = "InceptionV1/Mixed_5b/Branch_2/Conv2d_0b_3x3/weights"
    with pytest.raises(ValueError, match=r"2 names that claim one place twice: .*Conv2d_0a_3x3/weights"):
        load(save(path, arrays | {twice: arrays[twice.replace("0b_3x3", "0a_3x3")]}), "slim")
    slot = "InceptionV1/Conv2d_1a_7x7/weights/RMSProp"
    with pytest.raises(ValueError, match=f"no rule of this net knows: {slot}"):
        load(save(path, arrays | {slot: np.ones(2)}), "slim")


def test_a_name_that_two_rules_match_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="1 names that claim one place twice: ab"):
        pretrained.rename(["ab"], [("a.", "x"), (".b", "y")], path=tmp_path)


def test_caffes_weights_are_refused_for_their_want_of_batch_norm(tmp_path):
    with pytest.raises(ValueError, match="which has no batch normalisation"):
        load(tmp_path / "bvlc_googlenet.caffemodel")
    blobs = {"conv1/7x7_s2": np.ones(2), "conv1/7x7_s2_b": np.ones(2), "inception_3a/1x1": np.ones(2)}
    with pytest.raises(ValueError, match="which has no batch normalisation"):
        load(save(tmp_path / "caffe.npz", blobs))


@pytest.mark.parametrize(
    "name, message",
    [
        ("inception_v1.ckpt", "no known kind of weights.*Pretrained trunk"),
        ("weights.h5", r"\(\.pth, \.pt, \.safetensors, \.npz\)\.$"),
        ("weights.npz", r"no \.npz file"),
        ("weights.safetensors", r"no \.safetensors file"),
        ("weights.pth", "cannot be read as weights of torch.save"),
    ],
)
def test_other_and_damaged_files_are_refused(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"nothing of the kind" * 9)
    with pytest.raises(ValueError, match=message):
        pretrained.read(tmp_path / name)


# Files of torch.save


class Evil:
    def __init__(self, call, *args):
        self.call = call, args

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("write", [googlenet.save_zip, googlenet.save_chain])
@pytest.mark.parametrize("call, named", [(os.mkdir, r"\w+\.mkdir"), (eval, r"\w+\.eval"), (getattr, r"\w+\.getattr")])
def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path, write, call, named):
    victim = tmp_path / "victim"
    args = {"mkdir": (str(victim),), "eval": (f"__import__('os').mkdir({str(victim)!r})",), "getattr": ("", "upper")}
    write(tmp_path / "w.pth", {"conv1.conv.weight": Evil(call, *args[call.__name__])})
    with pytest.raises(ValueError, match=f"w.pth cannot be read .* it asks for {named}"):
        torch_file.read(tmp_path / "w.pth")
    assert not victim.exists()
    with open(tmp_path / "plain.pth", "wb") as file:  # a bare pickle, read by the first of the chain
        pickle.dump(Evil(call, *args[call.__name__]), file)
    with pytest.raises(ValueError, match=f"it asks for {named}"):
        torch_file.read(tmp_path / "plain.pth")
    assert not victim.exists()


@pytest.mark.parametrize("write", [googlenet.save_zip, googlenet.save_chain])
def test_views_share_a_storage(tmp_path, write):
    storage = googlenet.Storage("0", "FloatStorage", np.arange(12, dtype=np.float32))
    write(tmp_path / "w.pth", {"a": googlenet.Tensor(storage, 0, (3, 4), (4, 1)),
                               "b": googlenet.Tensor(storage, 1, (4, 2), (1, 4))})  # fmt: skip
    found = torch_file.read(tmp_path / "w.pth")
    whole = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(found["a"], whole)
    np.testing.assert_array_equal(found["b"], whole.ravel()[[[1, 5], [2, 6], [3, 7], [4, 8]]])


@pytest.mark.parametrize("write", [googlenet.save_zip, googlenet.save_chain])
@pytest.mark.parametrize("view", [(9, (2, 2), (2, 1)), (0, (13,), (0,)), (-1, (2,), (1,)), (3, (2,), (-1,))])
def test_a_tensor_stays_within_its_storage(tmp_path, write, view):
    storage = googlenet.Storage("0", "FloatStorage", np.arange(12, dtype=np.float32))
    write(tmp_path / "w.pth", {"a": googlenet.Tensor(storage, *view)})
    with pytest.raises(ValueError, match="reaches beyond its storage of 12 elements"):
        torch_file.read(tmp_path / "w.pth")


def test_damaged_or_other_contents_are_refused(tmp_path):
    good = googlenet.tensors({"a": np.ones(4, np.float32)})
    path = tmp_path / "w.pth"

    def refused(message):
        with pytest.raises(ValueError, match=f"w.pth cannot be read as weights of torch.save: .*{message}"):
            torch_file.read(path)

    for write, big in ((googlenet.save_zip, {"byteorder": b"big"}), (googlenet.save_chain, {"little": False})):
        write(path, {"model": good, "epoch": 3})
        refused("'model' in it is no tensor; wanted is the state dict alone")
        write(path, [1, 2])
        refused("it holds a list")
        write(path, good, **big)
        refused("big-endian")
        write(path, good)
        whole = path.read_bytes()
        for cut in range(1, len(whole), 7):
            path.write_bytes(whole[:cut])
            refused("")
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "none.pth")
