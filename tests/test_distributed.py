"""Two processes with four devices each do what one process with eight does: through the verb, over loopback."""

import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from acrn_jax import build, runs
from acrn_jax.data_prep import prepare
from acrn_jax.train import checkpoint
from tests.fixtures import small_net

ROOT = pathlib.Path(__file__).parents[1]
PROGRAM = """
import os, pathlib
from acrn_jax.cli import distributed, train
from tests import test_distributed
from tests.fixtures import small_net
small_net.stand_in()
folders = map(pathlib.Path, os.environ["FOLDERS"].split(":"))
distributed.run(lambda argv: train.main(argv) or print(*test_distributed.chain(*folders)))
"""


@pytest.fixture
def data_dir(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "net", build.net)  # put back after
    small_net.stand_in()
    (tmp_path / "raw").mkdir()
    csv = small_net.write_images(tmp_path / "raw")
    prepare.prepare("image_folder", "mini", data_dir=tmp_path / "data", raw_dir=tmp_path / "raw", csv=csv)
    return tmp_path / "data"


def chain(data_dir, attributes, workdir):
    return runs.reproduce(small_net.config("reid", data_dir, "mini"), attributes=attributes, workdir=workdir)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def launch(command, environments, *, devices=4, seconds=240):
    """Exit code, stdout and stderr of one process for each environment; all are ended when time is up."""
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    env |= {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": "/nonexistent"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-P", *command], env=env | extra, **pipes) for extra in environments]
    try:
        outputs = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *output) for process, output in zip(processes, outputs, strict=True)]


def slurm(port, count=2):
    """What srun tells each of its tasks."""
    shared = {"SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_NTASKS": str(count)}
    shared |= {"JAX_COORDINATOR_PORT": str(port)}
    return [shared | {"SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)} for i in range(count)]


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5), a, b)


@pytest.mark.slow
def test_two_processes_give_the_result_of_one(data_dir, tmp_path):
    config = small_net.config("mva", data_dir, "mini")
    for name in ("alone", "both"):
        (tmp_path / name).mkdir()
    alone, both = ({"mva": tmp_path / name / "net", "reid": tmp_path / name / "acrn"} for name in ("alone", "both"))
    runs.train(config, alone["mva"])
    results = chain(data_dir, alone["mva"], alone["reid"])

    (tmp_path / "config.py").write_text(
        "import pathlib\nfrom tests.fixtures import small_net\n"
        f"get_config = lambda: small_net.config_dict('mva', pathlib.Path({str(data_dir)!r}), 'mini')\n"
    )
    command = ["-c", PROGRAM, f"--config={tmp_path}/config.py", f"--workdir={both['mva']}"]
    folders = ":".join(map(str, (data_dir, both["mva"], both["reid"])))
    done = launch(command, [env | {"FOLDERS": folders} for env in slurm(free_port())])
    assert [code for code, _, _ in done] == [0, 0], done
    assert "20 steps of 16" in done[0][1] and done[1][1] == ""  # one speaks

    for phase in ("mva/mva", "reid/identity", "reid/reid", "reid/baseline/reid"):
        part, _, folder = phase.partition("/")
        first, second = (checkpoint.load_any(place[part] / folder / "checkpoints") for place in (alone, both))
        assert first["step"] == second["step"] > 3
        close(first, second)
        logs = [
            [json.loads(line) for line in (place[part] / folder / "scalars.jsonl").read_text().splitlines()]
            for place in (alone, both)
        ]
        assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]  # and one writes
        np.testing.assert_allclose(*([line["loss"] for line in log] for log in logs), rtol=1e-4)
        assert len(list((both[part] / folder / "events").iterdir())) == 1
    one, two = (json.loads((place["mva"] / "recognition.json").read_text()) for place in (alone, both))
    assert one["images"] == two["images"] and one["attributes"] == two["attributes"]
    again = json.loads((both["reid"] / "results.json").read_text())
    assert again.methods == results.methods  # each process looked at half of the images

    later = tmp_path / "later"  # as if killed after the save before the last, and then with another number of processes
    shutil.copytree(both["mva"], later)
    shutil.rmtree(later / "mva" / "checkpoints" / "20")
    runs.train(config.changed({"devices": 2}), later)
    close(*(checkpoint.load_any(folder / "mva" / "checkpoints") for folder in (later, alone["mva"])))
