"""ACRN on CUHK03 in its new protocol of 767 and 700 people, in the paper's setting for the other sets.

./launch.sh train --config=configs/acrn_cuhk03_np.py:labeled --workdir=R --config.data.dir=D --config.attributes.from=M

`:detected,improved` adds what the field has learnt since (configs/improved.py), at the same size of net.
"""

from acrn_jax.configs import common, improved


def get_config(kind: str = "detected"):
    kind, mode = improved.parted(kind, ("detected", "labeled"))
    c = common.get_config()
    c.data.name, c.data.config = "cuhk03_np", kind
    return improved.chosen(c, mode)
