"""ACRN on cuhk01, with the paper's settings for its other sets.

./launch.sh train --config=configs/acrn_cuhk01.py:485_single_0 --workdir=R --config.data.dir=D \
    --config.attributes.from=M

M is an attribute net that did not see PETA's CUHK, which may show the same people: mva_peta.py with
--config.data.exclude_subsets="('CUHK',)".

A number is the mean over the ten splits of one kind, 485_single_0 to 485_single_9; data_prep/cuhk01/README.md.

`:485_single_0,small` makes net, images and schedule what two CPU cores can train, `:485_single_0,improved` adds what
the field has learnt since, `:485_single_0,small,improved` does both (configs/modes.py). Without a split that one is
taken.
"""

from acrn_jax.configs import common, modes

SPLITS = tuple(f"{people}_{shots}_{i}" for people in (485, 871) for shots in ("single", "multi") for i in range(10))


def get_config(split: str = "485_single_0"):
    split, mode = modes.parted(split, SPLITS)
    c = common.get_config()
    c.data.name, c.data.config = "cuhk01", split
    return modes.chosen(c, mode)
