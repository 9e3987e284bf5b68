"""What a trained net says about images, in the formats that other programs read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import files
from acrn_jax.data import source
from acrn_jax.evaluation import calibration, feature_files
from acrn_jax.evaluation.feature_files import Content, Features
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs.run import AttributeRun, Run, load
from acrn_jax.train import parallel


def open_pictures(place: Path) -> source.Split:
    """The pictures below a folder, or one picture; nobody is known on them.

    Raises:
      FileNotFoundError: no such folder or file, or no picture in it.
      ValueError: none that can be read.
    """
    if not place.is_file():
        return source.open_folder(place)
    return source.open_files([place], [place.name], name=str(place))


def open_splits(
    workdir: Path,
    names: Sequence[str],
    *,
    dataset: str | None = None,
    config_name: str | None = None,
    data_dir: str | None = None,
) -> list[source.Split]:
    """Splits of a prepared data set, by default the run's own.

    Raises:
      FileNotFoundError: no run, or no such data set.
      ValueError: no such split; or the run's own data are no longer those that it was trained on.
    """
    run = load(workdir, data_dir=data_dir)
    data = run.config.data
    place = str(dataset or data.name), config_name or data.config
    if place == (data.name, data.config):
        run.check_data()
    return [source.open_split(str(data.dir), *place, name) for name in names]


def extract(workdir: Path, splits: list[source.Split], out: Path, *, format: str) -> str:
    """Writes features of a re-id run, attribute probabilities of an attribute run; returns a line about them.

    Args:
      workdir: a trained run.
      splits: query and gallery for mat, without queries that show nobody; one split for the others.
      out: file to write. For h5 and faiss the labels go to a .csv file beside it, with attributes that of csv.
      format: npz (with keys, labels and, of attributes, logits, names and recognition rates), csv (a line an image,
        with labels, and a named column an attribute, or value of the feature), mat, h5 (of attributes as npz) or faiss;
        see `feature_files`.
    """
    kind = feature_files.written()[format]
    if len(splits) != kind.sets:
        raise ValueError(f"{format} takes {'query and gallery' if kind.sets == 2 else 'one split'}, got {len(splits)}.")
    files.check(out)
    kind.ready()  # not after the net has run
    run = load(workdir)
    if kind.sets == 2:
        splits = [splits[0].take(splits[0].person_id > 0), splits[1]]
    found = [_content(split, _values(run, run.outputs(split))) for split in splits]
    if parallel.is_primary():
        feature_files.write(out, found, format)
    written = found[0].arrays if kind.all_arrays else {found[0].name: found[0].features.values}
    images = " and ".join(f"{len(split):,} image{'s' * (len(split) > 1)} of {split.name}" for split in splits)
    line = f"{images} -> {out}: {', '.join(f'{key} {list(np.shape(value))}' for key, value in written.items())}"
    if not isinstance(run, AttributeRun):
        return line
    about = {"kind": "raw", "why": "they are stored as they are", "recognition": run.recognition_rates}
    return f"{line}\n{calibration.told(about)}"


def _content(split: source.Split, values: dict[str, Any]) -> Content:
    name, *more = values
    features, rest = Features(values[name], split.labels), {key: values[key] for key in more}
    return Content(name, features, split.key, split.file_name, split.fingerprint, rest)


def _values(run: Run, outputs: dict[str, np.ndarray]) -> dict[str, Any]:
    """What is stored, by name, the features before all."""
    if not isinstance(run, AttributeRun):
        return {"feature": outputs["feature"]}
    logits = outputs["attribute_logits"]
    probabilities = REPRESENTATIONS["probabilities"](logits)
    names = list(run.names)
    rates = run.recognition_rates or {"on": "", "mA": {}}
    return {
        "attributes": probabilities,
        "logits": logits,
        "attribute_names": names,
        "recognition_rate": np.array([rates["mA"].get(name) for name in names], np.float32),  # NaN: not known
        "recognised_on": rates["on"],
    }
