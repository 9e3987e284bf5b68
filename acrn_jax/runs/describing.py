"""What an attribute net says about pictures: yes, no, or that it does not know."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax.data import source
from acrn_jax.evaluation import calibration
from acrn_jax.runs import attribute_calibration, picture_cache, search
from acrn_jax.runs.run import AttributeRun, load

LEFT_OUT = ("unreadable", "passed_over", "notes")


@dataclasses.dataclass(frozen=True)
class Description:
    """What a net says about N pictures and A attributes."""

    net: str
    names: tuple[str, ...]  # [A]
    files: tuple[str, ...]  # [N]
    probabilities: np.ndarray  # [N, A] of yes, calibrated where `about` says so
    unknown: tuple[float, float]  # from the first to the second a probability is no answer
    about: dict[str, Any]  # see `calibration.told`
    pictures: dict[str, Any]  # what was left out and is to be known of the pictures, see `source.told_of_folder`
    fingerprint: str  # of the pictures

    @functools.cached_property
    def answers(self) -> np.ndarray:
        """[N, A] of "yes", "no" and "unknown"."""
        low, high = self.unknown
        p = self.probabilities
        return np.where(p > high, "yes", np.where(p < low, "no", "unknown"))

    def to_json(self) -> dict[str, Any]:
        """As `describe --format=json` writes it."""
        pictures = [
            {
                "file": file,
                "attributes": {
                    name: {"probability": float(p), "answer": str(answer)}
                    for name, p, answer in zip(self.names, row, answers, strict=True)
                },
            }
            for file, row, answers in zip(self.files, self.probabilities, self.answers, strict=True)
        ]
        return {
            "schema": 1,
            "net": self.net,
            "unknown": list(self.unknown),
            "probabilities": self.about,
            **self.pictures,
            "fingerprint": self.fingerprint,
            "pictures": pictures,
        }

    def rows(self) -> list[list[str]]:
        """As `describe --format=csv` writes it: of each attribute the answer and the probability."""
        header = ["file", *(column for name in self.names for column in (name, f"{name}_probability"))]
        return [
            header,
            *(
                [file, *(cell for a, p in zip(answers, row, strict=True) for cell in (str(a), f"{p:.4f}"))]
                for file, row, answers in zip(self.files, self.probabilities, self.answers, strict=True)
            ),
        ]


def describe(
    workdir: Path,
    images: Sequence[Path],
    *,
    attributes: Sequence[str] = (),
    unknown: tuple[float, float] = calibration.UNKNOWN_BAND,
    net: Path | None = None,
    data_dir: str | None = None,
) -> Description:
    """What an attribute net says about pictures.

    Args:
      workdir: an attribute run, or an ACRN or ReIdCNN run that names one.
      images: a folder of pictures, or pictures.
      attributes: which, in this order; default: all that the net knows.
      unknown: a probability from the first to the second is no answer.
      net: where the attribute net is now; default: see `phases.locate`.
      data_dir: where prepared data is, for the calibration; default: where the attribute net was trained.

    Raises:
      ValueError: an unknown attribute, a band that is none, no picture that can be read, a run without attribute net.
      FileNotFoundError: no run, or no picture.
    """
    low, high = unknown
    if not 0 <= low <= high <= 1:
        raise ValueError(f"--unknown is {low:g},{high:g}; give two probabilities, the lower one first, as 0.35,0.65.")
    run = load(workdir, attributes=net)
    if not isinstance(run, AttributeRun):
        run.check_attributes()
    answering = search.net_of(run)
    search.check_names(answering.names, attributes)
    names = tuple(dict.fromkeys(attributes)) or answering.names
    split = open_pictures(images)
    curve, about = attribute_calibration.calibrated(answering, data_dir)
    logits = picture_cache.outputs(answering, split, "attribute_logits")
    columns = [answering.names.index(name) for name in names]
    if about["kind"] == "fitted":
        about = about | {"raw": [name for name in about["raw"] if name in names]}
    return Description(
        str(answering.workdir),
        names,
        tuple(map(str, split.file_name)),
        curve.probabilities(logits)[:, columns],
        (low, high),
        about,
        {name: split.metadata[name] for name in LEFT_OUT},
        split.fingerprint,
    )


def open_pictures(places: Sequence[Path]) -> source.Split:
    """One folder, or picture files, as a split on which nobody is known.

    Raises:
      FileNotFoundError: no such file or folder.
      ValueError: a folder among several places, a file given twice, no picture that can be read.
    """
    if len(places) == 1 and not places[0].is_file():
        return picture_cache.open_folder(places[0])
    for place in places:
        if place.is_dir():
            raise ValueError(f"{place} is a folder, beside {len(places) - 1} others; give one folder, or image files.")
        if not place.is_file():
            raise FileNotFoundError(f"There is no picture {place}; name image files, or a folder of them.")
    if len(set(places)) < len(places):
        raise ValueError("An image is given twice; give each once.")
    if len(places) == 1:
        return source.open_files(places, [places[0].name], name=str(places[0]))
    return source.open_files(places, [str(place) for place in places], name=f"{len(places):,} files")
