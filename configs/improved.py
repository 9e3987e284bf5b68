"""What the field has learnt since the paper, at any size of net: `acrn_market1501.py:improved` and its like.

Each ingredient is a table of its own, so that configs/ablations.py can add it to the paper's settings or leave it out
of the improved ones. Unlike in the paper's, 100 people are held out of training for whatever is chosen: query and
gallery are looked at once, at the end. What was measured of them is in docs/evidence.md: with a phase of 12 epochs of
identities as in `:small`, 6.2 points of mAP (4.3 to 8.1) above `:small` on dev_0 of Market-1501.

Sources: Hermans et al., "In Defense of the Triplet Loss", 2017; Luo et al., "Bag of Tricks and a Strong Baseline for
Deep Person Re-identification", 2019; Radenovic et al., "Fine-tuning CNN Image Retrieval with No Human Annotation", 2018
(gem); Sun et al., "Beyond Part Models", 2018 (parts); Pan et al., "Two at Once", 2018 (instance_norm); Wang
et al., "Cross-Batch Memory for Embedding Learning", 2020 (memory).
"""

_COSINE = {"schedule": "cosine", "warmup_epochs": 2.0}

INGREDIENTS = {
    "batch_hard": {
        "reid.miner": "batch_hard",
        "reid.people": 16,
        "reid.images": 4,
        "loss.attribute_miner": "batch_all",  # sees one batch with the miner; the hardest pairs would shrink w to 0
        "loss.distance_scale": "unit_mean",
        "loss.margin": 0.3,
        "loss.attribute_margin": 0.1,
    },
    "euclidean": {"loss.distance": "euclidean"},  # Hermans et al. also find the squared one harder to train with
    "batch_norm": {"model.feature_norm": "batch_norm", "loss.distance_scale": "unit_mean"},
    "erasing": {"data.augment.erase": 0.3},
    "colour": {"data.augment.brightness": 0.2, "data.augment.contrast": 0.2, "data.augment.saturation": 0.2},
    "cosine": {
        f"{group}.{key}": value
        for group in ("identity.scratch", "reid.scratch", "reid.attribute_weights")
        for key, value in _COSINE.items()
    },
    "longer": {"reid.epochs": 40},
}
FURTHER = {  # not in the improved configs
    # It costs: 9.9 points of mAP on dev_0 of Market-1501 (8.0 to 11.9), 6.6 on drawn people; docs/evidence.md.
    "identity_loss": {"loss.identity_weight": 1.0, "loss.smoothing": 0.1, "identity.smoothing": 0.1},
    # unit_mean, since the feature that is ranked has another size than the one that is trained
    "bnneck": {"model.feature_norm": "bnneck", "loss.distance_scale": "unit_mean"},
    "ema": {"ema": 0.999},
    "memory": {  # with the one miner that has it; compare with plus_batch_hard
        "reid.miner": "batch_hard",
        "reid.people": 16,
        "reid.images": 4,
        "loss.attribute_miner": "batch_all",
        "reid.memory": 1024,
        "reid.memory_after": 500,
    },
    "instance_norm": {"model.instance_norm": True},
    "grey": {"data.augment.grey": 0.1},
    "pad": {"data.augment.pad": 10, "data.augment.enlarge": 1.0},
    "active_only": {"loss.reduction": "active_only"},
    "average": {"model.head_pooling": "average"},
    "gem": {"model.head_pooling": "gem"},
    "last_stride": {"model.last_stride": 1},
    "parts": {"model.head_pooling": "average", "model.parts": 2},
    "parts_last_stride": {"model.head_pooling": "average", "model.parts": 4, "model.last_stride": 1},
}


def merged(*names: str) -> dict:
    """The overrides of several ingredients together."""
    return {key: value for name in names for key, value in INGREDIENTS[name].items()}


def study() -> dict:
    """Arms: the config as it is, with one ingredient more, with all, and with all but one."""
    arms = {"reference": {}, **{f"plus_{name}": values for name, values in (INGREDIENTS | FURTHER).items()}}
    arms["improved"] = merged(*INGREDIENTS)
    for name in INGREDIENTS:
        arms[f"improved_minus_{name}"] = merged(*(other for other in INGREDIENTS if other != name))
    return arms | {f"improved_plus_{name}": merged(*INGREDIENTS) | FURTHER[name] for name in ("ema", "identity_loss")}
