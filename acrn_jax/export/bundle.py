"""Bundles: a folder of the model in other programs' formats and a manifest that proves it equal. See docs/bundle.md."""

import importlib
import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from acrn_jax import COMMAND, extras, files
from acrn_jax.export import model as models
from acrn_jax.export import stablehlo

NAME, VERSION = "acrn_jax bundle", 1
FILES = {
    "stablehlo": "model.stablehlo",
    "onnx": "model.onnx",
    "safetensors": "weights.safetensors",
    "npz": "weights.npz",
}
EXTRA = {"onnx": ("onnx", "onnxruntime")}  # packages that not everybody has


def write(
    out: Path,
    model: models.Model,
    formats: Sequence[str],
    *,
    images: np.ndarray,
    drawn: int,
    resized: Callable[[np.ndarray, int, int], np.ndarray],
    tolerance: float,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Writes a bundle and returns its manifest; nothing is left where it fails.

    Args:
      out: a folder that does not exist.
      model: what is exported.
      formats: names in FILES.
      images: uint8 [n, H, W, 3], on which the written programs are compared with the model.
      drawn: how many of these, the last ones, are nobody's picture: they go into the bundle with their outputs.
      resized: the preprocessing of evaluation: image, height, width -> uint8 [height, width, 3].
      tolerance: largest difference that is allowed, as a share of the output's root mean square.
      about: entries of the manifest that this function does not know.

    Raises:
      ValueError: unknown format, a package is missing, a net cannot be written as ONNX, two nets cannot share an input,
        or a program differs by more than `tolerance`.
      FileExistsError: there is something at `out`.
    """
    check_formats(formats)
    taken = models.input_of(model)
    if "onnx" in formats:
        for net in filter(None, (model.reid, model.attributes)):
            program("onnx").writer_of(net.module)  # refuses before any work
    if out.exists():
        raise FileExistsError(f"{out} exists; name another --out, or delete it.")
    with files.new_folder(out) as partial:
        expected = models.live(model, images, resized)
        images = models.fed(taken, images, resized)
        parity = {}
        for kind in formats:
            file = partial / FILES[kind]
            if kind in ("stablehlo", "onnx"):
                program(kind).write(model, file)
                parity[kind] = compare(expected, program(kind).load(file)(images))
                _check(kind, parity[kind], tolerance)
            else:
                _write_weights(file, weights(model))
        np.savez(partial / "sample.npz", images=images[-drawn:], **{n: v[-drawn:] for n, v in expected.items()})
        manifest = {
            "format": f"{NAME} {VERSION}",
            "input": taken,
            "outputs": {n: {"dtype": "float32", "shape": ["batch", v.shape[1]]} for n, v in expected.items()},
            **about,
            "parity": {"images": len(images), "of_these_drawn": drawn, "tolerance": tolerance, **parity},
            "files": {
                p.name: {"sha256": files.sha256(p), "bytes": p.stat().st_size} for p in sorted(partial.iterdir())
            },
        }
        (partial / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def installed() -> list[str]:
    """The formats whose packages are there."""
    return [kind for kind in FILES if not _missing(kind)]


def _missing(kind: str) -> list[str]:
    return [name for name in EXTRA.get(kind, ()) if importlib.util.find_spec(name) is None]


def wanting(kind: str) -> str | None:
    """What to install for a format, None where its packages are there."""
    if missing := _missing(kind):
        return f"{kind} wants {' and '.join(missing)}, the extra 'export': {extras.remedy('export', missing)}"
    return None


def check_formats(formats: Sequence[str]) -> None:
    """ValueError for an unknown format, or one whose packages are not installed."""
    if not formats:
        raise ValueError(f"--format is empty; name some of {', '.join(FILES)}.")
    for kind in formats:
        if kind not in FILES:
            raise ValueError(f"There is no format {kind!r}; known: {', '.join(FILES)}.")
        if remedy := wanting(kind):
            others = ",".join(installed())
            raise ValueError(f"{remedy}; or leave {kind} out: --format={others}.")


def program(kind: str) -> Any:
    """The module that writes and loads `stablehlo` or `onnx`; the latter's packages are an extra."""
    return stablehlo if kind == "stablehlo" else importlib.import_module("acrn_jax.export.onnx_graph")


def compare(expected: dict[str, np.ndarray], found: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Of each output: largest absolute difference, the same as a share of the root mean square, ranking agreement.

    Ranking agreement (`same_nearest`) is the share of images whose nearest other one is the same in both.
    """
    result = {}
    for name, wanted in expected.items():
        got, wanted = (np.asarray(v, np.float64) for v in (found[name], wanted))
        largest = float(np.abs(got - wanted).max()) if np.isfinite(got).all() else float("inf")
        scale = float(np.sqrt(np.mean(wanted**2)))
        result[name] = {
            "largest_difference": largest,
            "relative": largest / scale if scale else (0.0 if largest == 0 else float("inf")),
            "same_nearest": float(np.mean(_nearest(got) == _nearest(wanted))),
        }
    return result


def _nearest(rows):
    if len(rows) < 2 or not np.isfinite(rows).all():
        return np.zeros(len(rows))
    distances = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, np.inf)
    return distances.argmin(1)


def _check(kind, parity, tolerance):
    for name, values in parity.items():
        if not values["relative"] <= tolerance:
            raise ValueError(
                f"{kind}: {name} differs from the net's by {values['relative']:.1e} of its root mean square, more than "
                f"the tolerance of {tolerance:g}."
            )


def weights(model: models.Model) -> dict[str, np.ndarray]:
    """All values of the nets, named reid_net/... and attribute_net/... by their place in the checkpoint."""

    def flat(prefix, tree):
        if not isinstance(tree, dict):
            return {prefix: np.asarray(tree)}
        return {name: leaf for key in tree for name, leaf in flat(f"{prefix}/{key}", tree[key]).items()}

    nets = {"reid_net": model.reid, "attribute_net": model.attributes}
    return {name: leaf for key, net in nets.items() if net for name, leaf in flat(key, net.variables).items()}


def _write_weights(file, values):
    if file.suffix == ".npz":
        np.savez(file, **values)
    else:
        # Its save_file makes files that only their owner can read.
        file.write_bytes(save({name: np.ascontiguousarray(v) for name, v in values.items()}))


def read(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, after all its files were held against it.

    Raises:
      FileNotFoundError: there is no manifest, or a file is missing.
      ValueError: no manifest of ours, a newer version, or a file that is not what it was.
    """
    file = folder / "manifest.json"
    if not file.is_file():
        raise FileNotFoundError(f"{folder} is no bundle (no manifest.json); {COMMAND} export writes them.")
    try:
        manifest = json.loads(file.read_text())
        name, version = manifest["format"].rsplit(" ", 1)
        version, listed = int(version), dict(manifest.get("files", {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} is damaged, or no manifest of a bundle; export the run again.") from error
    if name != NAME or version > VERSION:
        raise ValueError(
            f"{file} is of format {manifest['format']!r}, this program reads up to {f'{NAME} {VERSION}'!r}; update it."
        )
    for name, entry in listed.items():
        if Path(name).name != name:
            raise ValueError(f"{file} names {name!r}, which lies outside the bundle.")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder / name} is missing, though the manifest names it; copy the whole folder.")
        if files.sha256(folder / name) != entry["sha256"]:
            raise ValueError(f"{folder / name} is not what was exported: its sha256 differs; copy the bundle again.")
    return manifest


def check(folder: Path, formats: Sequence[str] = ()) -> dict[str, Any]:
    """Reads a bundle and runs its programs on its sample; ValueError where they differ, else {format: differences}.

    `formats` are those to look at, default: all that the bundle holds. A format that it lacks is refused, and so is one
    whose packages are not installed.
    """
    manifest = read(folder)
    held = [kind for kind in FILES if FILES[kind] in manifest["files"]]
    for kind in formats:
        if kind not in held:
            raise ValueError(f"{folder} holds no {kind!r}; it has {', '.join(held)}: name some of these with --format.")
    held = [kind for kind in held if not formats or kind in formats]
    for kind in held:
        if remedy := wanting(kind):
            others = ",".join(other for other in held if not wanting(other))
            raise ValueError(f"{remedy}; or check without it: --format={others}.")
    with np.load(folder / "sample.npz") as kept:
        sample = dict(kept)
    images = sample.pop("images")
    result = {}
    for kind in (kind for kind in held if kind in ("stablehlo", "onnx")):
        result[kind] = compare(sample, program(kind).load(folder / FILES[kind])(images))
        _check(kind, result[kind], manifest["parity"]["tolerance"])
    return result


def table(parity: dict[str, Any]) -> str:
    """A line for each program and output: largest difference, its share of the root mean square, ranking agreement."""
    return "\n".join(
        f"{kind:9s} {name:10s} differs by {v['largest_difference']:.1e}, relative {v['relative']:.1e}, "
        f"same nearest {v['same_nearest']:.1%}"
        for kind in ("stablehlo", "onnx")
        for name, v in parity.get(kind, {}).items()
    )
