"""Work and memory of a known product, the refusal of what does not fit, traces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.train import measure

STATE, BATCH = {"w": np.ones((32, 16), np.float32)}, {"image": np.ones((64, 32), np.float32)}


def product(state, batch):
    return {"w": state["w"] + 1}, {"loss": jnp.sum(batch["image"] @ state["w"])}


def put():
    return jax.device_put((STATE, BATCH), jax.devices()[0])


def test_compiled_once_and_the_same(monkeypatch):
    traced = []
    run = jax.jit(lambda state, batch: traced.append(1) or product(state, batch))
    program, cost = measure.compiled(run, *put(), name="test")
    for _ in range(2):
        new, scalars = program(*put())
    assert scalars["loss"] == 64 * 32 * 16 and (new["w"] == 2).all() and len(traced) == 1
    assert cost.best_seconds is None  # a CPU's rate is not known
    assert 4 * (2 * 32 * 16 + 64 * 32) <= cost.memory < 4 * (2 * 32 * 16 + 2 * 64 * 32) < cost.limit
    monkeypatch.setattr(measure, "peak", lambda kind: 1e6)
    _, cost = measure.compiled(jax.jit(product), *put(), name="test", parts=3)
    np.testing.assert_allclose(cost.best_seconds, 3 * 2 * 64 * 32 * 16 / 1e6, rtol=0.05)


def test_what_is_no_jit_is_left_as_it_is():
    assert measure.compiled(product, STATE, BATCH, name="test") == (product, measure.Cost())


def test_a_step_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(measure, "available", lambda device: 1000)
    with pytest.raises(ValueError, match=r"reid: a step needs 1\.\d\de-05 GiB .* has 9\.31e-07 GiB; use a smaller"):
        measure.compiled(jax.jit(product), *put(), name="reid")


def test_lack_of_memory_is_told_and_nothing_else():
    said = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 7 bytes.\nmore"
    wanted = r"does not suffice \(Out of memory while trying to allocate 7 bytes\); use"
    with pytest.raises(ValueError, match=wanted), measure.explain_out_of_memory("reid"):
        raise jax.errors.JaxRuntimeError(said)
    with pytest.raises(jax.errors.JaxRuntimeError), measure.explain_out_of_memory("reid"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")


@pytest.mark.parametrize(
    "kind, rate",
    [
        ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", None),
        ("cpu", None),
    ],
)
def test_rates(kind, rate):
    assert measure.peak(kind) == rate


@pytest.mark.parametrize("calls", [measure.WARM_UP + 1, measure.WARM_UP + 4])
def test_traces(tmp_path, monkeypatch, calls):
    events, done = [], []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: events.append(("start", len(done))))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: events.append(("stop", len(done))))
    with measure.traced(tmp_path, steps=2) as mark:
        for _ in range(calls):
            mark(STATE)
            done.append(1)
    first = measure.WARM_UP
    assert events == [("start", first), ("stop", min(first + 2, calls))]


def test_a_real_trace(tmp_path):
    with measure.traced(tmp_path, steps=1) as mark:
        for _ in range(measure.WARM_UP + 1):
            mark(STATE)
            jnp.ones(3).block_until_ready()
    assert list(tmp_path.rglob("*.xplane.pb"))
