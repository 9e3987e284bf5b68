"""ACRN on one of PETA's sub-sets with identities: small, real, trained in minutes on a CPU.

./launch.sh prepare --dataset=peta --config_name=reid_grid --raw_dir=PETA --data_dir=D
./launch.sh reproduce --config=configs/acrn_peta.py:grid --attributes=M --data_dir=D --workdir=W --seeds=5

M is an attribute net trained without that sub-set: mva_peta.py:small with --config.data.exclude_subsets="('GRID',)".
"""

from acrn_jax.configs import small

SUBSETS = {
    "grid": 12,
    "3dpes": 10,
    "ilid": 12,
    "viper": 30,
    "prid": 12,
    "caviar4reid": 6,
    "sarc3d": 4,
}  # held-out people


def get_config(subset: str = "grid"):
    subset, _, split = subset.partition("_")
    if subset not in SUBSETS:
        raise ValueError(f"No sub-set {subset!r} of PETA with identities; there are {', '.join(SUBSETS)}.")
    c = small.reid()
    c.data.name, c.data.config = "peta", f"reid_{subset}" + (f"_{split}" if split else "")
    c.data.augment.update({"brightness": 0.2, "contrast": 0.2, "saturation": 0.2})
    c.data.validation_identities = SUBSETS[subset]
    c.identity.update({"epochs": 60, "batch": 40})
    c.reid.epochs = 60
    c.evaluate.tune_identities = 0  # the run itself holds people out
    return c
