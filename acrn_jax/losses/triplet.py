"""Triplet losses: classic, with complementary attributes (ACRN), and of the attributes alone.

d(positive) and d(negative) are an anchor's distances to its positive and its negative:

    triplet_loss           mean [m + d_f(positive) - d_f(negative)]_+
    acrn_loss              mean [m + d_f(positive) - d_f(negative) + gamma (d_w(positive) - d_w(negative))]_+
    attribute_weight_loss  mean [m + d_w(positive) - d_w(negative)]_+

d_f compares features, d_w compares weights * attributes. Each distance may be divided by a scale (1 is raw). A loss is
given its triplets, or `person`, who is on each image, and the miner that chooses them. It returns a scalar and a dict
of scalars to log:

| name | meaning |
| --- | --- |
| triplets | number of valid triplets |
| active | share of them that lie inside the margin; for the soft margin: whose gap is above 0 |
| positive, negative | their mean distances, after scaling: d_f, for `attribute_weight_loss` d_w |
| undecided | share whose two distances differ by less than a tenth of the margin (soft: of the temperature) |
| switched_on | `acrn_loss`: share that is active with the attribute term and not without it |
| switched_off | `acrn_loss`: share that is active without the attribute term and not with it |

Shares and means are 0 where no triplet is valid. Where all triplets stay undecided, the loss stays at its margin.

Source: Schumann and Stiefelhagen, CVPR Workshops 2017, section 4; docs/method.md, section 4, has the equations.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from acrn_jax.losses.mining import MINERS, Miner, Triplets
from acrn_jax.ops.distance import pair_mean, paired, pairwise
from acrn_jax.schema import unknown

Margin = float | Literal["soft"]
Reduction = Literal["mean", "active_only"]
SCALE_FLOOR = 1e-12  # a scale measured on equal points is 0: 0 / 0 must not become NaN


def hinge(
    gap: jax.Array, valid: jax.Array, *, margin: Margin, temperature: float = 1.0, reduction: Reduction = "mean"
) -> tuple[jax.Array, jax.Array]:
    """Loss of each triplet from its gap d(positive) - d(negative), and their mean.

    >>> import jax.numpy as jnp
    >>> loss, each = hinge(jnp.array([-2.0, 0.0, 1.0]), jnp.array([True, True, False]), margin=1.0)
    >>> print(loss, each)
    0.5 [0. 1. 0.]

    Args:
      gap: T float; wanted below -margin.
      valid: T bool; other triplets give 0 and are left out of the mean.
      margin: at least 0, in units of distance; or "soft": temperature * softplus(gap / temperature) in place of the
        hinge.
      temperature: above 0, in units of distance, for the soft margin alone; towards 0 it becomes the hinge of margin 0.
      reduction: "mean" over valid triplets, or "active_only": over those inside the margin.

    Returns:
      loss scalar, 0 where nothing is valid (or active); loss of each triplet T, 0 where not valid.

    Raises:
      ValueError: margin negative or an unknown word; unknown reduction; "active_only" with a soft margin.

    Source: hinge: Schumann and Stiefelhagen, 2017; soft margin: Hermans et al., 2017, section 2.
    """
    if reduction not in ("mean", "active_only"):
        raise ValueError(f"No reduction {reduction!r} of triplets; choose mean or active_only.")
    if _soft(margin) and reduction == "active_only":
        raise ValueError("A soft margin leaves every triplet active; use reduction 'mean' or a number as margin.")
    gap = jnp.where(valid, gap, 0)  # before as well as after: whatever stands there must not reach the gradient
    each = temperature * jax.nn.softplus(gap / temperature) if _soft(margin) else jax.nn.relu(gap + margin)
    each = jnp.where(valid, each, 0)
    counted = valid if reduction == "mean" else _active(gap, valid, margin)
    return jnp.sum(each) / jnp.maximum(jnp.sum(counted), 1), each


def triplet_loss(
    feature: jax.Array,
    triplets: Triplets | None = None,
    *,
    person: jax.Array | None = None,
    miner: str | Miner = "batch_hard",
    distance: str = "squared_euclidean",
    scale: float | jax.Array = 1.0,
    margin: Margin,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Triplet loss on features.

    >>> import jax.numpy as jnp
    >>> from acrn_jax import losses
    >>> feature = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 2.0]])
    >>> loss, scalars = losses.triplet_loss(feature, person=jnp.array([1, 1, 2, 2]), miner="batch_hard", margin=1.0)
    >>> print(loss, scalars["triplets"], scalars["active"])
    2.0 4 0.5

    With triplets of one's own, of rows 0 and 1 against row 2:

    >>> triplets = losses.Triplets(*jnp.array([[0], [1], [2]]), valid=jnp.array([True]))
    >>> print(losses.triplet_loss(feature, triplets, margin=4.0)[0])
    1.0

    Args:
      feature: [B, D] float.
      triplets: rows of the batch, from a miner; or None, and `person` in their place.
      person: [B] int, who is on each image.
      miner: a name in losses.MINERS, or a function (distance [B, B], person [B]) -> Triplets; looks at d_f.
      distance: a name in ops.distance.DISTANCES.
      scale: above 0, divides the distances.
      margin: as in `hinge`.
      temperature: as in `hinge`.
      reduction: as in `hinge`.

    Returns:
      loss scalar; scalars to log (see the module).

    Raises:
      ValueError: neither triplets nor person, or both; lengths that differ; an unknown name; see `hinge`.

    Source: Schumann and Stiefelhagen, 2017, section 4, the classic loss; Schroff et al., "FaceNet", 2015, equation 3.
    """
    triplets = _chosen(
        triplets, person, miner, feature, lambda: mining_distance(feature, mine_on="feature", distance=distance)
    )
    positive, negative = _distances(feature, triplets, distance=distance, scale=scale)
    gap = positive - negative
    loss, _ = hinge(gap, triplets.valid, margin=margin, temperature=temperature, reduction=reduction)
    return loss, _summary(gap, positive, negative, triplets.valid, margin, temperature)


def acrn_loss(
    feature: jax.Array,
    attributes: jax.Array,
    weights: jax.Array,
    triplets: Triplets | None = None,
    *,
    person: jax.Array | None = None,
    miner: str | Miner = "batch_hard",
    mine_on: Literal["feature", "combined", "attribute"] = "combined",
    gamma: float | jax.Array = 0.5,
    distance: str = "squared_euclidean",
    scale_feature: float | jax.Array = 1.0,
    scale_attribute: float | jax.Array = 1.0,
    margin: Margin,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
    attribute_gradient: Literal["stop", "flow"] = "stop",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Triplet loss on features whose threshold the attributes move.

    A triplet that weighted attributes tell apart already gives less or no gradient; one that they confuse gives more.

    >>> import jax.numpy as jnp
    >>> from acrn_jax import losses
    >>> feature = jnp.array([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [3.0, 2.0]])
    >>> attributes, weights = jnp.array([[0.9], [0.8], [0.1], [0.2]]), jnp.array([4.0])
    >>> loss, scalars = losses.acrn_loss(
    ...     feature, attributes, weights, person=jnp.array([1, 1, 2, 2]), gamma=0.5, margin=1.0
    ... )
    >>> print(round(float(loss), 2), scalars["triplets"])
    0.29 4

    Args:
      feature: [B, D] float.
      attributes: [B, A] float, probabilities; a constant here.
      weights: [A] float; a constant unless attribute_gradient is "flow".
      triplets: rows of the batch, from a miner; or None, and `person` in their place.
      person: [B] int, who is on each image.
      miner: a name in losses.MINERS, or a function (distance [B, B], person [B]) -> Triplets.
      mine_on: it looks at d_f ("feature"), d_f + gamma d_w ("combined", what a test ranks by) or d_w ("attribute").
      gamma: at least 0, influence of the attributes.
      distance: a name in ops.distance.DISTANCES, for both.
      scale_feature: above 0, divides d_f.
      scale_attribute: above 0, divides d_w.
      margin: as in `hinge`.
      temperature: as in `hinge`.
      reduction: as in `hinge`.
      attribute_gradient: whether this loss trains the weights too.

    Returns:
      loss scalar; scalars to log (see the module).

    Raises:
      ValueError: neither triplets nor person, or both; lengths that differ; an unknown name or attribute_gradient; see
        `hinge`.

    Source: Schumann and Stiefelhagen, 2017, section 4, the loss with the attributes' distances added.
    """
    if attribute_gradient not in ("stop", "flow"):
        raise ValueError(f"No attribute_gradient {attribute_gradient!r}; choose stop or flow.")
    if attribute_gradient == "stop":
        weights = jax.lax.stop_gradient(weights)
    scales = {"scale_feature": scale_feature, "scale_attribute": scale_attribute}
    triplets = _chosen(
        triplets,
        person,
        miner,
        feature,
        lambda: mining_distance(
            feature, attributes, weights, mine_on=mine_on, gamma=gamma, distance=distance, **scales
        ),
    )
    positive, negative = _distances(feature, triplets, distance=distance, scale=scale_feature)
    attribute_positive, attribute_negative = _distances(
        _weighted(attributes, weights), triplets, distance=distance, scale=scale_attribute
    )
    without = positive - negative
    gap = without + gamma * (attribute_positive - attribute_negative)
    loss, _ = hinge(gap, triplets.valid, margin=margin, temperature=temperature, reduction=reduction)
    now, before = _active(gap, triplets.valid, margin), _active(without, triplets.valid, margin)
    switched = {
        "switched_on": _mean(now & ~before, triplets.valid),
        "switched_off": _mean(before & ~now, triplets.valid),
    }
    return loss, _summary(gap, positive, negative, triplets.valid, margin, temperature) | switched


def attribute_weight_loss(
    attributes: jax.Array,
    weights: jax.Array,
    triplets: Triplets | None = None,
    *,
    person: jax.Array | None = None,
    miner: str | Miner = "batch_hard",
    distance: str = "squared_euclidean",
    scale: float | jax.Array = 1.0,
    margin: Margin,
    temperature: float = 1.0,
    reduction: Reduction = "mean",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Triplet loss on weighted attributes; trains the weights and nothing else.

    The first attribute tells the two people apart, the second one does not, and the gradient says so:

    >>> import jax, jax.numpy as jnp
    >>> from acrn_jax import losses
    >>> attributes, person = jnp.array([[1.0, 0.5], [1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]), jnp.array([1, 1, 2, 2])
    >>> of = lambda w: losses.attribute_weight_loss(attributes, w, person=person, miner="batch_all", margin=2.0)[0]
    >>> print(of(jnp.ones(2)), jax.grad(of)(jnp.ones(2)))
    1.125 [-2.    0.25]

    Args:
      attributes: [B, A] float, probabilities; a constant here.
      weights: [A] float.
      triplets: rows of the batch, from a miner; or None, and `person` in their place.
      person: [B] int, who is on each image.
      miner: a name in losses.MINERS, or a function (distance [B, B], person [B]) -> Triplets; looks at d_w.
      distance: a name in ops.distance.DISTANCES.
      scale: above 0, divides the distances.
      margin: as in `hinge`.
      temperature: as in `hinge`.
      reduction: as in `hinge`.

    Returns:
      loss scalar; scalars to log (see the module).

    Raises:
      ValueError: neither triplets nor person, or both; lengths that differ; an unknown name; see `hinge`.

    Source: Schumann and Stiefelhagen, 2017, section 4, the additional loss of the weight layer.
    """
    return triplet_loss(
        _weighted(attributes, weights),
        triplets,
        person=person,
        miner=miner,
        distance=distance,
        scale=scale,
        margin=margin,
        temperature=temperature,
        reduction=reduction,
    )


def mining_distance(
    feature: jax.Array | None,
    attributes: jax.Array | None = None,
    weights: jax.Array | None = None,
    *,
    mine_on: Literal["feature", "combined", "attribute"] = "combined",
    gamma: float | jax.Array = 0.5,
    distance: str = "squared_euclidean",
    scale_feature: float | jax.Array = 1.0,
    scale_attribute: float | jax.Array = 1.0,
    anchors: int | None = None,
) -> jax.Array:
    """Distances by which a miner chooses: d_f, d_f + gamma d_w (what the test ranks by), or d_w. No gradient passes.

    >>> import jax.numpy as jnp
    >>> print(mining_distance(jnp.array([[0.0], [2.0]]), jnp.array([[0.0], [1.0]]), jnp.array([3.0]), gamma=0.5))
    [[0.  8.5]
     [8.5 0. ]]

    Args:
      feature: [B, D] float; not looked at for "attribute".
      attributes: [B, A] float; not looked at for "feature".
      weights: [A] float; not looked at for "feature".
      mine_on: which of the three.
      gamma: at least 0, influence of the attributes, for "combined" alone.
      distance: a name in ops.distance.DISTANCES.
      scale_feature: above 0, divides d_f.
      scale_attribute: above 0, divides d_w.
      anchors: how many of the first rows are anchors; default all.

    Returns:
      [anchors, B].

    Raises:
      ValueError: unknown mine_on.
    """
    if mine_on not in ("feature", "combined", "attribute"):
        raise ValueError(f"Nothing to mine on called {mine_on!r}; choose feature, combined or attribute.")
    total: Any = 0
    if mine_on != "attribute":
        feature = jax.lax.stop_gradient(feature)
        total += _scaled(pairwise(feature[:anchors], feature, kind=distance), scale_feature)
    if mine_on != "feature":
        rows = jax.lax.stop_gradient(_weighted(attributes, weights))
        factor = gamma if mine_on == "combined" else 1
        total += factor * _scaled(pairwise(rows[:anchors], rows, kind=distance), scale_attribute)
    return jax.lax.stop_gradient(total)


def mean_pair_distance(x: jax.Array, *, distance: str = "squared_euclidean") -> jax.Array:
    """Mean distance over all ordered pairs of different rows, as `distance_scale: unit_mean` wants it; no gradient.

    >>> import jax.numpy as jnp
    >>> print(mean_pair_distance(jnp.array([[0.0], [1.0], [2.0]])))
    2.0

    Args:
      x: [B, D] float, B >= 2.
      distance: a name in ops.distance.DISTANCES.

    Returns:
      Scalar >= 0; exactly 0 where all rows are equal up to rounding.
    """
    mean, size = pair_mean(x, kind=distance), jnp.mean(jnp.sum(jnp.square(x), axis=1))
    rounding = {"squared_euclidean": 1e-12 * size, "euclidean": 1e-6 * jnp.sqrt(size), "cosine": 1e-6}[distance]
    return jax.lax.stop_gradient(jnp.where(mean > rounding, mean, 0))


def _chosen(
    triplets: Triplets | None,
    person: jax.Array | None,
    miner: str | Miner,
    rows: jax.Array,
    distance: Callable[[], jax.Array],
) -> Triplets:
    """The triplets that are given, or those that the miner finds."""
    if (triplets is None) == (person is None):
        raise ValueError("A triplet loss wants either triplets, or person (who is on each image) and a miner.")
    if triplets is not None:
        return triplets
    person = jnp.asarray(person)
    if person.shape != rows.shape[:1]:
        raise ValueError(f"A triplet loss of {len(rows)} images wants person [{len(rows)}], got {list(person.shape)}.")
    if isinstance(miner, str) and miner not in MINERS:
        raise unknown("miner", miner, MINERS)
    return (MINERS[miner] if isinstance(miner, str) else miner)(distance(), person)


def _weighted(attributes: jax.Array, weights: jax.Array) -> jax.Array:
    if attributes.ndim != 2 or weights.shape != attributes.shape[1:]:
        raise ValueError(f"Attributes [B, A] want weights [A]; got {attributes.shape} and {weights.shape}.")
    return jax.lax.stop_gradient(attributes) * weights


def _scaled(distance: jax.Array, scale: float | jax.Array) -> jax.Array:
    return distance / jnp.maximum(jax.lax.stop_gradient(scale), SCALE_FLOOR)


def _distances(
    rows: jax.Array, triplets: Triplets, *, distance: str, scale: float | jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Distances of anchors to positives and to negatives, each broadcasting to T."""
    anchor, positive, negative, valid = triplets
    if valid.size <= len(rows):  # few triplets: differentiate their rows alone, not all B x B distances
        to_positive = paired(rows[anchor], rows[positive], kind=distance)
        to_negative = paired(rows[anchor], rows[negative], kind=distance)
    else:
        table = pairwise(rows, rows, kind=distance)
        to_positive, to_negative = table[anchor, positive], table[anchor, negative]
    return _scaled(to_positive, scale), _scaled(to_negative, scale)


def _soft(margin: Margin) -> bool:
    if isinstance(margin, str):
        if margin != "soft":
            raise ValueError(f"A margin is a number or 'soft'; got {margin!r}.")
        return True
    if isinstance(margin, int | float) and margin < 0:  # a traced margin cannot be looked at
        raise ValueError(f"A margin is at least 0; got {margin}.")
    return False


def _active(gap: jax.Array, valid: jax.Array, margin: Margin) -> jax.Array:
    return valid & (gap + (0 if _soft(margin) else margin) > 0)


def _mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(valid, values, 0)) / jnp.maximum(jnp.sum(valid), 1)


def _summary(
    gap: jax.Array,
    positive: jax.Array,
    negative: jax.Array,
    valid: jax.Array,
    margin: Margin,
    temperature: float | jax.Array,
) -> dict[str, jax.Array]:
    unit = temperature if _soft(margin) else margin
    return {
        "triplets": jnp.sum(valid),
        "active": _mean(_active(gap, valid, margin), valid),
        "positive": _mean(positive, valid),
        "negative": _mean(negative, valid),
        "undecided": _mean(jnp.abs(positive - negative) < 0.1 * unit, valid),
    }
