"""Composition root: the only reader of the config. Below it functions take plain keyword arguments."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from acrn_jax import files, phases, rules
from acrn_jax.data import pipeline, sampler, source, transforms
from acrn_jax.losses import objectives
from acrn_jax.losses.attribute import class_weights
from acrn_jax.losses.weights import initial_weights
from acrn_jax.models import acrn, initialize, mva, pretrained
from acrn_jax.train import loop, optimizer, parallel, step
from acrn_jax.train import state as states

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}
REPRESENTATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # of attribute logits [N, A]
    "probabilities": lambda logits: (0.5 * (1 + np.tanh(logits / 2))).astype(np.float32),
    "logits": lambda logits: logits.astype(np.float32),
    "binary": lambda logits: (logits > 0).astype(np.float32),
}


def lookup(table, name: str, key: str):
    """`table[name]`, or a ValueError that lists the choices for the config's `key`."""
    if name not in table:
        raise ValueError(f"config.{key} is {name!r}; known: {', '.join(map(str, table))}.")
    return table[name]


def check(config: Any) -> None:
    """Raises ValueError for settings that would only fail minutes later: of one key (rules.py), and of several."""
    rules.check(traverse_util.flatten_dict(config.to_dict(), sep="."))
    if not config.data.dir or not config.data.name:
        missing = "dir" if not config.data.dir else "name"
        raise ValueError(
            f"config.data.{missing} is not set; pass --config.data.{missing}=... (./launch.sh prepare makes data)."
        )
    wanted = "mva" if "mva" in config.phases else "acrn"
    if config.model.name != wanted:
        raise ValueError(
            f"config.phases is {tuple(config.phases)} with model {config.model.name!r}; an attribute net has phases "
            "('mva',) and model mva, a re-id net ('identity', 'reid') and model acrn."
        )
    if "mva" in config.phases and not (config.mva.steps or config.mva.epochs):
        raise ValueError("config.mva.steps and config.mva.epochs are both 0; set one of them.")
    loss = config.loss
    if "reid" in config.phases and loss.soft and loss.reduction == "active_only":
        raise ValueError(
            "config.loss.soft leaves every triplet active, so config.loss.reduction=active_only means nothing there; "
            "change either."
        )
    if "reid" in config.phases and loss.kind == "acrn":
        if not config.attributes["from"]:
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
    if config.parallel == "pmap" and jax.process_count() > 1:
        raise ValueError(
            f"config.parallel=pmap drives the devices of one process, this run has {jax.process_count()}; "
            "use --config.parallel=jit, which trains the same."
        )
    for phase in config.phases:
        rows = batch_rows(config, phase)
        count = len(devices(config))
        if rows % count:
            who = f"{count} devices" + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")
            raise ValueError(f"Phase {phase} has batches of {rows} images, which {who} do not divide; change either.")
        if rows % (count * config.accumulate):
            raise ValueError(
                f"config.accumulate is {config.accumulate}, which does not divide the {rows // count} images a device "
                f"of a batch of phase {phase}; change either."
            )


def check_images(config: Any, split: source.Split) -> None:
    """Raises ValueError for batches that the images to train on cannot fill: of a re-id run, or of an attribute net."""
    _, count = np.unique(split.person_id, return_counts=True)
    pairs = count[count > 1].sum() if "reid" in config.phases else len(split)
    if not pairs:
        raise ValueError(f"Nobody has two images in {split.name}, and triplets want two images of a person.")
    for phase in config.phases:
        mined = phase == "reid" and config.reid.miner != "offline"
        offline = phase == "reid" and not mined
        key = "reid.people" if mined else "reid.triplets" if offline else f"{phase}.batch"
        there, what = (len(count), "people") if mined else (pairs if offline else len(split), "images")
        wanted = config[phase][key.split(".")[1]]
        if wanted > there:
            raise ValueError(
                f"config.{key} is {wanted}, but there are {there} {what} to train on in {split.name}"
                f"{_held_out(config)}; ask for at most {there}."
            )


def _held_out(config):
    held = config.data.validation_identities
    return f" ({held} more people are held out: config.data.validation_identities)" if held else ""


def devices(config: Any) -> list[Any]:
    """The devices that a run uses, those of one process side by side."""
    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if config.devices > len(found):
        raise ValueError(f"config.devices is {config.devices}, this machine shows {len(found)}.")
    if 0 < config.devices < len(found) and jax.process_count() > 1:
        raise ValueError(
            f"config.devices is {config.devices}, but {jax.process_count()} processes bring {len(found)} devices and "
            "all must take part; leave it at 0, and start fewer processes or show them fewer devices."
        )
    return found[: config.devices or len(found)]


def batch_rows(config: Any, phase: str) -> int:
    """Images of a global batch."""
    if phase != "reid":
        return config[phase].batch
    return 3 * config.reid.triplets if config.reid.miner == "offline" else config.reid.people * config.reid.images


# Data


def open_split(config: Any, name: str) -> source.Split:
    """Split `name` of the config's data set, or several joined: "train+val"."""
    data = config.data
    return source.join([source.open_split(data.dir, data.name, data.config, part) for part in name.split("+")])


def data_input(config: Any) -> dict[str, str]:
    """The prepared training split as an input of a phase (see phases.py), as it lies there now."""
    data, splits = config.data, config.data.train_split.split("+")
    found = source.fingerprint(data.dir, data.name, data.config, splits)
    return phases.entry(f"{data.name}/{data.config}/{data.train_split}", found, path=data.dir)


def start_input(init_from: str | Path) -> dict[str, str]:
    """What a phase starts from as an input of it: a phase's trained values, or a file's bytes."""
    path = Path(init_from)
    if path.is_file():
        return phases.entry(path, files.sha256(path), path=path)
    return phases.entry(path, phases.fingerprint(_phase(path)), path=path)


def reid_splits(config: Any) -> tuple[source.Split, source.Split | None]:
    """Training images, and those of the people held out for choosing (None if none are)."""
    whole = open_split(config, config.data.train_split)
    whole = whole.take(whole.person_id > 0)
    if not config.data.validation_identities:
        return whole, None
    people = len(np.unique(whole.person_id))
    if config.data.validation_identities > people - 2:
        raise ValueError(
            f"config.data.validation_identities is {config.data.validation_identities}, and {whole.name} has {people} "
            "people; at least two must be left to train on."
        )
    held = sampler.validation_identities(whole.person_id, count=config.data.validation_identities, seed=config.seed)
    return whole.take(~held), whole.take(held)


def attribute_split(config: Any) -> source.Split:
    """Training images of the attribute net, without the sub-sets left out."""
    split = open_split(config, config.data.train_split)
    subsets = np.array([name.split("/")[0] for name in split.file_name])
    unknown = set(config.data.exclude_subsets) - set(subsets)
    if unknown:
        raise ValueError(
            f"config.data.exclude_subsets names {', '.join(sorted(unknown))}, which {split.name} does not hold; "
            f"it has {', '.join(sorted(set(subsets))[:12])}."
        )
    return split.take(~np.isin(subsets, list(config.data.exclude_subsets))) if config.data.exclude_subsets else split


def training_split(config: Any) -> source.Split:
    """The images that a run's last phase trains on."""
    return attribute_split(config) if "mva" in config.phases else reid_splits(config)[0]


def preprocessing(config: Any) -> dict[str, Any]:
    """Size and normalisation that travel with a net."""
    return {name: config.data[name] for name in ("height", "width", "mean", "deviation")}


def epoch_plan(config: Any, split: source.Split, phase: str) -> Callable[[int], np.ndarray]:
    """Epoch -> record numbers of its batches, int64 [batches, rows]; method.md section 5."""
    if phase != "reid":
        return functools.partial(_shuffle, len(split), batch_rows(config, phase), config.seed)
    if config.reid.miner == "offline":
        return functools.partial(_triplets, split.person_id, split.camera_id, config.reid.triplets, config.seed)
    return functools.partial(_identities, split.person_id, config.reid.people, config.reid.images, config.seed)


def batches(config: Any, split: source.Split, phase: str, columns: dict[str, np.ndarray], steps: int):
    """First step -> iterator of training batches."""
    rows, plan = batch_rows(config, phase), epoch_plan(config, split, phase)
    per_epoch = len(plan(0))

    def start(first: int):
        return pipeline.train_batches(
            split,
            plan,
            height=config.data.height,
            width=config.data.width,
            seed=config.seed,
            augment=transforms.Augment(**config.data.augment),
            columns=columns,
            first_step=first,
            steps=steps,
            share=parallel.share(rows, devices(config)),
            threads=config.data.threads,
            cache_bytes=config.data.cache_mib * 2**20,
        )

    return start, per_epoch


def _shuffle(n, rows, seed, epoch):
    return sampler.shuffle_plan(n, batch=rows, seed=seed, epoch=epoch)


def _triplets(person_id, camera_id, triplets, seed, epoch):
    return sampler.triplet_plan(person_id, camera_id, batch=triplets, seed=seed, epoch=epoch)


def _identities(person_id, people, images, seed, epoch):
    return sampler.identity_plan(person_id, p=people, k=images, seed=seed, epoch=epoch)


# Nets


def net(config: Any, *, attributes: int = 0, people: int | None = None, axis_name: str | None = None):
    """The module that the config describes."""
    m = config.model
    shared = {"axis_name": axis_name, "dtype": DTYPES[config.dtype], "width": m.width, "remat": m.get("remat", False)}
    if m.name == "mva":
        return mva.MVA(
            attributes,
            views=tuple(m.views),
            branch_kernel=m.branch_kernel,
            dropout=m.dropout,
            layout=m.get("layout", "ours"),  # runs from before it was a key have none
            mean=tuple(config.data.mean),
            deviation=tuple(config.data.deviation),
            **shared,
        )
    return acrn.ACRN(
        people,
        feature_dim=m.feature_dim,
        feature_norm=m.feature_norm,
        head_pooling=m.head_pooling,
        residual_scale=m.residual_scale,
        **shared,
    )


def first_variables(
    config: Any, module: Any, init_from: str | Path | None, *, same_people: bool = False
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Variables to start a phase from, and a report of where they come from (None if all are drawn).

    `init_from` is another run's phase, from which everything but the classifier must be had, or a file of ImageNet
    weights for the trunk of MVA. The classifier is taken too where it is there and of the `same_people`; of attributes,
    the last layer where its shape fits.
    """
    fresh = initialize.variables(module, height=config.data.height, width=config.data.width, seed=config.seed)
    if not init_from:
        return fresh, None
    own: dict[str, Any] = dict(traverse_util.flatten_dict(fresh, sep="/"))
    path = Path(init_from)
    if path.is_file():
        if config.model.name != "mva":
            raise ValueError(
                f"config.init_from is the file {path}: ImageNet weights fit the trunk of model mva alone; "
                f"{config.model.name} starts from scratch or from another run's phase (a folder)."
            )
        trunk = {name: leaf.shape for name, leaf in own.items() if _part(name) == "trunk"}
        source, found, dropped = pretrained.load(path, trunk, layout=config.model.get("layout", "ours"))
        new, digest = own.keys() - found.keys(), start_input(path)["fingerprint"]
    else:
        saved = phases.load(_phase(path))
        source, found, digest = "run", _variables(saved), phases.fingerprint_of(saved)
        fits = {n for n, leaf in own.items() if n in found and found[n].shape == leaf.shape}
        new = {n for n in own if _part(n) == "classifier" and not (same_people and n in fits)}
        new |= {n for n in own if _part(n) == "attributes" and n in found and n not in fits}
        for name in sorted(own.keys() - new):
            shape = found[name].shape if name in found else "nothing"
            if shape != own[name].shape:
                raise ValueError(
                    f"{init_from} cannot start this net: {name} wants {own[name].shape}, found {shape}; "
                    "use a run with the same config.model and image size."
                )
        dropped = _by_part(found.keys() - own.keys())
    taken = own.keys() - new
    values = {name: found[name] if name in taken else leaf for name, leaf in own.items()}
    report = {"from": str(init_from), "source": source, "sha256": digest}
    report |= {"taken": _by_part(taken), "new": _by_part(new), "dropped": dropped}
    return traverse_util.unflatten_dict(values, sep="/"), report


def describe_start(report: dict[str, Any]) -> str:
    """One line about a report of `first_variables`."""
    counts = []
    for what in ("taken", "new", "dropped"):
        names = report[what]
        counts.append(f"{sum(map(len, names.values()))} {what} ({', '.join(names) or 'none'})")
    return f"start from {report['from']} ({report['source']}): {', '.join(counts)}."


def _phase(path: Path) -> Path:
    """The folder, if it is a phase's."""
    if not (path / "checkpoints").is_dir():
        found = sorted(str(p.parent) for p in path.glob("*/checkpoints"))
        known = f"name one of its phases: {', '.join(found)}" if found else "it wants a phase's folder (R/identity)"
        raise FileNotFoundError(f"config.init_from is {path}, neither a file of weights nor a phase; {known}.")
    return path


def _variables(saved: dict[str, Any]) -> dict[str, Any]:
    """Variables of a stored state, by name."""
    params = optimizer.final_params(saved)["net"]
    return dict(traverse_util.flatten_dict({"params": params, "batch_stats": saved["batch_stats"]}, sep="/"))


def _part(name):
    return name.split("/")[1]  # params/trunk/conv1/... is of the trunk


def _by_part(names):
    return {part: sorted(n for n in names if _part(n) == part) for part in sorted({_part(n) for n in names})}


def train_phase(
    config: Any,
    phase: str,
    folder: Path,
    split: source.Split,
    *,
    columns: dict[str, np.ndarray],
    objective: Callable,
    variables: dict[str, Any],
    module: Callable[[str | None], Any],
    attribute_weights: Any = None,
    attribute_names: tuple[str, ...] = (),
) -> states.State:
    """Trains one phase to its end in `folder` (or goes on there) and returns its last state."""
    _, per_epoch = batches(config, split, phase, columns, steps=2**40)
    groups = ("trunk", "scratch", *(() if attribute_weights is None else ("attribute_weights",)))
    steps, tx, rates = optimisation(config, phase, per_epoch, groups)
    start, _ = batches(config, split, phase, columns, steps=steps)
    axis_name = "data" if config.parallel == "pmap" else None
    runner = step.WRAPPERS[config.parallel](
        functools.partial(
            step.train_step,
            apply=module(axis_name).apply,
            objective=objective,
            tx=tx,
            mean=np.asarray(config.data.mean, np.float32),
            deviation=np.asarray(config.data.deviation, np.float32),
            seed=config.seed,
            parts=config.accumulate,
        ),
        devices(config),
    )
    print(f"{phase}: {len(split)} images of {split.name}, {steps} steps of {batch_rows(config, phase)}", flush=True)
    return loop.fit(
        runner.place(states.create(variables, tx, attribute_weights=attribute_weights)),
        name=phase,
        folder=folder,
        run=runner.run,
        put=runner.put,
        batches=start,
        steps=steps,
        rate=rates["scratch"],
        log_every=config.log_every,
        save_every=config.save_every,
        parts=config.accumulate,
        profile_steps=config.profile_steps,
        epoch=per_epoch,
        extra=functools.partial(_named_weights, attribute_names) if attribute_weights is not None else lambda state: {},
    )


def optimisation(
    config: Any, phase: str, per_epoch: int, groups: tuple[str, ...]
) -> tuple[int, Any, dict[str, Callable[[int], Any]]]:
    """(steps of a phase, optimiser of those `groups` that it has, group -> learning rate as a function of the step)."""
    settings = config[phase]
    steps = _steps(settings, per_epoch)
    rates = {group: _rate(settings[group], steps, per_epoch) for group in groups if group in settings}
    made = {
        group: {name: settings[group][name] for name in ("kind", "momentum", "decay")} | {"rate": rate}
        for group, rate in rates.items()
    }
    if "attribute_weights" in made:
        made["attribute_weights"]["nonnegative"] = config.loss.weight_form == "nonnegative"
    tx = optimizer.make(made)
    return steps, optimizer.averaged(tx, config.ema) if config.ema else tx, rates


def planned_steps(config: Any, phase: str, split: source.Split) -> int:
    """How many steps a phase takes on the images that it trains on."""
    return _steps(config[phase], len(epoch_plan(config, split, phase)(0)))


def _steps(settings, per_epoch):
    return settings.get("steps", 0) or math.ceil(settings.epochs * per_epoch)


def _named_weights(names, state):
    return {
        f"weight/{n}": float(w)
        for n, w in zip(names, jax.device_get(state.params["attribute_weights"]["raw"]), strict=True)
    }


def _rate(settings, steps, per_epoch):
    return optimizer.schedule(
        settings.schedule,
        rate=settings.rate,
        steps=steps,
        every=settings.every_steps or round(settings.every_epochs * per_epoch) or steps,
        factor=settings.factor,
        warmup=round(settings.warmup_epochs * per_epoch),
    )


def attribute_objective(config: Any, split: source.Split) -> Callable:
    """L_attr with weights from the training split's shares of positives, unknown labels left out."""
    known = split.attributes >= 0
    ratio = (split.attributes == 1).sum(0) / np.maximum(known.sum(0), 1)
    positive, negative = class_weights(ratio, scheme=config.mva.loss_weights, names=split.attribute_names)
    return objectives.make_attributes(
        positive_weight=positive, negative_weight=negative, reduction=config.mva.reduction
    )


def reid_objective(config: Any, names: tuple[str, ...], **constants: Any) -> tuple[Callable, Any]:
    """(objective of phase reid, first raw attribute weights or None).

    Args:
      names: [A] attributes of the attribute net.
      constants: gamma, margin or attribute_margin instead of the config's; traced values will do.
    """
    loss = config.loss
    learned = loss.kind == "acrn" and loss.attribute_weights == "learned"
    constants = {
        "gamma": loss.gamma,
        "margin": "soft" if loss.soft else loss.margin,
        "attribute_margin": "soft" if loss.soft else loss.attribute_margin,
    } | constants
    objective = objectives.make_reid(
        kind=loss.kind,
        miner=config.reid.miner,
        mine_on=loss.mine_on,
        distance=loss.distance,
        distance_scale=loss.distance_scale,
        temperature=loss.temperature,
        reduction=loss.reduction,
        attribute_gradient=loss.attribute_gradient,
        attribute_miner=loss.attribute_miner,
        attribute_weights=loss.attribute_weights,
        weight_form=loss.weight_form,
        given=given_weights(config, names) if loss.attribute_weights == "given" else None,
        identity_weight=loss.identity_weight,
        smoothing=loss.smoothing,
        neck=config.model.feature_norm == "bnneck",
        **constants,
    )
    return objective, initial_weights(len(names), loss.weight_form) if learned else None


def given_weights(config: Any, names: tuple[str, ...]) -> np.ndarray:
    """[A] weights of a JSON file {attribute name: weight}, in the attribute net's order."""
    file = Path(config.loss.attribute_weights_file)
    wanted = f"config.loss.attribute_weights_file is {file}, which must be JSON {{attribute name: weight}}"
    try:
        table = json.loads(file.read_text())
    except ValueError as error:
        raise ValueError(f"{wanted}: {error}.") from error
    numbers = isinstance(table, dict) and [isinstance(w, int | float) and math.isfinite(w) for w in table.values()]
    if not numbers or not all(numbers):
        raise ValueError(f"{wanted}, each weight a finite number.")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(
            f"{file} gives no weight for {', '.join(missing[:5])}; it must name all {len(names)} attributes."
        )
    return np.array([table[name] for name in names], np.float32)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A net out of a workdir, ready to be applied."""

    module: Any
    variables: dict[str, Any]
    preprocessing: dict[str, Any]
    state: dict[str, Any]  # everything that its checkpoint holds


def trained(config: Any, folder: Path, *, attributes: int = 0, unfinished: bool = False) -> Trained:
    """The net of a finished phase, or with `unfinished` of one that may not be; see `phases.load`."""
    state = phases.load(folder, unfinished=unfinished)
    variables = {"params": optimizer.final_params(state)["net"], "batch_stats": state["batch_stats"]}
    people = variables["params"]["classifier"]["bias"].size if "classifier" in variables["params"] else None
    return Trained(net(config, attributes=attributes, people=people), variables, preprocessing(config), state)
