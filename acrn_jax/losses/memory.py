"""Cross-batch memory: what a batch-hard miner sees beside the batch, the features of the batches before.

A net changes slowly once its rate is low, so features of some steps ago still say who is near whom. They are constants:
anchors, and what gets a gradient, are the batch's own rows.

A memory of M images is a dict of arrays:

| key | type | meaning |
| --- | --- | --- |
| feature | float32 [M, D] | as the triplet loss saw it |
| person | int32 [M] | who it is, EMPTY where nothing has been stored yet |
| attributes | float32 [M, A] | of an ACRN alone |
| count | int32 | images stored so far; the next one goes to place count mod M |

Source: Wang et al., "Cross-Batch Memory for Embedding Learning", CVPR 2020, there with a contrastive loss.
"""

from typing import Any

import jax
import jax.numpy as jnp

EMPTY = -1  # person of a place that holds nothing, or that is not to be seen


def empty(size: int, *, dimensions: int, attributes: int = 0) -> dict[str, Any]:
    """A memory of `size` images that holds none."""
    memory = {
        "feature": jnp.zeros((size, dimensions), jnp.float32),
        "person": jnp.full(size, EMPTY, jnp.int32),
        "count": jnp.zeros((), jnp.int32),
    }
    return memory | ({"attributes": jnp.zeros((size, attributes), jnp.float32)} if attributes else {})


def stored(memory: dict[str, Any], feature: jax.Array, person: jax.Array, attributes: Any = None) -> dict[str, Any]:
    """The memory with a batch in it: [B, D], [B], [B, A] in place of the B oldest images; B is at most M."""
    places = (memory["count"] + jnp.arange(len(person))) % len(memory["person"])
    rows = {"feature": feature, "person": person, "attributes": attributes}
    new = {name: kept.at[places].set(rows[name].astype(kept.dtype)) for name, kept in memory.items() if name != "count"}
    return new | {"count": memory["count"] + len(person)}


def beside(
    memory: dict[str, Any], feature: jax.Array, person: jax.Array, attributes: Any = None, *, after: int
) -> tuple[jax.Array, jax.Array, Any]:
    """(features [B + M, D], persons [B + M], attributes [B + M, A] or None): a batch, and the memory behind it.

    During the first `after` batches of B rows everybody in the memory is EMPTY.
    """
    seen = memory["count"] >= after * len(person)
    features = jnp.concatenate([feature, memory["feature"].astype(feature.dtype)])
    persons = jnp.concatenate([person, jnp.where(seen, memory["person"], EMPTY).astype(person.dtype)])
    return features, persons, None if attributes is None else jnp.concatenate([attributes, memory["attributes"]])
