"""What small data and small machines change: narrow nets, unit_mean distances, P x K batches, AdamW.

Not an experiment of its own; demo.py and the peta files build on it, and so does mode `:small` (configs/modes.py).
"""

from ml_collections import config_dict

from acrn_jax.configs import common


def adam(rate: float, *, kind: str = "adamw", decay: float = 2e-4) -> dict:
    return {"kind": kind, "rate": rate, "decay": decay, "schedule": "cosine", "warmup_epochs": 1.0}


def narrow(c: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """`c`, changed to a narrow ACRN that is trained in minutes."""
    c.model.width = 0.25
    c.model.feature_norm = "batch_norm"
    c.data.height, c.data.width = 128, 48
    c.identity.scratch.update(adam(3e-3))
    # From a short identity phase batch_hard stays at its margin; batch_all learns (on held-out people of demo.py).
    c.reid.update({"miner": "batch_all", "people": 20, "images": 2})
    c.reid.scratch.update(adam(1e-3))
    c.reid.attribute_weights.update(adam(1e-2, kind="adam", decay=0.0))
    c.loss.update(
        {"margin": 0.3, "distance_scale": "unit_mean", "attribute_margin": 0.1, "attribute_miner": "batch_all"}
    )
    return c


def reid() -> config_dict.ConfigDict:
    """A narrow ACRN; data set and lengths are the caller's."""
    return narrow(common.get_config())


def two_cores(c: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """`c`, changed to what two CPU cores train in half an hour on hundreds of people: mode `:small`."""
    narrow(c)
    c.reid.update({"people": 16, "images": 4, "epochs": 16})
    c.identity.epochs = 12
    c.data.validation_identities = 50
    c.evaluate.tune_identities = 0  # the run itself holds people out
    return c


def mva() -> config_dict.ConfigDict:
    """A narrow MVA from scratch."""
    c = common.get_config()
    c.phases = ("mva",)
    c.model.name = "mva"
    c.model.width = 0.25
    c.data.height, c.data.width = 96, 48
    c.mva.trunk.update(adam(2e-3))
    c.mva.scratch.update(adam(2e-3))
    c.mva.steps = 0
    return c
