"""Probabilities of attributes that mean what they say: Platt's curve of a net, and what is known of it."""

import contextlib
from typing import Any

import numpy as np

from acrn_jax import build, files
from acrn_jax.evaluation import calibration
from acrn_jax.runs import picture_cache
from acrn_jax.runs.run import AttributeRun
from acrn_jax.runs.workdir import read_config


def calibrated(net: AttributeRun, data_dir: str | None = None) -> tuple[calibration.Platt, dict[str, Any]]:
    """Platt's correction of a net's logits, and what `calibration.told` tells of it.

    Fitted on the net's val split, where there is one that it was not trained on, and kept in the user's cache. Whether
    it holds for other pictures nobody knows: they have no labels.

    Args:
      net: a finished attribute net.
      data_dir: where its prepared data is; default: where it was in training.
    """
    names, fingerprint, about = net.names, net.fingerprint, {"recognition": net.recognition_rates}
    place = picture_cache.place_of(net)
    kept = None if place is None else place / "calibration.json"
    for file in (kept, net.workdir / "search" / "calibration.json"):  # the second is where version 0.2 kept it
        stored = files.read_json(file) if file is not None and file.exists() else {}
        if stored.get("net") == fingerprint and "fitted_on" in stored.get("about", {}):
            curve = calibration.Platt(*(np.array(stored[key]) for key in calibration.Platt._fields))
            return curve, stored["about"] | about
    net = AttributeRun(net.workdir, read_config(net.workdir, data_dir=data_dir))
    raw = calibration.Platt(np.ones(len(names)), np.zeros(len(names)), np.zeros(len(names), bool))
    try:
        net.check_data()
        held, trained = build.open_split(net.config, "val"), build.attribute_split(net.config)
    except (ValueError, FileNotFoundError) as error:
        return raw, {"kind": "raw", "why": str(error).rstrip(".")} | about
    if shared := len(np.intersect1d(held.key, trained.key)):
        return raw, {"kind": "raw", "why": f"the net was trained on {shared:,} images of {held.name}"} | about
    curve = calibration.platt(net.outputs(held, quiet=True)["attribute_logits"], held.attributes_of(names))
    left = [name for name, fitted in zip(names, curve.fitted, strict=True) if not fitted]
    fitted = {"kind": "fitted", "fitted_on": held.name, "images": len(held), "raw": left}
    content = {"net": fingerprint, "about": fitted, **{key: value.tolist() for key, value in curve._asdict().items()}}
    if kept is not None:
        with contextlib.suppress(files.WriteError):  # it is fitted anew then
            files.write_json(kept, content)
    return curve, fitted | about
