"""What each key of configs/common.py may hold: one table, looked at before anything is read or written.

What keys must have in common, and with the data, is checked in build.py.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from acrn_jax.evaluation import attributes, protocols
from acrn_jax.losses.mining import MINERS
from acrn_jax.losses.weights import FORMS
from acrn_jax.models.acrn import FEATURE_NORMS
from acrn_jax.models.inception import LAYOUTS
from acrn_jax.models.mva import VIEWS
from acrn_jax.ops.distance import DISTANCES


class Rule(NamedTuple):
    """Of one key: whether a value fits, and the end of the sentence for one that does not."""

    fits: Callable[[Any], bool]
    wanted: str


def one_of(*names: Any) -> Rule:
    return Rule(lambda value: value in names, f"known: {', '.join(map(str, names))}")


def number(least: float = 0, below: float = math.inf, *, most: float = math.inf, above: float = -math.inf) -> Rule:
    """A finite number in [least, below), at most `most` and above `above`."""
    limits = [f"above {above:g}" if above > -math.inf else f"of at least {least:g}"]
    limits += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)

    def fits(value: Any) -> bool:
        return (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and least <= value < below
            and above < value <= most
            and math.isfinite(value)
        )

    return Rule(fits, f"it must be a number {' and '.join(limits)}")


def whole(least: int = 0, most: int | None = None) -> Rule:
    limit = f"of at least {least}" + (f" and at most {most}" if most else "")

    def fits(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= (most or math.inf)

    return Rule(fits, f"it must be a whole number {limit}")


def several(rule: Rule, count: int | None = None) -> Rule:
    """A list or tuple whose entries all fit."""

    def fits(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and all(map(rule.fits, value))
            and len(value) == (len(value) if count is None else count)
        )

    return Rule(fits, f"it must be a list{f' of {count}' if count else ''}; each entry: {rule.wanted}")


def maybe(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.fits(value), f"{rule.wanted} (or None)")


TEXT = Rule(lambda value: isinstance(value, str) and bool(value), "it must be a text")
FLAG = Rule(lambda value: isinstance(value, bool), "it must be True or False")
SHARE = number(0, most=1)
PHASES = (("mva",), ("identity",), ("reid",), ("identity", "reid"))


def _optimiser(group: str) -> dict[str, Rule]:
    return {
        f"{group}.kind": one_of("sgd", "adam", "adamw"),
        f"{group}.rate": number(),
        f"{group}.momentum": number(0, 1),
        f"{group}.decay": number(),
        f"{group}.schedule": one_of("staircase", "cosine", "constant"),
        f"{group}.every_epochs": number(),
        f"{group}.every_steps": whole(),
        f"{group}.factor": number(above=0),
        f"{group}.warmup_epochs": number(),
    }


RULES: dict[str, Rule] = {
    "seed": whole(0, 2**31 - 1),
    "phases": Rule(
        lambda value: isinstance(value, list | tuple) and tuple(value) in PHASES,
        f"known: {', '.join(map(str, PHASES))}",
    ),
    "init_from": maybe(TEXT),
    "parallel": one_of("jit", "pmap"),
    "devices": whole(),
    "dtype": one_of("float32", "bfloat16"),
    "accumulate": whole(1),
    "ema": number(0, 1),
    "log_every": whole(1),
    "save_every": whole(1),
    "profile_steps": whole(),
    "data.dir": maybe(TEXT),  # missing ones have a sentence of their own
    "data.name": maybe(TEXT),
    "data.config": TEXT,
    "data.train_split": TEXT,
    "data.exclude_subsets": several(TEXT),
    "data.validation_identities": whole(),
    "data.height": whole(1),
    "data.width": whole(1),
    "data.mean": several(SHARE, 3),
    "data.deviation": several(number(above=0), 3),
    "data.threads": whole(1),
    "data.cache_mib": whole(),
    "data.augment.enlarge": number(1),
    **{f"data.augment.{name}": SHARE for name in ("flip", "erase", "brightness", "contrast", "saturation")},
    "model.name": one_of("acrn", "mva"),
    "model.width": number(1 / 64),  # below, layers of a re-id net have no channels to add
    "model.feature_dim": whole(1),
    "model.feature_norm": one_of(*FEATURE_NORMS),
    "model.head_pooling": one_of("flatten", "average"),
    "model.residual_scale": number(),
    "model.remat": FLAG,
    "model.views": several(one_of(*VIEWS)),
    "model.branch_kernel": whole(1),
    "model.layout": one_of(*LAYOUTS),
    "model.dropout": number(0, 1),
    "attributes.from": maybe(TEXT),
    "attributes.representation": one_of("probabilities", "logits", "binary"),
    "attributes.allow_overlap": FLAG,
    "mva.batch": whole(2),
    "mva.steps": whole(),
    "mva.epochs": number(),
    "mva.loss_weights": one_of("wpal", "deepmar", "none"),
    "mva.reduction": one_of("sum", "mean"),
    "mva.threshold": SHARE,
    "mva.calibrate": one_of("none", *attributes.TARGETS),
    **_optimiser("mva.trunk"),
    **_optimiser("mva.scratch"),
    "identity.batch": whole(2),
    "identity.epochs": number(above=0),
    "identity.smoothing": SHARE,
    **_optimiser("identity.scratch"),
    "reid.epochs": number(above=0),
    "reid.miner": one_of(*MINERS),
    "reid.triplets": whole(1),
    "reid.people": whole(2),
    "reid.images": whole(2),  # one image of a person has no positive
    **_optimiser("reid.scratch"),
    **_optimiser("reid.attribute_weights"),
    "loss.kind": one_of("acrn", "classic"),
    "loss.gamma": number(),
    "loss.margin": number(),
    "loss.soft": FLAG,
    "loss.temperature": number(above=0),
    "loss.distance": one_of(*DISTANCES),
    "loss.distance_scale": one_of("raw", "unit_mean"),
    "loss.mine_on": one_of("feature", "combined"),
    "loss.reduction": one_of("mean", "active_only"),
    "loss.attribute_gradient": one_of("stop", "flow"),
    "loss.identity_weight": number(),
    "loss.smoothing": SHARE,
    "loss.attribute_margin": number(),
    "loss.attribute_miner": one_of(*MINERS),
    "loss.attribute_weights": one_of("learned", "uniform", "given"),
    "loss.attribute_weights_file": maybe(TEXT),
    "loss.weight_form": one_of(*FORMS),
    "evaluate.protocol": maybe(one_of(*protocols.PROTOCOLS)),
    "evaluate.no_match": one_of("error", "skip", "count_as_miss"),
    "evaluate.draws": whole(1),
    "evaluate.draw_seed": whole(),
    "evaluate.probe_view": Rule(lambda value: str(value) in protocols.PROBE_VIEWS, "known: 1, 2, both"),
    "evaluate.batch": whole(1),
    "evaluate.tune_identities": whole(),
    "evaluate.kissme_ridge": number(),
    "evaluate.kissme_project": FLAG,
    "evaluate.kissme_pca": whole(),
    "evaluate.rank_lists": whole(),
}


def check(values: Mapping[str, Any]) -> None:
    """ValueError for the first value, by dotted key, that does not fit its rule."""
    for key, rule in RULES.items():
        if key in values and not rule.fits(values[key]):
            raise ValueError(f"config.{key} is {values[key]!r}; {rule.wanted}.")
