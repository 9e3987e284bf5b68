"""ACRN on market1501, the paper's setting.

./launch.sh train --config=configs/acrn_market1501.py --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from configs import common


def get_config():
    c = common.get_config()
    c.data.name = "market1501"
    return c
