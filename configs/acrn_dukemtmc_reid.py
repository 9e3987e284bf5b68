"""ACRN on dukemtmc_reid, the paper's setting.

./launch.sh train --config=configs/acrn_dukemtmc_reid.py --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from configs import common


def get_config():
    c = common.get_config()
    c.data.name = "dukemtmc_reid"
    return c
