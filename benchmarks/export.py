"""Exported nets in onnxruntime against the live net, and against torch's export of the same net where torch is.

./launch.sh bench export [--threads=2 --batch=32 --rounds=5 --net=inception|mva|acrn]

`inception` is Inception-v1 with its dense layers, MVA without local views: 160 x 64, full width. Ours takes uint8
images of 128 x 64 and resizes and normalises them; `without resizing` is the rest of the same graph, which is what
torch's does, on float images of 160 x 64. Rounds take turns; CPU time counts on a busy machine.
"""

import argparse
import functools
import importlib.util
import pathlib
import statistics
import tempfile
import time

import jax
import numpy as np
import onnx.utils
import onnxruntime

from acrn_jax.export import bundle, onnx_graph
from acrn_jax.export import model as models
from acrn_jax.models import acrn, initialize, mva

HEIGHT, WIDTH, ATTRIBUTES = 160, 64, 35
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def ours(name: str) -> models.Model:
    """The net with drawn values."""
    module = acrn.ACRN() if name == "acrn" else mva.MVA(ATTRIBUTES, views=mva.VIEWS if name == "mva" else ())
    variables = initialize.variables(module, height=HEIGHT, width=WIDTH, seed=0)
    net = models.Net(module, variables, HEIGHT, WIDTH, MEAN, DEVIATION)
    return models.Model(("feature",), reid=net) if name == "acrn" else models.Model(("attributes",), attributes=net)


def write_torch(file: pathlib.Path) -> None:
    """Writes torch's export of Inception-v1 with the dense layers of MVA; normalisations folded by torch."""
    import torch

    from benchmarks import _torch_nets

    net = torch.nn.Sequential(_torch_nets.inception_v1(ATTRIBUTES), torch.nn.Sigmoid())
    image = torch.zeros(2, 3, HEIGHT, WIDTH)
    torch.onnx.export(
        net.eval(), (image,), str(file), input_names=["images"], dynamo=False, dynamic_axes={"images": {0: "batch"}}
    )


def write_rest(whole: pathlib.Path, file: pathlib.Path) -> str:
    """Writes our graph from the resized pixels on and returns the name of that input."""
    graph = onnx.load(str(whole)).graph
    resized = [node for node in graph.node if node.op_type == "Floor"][-1].output[0]
    onnx.utils.extract_model(str(whole), str(file), [resized], [output.name for output in graph.output])
    return resized


def session(file: pathlib.Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--net", choices=("inception", "mva", "acrn"), default="inception")
    flags = parser.parse_args()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (flags.batch, 128, 64, 3), dtype=np.uint8)
    model = ours(flags.net)
    live = jax.jit(functools.partial(models.forward, model))
    runs = {"live jax": lambda: jax.device_get(live(images))}
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "model.onnx"
        onnx_graph.write(model, file)
        graph = session(file, flags.threads)
        runs["onnx, ours"] = lambda: graph.run(None, {"images": images})
        floats = rng.normal(size=(flags.batch, 3, HEIGHT, WIDTH)).astype(np.float32)
        resized = write_rest(file, file.with_name("rest.onnx"))
        rest = session(file.with_name("rest.onnx"), flags.threads)
        runs["without resizing"] = lambda: rest.run(None, {resized: floats})
        if flags.net == "inception" and importlib.util.find_spec("torch"):
            write_torch(file)
            theirs = session(file, flags.threads)
            runs["onnx, torch's"] = lambda: theirs.run(None, {"images": floats})
        found = dict(zip(model.outputs, graph.run(None, {"images": images}), strict=True))
        print(f"ours against live: {bundle.compare(runs['live jax'](), found)}")
        for run in runs.values():
            run()
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
        for _ in range(flags.rounds):
            for name, run in runs.items():
                wall, used = time.perf_counter(), time.process_time()
                run()
                taken[name].append((time.perf_counter() - wall, time.process_time() - used))
    print(
        f"{flags.net} {HEIGHT} x {WIDTH}, batch {flags.batch}, {flags.threads} threads, {flags.rounds} rounds: medians"
    )
    for name, times in taken.items():
        wall, used = (statistics.median(t[i] for t in times) for i in (0, 1))
        print(f"{name:16s} {flags.batch / wall:6.0f} images/s, {1000 * used / flags.batch:.2f} ms of CPU an image")


if __name__ == "__main__":
    main()
