"""What labels of one's own images mean, however they were given: numbers as they are written, and the protocol."""

import collections
import re

from acrn_jax.data_prep import reid


def protocol_of(query: list[reid.Example], gallery: list[reid.Example]) -> tuple[str, list[str]]:
    """The protocol that fits, and a note about it where it is not that of Market-1501.

    "market1501" where everybody's camera is known and some query has a right image of another camera; else
    "single_shot" where no camera counts and no query's person has two gallery images, "multi_shot" where some have.
    """
    people = [example for example in [*query, *gallery] if example.person_id > 0]
    unknown = sum(example.camera_id == reid.UNKNOWN_CAMERA for example in people)
    asked = {example.person_id for example in query} - {reid.DISTRACTOR, reid.JUNK}
    if not unknown and len(reid.without_match(query, gallery, "market1501")) < len(query):
        return "market1501", []
    images = collections.Counter(example.person_id for example in gallery if example.person_id in asked)
    protocol = "single_shot" if unknown and max(images.values(), default=0) <= 1 else "multi_shot"
    if unknown:
        why = f"{unknown} of {len(people)} images of people in query and gallery have no camera"
    else:
        why = "Nobody is seen by two cameras in query and gallery"
    return protocol, [
        f"{why}, so the protocol is {protocol}: images of the query's own camera count as right, which is easier than "
        "market1501, and its numbers do not stand beside that one's."
    ]


def is_integer(text: str) -> bool:
    return text.removeprefix("-").isdecimal()


def number(text: str) -> str:
    """'007', '+7' and '7.0', as programs write the number 7, as '7'; any other text as it is."""
    match = re.fullmatch(r"\+?(-?)0*(\d+)(?:\.0*)?", text, re.ASCII)
    return (match[1] + match[2]).replace("-0", "0") if match else text
