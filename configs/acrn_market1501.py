"""ACRN on market1501, the paper's setting.

./launch.sh train --config=configs/acrn_market1501.py --workdir=R --config.data.dir=D --config.attributes.from=M

`:improved` after the file name adds what the field has learnt since (configs/improved.py), at the same size of net.
"""

from acrn_jax.configs import common, improved


def get_config(mode: str = "paper"):
    c = common.get_config()
    c.data.name = "market1501"
    return improved.chosen(c, mode)
