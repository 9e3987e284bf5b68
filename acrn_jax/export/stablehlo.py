"""The model as a StableHLO program, which jax alone loads and runs on any of PLATFORMS."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend.mlir.dialects import stablehlo as dialect

from acrn_jax.export import model as models

PLATFORMS = ("cpu", "cuda", "tpu")


def write(model: models.Model, file: Path) -> None:
    """Writes the function images (`models.input_of`) -> {output: float32 [batch, ...]}, named sizes left open."""
    taken = models.input_of(model)
    images = jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(map(str, taken["shape"]))), np.dtype(taken["dtype"]))
    program = jax.jit(functools.partial(models.forward, model))
    file.write_bytes(export.export(program, platforms=PLATFORMS)(images).serialize())


def load(file: Path) -> Callable[[np.ndarray], dict[str, Any]]:
    """The function in a file; ValueError if this jax cannot read it."""
    try:
        program = export.deserialize(bytearray(file.read_bytes()))
        found = re.search(rb"StableHLO_v([\d.]+)", program.mlir_module_serialized)
        _check(
            "calling convention",
            program.calling_convention_version,
            export.maximum_supported_calling_convention_version,
        )
        _check("StableHLO", found[1].decode(), dialect.get_current_version())
    except Exception as error:  # flatbuffers and jax raise many kinds for what they do not know
        raise ValueError(
            f"{file} cannot be read by jax {jax.__version__} ({(str(error).splitlines() or ['damaged'])[0]}); "
            "use the jax that its manifest names, or a newer one."
        ) from error
    return lambda images: jax.tree.map(np.asarray, program.call(images))


def _check(what, version, newest):
    """ValueError for a version after the newest known one; jax itself would go on and fail somewhere inside, or not."""
    if [int(part) for part in str(version).split(".")] > [int(part) for part in str(newest).split(".")]:
        raise ValueError(f"its {what} version is {version}, the newest known here {newest}")
