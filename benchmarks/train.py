"""Training step and feature extraction of the full-width nets, beside torch's channels-last where it is installed.

./launch.sh bench train [--nets inception acrn] [--batch 32] [--threads 2] [--rounds 5]

A step is forward, cross-entropy, backward and SGD with momentum at 160 x 64; programs are compiled before. Rounds take
turns and medians count: images/s of wall time and, in brackets, milliseconds of processor time an image, which count on
a busy machine. `plain` is the same net with flax's own convolutions instead of those of models/convolution.py. In
bfloat16 torch runs under autocast; on a graphics card if it finds one.
"""

import argparse
import functools
import importlib.util
import statistics
import time
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from acrn_jax.models import acrn, convolution, initialize, mva

HEIGHT, WIDTH, CLASSES = 160, 64, 100


def module(name: str, dtype) -> nn.Module:
    if name == "acrn":
        return acrn.ACRN(CLASSES, dtype=dtype)
    return mva.MVA(CLASSES, views=(), dtype=dtype)


def ours(name: str, images: np.ndarray, labels: np.ndarray, dtype, *, plain: bool = False):
    """() -> None for a training step and for the extraction of one batch; compiled."""
    net = module(name, dtype)
    variables = initialize.variables(net, height=HEIGHT, width=WIDTH, seed=0)
    tx = optax.sgd(1e-2, momentum=0.9)
    logits = lambda outputs: outputs.identity_logits if name == "acrn" else outputs.attribute_logits

    def step(params, stats, opt, images, labels):
        def loss(params):
            outputs, moved = net.apply(
                {"params": params, "batch_stats": stats}, images, train=True, mutable=["batch_stats"]
            )
            found = optax.softmax_cross_entropy_with_integer_labels(logits(outputs), labels)
            return jnp.mean(found), moved["batch_stats"]

        (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt = tx.update(gradient, opt, params)
        return optax.apply_updates(params, updates), stats, opt, value

    images, labels = jax.device_put(images), jax.device_put(labels)
    state = [variables["params"], variables["batch_stats"], tx.init(variables["params"])]
    with mock.patch.object(convolution, "MANY", np.inf if plain else convolution.MANY):
        train = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*state, images, labels).compile()
        extract = jax.jit(functools.partial(net.apply, train=False))
        extract = extract.lower({"params": state[0], "batch_stats": state[1]}, images).compile()

    def one_step():
        *state[:], value = train(*state, images, labels)
        jax.block_until_ready(value)

    def features():
        jax.block_until_ready(extract({"params": state[0], "batch_stats": state[1]}, images))

    return one_step, features


def torchs(name: str, images: np.ndarray, labels: np.ndarray, dtype, threads: int):
    import torch

    from benchmarks import _torch_nets

    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = _torch_nets.acrn_net(CLASSES, height=HEIGHT, width=WIDTH) if name == "acrn" else None
    net = (net or _torch_nets.inception_v1(CLASSES)).to(device, memory_format=torch.channels_last)
    images, labels = torch.from_numpy(images).permute(0, 3, 1, 2).to(device), torch.from_numpy(labels).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-2, momentum=0.9)
    precision = functools.partial(torch.autocast, device, torch.bfloat16, enabled=dtype == jnp.bfloat16)
    settle = torch.cuda.synchronize if device == "cuda" else lambda: None

    def one_step():
        net.train()
        optimiser.zero_grad(set_to_none=True)
        with precision():
            loss = torch.nn.functional.cross_entropy(net(images), labels)
        loss.backward()
        optimiser.step()
        settle()

    def features():
        net.eval()
        with torch.inference_mode(), precision():
            net(images)
        settle()

    return one_step, features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=("inception", "acrn"), default=("inception", "acrn"))
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2, help="of torch; jax takes what it is given")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    flags = parser.parse_args()
    dtype = jnp.dtype(flags.dtype).type
    rng = np.random.default_rng(0)
    images = rng.normal(size=(flags.batch, HEIGHT, WIDTH, 3)).astype(np.float32)
    labels = rng.integers(0, CLASSES, flags.batch)
    print(f"{flags.dtype}, batch {flags.batch}, {jax.devices()[0].device_kind}; images/s (ms of CPU an image)")
    for name in flags.nets:
        programs = {"ours": ours(name, images, labels, dtype), "plain": ours(name, images, labels, dtype, plain=True)}
        if importlib.util.find_spec("torch"):
            programs["torch"] = torchs(name, images, labels, dtype, flags.threads)
        for kind, what in enumerate(("training step", "features")):
            taken: dict[str, list[tuple[float, float]]] = {key: [] for key in programs}
            for _ in range(flags.rounds + 1):
                for key, program in programs.items():
                    wall, used = time.perf_counter(), time.process_time()
                    program[kind]()
                    taken[key].append((time.perf_counter() - wall, time.process_time() - used))
            wall, used = (
                {key: statistics.median(t[i] for t in times[1:]) for key, times in taken.items()} for i in (0, 1)
            )
            each = [f"{k} {flags.batch / wall[k]:.1f} ({1e3 * used[k] / flags.batch:.1f})" for k in programs]
            others = [k for k in programs if k != "ours"]
            ratios = [f"{wall[k] / wall['ours']:.2f} x {k} ({used[k] / used['ours']:.2f})" for k in others]
            print(f"{name:10} {what:14} {'  '.join(each)}:  ours is {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
