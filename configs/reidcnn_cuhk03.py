"""The baseline ReIdCNN on cuhk03: ACRN's net and settings with the classic triplet loss.

./launch.sh train --config=configs/reidcnn_cuhk03.py:detected_0 --workdir=C --config.data.dir=D \
    --config.init_from=R/identity

`:detected_0,small` and `:detected_0,improved` belong to those of acrn_cuhk03.py.
"""

from acrn_jax.configs import acrn_cuhk03, baseline


def get_config(split: str = "detected_0"):
    return baseline.of(acrn_cuhk03.get_config(split))
