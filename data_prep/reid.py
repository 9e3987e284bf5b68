"""What every prepared data set has in common: one record, one feature spec, three protocols, the PETA names.

Images are stored as the bytes that came (JPEG, PNG or BMP). Without TensorFlow, TFDS stores an image only from a path
or from encoded bytes in a file object; arrays would need TensorFlow. Reading with
`builder.as_data_source(split=..., decoders={"image": tfds.decode.SkipDecoding()})` gives the bytes back; decode them
with `PIL.Image.open(...).convert("RGB")`: TFDS's own decoder neither resolves palettes nor drops alpha channels.
Text features come back as bytes.
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

PROTOCOLS = ("market1501", "single_shot", "cuhk03_single_shot", "cuhk03_new", "attributes")
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
        """Args: `options`, keyword arguments of the subclass's `read`, such as `raw_dir`, and `allow_partial`;
        `lenient`, to look at contents that `contents` would refuse.
        """
        self._options = dict(options or {})
        self._allow_partial = self._options.pop("allow_partial", False)
        self._lenient = lenient
        super().__init__(file_format="array_record", **kwargs)

    def read(self, **options) -> Contents:
        raise NotImplementedError

    @functools.cached_property
    def contents(self) -> Contents:
        """What is written, marked partial where it is not the whole release.

        Raises:
          ValueError: files are not as they should be, or not the official number of them without `allow_partial`.
        """
        contents = self.read(**self._options)
        if contents.faults and not self._lenient:
            more = f" ({len(contents.faults)} faults in all)" if len(contents.faults) > 1 else ""
            raise ValueError(f"{contents.faults[0]}{more}; ./launch.sh prepare --check lists them.")
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
