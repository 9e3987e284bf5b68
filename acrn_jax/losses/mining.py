"""Which triplets of a batch the losses see. Shapes are static and no gradient passes."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Triplets(NamedTuple):
    """Row numbers of anchors, positives and negatives in a batch of B images.

    The three index arrays broadcast to the shape of `valid`, T. So `batch_all` holds [B, 1, 1], [1, B, 1] and [1, 1, B]
    instead of three arrays of B^3 numbers, and distances are looked up B^2 times instead of B^3 times.

    T is [B / 3] for `offline`, [B] for `batch_hard`, [B, B] for `semi_hard`, [B, B, B] for `batch_all`.
    """

    anchor: jax.Array  # int32, broadcasts to T
    positive: jax.Array  # int32, broadcasts to T: another image of the anchor's person
    negative: jax.Array  # int32, broadcasts to T: an image of somebody else
    valid: jax.Array  # bool T: False where there is no such positive or negative; the indices there mean nothing


def offline(distance: jax.Array | None, person: jax.Array) -> Triplets:
    """Triplets as the input pipeline drew them: N anchors, then their N positives, then their N negatives.

    >>> import jax.numpy as jnp
    >>> anchor, positive, negative, valid = offline(None, jnp.array([1, 2, 1, 2, 3, 2]))
    >>> print(anchor, positive, negative, valid)
    [0 1] [2 3] [4 5] [ True False]

    Args:
      distance: not used.
      person: [B] int, B = 3N.

    Returns:
      N triplets; one whose people contradict its layout is not valid.

    Raises:
      ValueError: B is not a multiple of 3.

    Source: Schumann and Stiefelhagen, 2017, section on training (triplets drawn before the step).
    """
    if len(person) % 3:
        raise ValueError(f"Offline triplets want 3N rows (anchors, positives, negatives); got {len(person)}.")
    anchor, positive, negative = jnp.arange(len(person), dtype=jnp.int32).reshape(3, -1)
    valid = (person[anchor] == person[positive]) & (person[anchor] != person[negative])
    return Triplets(anchor, positive, negative, valid)


def batch_hard(distance: jax.Array, person: jax.Array) -> Triplets:
    """For each image the farthest image of the same person and the nearest of another; the first of equals.

    >>> import jax.numpy as jnp
    >>> from acrn_jax import losses
    >>> distance = losses.mining_distance(jnp.array([[0.0], [1.0], [5.0], [2.0]]), mine_on="feature")
    >>> found = batch_hard(distance, jnp.array([1, 1, 1, 2]))
    >>> print(found.positive[:3], found.negative[:3], found.valid)
    [2 2 0] [3 3 3] [ True  True  True False]

    Args:
      distance: [B, B] float; or [B, N] where rows B to N are candidates without being anchors.
      person: [B] (or [N]) int.

    Returns:
      B triplets.

    Source: Hermans et al., "In Defense of the Triplet Loss for Person Re-Identification", 2017, equation 5.
    """
    same, other = _masks(person, len(distance))
    return Triplets(
        anchor=jnp.arange(len(distance), dtype=jnp.int32),
        positive=jnp.argmax(jnp.where(same, distance, -jnp.inf), axis=1).astype(jnp.int32),
        negative=jnp.argmin(jnp.where(other, distance, jnp.inf), axis=1).astype(jnp.int32),
        valid=same.any(axis=1) & other.any(axis=1),
    )


def batch_all(distance: jax.Array | None, person: jax.Array) -> Triplets:
    """Every anchor with each of its positives and each of its negatives.

    >>> import jax.numpy as jnp
    >>> found = batch_all(None, jnp.array([1, 1, 2]))
    >>> print(found.anchor.shape, found.valid.shape, found.valid.sum(), found.valid[0, 1, 2])
    (3, 1, 1) (3, 3, 3) 2 True

    Args:
      distance: not used.
      person: [B] int.

    Returns:
      B x B x B triplets, of which most are not valid.

    Source: Hermans et al., 2017, equation 6.
    """
    same, other = _masks(person)
    row = jnp.arange(len(person), dtype=jnp.int32)
    return Triplets(row[:, None, None], row[None, :, None], row[None, None, :], same[:, :, None] & other[:, None, :])


def semi_hard(distance: jax.Array, person: jax.Array) -> Triplets:
    """For each anchor and positive the nearest negative that is farther than the positive, else the farthest negative.

    >>> import jax.numpy as jnp
    >>> from acrn_jax import losses
    >>> distance = losses.mining_distance(jnp.array([[0.0], [3.0], [2.0], [4.0]]), mine_on="feature")
    >>> found = semi_hard(distance, jnp.array([1, 1, 2, 2]))
    >>> print(found.negative[0, 1], found.valid[0, 1])
    3 True

    Args:
      distance: [B, B] float.
      person: [B] int.

    Returns:
      B x B triplets, one for each ordered pair of images.

    Source: Schroff et al., "FaceNet", 2015, section 3.2. It does not say what to do where no negative is farther; the
    farthest one (the least hard of the hard) is the choice of TensorFlow's `triplet_semihard_loss`.
    """
    same, other = _masks(person)
    row = jnp.arange(len(person), dtype=jnp.int32)
    negatives = jnp.where(other, distance, jnp.inf)
    order = jnp.argsort(negatives, axis=1)  # negatives from near to far, then everybody else
    place = jax.vmap(lambda near_to_far, wanted: jnp.searchsorted(near_to_far, wanted, side="right"))(
        jnp.take_along_axis(negatives, order, axis=1), distance
    )
    farthest = jnp.maximum(jnp.sum(other, axis=1) - 1, 0)
    negative = jnp.take_along_axis(order, jnp.minimum(place, farthest[:, None]), axis=1).astype(jnp.int32)
    return Triplets(row[:, None], row[None, :], negative, same & other.any(axis=1)[:, None])


def _masks(person: jax.Array, anchors: int | None = None) -> tuple[jax.Array, jax.Array]:
    """Who is a positive of whom (same person, another row) and who a negative: bool [anchors, B] each."""
    same = person[:anchors, None] == person[None, :]
    return same & ~jnp.eye(*same.shape, dtype=bool), ~same


Miner = Callable[[jax.Array, jax.Array], Triplets]  # (distance [B, B], person [B] int) -> triplets
MINERS: dict[str, Miner] = {
    "offline": offline,
    "batch_hard": batch_hard,
    "batch_all": batch_all,
    "semi_hard": semi_hard,
}
