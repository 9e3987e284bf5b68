"""Batch-hard triplet loss, forward and backward: mined rows gathered, against one B x B matrix differentiated whole.

Claim: mining without a gradient and differentiating only the B mined pairs costs the same for small batches and half
for large ones. Prints the medians of alternating runs and their ratios; torch takes part where it is installed.
Measured on two cores of a shared machine, 512-d: 0.9 at 64 images (noise is larger), 1.6 at 256, 2.1 at 1,024, 2.6 at
4,096.

    ./launch.sh bench batch_hard [--sizes=64,256,1024,4096] [--dimensions=512] [--rounds=11]
"""

import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from acrn_jax.losses import triplet
from acrn_jax.losses.mining import batch_hard
from acrn_jax.ops.distance import pairwise

SIZES = flags.DEFINE_list("sizes", ["64", "256", "1024", "4096"], "Numbers of images in a batch, four of each person.")
DIMENSIONS = flags.DEFINE_integer("dimensions", 512, "Length of a feature.")
ROUNDS = flags.DEFINE_integer("rounds", 11, "Timed runs of each.")
MARGIN = 0.3


def gathered(feature: jax.Array, person: jax.Array) -> jax.Array:
    """Ours: mine, gather, differentiate what was gathered."""
    triplets = batch_hard(triplet.mining_distance(feature, mine_on="feature", distance="euclidean"), person)
    return triplet.triplet_loss(feature, triplets, distance="euclidean", margin=MARGIN)[0]


def masked(feature: jax.Array, person: jax.Array) -> jax.Array:
    """The usual form: maximum and minimum over a masked matrix, gradient through all of it."""
    distance = pairwise(feature, feature, kind="euclidean")
    same = person[:, None] == person[None, :]
    positive = jnp.max(jnp.where(same, distance, -jnp.inf), axis=1)
    negative = jnp.min(jnp.where(same, jnp.inf, distance), axis=1)
    return jnp.mean(jax.nn.relu(MARGIN + positive - negative))


def torch_step(feature: np.ndarray, person: np.ndarray) -> Callable[[], float]:
    """The usual form in torch: a function that runs it once and returns the loss."""
    import torch

    inputs, same = torch.tensor(feature, requires_grad=True), torch.tensor(person[:, None] == person[None, :])

    def step() -> float:
        inputs.grad = None
        squares = inputs.square().sum(dim=1)
        distance = (squares[:, None] + squares[None, :] - 2 * inputs @ inputs.T).clamp(min=1e-12).sqrt()
        positive = distance.masked_fill(~same, -torch.inf).amax(dim=1)
        negative = distance.masked_fill(same, torch.inf).amin(dim=1)
        loss = torch.relu(MARGIN + positive - negative).mean()
        loss.backward()
        return loss.item()

    return step


def jax_step(function: Callable, feature: np.ndarray, person: np.ndarray) -> Callable[[], float]:
    """A function that runs value and gradient once, waits for both, and returns the loss."""
    compiled, inputs = jax.jit(jax.value_and_grad(function)), (jnp.asarray(feature), jnp.asarray(person))
    return lambda: float(jax.block_until_ready(compiled(*inputs))[0])


def main(argv: list[str]) -> None:
    """Prints one line a batch size."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments {argv[1:]}.")
    try:
        import torch
    except ImportError:
        torch = None
    print(f"jax {jax.__version__} on {jax.devices()[0].device_kind}; torch {torch.__version__ if torch else 'absent'}")
    print("   B  gathered ms   masked ms  masked/gathered" + ("   torch ms  torch/gathered" if torch else ""))
    for size in map(int, SIZES.value):
        feature = np.random.default_rng(0).normal(size=(size, DIMENSIONS.value)).astype(np.float32)
        person = np.arange(size) // 4
        steps = [jax_step(gathered, feature, person), jax_step(masked, feature, person)]
        steps += [torch_step(feature, person)] if torch else []
        losses = [step() for step in steps]  # compiles
        np.testing.assert_allclose(losses, losses[0], rtol=1e-4)
        repeats = max(1, 2**16 // size**2)  # small batches take microseconds
        seconds = [[] for _ in steps]
        for _ in range(ROUNDS.value):
            for step, taken in zip(steps, seconds, strict=True):
                start = time.perf_counter()
                for _ in range(repeats):
                    step()
                taken.append((time.perf_counter() - start) / repeats)
        ours, *others = (1000 * statistics.median(taken) for taken in seconds)
        columns = "".join(f"{other:12.3f} {other / ours:15.2f} " for other in others)
        print(f"{size:4d} {ours:12.3f}{columns}", flush=True)


if __name__ == "__main__":
    app.run(main)
