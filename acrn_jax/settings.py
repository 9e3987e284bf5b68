"""The config, parsed once: `read` makes frozen records of a ConfigDict, and nothing else sees one.

A key stands in configs/common.py, with its default and what it means, and in the record of the function that takes it,
with its rule (acrn_jax/rules.py): a loss constant in losses/objectives.py, one of an optimiser in train/optimizer.py,
one of a net among the fields of its module, whose default it takes where a config lacks it. What several places share
is here.
"""

import dataclasses
import difflib
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from flax import traverse_util

from acrn_jax import COMMAND, rules
from acrn_jax.data.transforms import Augment
from acrn_jax.evaluation import attributes, protocols
from acrn_jax.losses.mining import MINERS
from acrn_jax.losses.objectives import LossSettings
from acrn_jax.models import MODELS
from acrn_jax.models.pooling import NO_PARTS
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.rules import Count, CountOrZero, NotNegative, Positive, Rule, Share, number, one_of, several, whole
from acrn_jax.train.optimizer import Group

PHASES = (("mva",), ("identity",), ("reid",), ("identity", "reid"))
SECTIONS = ("attributes", "data", "evaluate", "loss", "model")  # which nothing does without
# Keys that older runs do not have, and what those runs did.
OLD_DEFAULTS = {
    "accumulate": 1, "ema": 0.0, "profile_steps": 0, "model.remat": False, "model.layout": "ours", "model.parts": 1,
    "model.last_stride": 2, "model.instance_norm": False, "data.augment.grey": 0.0, "data.augment.pad": 0,
    "reid.memory": 0, "reid.memory_after": 0, "mva.calibrate": "none", "mva.images_per_person": 0,
    "data.exclude_attributes": [], "data.people_part": "all",
    "data.batches": "mixed",
    "evaluate.draws": 10, "evaluate.draw_seed": 0, "evaluate.probe_view": "both",
}  # fmt: skip
PATHS = ("data.dir", "attributes.from", "init_from", "loss.attribute_weights_file")  # keys that name files or folders


@dataclasses.dataclass(frozen=True)
class Data:
    """The data set, and how its images reach the net."""

    dir: str | None  # missing ones have a sentence of their own
    name: str | None
    config: str
    train_split: str
    exclude_subsets: Annotated[tuple[str, ...], several(rules.TEXT)]
    exclude_attributes: Annotated[tuple[str, ...], several(rules.TEXT)]
    people_part: Annotated[str, one_of("all", "first_half", "second_half")]
    batches: Annotated[str, one_of("mixed", "one_set")]
    validation_identities: CountOrZero
    height: Count
    width: Count
    mean: Annotated[tuple[float, ...], several(number(0, most=1), 3)]
    deviation: Annotated[tuple[float, ...], several(number(above=0), 3)]
    threads: Count
    cache_mib: CountOrZero
    augment: Augment

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Size and normalisation that travel with a net, as JSON has them."""
        return {
            "height": self.height, "width": self.width, "mean": list(self.mean), "deviation": list(self.deviation)
        }  # fmt: skip


@dataclasses.dataclass(frozen=True)
class AttributeNet:
    """Which attribute net an ACRN takes, and what of its outputs."""

    from_: str | None
    representation: Annotated[str, one_of(*REPRESENTATIONS)]
    allow_overlap: bool


@dataclasses.dataclass(frozen=True)
class AttributePhase:
    """Phase mva: the training of an attribute net."""

    batch: Annotated[int, whole(2)]
    images_per_person: CountOrZero
    steps: CountOrZero
    epochs: NotNegative
    loss_weights: Annotated[str, one_of("wpal", "deepmar", "none")]
    reduction: Annotated[str, one_of("sum", "mean")]
    threshold: Share
    calibrate: Annotated[str, one_of("none", *attributes.TARGETS)]
    trunk: Group
    scratch: Group


@dataclasses.dataclass(frozen=True)
class IdentityPhase:
    """Phase identity: the classification of the training people, before triplets."""

    batch: Annotated[int, whole(2)]
    epochs: Positive
    smoothing: Share
    scratch: Group

    steps = 0  # from epochs


@dataclasses.dataclass(frozen=True)
class ReidPhase:
    """Phase reid: the training on triplets."""

    epochs: Positive
    miner: Annotated[str, one_of(*MINERS)]
    triplets: Count
    people: Annotated[int, whole(2)]
    images: Annotated[int, whole(2)]  # one image of a person has no positive
    memory: CountOrZero
    memory_after: CountOrZero
    scratch: Group
    attribute_weights: Group

    steps = 0  # from epochs

    @property
    def batch(self) -> int:
        """Images of a batch."""
        return 3 * self.triplets if self.miner == "offline" else self.people * self.images


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How a trained run is scored."""

    protocol: Annotated[str | None, rules.maybe(one_of(*protocols.PROTOCOLS))]
    no_match: Annotated[str, one_of("error", "skip", "count_as_miss")]
    draws: Count
    draw_seed: CountOrZero
    probe_view: Annotated[str, Rule(lambda value: str(value) in protocols.PROBE_VIEWS, "known: 1, 2, both")]
    batch: Count
    tune_identities: CountOrZero
    kissme_ridge: NotNegative
    kissme_project: bool
    kissme_pca: CountOrZero
    rank_lists: CountOrZero

    @property
    def kissme(self) -> dict[str, Any]:
        """Keyword arguments of kissme.fit."""
        return {"ridge": self.kissme_ridge, "project": self.kissme_project, "pca": self.kissme_pca or None}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A whole config. `tree` is the same as JSON has it, to be stored, compared and changed."""

    seed: Annotated[int, whole(0, 2**31 - 1)]
    phases: Annotated[
        tuple[str, ...],
        Rule(lambda v: isinstance(v, list | tuple) and tuple(v) in PHASES, f"known: {', '.join(map(str, PHASES))}"),
    ]
    init_from: str | None
    parallel: Annotated[str, one_of("jit", "pmap")]
    devices: CountOrZero
    dtype: Annotated[str, one_of("float32", "bfloat16")]
    accumulate: Count
    ema: Annotated[float, number(0, 1)]
    log_every: Count
    save_every: Count
    profile_steps: CountOrZero
    data: Data
    attributes: AttributeNet
    mva: AttributePhase
    identity: IdentityPhase
    reid: ReidPhase
    loss: LossSettings
    evaluate: Evaluation
    model: Any  # the net as a module of flax, but for what the data decide; its fields are the keys of config.model
    tree: Mapping[str, Any] = dataclasses.field(repr=False)

    @property
    def last_phase(self) -> str:
        return self.phases[-1]

    @property
    def model_name(self) -> str:
        return self.tree["model"]["name"]

    @property
    def of_attributes(self) -> bool:
        """Whether this trains an attribute net."""
        return self.last_phase == "mva"

    @property
    def of_acrn(self) -> bool:
        """Whether this trains an ACRN, which has weighted attributes in its distance."""
        return self.last_phase == "reid" and self.loss.kind == "acrn"

    def phase(self, name: str) -> AttributePhase | IdentityPhase | ReidPhase:
        return getattr(self, name)

    @functools.cached_property
    def flat(self) -> dict[str, Any]:
        """Dotted key -> value, as JSON has it."""
        return flat(self.tree)

    def changed(self, values: Mapping[str, Any]) -> "Settings":
        """These settings with dotted keys set; a mapping as value sets the keys below.

        Raises:
          ValueError: a key that the config does not have, the nearest named; a value that does not fit.
        """
        new = flat(values)
        for key, value in new.items():
            check_known(key, self.flat)
            if type(value) is int and isinstance(self.flat[key], float):
                new[key] = float(value)  # equal settings are one text, too: 1.0
        return read(traverse_util.unflatten_dict(self.flat | new, sep="."))


def flat(tree: Mapping[str, Any]) -> dict[str, Any]:
    """{"loss": {"gamma": 0.5}} -> {"loss.gamma": 0.5}, and lists for tuples, as in JSON."""
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in traverse_util.flatten_dict(dict(tree), sep=".").items()
    }


def check_known(name: str, table: Any, kind: str = "config key") -> None:
    """ValueError unless `name` is in `table`, with the nearest of the known names."""
    if name not in table:
        near = difflib.get_close_matches(name, map(str, table), n=1, cutoff=0.4)
        known = "" if near and len(table) > 40 else f" Known: {', '.join(map(str, table))}."
        raise ValueError(f"There is no {kind} {name!r};{f' did you mean {near[0]!r}?' if near else ''}{known}")


MODEL_NAME = {"model.name": one_of(*MODELS)}


@functools.cache
def all_rules(model: str | None = None) -> dict[str, Rule]:
    """Dotted key -> rule, of every key that there is; where several nets have a key, the one named `model` decides."""
    found = rules.of(Settings) | MODEL_NAME
    for name in (*MODELS, model) if model else MODELS:
        found |= rules.of(MODELS[name].module, "model.", plain={})
    return found


@functools.cache
def model_defaults(model: str) -> dict[str, Any]:
    """Dotted key -> default of every key that a net has; where several have one, the net named `model` decides."""
    found = {}
    for name in (*MODELS, model):
        module = MODELS[name].module
        own = rules.of(module, plain={})
        found |= {f"model.{f.name}": f.default for f in dataclasses.fields(module) if f.name in own}
    return {key: value for key, value in flat(found).items() if value is not dataclasses.MISSING}


def check_values(values: Mapping[str, Any]) -> None:
    """ValueError for the first value, by dotted key, that does not fit its rule."""
    rules.check(values, MODEL_NAME)
    rules.check(values, all_rules(values.get("model.name")))


def read(config: Any) -> Settings:
    """The records of a ConfigDict, or of a tree of plain values; keys of nets that it lacks take the nets' defaults.

    Raises:
      ValueError: a key that nothing takes, one that is missing, or a value that does not fit; it is named.
    """
    tree = config if isinstance(config, Mapping) else json.loads(config.to_json_best_effort())
    values = flat(tree)
    for key in values:
        check_known(key, all_rules())
    check_values(values)
    if "model.name" in values:
        values |= {key: v for key, v in model_defaults(values["model.name"]).items() if key not in values}
    if missing := sorted(all_rules().keys() - values.keys()):
        raise ValueError(f"config.{missing[0]} is missing; configs/common.py has it, with what it means.")
    tree = traverse_util.unflatten_dict(values, sep=".")
    module, keys = MODELS[tree["model"]["name"]].module, tree["model"]
    own = {name: tuple(v) if isinstance(v := keys[name], list) else v for name in rules.of(module, plain={})}
    record = rules.record(Settings, {k: v for k, v in tree.items() if k != "model"} | {"model": None, "tree": tree})
    return dataclasses.replace(record, model=module(**own), tree=tree)


def from_json(file: Path, tree: Mapping[str, Any]) -> Settings:
    """The settings in a run's config.json, with what older versions did for keys that they did not have.

    Raises:
      ValueError: `tree` is no config, or holds a value that does not fit; `file` is named.
    """
    if wrong := [name for name in SECTIONS if not isinstance(tree.get(name), dict)]:
        raise ValueError(f"{file}: {wrong[0]} is to be a JSON object of keys; bring the file back as it was.")
    values = {key: None if value == "" else value for key, value in flat(tree).items()}  # an old way to say None
    try:
        older = {key: value for key, value in OLD_DEFAULTS.items() if key not in values}
        return read(traverse_util.unflatten_dict(values | older, sep="."))
    except ValueError as error:
        raise ValueError(f"{file}: {error} Bring the file back as it was.") from error


def check(config: Settings) -> None:
    """Raises ValueError for keys that do not go together, which would only fail minutes later."""
    if not config.data.dir or not config.data.name:
        missing = "dir" if not config.data.dir else "name"
        raise ValueError(
            f"config.data.{missing} is not set; pass --config.data.{missing}=... ({COMMAND} prepare makes data)."
        )
    if config.data.augment.pad >= min(config.data.height, config.data.width):
        raise ValueError(
            f"config.data.augment.pad is {config.data.augment.pad}, so that a window of {config.data.height} x "
            f"{config.data.width} may show no image; take less than the smaller side."
        )
    if not set(config.phases) <= set(MODELS[config.model_name].phases):
        known = "; ".join(f"{name}: {' and '.join(model.phases)}" for name, model in MODELS.items())
        raise ValueError(
            f"config.phases is {config.phases} with model {config.model_name!r}; the phases of each model are {known}."
        )
    if config.of_attributes and not (config.mva.steps or config.mva.epochs):
        raise ValueError("config.mva.steps and config.mva.epochs are both 0; set one of them.")
    if getattr(config.model, "parts", 1) != 1 and config.model.head_pooling == "flatten":
        raise ValueError(NO_PARTS.format(parts=config.model.parts))
    if "reid" in config.phases and config.loss.soft and config.loss.reduction == "active_only":
        raise ValueError(
            "config.loss.soft leaves every triplet active, so config.loss.reduction=active_only means nothing there; "
            "change either."
        )
    if "reid" in config.phases and config.reid.memory:
        _check_memory(config.reid)
    if config.of_acrn:
        _check_acrn(config)


def _check_memory(reid: ReidPhase) -> None:
    if reid.miner != "batch_hard":
        raise ValueError(
            f"config.reid.memory is {reid.memory} with config.reid.miner {reid.miner}: batch_hard alone chooses from a "
            "memory; take that miner, or memory 0."
        )
    if reid.memory < reid.batch:
        raise ValueError(
            f"config.reid.memory is {reid.memory}, less than the {reid.batch} images of a batch; take more, or 0 for "
            "none."
        )


def _check_acrn(config: Settings) -> None:
    loss = config.loss
    if not config.attributes.from_:
        raise ValueError(
            "config.attributes.from is not set: L_acrn needs the workdir of a trained attribute net; pass "
            "--config.attributes.from=M (or --config.loss.kind=classic for the baseline)."
        )
    if (config.reid.miner == "offline") != (loss.attribute_miner == "offline"):
        raise ValueError(
            f"config.reid.miner is {config.reid.miner}, config.loss.attribute_miner {loss.attribute_miner}: "
            "either both are offline or none, since both losses see one batch."
        )
    if loss.attribute_weights == "given" and not loss.attribute_weights_file:
        raise ValueError("config.loss.attribute_weights=given wants config.loss.attribute_weights_file.")
    if loss.attribute_weights == "learned" and loss.weight_form == "unit_mean" and loss.distance == "cosine":
        raise ValueError(
            "config.loss.weight_form=unit_mean scales weights by their distances, and config.loss.distance=cosine "
            "knows no scale; change either."
        )


def differing(current: Mapping[str, Any], stored: Mapping[str, Any], may: Any = ()) -> list[str]:
    """Dotted keys of two flat configs whose values differ, but for the keys and sections ("evaluate") in `may`."""
    return [
        key
        for key in sorted(current.keys() | stored.keys())
        if current.get(key) != stored.get(key) and not is_in(key, may)
    ]


def is_in(key: str, known: Any) -> bool:
    """Whether a dotted key, or a section that it lies in, is among the `known` ones."""
    return any(key == name or key.startswith(f"{name}.") for name in known)


def told(keys: list[str], stored: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """The first of some keys that differ, with both values, for a message."""
    shown = "; ".join(f"{key} is {stored.get(key)!r} there, {current.get(key)!r} here" for key in keys[:5])
    return shown + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def steps_of(phase: AttributePhase | IdentityPhase | ReidPhase, per_epoch: int) -> int:
    """Steps of a phase with `per_epoch` batches an epoch."""
    return phase.steps or math.ceil(phase.epochs * per_epoch)
