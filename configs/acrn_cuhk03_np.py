"""ACRN on CUHK03 in its new protocol of 767 and 700 people, in the paper's setting for the other sets.

./launch.sh train --config=configs/acrn_cuhk03_np.py:labeled --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from configs import common


def get_config(kind: str = "detected"):
    c = common.get_config()
    c.data.name, c.data.config = "cuhk03_np", kind
    return c
