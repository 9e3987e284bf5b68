"""Flags that several verbs have: how to evaluate (keys of config.evaluate), and the attribute net of a chain."""

import os
from pathlib import Path
from typing import Any

from absl import flags

EVALUATION = {  # default: the config's, or the run's
    "protocol": flags.DEFINE_string("protocol", None, "Protocol, if not the data set's own."),
    "no_match": flags.DEFINE_enum(
        "no_match", None, ("error", "skip", "count_as_miss"), "What to do with queries that have no right image."
    ),
    "draws": flags.DEFINE_integer("draws", None, "Repeats of protocols that draw."),
    "draw_seed": flags.DEFINE_integer("draw_seed", None, "Seed of these draws."),
    "probe_view": flags.DEFINE_enum("probe_view", None, ("1", "2", "both"), "Probes of cuhk03_single_shot."),
}


def of_evaluation() -> dict[str, Any]:
    """The flags that were given."""
    return {key: flag.value for key, flag in EVALUATION.items() if flag.value is not None}


def attribute_net(flag: str | None, config: Any) -> Path | None:
    """The attribute net of --attributes, else of --config.attributes.from.

    Raises:
      ValueError: they name two nets.
    """
    named = config.attributes["from"]
    if flag and named and os.path.realpath(flag) != os.path.realpath(named):
        raise ValueError(f"--attributes={flag} and --config.attributes.from={named} name two nets; give one of them.")
    return Path(flag or named) if flag or named else None
