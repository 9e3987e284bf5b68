"""Who leads, who reads what; how processes find each other; and that one that is told to end ends all of them."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from acrn_jax.train import checkpoint, loop, parallel
from tests.test_distributed import free_port
from tests.train import test_loop

ROOT = pathlib.Path(__file__).parents[2]
STEP = {"SLURM_PROCID": "0", "SLURM_STEP_NODELIST": "n[1-2]"}


@pytest.mark.parametrize(
    ("environment", "cluster"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, None),  # a batch script itself is no step
        (STEP | {"SLURM_NTASKS": "8"}, "SLURM"),
        (STEP | {"SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"}, None),  # an interactive shell within an allocation
        ({"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "GKE"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "GKE"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, "GKE"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
    ],
)
def test_the_environment_tells_whether_there_are_others(environment, cluster):
    assert parallel.detected({"JAX_PLATFORMS": "cpu"} | environment) == cluster


def test_one_process_needs_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("there is nobody to meet"))
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    parallel.start(num_processes=1)
    assert parallel.is_primary() and not parallel.preempted(3)
    assert parallel.share(12, jax.devices()) == slice(None)
    done = []
    parallel.on_primary(lambda: done.append(1))
    assert done and parallel.broadcast(True) and not parallel.all_processes(False)
    with pytest.raises(KeyError):
        parallel.on_primary(lambda: {}["nothing"])
    np.testing.assert_array_equal(parallel.gather({"x": parallel.process_rows(5)}, 5)["x"], np.arange(5))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"coordinator_address": "host", "num_processes": 2, "process_id": 0}, "has no port"),
        ({"num_processes": 2}, "coordinator_address should be defined.* Give --coordinator_address"),
        ({"coordinator_address": "host:1", "num_processes": 2, "process_id": 2}, "process_id < num_processes"),
    ],
)
def test_too_little_is_a_sentence(given, told, monkeypatch):
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", lambda: False)
    with pytest.raises(ValueError, match=told):
        parallel.start(**given)


def train(address: str, process: int, folder: pathlib.Path):
    """What each of the two processes below runs: test_loop's net, slowly."""
    from acrn_jax.train import step

    parallel.start(address, num_processes=2, process_id=process)
    assert parallel.is_primary() == (process == 0) == parallel.broadcast(True) * parallel.is_primary()
    assert parallel.broadcast(parallel.is_primary()) and not parallel.all_processes(parallel.is_primary())
    np.testing.assert_array_equal(
        parallel.gather({"x": np.square(parallel.process_rows(5))}, 5)["x"], np.arange(5) ** 2
    )
    try:
        parallel.on_primary(lambda: int("word"))
    except ValueError as error:
        assert ("word" in str(error)) == parallel.is_primary()
    share = parallel.share(8, jax.devices())
    assert share == slice(4 * process, 4 * process + 4)
    runner = step.jitted(test_loop.run, jax.devices())

    def batches(first):
        for batch in eight_rows(first):
            time.sleep(0.02)
            yield {name: column[share] for name, column in batch.items()}

    fit(folder, runner.run, runner.put, batches, runner.place(test_loop.start()))


def eight_rows(first):
    for i in range(first, 1000):
        yield {"image": np.random.default_rng(i).normal(size=(8, 3)).astype(np.float32)}


def fit(folder, run, put, batches, start, steps=1000):
    phase = test_loop.phase(folder, steps=steps, batch=8, log_every=2, save_every=500)
    return loop.fit(start, phase, run=run, put=put, batches=batches)


@pytest.mark.slow
def test_two_processes_end_together_when_one_is_told_to(tmp_path, caplog):
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    script = (
        "import sys, pathlib; from tests.train import test_parallel as t; "
        "t.train(sys.argv[1], int(sys.argv[2]), pathlib.Path(sys.argv[3]))"
    )
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, address, str(i), tmp_path], cwd=ROOT, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for i in (0, 1)
    ]  # fmt: skip
    try:
        log, until = tmp_path / "scalars.jsonl", time.monotonic() + 200
        while not log.exists() or "\n" not in log.read_text():
            assert time.monotonic() < until and all(p.poll() is None for p in processes)
            time.sleep(0.1)
        processes[1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=100) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [os.EX_TEMPFAIL] * 2, outputs
    step = int(checkpoint.load_any(tmp_path / "checkpoints")["step"])
    assert 2 <= step < 1000 and f"stopped by a signal at step {step}, saved" in outputs[0][0]
    # Goes on in one process; as good as never stopped.
    resumed = fit(tmp_path, test_loop.run, jax.device_put, eight_rows, test_loop.start(), steps=step + 20)
    straight = fit(tmp_path / "straight", test_loop.run, jax.device_put, eight_rows, test_loop.start(), steps=step + 20)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), resumed, straight)
    steps = [line["step"] for line in test_loop.lines(tmp_path)]
    assert steps == sorted(set(steps)) and steps[-1] == step + 20
