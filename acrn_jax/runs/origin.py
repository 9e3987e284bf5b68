"""Where a result comes from, as entries of result files: what nets are made of, config, commit, versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from acrn_jax import provenance
from acrn_jax.runs import phases
from acrn_jax.settings import Settings

PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "numba", "numpy", "pillow",
    "simplejpeg",
)  # fmt: skip


def of_nets(folders: Mapping[str, Path], *, unfinished: bool) -> dict[str, Any]:
    """What the phases in `folders` are made of, and how far the first one, "run", has come."""
    about = {name: phases.about(phase, unfinished=unfinished and name == "run") for name, phase in folders.items()}
    step, steps = about["run"]["step"], about["run"].get("steps", 0)
    return {"made_of": about} | ({"unfinished": {"step": step, "steps": steps}} if step < steps else {})


def of_code(config: Settings) -> dict[str, Any]:
    """Seeds, config, commit, versions and device."""
    return {
        "seeds": {"train": config.seed},
        "config": json.loads(json.dumps(config.tree)),
        "commit": provenance.commit(),
        "versions": provenance.versions(PACKAGES),
        "device": jax.devices()[0].device_kind,
    }


def number(value: Any) -> int | float | None:
    """As JSON takes it: None for what is not finite."""
    return None if not np.isfinite(value) else (int(value) if isinstance(value, int) else float(value))
