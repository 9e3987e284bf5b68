"""What a trained net says about images, in the formats that other programs read."""

from pathlib import Path

import numpy as np

from acrn_jax import build, runs
from acrn_jax.data import source
from acrn_jax.evaluation import feature_files
from acrn_jax.evaluation.feature_files import Features
from acrn_jax.train import parallel

# Format -> suffixes of its files.
FORMATS = {"npz": (".npz",), "mat": (".mat",), "h5": (".h5", ".hdf5"), "faiss": (".faiss", ".index")}


def format_of(out: Path, name: str | None) -> str:
    """The format: what is asked for, or what the suffix says; ValueError where these disagree."""
    said = next((name for name, suffixes in FORMATS.items() if out.suffix in suffixes), None)
    if (name or said) not in FORMATS or (name or said) != said:
        raise ValueError(
            f"--out={out} does not end as a file of format {name or 'npz, mat, h5 or faiss'} does; endings are "
            f"{', '.join(suffix for each in ([name] if name in FORMATS else FORMATS) for suffix in FORMATS[each])}."
        )
    return said


def extract(workdir: Path, splits: list[source.Split], out: Path, *, format: str) -> str:
    """Writes features of a re-id run, attribute probabilities of an attribute run; returns a line about them.

    Args:
      workdir: a trained run.
      splits: query and gallery for mat, without queries that show nobody; one split for the others.
      out: file to write. For h5 and faiss the labels go to a .csv file beside it.
      format: npz (with keys, labels and, of attributes, logits and names), mat, h5 or faiss; see `feature_files`.
    """
    if len(splits) != (2 if format == "mat" else 1):
        raise ValueError(
            f"{format} takes {'query and gallery' if format == 'mat' else 'one split'}, got {len(splits)}."
        )
    if format == "faiss":
        feature_files.faiss()  # not after the net has run, if it is missing
    batch = runs.read_config(workdir).evaluate.batch
    if format == "mat":
        splits = [splits[0].take(splits[0].person_id > 0), splits[1]]
    found = [_values(workdir, runs.outputs(workdir, split, batch=batch)) for split in splits]
    name = next(iter(found[0]))
    parts = [Features(values[name], split.labels) for values, split in zip(found, splits, strict=True)]
    split, labels = splits[0], splits[0].labels._asdict()
    if format == "npz":
        about = {"key": split.key, "file_name": split.file_name, "fingerprint": split.fingerprint}
        runs.write_arrays(out, **about, **labels, **found[0])
    elif parallel.leads() and format == "mat":
        feature_files.write_mat(out, *parts)
    elif parallel.leads():
        write = {"h5": feature_files.write_h5, "faiss": feature_files.write_faiss}[format]
        write(out, parts[0], split.file_name)
    images = " and ".join(f"{len(split)} images of {split.name}" for split in splits)
    return f"{images} -> {out}: {', '.join(f'{key} {list(np.shape(value))}' for key, value in found[0].items())}"


def _values(workdir: Path, outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is stored, by name, the features before all."""
    if "attribute_logits" not in outputs:
        return {"feature": outputs["feature"]}
    logits = outputs["attribute_logits"]
    probabilities = build.REPRESENTATIONS["probabilities"](logits)
    return {"attributes": probabilities, "logits": logits, "attribute_names": runs.attribute_names(workdir)}
