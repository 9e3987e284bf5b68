"""Several processes that train one net: how they meet, who leads, who reads what, how they agree.

All processes run the same program on the same workdir (a folder that all of them see), do the same work in the same
order, and share it where it is worth it; process 0 alone writes, except for checkpoints, which all write together.
"""

import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils


def start(
    coordinator_address: str | None = None, *, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the other processes, if there are any; to be called before anything else touches a device.

    There are others if an argument says so, or the environment does: SLURM, Open MPI, GKE, Cloud TPU. What is not given
    is found there by JAX.

    Raises:
      ValueError: the processes cannot meet: too little is known, or one of them does not answer.
    """
    given = (coordinator_address, num_processes, process_id) != (None, None, None)
    cluster = None if given else detected(os.environ)
    if num_processes == 1 or not (given or cluster):
        return
    if coordinator_address and not coordinator_address.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator_address={coordinator_address} has no port; write HOST:PORT, of process 0.")
    try:
        jax.distributed.initialize(coordinator_address, num_processes, process_id)
    except Exception as error:  # of JAX, of the cluster's own libraries, of the network
        if cluster == "Cloud TPU":  # chips outside of Google's cloud: nobody there tells of other hosts
            print(f"acrn_jax: no other TPU hosts were found ({error}); going on alone.", file=sys.stderr)
            return
        raise ValueError(
            f"the processes of this run cannot meet{f' on {cluster}' if cluster else ''}: "
            f"{' '.join(str(error).split())[:300]} Give --coordinator_address=HOST:PORT (of process 0), "
            "--num_processes and --process_id, all three, or --num_processes=1 for a process on its own."
        ) from error


def detected(environment: Mapping[str, str]) -> str | None:
    """The cluster that, by its variables, started this process as one of several; None: it is on its own."""
    step = "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment  # not so in a batch script itself
    slurm = environment.get("SLURM_STEP_NUM_TASKS", environment.get("SLURM_NTASKS", "1")) if step else "1"
    hosts = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES", ""))
    if int(environment.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return "Open MPI"
    if int(slurm) > 1:
        return "SLURM"
    if len(hosts.split(",")) > 1 or int(environment.get("MEGASCALE_NUM_SLICES", "1")) > 1:
        return "GKE"
    if "JOB_COMPLETION_INDEX" in environment and "KUBERNETES_SERVICE_HOST" in environment:
        return "GKE"
    wanted = environment.get("JAX_PLATFORMS", "tpu")
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*"), *pathlib.Path("/dev").glob("vfio/[0-9]*")]
    return "Cloud TPU" if chips and "tpu" in wanted and importlib.util.find_spec("libtpu") else None


def is_primary() -> bool:
    """Whether this process is the one that writes and speaks."""
    return jax.process_index() == 0


def on_primary(work: Callable[[], Any]) -> None:
    """Process 0 does the work while the others wait; ValueError in those where it failed."""
    failure = None
    if is_primary():
        try:
            work()
        except Exception as error:
            failure = error
    ok = broadcast(failure is None)
    if failure is not None:
        raise failure
    if not ok:
        raise ValueError("process 0 cannot go on, and says why.")


def broadcast(fact: bool) -> bool:
    """What process 0 finds, for all: files that it writes may be there already when another process looks."""
    return bool(multihost_utils.broadcast_one_to_all(np.int32(fact)))


def all_processes(fact: bool) -> bool:
    """Whether it is true in all processes."""
    return bool(np.all(multihost_utils.process_allgather(np.int32(fact))))


def share(rows: int, devices: list[Any]) -> slice:
    """Rows of a global batch that belong to this process's devices; `devices` are in the order of the batch."""
    if jax.process_count() == 1:
        return slice(None)
    local = [place for place, device in enumerate(devices) if device.process_index == jax.process_index()]
    each = rows // len(devices)
    return slice(local[0] * each, (local[-1] + 1) * each)


def process_rows(count: int) -> np.ndarray:
    """Numbers of the records that this process looks at, of `count`; as many in all, so the last are repeated."""
    each = -(-count // jax.process_count())
    return np.minimum(np.arange(each) + each * jax.process_index(), count - 1)


def gather(parts: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """What all processes found about their `process_rows`, [count, ...] each, in all of them."""
    return {name: multihost_utils.process_allgather(value, tiled=True)[:count] for name, value in parts.items()}


def preempted(step: int) -> bool:
    """Whether some process was told to end (SIGTERM) and all have reached the step to save at; to be asked each step.

    JAX counts on being the one that sees the signal. On its own a process sees it itself (train/loop.py).
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)
