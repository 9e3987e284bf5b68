"""Memory of a full-width training step, as XLA plans it: at once, rematerialised, in parts, with short floats.

./launch.sh bench memory [--config acrn_market1501] [--batch 64]

Compiles each step for this machine's device without running it. Ratios are to the first row.
"""

import argparse
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax import build, settings
from acrn_jax.losses import objectives
from acrn_jax.train import measure, step
from acrn_jax.train.state import State

WAYS = {
    "as it is": {},
    "model.remat=True": {"model.remat": True},
    "accumulate=4": {"accumulate": 4},
    "accumulate=4 model.remat=True": {"accumulate": 4, "model.remat": True},
    "dtype=bfloat16": {"dtype": "bfloat16"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="acrn_market1501", help="of configs/; acrn_* (identity phase) or mva_peta")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--ways", default=",".join(WAYS), help="which rows, separated by commas")
    options = parser.parse_args()
    config = settings.read(importlib.import_module(f"acrn_jax.configs.{options.config}").get_config())
    phase = config.phases[0]
    first = None
    print(f"{options.config}, phase {phase}, {options.batch} images {config.data.height} x {config.data.width}")
    for way in options.ways.split(","):
        program, state = compiled(config.changed(WAYS[way]), phase, options.batch)
        bytes_, floats = (
            measure.needed(program),
            sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
        )
        first = first or bytes_
        print(
            f"{way:32s} {bytes_ / 2**20:8.0f} MiB, of them state {floats / 2**20:.0f}  {bytes_ / first:.2f}", flush=True
        )


def compiled(config, phase, batch):
    """(compiled step, shapes of its state)."""
    net = build.net(config, **({"attributes": 35} if phase == "mva" else {"people": 751}))
    if phase == "mva":
        ones = np.ones(35)
        objective = objectives.AttributeLoss(positive_weight=ones, negative_weight=ones, reduction="sum")
    else:
        objective = objectives.IdentityLoss(smoothing=0.0)
    _, tx, _ = build.optimisation(config, phase, 100, ("trunk", "scratch"))
    size = (config.data.height, config.data.width, 3)

    def start():
        made = net.init(jax.random.key(0), jnp.zeros((2, *size)), train=False)
        params, scales = {"net": made["params"]}, {"feature": jnp.ones(()), "attribute": jnp.ones(())}
        return State(jnp.zeros((), jnp.int32), params, made["batch_stats"], scales, tx.init(params))

    run = functools.partial(
        step.train_step,
        apply=net.apply,
        objective=objective,
        tx=tx,
        mean=np.asarray(config.data.mean, np.float32),
        deviation=np.asarray(config.data.deviation, np.float32),
        seed=0,
        parts=config.accumulate,
    )
    state = jax.eval_shape(start)
    rows = {
        "image": jax.ShapeDtypeStruct((batch, *size), np.uint8),
        "person": jax.ShapeDtypeStruct((batch,), np.int32),
        "attributes": jax.ShapeDtypeStruct((batch, 35), np.int8),
    }
    return jax.jit(run, donate_argnums=0).lower(state, rows).compile(), state


if __name__ == "__main__":
    main()
