"""The ReIdCNN that belongs to an ACRN config: the same net, settings and identity phase, L_triplet for L_acrn."""

from ml_collections import config_dict


def of(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """The baseline of `config`; set `init_from` to the ACRN run's identity phase."""
    c = config.copy_and_resolve_references()
    with c.unlocked():
        c.phases = ("reid",)
        c.loss.kind = "classic"
    return c
