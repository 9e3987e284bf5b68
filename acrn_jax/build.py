"""Composition root: from settings to data, batches, net, objective, optimiser and a trained phase.

Below it functions take plain keyword arguments.
"""

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

from acrn_jax import settings
from acrn_jax.data import pipeline, sampler, source
from acrn_jax.losses import memory, objectives
from acrn_jax.losses.attribute import class_weights
from acrn_jax.losses.weights import initial_weights
from acrn_jax.models import MODELS
from acrn_jax.settings import Settings
from acrn_jax.train import loop, optimizer, parallel, step
from acrn_jax.train import state as states

DTYPES = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}


def check(config: Settings) -> None:
    """Raises ValueError for settings that do not go together, or not with this machine's devices."""
    settings.check(config)
    if config.parallel == "pmap" and jax.process_count() > 1:
        raise ValueError(
            f"config.parallel=pmap drives the devices of one process, this run has {jax.process_count()}; "
            "use --config.parallel=jit, which trains the same."
        )
    for phase in config.phases:
        rows, count = config.phase(phase).batch, len(devices(config))
        if rows % count:
            who = f"{count} devices" + (f" of {jax.process_count()} processes" if jax.process_count() > 1 else "")
            raise ValueError(f"Phase {phase} has batches of {rows} images, which {who} do not divide; change either.")
        if rows % (count * config.accumulate):
            raise ValueError(
                f"config.accumulate is {config.accumulate}, which does not divide the {rows // count} images a device "
                f"of a batch of phase {phase}; change either."
            )


def check_images(config: Settings, split: source.Split) -> None:
    """Raises ValueError for batches that the images to train on cannot fill: of a re-id run, or of an attribute net."""
    parts = source.parts(split) if config.data.batches == "one_set" and "parts" in split.metadata else [("", split)]
    for _, part in parts:
        _check_part(config, part)


def _check_part(config, split):
    _, count = np.unique(split.person_id, return_counts=True)
    pairs = count[count > 1].sum() if "reid" in config.phases else len(split)
    if not pairs:
        raise ValueError(f"Nobody has two images in {split.name}, and triplets want two images of a person.")
    shown = round(sampler.draws(split.person_id, config.mva.images_per_person if config.of_attributes else 0).sum())
    for phase in config.phases:
        mined = phase == "reid" and config.reid.miner != "offline"
        offline = phase == "reid" and not mined
        key = "reid.people" if mined else "reid.triplets" if offline else f"{phase}.batch"
        there, what = (len(count), "people") if mined else (pairs if offline else shown, "images")
        wanted = getattr(config.phase(phase), key.split(".")[1])
        if wanted > there:
            raise ValueError(
                f"config.{key} is {wanted}, but there are {there} {what} to train on in {split.name}"
                f"{_held_out(config)}; ask for at most {there}."
            )


def _held_out(config):
    held = config.data.validation_identities
    return f" ({held} more people are held out: config.data.validation_identities)" if held else ""


def devices(config: Settings) -> list[Any]:
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


# Data


def open_split(config: Settings, name: str) -> source.Split:
    """Split `name` of the config's data set, or several joined: "train+val"."""
    data = config.data
    return source.join([source.open_split(data.dir, data.name, data.config, part) for part in name.split("+")])


def reid_splits(config: Settings) -> tuple[source.Split, source.Split | None]:
    """Training images, and those of the people held out for choosing (None if none are)."""
    whole = open_split(config, config.data.train_split)
    whole = _half(config, whole.take(whole.person_id > 0))
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


def attribute_split(config: Settings) -> source.Split:
    """Training images of the attribute net, without the sub-sets, attributes and people left out."""
    split = open_split(config, config.data.train_split)
    folder = 2 if config.data.name == source.MIXTURE else 0  # behind the name and config of the part
    subsets = np.array([name.split("/")[folder] for name in split.file_name])
    unknown = set(config.data.exclude_subsets) - set(subsets)
    if unknown:
        raise ValueError(
            f"config.data.exclude_subsets names {', '.join(sorted(unknown))}, which {split.name} does not hold; "
            f"it has {', '.join(sorted(set(subsets))[:12])}."
        )
    if config.data.exclude_subsets:
        split = split.take(~np.isin(subsets, list(config.data.exclude_subsets)))
    return _half(config, _without_attributes(split, config.data.exclude_attributes))


def _half(config: Settings, split: source.Split) -> source.Split:
    """The part of a split that config.data.people_part names."""
    part = config.data.people_part
    return split if part == "all" else split.take(sampler.half_of_people(split.person_id, part))


def _without_attributes(split: source.Split, names: tuple[str, ...]) -> source.Split:
    for name in names:
        settings.check_known(name, split.attribute_names, f"attribute of {split.name} (config.data.exclude_attributes)")
    kept = tuple(name for name in split.attribute_names if name not in names)
    return dataclasses.replace(split, attributes=split.attributes_of(kept), attribute_names=kept) if names else split


def recognition_splits(config: Settings) -> tuple[str, ...]:
    """Names of the splits that attribute nets are scored on: test, or query and gallery where there is no test."""
    data = config.data
    return ("test",) if "test" in source.splits(data.dir, data.name, data.config) else ("query", "gallery")


def has_test(config: Settings) -> bool:
    """Whether the config's data set has images to score on; a mixture has none."""
    data = config.data
    return set(recognition_splits(config)) <= set(source.splits(data.dir, data.name, data.config))


def recognition_split(config: Settings, name: str | None = None) -> source.Split:
    """What an attribute net is scored on: split `name`, or `recognition_splits`; of query and gallery the people."""
    parts = (name,) if name else recognition_splits(config)
    split = open_split(config, "+".join(parts))
    return split.take(split.person_id > 0) if parts == ("query", "gallery") else split


def training_split(config: Settings) -> source.Split:
    """The images that a run's last phase trains on."""
    return attribute_split(config) if config.of_attributes else reid_splits(config)[0]


def epoch_plan(config: Settings, split: source.Split, phase: str) -> Callable[[int], np.ndarray]:
    """Epoch -> record numbers of its batches, int64 [batches, rows]; docs/method.md section 5."""
    if config.data.batches == "mixed":
        return _plan(config, split, phase, config.seed)
    number = source.part_numbers(split)
    there = np.unique(number).tolist()
    if len(there) == 1:
        return _plan(config, split, phase, config.seed)
    parts = []
    for part in there:
        records = np.flatnonzero(number == part)
        parts.append((records, _plan(config, split.take(records), phase, sampler.seed_of_part(config.seed, part))))
    return functools.partial(_one_set, parts, config.seed)


def _plan(config: Settings, split: source.Split, phase: str, seed: int) -> Callable[[int], np.ndarray]:
    """The plan of one set, or of a mixture as if it were one."""
    if phase == "mva" and config.mva.images_per_person:
        return functools.partial(_capped, split.person_id, config.mva.images_per_person, config.mva.batch, seed)
    if phase != "reid":
        return functools.partial(_shuffle, len(split), config.phase(phase).batch, seed)
    if config.reid.miner == "offline":
        return functools.partial(_triplets, split.person_id, split.camera_id, config.reid.triplets, seed)
    return functools.partial(_identities, split.person_id, config.reid.people, config.reid.images, seed)


def _one_set(parts, seed, epoch):
    return sampler.one_set_plan(parts, seed=seed, epoch=epoch)


def _shuffle(n, rows, seed, epoch):
    return sampler.shuffle_plan(n, batch=rows, seed=seed, epoch=epoch)


def _capped(person_id, per_person, rows, seed, epoch):
    return sampler.capped_plan(person_id, per_person=per_person, batch=rows, seed=seed, epoch=epoch)


def _triplets(person_id, camera_id, triplets, seed, epoch):
    return sampler.triplet_plan(person_id, camera_id, batch=triplets, seed=seed, epoch=epoch)


def _identities(person_id, people, images, seed, epoch):
    return sampler.identity_plan(person_id, p=people, k=images, seed=seed, epoch=epoch)


# Nets


def net(config: Settings, *, attributes: int = 0, people: int | None = None, axis_name: str | None = None) -> Any:
    """The module that the settings describe, for so many attributes or training people."""
    known = {"num_attributes": attributes, "num_people": people, "axis_name": axis_name, "dtype": DTYPES[config.dtype]}
    known |= {"mean": config.data.mean, "deviation": config.data.deviation}
    fields = {field.name for field in dataclasses.fields(config.model)}
    return config.model.clone(**{name: value for name, value in known.items() if name in fields})


@dataclasses.dataclass(frozen=True)
class PhaseTask:
    """One phase of a run: what is to be trained, on what, from where on, and where it is kept."""

    config: Settings
    phase: str
    folder: Path
    split: source.Split
    columns: dict[str, np.ndarray]  # [N, ...] of the split, beside its images
    objective: Callable
    variables: dict[str, Any]  # of the net, before the first step
    module: Callable[[str | None], Any]  # pmap's axis -> the net
    attribute_weights: Any = None  # [A] raw ones before the first step, if any are learned
    attribute_names: tuple[str, ...] = ()

    def plan(self) -> tuple[loop.Phase, Any]:
        """What the training loop is to know, and the optimiser."""
        config, weighted = self.config, self.attribute_weights is not None
        per_epoch = len(epoch_plan(config, self.split, self.phase)(0))
        groups = ("trunk", "scratch", *(("attribute_weights",) if weighted else ()))
        steps, tx, rates = optimisation(config, self.phase, per_epoch, groups)
        phase = loop.Phase(
            name=self.phase,
            folder=self.folder,
            steps=steps,
            batch=config.phase(self.phase).batch,
            rate=rates["scratch"],
            log_every=config.log_every,
            save_every=config.save_every,
            epoch=per_epoch,
            parts=config.accumulate,
            profile_steps=config.profile_steps,
            extra=functools.partial(_named_weights, self.attribute_names) if weighted else lambda state: {},
        )
        return phase, tx

    def batches(self, steps: int) -> Callable[[int], Any]:
        """First step -> iterator of training batches, up to `steps`."""
        data = self.config.data

        def start(first: int):
            return pipeline.train_batches(
                self.split,
                epoch_plan(self.config, self.split, self.phase),
                height=data.height,
                width=data.width,
                seed=self.config.seed,
                augment=data.augment,
                columns=self.columns,
                first_step=first,
                steps=steps,
                share=parallel.share(self.config.phase(self.phase).batch, devices(self.config)),
                threads=data.threads,
                cache_bytes=data.cache_mib * 2**20,
            )

        return start

    def start(self, tx: Any) -> states.State:
        """The state before the first step."""
        return states.create(self.variables, tx, attribute_weights=self.attribute_weights, memory=self._memory())

    def _memory(self) -> dict[str, Any] | None:
        """An empty memory of earlier batches for phase reid, if it is to have one."""
        config = self.config
        if self.phase != "reid" or not config.reid.memory:
            return None
        image = jax.ShapeDtypeStruct((2, config.data.height, config.data.width, 3), np.float32)
        apply = functools.partial(self.module(None).apply, train=False)
        feature = jax.eval_shape(apply, self.variables, image).trained_feature
        attributes = self.columns["probabilities"].shape[1] if config.loss.kind == "acrn" else 0
        return memory.empty(config.reid.memory, dimensions=feature.shape[1], attributes=attributes)


def train_phase(task: PhaseTask) -> states.State:
    """Trains one phase to its end in its folder (or goes on there) and returns its last state."""
    config = task.config
    phase, tx = task.plan()
    runner = step.WRAPPERS[config.parallel](
        functools.partial(
            step.train_step,
            apply=task.module("data" if config.parallel == "pmap" else None).apply,
            objective=task.objective,
            tx=tx,
            mean=np.asarray(config.data.mean, np.float32),
            deviation=np.asarray(config.data.deviation, np.float32),
            seed=config.seed,
            parts=config.accumulate,
        ),
        devices(config),
    )
    print(
        f"{phase.name}: {len(task.split)} images of {task.split.name}, {phase.steps} steps of {phase.batch}", flush=True
    )
    start = runner.place(task.start(tx))
    return loop.fit(start, phase, run=runner.run, put=runner.put, batches=task.batches(phase.steps))


def optimisation(
    config: Settings, phase: str, per_epoch: int, groups: tuple[str, ...]
) -> tuple[int, Any, dict[str, Callable[[int], Any]]]:
    """(steps of a phase, optimiser, group -> learning rate as a function of the step).

    Of `groups` those count that the phase and the net have.
    """
    own = config.phase(phase)
    steps = settings.steps_of(own, per_epoch)
    of_net = MODELS[config.model_name].groups
    there = {*of_net.values(), "attribute_weights"}  # an optimiser without parameters would be an error
    found = {name: getattr(own, name) for name in groups if hasattr(own, name) and name in there}
    rates = {name: group.learning_rate(steps, per_epoch) for name, group in found.items()}
    made: dict[str, dict[str, Any]] = {
        name: {"kind": group.kind, "momentum": group.momentum, "decay": group.decay, "rate": rates[name]}
        for name, group in found.items()
    }
    if "attribute_weights" in made:
        made["attribute_weights"]["nonnegative"] = config.loss.weight_form == "nonnegative"
    tx = optimizer.make(made, of_net)
    return steps, optimizer.averaged(tx, config.ema) if config.ema else tx, rates


def planned_steps(config: Settings, phase: str, split: source.Split) -> int:
    """How many steps a phase takes on the images that it trains on."""
    return settings.steps_of(config.phase(phase), len(epoch_plan(config, split, phase)(0)))


def _named_weights(names, state):
    return {
        f"weight/{n}": float(w)
        for n, w in zip(names, jax.device_get(state.params["attribute_weights"]["raw"]), strict=True)
    }


def attribute_objective(config: Settings, split: source.Split) -> objectives.AttributeLoss:
    """L_attr with weights from the shares of positives among what an epoch shows, unknown labels left out."""
    shown = sampler.draws(split.person_id, config.mva.images_per_person)[:, None]  # [N, 1]
    positives, known = (((split.attributes == 1) * shown).sum(0), ((split.attributes >= 0) * shown).sum(0))
    ratio = positives / np.where(known > 0, known, 1)
    positive, negative = class_weights(ratio, scheme=config.mva.loss_weights, names=split.attribute_names)
    return objectives.AttributeLoss(positive_weight=positive, negative_weight=negative, reduction=config.mva.reduction)


def reid_objective(
    config: Settings, names: tuple[str, ...], **constants: Any
) -> tuple[objectives.ReidLoss, jax.Array | None]:
    """(objective of phase reid, first raw attribute weights or None).

    Args:
      config: of the run.
      names: [A] attributes of the attribute net.
      constants: gamma, margin or attribute_margin instead of the config's; traced values will do.
    """
    objective = objectives.ReidLoss(
        dataclasses.replace(config.loss, **constants),
        config.reid.miner,
        neck=getattr(config.model, "feature_norm", "none") == "bnneck",
        memory_after=config.reid.memory_after,
        given=given_weights(config, names) if config.loss.attribute_weights == "given" else None,
    )
    return objective, initial_weights(len(names), config.loss.weight_form) if config.loss.learns_weights else None


def given_weights(config: Settings, names: tuple[str, ...]) -> np.ndarray:
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
