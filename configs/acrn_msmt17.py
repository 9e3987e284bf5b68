"""ACRN on msmt17, in the paper's setting for the other sets.

./launch.sh train --config=configs/acrn_msmt17.py --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from configs import common


def get_config():
    c = common.get_config()
    c.data.name = "msmt17"
    return c
