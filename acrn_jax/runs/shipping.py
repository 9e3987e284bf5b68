"""A finished run, written as a net that ships: ./launch.sh export --format=net; docs/models.md."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util

from acrn_jax import COMMAND, build, files, provenance, results
from acrn_jax.data import source
from acrn_jax.export import bundle, net_file
from acrn_jax.runs import attribute_calibration, bundles, face, nets, overlap, pair_calibration, phases
from acrn_jax.runs.origin import PACKAGES
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, Run, attribute_net, load
from acrn_jax.settings import Settings
from acrn_jax.train import optimizer

NOWHERE = "DATA_DIR"  # in place of the folder that the trainer's data lay in
TOLERANCE = 0.03  # of float16: the largest difference of any value, as a share of the output's root mean square
# Keys of a card that --card may set: what a run does not know of itself.
OF_CARD = ("calibration", "command", "cost", "limits", "notes", "scores", "training")


def export_net(
    workdir: Path,
    out: Path,
    *,
    attributes_name: str | None = None,
    card: Path | None = None,
    sample: int = 64,
    data_dir: str | None = None,
    attributes: Path | None = None,
    large: bool = False,
) -> dict[str, Any]:
    """Writes the net of a run, as it is evaluated, to a folder of two files, and returns its card.

    Args:
      workdir: a finished run, whose training images are at hand.
      out: the folder to make; its name is the net's.
      attributes_name: name of the net that ships of the run's attribute net, which was exported before; of a ReIdCNN,
        an attribute net to describe pictures with.
      card: a JSON file of keys of OF_CARD, merged into the card.
      sample: training images that the rounded net is compared on with the run's, beside drawn ones.
      data_dir: where prepared data is now; default: where the run was trained.
      attributes: where the attribute net is now; default: see `phases.locate`.
      large: a file of more than net_file.LIMIT bytes is meant.

    Raises:
      ValueError: the run is not finished, is none of attributes or of triplets, lacks its attribute net's name, or
        rounding changes what it says.
      FileNotFoundError: no run, or its training images or attribute net are not there.
      FileExistsError: there is something at `out`.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; name another --out, or delete it.")
    files.check(out)
    run = load(workdir, attributes=attributes, data_dir=data_dir)
    if run.ships or run.config.last_phase not in ("mva", "reid"):
        what = "already a net that ships" if run.ships else f"at phase {run.config.last_phase}"
        raise ValueError(f"{run.workdir} is {what}; name a finished run of an attribute net, a ReIdCNN or ACRN.")
    extra = _card_of(card)
    run.check_data()
    run.check_attributes()
    split = build.training_split(run.config)
    beside = _beside(run, out, attributes_name)
    content = _describe(run, out.name, split, beside)
    with files.new_folder(out) as partial:
        written = net_file.write(partial, _values(run), nets.digests(split), large=large)
        content = _merged(content | written, extra)
        files.write_json(partial / net_file.CARD, content)
        content["float16"] = _compare(run, load(partial), split, sample)
        files.write_json(partial / net_file.CARD, content)
    return content


def _values(run: Run) -> dict[str, np.ndarray]:
    """Of the net by name, without the classifier of training, and the raw attribute weights where they are learned."""
    tree: dict[str, Any] = {"params": {"net": run.variables["params"]}, "batch_stats": run.variables["batch_stats"]}
    params = optimizer.final_params(run.state)
    if "attribute_weights" in params:
        tree["params"]["attribute_weights"] = params["attribute_weights"]
    flat = traverse_util.flatten_dict(tree, sep="/")
    return {
        str(name): np.asarray(value, np.float32)
        for name, value in flat.items()
        if not str(name).startswith("params/net/classifier/")
    }


def _card_of(file: Path | None) -> dict[str, Any]:
    extra = {} if file is None else files.read_json(file)
    if wrong := [key for key in extra if key not in OF_CARD]:
        raise ValueError(
            f"--card={file} sets {wrong[0]!r}, which the run itself says or nothing reads; it takes "
            f"{', '.join(OF_CARD)}."
        )
    return extra


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Both, objects within objects too; of what else is in both, the new one."""
    both = {
        key: _merged(old[key], new[key])
        for key in old.keys() & new.keys()
        if isinstance(old[key], Mapping) and isinstance(new[key], Mapping)
    }
    return {**old, **new, **both}


def _beside(run: Run, out: Path, name: str | None) -> AttributeRun | None:
    """The net that ships of an attribute net, by its name: beside `out`, or where nets are."""
    if isinstance(run, AttributeRun):
        if name:
            raise ValueError(f"{run.workdir} is an attribute net and wants no other; leave --attributes_name out.")
        return None
    if not name:
        if isinstance(run, AcrnRun):
            raise ValueError(
                f"{run.workdir} is an ACRN run, whose attribute net {run.attribute_net.workdir} ships as a net of its "
                f"own; first {COMMAND} export --workdir={run.attribute_net.workdir} --out=NAME --format=net, then name "
                "it: --attributes_name=NAME."
            )
        return None
    if len(Path(name).parts) != 1:
        raise ValueError(f"--attributes_name={name} is a path; it takes the name of a net's folder beside --out.")
    place = out.parent / name if nets.is_net(out.parent / name) else nets.known().get(name)
    if place is None:
        raise FileNotFoundError(
            f"There is no net {name!r} beside {out}, nor among the installed ones; export the attribute net first."
            f"{nets.hint(name)}"
        )
    net = attribute_net(place)
    if isinstance(run, AcrnRun) and run.attribute_net.fingerprint not in (
        nets.card(place)["values"],
        net.fingerprint,
    ):
        raise ValueError(
            f"--attributes_name={name} is not of the attribute net {run.attribute_net.workdir} that {run.workdir} was "
            "trained with; export that one, and name it."
        )
    return net


def _describe(run: Run, name: str, split: source.Split, net: AttributeRun | None) -> dict[str, Any]:
    """What the card says, but for the weights and what rounding does."""
    config, state = run.config, run.state
    beside = net.workdir.name if net else None
    kept: dict[str, Any] = {
        "data.dir": NOWHERE,
        "attributes.from": beside,
        "init_from": None,
        "loss.attribute_weights_file": None,
    }
    kept["attributes.allow_overlap"] = False  # what training was allowed, scoring is not
    kind = "attributes" if isinstance(run, AttributeRun) else "acrn" if isinstance(run, AcrnRun) else "reid"
    content: dict[str, Any] = {
        "format": f"{net_file.NAME} {net_file.VERSION}",
        "name": name,
        "kind": kind,
        "parameters": sum(np.size(leaf) for part, leaf in _values(run).items() if part.startswith("params/net/")),
        "preprocessing": config.data.preprocessing,
        "attribute_names": list(run.names if isinstance(run, AttributeRun) else net.names if net else ()),
        "attributes": beside,
        "distance": config.loss.distance,
        "representation": config.attributes.representation,
    }
    curves = None
    if isinstance(run, ReidCnnRun):
        content["scales"] = run.scales
    if isinstance(run, AcrnRun):
        weights = run.weights(run.training_attributes())
        content["gamma"] = config.loss.gamma
        content["weights"] = dict(zip(run.attribute_net.names, map(float, weights), strict=True))
    if isinstance(run, AttributeRun):
        content["recognition"] = _recognition(run)
        curves = attribute_calibration.for_card(run)
    return content | {
        "training": _training(config, split),
        "command": None,
        "scores": _scores(run.workdir),
        "calibration": ({"attributes": curves} if curves else {}) | _pairs(run) or None,
        "seeds": {"train": config.seed},
        "commit": provenance.commit(),
        "versions": provenance.versions(PACKAGES),
        "step": int(state["step"]),
        "values": run.fingerprint,
        "made_of": _made_of(run, net),
        "config": dict(config.changed(kept).tree),
    }


def _pairs(run: Run) -> dict[str, Any]:
    """What `calibrate` left in the workdir, as a card has it."""
    found, _ = pair_calibration.find(run)
    return {} if found is None else {"pairs": found.record.to_json()}


def _training(config: Settings, split: source.Split) -> dict[str, Any]:
    """What the net was trained on: `parts` are what overlap.parts_of calls what may show people of other sets."""
    name, nested = (
        str(config.data.name),
        {part.split("/")[0] for pair in overlap.SAME_PEOPLE for part in pair if "/" in part},
    )
    parts = [part for part in overlap.parts_of(name, split) if "/" not in part or part.split("/")[0] in nested]
    found: dict[str, Any] = {
        "data": f"{name}/{config.data.config}/{config.data.train_split}",
        "images": len(split),
        "people": len(np.unique(split.person_id[split.person_id > 0])),
        "parts": sorted(parts),
        "split": {"dataset": split.name, "fingerprint": split.fingerprint},
        "terms": None,
    }
    if "parts" in split.metadata:  # of a mixture
        told = ("dataset", "config", "fingerprints", "images", "people")
        found["mixture"] = [{key: entry.get(key) for key in told} for entry in split.metadata["parts"]]
    return found


def _made_of(run: Run, net: AttributeRun | None) -> dict[str, Any]:
    """inputs.json of the phase, without the paths of the trainer's machine."""
    made_of: dict[str, Any] = {"steps": int(run.state["step"]), **(phases.read(run.phase) or {})}
    for kind in made_of.keys() & phases.KINDS.keys():
        if made_of[kind]:
            name = str(made_of[kind]["name"])
            short = name if kind in ("data", "records") else "/".join(Path(name).parts[-2:])
            made_of[kind] = phases.entry(short, made_of[kind]["fingerprint"])
    if net and isinstance(run, AcrnRun):
        made_of["attributes"] = phases.entry(net.workdir.name, net.fingerprint, path=f"../{net.workdir.name}")
    return made_of


def _recognition(run: AttributeRun) -> dict[str, Any] | None:
    """recognition.json, but for what the card says elsewhere."""
    if run.recognition is None:
        return None
    return dataclasses.replace(run.recognition, made_of=None, config={}, versions={}).to_json()


def _scores(workdir: Path) -> list[dict[str, Any]]:
    """A short entry for each result file in the workdir, of the run's own data set first."""
    found: list[dict[str, Any]] = []
    for folder in (workdir, *sorted(workdir.glob("on_*"))):
        if (file := folder / "results.json").is_file():
            of = results.Results.read(file)
            found.append({
                "dataset": of.dataset, "protocol": of.protocol, "queries": of.queries, "gallery": of.gallery,
                "methods": {name: dict(metrics) for name, metrics in of.to_json()["methods"].items()},
            })  # fmt: skip
        if (file := folder / "recognition.json").is_file():
            part = results.Recognition.read(file)
            found.append({"dataset": part.dataset, "split": part.split, "images": part.images, "mA": part.mA})
    return found


def _compare(run: Run, net: Run, split: source.Split, sample: int) -> dict[str, Any]:
    """How far what the rounded net says is from what the run says, of each output; ValueError if too far."""
    rows = np.unique(np.linspace(0, len(split) - 1, sample).astype(int)) if sample else np.zeros(0, int)
    drawn = face.pictures(bundles.draw(*bundles.SIZE))
    name = "attribute_logits" if isinstance(run, AttributeRun) else "feature"
    said = [
        np.concatenate([of.outputs(part, quiet=True)[name] for part in (split.take(rows), drawn) if len(part)])
        for of in (run, net)
    ]
    parity = bundle.compare({name: said[0]}, {name: said[1]})
    if not parity[name]["relative"] <= TOLERANCE:
        raise ValueError(
            f"Rounded to float16, the net of {run.workdir} says {name} that differ by {parity[name]['relative']:.1e} "
            f"of their root mean square, more than {TOLERANCE:g}; was its training stable?"
        )
    return {"images": len(said[0]), "of_these_drawn": len(drawn), **parity}
