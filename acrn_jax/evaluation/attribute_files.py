"""Files of attribute scores and labels, whoever made them: one of what is said of images, one of what is true.

| file | scores | labels |
| --- | --- | --- |
| .csv | `file_name`, a column of probabilities for each attribute | so, of 1, 0, -1 or nothing; perhaps `person_id` |
| .npz | `attributes` [N, A], `attribute_names` [A], `file_name` [N] | so, perhaps with `person_id` [N] |

`./launch.sh extract` of an attribute run writes both kinds of scores. Images are joined by `file_name`, which may be
left out in both files of equal length; then they are joined by their order. What only the labels have is an error.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acrn_jax import files, provenance
from acrn_jax.evaluation import attribute_query, file_reading, inputs
from acrn_jax.schema import UNKNOWN

_OF_IMAGES = ("file_name", "person_id", "camera_id")  # columns that are no attributes


class Scored(NamedTuple):
    """Images that have scores and labels."""

    probabilities: np.ndarray  # [N, A]
    labels: np.ndarray  # [N, A] int8, 1 yes, 0 no, -1 unknown
    person_id: np.ndarray  # [N], 0 where the file of labels has none
    names: tuple[str, ...]  # [A], of the attributes that both files have, in the order of the labels


class _Table(NamedTuple):
    values: np.ndarray  # [N, A] float64
    names: list[str]
    file_name: np.ndarray | None
    person_id: np.ndarray | None


def read(probabilities: Path, labels: Path) -> Scored:
    """Scores and labels of the same images.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a damaged file, no common attribute, images without scores, a value that is none; one sentence.
    """
    scores, truth = _read(probabilities), _read(labels)
    common = [name for name in truth.names if name in scores.names]
    if not common:
        raise ValueError(
            f"{probabilities} and {labels} have no attribute in common: {', '.join(scores.names[:5]) or 'none'} and "
            f"{', '.join(truth.names[:5]) or 'none'}; name columns alike in both."
        )
    rows = _join(scores, truth, probabilities, labels)
    known = truth.values[:, [truth.names.index(name) for name in common]]
    found = scores.values[np.ix_(rows, [scores.names.index(name) for name in common])]
    known = np.where(np.isnan(known), UNKNOWN, known)
    for file, values, good, wanted in (
        (labels, known, np.isin(known, (UNKNOWN, 0, 1)), "labels are 1, 0, or -1 or nothing where unknown"),
        (probabilities, found, (found >= 0) & (found <= 1), "probabilities lie in [0, 1]; apply a sigmoid to logits"),
    ):
        if not good.all():
            row, column = np.argwhere(~good)[0]
            raise ValueError(f"{file}: {common[column]} of image {row} is {values[row, column]:g}; {wanted}.")
    person = np.zeros(len(known), np.int64) if truth.person_id is None else truth.person_id
    return Scored(found, known.astype(np.int8), person, tuple(common))


def score(
    probabilities: Path, labels: Path, *, stored: Path | None = None, each: int = 20, seed: int = 0
) -> dict[str, Any]:
    """How well the scores of a file rank its images for wish lists, as `results.AttributeQueries` says it.

    Args:
      probabilities, labels: see `read`.
      stored: a file of `AttributeQueries` whose lists are taken; default: they are drawn.
      each, seed: of `attribute_query.draw`.
    """
    found = read(probabilities, labels)
    lists = (
        attribute_query.of_json(files.read_json(stored, "wish_lists")["wish_lists"], found.names, found.labels)
        if stored
        else attribute_query.draw(found.labels, each=each, seed=seed)
    )
    return {
        **attribute_query.evaluate(found.probabilities, found.labels, found.person_id, found.names, lists),
        "dataset": Path(labels).name,
        "seed": None if stored else seed,
        "files": {str(path): files.sha256(path) for path in (probabilities, labels)},
        "commit": provenance.commit(),
        "versions": provenance.versions(("numpy", "scipy")),
    }


def _join(scores: _Table, truth: _Table, of_scores: Path, of_labels: Path) -> np.ndarray:
    """The row of scores of each labelled image [N]."""
    if scores.file_name is None and truth.file_name is None:
        if len(scores.values) != len(truth.values):
            raise ValueError(
                f"{of_scores} has {len(scores.values)} images and {of_labels} {len(truth.values)}; give both a column "
                "file_name to join them by."
            )
        return np.arange(len(truth.values))
    if scores.file_name is None or truth.file_name is None:
        without = of_scores if scores.file_name is None else of_labels
        raise ValueError(f"{without} has no file_name, the other file has; give both one, or neither.")
    for file, names in ((of_scores, scores.file_name), (of_labels, truth.file_name)):
        values, count = np.unique(names, return_counts=True)
        if (count > 1).any():
            raise ValueError(f"{file} has {count.max()} lines of {values[count.argmax()]}; one is wanted.")
    place = {name: row for row, name in enumerate(scores.file_name.tolist())}
    if missing := [name for name in truth.file_name.tolist() if name not in place]:
        raise ValueError(f"{of_scores} has no scores of {len(missing)} images of {of_labels}, e.g. {missing[0]}.")
    return np.array([place[name] for name in truth.file_name.tolist()])


def _read(path: Path) -> _Table:
    if path.suffix == ".npz":
        found = file_reading.npz(path)
        values, names = (found.get(name) for name in ("attributes", "attribute_names"))
        if values is None or names is None or np.ndim(values) != 2 or np.shape(names) != values.shape[1:]:
            raise ValueError(f"{path} is to hold attributes [N, A] and attribute_names [A]; it has {', '.join(found)}.")
        if values.dtype.kind not in "biuf":
            raise ValueError(f"{path}: attributes are of type {values.dtype}; numbers are wanted.")
        names, columns = [str(name) for name in names], found
        values = values.astype(np.float64)
    elif path.suffix == ".csv":
        columns = file_reading.csv_columns(path)
        names = [name for name in columns if name not in _OF_IMAGES]
        values = np.array([_numbers(columns[name], f"{path}: {name}") for name in names]).T.reshape(-1, len(names))
    else:
        raise ValueError(f"{path} is neither .csv nor .npz, which attribute scores and labels come in.")
    if not values.size:
        raise ValueError(f"{path} holds no scores: {list(values.shape)} images and attributes.")
    of_images = {name: columns.get(name) for name in ("file_name", "person_id")}
    for name, column in of_images.items():
        if column is not None and np.shape(column) != (len(values),):
            raise ValueError(f"{path}: {name} is {list(np.shape(column))}, and there are {len(values)} images.")
    person = of_images["person_id"]
    return _Table(
        values,
        names,
        None if of_images["file_name"] is None else np.asarray(of_images["file_name"]).astype(str),
        None if person is None else inputs.integers(person, f"{path}: person_id"),
    )


def _numbers(texts: np.ndarray, where: str) -> np.ndarray:
    """Texts [N] as float64, NaN for an empty one."""
    try:
        return np.array([float(text) if text.strip() else np.nan for text in texts.tolist()])
    except ValueError as error:
        raise ValueError(f"{where} holds what is no number: {error}.") from error
