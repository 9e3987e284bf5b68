"""ACRN on cuhk03, the paper's setting: trained on labeled and detected boxes together, tested on one kind.

./launch.sh train --config=configs/acrn_cuhk03.py:detected_0 --workdir=R --config.data.dir=D --config.attributes.from=M

M is an attribute net that did not see PETA's CUHK, which may show the same people: mva_peta.py with
--config.data.exclude_subsets="('CUHK',)".

The paper's table 3 is the mean over 20 such runs, detected_0 to detected_19, under the protocol cuhk03_single_shot.

`:detected_0,small` makes net, images and schedule what two CPU cores can train, `:detected_0,improved` adds what the
field has learnt since, `:detected_0,small,improved` does both (configs/modes.py). Without a split that one is taken.
"""

from acrn_jax.configs import common, modes

DEV = tuple(f"dev_{i}" for i in range(5))  # to choose and compare on; no official splits
SPLITS = tuple(f"{kind}_{i}" for kind in ("detected", "labeled") for i in (*range(20), *DEV))


def get_config(split: str = "detected_0"):
    split, mode = modes.parted(split, SPLITS)
    c = common.get_config()
    c.data.name, c.data.config = "cuhk03", split
    c.evaluate.no_match = "skip"  # one person of the labeled boxes is seen by one camera alone
    return modes.chosen(c, mode)
