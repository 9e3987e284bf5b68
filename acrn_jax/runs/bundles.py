"""What the verb export does: from a run's workdir to a bundle that leaves the house."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import COMMAND, build, files, provenance
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import calibration, explain
from acrn_jax.export import bundle
from acrn_jax.export.model import OUTPUTS, Model, Net
from acrn_jax.runs import pair_calibration
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, Run, attribute_net, load

DRAWN = 8  # images of nobody in each bundle
RAW = "the sigmoid of what the net says, on whatever pictures"
SIZE = (128, 64)  # of these, pixels, where there is no data set to take it from


def export(
    workdir: Path,
    out: Path,
    *,
    formats: Sequence[str],
    outputs: Sequence[str] = (),
    input: str = "uint8_nhwc",
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
      input: of export.model.INPUTS.
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
    run = load(workdir, attributes=attributes, data_dir=data_dir)
    run.check_data()
    run.check_attributes()
    split = _training_split(run)
    model, about = describe(run, outputs)
    net = about["nets"].get("attributes" if isinstance(run, AttributeRun) else "reid")
    if split is not None and net:
        _check_finished(run, split, net["step"])
    own = _pictures(split, sample) if split is not None and sample else np.empty((0, *SIZE, 3), np.uint8)
    about["commit"] = provenance.commit()
    packages = ["jax", "jaxlib", "flax", "numpy", "pillow", *(["onnx", "onnxruntime"] if "onnx" in formats else [])]
    about["versions"] = provenance.versions(packages)
    about["compared_on"] = f"{split.name if split is not None and sample else 'no data set'} and {DRAWN} drawn images"
    return bundle.write(
        out,
        model._replace(input=input),
        formats,
        images=np.concatenate([own, draw(*own.shape[1:3])]),
        drawn=DRAWN,
        resized=transforms.resize,
        tolerance=tolerance,
        about=about,
    )


def describe(run: Run, outputs: Sequence[str]) -> tuple[Model, dict[str, Any]]:
    """(what to export of a run, entries for the manifest)."""
    config, net = run.config, None
    if isinstance(run, AttributeRun):
        net = attribute_net(run.workdir)
    elif isinstance(run, AcrnRun):
        net = run.attribute_net
    refused = _refused(run)
    for name in outputs:
        if name not in OUTPUTS:
            raise ValueError(f"There is no output {name!r}; known: {', '.join(OUTPUTS)}.")
        if refused[name]:
            raise ValueError(f"{run.workdir} cannot give --output={name}: {refused[name]}.")
    outputs = tuple(name for name in OUTPUTS if name in (outputs or OUTPUTS) and not refused[name])
    about: dict[str, Any] = {"refused": {name: reason for name, reason in refused.items() if reason}, "nets": {}}
    about["config"] = dict(config.tree)
    nets: dict[str, Net] = {}
    if net and {"attributes", "embedding"} & set(outputs):
        nets["attributes"] = _net(net, "attributes", about)
        about |= {"attribute_names": list(net.names), "attribute_config": dict(net.config.tree)}
        worth = {"kind": "raw", "why": RAW, "recognition": net.recognition_rates}
        about["probabilities"] = {"kind": "raw", "recognition": worth["recognition"], "note": calibration.told(worth)}
    factors: tuple[float, Any] = (1.0, None)
    if isinstance(run, ReidCnnRun) and {"feature", "embedding"} & set(outputs):
        nets["reid"] = _net(run, "reid", about)
        scales, formula = run.scales, explain.Formula(np.zeros(0, np.float32), 0.0, run.scales["feature"])
        if isinstance(run, AcrnRun):
            weights, gamma = run.weights(run.training_attributes()), config.loss.gamma
            formula = explain.Formula(weights, gamma, scales["feature"], scales["attribute"])
            about |= {"gamma": gamma, "distance": config.loss.distance}
            about["representation"] = config.attributes.representation
            about["weights"] = dict(zip(run.attribute_net.names, map(float, weights), strict=True))
            if "embedding" in outputs:
                louder = np.float32(math.sqrt(gamma / scales["attribute"]))
                factors = 1 / math.sqrt(scales["feature"]), louder * weights
        pairs = pair_calibration.held(run, formula)
        about |= {"scales": scales} | ({} if isinstance(pairs, str) else {"pairs": pairs.record.to_json()})
    representation = config.attributes.representation
    return Model(outputs, nets.get("reid"), nets.get("attributes"), representation, *factors), about


def _net(run: Run, name: str, about: dict[str, Any]) -> Net:
    """The net of a run; its step and preprocessing go into the manifest's entries `about`."""
    resize = {"resize": "bilinear, antialiased, columns first, 8 bits"}
    preprocessing = run.config.data.preprocessing
    about["nets"][name] = {"step": int(run.state["step"]), "preprocessing": preprocessing | resize}
    return Net(run.module, run.variables, **preprocessing)


def _refused(run: Run) -> dict[str, str]:
    """Output -> why the run cannot give it, or nothing."""
    alone = isinstance(run, AttributeRun)
    return {
        "embedding": _no_embedding(run),
        "feature": "the run has no re-id net" if alone else "",
        "attributes": "" if alone or isinstance(run, AcrnRun) else "the run has no attribute net",
    }


def draw(height: int, width: int) -> np.ndarray:
    """Images of nobody, uint8 [DRAWN, height, width, 3]: coloured blocks on a gradient."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (DRAWN, -(-height // 16), -(-width // 16), 3)).repeat(16, axis=1).repeat(16, axis=2)
    slope = np.linspace(0.5, 1, height)[:, None, None]
    return (slope * blocks[:, :height, :width]).astype(np.uint8)


def _no_embedding(run: Run) -> str:
    """Why there is no z, or nothing."""
    config = run.config
    if not isinstance(run, AcrnRun):
        return "without both a re-id net and an attribute net there is nothing to join"
    if config.loss.distance != "squared_euclidean":
        return (
            f"the run's distance is {config.loss.distance}, and only squared Euclidean distances of features and "
            "attributes add up to one of their concatenation"
        )
    return ""


def _training_split(run: Run) -> source.Split | None:
    """The images that the run's last phase trained on, or None where they are not at hand."""
    try:
        return build.training_split(run.config)
    except FileNotFoundError:
        return None


def _check_finished(run: Run, split: source.Split, step: int) -> None:
    """Of a run of an older version, which does not say itself how many steps it was to take; see phases.load."""
    steps = build.planned_steps(run.config, run.config.last_phase, split)
    if step < steps:
        raise ValueError(
            f"{run.workdir} is at step {step} of {steps} of phase {run.config.last_phase}; "
            f"end it by the same {COMMAND} train as before."
        )


def _pictures(split, count):
    """Images spread over a split, uint8 [n, H, W, 3]; all of the first one's size, as one array has one size."""
    rows = np.unique(np.linspace(0, len(split) - 1, count).astype(int))
    images = [transforms.decode(split.image_bytes(int(row)), key=split.key[row]) for row in rows]
    return np.stack([transforms.resize(image, *images[0].shape[:2]) for image in images])
