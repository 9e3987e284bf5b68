"""What every prepared data set has in common: one record, one feature spec, protocols, checks, the PETA names.

Images are stored as the bytes that came (JPEG, PNG, BMP or WebP). Without TensorFlow, TFDS stores an image only from a
path or from encoded bytes in a file object; arrays would need TensorFlow. Reading with
`builder.as_data_source(split=..., decoders={"image": tfds.decode.SkipDecoding()})` gives the bytes back; decode them
with `data_prep.pictures.decode`: TFDS's own decoder neither resolves palettes nor turns pictures as EXIF says. Text
features come back as bytes.
"""

import functools
import io
import os
import pathlib
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from acrn_jax import COMMAND

PROTOCOLS = ("market1501", "single_shot", "multi_shot", "cuhk03_single_shot", "cuhk03_new", "attributes")
UNKNOWN_CAMERA = -1
DISTRACTOR, JUNK = 0, -1  # person ids of gallery images that are nobody's match, and of images that never count

# In the order of PETA.mat's first 35 label columns; always carried by name, never by position.
PETA_ATTRIBUTES = (
    "personalLess30",
    "personalLess45",
    "personalLess60",
    "personalLarger60",
    "carryingBackpack",
    "carryingOther",
    "lowerBodyCasual",
    "upperBodyCasual",
    "lowerBodyFormal",
    "upperBodyFormal",
    "accessoryHat",
    "upperBodyJacket",
    "lowerBodyJeans",
    "footwearLeatherShoes",
    "upperBodyLogo",
    "hairLong",
    "personalMale",
    "carryingMessengerBag",
    "accessoryMuffler",
    "accessoryNothing",
    "carryingNothing",
    "upperBodyPlaid",
    "carryingPlasticBags",
    "footwearSandals",
    "footwearShoes",
    "lowerBodyShorts",
    "upperBodyShortSleeve",
    "lowerBodyShortSkirt",
    "footwearSneaker",
    "upperBodyThinStripes",
    "accessorySunglasses",
    "lowerBodyTrousers",
    "upperBodyTshirt",
    "upperBodyOther",
    "upperBodyVNeck",
)


def features(num_attributes: int) -> tfds.features.FeaturesDict:
    """Feature spec of every prepared data set; `num_attributes` is A >= 0."""
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3)),
            "key": tfds.features.Text(),  # unique over all data sets: builder/config/relative path
            "file_name": tfds.features.Text(),  # relative path
            "person_id": np.int32,  # >= 1 a person, 0 a distractor, -1 junk
            "camera_id": np.int32,  # >= 1, or -1 where unknown
            "attributes": tfds.features.Tensor(shape=(num_attributes,), dtype=np.int8),  # 1 yes, 0 no, -1 unknown
        }
    )


class Example(NamedTuple):
    """One image of a data set, before it is written."""

    # Path of an image file, its bytes, or a function that gives them when they are written; stored untouched.
    image: str | os.PathLike | bytes | Callable[[], bytes]
    file_name: str  # path within the data set, with "/"; unique within a split
    person_id: int
    camera_id: int = UNKNOWN_CAMERA
    attributes: Sequence[int] | np.ndarray = ()  # [A] of 1 yes, 0 no, -1 unknown


class Counts(NamedTuple):
    """How much a split holds."""

    images: int
    people: int  # person ids from 1 on


class Contents(NamedTuple):
    """All that one config of a data set holds."""

    splits: dict[str, list[Example]]
    metadata: dict  # keyword arguments of `metadata`
    official: Mapping[str, Counts] = types.MappingProxyType(
        {}
    )  # split -> what the official release holds; none: nothing to compare with
    shortfall: Sequence[str] = ()  # what else differs from the official release, each a clause
    faults: Sequence[str] = ()  # what is wrong with the files, each a sentence that names one
    notes: Sequence[str] = ()  # what is to be known, each a sentence

    def counts(self) -> dict[str, Counts]:
        """How much each split holds."""
        return {
            split: Counts(len(examples), len({e.person_id for e in examples if e.person_id >= 1}))
            for split, examples in self.splits.items()
        }

    def short(self) -> list[str]:
        """What differs from the official release, "split: counts" for each split that does."""
        found = self.counts()
        return [*self.shortfall] + [
            f"{split}: {found.get(split, Counts(0, 0)).images:,} images of {found.get(split, Counts(0, 0)).people:,} "
            f"people, officially {wanted.images:,} of {wanted.people:,}"
            for split, wanted in self.official.items()
            if found.get(split, Counts(0, 0)) != wanted
        ]


def examine(contents: Contents, *, allow_overlap: bool = False) -> Contents:
    """The contents with the faults and notes that any data set can have, beside its own.

    Faults are: nobody's image where only people belong; people of train in query or gallery, unless these are allowed;
    queries of which none has its person in the gallery. Notes are: queries without a right gallery image; people of
    train in val or test; the overlap where it is allowed, whose size metadata then have as `people_seen_in_training`.
    """
    splits, protocol, metadata = contents.splits, contents.metadata["protocol"], contents.metadata
    query, gallery = _people(splits.get("query", ())), _people(splits.get("gallery", ()))
    faults, notes = [*contents.faults, *_nobody(splits)], list(contents.notes)
    shared = overlap(splits.get("train", ()), [*query, *gallery])
    if shared and allow_overlap:
        metadata = {**metadata, "people_seen_in_training": len(shared)}
        notes.append(f"{len(shared)} people of train are in query or gallery: scores are of people seen in training.")
    else:
        faults += shared
    for split in ("val", "test"):
        if both := overlap(splits.get("train", ()), splits.get(split, ())):
            notes.append(f"{len(both)} people of train are in {split} too: its scores are of people seen in training.")
    lonely = [] if protocol == "attributes" else without_match(query, gallery, protocol)
    strangers = without_match(query, gallery, "multi_shot") if lonely else []
    if lonely and len(strangers) == len(query):
        faults.append(f"None of the {len(query)} queries has its person in the gallery, so nothing can be scored.")
    elif lonely:
        first, own = lonely[0], len(lonely) - len(strangers)
        near = f"; {own} of them have one of their own camera, which --protocol=multi_shot counts" if own else ""
        notes.append(
            f"{len(lonely)} of {len(query)} queries have no right gallery image under {protocol}, the first is "
            f"{first.file_name} (person {first.person_id}, camera {first.camera_id}): evaluate with --no_match=skip, "
            f"which leaves them out, or --no_match=count_as_miss{near}."
        )
    return contents._replace(metadata=metadata, faults=faults, notes=notes)


def summary(contents: Contents) -> str:
    """How query and gallery are scored, in a line; nothing for a set without them."""
    protocol = contents.metadata["protocol"]
    if protocol == "attributes":
        return ""
    query, gallery = _people(contents.splits.get("query", ())), contents.splits.get("gallery", ())
    matched = len(query) - len(without_match(query, gallery, protocol))
    count = {kind: sum(example.person_id == kind for example in gallery) for kind in (DISTRACTOR, JUNK)}
    half = f"dev fold {contents.metadata['dev_fold']}, no official split; " if contents.metadata.get("dev") else ""
    return (
        f"{half}protocol {protocol}: {matched:,} of {len(query):,} queries have a right gallery image; "
        f"{len(gallery):,} gallery images, of them {count[DISTRACTOR]:,} distractors (person_id 0) and "
        f"{count[JUNK]:,} junk (-1)"
    )


def without_match(query: Sequence[Example], gallery: Sequence[Example], protocol: str) -> list[Example]:
    """Queries for which a protocol leaves no right gallery image.

    An image of the query's person is right unless it is of the query's camera or, under single_shot and multi_shot,
    the query itself.
    """
    apart = (lambda e: e.file_name) if protocol in ("single_shot", "multi_shot") else (lambda e: e.camera_id)
    shown: dict[int, set] = {}
    for example in gallery:
        shown.setdefault(example.person_id, set()).add(apart(example))
    return [example for example in query if not shown.get(example.person_id, set()) - {apart(example)}]


def overlap(train: Sequence[Example], test: Sequence[Example]) -> list[str]:
    """A fault for each person (ids from 1) on images of both."""
    first: list[dict[int, str]] = [{}, {}]
    for images, examples in zip(first, (train, test), strict=True):
        for example in _people(examples):
            images.setdefault(example.person_id, example.file_name)
    return [
        f"Person {person} is in train ({first[0][person]}) and in test ({first[1][person]}); each belongs to one, or "
        "pass --allow_overlap."
        for person in sorted(first[0].keys() & first[1].keys())
    ]


def _people(examples: Sequence[Example]) -> list[Example]:
    return [example for example in examples if example.person_id >= 1]


def _nobody(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A fault for each split but the gallery with images of nobody; a set that knows no person at all is one of labels
    of attributes alone.
    """
    faults = []
    for split, examples in splits.items() if any(_people(examples) for examples in splits.values()) else ():
        for person, meaning in ((DISTRACTOR, "nobody's match"), (JUNK, "never counted")):
            found = [example for example in examples if example.person_id == person and split != "gallery"]
            if found:
                faults.append(
                    f"{found[0].file_name} shows no person; only the gallery may have such images. {split} has "
                    f"{len(found)} of person_id {person}, {meaning}: leave them out"
                    + ("; if your numbers begin with 0, add 1 to all of them." if person == DISTRACTOR else ".")
                )
    return faults


def record(example: Example, *, builder: str, config: str) -> tuple[str, dict]:
    """(key, record) as a TFDS generator yields it; key is "builder/config/file_name"."""
    key = f"{builder}/{config}/{example.file_name}"
    image = example.image() if callable(example.image) else example.image
    return key, {
        "image": io.BytesIO(image) if isinstance(image, bytes) else pathlib.Path(image),
        "key": key,
        "file_name": example.file_name,
        "person_id": example.person_id,
        "camera_id": example.camera_id,
        "attributes": np.asarray(example.attributes, np.int8),
    }


def metadata(
    *, attribute_names: Sequence[str], protocol: str, partial: bool = False, **extras
) -> tfds.core.MetadataDict:
    """What is true of a whole data set; travels as metadata.json in the prepared folder.

    Args:
      attribute_names: [A], in the order of the records' `attributes`.
      protocol: how its query and gallery are scored, one of PROTOCOLS ("attributes": not a re-id set).
      partial: true where images of the official release are missing.
      extras: JSON values of one builder, for instance `reliability` {attribute name: probability}.

    Raises:
      ValueError: unknown protocol, or an attribute name twice.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"No protocol {protocol!r}; there are {', '.join(PROTOCOLS)}.")
    if len(set(attribute_names)) != len(attribute_names):
        raise ValueError(f"An attribute name comes twice in {list(attribute_names)}; each may come once.")
    return tfds.core.MetadataDict(attribute_names=list(attribute_names), protocol=protocol, partial=partial, **extras)


class ContentsBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A TFDS builder whose subclass says in `read` what one config holds; nothing is written before that is known.

    Constructing one is for preparing; what is prepared is read with `tfds.builder_from_directory`, without raw files.
    """

    def __init__(self, *, options: dict | None = None, lenient: bool = False, **kwargs):
        """Args: `options`, keyword arguments of the subclass's `read`, such as `raw_dir`, with `allow_partial` and
        `allow_overlap`; `lenient`, to look at contents that `contents` would refuse.
        """
        self._options = dict(options or {})
        self._allow_partial = self._options.pop("allow_partial", False)
        self._allow_overlap = self._options.pop("allow_overlap", False)
        self._lenient = lenient
        super().__init__(file_format="array_record", **kwargs)

    @classmethod
    def completed(cls, options: dict) -> dict:
        """The options with those that follow from them."""
        return options

    def read(self, **options) -> Contents:
        raise NotImplementedError

    @functools.cached_property
    def contents(self) -> Contents:
        """What is written, marked partial where it is not the whole release.

        Raises:
          ValueError: files are not as they should be, or not the official number of them without `allow_partial`.
        """
        contents = examine(self.read(**self._options), allow_overlap=self._allow_overlap)
        if contents.faults and not self._lenient:
            more = f" ({len(contents.faults)} faults in all)" if len(contents.faults) > 1 else ""
            raise ValueError(f"{contents.faults[0].rstrip('.')}{more}; {COMMAND} prepare --check lists them.")
        short = contents.short()
        if short and not (self._allow_partial or self._lenient):
            raise ValueError(
                f"Not the official release ({'; '.join(short)}): unpack it again, or pass --allow_partial, and results "
                "on it will carry the word partial."
            )
        return contents._replace(metadata={**contents.metadata, "partial": bool(short)})

    def _info(self) -> tfds.core.DatasetInfo:
        about = metadata(**self.contents.metadata)
        return tfds.core.DatasetInfo(builder=self, features=features(len(about["attribute_names"])), metadata=about)

    def _split_generators(self, dl_manager) -> dict:
        return {split: self._generate_examples(examples) for split, examples in self.contents.splits.items()}

    def _generate_examples(self, examples: list[Example]) -> Iterator[tuple[str, dict]]:
        for example in examples:
            yield record(example, builder=self.name, config=self.builder_config.name)
