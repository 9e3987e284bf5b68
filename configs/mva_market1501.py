"""An attribute net on Market-1501's own annotations, trained on half of the training people.

./launch.sh prepare --dataset=market1501 --raw_dir=MARKET --attributes_mat=market_attribute.mat --data_dir=D
./launch.sh train --config=configs/mva_market1501.py:small --workdir=M --config.data.dir=D

The other half trains the ACRN whose attribute net it is, so that its attributes are of people whom the net never saw:

./launch.sh train --config=configs/acrn_market1501.py:small --config.data.people_part=second_half \
                  --workdir=R --config.data.dir=D --config.attributes.from=M
"""

from acrn_jax.configs import mva_peta


def get_config(mode: str = "paper"):
    c = mva_peta.get_config(mode)
    c.data.name, c.data.config = "market1501", "default"
    c.data.train_split, c.data.people_part = "train", "first_half"
    return c
