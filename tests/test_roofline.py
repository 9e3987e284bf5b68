"""Counts of ./launch.sh bench roofline, against hand counts and XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from acrn_jax import settings
from acrn_jax.configs import acrn_market1501, mva_peta
from benchmarks import _counts, _programs, roofline

NARROW = {"model.width": 0.0625, "data.height": 32, "data.width": 16, "data.dir": "D", "attributes.from": "M"}


def counted(function, *shapes, accelerator=True):
    traced = jax.make_jaxpr(function)(*(jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes))
    return _counts.operations(traced, accelerator=accelerator)


def cost(function, *shapes):
    return _counts.total(_counts.costs(counted(function, *shapes)[0]))


def test_a_dense_layer_by_hand():
    found = cost(lambda x, w: x @ w, (8, 10), (10, 3))
    assert found == _counts.Cost(products=2 * 8 * 10 * 3, other=0, bytes=4 * (80 + 30 + 24))


def test_bytes_of_what_is_fused_by_hand():
    # x @ w is written and read; relu(. + b) is computed where the sum reads it, and b [3] is read
    found = cost(lambda x, w, b: jnp.sum(jax.nn.relu(x @ w + b)), (8, 10), (10, 3), (3,))
    assert found.products == 480
    product, activated, total = 24, 24, 1
    assert found.bytes == 4 * (80 + 30 + product) + 4 * (product + 3 + activated) + 4 * (activated + total) - 4 * 3


@pytest.mark.parametrize(
    "size, kernel, stride, padding", [((7, 5), 3, 1, "SAME"), ((8, 6), 3, 2, "SAME"), ((9, 9), 5, 1, "VALID")]
)
def test_a_convolution_by_hand_and_by_xla(size, kernel, stride, padding):
    def convolve(x, k):
        return lax.conv_general_dilated(x, k, (stride, stride), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    shapes = ((2, *size, 4), (kernel, kernel, 4, 6))
    taps = 1
    for n in size:  # places of the kernel within the image, for each place of the output
        out = -(-n // stride) if padding == "SAME" else (n - kernel) // stride + 1
        low = max((out - 1) * stride + kernel - n, 0) // 2 if padding == "SAME" else 0
        taps *= sum(0 <= i * stride + k - low < n for i in range(out) for k in range(kernel))
    assert cost(convolve, *shapes).products == 2 * 2 * 4 * 6 * taps

    def both(x, k):  # value and gradients: holes and windows as large as the map
        return jax.value_and_grad(lambda x, k: jnp.sum(convolve(x, k) ** 2), argnums=(0, 1))(x, k)

    arguments = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    of_xla = jax.jit(both).lower(*arguments).cost_analysis()["flops"]
    assert cost(both, *shapes).products == pytest.approx(of_xla, rel=0.05)


def test_loops_count_as_often_as_they_run_and_what_nobody_uses_not_at_all():
    def looped(x, w):
        unused = x @ x.T
        del unused
        return lax.scan(lambda carry, row: (carry @ w + row, carry[0]), jnp.zeros((3, 3)), x)

    assert cost(looped, (5, 3), (3, 3)).products == 5 * 2 * 27


def test_memory_is_of_what_is_alive_at_once():
    found, inputs, outputs = counted(lambda x, w: ((x @ w) @ w) @ w, (100, 8), (8, 8))
    given, one = 4 * (800 + 64), 4 * 800
    assert _counts.peak_memory(found, inputs, outputs) == given + 2 * one  # the product before and the one being made
    found, inputs, outputs = counted(lambda x, w: [x @ w, x @ w @ w], (100, 8), (8, 8))
    assert _counts.peak_memory(found, inputs, outputs) == given + 3 * one  # both, and the one in between


@pytest.mark.parametrize("phase", ["mva", "identity", "reid"])
def test_a_step_has_as_many_operations_as_xla_counts(phase):
    made = mva_peta.get_config("small") if phase == "mva" else acrn_market1501.get_config("small")
    program = _programs.training_step(settings.read(made).changed(NARROW), phase, attributes=5, people=9)
    found, *_ = _counts.operations(jax.make_jaxpr(program.step)(program.state, program.batch), accelerator=False)
    groups = _counts.costs(found)
    summed = _counts.total(groups)
    of_xla = jax.jit(program.step).lower(program.state, program.batch).cost_analysis()["flops"]
    assert summed.products + summed.other == pytest.approx(of_xla, rel=0.1)
    assert {"optimiser", "loss", "trunk/conv1" if phase == "mva" else "stem0"} <= groups.keys()


def test_exchanged_bytes_and_the_largest_batch_by_hand():
    chip = roofline.Chip(bfloat16=100.0, float32=50.0, bandwidth=10.0, memory=1000.0, link=4.0)
    small = roofline.Counted(8, {"a": _counts.Cost(500, 0, 20), "b": _counts.Cost(50, 0, 80)}, gradients=16, memory=300)
    assert roofline.seconds(small, chip, "float32") == (500 / 50 + 80 / 10, 0)
    assert roofline.seconds(small, chip, "bfloat16", devices=4) == (500 / 100 + 80 / 10, 2 * 3 / 4 * 16 / 4)
    slow, _ = roofline.seconds(small, chip, "float32", share=0.5)
    assert slow == pytest.approx(500 / 25 + 80 / 8)
    large = roofline.Counted(16, small.groups, 16, 500)
    assert roofline.largest_batch(small, large, chip) == 36  # 100 whatever the batch, 25 an image


def test_steps_of_the_paper_by_hand():
    config = settings.read(acrn_market1501.get_config())
    assert roofline.steps(config, "identity", 12936, 751) == 10 * 203  # 64 images at once, the last batch filled up
