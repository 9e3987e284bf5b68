"""The baseline ReIdCNN on dukemtmc_reid: ACRN's net and settings with the classic triplet loss.

./launch.sh train --config=configs/reidcnn_dukemtmc_reid.py --workdir=C --config.data.dir=D \
    --config.init_from=R/identity

`:small` and `:improved` belong to those of acrn_dukemtmc_reid.py.
"""

from acrn_jax.configs import acrn_dukemtmc_reid, baseline


def get_config(mode: str = "paper"):
    return baseline.of(acrn_dukemtmc_reid.get_config(mode))
