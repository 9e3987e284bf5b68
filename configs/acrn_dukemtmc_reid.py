"""ACRN on dukemtmc_reid, the paper's setting.

./launch.sh train --config=configs/acrn_dukemtmc_reid.py --workdir=R --config.data.dir=D --config.attributes.from=M

`:improved` after the file name adds what the field has learnt since (configs/improved.py), at the same size of net.
"""

from acrn_jax.configs import common, improved


def get_config(mode: str = "paper"):
    c = common.get_config()
    c.data.name = "dukemtmc_reid"
    return improved.chosen(c, mode)
