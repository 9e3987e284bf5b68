"""The model as an ONNX graph, written node by node; batch normalisation is folded into the layer before it.

Maps are [B, C, rows, columns] inside. Which layers there are is read from the nets' values; what is not in them
(strides, poolings, the order of branches) is said here once more, and each export is compared with the net itself.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from acrn_jax.export import model as models
from acrn_jax.models import MODELS

OPSET, IR_VERSION = 18, 9  # read by onnxruntime 1.14 (2023) and all later ones
_CONV_EPSILON, _EPSILON = 1e-3, 1e-5  # of batch normalisation after convolutions, and elsewhere


class Map(NamedTuple):
    """A value [B, C, rows, columns] of the graph."""

    name: str
    rows: int
    columns: int


class Graph:
    """Nodes and constants, in the order in which they are asked for."""

    def __init__(self):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, op: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Appends a node and returns the name of its output."""
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Stores an array and returns its name."""
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def affine(self, x: Map, factor: np.ndarray, shift: np.ndarray) -> Map:
        """Times `factor`, plus `shift`, both [1, C, 1, 1]."""
        return x._replace(name=self.add("Add", self.add("Mul", x.name, self.constant(factor)), self.constant(shift)))

    def normalise(self, x: Map, mean: np.ndarray, deviation: np.ndarray) -> Map:
        """Pixels of 0 to 255 with the mean and standard deviation (of pixels in [0, 1]) that a net was trained with."""
        return self.affine(x, 1 / (255 * deviation), -mean / deviation)

    def pool(self, x: Map, *, window=3, stride=2, padding="same", op="MaxPool") -> Map:
        """inception.max_pool, or op="AveragePool", which leaves the padding out of the mean."""
        pads, *size = _pads(x, window, stride, padding)
        extra = {"count_include_pad": 0} if op == "AveragePool" else {}
        name = self.add(op, x.name, kernel_shape=[window] * 2, strides=[stride] * 2, pads=pads, **extra)
        return Map(name, *size)

    def conv(self, x: Map, layer: dict[str, Any], *, stride=1, padding="SAME", linear=False, factor=1.0) -> Map:
        """inception.ConvNorm, whose values are `layer`; its result times `factor`."""
        kernel, within = layer["conv"]["kernel"], layer.get("instance")
        own = len(within["scale"]) if within else 0  # channels that are normalised within the image
        folded, bias = fold(kernel[..., own:], 0, layer["norm"], _CONV_EPSILON)
        kernel, bias = np.concatenate([kernel[..., :own], folded], -1), np.concatenate([np.zeros(own), bias])
        pads, *size = _pads(x, len(kernel), stride, padding)
        kernel = self.constant(factor * kernel.transpose(3, 2, 0, 1))
        name = self.add("Conv", x.name, kernel, self.constant(factor * bias), strides=[stride] * 2, pads=pads)
        if within:
            first, rest = (
                self.add("Slice", name, *(self.constant([value], np.int64) for value in edges))
                for edges in ((0, own, 1), (own, len(bias), 1))
            )
            values = [self.constant(factor * within[part]) for part in ("scale", "bias")]
            first = self.add("InstanceNormalization", first, *values, epsilon=factor**2 * _CONV_EPSILON)
            name = self.add("Concat", first, rest, axis=1)
        return Map(name if linear else self.add("Relu", name), *size)

    def chain(self, x: Map, layers: dict[str, Any], *, last_stride: int = 1) -> Map:
        """inception.Chain: ConvNorms one after the other."""
        for i in range(len(layers)):
            x = self.conv(x, layers[f"conv{i}"], stride=last_stride if i == len(layers) - 1 else 1)
        return x

    def concat(self, *maps: Map) -> Map:
        """Maps of one size, channels behind channels."""
        return maps[0]._replace(name=self.add("Concat", *(m.name for m in maps), axis=1))

    def dense(self, x: str, layer: dict[str, Any], norm: dict[str, Any] | None = None) -> str:
        """A dense layer, and the batch normalisation behind it, if there is one: [B, C] -> [B, D]."""
        kernel, bias = layer["kernel"], layer["bias"]
        if norm is not None:
            kernel, bias = fold(kernel, bias, norm, _EPSILON)
        return self.add("Gemm", x, self.constant(kernel), self.constant(bias))

    def average(self, x: Map) -> str:
        """Mean over all places: [B, C]."""
        return self.add("Flatten", self.add("GlobalAveragePool", x.name))


def fold(kernel: np.ndarray, bias: Any, norm: dict[str, np.ndarray], epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """(kernel, bias) of the layer that does what layer and batch normalisation after it do.

    Args:
      kernel: [..., C], channels of the output last.
      bias: [C], or 0.
      norm: scale, bias, mean, var, each [C].
      epsilon: added to the variance.
    """
    scale, shift, mean, variance = (norm[name].astype(np.float64) for name in ("scale", "bias", "mean", "var"))
    factor = scale / np.sqrt(variance + epsilon)
    return kernel * factor, (bias - mean) * factor + shift


def write(model: models.Model, file: Path) -> None:
    """Writes the graph images (`models.input_of`) -> outputs float32 [batch, ...], named sizes left open."""
    graph, taken, raw = Graph(), models.input_of(model), model.input == "uint8_nhwc"
    pixels = "images"
    if raw:
        pixels = graph.add("Transpose", graph.add("Cast", "images", to=TensorProto.FLOAT), perm=[0, 3, 1, 2])
    found: dict[tuple[int, int], Map] = {}  # resized images, which both nets may share

    def run(net: models.Net) -> str:
        size, layers = (net.height, net.width), writer_of(net.module)
        mean, deviation = (np.asarray(v, np.float64).reshape(1, 3, 1, 1) for v in (net.mean, net.deviation))
        if size not in found and raw:
            found[size] = _resize(graph, pixels, *size)
        elif size not in found:  # layers are written for pixels of 0 to 255
            found[size] = graph.affine(Map(pixels, *size), 255 * deviation, 255 * mean)
        return layers(graph, found[size], net.module, values(net.variables), mean, deviation)

    feature = run(model.reid) if model.reid else ""
    logits = run(model.attributes) if model.attributes else ""
    for name in model.outputs:
        if name == "feature":
            graph.add("Identity", feature, output=name)
        elif name == "attributes":
            graph.add("Sigmoid", logits, output=name)
        else:
            scaled = graph.add("Mul", feature, graph.constant(model.feature_factor))
            weighted = graph.add("Mul", _represented(graph, logits, model), graph.constant(model.attribute_factors))
            graph.add("Concat", scaled, weighted, output=name, axis=1)
    some = [1 if isinstance(size, str) else size for size in taken["shape"]]
    sample = jax.ShapeDtypeStruct(some, np.dtype(taken["dtype"]))
    shapes = jax.eval_shape(functools.partial(models.forward, model), sample)
    images = helper.make_tensor_value_info("images", helper.np_dtype_to_tensor_dtype(sample.dtype), taken["shape"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", shapes[name].shape[1]])
        for name in model.outputs
    ]
    body = helper.make_graph(graph.nodes, "acrn_jax", [images], outputs, graph.constants)
    proto = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="acrn_jax"
    )
    onnx.checker.check_model(proto)
    onnx.save(proto, str(file))


def writer_of(module: Any) -> Callable[..., str]:
    """The function that writes a net's layers (models.Model.onnx); ValueError for a net without one."""
    writers = {model.module: model.onnx for model in MODELS.values() if model.onnx}
    if type(module) not in writers:
        raise ValueError(
            f"{type(module).__name__} cannot be written as ONNX, as its entry of MODELS has no writer; give it one, or "
            "leave onnx out of --format."
        )
    return writers[type(module)]


def load(file: Path, *, threads: int = 0) -> Callable[[np.ndarray], dict[str, Any]]:
    """The graph in a file as a function of images; ValueError if this onnxruntime cannot read it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads  # 0: all cores
    try:
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # a class for each of its codes
        raise ValueError(
            f"{file} cannot be read by onnxruntime {onnxruntime.__version__} ({str(error).splitlines()[0][:200]}); "
            "use the onnxruntime that its manifest names, or a newer one."
        ) from error
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def values(variables: dict[str, Any]) -> dict[str, Any]:
    """A net's values as nested dicts, running means and variances beside the parameters of their layer."""

    def merged(a: Any, b: Any) -> Any:
        if not isinstance(a, dict):
            return np.asarray(a)
        return {k: merged(a.get(k, b.get(k)), b.get(k, {}) if k in a else {}) for k in a | b}

    return merged(variables["params"], variables.get("batch_stats", {}))


# Pixels


def _resize(g: Graph, pixels: str, height: int, width: int) -> Map:
    """Bit for bit `model.resize`: onnxruntime's own Resize with antialiasing is up to 16 of 255 levels away from it."""
    shape = g.add("Shape", pixels)
    for axis, size in ((3, width), (2, height)):
        upper, lower = _weights(g, g.add("Gather", shape, g.constant(axis, np.int64)), size)  # [size, length]
        if axis == 3:
            high, low = (g.add("MatMul", pixels, g.add("Transpose", part, perm=[1, 0])) for part in (upper, lower))
        else:
            high, low = (g.add("MatMul", part, pixels) for part in (upper, lower))
        small, half = g.constant(2**-11), g.constant(2**10)
        carried = g.add("Floor", g.add("Add", g.add("Mul", low, small), half))
        pixels = g.add("Floor", g.add("Mul", g.add("Add", high, carried), small))
    return Map(pixels, height, width)


def _weights(g: Graph, length: str, size: int) -> tuple[str, str]:
    """Upper and lower 11 bits of the weights [size, length], as in `model._weights`; `length` an int64 scalar."""

    def whole(value):
        return g.constant(value, np.int64)

    one, two = whole(1), whole(2)
    source = g.add("Add", g.add("Mul", g.add("Range", whole(0), length, one), two), one)  # [length]
    target = g.add("Mul", whole(2 * np.arange(size)[:, None] + 1), length)  # [size, 1]
    distance = g.add("Abs", g.add("Sub", g.add("Mul", source, whole(size)), target))
    reach = g.add("Mul", g.add("Max", length, whole(size)), two)
    parts = g.add("Max", g.add("Sub", reach, distance), whole(0))
    total = g.add("ReduceSum", parts, whole([1]), keepdims=1)
    shifted = g.add("Add", g.add("Mul", parts, whole(2**23)), total)
    weight = g.add("Div", shifted, g.add("Mul", total, two))  # of 22 bits, rounded
    upper = g.add("Div", weight, whole(2**11))
    lower = g.add("Sub", weight, g.add("Mul", upper, whole(2**11)))
    return g.add("Cast", upper, to=TensorProto.FLOAT), g.add("Cast", lower, to=TensorProto.FLOAT)


def _pads(x: Map, window: int, stride: int, padding: Any) -> tuple[list[int], int, int]:
    """(padding as ONNX wants it, rows and columns of the result); `padding` same, ceil (at the end alone) or pixels."""
    before, after, sizes = [], [], []
    for size in (x.rows, x.columns):
        if isinstance(padding, int):
            before.append(padding)
            after.append(padding)
            sizes.append((size + 2 * padding - window) // stride + 1)
            continue
        same = padding.lower() == "same"
        out = -(-size // stride) if same else max(-(-(size - window) // stride), 0) + 1
        overhang = max((out - 1) * stride + window - size, 0)
        before.append(overhang // 2 if same else 0)
        after.append(overhang - before[-1])
        sizes.append(out)
    return before + after, *sizes


def _represented(g: Graph, logits: str, model: models.Model) -> str:
    if model.representation == "probabilities":
        return g.add("Sigmoid", logits)
    if model.representation == "binary":
        return g.add("Cast", g.add("Greater", logits, g.constant(0)), to=TensorProto.FLOAT)
    return logits
