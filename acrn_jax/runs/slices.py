"""Columns of an audit from prepared sets and folders of pictures, and the audit of a run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from acrn_jax.data import source
from acrn_jax.data_prep import pictures
from acrn_jax.evaluation import audit_columns
from acrn_jax.evaluation.audit import Column


def of_split(query: source.Split) -> dict[str, Column]:
    """Columns of a prepared set's queries: what their pictures measure, and their attribute labels."""
    measures = [
        audit_columns.measured(pictures.decode(query.image_bytes(i), key=str(query.key[i]))) for i in range(len(query))
    ]
    return audit_columns.of_measures(measures) | audit_columns.from_attributes(query.attributes, query.attribute_names)


def of_prepared(dataset: str, data_dir: str, names: Mapping[str, np.ndarray]) -> dict[str, Column]:
    """The same for queries of a file of features, found in the set's split query by their names.

    Raises:
      ValueError: the queries have no names, or the set lacks one of them.
    """
    name, _, config = dataset.partition("/")
    query = source.open_split(data_dir, name, config, "query")
    missing = ""
    for what, wanted in names.items():
        place = {text: i for i, text in enumerate(getattr(query, what).tolist())}
        missing = next((text for text in wanted.tolist() if text not in place), "")
        if not missing:
            return of_split(query.take(np.array([place[text] for text in wanted.tolist()])))
    if missing:
        raise ValueError(f"{dataset} has no query {missing}; give the set that the features are of.")
    raise ValueError(_nameless(f"--dataset={dataset}"))


def of_folder(folder: Path, names: Mapping[str, np.ndarray]) -> dict[str, Column]:
    """What the pictures of a folder measure, for queries whose file_name is their path in it; others have no value.

    Raises:
      ValueError: the queries have no file names, none of these is there, or a picture cannot be decoded.
    """
    files = names.get("file_name")
    if files is None:
        raise ValueError(_nameless(f"--pictures={folder}"))
    paths = [folder / name for name in files.tolist()]
    there = [path.is_file() for path in paths]
    if not any(there):
        raise ValueError(f"--pictures={folder} has none of the queries' pictures; the first would be {paths[0]}.")
    nothing = (np.nan, np.nan, np.nan)
    return audit_columns.of_measures(
        [
            audit_columns.measured(pictures.decode(path.read_bytes(), key=str(path))) if found else nothing
            for path, found in zip(paths, there, strict=True)
        ]
    )


def _nameless(flag: str) -> str:
    return f"{flag} wants names of the queries in the file of features: query_file_name of an .npz."
