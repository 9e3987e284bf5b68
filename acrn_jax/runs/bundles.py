"""What the verb export does: from a run's workdir to a bundle that leaves the house."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import build, files, provenance, runs
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import calibration
from acrn_jax.export import bundle
from acrn_jax.export.model import OUTPUTS, Model, Net

DRAWN = 8  # images of nobody in each bundle
RAW = "the sigmoid of what the net says, on whatever pictures"
SIZE = (128, 64)  # of these, pixels, where there is no data set to take it from


def export(
    workdir: Path,
    out: Path,
    *,
    formats: Sequence[str],
    outputs: Sequence[str] = (),
    tolerance: float = 1e-4,
    sample: int = 64,
    data_dir: str | None = None,
    attributes: Path | None = None,
) -> dict[str, Any]:
    """Writes the nets of a run as a bundle and returns its manifest.

    Args:
      workdir: an ACRN run (both nets go out), a ReIdCNN or an attribute run.
      out: the folder to make.
      formats: of bundle.FILES.
      outputs: of OUTPUTS; default: all that the run has.
      tolerance: largest difference from the net here, as a share of the output's root mean square.
      sample: training images, where they are at hand, that nets are compared on beside the drawn ones.
      data_dir: where prepared data is now; default: where the run was trained.
      attributes: where the attribute net is now; default: see `phases.locate`.

    Raises:
      ValueError: the run is not finished, has another attribute net or other data than in training, lacks an asked
        output, or a written program differs.
      FileNotFoundError: no run, or its attribute net is gone.
    """
    bundle.check_formats(formats)
    files.check(out)
    config = runs.read_config(workdir, attributes=attributes, data_dir=data_dir)
    runs.check_data(config, workdir)
    runs.check_attributes(config, workdir)
    split = _training_split(config)
    model, about = describe(config, workdir, outputs)
    phase = config.phases[-1]
    net = about["nets"].get("attributes" if phase == "mva" else "reid")
    if split is not None and net:
        _check_finished(config, split, phase, net["step"], workdir)
    own = _pictures(split, sample) if split is not None and sample else np.empty((0, *SIZE, 3), np.uint8)
    about["commit"] = provenance.commit()
    packages = ["jax", "jaxlib", "flax", "numpy", "pillow", *(["onnx", "onnxruntime"] if "onnx" in formats else [])]
    about["versions"] = provenance.versions(packages)
    about["compared_on"] = f"{split.name if split is not None and sample else 'no data set'} and {DRAWN} drawn images"
    return bundle.write(
        out,
        model,
        formats,
        images=np.concatenate([own, draw(*own.shape[1:3])]),
        drawn=DRAWN,
        resized=transforms.resize,
        tolerance=tolerance,
        about=about,
    )


def describe(config: Any, workdir: Path, outputs: Sequence[str]) -> tuple[Model, dict[str, Any]]:
    """(what to export of a run, entries for the manifest)."""
    phase = config.phases[-1]
    net_folder = workdir if phase == "mva" else config.attributes["from"] if runs.weighted(config) else None
    names = tuple(runs.attribute_names(net_folder)) if net_folder else ()
    refused = {"embedding": _no_embedding(config)}
    refused["feature"] = "the run has no re-id net" if phase == "mva" else ""
    refused["attributes"] = "" if net_folder else "the run has no attribute net"
    for name in outputs:
        if name not in OUTPUTS:
            raise ValueError(f"There is no output {name!r}; known: {', '.join(OUTPUTS)}.")
        if refused[name]:
            raise ValueError(f"{workdir} cannot give --output={name}: {refused[name]}.")
    outputs = tuple(name for name in OUTPUTS if name in (outputs or OUTPUTS) and not refused[name])
    about: dict[str, Any] = {"refused": {name: reason for name, reason in refused.items() if reason}, "nets": {}}
    about["config"] = json.loads(config.to_json_best_effort())
    nets: dict[str, Net] = {}

    def load(name, config, folder, count=0):
        found = build.trained(config, folder, attributes=count)
        nets[name] = Net(found.module, found.variables, **found.preprocessing)
        preprocessing = {**found.preprocessing, "resize": "bilinear, antialiased, columns first, 8 bits"}
        about["nets"][name] = {"step": int(found.state["step"]), "preprocessing": preprocessing}
        return found.state["scales"]

    if {"attributes", "embedding"} & set(outputs):
        theirs = runs.read_config(Path(net_folder))
        load("attributes", theirs, Path(net_folder) / "mva", len(names))
        about |= {"attribute_names": list(names), "attribute_config": json.loads(theirs.to_json_best_effort())}
        worth = {"kind": "raw", "why": RAW, "recognition": runs.recognition_rates(Path(net_folder))}
        about["probabilities"] = {"kind": "raw", "recognition": worth["recognition"], "note": calibration.told(worth)}
    factors: tuple[float, Any] = (1.0, None)
    if {"feature", "embedding"} & set(outputs):
        scales = {name: float(value) for name, value in load("reid", config, workdir / phase).items()}
        if runs.weighted(config):
            weights, gamma = (
                runs.learned_weights(config, workdir, names, runs.training_attributes(config, workdir)),
                config.loss.gamma,
            )
            about |= {"gamma": gamma, "scales": scales, "distance": config.loss.distance}
            about["representation"] = config.attributes.representation
            about["weights"] = dict(zip(names, map(float, weights), strict=True))
            if "embedding" in outputs:
                factors = 1 / math.sqrt(scales["feature"]), np.float32(math.sqrt(gamma / scales["attribute"])) * weights
    representation = config.attributes.representation
    return Model(outputs, nets.get("reid"), nets.get("attributes"), representation, *factors), about


def draw(height: int, width: int) -> np.ndarray:
    """Images of nobody, uint8 [DRAWN, height, width, 3]: coloured blocks on a gradient."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (DRAWN, -(-height // 16), -(-width // 16), 3)).repeat(16, axis=1).repeat(16, axis=2)
    slope = np.linspace(0.5, 1, height)[:, None, None]
    return (slope * blocks[:, :height, :width]).astype(np.uint8)


def _no_embedding(config):
    """Why there is no z, or nothing."""
    if not runs.weighted(config):
        return "without both a re-id net and an attribute net there is nothing to join"
    if config.loss.distance != "squared_euclidean":
        return (
            f"the run's distance is {config.loss.distance}, and only squared Euclidean distances of features and "
            "attributes add up to one of their concatenation"
        )
    return f"gamma is {config.loss.gamma}, whose root z needs" if config.loss.gamma < 0 else ""


def _training_split(config) -> source.Split | None:
    """The images that the run's last phase trained on, or None where they are not at hand."""
    try:
        return build.training_split(config)
    except FileNotFoundError:
        return None


def _check_finished(config, split, phase, step, workdir):
    """Of a run of an older version, which does not say itself how many steps it was to take; see phases.load."""
    steps = build.planned_steps(config, phase, split)
    if step < steps:
        raise ValueError(
            f"{workdir} is at step {step} of {steps} of phase {phase}; end it by the same ./launch.sh train as before."
        )


def _pictures(split, count):
    """Images spread over a split, uint8 [n, H, W, 3]; all of the first one's size, as one array has one size."""
    rows = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    images = [transforms.decode(split.image_bytes(int(row)), key=split.key[row]) for row in rows]
    return np.stack([transforms.resize(image, *images[0].shape[:2]) for image in images])
