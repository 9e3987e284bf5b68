"""The attribute net of the paper on PETA, split 0.

./launch.sh prepare --dataset=peta --config_name=random_0 --raw_dir=PETA --data_dir=D
./launch.sh train --config=configs/mva_peta.py --workdir=M --config.data.dir=D

Paper: mA 84.61, from ImageNet weights:

    --config.init_from=googlenet-1378be20.pth --config.model.branch_kernel=3 --config.model.layout=torchvision

(docs/training.md, "Pretrained trunk"; without, the trunk starts from scratch too). `mva_peta.py:small` is for CPUs:
quarter width, 96 x 48, from scratch; docs/evidence.md has what it reaches.
"""

from acrn_jax.configs import common, small


def get_config(mode: str = "paper"):
    if mode not in ("paper", "small"):
        raise ValueError(f"Unknown mode {mode!r}; write ':paper' or ':small' after the file name.")
    if mode == "small":
        c = small.mva()
        c.mva.epochs = 36
    else:
        c = common.get_config()
        c.phases = ("mva",)
        c.model.name = "mva"
        c.data.height, c.data.width = 224, 224
    c.data.name, c.data.config = "peta", "random_0"
    c.data.train_split = "train+val"  # 11,400 images, as the field does
    return c
