"""The baseline ReIdCNN on cuhk01: ACRN's net and settings with the classic triplet loss.

./launch.sh train --config=configs/reidcnn_cuhk01.py:485_single_0 --workdir=C --config.data.dir=D \
    --config.init_from=R/identity

`:485_single_0,small` and `:485_single_0,improved` belong to those of acrn_cuhk01.py.
"""

from acrn_jax.configs import acrn_cuhk01, baseline


def get_config(split: str = "485_single_0"):
    return baseline.of(acrn_cuhk01.get_config(split))
