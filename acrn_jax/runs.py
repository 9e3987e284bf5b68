"""What the verbs do: train, extract, evaluate, reproduce. Each works on a workdir, goes on where it was stopped.

A workdir holds config.json, a folder for each phase (checkpoints, scalars.jsonl, event files), predictions/ (what the
attribute net says about the data set) and the result files.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from PIL import Image

from acrn_jax import build, files, phases, provenance, rules
from acrn_jax.data import pipeline, source, transforms
from acrn_jax.evaluation import attributes as recognition
from acrn_jax.evaluation import correlation, embed, explain, fusion, hints, methods, protocols, ranking
from acrn_jax.losses.weights import effective_weights
from acrn_jax.report import tables
from acrn_jax.schema import METHODS
from acrn_jax.train import parallel

# Keys that change neither the result nor what a workdir holds: they may differ when a run goes on.
FREE = (
    "attributes.from", "data.dir", "data.threads", "devices", "evaluate", "init_from", "log_every", "mva.calibrate",
    "model.remat", "mva.threshold", "parallel", "profile_steps", "save_every",
)  # fmt: skip
# Exact keys, besides those, in which an ACRN run and the ReIdCNN beside it may differ: they speak of attributes, of the
# attribute net, or of how fast it went. In all others rows of one table would differ in more than the method.
OF_ATTRIBUTES = frozenset((
    "attributes.representation", "attributes.allow_overlap", "data.cache_mib", "data.exclude_subsets", "loss.kind",
    "loss.gamma", "loss.mine_on", "loss.attribute_gradient", "loss.attribute_margin", "loss.attribute_miner",
    "loss.attribute_weights", "loss.attribute_weights_file", "loss.weight_form", "model.branch_kernel", "model.dropout",
    "model.layout", "model.views", "phases",
))  # fmt: skip
# Keys that older runs do not have, and what those runs did.
YOUNG = {"accumulate": 1, "ema": 0.0, "profile_steps": 0, "model.remat": False}
SECTIONS = ("attributes", "data", "evaluate", "loss", "model")  # of config.json, which nothing does without
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tensorflow-datasets",
    "numba",
    "numpy",
    "pillow",
    "simplejpeg",
)
SHOWN = 14  # gallery images of a rank list, as in the paper's figure 3
TOLD = 3  # attributes that an image of a rank list, or a pair of look-alikes, is explained by
THUMBNAIL = 128  # pixels high


# Workdirs


def write_json(path: Path, value: Any) -> None:
    """`files.write_json`; of several processes one does."""
    if parallel.is_primary():
        files.write_json(path, value)


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """`files.write_arrays`; of several processes one does."""
    if parallel.is_primary():
        files.write_arrays(path, **arrays)


def claim(workdir: Path, config: Any) -> None:
    """Writes config.json, after `check_claim`."""
    check_claim(workdir, config)
    write_json(workdir / "config.json", json.loads(config.to_json_best_effort()))


def check_claim(workdir: Path, config: Any) -> None:
    """ValueError where the workdir is of another config, with the differing keys, or holds something else."""
    mine = _flat(json.loads(config.to_json_best_effort()))
    file = workdir / "config.json"
    if file.exists():
        theirs = _flat(read_config(workdir).to_dict())
        differing = _differing(mine, theirs, FREE)
        if differing:
            shown = "; ".join(f"{key} is {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in differing[:5])
            more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
            raise ValueError(
                f"{workdir} is of another config: {shown}{more}. Use another --workdir, or the same config."
            )
    elif (
        workdir.exists()
        and not all(p.name.startswith(".config.") for p in workdir.iterdir())  # of a run killed in its first moment
        and not any((workdir / p).exists() for p in ("data", "attribute_net", "predictions"))
    ):
        raise ValueError(
            f"{workdir} holds files but no config.json, so it is no run's folder; name an empty or new --workdir."
        )


def read_config(workdir: Path, *, attributes: Path | None = None, data_dir: str | None = None) -> Any:
    """The config of the run in `workdir`, on top of today's defaults, its paths as they are found from here.

    Args:
      workdir: of the run.
      attributes: where its attribute net is now; default: see `phases.locate`.
      data_dir: where its prepared data is now; default: likewise.
    """
    file = Path(workdir) / "config.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{workdir} holds no run (no config.json); make one with ./launch.sh train --workdir={workdir}."
        )
    tree = files.read_json(file, "phases", *SECTIONS)
    if wrong := [name for name in SECTIONS if not isinstance(tree[name], dict)]:
        raise ValueError(f"{file}: {wrong[0]} is to be a JSON object of keys; bring the file back as it was.")
    try:
        build.rules.check({key: value for key, value in _flat(tree).items() if value != ""})  # an old way to say None
    except ValueError as error:
        raise ValueError(f"{file}: {error} Bring the file back as it was.") from error
    for key, value in YOUNG.items():
        *path, last = key.split(".")
        functools.reduce(lambda place, part: place.setdefault(part, {}), path, tree).setdefault(last, value)
    inputs = [phases.read(Path(workdir) / phase) or {} for phase in reversed(tree["phases"])]

    def now(kind, given, there):
        kept = next((of[kind].get("path") for of in inputs if of.get(kind)), None)
        return str(phases.locate(Path(workdir), given, kept, there)) if given else given

    data, net = tree["data"], tree["attributes"]
    data["dir"] = data_dir or now("data", data["dir"], lambda place: Path(place, str(data["name"])).is_dir())
    net["from"] = (
        str(attributes)
        if attributes
        else now("attributes", net["from"], lambda place: Path(place, "attributes.json").is_file())
    )
    return ml_collections.ConfigDict(tree)


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _differing(mine, theirs, sections):
    """Dotted keys of two flat configs whose values differ, but for keys that begin with one of `sections`."""
    return [
        key
        for key in sorted(mine.keys() | theirs.keys())
        if _plain(mine.get(key)) != _plain(theirs.get(key)) and not key.startswith(sections)
    ]


def _plain(value):
    return list(value) if isinstance(value, tuple | list) else value


# Training


def train(config: Any, workdir: Path, *, train_phase: Callable[..., Any] | None = None) -> None:
    """Trains the phases of `config` in `workdir`, each to its end; what is finished is left as it is.

    `train_phase` takes build.train_phase's place for the phases of a re-id net, e.g. to train several runs as one.
    """
    build.check(config)
    files.check(workdir)
    if "mva" in config.phases:
        _train_attributes(config, workdir)
    else:
        _train_reid(config, workdir, train_phase or build.train_phase)


def _train_attributes(config, workdir):
    split = build.attribute_split(config)
    if not split.attribute_names:
        raise ValueError(f"{split.name} has no attribute labels; an attribute net needs some.")
    build.check_images(config, split)
    objective = build.attribute_objective(config, split)
    _calibration_split(config, split)  # refuses before training

    def module(axis_name):
        return build.net(config, attributes=len(split.attribute_names), axis_name=axis_name)

    variables, report = build.first_variables(config, module(None), config.init_from)
    inputs = _inputs(config, "mva", split, config.init_from)
    # Not before data and weights are there, so that a wrong path leaves nothing behind.
    parallel.on_primary(lambda: _check_begun(workdir, config, {"mva": inputs}))
    parallel.on_primary(lambda: claim(workdir, config))
    _begin(workdir / "mva", inputs, report)
    build.train_phase(
        config,
        "mva",
        workdir / "mva",
        split,
        columns={"attributes": split.attributes},
        objective=objective,
        variables=variables,
        module=module,
    )
    about = {"attribute_names": split.attribute_names, "dataset": split.name, "fingerprint": split.fingerprint}
    parallel.on_primary(lambda: write_json(workdir / "attributes.json", about))
    recognise(workdir, config=config)


def _train_reid(config, workdir, train_phase):
    split, _ = build.reid_splits(config)
    build.check_images(config, split)
    # What has begun is of these inputs, or nothing is touched; the phase before is looked at when it has ended.
    inputs = {phase: _inputs(config, phase, split) for phase in config.phases}
    if config.init_from:
        inputs[config.phases[0]]["start"] = build.start_input(config.init_from)
    parallel.on_primary(lambda: _check_begun(workdir, config, inputs))
    if weighted(config):
        check_overlap(config, [split])
        build.reid_objective(config, tuple(attribute_names(Path(config.attributes["from"]))))  # reads given weights
    parallel.on_primary(lambda: claim(workdir, config))
    people, person = np.unique(split.person_id, return_inverse=True)
    attributes, names = _train_probabilities(config, workdir, split)
    start = config.init_from
    for phase in config.phases:
        columns = {"person": person.astype(np.int32)}
        weights, classify = None, True
        if phase == "reid":
            columns |= attributes
            objective, weights = build.reid_objective(config, names)
            classify = config.loss.identity_weight > 0
        else:
            objective = build.objectives.make_identity(smoothing=config.identity.smoothing)

        def module(axis_name, classify=classify):
            return build.net(config, people=len(people) if classify else None, axis_name=axis_name)

        known = phases.read(Path(start)) if start else None
        alike = known is not None and known["records"]["fingerprint"] == split.fingerprint
        variables, report = build.first_variables(config, module(None), start, same_people=alike)
        _begin(workdir / phase, inputs[phase] | ({"start": build.start_input(start)} if start else {}), report)
        train_phase(
            config,
            phase,
            workdir / phase,
            split,
            columns=columns,
            objective=objective,
            variables=variables,
            module=module,
            attribute_weights=weights,
            attribute_names=names,
        )
        start = workdir / phase


def _train_probabilities(config, workdir, split):
    """({"probabilities": what the attribute net says of the images}, its names) for a phase reid that wants them."""
    if "reid" not in config.phases or config.loss.kind != "acrn":
        return {}, ()
    predicted, shown = predict_attributes(config, workdir, config.data.train_split), config.attributes.representation
    found = predicted.of(split, shown)
    if np.all(found == found[0]):
        raise ValueError(
            f"The attribute net {config.attributes['from']} says the same of all {len(split)} images of {split.name} "
            f"(config.attributes.representation={shown}), so that attributes tell nobody apart; look at its "
            "recognition.json, and take another representation or net."
        )
    return {"probabilities": found}, predicted.names


def _inputs(config, phase, split, init_from=None):
    """What a phase is made of, as far as it is known before the phase in front of it has ended; see phases.py."""
    inputs: dict[str, Any] = {"steps": build.planned_steps(config, phase, split), "data": build.data_input(config)}
    inputs["records"] = phases.entry(split.name, split.fingerprint)
    if phase == "mva":
        inputs["attribute_names"] = split.attribute_names
    if phase == "reid" and config.loss.kind == "acrn":
        inputs["attributes"] = _attribute_input(config)
    return inputs | ({"start": build.start_input(init_from)} if init_from else {})


def _check_begun(workdir, config, inputs):
    """ValueError where a workdir is of another config, or phases that have begun there are of other inputs."""
    check_claim(workdir, config)
    for phase, known in inputs.items():
        phases.check(workdir / phase, known)


def _begin(folder, inputs, report):
    """Stores what a phase is made of (inputs.json, init.json) and prints what it starts from, or checks what is stored.

    `report` is of build.first_variables.
    """
    begun = phases.begun(folder)
    parallel.on_primary(lambda: phases.begin(folder, inputs))
    if report and not begun:
        print(build.describe_start(report), flush=True)
        write_json(folder / "init.json", report)


# What a run is made of, where it is used


def check_data(config: Any, workdir: Path) -> None:
    """ValueError if the run's training images, as they lie in config.data.dir, are not those that it was trained on.

    Where they are not at hand nothing is said: what needs them will say so.
    """
    phase = Path(workdir) / config.phases[-1]
    if phases.begun(phase):
        with contextlib.suppress(FileNotFoundError):
            phases.check(phase, {"data": build.data_input(config)})


def check_attributes(config: Any, workdir: Path) -> None:
    """ValueError if the net in config.attributes.from is not the one that an ACRN run was trained with."""
    phase = Path(workdir) / config.phases[-1]
    if weighted(config) and phases.begun(phase):
        phases.check(phase, {"attributes": _attribute_input(config)})


def weighted(config: Any) -> bool:
    """Whether the config is of an ACRN, which has weighted attributes in its distance."""
    return config.phases[-1] == "reid" and config.loss.kind == "acrn"


def _attribute_input(config):
    net = config.attributes["from"]
    return phases.entry(net, attribute_net(Path(net))[2], path=net)


def check_overlap(config: Any, splits: Sequence[source.Split]) -> None:
    """ValueError where the attribute net was trained on images of `splits`, which the paper rules out.

    `config` has the attribute net and, as config.data, the data set that the splits are of.
    """
    net = Path(config.attributes["from"])
    _about(net)
    if not config.attributes.allow_overlap:
        told = ", or pass --config.attributes.allow_overlap=True (evaluate: --allow_overlap)."
        _check_unseen(
            net, config, splits, "attribute net", 'train one with --config.data.exclude_subsets="({!r},)"' + told
        )


def _check_unseen(workdir, target, splits, what, remedy):
    """ValueError where a run was trained on images of `splits`, which are of the data set of the config `target`."""
    if read_config(workdir).data.name != target.data.name:
        return
    trained = _training_images(workdir, target.data.dir)
    for split in splits:
        if shared := _shared(trained, split):
            raise ValueError(
                f"The {what} {workdir} was trained on {len(shared)} images of {split.name}, e.g. {shared[0]}; "
                f"{remedy.format(shared[0].split('/')[0])}"
            )


def _shared(trained, split):
    """File names of images that are in both splits."""
    place = {name: i for i, name in enumerate(trained.file_name)}
    named = [(i, place[name]) for i, name in enumerate(split.file_name) if name in place]
    return [str(split.file_name[i]) for i, mine in named if split.image_bytes(i) == trained.image_bytes(mine)]


def _training_images(workdir, data_dir):
    """What a run was trained on, from `data_dir` or else from where it lay in training; see build.training_split."""
    try:
        config = read_config(workdir, data_dir=data_dir)
        check_data(config, workdir)
        return build.training_split(config)
    except (FileNotFoundError, ValueError):
        config = read_config(workdir)
        check_data(config, workdir)
        return build.training_split(config)


# Attribute predictions


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What an attribute net says about the records of one split."""

    key: np.ndarray  # [N] str
    logits: np.ndarray  # [N, A] float32
    names: tuple[str, ...]  # [A]

    def of(self, split: source.Split, representation: str) -> np.ndarray:
        """Attributes of the split's records, joined by key, float32 [N, A]."""
        place = {key: i for i, key in enumerate(self.key)}
        missing = [key for key in split.key if key not in place]
        if missing:
            raise ValueError(
                f"The stored attribute predictions lack {len(missing)} records of {split.name}, e.g. {missing[0]}."
            )
        return build.REPRESENTATIONS[representation](self.logits[[place[key] for key in split.key]])


def predict_attributes(
    config: Any, workdir: Path, split_name: str, *, out: Path | None = None, keep: bool = True
) -> Predictions:
    """What the net in `config.attributes.from` says about a split, computed once and kept in workdir/predictions.

    Args:
      config: of the run.
      workdir: its folder.
      split_name: of its data set.
      out: keeps them in out/predictions instead, where the workdir does not have them.
      keep: whether to keep them at all.
    """
    net_folder = Path(config.attributes["from"])
    names, _, fingerprint = attribute_net(net_folder)
    split = build.open_split(config, split_name)
    places = [folder / "predictions" / f"{split_name}.npz" for folder in (out or workdir, workdir)]
    stamp = f"{fingerprint} {split.fingerprint}"
    for file in dict.fromkeys(places):
        if parallel.broadcast(parallel.is_primary() and stamp_of(file) == stamp):
            with np.load(file, allow_pickle=False) as kept:
                return Predictions(kept["key"], kept["logits"], names)
    if parallel.is_primary() and keep and places[0].exists():
        print(f"{places[0]} is of another attribute net or data set; computing it anew.", flush=True)
    logits = outputs(net_folder, split, batch=config.evaluate.batch)["attribute_logits"]
    if keep:
        write_arrays(places[0], key=split.key, logits=logits, stamp=stamp)
    return Predictions(split.key, logits, names)


def stamp_of(file: Path) -> str | None:
    """What a kept file of arrays is of; None where there is none that can be read."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            return str(kept["stamp"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


def training_attributes(config: Any, workdir: Path, *, out: Path | None = None) -> np.ndarray | None:
    """Attributes [N, A] of the training images, where the form of the weights asks for them; else None.

    They are kept in `out`, where the workdir does not have them; with None nowhere.
    """
    if config.loss.attribute_weights != "learned" or config.loss.weight_form != "unit_mean":
        return None
    check_data(config, workdir)
    split, _ = build.reid_splits(config)
    said = predict_attributes(config, workdir, config.data.train_split, out=out, keep=out is not None)
    return said.of(split, config.attributes.representation)


def _about(folder: str | Path) -> dict[str, Any]:
    """attributes.json of a finished attribute run."""
    file = Path(folder) / "attributes.json"
    if not file.is_file():
        if phases.begun(Path(folder) / "mva"):
            step, steps = phases.progress(Path(folder) / "mva")
            raise ValueError(
                f"The attribute net {folder} is not finished: it is at step {step}{f' of {steps}' if steps else ''}; "
                "run the command again that trained it, to go on (evaluate takes it as it is with --unfinished)."
            )
        raise FileNotFoundError(
            f"{folder} holds no finished attribute net (no attributes.json); name where it lies "
            "(--config.attributes.from=M in training, --attributes=M elsewhere), or train one with "
            f"./launch.sh train --config=configs/mva_peta.py:small --workdir={folder} --config.data.dir=..."
        )
    about = files.read_json(file, "attribute_names")
    trained = phases.read(Path(folder) / "mva") or {}
    if about["attribute_names"] != list(trained.get("attribute_names", about["attribute_names"])):
        raise ValueError(
            f"{file} names other attributes than {folder}/mva/inputs.json, or in another order, so that no output is "
            "known by its name; bring the file back as training wrote it."
        )
    return about


def attribute_net(folder: Path) -> tuple[tuple[str, ...], dict[str, Any], str]:
    """(attribute names, attributes.json, fingerprint of the trained values) of an attribute run."""
    about = _about(folder)
    return tuple(about["attribute_names"]), about, phases.fingerprint(Path(folder) / "mva")


def outputs(workdir: Path, split: source.Split, *, batch: int, unfinished: bool = False) -> dict[str, np.ndarray]:
    """Everything that the last phase of a run's net says about a split, name -> float32 [N, ...].

    With `unfinished` the phase need not have come to its end.
    """
    config = read_config(workdir)
    phase = config.phases[-1]
    count = len(attribute_names(workdir, unfinished=unfinished)) if phase == "mva" else 0
    trained = build.trained(config, Path(workdir) / phase, attributes=count, unfinished=unfinished)
    size = {"height": config.data.height, "width": config.data.width}
    mine = split.take(parallel.process_rows(len(split))) if jax.process_count() > 1 else split
    batches = pipeline.eval_batches(mine, batch=min(batch, len(mine)), threads=config.data.threads, **size)
    print(f"{phase} net of {workdir}: {len(split):,} image{'s' * (len(split) > 1)} of {split.name}", flush=True)
    found = embed.embed(
        trained.module, trained.variables, batches, mean=config.data.mean, deviation=config.data.deviation
    )
    return parallel.gather(found, len(split))


def kept_outputs(
    workdir: Path, split: source.Split, name: str, places: Sequence[Path], *, batch: int
) -> dict[str, np.ndarray]:
    """`outputs`, computed once for a net and a split: the file `name` of one of these folders, kept in the first."""
    stamp = f"{phases.fingerprint(Path(workdir) / read_config(workdir).phases[-1])} {split.fingerprint}"
    file = next((place / name for place in places if stamp_of(place / name) == stamp), None)
    if file is None:
        file = places[0] / name
        write_arrays(file, stamp=stamp, **outputs(workdir, split, batch=batch))
    with np.load(file, allow_pickle=False) as kept:
        return {name: kept[name] for name in kept.files if name != "stamp"}


def attribute_names(workdir: Path, *, unfinished: bool = False) -> list[str]:
    """Names of the attributes [A] of a trained attribute net, in its order; `unfinished` as of `outputs`."""
    inputs = phases.read(Path(workdir) / "mva") or {}
    return inputs["attribute_names"] if unfinished and inputs else _about(workdir)["attribute_names"]


def recognition_rates(net: Path) -> dict[str, Any] | None:
    """How often an attribute net is right, from its recognition.json: "on" which images, and "mA" of each attribute.

    Of people whom training did not show, where there are such; None for a net that was not scored.
    """
    file = Path(net) / "recognition.json"
    if not file.is_file():
        return None
    scored = files.read_json(file, "attributes", "dataset", "split")
    part, people = (scored["unseen"], ", people whom training did not show") if "unseen" in scored else (scored, "")
    rates = {entry["name"]: entry["mA"] for entry in part["attributes"]}
    return {"on": f"{scored['dataset']}, {scored['split']}{people}", "mA": rates}


def recognise(
    workdir: Path,
    *,
    config: Any = None,
    split_name: str = "test",
    target: Any = None,
    out: Path | None = None,
    unfinished: bool = False,
) -> dict[str, Any]:
    """Scores an attribute net on a split and writes recognition.json.

    Args:
      workdir: a trained attribute run.
      config: its config; default: as stored.
      split_name: of the data set to score.
      target: config of another data set, of which the attributes that the net knows are scored; default: its own.
      out: where recognition.json goes; default: the workdir.
      unfinished: score a net whose training has not come to its end.
    """
    config = config or read_config(workdir)
    names = attribute_names(workdir, unfinished=unfinished)
    split = build.open_split(target or config, split_name)
    common = [name for name in names if name in split.attribute_names]
    if not common:
        raise ValueError(
            f"{split.name} labels none of the net's {len(names)} attributes ({', '.join(names[:5])} ...), but "
            f"{', '.join(split.attribute_names[:5]) or 'none at all'}; name a data set that shares some."
        )
    known, labels = [names.index(n) for n in common], split.attributes_of(common)

    def probabilities(of):
        return build.REPRESENTATIONS["probabilities"](
            outputs(workdir, of, batch=config.evaluate.batch, unfinished=unfinished)["attribute_logits"]
        )

    threshold, calibrated = config.mva.threshold, {}
    trained_on = None if target else build.attribute_split(config)
    held = _calibration_split(config, trained_on)
    if held:
        goal = config.mva.calibrate
        threshold = recognition.calibrate(probabilities(held), held.attributes, target=goal)[known]
        calibrated = {"calibrated": {"target": goal, "split": held.name, "fingerprint": held.fingerprint}}
    said = probabilities(split)[:, known]

    def summary(part):
        return {
            name: _number(getattr(part, name)) for name in ("mA", "accuracy", "precision", "recall", "f1", "images")
        }

    whole = recognition.evaluate(said, labels, threshold=threshold)
    result = {
        "dataset": split.name.rsplit("/", 1)[0],
        "trained_on": f"{config.data.name}/{config.data.config}",
        "split": split_name,
        "fingerprint": split.fingerprint,
        **_origins({"run": Path(workdir) / "mva"}, unfinished),
        "threshold": threshold.tolist() if held else threshold,
        **calibrated,
        "undefined": whole.undefined,
        **summary(whole),
        "attributes": [
            {"name": n, "mA": _number(m), "positives": int(p), "negatives": int(q)}
            for n, m, p, q in zip(common, whole.attribute_mA, whole.positives, whole.negatives, strict=True)
        ],
    }
    if trained_on:  # person ids of another data set are other people
        seen = recognition.seen(trained_on.person_id, split.person_id)
        for name, mask in (("seen", seen), ("unseen", ~seen)):
            if mask.any():
                part = recognition.evaluate(said[mask], labels[mask], threshold=threshold)
                each = [{"name": n, "mA": _number(m)} for n, m in zip(common, part.attribute_mA, strict=True)]
                result[name] = summary(part) | {"attributes": each}
    result |= _provenance(config)
    write_json((out or workdir) / "recognition.json", result)
    print(tables.recognition_table(result), flush=True)
    return result


def _calibration_split(config, trained_on=None):
    """Images that `mva.calibrate` chooses thresholds on, or None; ValueError where the net was trained on them."""
    if config.mva.get("calibrate", "none") == "none":
        return None
    build.lookup(dict.fromkeys(("none", *recognition.TARGETS)), config.mva.calibrate, "mva.calibrate")
    held = build.open_split(config, "val")
    shared = np.intersect1d(held.key, (trained_on or build.attribute_split(config)).key)
    if shared.size:
        raise ValueError(
            f"config.mva.calibrate={config.mva.calibrate} chooses thresholds on {held.name}, but the net is trained on "
            f"{shared.size} of its images; set mva.calibrate=none, or train with --config.data.train_split=train."
        )
    return held


# Evaluation


def evaluate(
    workdir: Path,
    *,
    baseline: Path | None = None,
    tune: Path | None = None,
    data_dir: str | None = None,
    dataset: str | None = None,
    attributes: Path | None = None,
    unfinished: bool = False,
    allow_overlap: bool = False,
    settings: dict[str, Any] | None = None,
    out: Path | None = None,
) -> dict[str, Any]:
    """Scores a run on query and gallery: results.json, rank_lists.json, look_alikes.json, per_query.npz, thumbnails/.

    Args:
      workdir: an ACRN or ReIdCNN run (an attribute run is scored on its test split instead).
      baseline: the ReIdCNN run that belongs to an ACRN run; without it the rows with ReIdCNN are missing.
      tune: a ReIdCNN run that held people out, to choose the fusion factor on; default: the baseline, if it did.
      data_dir: where the prepared data is now; default: where the run was trained.
      dataset: another data set "name/config" to score the run on.
      attributes: where the attribute net is now; default: see `phases.locate`.
      unfinished: score a run whose training has not come to its end; the results say so.
      allow_overlap: nets may have been trained on images that they are scored on (as config.attributes.allow_overlap).
      settings: entries of config.evaluate for this time.
      out: the folder that all files go to; default: `folder_on(workdir, dataset)`.
    """
    config = read_config(workdir, attributes=attributes, data_dir=data_dir)
    config.evaluate.update(settings or {})
    config.attributes.allow_overlap |= allow_overlap
    _check_beside(config, workdir, baseline, tune)
    target, home = _target(config, dataset), folder_on(workdir, dataset)
    out = out or home
    if out != home and (out / "config.json").exists():
        raise ValueError(f"--out={out} is the folder of a run, whose results would be lost; name another one.")
    files.check(out)
    check_data(config, workdir)
    if "mva" in config.phases:
        _check_scored_on(config, workdir, target, [build.open_split(target, "test")])
        return recognise(workdir, config=config, target=target if dataset else None, out=out, unfinished=unfinished)
    check_attributes(config, workdir)
    query, gallery, protocol = _tested(config, target)
    _check_scored_on(config, workdir, target, [query, gallery])
    rows, extra, made_of = _methods(
        config, target, workdir, home, out, baseline, tune, query, gallery, protocol, unfinished
    )
    scored = {
        name: ranking.evaluate(r, query.labels, gallery.labels, protocol=protocol, no_match=config.evaluate.no_match)
        for name, r in rows.items()
    }
    main = scored["ACRN" if "ACRN" in scored else "ReIdCNN"]
    net = config.attributes["from"]
    runs = {"run": None if out == workdir else workdir, "attributes": net, "baseline": baseline}
    folders = {"run": Path(workdir) / "reid"} | ({"attributes": Path(net) / "mva"} if weighted(config) else {})
    folders |= {name: folder / "reid" for name, folder in (("baseline", baseline), ("tune", tune)) if folder}
    if protocol.options:
        deviation = {n: {m: _number(v) for m, v in (result.deviation or {}).items()} for n, result in scored.items()}
        extra |= {"protocol_options": protocol.options, "deviation": deviation}
    results = {
        "schema": 1,
        "dataset": f"{target.data.name}/{target.data.config}",
        "trained_on": f"{config.data.name}/{config.data.config}",
        "split": "query/gallery",
        "protocol": protocol.name,
        "no_match": config.evaluate.no_match,
        "methods": {name: result.metrics for name, result in scored.items()},
        "chance": main.chance,
        "hints": [f"{name}: {hint}" for name, result in scored.items() for hint in hints.hints(result, rows[name])],
        "queries": main.queries,
        "gallery": main.gallery,
        "queries_without_match": main.queries_without_match,
        "partial": bool(query.metadata.get("partial", False)),
        "people_seen_in_training": 0 if dataset else query.metadata.get("people_seen_in_training", 0),
        "runs": {name: os.path.relpath(folder, out) for name, folder in runs.items() if folder},
        **extra,
        **_origins(folders, unfinished),
        **_provenance(config),
        "fingerprint": hashlib.sha256(f"{query.fingerprint} {gallery.fingerprint}".encode()).hexdigest(),
    }
    shown = rows["ACRN" if "ACRN" in rows else "ReIdCNN"]
    _rank_lists(config, out, shown, query, gallery, protocol, main, made_of)
    if made_of:
        _look_alikes(config, out, shown, query, gallery, protocol, made_of)
    write_arrays(
        out / "per_query.npz",
        key=query.key,
        person_id=query.person_id,
        counted=main.counted,
        **{f"{name}/{metric}": values for name, r in scored.items() for metric, values in r.per_query.items()},
    )
    write_json(out / "results.json", results)
    return results


def _tested(config, target):
    """(query, gallery, protocol): what a run is scored on, and how."""
    query, gallery = (build.open_split(target, name) for name in ("query", "gallery"))
    query = query.take(query.person_id > 0)
    protocol = protocols.named(
        config.evaluate.protocol or query.protocol,
        repeats=config.evaluate.get("draws", 10),  # runs from before these were keys have none
        seed=config.evaluate.get("draw_seed", 0),
        probe_view=str(config.evaluate.get("probe_view", "both")),
    )
    return query, gallery, protocols.without_itself(protocol, query.key, gallery.key)


def _check_scored_on(config, workdir, target, splits):
    """ValueError where the run or its attribute net was trained on images of `splits`, unless that is allowed.

    Where training images are not at hand, a sentence says so.
    """
    if config.attributes.allow_overlap:
        return
    remedy = "score it on other images, or pass --allow_overlap."
    for folder, what in ((workdir, "run"), (config.attributes["from"] if weighted(config) else None, "attribute net")):
        try:
            if folder:
                _check_unseen(Path(folder), target, splits, what, remedy)
        except FileNotFoundError as error:
            if parallel.is_primary():
                told = f"Whether the {what} {folder} was trained on images that it is scored on is not known"
                print(f"{told}: {error}", flush=True)


def _origins(folders, unfinished):
    """Entries for result files: what the phases in `folders` are made of, and how far the first one has come."""
    about = {name: phases.about(phase, unfinished=unfinished and name == "run") for name, phase in folders.items()}
    step, steps = about["run"]["step"], about["run"].get("steps", 0)
    return {"made_of": about} | ({"unfinished": {"step": step, "steps": steps}} if step < steps else {})


def read_results(workdir: Path) -> dict[str, Any]:
    """results.json of a run that was evaluated after its training had ended.

    Raises:
      FileNotFoundError: it was not evaluated.
      ValueError: only before that.
    """
    file = Path(workdir) / "results.json"
    if not file.is_file():
        raise FileNotFoundError(f"{workdir} has no results.json; run ./launch.sh evaluate --workdir={workdir} first.")
    results = files.read_json(file)
    if stopped := results.get("unfinished"):
        raise ValueError(
            f"{workdir} was evaluated at step {stopped['step']} of {stopped['steps']} of its training; let that come "
            f"to its end, then run ./launch.sh evaluate --workdir={workdir} again."
        )
    return results


def folder_on(workdir: Path, dataset: str | None) -> Path:
    """Where `evaluate` writes: the workdir, or workdir/on_NAME_CONFIG for another data set."""
    return workdir / f"on_{dataset.replace('/', '_')}" if dataset else workdir


def _target(config, dataset):
    """The config of the data set to score on."""
    if not dataset:
        return config
    target = config.copy_and_resolve_references()
    try:
        target.data.name, target.data.config = dataset.split("/")
    except ValueError as error:
        raise ValueError(f"The data set to score on is {dataset!r}; write NAME/CONFIG: peta/reid_grid.") from error
    return target


def _methods(config, target, workdir, home, out, baseline, tune, query, gallery, protocol, unfinished):
    """(method -> rows of distances, entries for results.json, what ACRN's distances are made of)."""
    batch, distance = config.evaluate.batch, config.loss.distance
    boxes = build.open_split(target, "multi_query") if protocol.name == "market1501_multi_query" else query

    def averaged(values):
        """A row for each query: its own, or the mean over its boxes."""
        return values if boxes is query else protocols.multi_query(values, boxes.labels, query.labels)

    def features(folder, scale, **state):
        asked, found = (outputs(folder, split, batch=batch, **state)["feature"] for split in (boxes, gallery))
        return methods.Features(averaged(asked), found, scale)

    scales = scales_of(workdir, unfinished=unfinished)
    own = features(workdir, scales["feature"], unfinished=unfinished)
    if config.loss.kind == "classic":
        return {"ReIdCNN": fusion.distance_rows(distance, own.query, own.gallery)}, {"scales": scales}, None
    shown = config.attributes.representation
    names = dict.fromkeys(("query", "gallery", boxes.name.split("/")[-1]))  # no set: all processes keep one order
    predicted = {name: predict_attributes(target, home, name, out=out) for name in names}
    names = predicted["query"].names
    asked, found = (predicted[split.name.split("/")[-1]].of(split, shown) for split in (boxes, gallery))
    attributes = methods.Attributes(averaged(asked), found, scales["attribute"])
    train, missing = None, {}
    try:
        people, _ = build.reid_splits(config)
        predicted_train = predict_attributes(config, workdir, config.data.train_split, out=out)
        train = predicted_train.of(people, shown)
        attributes = attributes._replace(train=train, train_labels=people.labels)
    except FileNotFoundError as error:
        if target is config:
            raise
        predicted_train = None
        missing["Attributes-KISSME"] = f"it is fitted on the run's training images: {error}"
    weights = learned_weights(config, workdir, names, train, unfinished=unfinished)
    base, factor = None, None
    if baseline:
        base = features(baseline, scales_of(baseline)["feature"])
        if predicted_train:
            factor = _tuned_factor(config, tune or baseline, predicted_train, shown, scales)
        if factor is None:
            missing["ReIdCNN+Attributes-tuned"] = "no run with people held out, and its images at hand, to choose on"
    else:
        missing |= {name: "no baseline" for name in METHODS if name.startswith("ReIdCNN")}
    rows = methods.rows(
        own,
        attributes,
        weights,
        gamma=config.loss.gamma,
        distance=distance,
        baseline=base,
        tuned_factor=factor,
        kissme_options={
            "ridge": config.evaluate.kissme_ridge,
            "project": config.evaluate.kissme_project,
            "pca": config.evaluate.kissme_pca or None,
        },
    )
    about = attribute_net(Path(config.attributes["from"]))[1]
    file = Path(config.attributes["from"]) / "recognition.json"
    extra = {
        "gamma": config.loss.gamma,
        "scales": scales,
        "tuned_factor": factor,
        "attributes_from": {**about, "mA": files.read_json(file, "mA")["mA"] if file.exists() else None},
        "missing": missing,
        **_weight_table(names, weights, query, gallery, predicted),
    }
    del extra["attributes_from"]["attribute_names"]
    formula = explain.Formula(weights, config.loss.gamma, scales["feature"], scales["attribute"])
    return rows, extra, _MadeOf(own, attributes, names, formula)


class _MadeOf(NamedTuple):
    """What ACRN's distances are made of."""

    own: methods.Features
    attributes: methods.Attributes
    names: tuple[str, ...]  # [A]
    formula: explain.Formula

    def shares(self, query: np.ndarray, gallery: np.ndarray) -> explain.Shares:
        """Of pairs [n] of places in query and gallery."""
        (f, g), (a, b) = self.own[:2], self.attributes[:2]
        return explain.shares(f[query], g[gallery], a[query], b[gallery], self.formula)


def scales_of(workdir: Path, *, unfinished: bool = False) -> dict[str, float]:
    """s_f and s_a, which a run's distances are divided by, as {"feature": s_f, "attribute": s_a}."""
    saved = phases.load(Path(workdir) / "reid", unfinished=unfinished)["scales"]
    return {name: float(value) for name, value in saved.items()}


def learned_weights(
    config: Any, workdir: Path, names: tuple[str, ...], train: np.ndarray | None, *, unfinished: bool = False
) -> np.ndarray:
    """[A] the attribute weights w that a run's distances use; form unit_mean wants training attributes [N, A]."""
    kind = config.loss.attribute_weights
    if kind != "learned":
        return np.ones(len(names), np.float32) if kind == "uniform" else build.given_weights(config, names)
    saved = phases.load(Path(workdir) / "reid", unfinished=unfinished)
    raw = build.optimizer.final_params(saved)["attribute_weights"]["raw"]
    return np.asarray(
        effective_weights(
            raw,
            form=config.loss.weight_form,
            attributes=None if train is None else train[:2000],
            distance=config.loss.distance,
        )
    )


def _check_beside(config, workdir, baseline, tune):
    """ValueError unless the runs beside a run are there for it, and are its own."""
    if baseline and not weighted(config):
        raise ValueError(f"{workdir} is no ACRN run, and only such a run takes --baseline; leave it out.")
    if tune and not baseline:
        raise ValueError("--tune goes with --baseline, whose fusion with attributes it tunes; give both.")
    if baseline:
        _check_baseline(config, workdir, baseline)
    if tune:
        _check_baseline(config, workdir, tune, tunes=True)


def _check_baseline(config, workdir, folder, *, tunes=False):
    """ValueError unless the run in `folder` is the ReIdCNN of the run in `workdir`; both are named, and what differs.

    `tunes`: it is the one on whose held-out people the fusion factor is chosen, and may hold others out.
    """
    theirs, what = read_config(folder), f"{'--tune' if tunes else '--baseline'}={folder}"
    if "mva" in theirs.phases or theirs.loss.kind != "classic":
        kind = "an attribute net" if "mva" in theirs.phases else f"of loss.kind={theirs.loss.kind!r}"
        raise ValueError(f"{what} is {kind}; a ReIdCNN, with loss.kind='classic', is wanted.")
    if tunes and not theirs.data.validation_identities:
        raise ValueError(f"{what} holds nobody out (config.data.validation_identities) to choose the factor on.")
    may = OF_ATTRIBUTES | ({"data.validation_identities"} if tunes else set())
    mine, other = (_flat(c.to_dict()) for c in (config, theirs))
    keys = [key for key in _differing(mine, other, (*FREE, "mva.", "reid.attribute_weights.")) if key not in may]
    told = [f"{key} is {other.get(key)!r} there, {mine.get(key)!r} here" for key in keys]
    began = ["identity" in c.phases or bool(c.init_from) for c in (theirs, config)]
    if began[0] != began[1]:
        told.append(f"it was trained {'after' if began[0] else 'without'} an identity phase, this run not so")
    made, known = (phases.read(Path(run) / "reid") or {} for run in (folder, workdir))
    alone = tunes or ("identity" in theirs.phases and "identity" in config.phases)  # each began for itself
    for kind in ("data", *(() if tunes else ("records",)), *(() if alone else ("start",))):
        there, here = made.get(kind), known.get(kind)
        if there and here and there["fingerprint"] != here["fingerprint"]:
            marks = [f"{entry['name']} (fingerprint {entry['fingerprint'][:12]})" for entry in (there, here)]
            told.append(f"it {phases.KINDS[kind][0]} {marks[0]}, this run {marks[1]}")
    if told:
        more = f" and {len(told) - 5} more" if len(told) > 5 else ""
        raise ValueError(
            f"{what} does not belong in one table with {workdir}: {'; '.join(told[:5])}{more}. Train it as this "
            "run but for --config.loss.kind=classic (./launch.sh reproduce does), or evaluate each for itself and put "
            f"them beside each other with ./launch.sh report --workdir={workdir},{folder}."
        )


def _tuned_factor(config, folder, predicted, shown, scales):
    """Factor chosen on people whom the ReIdCNN in `folder` did not train on, or None if it trained on all."""
    theirs = read_config(folder, data_dir=config.data.dir)
    check_data(theirs, folder)
    _, held = build.reid_splits(theirs)
    if held is None:
        return None
    factor, _ = methods.tune_factor(
        outputs(folder, held, batch=config.evaluate.batch)["feature"],
        predicted.of(held, shown),
        held.labels,
        distance=config.loss.distance,
        feature_scale=scales_of(folder)["feature"],
        attribute_scale=scales["attribute"],
    )
    return float(factor)


def _weight_table(names, weights, query, gallery, predicted):
    """Learned weights beside what is known of each attribute on the target's test images."""
    probabilities = np.concatenate([predicted[s.name.split("/")[-1]].of(s, "probabilities") for s in (query, gallery)])
    person = np.concatenate([query.person_id, gallery.person_id])
    ratio = recognition.between_within(probabilities, person)
    reliability = query.metadata.get("reliability") or {}
    accuracy = dict.fromkeys(names)
    common = [n for n in names if n in query.attribute_names]
    if common:
        people = person > 0
        labels = np.concatenate([split.attributes_of(common) for split in (query, gallery)])[people]
        scored = recognition.evaluate(probabilities[people][:, [names.index(n) for n in common]], labels)
        accuracy |= {n: _number(v) for n, v in zip(common, scored.attribute_mA, strict=True)}
    entries = [
        {
            "name": n,
            "weight": float(w),
            "reliability": reliability.get(n),
            "accuracy": accuracy[n],
            "between_within": _number(r),
        }
        for n, w, r in zip(names, weights, ratio, strict=True)
    ]
    return {"weights": entries} | {
        f"spearman_weight_{key}": _spearman(entries, key) for key in ("reliability", "accuracy", "between_within")
    }


def _spearman(entries, key):
    pairs = np.array([(abs(e["weight"]), e[key]) for e in entries if e[key] is not None]).reshape(-1, 2)
    return _number(correlation.spearman(*pairs.T))


def _rank_lists(config, workdir, rows, query, gallery, protocol, scored, made_of):
    """rank_lists.json: the hardest queries and a random choice, with thumbnails and, where they add up, shares."""
    precision = np.where(scored.counted, scored.per_query["mAP_precision"], np.inf)
    count = min(config.evaluate.rank_lists, len(query))
    choices = {
        "hardest": np.argsort(precision, kind="stable")[:count],
        "random": np.random.default_rng(config.seed).permutation(len(query))[:count],
    }

    def shares(q, found):
        """Of the feature and of the three attributes with the largest ones, an entry for each image."""
        if not made_of or config.loss.distance != explain.ADDITIVE:
            return [{}] * len(found)
        parts = made_of.shares(np.full(len(found), q), found)
        return [
            {"shares": {"feature": float(f)} | {made_of.names[i]: float(a[i]) for i in np.argsort(-a)[:TOLD]}}
            for f, a in zip(parts.feature, parts.attributes, strict=True)
        ]

    lists = {}
    for name, chosen in choices.items():
        found = ranking.rank_list(rows, query.labels, gallery.labels, protocol=protocol, k=len(gallery), queries=chosen)
        lists[name] = []
        for q, order, distance, right in zip(chosen, found.order, found.distance, found.right, strict=True):
            places = _shown_places(int(np.sum(order >= 0)), right)
            of_place = zip(
                places, *(x[places] for x in (order, distance, right)), shares(q, order[places]), strict=True
            )
            lists[name].append(
                {
                    **_thumbnail(workdir, query, int(q)),
                    "average_precision": float(scored.per_query["mAP_precision"][q]),
                    "gallery": [
                        {
                            **_thumbnail(workdir, gallery, int(g)),
                            "rank": int(place) + 1,
                            "distance": float(d),
                            "right": bool(r),
                            **more,
                        }
                        for place, g, d, r, more in of_place
                    ],
                }
            )
    write_json(workdir / "rank_lists.json", {"query": lists})


def _shown_places(count, right):
    """Places of a ranking to show: the first SHOWN, the last of which gives way to a first right one after it."""
    places = np.arange(min(SHOWN, count))
    first = np.flatnonzero(right[:count])[:1]
    if len(first) and first[0] >= SHOWN:
        places[-1] = first[0]
    return places


def _look_alikes(config, workdir, rows, query, gallery, protocol, made_of):
    """look_alikes.json: people whom the feature takes for one and attributes tell apart, as the paper's figure 1."""
    near = fusion.distance_rows(config.loss.distance, *made_of.own[:2])
    found = explain.confusions(
        near, rows, query.labels, gallery.labels, protocol=protocol, count=config.evaluate.rank_lists
    )
    asked, known = made_of.attributes[:2]
    pairs = []
    for q, wrong, right in zip(*found, strict=True):
        images, index = np.array([wrong, right]), np.array([q])
        by_feature, whole = (np.asarray(of(index))[0, images] for of in (near, rows))
        away, close = (made_of.formula.weights * (known[images] - asked[q])) ** 2
        told = [int(i) for i in np.argsort(close - away, kind="stable")[:TOLD]]
        entry = {"query": _thumbnail(workdir, query, int(q))}
        for place, name in enumerate(("wrong", "right")):
            distances = {
                "feature_distance": float(by_feature[place] / made_of.own.scale),
                "distance": float(whole[place]),
            }
            entry[name] = _thumbnail(workdir, gallery, int(images[place])) | distances
        values = {"query": asked[q], "wrong": known[wrong], "right": known[right]}
        entry["attributes"] = [
            {"name": made_of.names[i]} | {who: float(of[i]) for who, of in values.items()} for i in told
        ]
        pairs.append(entry)
    about = {
        "representation": config.attributes.representation,
        "recognition": recognition_rates(Path(config.attributes["from"])),
    }
    write_json(workdir / "look_alikes.json", {**about, "pairs": pairs})


def _thumbnail(workdir, split, i):
    name = hashlib.sha256(split.key[i].encode()).hexdigest()[:16]
    file = workdir / "thumbnails" / f"{name}.jpg"
    if parallel.is_primary() and not file.exists():
        image = Image.fromarray(transforms.decode(split.image_bytes(i), key=split.key[i]))
        image = image.resize((max(1, round(image.width * THUMBNAIL / image.height)), THUMBNAIL))
        data = io.BytesIO()
        image.save(data, "jpeg", quality=90)
        files.write_bytes(file, data.getvalue())
    return {
        "image": f"thumbnails/{file.name}",
        "person_id": int(split.person_id[i]),
        "camera_id": int(split.camera_id[i]),
        "file_name": str(split.file_name[i]),
    }


def _provenance(config):
    return {
        "seeds": {"train": config.seed},
        "config": json.loads(config.to_json_best_effort()),
        "commit": provenance.commit(),
        "versions": provenance.versions(PACKAGES),
        "device": jax.devices()[0].device_kind,
    }


def _number(value):
    return None if not np.isfinite(value) else (int(value) if isinstance(value, int) else float(value))


# The run chain


def begin(config: Any, *, attributes: Path | None, shared: Callable[[str, Any], Path] | None = None) -> Any:
    """The config of `reproduce`'s ACRN run: with the attribute net, from the shared identity phase if there is one."""
    config = config.copy_and_resolve_references()
    with config.unlocked():
        if attributes:
            config.attributes["from"] = str(attributes)
        # Before an identity phase is trained for it:
        build.check(config)
        split, _ = build.reid_splits(config)
        build.check_images(config, split)
        if config.loss.kind == "acrn":
            _check_tuning(config)
            check_overlap(config, [split])
        tested = _check_test(config, split)
        if config.loss.kind == "acrn":
            check_overlap(config, tested)
        if shared and "identity" in config.phases:
            first = config.copy_and_resolve_references()
            first.phases = ("identity",)
            config.phases, config.init_from = ("reid",), str(shared("identity", first) / "identity")
    return config


def reproduce(
    config: Any, *, attributes: Path | None, workdir: Path, shared: Callable[[str, Any], Path] | None = None
) -> dict[str, Any]:
    """One seed of method.md's chain: ACRN with its identity phase, the ReIdCNN that shares it, the table of methods.

    Args:
      config: of ACRN, with its seed; of a ReIdCNN, which then comes alone.
      attributes: workdir of a trained attribute net; a ReIdCNN needs none.
      workdir: ACRN's workdir; the ReIdCNN goes to workdir/baseline.
      shared: trains what other runs may need too, ("identity" | "baseline" | "tune", its config) -> its workdir;
        default: all of it lies in `workdir`.
    """
    if "mva" in config.phases:
        raise ValueError("reproduce is of re-id nets; an attribute net is trained with ./launch.sh train.")
    phases, first_net = config.phases, config.init_from
    config = begin(config, attributes=attributes, shared=shared)
    train(config, workdir)
    if config.loss.kind == "classic":
        return evaluate(workdir)

    def beside(name, settings):
        train(settings, workdir / name)
        return workdir / name

    base = config.copy_and_resolve_references()
    with base.unlocked():
        base.phases, base.loss.kind = ("reid",), "classic"
        base.init_from = str(workdir / "identity") if "identity" in config.phases else config.init_from
    baseline = (shared or beside)("baseline", base)
    tune = None
    if _tunes(config):
        held = base.copy_and_resolve_references()
        with held.unlocked():
            held.phases, held.init_from = phases, first_net
            held.data.validation_identities = config.evaluate.tune_identities
        tune = (shared or beside)("tune", held)
    return evaluate(workdir, baseline=baseline, tune=tune)


def check_seeds(workdir: Path, config: Any, count: int) -> None:
    """ValueError if `workdir` holds another seed's run (seed_N) of another config than `config`, or attribute net.

    What `reproduce` leaves there is shown as one method, mean and deviation. The last of `count` seeds must be one.
    """
    rules.check({"seed": config.seed + count - 1})
    for folder in sorted(workdir.glob("seed_*")):
        if not (folder / "config.json").is_file():
            continue
        theirs = read_config(folder)
        mine, other = (_flat(c.to_dict()) for c in (config, theirs))
        if differing := _differing(mine, other, (*FREE, "seed")):
            shown = "; ".join(f"{key} is {other.get(key)!r} there, {mine.get(key)!r} here" for key in differing[:5])
            raise ValueError(f"{folder} is of another config: {shown}. Use another --workdir, or the same config.")
        check_attributes(config, folder)


def _check_test(config, split):
    """Query and gallery, of which evaluation has nothing to refuse after training on `split`.

    Raises:
      ValueError: the labels do not fit the protocol, queries have no match, images of `split` are among them.
      FileNotFoundError: there are no such splits.
    """
    query, gallery, protocol = _tested(config, config)
    ranking.check(query.labels, gallery.labels, protocol=protocol, no_match=config.evaluate.no_match)
    if protocol.name == "market1501_multi_query":
        boxes = build.open_split(config, "multi_query")
        protocols.multi_query(np.zeros((len(boxes), 1)), boxes.labels, query.labels)
    for tested in (query, gallery):
        if not config.attributes.allow_overlap and (shared := _shared(split, tested)):
            raise ValueError(
                f"{len(shared)} images of {tested.name} would be trained on too, e.g. {shared[0]}; score on other "
                "images, or pass --config.attributes.allow_overlap=True."
            )
    return query, gallery


def _tunes(config):
    """Whether `reproduce` trains a ReIdCNN more, without people on whom the fusion factor is then chosen."""
    return bool(config.evaluate.tune_identities and not config.data.validation_identities)


def _check_tuning(config):
    """ValueError where too few people would be left for that ReIdCNN."""
    if not _tunes(config):
        return
    held = config.copy_and_resolve_references()
    held.data.validation_identities = config.evaluate.tune_identities
    try:
        build.check_images(held, build.reid_splits(held)[0])
    except ValueError as error:
        raise ValueError(
            f"config.evaluate.tune_identities={config.evaluate.tune_identities} holds people out of an extra run, for "
            f"which {error} Set it to 0 to go without ReIdCNN+Attributes-tuned."
        ) from error
