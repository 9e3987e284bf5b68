"""The whole method on the built-in data, in minutes on two cores: what ./launch.sh demo runs.

`demo.py` is ACRN on synthetic_pedestrians/target_0, `demo.py:attributes` the attribute net on source_0.
"""

from acrn_jax.configs import small


def get_config(part: str = "acrn"):
    if part not in ("acrn", "attributes"):
        raise ValueError(f"Unknown part {part!r}; write ':acrn' or ':attributes' after the file name.")
    c = small.mva() if part == "attributes" else small.reid()
    c.data.name = "synthetic_pedestrians"
    c.data.config = "source_0" if part == "attributes" else "target_0"
    c.data.height, c.data.width = 64, 32
    c.model.width = 0.125
    c.mva.epochs = 16
    c.model.feature_dim = 128
    c.data.validation_identities = 30
    c.identity.epochs = 22
    c.identity.batch = 40
    c.reid.epochs = 15
    c.evaluate.tune_identities = 0  # the run itself holds people out
    return c
