"""Tells who would train for days on the CPU of a machine that has a graphics card."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping

from acrn_jax import CHECKOUT

REMEDY = (
    "Make the environment anew with ACRN_ACCELERATOR=cuda12 (or cuda13, tpu) in front of ./launch.sh"
    if CHECKOUT
    else "pip install 'acrn_jax[cuda12]' (or cuda13, tpu) brings what jax needs"
)


def warn_of_idle_card() -> None:
    """Says on stderr that a graphics card is there and jax computes on the CPU, unless somebody asked for that."""
    if backend() == "cpu" and not _cpu_asked_for(os.environ) and (card := _card()):
        print(
            f"acrn_jax: WARNING: this machine shows a graphics card ({card}), but jax computes on the CPU, many times "
            f"slower. Was it installed on a machine without one? {REMEDY}; if the CPU is meant, say so with "
            "JAX_PLATFORMS=cpu. docs/clusters.md.",
            file=sys.stderr,
            flush=True,
        )


def backend() -> str:
    """What jax computes on; ValueError where that is not what JAX_PLATFORMS names."""
    import jax  # here, as it takes seconds

    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError) as error:  # the latter where not even a plugin is there
        if not (wanted := os.environ.get("JAX_PLATFORMS")):
            raise
        why = f" ({error})" if str(error) else ""
        raise ValueError(f"jax cannot compute on JAX_PLATFORMS={wanted}{why}. {REMEDY}.") from error


def _cpu_asked_for(environment: Mapping[str, str]) -> bool:
    hidden = environment.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    named = environment.get("JAX_PLATFORMS", "").startswith("cpu")
    return hidden or named or environment.get("ACRN_ACCELERATOR") == "cpu"


def _card() -> str | None:
    """The first NVIDIA card that this process may use, by the driver's own tool where there is one."""
    if tool := shutil.which("nvidia-smi"):
        try:
            output = subprocess.run([tool, "-L"], capture_output=True, text=True, timeout=60).stdout
        except (OSError, subprocess.TimeoutExpired):
            return None
        return next((line.split(" (UUID")[0] for line in output.splitlines() if line.startswith("GPU ")), None)
    return next((str(file) for file in sorted(pathlib.Path("/dev").glob("nvidia[0-9]*"))), None)
