"""ACRN on CUHK03 in its new protocol of 767 and 700 people, in the paper's setting for the other sets.

./launch.sh train --config=configs/acrn_cuhk03_np.py:labeled --workdir=R --config.data.dir=D --config.attributes.from=M

M is an attribute net that did not see PETA's CUHK, which may show the same people: mva_peta.py with
--config.data.exclude_subsets="('CUHK',)".

`:detected,small` makes net, images and schedule what two CPU cores can train, `:detected,improved` adds what the field
has learnt since, `:detected,small,improved` does both (configs/modes.py).
"""

from acrn_jax.configs import common, modes

KINDS = tuple(k + end for k in ("detected", "labeled") for end in ("", *(f"_dev_{i}" for i in range(5))))


def get_config(kind: str = "detected"):
    kind, mode = modes.parted(kind, KINDS)
    c = common.get_config()
    c.data.name, c.data.config = "cuhk03_np", kind
    return modes.chosen(c, mode)
