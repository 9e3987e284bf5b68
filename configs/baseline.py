"""The ReIdCNN that belongs to an ACRN config: the same net, settings and identity phase, L_triplet for L_acrn."""

from ml_collections import config_dict


def of(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """`config`, made its baseline; set `init_from` to the ACRN run's identity phase.

    Not a copy: one with references resolved has no placeholders, and a key that is None alone takes no flag.
    """
    config.phases = ("reid",)
    config.loss.kind = "classic"
    return config
