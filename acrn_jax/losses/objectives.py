"""What each training phase minimises: (params, outputs, batch, scales) -> (loss, (scalars, scales)).

`make` functions take the phase's settings and return such a function; `batch` is the global batch without its images.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from acrn_jax.losses import attribute, identity, triplet, weights
from acrn_jax.losses.mining import MINERS

SCALE_MOMENTUM = 0.95  # of the running mean distances s_f and s_a


def make_attributes(*, positive_weight, negative_weight, reduction: str) -> Callable:
    """Weighted multi-label cross-entropy of the attribute net (method.md section 2)."""

    def objective(params, outputs, batch, scales):
        del params
        logits, labels = outputs.attribute_logits, batch["attributes"]
        each = attribute.weighted_cross_entropy(
            logits, labels, positive_weight=positive_weight, negative_weight=negative_weight, reduction=reduction
        )
        known = labels >= 0
        right = jnp.sum(((logits > 0) == (labels > 0)) & known) / jnp.maximum(jnp.sum(known), 1)
        return jnp.mean(each), ({"accuracy": right}, scales)

    return objective


def make_identity(*, smoothing: float) -> Callable:
    """Softmax cross-entropy over the training people (phase 1 of method.md section 5)."""

    def objective(params, outputs, batch, scales):
        del params
        logits = outputs.identity_logits
        each = identity.cross_entropy(logits, batch["person"], smoothing=smoothing)
        accuracy = jnp.mean((jnp.argmax(logits, axis=1) == batch["person"]).astype(jnp.float32))
        return jnp.mean(each), ({"accuracy": accuracy}, scales)

    return objective


def make_reid(
    *,
    kind: str,
    miner: str,
    mine_on: str,
    gamma: float,
    distance: str,
    distance_scale: str,
    margin,
    temperature: float,
    reduction: str,
    attribute_gradient: str,
    attribute_margin,
    attribute_miner: str,
    attribute_weights: str,
    weight_form: str,
    given=None,
    identity_weight: float = 0.0,
    smoothing: float = 0.0,
    neck: bool = False,
) -> Callable:
    """L_triplet (`kind` classic), or L_acrn + L_att (`kind` acrn), of method.md section 4.

    Args:
      kind: "classic" or "acrn".
      miner, attribute_miner: names in losses.mining.MINERS for the main loss and for L_att.
      mine_on: "feature" or "combined" distance, for kind acrn.
      gamma: influence of the attributes.
      distance: a name in ops.distance.DISTANCES.
      distance_scale: "raw", or "unit_mean": distances are divided by their running mean over pairs of the batch.
      margin, temperature, reduction, attribute_gradient: as in losses.triplet.acrn_loss.
      attribute_margin: m_att of L_att.
      attribute_weights: "learned", "uniform" (all 1) or "given" (the values in `given` [A]).
      weight_form: a name in losses.weights.FORMS, for learned weights.
      identity_weight: times softmax cross-entropy beside the triplets, 0 for the paper's loss.
      neck: ranking compares another feature than the one trained here. s_f then brings its distances to the size that
        the trained feature's have in the loss, so that gamma means the same at test: it is their running mean under
        `unit_mean`, which divides the trained ones by their mean in the batch, and under "raw" the running mean of the
        ratio of both.
    """

    def objective(params, outputs, batch, scales):
        f, person, a = outputs.trained_feature, batch["person"], batch.get("probabilities")
        measure = lambda x: triplet.mean_pair_distance(x, distance=distance)
        spread = measure(f)
        ranked = measure(outputs.feature) if neck and outputs.feature is not None else spread
        if distance_scale == "unit_mean":
            measured = {"feature": ranked} | ({"attribute": measure(a)} if kind == "acrn" else {})
        else:  # 1, unless ranked distances need to be brought to the size of the trained ones
            measured = {"feature": ranked / jnp.where(spread > 0, spread, jnp.inf)} if neck else {}
        scales = _moved(scales, measured)
        own = _divisor({"unit_mean": spread if neck else scales["feature"], "raw": 1.0}[distance_scale])
        shared = dict(distance=distance, temperature=temperature, reduction=reduction)
        if kind == "classic":
            table = triplet.mining_distance(f, mine_on="feature", distance=distance)
            loss, scalars = triplet.triplet_loss(f, MINERS[miner](table, person), scale=own, margin=margin, **shared)
        else:
            w = _weights(params, a, attribute_weights, weight_form, given, distance)
            scale = dict(scale_feature=own, scale_attribute=_divisor(scales["attribute"]))
            table = triplet.mining_distance(f, a, w, mine_on=mine_on, gamma=gamma, distance=distance, **scale)
            loss, scalars = triplet.acrn_loss(
                f,
                a,
                w,
                MINERS[miner](table, person),
                gamma=gamma,
                margin=margin,
                attribute_gradient=attribute_gradient,
                **scale,
                **shared,
            )
            if attribute_weights == "learned":
                table = triplet.mining_distance(None, a, w, mine_on="attribute", distance=distance)
                extra, parts = triplet.attribute_weight_loss(
                    a,
                    w,
                    MINERS[attribute_miner](table, person),
                    scale=scale["scale_attribute"],
                    margin=attribute_margin,
                    **shared,
                )
                loss = loss + extra
                scalars |= {f"attribute_{name}": value for name, value in parts.items()}
                scalars |= {"attribute_loss": extra, "weight_rms": jnp.sqrt(jnp.mean(jax.lax.stop_gradient(w) ** 2))}
        if identity_weight:
            each = identity.cross_entropy(outputs.identity_logits, person, smoothing=smoothing)
            loss = loss + identity_weight * jnp.mean(each)
            scalars["identity_loss"] = jnp.mean(each)
        scalars |= {"spread": spread, "scale_feature": scales["feature"], "scale_attribute": scales["attribute"]}
        return loss, (scalars, scales)

    return objective


def _weights(params, attributes, kind, form, given, distance):
    if kind == "learned":
        raw = params["attribute_weights"]["raw"]
        return weights.effective_weights(raw, form=form, attributes=attributes, distance=distance)
    return jnp.ones(attributes.shape[1]) if kind == "uniform" else jnp.asarray(given, jnp.float32)


def _moved(scales: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """Running means of what is measured, 1 for what is not.

    A batch of equal points (measured 0) says nothing and moves nothing; the first one that says something is the start.
    """

    def move(old, new):
        mean = jnp.where(old == 0, new, SCALE_MOMENTUM * old + (1 - SCALE_MOMENTUM) * new)
        return jnp.where(new == 0, old, mean)

    return {name: move(old, measured[name]) if name in measured else jnp.ones_like(old) for name, old in scales.items()}


def _divisor(scale: Any) -> jax.Array:
    """What distances are divided by: the scale, and 1 as long as there is none."""
    return jnp.where(scale == 0, 1.0, scale)
