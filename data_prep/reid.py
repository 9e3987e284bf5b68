"""What every prepared data set has in common: one record, one feature spec, three protocols, the PETA names.

Images are stored as the bytes that came (JPEG, PNG or BMP). Without TensorFlow, TFDS stores an image only from a path
or from encoded bytes in a file object; arrays would need TensorFlow. Reading with
`builder.as_data_source(split=..., decoders={"image": tfds.decode.SkipDecoding()})` gives the bytes back; decode them with
`PIL.Image.open(...).convert("RGB")`: TFDS's own decoder neither resolves palettes nor drops alpha channels. Text features
come back as bytes.
"""

import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

PROTOCOLS = ("market1501", "single_shot", "attributes")
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


def record(
    image: str | os.PathLike | bytes,
    *,
    builder: str,
    config: str,
    file_name: str,
    person_id: int,
    camera_id: int = UNKNOWN_CAMERA,
    attributes: Sequence[int] | np.ndarray = (),
) -> tuple[str, dict]:
    """One example as `_generate_examples` yields it.

    Args:
      image: path of an image file, or its bytes; stored untouched.
      builder: name of the data set, the first part of the key.
      config: name of its config, the second part.
      file_name: path relative to the data set, with "/"; unique within a config.
      person_id: >= 1 a person, 0 a distractor, -1 junk.
      camera_id: -1 where unknown.
      attributes: [A] of 1 yes, 0 no, -1 unknown.

    Returns:
      (key, example) where key is "builder/config/file_name".
    """
    key = f"{builder}/{config}/{file_name}"
    return key, {
        "image": io.BytesIO(image) if isinstance(image, bytes) else pathlib.Path(image),
        "key": key,
        "file_name": file_name,
        "person_id": person_id,
        "camera_id": camera_id,
        "attributes": np.asarray(attributes, np.int8),
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
