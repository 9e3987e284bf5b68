"""What each training phase minimises: (params, outputs, batch, scales) -> (loss, (scalars, scales)).

Each is a record of the phase's settings that is called; `batch` is the global batch without its images.
"""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from acrn_jax.losses import attribute, identity, memory, triplet, weights
from acrn_jax.losses.mining import MINERS
from acrn_jax.ops.distance import DISTANCES
from acrn_jax.rules import NotNegative, Positive, Share, one_of

SCALE_MOMENTUM = 0.95  # of the running mean distances s_f and s_a


@dataclasses.dataclass(frozen=True)
class AttributeLoss:
    """Weighted multi-label cross-entropy of the attribute net (docs/method.md section 2)."""

    positive_weight: Any  # [A] of labels 1
    negative_weight: Any  # [A] of labels 0
    reduction: str  # over attributes: sum | mean

    def __call__(self, params, outputs, batch, scales):
        del params
        logits, labels = outputs.attribute_logits, batch["attributes"]
        each = attribute.weighted_cross_entropy(
            logits,
            labels,
            positive_weight=self.positive_weight,
            negative_weight=self.negative_weight,
            reduction=self.reduction,
        )
        known = labels >= 0
        right = jnp.sum(((logits > 0) == (labels > 0)) & known) / jnp.maximum(jnp.sum(known), 1)
        return jnp.mean(each), ({"accuracy": right}, scales)


@dataclasses.dataclass(frozen=True)
class IdentityLoss:
    """Softmax cross-entropy over the training people (phase 1 of docs/method.md section 5)."""

    smoothing: float

    def __call__(self, params, outputs, batch, scales):
        del params
        logits = outputs.identity_logits
        each = identity.cross_entropy(logits, batch["person"], smoothing=self.smoothing)
        accuracy = jnp.mean((jnp.argmax(logits, axis=1) == batch["person"]).astype(jnp.float32))
        return jnp.mean(each), ({"accuracy": accuracy}, scales)


@dataclasses.dataclass(frozen=True)
class LossSettings:
    """The keys of config.loss; what each means is told in configs/common.py."""

    kind: Annotated[str, one_of("acrn", "classic")]  # classic: L_triplet; acrn: L_acrn + L_att
    gamma: NotNegative
    margin: NotNegative
    soft: bool
    temperature: Positive
    distance: Annotated[str, one_of(*DISTANCES)]
    distance_scale: Annotated[str, one_of("raw", "unit_mean")]
    mine_on: Annotated[str, one_of("feature", "combined")]
    reduction: Annotated[str, one_of("mean", "active_only")]
    attribute_gradient: Annotated[str, one_of("stop", "flow")]
    identity_weight: NotNegative
    smoothing: Share
    attribute_margin: NotNegative
    attribute_miner: Annotated[str, one_of(*MINERS)]
    attribute_weights: Annotated[str, one_of("learned", "uniform", "given")]
    attribute_weights_file: str | None
    weight_form: Annotated[str, one_of(*weights.FORMS)]

    @property
    def learns_weights(self) -> bool:
        """Whether attribute weights are trained."""
        return self.kind == "acrn" and self.attribute_weights == "learned"


@dataclasses.dataclass(frozen=True)
class ReidLoss:
    """L_triplet, or L_acrn + L_att, of docs/method.md section 4.

    With `neck`, ranking compares another feature than the one trained here. s_f then brings its distances to the size
    that the trained feature's have in the loss, so that gamma means the same at test: it is their running mean under
    `unit_mean`, which divides the trained ones by their mean in the batch, and under "raw" the running mean of the
    ratio of both.
    """

    settings: LossSettings
    miner: str  # of the main loss, in losses.mining.MINERS
    neck: bool = False
    given: Any = None  # [A] attribute weights, where these are given
    memory_after: int = 0  # steps before the miner sees scales["memory"] (losses/memory.py), if that is there

    def __call__(self, params, outputs, batch, scales):
        s, f, person, a = self.settings, outputs.trained_feature, batch["person"], batch.get("probabilities")
        kept, scales = scales.get("memory"), {name: scale for name, scale in scales.items() if name != "memory"}
        spread = triplet.mean_pair_distance(f, distance=s.distance)
        scales = _moved(scales, self._measured(outputs, spread, a))
        own = _divisor({"unit_mean": spread if self.neck else scales["feature"], "raw": 1.0}[s.distance_scale])
        loss, scalars = (
            self._classic(f, person, own, kept)
            if s.kind == "classic"
            else self._acrn(
                f,
                a,
                person,
                self._weights(params, a),
                {"scale_feature": own, "scale_attribute": _divisor(scales["attribute"])},
                kept,
            )
        )
        if s.identity_weight:
            each = identity.cross_entropy(outputs.identity_logits, person, smoothing=s.smoothing)
            loss = loss + s.identity_weight * jnp.mean(each)
            scalars["identity_loss"] = jnp.mean(each)
        scalars |= {"spread": spread, "scale_feature": scales["feature"], "scale_attribute": scales["attribute"]}
        if kept is not None:
            scales |= {"memory": memory.stored(kept, f, person, a)}
        return loss, (scalars, scales)

    def _measured(self, outputs, spread, a):
        """What moves the scales: mean distances, or ratios of such."""
        s = self.settings
        ranked = spread
        if self.neck and outputs.feature is not None:
            ranked = triplet.mean_pair_distance(outputs.feature, distance=s.distance)
        if s.distance_scale == "unit_mean":
            attributes = {"attribute": triplet.mean_pair_distance(a, distance=s.distance)} if s.kind == "acrn" else {}
            return {"feature": ranked} | attributes
        # 1, unless ranked distances need to be brought to the size of the trained ones
        return {"feature": ranked / jnp.where(spread > 0, spread, jnp.inf)} if self.neck else {}

    def _classic(self, f, person, scale, kept):
        s = self.settings
        rows, persons, _ = self._candidates(kept, f, person, None)
        table = triplet.mining_distance(rows, mine_on="feature", distance=s.distance, anchors=len(f))
        margin = "soft" if s.soft else s.margin
        return triplet.triplet_loss(rows, self._mined(table, persons), scale=scale, margin=margin, **self._shared)

    def _candidates(self, kept, f, person, a):
        """Features, persons and attributes that the miner sees: the batch's, and what is in the memory."""
        return (f, person, a) if kept is None else memory.beside(kept, f, person, a, after=self.memory_after)

    def _mined(self, table, persons):
        if len(persons) > len(table):  # where the memory is empty nobody is a negative either
            table = jnp.where(persons == memory.EMPTY, jnp.inf, table)
        return MINERS[self.miner](table, persons)

    def _acrn(self, f, a, person, w, scale, kept):
        s, mining = self.settings, {"mine_on": self.settings.mine_on, "anchors": len(f)}
        rows, persons, attributes = self._candidates(kept, f, person, a)
        table = triplet.mining_distance(rows, attributes, w, gamma=s.gamma, distance=s.distance, **mining, **scale)
        loss, scalars = triplet.acrn_loss(
            rows,
            attributes,
            w,
            self._mined(table, persons),
            gamma=s.gamma,
            margin="soft" if s.soft else s.margin,
            attribute_gradient=s.attribute_gradient,
            **scale,
            **self._shared,
        )
        if not s.learns_weights:
            return loss, scalars
        table = triplet.mining_distance(None, a, w, mine_on="attribute", distance=s.distance)
        extra, parts = triplet.attribute_weight_loss(
            a,
            w,
            MINERS[s.attribute_miner](table, person),
            scale=scale["scale_attribute"],
            margin="soft" if s.soft else s.attribute_margin,
            **self._shared,
        )
        scalars |= {f"attribute_{name}": value for name, value in parts.items()}
        scalars |= {"attribute_loss": extra, "weight_rms": jnp.sqrt(jnp.mean(jax.lax.stop_gradient(w) ** 2))}
        return loss + extra, scalars

    @property
    def _shared(self):
        s = self.settings
        return {"distance": s.distance, "temperature": s.temperature, "reduction": s.reduction}

    def _weights(self, params, attributes):
        s = self.settings
        if s.learns_weights:
            raw = params["attribute_weights"]["raw"]
            return weights.effective_weights(raw, form=s.weight_form, attributes=attributes, distance=s.distance)
        if s.kind != "acrn":
            return None
        return (
            jnp.ones(attributes.shape[1]) if s.attribute_weights == "uniform" else jnp.asarray(self.given, jnp.float32)
        )


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
