"""ACRN on cuhk03, the paper's setting.

./launch.sh train --config=configs/acrn_cuhk03.py --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from configs import common


def get_config():
    c = common.get_config()
    c.data.name = "cuhk03"
    return c
