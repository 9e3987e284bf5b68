"""ImageNet weights of Inception-v1 for the attribute net's trunk: torchvision's `googlenet`, TF-slim's `inception_v1`.

Ordered rules give each name of a file its place in the trunk, or drop it with a label. A name that no rule or two rules
match, a place that stays empty or is filled twice, and a shape that differs are errors.
"""

import collections
import re
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from acrn_jax.models import torch_file
from acrn_jax.models.inception import GOOGLENET

Rules = list[tuple[str, str | None]]  # (pattern of the whole name, place; None drops it under the pattern's group)


def _torchvision() -> Rules:
    units = [
        (r"(conv[123])", r"\1"),
        (r"(inception\d[a-e])\.branch1", r"\1/branch1/conv0"),
        (r"(inception\d[a-e])\.branch2\.([01])", r"\1/branch3/conv\2"),
        (r"(inception\d[a-e])\.branch3\.([01])", r"\1/branch5/conv\2"),
        (r"(inception\d[a-e])\.branch4\.1", r"\1/pool/conv0"),
    ]
    leaves = [
        (r"\.conv\.weight", "params/trunk/{}/conv/kernel"),
        (r"\.bn\.weight", "params/trunk/{}/norm/scale"),
        (r"\.bn\.bias", "params/trunk/{}/norm/bias"),
        (r"\.bn\.running_mean", "batch_stats/trunk/{}/norm/mean"),
        (r"\.bn\.running_var", "batch_stats/trunk/{}/norm/var"),
    ]
    dropped: Rules = [(r"(aux1|aux2|fc)\..+", None), (r"(?:conv|inception).+\.(num_batches_tracked)", None)]
    return [(unit + leaf, place.format(to)) for unit, to in units for leaf, place in leaves] + dropped


def _slim() -> Rules:
    units = [("Conv2d_1a_7x7", "conv1"), ("Conv2d_2b_1x1", "conv2"), ("Conv2d_2c_3x3", "conv3")]
    for block in GOOGLENET:
        theirs = f"Mixed_{block[0]}{chr(ord(block[1]) + 1)}"  # 3a is Mixed_3b there
        units += [
            (f"{theirs}/Branch_0/Conv2d_0a_1x1", f"inception{block}/branch1/conv0"),
            (f"{theirs}/Branch_1/Conv2d_0a_1x1", f"inception{block}/branch3/conv0"),
            (f"{theirs}/Branch_1/Conv2d_0b_3x3", f"inception{block}/branch3/conv1"),
            (f"{theirs}/Branch_2/Conv2d_0a_1x1", f"inception{block}/branch5/conv0"),
            (f"{theirs}/Branch_2/Conv2d_0[ab]_3x3", f"inception{block}/branch5/conv1"),  # 0a in Mixed_5b alone
            (f"{theirs}/Branch_3/Conv2d_0b_1x1", f"inception{block}/pool/conv0"),
        ]
    leaves = [
        ("/weights", "params/trunk/{}/conv/kernel"),
        ("/BatchNorm/beta", "params/trunk/{}/norm/bias"),
        ("/BatchNorm/moving_mean", "batch_stats/trunk/{}/norm/mean"),
        ("/BatchNorm/moving_variance", "batch_stats/trunk/{}/norm/var"),
    ]
    dropped: Rules = [(r"InceptionV1/(Logits)/.+", None), ("(global_step)", None)]
    return [(f"InceptionV1/{unit}{leaf}", place.format(to)) for unit, to in units for leaf, place in leaves] + dropped


RULES = {"torchvision": _torchvision(), "slim": _slim()}
MARKS = {"torchvision": r"conv1\.conv\.weight", "slim": r"InceptionV1/.+", "caffe": r"conv1/7x7_s2.*"}
NO_NORM = "is Caffe's GoogLeNet, which has no batch normalisation, and the trunk has one after every convolution"


class Trunk(NamedTuple):
    """What a file of weights gives."""

    source: str  # torchvision | slim
    values: dict[str, np.ndarray]  # by place: params/trunk/conv1/conv/kernel
    dropped: dict[str, list[str]]  # names left out, by label


def load(path: Path, wanted: Mapping[str, tuple[int, ...]], *, layout: str) -> Trunk:
    """Weights of the trunk out of a .pth, .safetensors or .npz file.

    Args:
      path: torchvision's state dict, or TF-slim's checkpoint as .npz, under the names that it has there.
      wanted: shape of every variable of the trunk, by place (params/trunk/conv1/conv/kernel).
      layout: of the net, an entry of `inception.LAYOUTS`.

    Raises:
      ValueError: another kind of file, other weights, or weights of another net than the one described.
    """
    arrays = read(path)
    source = next((s for s, mark in MARKS.items() if any(re.fullmatch(mark, name) for name in arrays)), None)
    if source == "caffe":
        raise ValueError(f"{path} {NO_NORM}; use torchvision's or TF-slim's weights.")
    if source is None:
        raise ValueError(
            f"{path} holds neither torchvision's googlenet nor TF-slim's inception_v1: its {len(arrays)} names begin "
            f"{', '.join(list(arrays)[:3])}."
        )
    places, dropped = rename(arrays, RULES[source], path=path)
    values = {place: _ours(arrays[name], source) for name, place in places.items()}
    if source == "slim":  # its batch normalisation has no scale
        values |= {w: np.ones(s, np.float32) for w, s in wanted.items() if w.endswith("/scale") and w not in values}
    _check(path, values, wanted, source, layout)
    return Trunk(source, values, dropped)


def read(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a file by name; the ending tells its kind."""
    kind = path.suffix
    if kind in (".pth", ".pt"):
        return torch_file.read(path)
    if kind == ".safetensors":
        try:
            return safetensors.numpy.load_file(path)
        except safetensors.SafetensorError as error:
            raise ValueError(f"{path} is no .safetensors file, or damaged: {error}.") from error
    if kind == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                return dict(file)
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} is no .npz file, or damaged: {error}.") from error
    if kind in (".caffemodel", ".prototxt"):
        raise ValueError(f"{path} {NO_NORM}; use torchvision's or TF-slim's weights.")
    hint = '; "Pretrained trunk" in docs/training.md makes it an .npz' if ".ckpt" in path.name else ""
    raise ValueError(f"{path} is of no known kind of weights (.pth, .pt, .safetensors, .npz){hint}.")


def rename(names: Iterable[str], rules: Rules, *, path: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """(name -> place, label -> names dropped); ValueError lists names that no rule or several match."""
    places: dict[str, str] = {}
    dropped: dict[str, list[str]] = collections.defaultdict(list)
    unmatched, doubly = [], []
    for name in names:
        found = [(match, place) for pattern, place in rules if (match := re.fullmatch(pattern, name))]
        if len(found) != 1:
            (doubly if found else unmatched).append(name)
            continue
        match, place = found[0]
        if place is None:
            dropped[match[1]].append(name)
        else:
            places[name] = match.expand(place)
    filled = collections.Counter(places.values())
    doubly += [name for name, place in places.items() if filled[place] > 1]
    for strays, what in ((unmatched, "that no rule of this net knows"), (doubly, "that claim one place twice")):
        if strays:
            raise ValueError(f"{path} holds {len(strays)} names {what}: {_some(strays)}.")
    return places, dict(dropped)


def _ours(array, source):
    array = np.asarray(array, np.float32)
    if array.ndim == 4 and source == "torchvision":
        array = array.transpose(2, 3, 1, 0)  # outputs, inputs, rows, columns -> rows, columns, inputs, outputs
    return np.ascontiguousarray(array)


def _check(path, values, wanted, source, layout):
    missing = sorted(wanted.keys() - values.keys())
    if missing:
        hint = " Pass --config.model.instance_norm=False." if any("/instance/" in name for name in missing) else ""
        raise ValueError(f"{path} lacks {len(missing)} of the trunk's {len(wanted)} arrays: {_some(missing)}.{hint}")
    theirs, ours = (shape["params/trunk/conv1/norm/bias"][0] for shape in (_shapes(values), wanted))
    if theirs != ours:
        raise ValueError(
            f"{path} has {theirs} channels after the first convolution, this net {ours}; ImageNet weights fit "
            "--config.model.width=1.0 alone."
        )
    kernel = "params/trunk/inception3a/branch5/conv1/conv/kernel"
    settings = [f"--config.model.layout={source}"] * (layout != source)
    settings += [f"--config.model.branch_kernel={values[kernel].shape[0]}"] * (
        values[kernel].shape[0] != wanted[kernel][0]
    )
    if settings:
        raise ValueError(
            f"{path} is of {source}'s net; this one has layout {layout!r} and branch_kernel {wanted[kernel][0]}. "
            f"Pass {' '.join(settings)}."
        )
    wrong = [f"{p} is {s}, wanted {wanted[p]}" for p, s in _shapes(values).items() if s != wanted.get(p)]
    if wrong:
        raise ValueError(f"{path} has {len(wrong)} arrays of other shapes: {_some(wrong, '; ')}.")


def _shapes(values):
    return {place: tuple(value.shape) for place, value in values.items()}


def _some(names, separator=", "):
    return separator.join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
