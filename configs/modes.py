"""The words behind a re-id config's file name: `:small`, `:improved`, `:small,improved`; a split may stand before them.

The two words are independent: `small` is the size of net and images that two CPU cores can train (configs/small.py),
`improved` the recipe (configs/improved.py). Without either the config has the paper's settings.
"""

from ml_collections import config_dict

from acrn_jax.configs import improved, small

MODES = ("paper", "small", "improved")


def parted(given: str, names: tuple[str, ...]) -> tuple[str, str]:
    """(split, mode) of what stands after a config's file name: "detected_3", "detected_3,small" or "small,improved"."""
    split, _, mode = given.partition(",")
    if split in MODES:
        split, mode = names[0], given
    if split not in names:
        raise ValueError(
            f"Unknown split {split!r}; write one such as {names[0]} or {names[-1]}, and small or improved."
        )
    return split, mode


def chosen(config: config_dict.ConfigDict, mode: str) -> config_dict.ConfigDict:
    """`config` of the paper's settings, changed to what the words of `mode` say.

    Both words hold people out of training for whatever is chosen, small 50 and improved alone 100.
    """
    words = mode.split(",") if mode else []
    for word in words:
        if word not in MODES:
            raise ValueError(f"Unknown mode {word!r}; there are {', '.join(MODES[:-1])} and {MODES[-1]}.")
    if "paper" in words and len(words) > 1:
        raise ValueError(f"Mode {mode!r} asks for the paper's settings and for others; leave paper out.")
    if "small" in words:
        small.two_cores(config)
    if "improved" in words:
        config.update_from_flattened_dict(improved.merged(*improved.INGREDIENTS))
        config.data.validation_identities = config.data.validation_identities or 100
        config.evaluate.tune_identities = 0  # the run itself holds people out
    return config
