"""What a phase is made of, as entries of its inputs.json (phases.py): data, attribute net, start."""

from typing import Any

from acrn_jax import build
from acrn_jax.data import source
from acrn_jax.runs import phases
from acrn_jax.runs.start import start_input
from acrn_jax.settings import Settings


def data(config: Settings) -> dict[str, str]:
    """The prepared training split, as it lies there now."""
    where, splits = config.data, config.data.train_split.split("+")
    found = source.fingerprint(str(where.dir), str(where.name), where.config, splits)
    return phases.entry(f"{where.name}/{where.config}/{where.train_split}", found, path=where.dir)


def known(
    config: Settings, phase: str, split: source.Split, *, start: str | None = None, attributes: Any = None
) -> dict[str, Any]:
    """What a phase is made of, as far as it is known before the phase in front of it has ended.

    Args:
      config: of the run.
      phase: its name.
      split: the images that it trains on.
      start: what it starts from (config.init_from).
      attributes: entry of the attribute net of an ACRN's phase reid.
    """
    inputs: dict[str, Any] = {"steps": build.planned_steps(config, phase, split), "data": data(config)}
    inputs["records"] = phases.entry(split.name, split.fingerprint)
    if phase == "mva":
        inputs["attribute_names"] = split.attribute_names
    if phase == "reid" and config.loss.kind == "acrn":
        inputs["attributes"] = attributes
    return inputs | ({"start": start_input(start)} if start else {})
