"""Several arms in one compiled step: from what width of net it pays.

./launch.sh bench vectorised [--width 0.0625 0.125] [--arms 4] [--steps 5] [--how vmap map]

For each width: seconds a step of an arm trained alone, and seconds a step and arm of several together; the seconds that
XLA takes to compile either. "Pays from" is the number of steps from which one program for all is the quicker way,
compilation included; every arm trained alone compiles anew unless its program lies in the compilation cache.
"""

import argparse
import functools
import time

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax import build, settings
from acrn_jax.configs import demo
from acrn_jax.runs.start import first_variables
from acrn_jax.studies import vectorised
from acrn_jax.train import step
from acrn_jax.train.state import create


def inputs(config, seed: int, people: int, images: int, attributes: int = 26):
    """A batch of noise as phase reid sees it."""
    rng = np.random.default_rng(seed)
    return {
        "image": rng.integers(0, 256, (people * images, config.data.height, config.data.width, 3), np.uint8),
        "person": np.repeat(np.arange(people, dtype=np.int32), images),
        "probabilities": rng.random((people * images, attributes), np.float32),
    }


def timed(run, state, batch, count: int) -> tuple[float, float]:
    """Seconds of the first call (compilation), and of a later one (best of `count`)."""
    began = time.perf_counter()
    state, scalars = run(state, batch)
    jax.block_until_ready((state, scalars))
    first, best = time.perf_counter() - began, float("inf")
    for _ in range(count):
        began = time.perf_counter()
        state, scalars = run(state, batch)
        jax.block_until_ready((state, scalars))
        best = min(best, time.perf_counter() - began)
    return first, best


def main():
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--width", type=float, nargs="+", default=[0.0625, 0.125, 0.25])
    flags.add_argument("--arms", type=int, default=4)
    flags.add_argument("--steps", type=int, default=5)
    flags.add_argument("--how", nargs="+", default=["map", "vmap"])
    given = flags.parse_args()
    jax.config.update("jax_enable_compilation_cache", False)
    names = tuple(f"attribute {i}" for i in range(26))
    print(f"{jax.devices()[0].device_kind}, {given.arms} arms, batches of 40 at 64 x 32")
    for width in given.width:
        config = settings.read(demo.get_config()).changed({"model.width": width, "data.dir": "nowhere"})
        batch = inputs(config, 0, config.reid.people, config.reid.images)
        module = build.net(config)
        variables, _ = first_variables(config, module, None)
        objective, weights = build.reid_objective(config, names)
        _, tx, _ = build.optimisation(config, "reid", 20, ("scratch", "attribute_weights"))
        alone = functools.partial(
            step.train_step,
            apply=module.apply,
            objective=objective,
            tx=tx,
            mean=np.asarray(config.data.mean, np.float32),
            deviation=np.asarray(config.data.deviation, np.float32),
            seed=0,
        )
        state = create(variables, tx, attribute_weights=weights)
        first, one = timed(jax.jit(alone), state, jax.device_put(batch), given.steps)
        print(f"width {width}: alone {1000 * one:.0f} ms a step, first {first:.1f} s", flush=True)
        constants = {
            "gamma": jnp.linspace(0, 1, given.arms),
            "margin": jnp.full(given.arms, 0.3),
            "attribute_margin": jnp.full(given.arms, 0.1),
        }
        for how in given.how:
            run = vectorised.step_of(
                config,
                names,
                module.apply,
                tx,
                constants=constants,
                seeds=jnp.zeros(given.arms, jnp.int32),
                which=[0] * given.arms,
                how=how,
            )
            stacked = vectorised.stack([state] * given.arms)
            batches = jax.device_put({name: value[None] for name, value in batch.items()})
            began, several = timed(jax.jit(run), stacked, batches, given.steps)
            each, saved = several / given.arms, given.arms * first - began
            pays = "always" if each <= one and saved > 0 else f"below {saved / (several - given.arms * one):.0f} steps"
            if saved <= 0:
                pays = f"from {-saved / (given.arms * one - several):.0f} steps" if each < one else "never"
            print(f"  {how}: {1000 * each:.0f} ms a step and arm, first {began:.1f} s; pays {pays}", flush=True)


if __name__ == "__main__":
    main()
