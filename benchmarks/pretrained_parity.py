"""The trunk holding another net's weights against that net, written independently in torch: largest difference.

Claim: for each layout (torchvision's, TF-slim's, ours) the maps after the first convolution and after block 5b agree to
1e-4, whether the weights come as .pth of either kind, .safetensors or .npz. Exits 1 if not.
Weights are random, at full width. Wants torch (2.13 was used).

    ./launch.sh bench pretrained_parity [--sizes=224x224,160x64,75x43]
"""

import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
import safetensors.torch
import torch
from absl import app, flags
from flax import traverse_util
from torch import nn
from torch.nn import functional

from acrn_jax.models import inception, pretrained

SIZES = flags.DEFINE_list("sizes", ["224x224", "160x64", "75x43"], "Heights x widths; odd ones tell layouts apart.")
BOUND = 1e-4
CHANNELS = {  # Szegedy et al. 2015, table 1: inputs, 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
    "3a": (192, 64, 96, 128, 16, 32, 32), "3b": (256, 128, 128, 192, 32, 96, 64),
    "4a": (480, 192, 96, 208, 16, 48, 64), "4b": (512, 160, 112, 224, 24, 64, 64),
    "4c": (512, 128, 128, 256, 24, 64, 64), "4d": (512, 112, 144, 288, 32, 64, 64),
    "4e": (528, 256, 160, 320, 32, 128, 128), "5a": (832, 256, 160, 320, 32, 128, 128),
    "5b": (832, 384, 192, 384, 48, 128, 128),
}  # fmt: skip


def same(x, window, stride, value=0.0):
    """TensorFlow's SAME padding: as little as gives ceil(size / stride) places, the odd row at the end."""
    pads = []
    for size in (x.shape[3], x.shape[2]):  # torch wants the last axis first
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        pads += [total // 2, total - total // 2]
    return functional.pad(x, pads, value=value)


class Unit(nn.Module):
    def __init__(self, inputs, outputs, kernel, stride=1, torchs=True):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, bias=False, padding=kernel // 2 if torchs else 0)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)
        self.pad = (kernel, stride) if not torchs else None

    def forward(self, x):
        return functional.relu(self.bn(self.conv(same(x, *self.pad) if self.pad else x)))


class Block(nn.Module):
    def __init__(self, inputs, one, reduce3, three, reduce5, five, pool, kernel):
        super().__init__()
        self.branch1 = Unit(inputs, one, 1)
        self.branch2 = nn.Sequential(Unit(inputs, reduce3, 1), Unit(reduce3, three, 3))
        self.branch3 = nn.Sequential(Unit(inputs, reduce5, 1), Unit(reduce5, five, kernel))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), Unit(inputs, pool, 1))

    def forward(self, x):
        return torch.cat([branch(x) for branch in (self.branch1, self.branch2, self.branch3, self.branch4)], dim=1)


class GoogLeNet(nn.Module):
    """The trunk under torchvision's names."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.conv1 = Unit(3, 64, 7, 2, torchs=layout == "torchvision")
        self.conv2, self.conv3 = Unit(64, 64, 1), Unit(64, 192, 3)
        for name, channels in CHANNELS.items():
            self.add_module(f"inception{name}", Block(*channels, kernel=5 if layout == "ours" else 3))
        self.fc = nn.Linear(1024, 10)

    def pool(self, x, window=3):
        if self.layout == "torchvision":
            return functional.max_pool2d(x, window, 2, ceil_mode=True)
        return functional.max_pool2d(same(x, window, 2, -torch.inf), window, 2)

    def forward(self, x):
        first = self.conv1(x)
        x = self.conv3(self.conv2(self.pool(first)))
        for name in CHANNELS:
            if name in ("3a", "4a"):
                x = self.pool(x)
            elif name == "5a":
                x = self.pool(x, 3 if self.layout == "ours" else 2)
            x = self.get_submodule(f"inception{name}")(x)
        return first, x


def drawn(layout: str) -> GoogLeNet:
    """A net whose activations keep their size, with statistics that are not those of a fresh one."""
    torch.manual_seed(0)
    net = GoogLeNet(layout).eval()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.8, 1.8)
            module.weight.data.uniform_(0.5, 1.5)
            for values in (module.running_mean, module.bias.data):
                values.normal_(std=0.25)
            if layout == "slim":
                module.weight.data.fill_(1)
    return net


def slim_names(state):
    """The state dict under TF-slim's names, kernels with outputs last."""
    leaves = {"conv.weight": "weights"}
    leaves |= {f"bn.{a}": f"BatchNorm/{b}" for a, b in
               (("bias", "beta"), ("running_mean", "moving_mean"), ("running_var", "moving_variance"))}  # fmt: skip
    units = {"conv1": "Conv2d_1a_7x7", "conv2": "Conv2d_2b_1x1", "conv3": "Conv2d_2c_3x3"}
    for i, name in enumerate(CHANNELS):
        mixed = ("3b", "3c", "4b", "4c", "4d", "4e", "4f", "5b", "5c")[i]
        branches = {"branch1": "0/Conv2d_0a_1x1", "branch4.1": "3/Conv2d_0b_1x1"}
        branches |= {"branch2.0": "1/Conv2d_0a_1x1", "branch2.1": "1/Conv2d_0b_3x3", "branch3.0": "2/Conv2d_0a_1x1"}
        branches["branch3.1"] = "2/Conv2d_0a_3x3" if mixed == "5b" else "2/Conv2d_0b_3x3"
        units |= {f"inception{name}.{a}": f"Mixed_{mixed}/Branch_{b}" for a, b in branches.items()}
    named = {
        f"InceptionV1/{to}/{leaves[leaf]}": state[f"{u}.{leaf}"].numpy() for u, to in units.items() for leaf in leaves
    }
    return {name: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for name, a in named.items()}


def variables(layout, net, state, folder):
    """What our reader makes of the state, once for each kind of file; they must agree."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=False), image)
    wanted = traverse_util.flatten_dict({kind: {"trunk": tree} for kind, tree in dict(shapes).items()}, sep="/")
    wanted = {place: leaf.shape for place, leaf in wanted.items()}
    if layout == "slim":
        np.savez(folder / "slim.npz", **slim_names(state))
        return [pretrained.load(folder / "slim.npz", wanted, layout=layout).values]
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "chain.pth", _use_new_zipfile_serialization=False)
    safetensors.torch.save_file(state, folder / "torch.safetensors")
    files = [folder / name for name in ("zip.pth", "chain.pth", "torch.safetensors")]
    if layout == "torchvision":
        return [pretrained.load(file, wanted, layout=layout).values for file in files]
    found = []
    for file in files:  # no weights in circulation have our layout: the rules alone
        arrays = pretrained.read(file)
        places, _ = pretrained.rename(arrays, pretrained.RULES["torchvision"], path=file)
        values = {place: arrays[name] for name, place in places.items()}
        found.append({p: a.transpose(2, 3, 1, 0) if a.ndim == 4 else a for p, a in values.items()})
    return found


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    worst = 0.0
    for layout in inception.LAYOUTS:
        theirs = drawn(layout)
        net = inception.GoogLeNet(branch_kernel=5 if layout == "ours" else 3, layout=layout)
        with tempfile.TemporaryDirectory() as folder:
            values, *others = variables(layout, net, theirs.state_dict(), Path(folder))
        for other in others:
            assert all(np.array_equal(other[place], value) for place, value in values.items())
        held = {kind: tree["trunk"] for kind, tree in traverse_util.unflatten_dict(values, sep="/").items()}
        run = jax.jit(lambda v, x, net=net: net.apply(v, x, train=False))
        for size in SIZES.value:
            height, width = map(int, size.split("x"))
            image = np.random.default_rng(0).uniform(-1, 1, (2, height, width, 3)).astype(np.float32)
            with torch.no_grad():
                wanted = [y.permute(0, 2, 3, 1).numpy() for y in theirs(torch.tensor(image).permute(0, 3, 1, 2))]
            found = [np.asarray(y) for y in run(held, image)]
            assert [y.shape for y in found] == [y.shape for y in wanted]
            apart = [float(np.abs(a - b).max()) for a, b in zip(found, wanted, strict=True)]
            largest = [float(np.abs(b).max()) for b in wanted]
            worst = max(worst, *apart)
            print(
                f"{layout:11} {size:>7}: first map {found[0].shape[1:]} off by {apart[0]:.1e} (largest value "
                f"{largest[0]:.1f}), 5b {found[1].shape[1:]} off by {apart[1]:.1e} (largest {largest[1]:.1f})",
                flush=True,
            )
    print(f"largest difference: {worst:.1e}; bound {BOUND:g}")
    sys.exit(worst > BOUND)


if __name__ == "__main__":
    app.run(main)
