"""Flags that several verbs have: how to evaluate (keys of config.evaluate), and the attribute net of a chain."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from acrn_jax.data_prep import paths

if TYPE_CHECKING:
    from acrn_jax.settings import Settings

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


def config_of(flag: Any, data_dir: str | None = None) -> "Settings":
    """The settings of a --config flag, with --data_dir and the flags of evaluation that were given.

    Raises:
      ValueError: a key that nothing takes, a value that does not fit, a path that is none.
    """
    from acrn_jax import settings  # here, as it takes seconds that --help need not wait for

    config = settings.read(flag)
    changes = {}
    for key in settings.PATHS:
        if config.flat[key]:
            try:
                changes[key] = paths.tidy(config.flat[key])  # the home folder for ~
            except ValueError as error:
                raise ValueError(f"config.{key}: {error}") from error
    changes |= {"data.dir": data_dir} if data_dir else {}
    return config.changed(changes | {f"evaluate.{key}": value for key, value in of_evaluation().items()})


def attribute_net(flag: str | None, config: "Settings") -> Path | None:
    """The attribute net of --attributes, else of --config.attributes.from.

    Raises:
      ValueError: they name two nets.
    """
    named = config.attributes.from_
    if flag and named and os.path.realpath(flag) != os.path.realpath(named):
        raise ValueError(f"--attributes={flag} and --config.attributes.from={named} name two nets; give one of them.")
    return Path(flag or named) if flag or named else None
