"""ACRN on market1501, the paper's setting.

./launch.sh train --config=configs/acrn_market1501.py --workdir=R --config.data.dir=D --config.attributes.from=M

After the file name, `:small` makes net, images and schedule what two CPU cores can train, `:improved` adds what the
field has learnt since, `:small,improved` does both (configs/modes.py).
"""

from acrn_jax.configs import common, modes


def get_config(mode: str = "paper"):
    c = common.get_config()
    c.data.name = "market1501"
    return modes.chosen(c, mode)
