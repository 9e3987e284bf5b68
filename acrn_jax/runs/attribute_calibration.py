"""Probabilities of attributes that mean what they say: Platt's curve of a net, and what is known of it."""

import contextlib
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np

from acrn_jax import build, files
from acrn_jax.evaluation import calibration
from acrn_jax.runs import nets, picture_cache
from acrn_jax.runs.run import AttributeRun
from acrn_jax.runs.workdir import read_config


def calibrated(net: AttributeRun, data_dir: str | None = None) -> tuple[calibration.Platt, dict[str, Any]]:
    """Platt's correction of a net's logits, and what `calibration.told` tells of it.

    Fitted on the net's val split, where there is one that it was not trained on, and kept in the user's cache; of a net
    that ships, from its card. Whether it holds for other pictures nobody knows: they have no labels.

    Args:
      net: a finished attribute net.
      data_dir: where its prepared data is; default: where it was in training.
    """
    if net.ships:
        return of_card(nets.card(net.workdir), net)
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
    print(f"calibrating {net.workdir}, once, on {len(held):,} images of {held.name}", file=sys.stderr, flush=True)
    curve = calibration.platt(net.outputs(held, quiet=True)["attribute_logits"], held.attributes_of(names))
    left = [name for name, fitted in zip(names, curve.fitted, strict=True) if not fitted]
    fitted = {"kind": "fitted", "fitted_on": held.name, "images": len(held), "raw": left}
    content = {"net": fingerprint, "about": fitted, **{key: value.tolist() for key, value in curve._asdict().items()}}
    if kept is not None:
        with contextlib.suppress(files.WriteError):  # it is fitted anew then
            files.write_json(kept, content)
    return curve, fitted | about


def for_card(net: AttributeRun) -> dict[str, Any] | None:
    """calibration.attributes of a card: "fitted_on", number of "images", and "curves", name -> [slope, offset].

    Attributes without a curve are left as they are. None where there is nothing to fit on.
    """
    curve, about = calibrated(net)
    if about["kind"] == "raw":
        return None
    rows = zip(net.names, curve.slope.tolist(), curve.offset.tolist(), curve.fitted.tolist(), strict=True)
    curves = {name: [slope, offset] for name, slope, offset, fitted in rows if fitted}
    return {"fitted_on": about["fitted_on"], "images": about["images"], "curves": curves}


def of_card(card: Mapping[str, Any], net: AttributeRun) -> tuple[calibration.Platt, dict[str, Any]]:
    """As `calibrated`, of what `for_card` gave.

    Raises:
      ValueError: it is damaged.
    """
    names, recognition = net.names, {"recognition": net.recognition_rates}
    stored = (card.get("calibration") or {}).get("attributes") or {}
    try:
        curves = {name: tuple(map(float, stored["curves"][name])) for name in names if name in stored.get("curves", {})}
        slope, offset = np.array([curves.get(name, (1.0, 0.0)) for name in names]).reshape(len(names), 2).T
        about = {"fitted_on": str(stored["fitted_on"]), "images": int(stored["images"])} if stored else {}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{net.workdir}/card.json has no calibration.attributes that can be read ({error})."
        ) from error
    curve = calibration.Platt(slope, offset, np.array([name in curves for name in names]))
    if not stored:
        return curve, {"kind": "raw", "why": f"the card of {net.workdir.name} has no curve"} | recognition
    left = [name for name in names if name not in curves]
    return curve, {"kind": "fitted", **about, "raw": left} | recognition
