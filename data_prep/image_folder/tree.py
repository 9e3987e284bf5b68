"""Anyone's images without a CSV: names of files tell person and camera, and a seed draws who is trained on."""

import difflib
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from acrn_jax.data_prep import dev, pictures, reid
from acrn_jax.data_prep.image_folder import labels

PATTERN = "{person}/{}"  # a folder a person
TRAIN_SHARE = 0.5
_NAMES = ("person", "camera")
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")


class Pattern(NamedTuple):
    """How files are named, as two expressions that differ where a name can be read in several ways."""

    shortest: re.Pattern  # each placeholder takes as little as it can, from left to right
    longest: re.Pattern

    def read(self, name: str) -> tuple[re.Match | None, bool]:
        """(person and camera of a name, None for one that does not fit; whether they could be others)."""
        first, second = self.shortest.fullmatch(name), self.longest.fullmatch(name)
        return first, bool(first and second and first.groups() != second.groups())


def parse(pattern: str) -> Pattern:
    """What '{person}_c{camera}s{}_{}.jpg' means.

    A placeholder stands for any text without '/': {person} and {camera} for one character at least, {} also for none,
    {person:4}, {camera:1} and {:3} for so many.

    Raises:
      ValueError: no {person}, an unknown name or one twice, a width that is no number, a brace on its own, or two
        placeholders without a width side by side, where nothing tells where one ends.
    """
    where, parts, names = f"--pattern={pattern}", [[], []], []
    pieces = _PLACEHOLDER.split(pattern)  # text, placeholder, text ...
    open_before = False  # the piece before is a placeholder of any width
    for i, piece in enumerate(pieces):
        if i % 2 == 0:
            if "{" in piece or "}" in piece:
                raise ValueError(f"{where} has a brace on its own; write placeholders as {{person}}, {{camera}}, {{}}.")
            forms, open_before = (re.escape(piece),) * 2, open_before and not piece
        else:
            name, colon, width = piece.partition(":")
            if name and name not in _NAMES:
                near = difflib.get_close_matches(name, _NAMES, n=1) or _NAMES[:1]
                raise ValueError(f"{where} has {{{name}}}; known are {{person}}, {{camera}} and {{}}: {{{near[0]}}}?")
            if name in names:
                raise ValueError(f"{where} has {{{name}}} twice; write {{}} where it comes again.")
            if colon and not re.fullmatch("[1-9][0-9]?", width):
                raise ValueError(f"{where} has {{{piece}}}; a width is a number of characters, such as {{{name}:4}}.")
            if not colon and open_before:
                raise ValueError(
                    f"{where} has two placeholders side by side, and nothing tells where one ends; put the text "
                    "between them, or a number of characters, such as {person:4}."
                )
            names += [name] if name else []
            group, some = f"?P<{name}>" if name else "?:", "+" if name else "*"
            lengths = (f"{{{width}}}",) * 2 if colon else (some + "?", some)
            forms, open_before = tuple(f"({group}[^/]{length})" for length in lengths), not colon
        for part, form in zip(parts, forms, strict=True):
            part.append(form)
    if "person" not in names:
        raise ValueError(f"{where} has no {{person}}; say where in a name its person stands, as in {PATTERN}.")
    return Pattern(*(re.compile("".join(part)) for part in parts))


def read(
    raw_dir: str | os.PathLike,
    *,
    pattern: str = PATTERN,
    seed: int = 0,
    train_share: float = TRAIN_SHARE,
    skip_unmatched: bool = False,
) -> reid.Contents:
    """All pictures below a folder, split by people.

    Args:
      raw_dir: the folder.
      pattern: of `parse`; with a '/' of the whole path below `raw_dir`, else of the file's name, in whatever folder.
      seed: of everything that is drawn.
      train_share: of the people with several images, how many are trained on, in [0, 1); all others are tested.
      skip_unmatched: whether pictures that are not named so are passed over; else each is a fault.

    Returns:
      Contents with `train` (but for a share of 0), `query` and `gallery`. Where cameras are known and somebody is seen
      by two, as `dev.query_and_gallery` has it; else one image of each tested person asks and the others are the
      gallery. The protocol is that of `labels.protocol_of`. People with one image, distractors (person 0) and junk
      (person -1) are in the gallery. Metadata `person_names`, `camera_names` {name: number} where these are no numbers.

    Raises:
      FileNotFoundError: no such folder, or no picture in it.
      ValueError: a wrong pattern or share, no picture that fits the pattern, or too few people.
    """
    raw_dir, parsed = pathlib.Path(raw_dir), parse(pattern)
    if not 0 <= train_share < 1:
        raise ValueError(f"--train_share={train_share:g}; wanted is a share of the people from 0 to below 1.")
    paths, passed_over = pictures.listed(raw_dir)
    names = [path.relative_to(raw_dir).as_posix() for path in paths]
    found = [parsed.read(name if "/" in pattern else name.rpartition("/")[2]) for name in names]
    unmatched = [name for name, (match, _) in zip(names, found, strict=True) if not match]
    if len(unmatched) == len(names):
        raise ValueError(
            f"None of the {len(names):,} pictures in {raw_dir}, such as {names[0]}, is named as --pattern={pattern} "
            "says; correct the pattern, or name the folder that it begins in."
        )
    faults = [
        f"{name} is not named as --pattern={pattern} says; rename it or pass --skip_unmatched" for name in unmatched
    ]
    notes = [f"Passed over, {line}." for line in pictures.told(passed_over) if not line.startswith("hidden")]
    if unmatched and skip_unmatched:
        notes.append(f"Left out, as not named as the pattern says: {len(unmatched):,} ({_some(unmatched)}).")
        faults = []
    if unclear := [name for name, (_, several) in zip(names, found, strict=True) if several]:
        notes.append(
            f"Names that can be read in several ways: {len(unclear):,} ({_some(unclear)}); each placeholder takes the "
            "shortest text, so give widths such as {person:4} where that is wrong."
        )
    examples, about = _examples(zip(paths, names, (match for match, _ in found), strict=True))
    splits, told = _split(examples, seed, train_share)
    protocol, why = labels.protocol_of(splits["query"], splits["gallery"])
    about |= {"attribute_names": [], "protocol": protocol}
    about["drawn"] = {"pattern": pattern, "seed": seed, "train_share": train_share}
    return reid.Contents(splits, about, faults=faults, notes=[*notes, *told, *why])


def _examples(found: Iterable[tuple[pathlib.Path, str, re.Match | None]]) -> tuple[list[reid.Example], dict]:
    """(an example for each path that fits the pattern, `person_names` and `camera_names` where they are no numbers)."""
    kept = [(path, name, match.groupdict()) for path, name, match in found if match]
    numbers, about = {}, {}
    for what in _NAMES:
        numbers[what], named = _numbered({groups[what] for *_, groups in kept if what in groups})
        about |= {f"{what}_names": named} if named else {}
    unknown = {None: reid.UNKNOWN_CAMERA}
    cameras = numbers["camera"] | unknown
    return [
        reid.Example(path, name, numbers["person"][groups["person"]], cameras[groups.get("camera")])
        for path, name, groups in kept
    ], about


def _numbered(texts: set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """(text -> number, the same of names alone): numbers as they are, or else names numbered from 1 in sorted order.

    0 and -1 keep their meaning among names.
    """
    written = {text: labels.number(text) for text in texts}
    if all(labels.is_integer(number) and -1 <= int(number) < 2**31 for number in written.values()):
        return {text: int(number) for text, number in written.items()}, {}
    own = {text: int(number) for text, number in written.items() if number in ("0", "-1")}
    named = {text: i for i, text in enumerate(sorted(texts - own.keys()), start=1)}
    return named | own, named


def _split(
    examples: Sequence[reid.Example], seed: int, train_share: float
) -> tuple[dict[str, list[reid.Example]], list[str]]:
    """(train, query and gallery, notes).

    Raises:
      ValueError: too few people with several images.
    """
    of: dict[int, list[reid.Example]] = {}
    for example in examples:
        of.setdefault(example.person_id, []).append(example)
    nobody = {person: of.pop(person, []) for person in (reid.DISTRACTOR, reid.JUNK)}
    alone = sorted(person for person, images in of.items() if len(images) == 1)
    order = np.random.default_rng(seed).permutation(sorted(of.keys() - set(alone)))
    if len(order) < (2 if train_share else 1):
        raise ValueError(
            f"{len(order)} of {len(of)} people have several images; wanted are two people at least, one to train on "
            "and one to search for. Is {person} where the person's name stands?"
        )
    count = min(max(round(train_share * len(order)), train_share > 0), len(order) - 1)
    trained, tested = order[:count].tolist(), order[count:].tolist()
    query, gallery = _query_and_gallery([image for person in sorted(tested) for image in of[person]], seed)
    gallery += [of[person][0] for person in alone]
    asked = {example.person_id for example in query}
    apart = {
        "People with one image": [of[person][0] for person in alone],
        "People to search for whom one camera alone sees": [of[p][0] for p in sorted(tested) if p not in asked],
        "Distractors (person 0, nobody's match; rename a 0 that is somebody)": nobody[reid.DISTRACTOR],
        "Junk (person -1, never counted)": nobody[reid.JUNK],
    }
    gallery += [*nobody[reid.DISTRACTOR], *nobody[reid.JUNK]]
    notes = [
        f"{what}: {len(found):,}, the first is {found[0].file_name}; in the gallery, nobody asks for them."
        for what, found in apart.items()
        if found
    ]
    train = [image for person in sorted(trained) for image in of[person]]
    return ({"train": train} if train else {}) | {"query": query, "gallery": gallery}, notes


def _query_and_gallery(examples: Sequence[reid.Example], seed: int) -> tuple[list[reid.Example], list[reid.Example]]:
    """Who asks and who is searched, of people with several images each."""
    cameras: dict[int, set[int]] = {}
    for example in examples:
        cameras.setdefault(example.person_id, set()).add(example.camera_id)
    known = all(reid.UNKNOWN_CAMERA not in seen for seen in cameras.values())
    if known and any(len(seen) > 1 for seen in cameras.values()):
        return dev.query_and_gallery(examples, seed=seed)
    of: dict[int, list[reid.Example]] = {}
    for example in sorted(examples, key=lambda e: e.file_name):
        of.setdefault(example.person_id, []).append(example)
    query, gallery = [], []
    for person, images in sorted(of.items()):
        drawn = int(np.random.default_rng([seed, person]).integers(len(images)))
        query.append(images[drawn])
        gallery += images[:drawn] + images[drawn + 1 :]
    return query, gallery


def _some(names: Sequence[str], *, shown: int = 3) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown:,} more" if len(names) > shown else "")
