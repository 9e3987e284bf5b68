"""Every phase's step lowers for accelerators on a CPU, without what would surprise one.

Lowering is exact, and needs no accelerator: jax.export writes one program for cuda, rocm and tpu. What is wanted of it
is read off its text, and the same reading finds each fault in a program that is made to have it.
"""

import functools
import re
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax import settings
from acrn_jax.configs import acrn_market1501, mva_peta
from acrn_jax.losses.mining import MINERS
from benchmarks import _programs

ATTRIBUTES, PEOPLE = 5, 70
PLATFORMS = ("cuda", "rocm", "tpu")
KINDS = ("mva", "identity", *MINERS)
VARIANTS = {
    "float32": {},
    "bfloat16": {"dtype": "bfloat16"},
    "accumulated": {"accumulate": 2},
    "remat": {"model.remat": True},
}
QUICK = {
    ("mva", "float32", "jit"),
    ("mva", "bfloat16", "pmap"),
    ("identity", "remat", "jit"),
    ("identity", "accumulated", "pmap"),
    ("batch_hard", "float32", "pmap"),
    ("batch_hard", "accumulated", "jit"),
    ("batch_all", "bfloat16", "jit"),
    ("offline", "float32", "jit"),
    ("semi_hard", "float32", "pmap"),
}
MATRIX = [
    pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow)
    for case in product(KINDS, VARIANTS, ("jit", "pmap"))
]


def config_of(kind, changes):
    made = mva_peta.get_config("small") if kind == "mva" else acrn_market1501.get_config("small,improved")
    narrow = {"model.width": 0.0625, "data.height": 32, "data.width": 16, "data.dir": "D", "attributes.from": "M"}
    if kind in MINERS:
        narrow |= {"reid.miner": kind, "reid.people": 16, "reid.images": 4, "reid.triplets": 16}
        narrow |= {"loss.attribute_miner": "offline" if kind == "offline" else "batch_all"}
    return settings.read(made).changed(narrow | changes)


@functools.cache
def lowered(kind, variant, wrapper):
    phase = "reid" if kind in MINERS else kind
    config = config_of(kind, VARIANTS[variant])
    program = _programs.training_step(config, phase, attributes=ATTRIBUTES, people=PEOPLE)
    run = _programs.over_devices(program, jax.devices()[:8], wrapper=wrapper)
    found = jax.export.export(run, platforms=PLATFORMS)(program.state, program.batch)
    assert set(found.platforms) == set(PLATFORMS) and found.nr_devices == 8
    return config.phase(phase).batch, found.mlir_module()


def surprises(text):
    """What an accelerator should not be asked to do, in the text of a program in StableHLO."""
    found = set(re.findall(r"callback|tensor<[0-9x]*(?:f64|complex)|select_and_scatter", text))
    found |= {f"{op} of {kind}" for op, kind in gathers(text) if "ui8" in kind}  # images are never brought together
    for axes, shape in re.findall(r"stablehlo\.transpose .*dims = \[(.*)\] : \(tensor<([0-9x]+)x\w+>\)", text):
        last = axes.count(",")
        if last > 1 and not axes.endswith(str(last)):  # moves a map's channels, or a kernel's
            found.add(f"transpose of {shape}")
    return found


def gathers(text):
    """(operation, type of its result) of each collective whose result grows with the devices."""
    return set(re.findall(r'"stablehlo\.(all_gather|all_to_all|collective_permute)".* -> tensor<(\w+)>', text))


@pytest.mark.parametrize("kind, variant, wrapper", MATRIX)
def test_the_step_of_every_phase_lowers_for_accelerators(kind, variant, wrapper):
    rows, text = lowered(kind, variant, wrapper)
    assert not surprises(text)
    if wrapper == "jit":
        assert not gathers(text)  # XLA puts them in when it compiles, see the test below
        return
    # By hand: labels, and what the loss sees of the net, of the global batch.
    labels = {
        "mva": {f"{rows}x{ATTRIBUTES}xi8"},
        "identity": {f"{rows}xi32"},
    }.get(kind, {f"{rows}xi32", f"{rows}x{ATTRIBUTES}xf32"})
    seen = {"mva": {f"{rows}x{ATTRIBUTES}xf32"}, "identity": {f"{rows}x512xf32", f"{rows}x{PEOPLE}xf32"}}
    found = {shape for _, shape in gathers(text)}
    assert labels <= found <= labels | seen.get(kind, {f"{rows}x512xf32"})


@pytest.mark.parametrize(
    "name, fault",
    [
        ("callback", lambda x: jax.pure_callback(lambda v: v, x, x)),
        ("select_and_scatter", jax.grad(lambda x: jnp.sum(pooled(x)))),
        ("transpose", lambda x: jnp.transpose(x, (0, 3, 1, 2))),
        ("f64", lambda x: x.astype("float64")),
    ],
)
def test_the_reading_finds_what_should_not_be_there(name, fault):
    with jax.enable_x64(name == "f64"):
        text = jax.jit(fault).lower(jax.ShapeDtypeStruct((2, 8, 4, 3), np.float32)).as_text()
    assert [s for s in surprises(text) if name in s]


def pooled(x):
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


@pytest.mark.parametrize("kind", ["mva", "reid"])
def test_inference_lowers_for_accelerators(kind):
    config = config_of("mva" if kind == "mva" else "batch_hard", {})
    run, variables, images = _programs.extraction(config, attributes=ATTRIBUTES)
    assert not surprises(jax.export.export(jax.jit(run), platforms=PLATFORMS)(variables, images).mlir_module())
