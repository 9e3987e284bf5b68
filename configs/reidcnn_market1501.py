"""The baseline ReIdCNN on market1501: ACRN's net and settings with the classic triplet loss.

./launch.sh train --config=configs/reidcnn_market1501.py --workdir=C --config.data.dir=D --config.init_from=R/identity

`:small` and `:improved` belong to those of acrn_market1501.py.
"""

from acrn_jax.configs import acrn_market1501, baseline


def get_config(mode: str = "paper"):
    return baseline.of(acrn_market1501.get_config(mode))
