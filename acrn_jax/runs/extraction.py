"""What a trained net says about images, in the formats that other programs read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import files
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import calibration, feature_files
from acrn_jax.evaluation.feature_files import Features
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs.run import AttributeRun, Run, load
from acrn_jax.runs.workdir import write_arrays
from acrn_jax.train import parallel

# Format -> suffixes of its files.
FORMATS = {
    "npz": (".npz",),
    "csv": (".csv",),
    "mat": (".mat",),
    "h5": (".h5", ".hdf5"),
    "faiss": (".faiss", ".index"),
}


def format_of(out: Path, name: str | None) -> str:
    """The format: what is asked for, or what the suffix says; ValueError where these disagree."""
    said = next((name for name, suffixes in FORMATS.items() if out.suffix in suffixes), None)
    if (name or said) not in FORMATS or (name or said) != said:
        raise ValueError(
            f"--out={out} does not end as a file of format {name or 'npz, csv, mat, h5 or faiss'} does; endings are "
            f"{', '.join(suffix for each in ([name] if name in FORMATS else FORMATS) for suffix in FORMATS[each])}."
        )
    return said


def open_pictures(place: Path) -> source.Split:
    """The pictures below a folder, or one picture; nobody is known on them.

    Raises:
      FileNotFoundError: no such folder or file, or no picture in it.
      ValueError: none that can be read.
    """
    if not place.is_file():
        return source.open_folder(place)
    split = source.open_files([place], [place.name], name=str(place))
    transforms.decode(split.image_bytes(0), key=str(place))
    return split


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
    if len(splits) != (2 if format == "mat" else 1):
        raise ValueError(
            f"{format} takes {'query and gallery' if format == 'mat' else 'one split'}, got {len(splits)}."
        )
    files.check(out)
    if format == "faiss":
        feature_files.faiss()  # not after the net has run, if it is missing
    run = load(workdir)
    if format == "mat":
        splits = [splits[0].take(splits[0].person_id > 0), splits[1]]
    found = [_values(run, run.outputs(split)) for split in splits]
    name = next(iter(found[0]))
    parts = [Features(values[name], split.labels) for values, split in zip(found, splits, strict=True)]
    split, labels, written = splits[0], splits[0].labels._asdict(), found[0]
    more = {key: value for key, value in found[0].items() if key != name}
    if format == "npz":
        about = {"key": split.key, "file_name": split.file_name, "fingerprint": split.fingerprint}
        write_arrays(out, **about, **labels, **found[0])
    elif parallel.is_primary() and format == "mat":
        feature_files.write_mat(out, *parts)
    elif parallel.is_primary():
        names = more.get("attribute_names") or [f"{name}_{i}" for i in range(parts[0].values.shape[1])]
        columns = dict(zip(names, parts[0].values.T, strict=True)) if more or format == "csv" else None
        if format == "h5":
            feature_files.write_h5(out, parts[0], split.file_name, columns, more)
        elif format == "faiss":
            feature_files.write_faiss(out, parts[0], split.file_name, columns)
        else:
            feature_files.write_csv(out, split.labels, split.file_name, columns)
    if format not in ("npz", "h5"):  # these hold everything, the others the features
        written = {name: found[0][name]}
    images = " and ".join(f"{len(split):,} image{'s' * (len(split) > 1)} of {split.name}" for split in splits)
    told = f"{images} -> {out}: {', '.join(f'{key} {list(np.shape(value))}' for key, value in written.items())}"
    if not isinstance(run, AttributeRun):
        return told
    about = {"kind": "raw", "why": "they are stored as they are", "recognition": run.recognition_rates}
    return f"{told}\n{calibration.told(about)}"


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
