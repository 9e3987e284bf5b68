"""Training: the phases of a config in a workdir, each to its end or from where it was stopped."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import COMMAND, build, files
from acrn_jax.data import source
from acrn_jax.losses import objectives
from acrn_jax.runs import inputs, overlap, phases, recognition, start, workdir
from acrn_jax.runs.outputs import Predictions
from acrn_jax.runs.run import AcrnRun, attribute_net
from acrn_jax.settings import Settings
from acrn_jax.train import parallel

TrainPhase = Callable[[build.PhaseTask], Any]


def train(config: Settings, folder: Path, *, train_phase: TrainPhase | None = None) -> None:
    """Trains the phases of `config` in the workdir `folder`; what is finished is left as it is.

    `train_phase` takes build.train_phase's place for the phases of a re-id net, e.g. to train several runs as one.

    Raises:
      ValueError: the config, the data and the workdir do not go together; nothing is touched then.
      FileNotFoundError: data, attribute net or start are not there.
    """
    build.check(config)
    files.check(folder)
    if config.of_attributes:
        _train_attributes(config, folder)
    else:
        _train_reid(config, folder, train_phase or build.train_phase)


def _train_attributes(config: Settings, folder: Path) -> None:
    split = build.attribute_split(config)
    if not split.attribute_names:
        raise ValueError(f"{split.name} has no attribute labels; an attribute net needs some.")
    build.check_images(config, split)
    objective = build.attribute_objective(config, split)
    recognition.calibration_split(config, split)  # refuses before training

    def module(axis_name):
        return build.net(config, attributes=len(split.attribute_names), axis_name=axis_name)

    variables, report = start.first_variables(config, module(None), config.init_from)
    made_of = inputs.known(config, "mva", split, start=config.init_from)
    # Not before data and weights are there, so that a wrong path leaves nothing behind.
    parallel.on_primary(lambda: _check_begun(folder, config, {"mva": made_of}))
    parallel.on_primary(lambda: workdir.store_config(folder, config))
    _begin(folder / "mva", made_of, report)
    build.train_phase(
        build.PhaseTask(
            config,
            "mva",
            folder / "mva",
            split,
            columns={"attributes": split.attributes},
            objective=objective,
            variables=variables,
            module=module,
        )
    )
    description = {"attribute_names": split.attribute_names, "dataset": split.name, "fingerprint": split.fingerprint}
    parallel.on_primary(lambda: workdir.write_json(folder / "attributes.json", description))
    if build.has_test(config):
        recognition.recognise(folder, config=config)
    else:
        told = (
            f"{config.data.name}/{config.data.config} has no test images, so the net is not scored; another set has: "
        )
        told += f"{COMMAND} evaluate --workdir={folder} --dataset=NAME/CONFIG"
        parallel.on_primary(lambda: print(told, flush=True))


def _train_reid(config: Settings, folder: Path, train_phase: TrainPhase) -> None:
    split, _ = build.reid_splits(config)
    build.check_images(config, split)
    net = attribute_net(str(config.attributes.from_)) if config.of_acrn else None
    # What has begun is of these inputs, or nothing is touched; the phase before is looked at when it has ended.
    made_of = {
        phase: inputs.known(config, phase, split, attributes=net.entry if net else None) for phase in config.phases
    }
    if config.init_from:
        made_of[config.phases[0]]["start"] = start.start_input(config.init_from)
    parallel.on_primary(lambda: _check_begun(folder, config, made_of))
    if net:
        overlap.check_attribute_net(config, [split])
        build.reid_objective(config, net.names)  # reads given weights
    parallel.on_primary(lambda: workdir.store_config(folder, config))
    people, person = np.unique(split.person_id, return_inverse=True)
    predictions = _predictions(config, folder, split)
    before = config.init_from
    for phase in config.phases:
        columns = {"person": person.astype(np.int32)}
        weights, names, classify = None, (), True
        objective: Any = objectives.IdentityLoss(config.identity.smoothing)
        if phase == "reid":
            if predictions is not None:
                names = predictions.names
                columns["probabilities"] = predictions.of(split, config.attributes.representation)
            objective, weights = build.reid_objective(config, names)
            classify = config.loss.identity_weight > 0

        def module(axis_name, classify=classify):
            return build.net(config, people=len(people) if classify else None, axis_name=axis_name)

        known = phases.read(start.located(before)) if before else None
        records = (known or {}).get("records") or {}
        alike = records.get("fingerprint") == split.fingerprint
        variables, report = start.first_variables(config, module(None), before, same_people=alike)
        _begin(folder / phase, made_of[phase] | ({"start": start.start_input(before)} if before else {}), report)
        train_phase(
            build.PhaseTask(
                config,
                phase,
                folder / phase,
                split,
                columns=columns,
                objective=objective,
                variables=variables,
                module=module,
                attribute_weights=weights,
                attribute_names=names,
            )
        )
        before = str(folder / phase)


def _predictions(config: Settings, folder: Path, split: source.Split) -> Predictions | None:
    """What the attribute net says of the training images, for a phase reid that wants it.

    Raises:
      ValueError: it says the same of all.
    """
    if not config.of_acrn:
        return None
    predictions = AcrnRun(folder, config).predictions(config.data.train_split)
    values = predictions.of(split, config.attributes.representation)
    if np.all(values == values[0]):
        raise ValueError(
            f"The attribute net {config.attributes.from_} says the same of all {len(split)} images of {split.name} "
            f"(config.attributes.representation={config.attributes.representation}), so that attributes tell nobody "
            "apart; look at its recognition.json, and take another representation or net."
        )
    return predictions


def _check_begun(folder: Path, config: Settings, made_of: dict[str, Any]) -> None:
    """ValueError where a workdir is of another config, or phases that have begun there are of other inputs."""
    workdir.check_config(folder, config)
    for phase, known in made_of.items():
        phases.check(folder / phase, known)


def _begin(folder: Path, made_of: dict[str, Any], report: dict[str, Any] | None) -> None:
    """Stores what a phase is made of (inputs.json, init.json) and prints what it starts from, or checks what is stored.

    `report` is of start.first_variables.
    """
    begun = phases.begun(folder)
    parallel.on_primary(lambda: phases.begin(folder, made_of))
    if report and not begun:
        print(start.describe(report), flush=True)
        workdir.write_json(folder / "init.json", report)
