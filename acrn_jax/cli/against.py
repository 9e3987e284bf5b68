"""What --against of `evaluate` names: places of rankings, as they are typed, to the comparison of their scores."""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from acrn_jax.data_prep import paths
from acrn_jax.evaluation import comparison, feature_files, protocols, score
from acrn_jax.evaluation.comparison import Scored
from acrn_jax.results import PerQuery, Results

_SUFFIXES = {suffix for kind in feature_files.FORMATS.values() for suffix in kind.suffixes if kind.read}
_SETTING = ("dataset", "split", "fingerprint", "protocol", "protocol_options", "no_match")


class Files(NamedTuple):
    """How files of features are ranked; see `score.scored`."""

    protocol: protocols.Protocol | None
    labels: Sequence[Path] = ()
    options: Mapping[str, Any] = {}


class _Read(NamedTuple):
    place: str
    scored: Scored
    setting: dict[str, Any] | None  # of a workdir, what its scores depend on


def parse(given: Sequence[str]) -> dict[str, list[str]]:
    """Values of --against -> name -> places: `PLACE,PLACE` are rankings, `NAME=PLACE,PLACE` the replicates of one.

    Raises:
      ValueError: a name comes twice, or a name without a place.
    """
    found: dict[str, list[str]] = {}
    for value in given:
        name, equals, rest = value.partition("=")
        places = next(csv.reader([rest if equals else value]), [])
        for called, of in {name: places}.items() if equals else {place: [place] for place in places}.items():
            if not called or not of or not all(of):
                raise ValueError(
                    f"--against={value} names no ranking; write PLACE, or NAME=PLACE,PLACE for replicates."
                )
            if called in found:
                raise ValueError(f"--against names {called} twice; give each ranking once, with NAME= before it.")
            found[called] = of
    return found


def compare(rankings: Mapping[str, Sequence[str]], files: Files) -> comparison.Comparison:
    """The first ranking beside the others.

    Args:
      rankings: name -> places of its replicates: an evaluated workdir, WORKDIR:METHOD, a file of features, or two as
        QUERY+GALLERY.
      files: how files of features are ranked.

    Raises:
      FileNotFoundError: a place is not there, or not evaluated.
      ValueError: as `comparison.compare`; rankings of workdirs by other protocols or on other data.
    """
    read = {name: [_read(place, files) for place in places] for name, places in rankings.items()}
    first = next(iter(read.values()))
    for of in list(read.values())[1:]:
        for one, other in zip(first, of, strict=False):  # `compare` refuses unequal numbers
            _check_setting(one, other)
    return comparison.compare({name: [one.scored for one in of] for name, of in read.items()})


def _check_setting(one: _Read, other: _Read) -> None:
    if one.setting is None or other.setting is None:
        return
    for name in _SETTING:
        if one.setting[name] != other.setting[name]:
            raise ValueError(
                f"{one.place} and {other.place} differ in {name} ({one.setting[name]} and {other.setting[name]}); "
                "evaluate both on the same data by the same protocol."
            )


def _read(place: str, files: Files) -> _Read:
    parts = [paths.tidy(part) for part in place.split("+")] if not Path(place).exists() else [paths.tidy(place)]
    if Path(parts[0]).suffix.lower() in _SUFFIXES and not Path(parts[0]).is_dir():
        if files.protocol is None:
            raise ValueError(f"{place} is a file of features, which wants --protocol.")
        read: Callable[..., Scored] = score.scored
        return _Read(
            place, read([Path(p) for p in parts], files.labels, protocol=files.protocol, **files.options), None
        )
    folder, colon, method = (place, "", "") if Path(place).is_dir() else place.rpartition(":")
    if not colon:
        folder = place
    return _of_workdir(Path(paths.tidy(folder)), method)


def _of_workdir(folder: Path, method: str) -> _Read:
    if not folder.is_dir():
        kinds = ", ".join(sorted(_SUFFIXES))
        raise FileNotFoundError(
            f"There is no {folder}; wanted is an evaluated workdir or a file of features ({kinds})."
        )
    about, kept = Results.read(folder / "results.json"), PerQuery.read(folder / "per_query.npz")
    method = method or ("ACRN" if "ACRN" in kept.scores else next(iter(kept.scores)))
    if method not in kept.scores:
        raise ValueError(f"{folder} has no row {method!r}; it has {', '.join(kept.scores)}.")
    means = {name: float(about.methods[method][name]) for name in kept.scores[method]}  # type: ignore[arg-type]
    setting = {name: getattr(about, name) for name in _SETTING if name != "fingerprint"}
    setting["fingerprint"] = about.fingerprint
    scored = Scored(kept.scores[method], means, kept.counted, kept.person_id, kept.key, None, about.gallery)
    return _Read(str(folder), scored, setting)
