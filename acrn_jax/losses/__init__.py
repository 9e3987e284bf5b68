"""Losses, miners and attribute weights: pure functions of arrays, for any JAX program; examples in the docstrings."""

from acrn_jax.losses.attribute import class_weights, weighted_cross_entropy
from acrn_jax.losses.identity import cross_entropy
from acrn_jax.losses.mining import MINERS, Triplets, batch_all, batch_hard, offline, semi_hard
from acrn_jax.losses.triplet import (
    acrn_loss,
    attribute_weight_loss,
    mean_pair_distance,
    mining_distance,
    triplet_loss,
)
from acrn_jax.losses.weights import FORMS, effective_weights, initial_weights

__all__ = [
    "FORMS",
    "MINERS",
    "Triplets",
    "acrn_loss",
    "attribute_weight_loss",
    "batch_all",
    "batch_hard",
    "class_weights",
    "cross_entropy",
    "effective_weights",
    "initial_weights",
    "mean_pair_distance",
    "mining_distance",
    "offline",
    "semi_hard",
    "triplet_loss",
    "weighted_cross_entropy",
]
