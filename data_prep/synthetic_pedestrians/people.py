"""Who the drawn people are: their attributes, how reliably a target image shows them, and their looks.

Attributes come in groups of which a person has at most one ("lowerBodyShorts" excludes "lowerBodyJeans"); most groups
have one member. Two attributes follow from others: `accessoryNothing` and `carryingNothing` hold where nothing of their
kind does.

Reliability. In a target image each group shows the person's truth with its own probability p and is otherwise drawn
anew from the base rates, independently per group and image. Truth then is shown with probability p + (1 - p) r, where r
is the share of people for whom a redraw gives the truth anyway, and p is exactly the correlation between shown and true
attribute. A group has one p because its members cannot be shown independently. The two derived attributes follow from
what is shown; their reliability is the same correlation, computed (`reliability_of_nothing`).
"""

from typing import NamedTuple

import numpy as np

from acrn_jax.data_prep import reid

# {attribute: share of people who have it}, at most one of a group holds; the remaining share has none of it.
GROUPS = (
    {"carryingBackpack": 0.40},
    {"carryingOther": 0.35},
    {"accessoryHat": 0.40},
    {"upperBodyFormal": 0.25, "upperBodyJacket": 0.25, "upperBodyShortSleeve": 0.25},
    {"lowerBodyJeans": 0.25, "lowerBodyShorts": 0.25, "lowerBodyShortSkirt": 0.25, "lowerBodyTrousers": 0.25},
    {"footwearLeatherShoes": 0.25, "footwearSandals": 0.25, "footwearShoes": 0.25, "footwearSneaker": 0.25},
    {"upperBodyLogo": 0.45},
    {"hairLong": 0.50},
    {"personalMale": 0.50},
    {"carryingMessengerBag": 0.35},
    {"accessoryMuffler": 0.40},
    {"upperBodyPlaid": 0.30, "upperBodyThinStripes": 0.30},
    {"carryingPlasticBags": 0.40},
    {"accessorySunglasses": 0.45},
    {"upperBodyVNeck": 0.45},
)
NOTHING = {
    "accessoryNothing": ("accessoryHat", "accessoryMuffler", "accessorySunglasses"),
    "carryingNothing": ("carryingBackpack", "carryingOther", "carryingMessengerBag", "carryingPlasticBags"),
}
DRAWN = {name for group in GROUPS for name in group} | set(NOTHING)
ATTRIBUTE_NAMES = tuple(name for name in reid.PETA_ATTRIBUTES if name in DRAWN)  # PETA's order
COLUMN = {name: column for column, name in enumerate(ATTRIBUTE_NAMES)}


def draw_attributes(count: int, generator: np.random.Generator) -> np.ndarray:
    """Attributes of `count` people drawn from the base rates, bool [count, A]; every group independently."""
    attributes = np.zeros((count, len(ATTRIBUTE_NAMES)), bool)
    for group in GROUPS:
        chosen = np.searchsorted(np.cumsum(list(group.values())), generator.random(count), side="right")
        for number, name in enumerate(group):
            attributes[:, COLUMN[name]] = chosen == number
    return with_nothing(attributes)


def with_nothing(attributes: np.ndarray) -> np.ndarray:
    """Sets the attributes that follow from others; changes and returns bool [N, A]."""
    for name, others in NOTHING.items():
        attributes[:, COLUMN[name]] = ~attributes[:, [COLUMN[other] for other in others]].any(1)
    return attributes


def show(true: np.ndarray, reliability: dict[str, float], generator: np.random.Generator) -> np.ndarray:
    """What images show of people: each group's truth with its probability, else a fresh draw from the base rates.

    Args:
      true: bool [N, A], the people's attributes, a row per image.
      reliability: {attribute: probability}, equal within a group.
      generator: source of randomness.

    Returns:
      bool [N, A].
    """
    shown = draw_attributes(len(true), generator)
    for group in GROUPS:
        columns = [COLUMN[name] for name in group]
        truthful = generator.random(len(true)) < reliability[next(iter(group))]  # [N]
        shown[:, columns] = np.where(truthful[:, None], true[:, columns], shown[:, columns])
    return with_nothing(shown)


def draw_reliability(low: float, high: float, generator: np.random.Generator) -> dict[str, float]:
    """{attribute: probability from low to high}: spread over the groups, more of them near `high`, in random order."""
    spread = generator.permutation(low + (high - low) * np.sqrt(np.linspace(0, 1, len(GROUPS))))
    drawn = {name: round(float(p), 4) for group, p in zip(GROUPS, spread, strict=True) for name in group}
    drawn |= {name: round(reliability_of_nothing(others, drawn), 4) for name, others in NOTHING.items()}
    return {name: drawn[name] for name in ATTRIBUTE_NAMES}


def reliability_of_nothing(others: tuple[str, ...], reliability: dict[str, float]) -> float:
    """Correlation between shown and true "none of `others`", which are independent of each other."""
    rates = {name: rate for group in GROUPS for name, rate in group.items()}
    absent = np.array([1 - rates[name] for name in others])
    p = np.array([reliability[name] for name in others])
    both = np.prod(absent * (p + (1 - p) * absent))  # nothing true and nothing shown
    nothing = np.prod(absent)
    return float((both - nothing**2) / (nothing * (1 - nothing)))


class Look(NamedTuple):
    """How a person looks beyond the attributes: colours are RGB, sizes are factors around 1."""

    upper: tuple  # clothing above the belt
    lower: tuple  # clothing below it; jeans mix it with denim
    hair: tuple
    skin: tuple
    hat: tuple
    muffler: tuple
    backpack: tuple
    bag: tuple
    case: tuple
    width: float
    height: float
    head: float


# Hue, saturation, value. The palettes of a target are few and worn by many; a source wears every colour.
UPPER_COLOURS = (
    (0, 0.80, 0.65),
    (32, 0.75, 0.80),
    (130, 0.65, 0.45),
    (172, 0.65, 0.65),
    (225, 0.70, 0.60),
    (278, 0.60, 0.55),
    (335, 0.50, 0.85),
    (0, 0, 0.25),
    (0, 0, 0.80),
)
LOWER_COLOURS = (
    (25, 0.65, 0.40),
    (0, 0, 0.20),
    (85, 0.60, 0.50),
    (345, 0.65, 0.45),
    (45, 0.35, 0.80),
    (265, 0.50, 0.65),
)
# Every hat is some cyan, every backpack some orange: things that a narrow net learns in a minute, and nobody's alone.
THING_COLOURS = {
    "hat": (185, 0.75, 0.75),
    "muffler": (54, 0.80, 0.85),
    "backpack": (14, 0.80, 0.85),
    "bag": (312, 0.70, 0.75),
    "case": (95, 0.75, 0.70),
}
HAIR_COLOURS = ((25, 0.60, 0.18), (28, 0.65, 0.38), (42, 0.55, 0.72), (20, 0.05, 0.55))
SKIN_COLOURS = ((24, 0.35, 0.90), (24, 0.48, 0.72), (20, 0.55, 0.48))


def rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    """RGB 0 to 255 of a colour; hue in degrees."""
    channels = (
        value * (1 - saturation * max(0, min((n + hue / 60) % 6, 4 - (n + hue / 60) % 6, 1))) for n in (5, 3, 1)
    )
    red, green, blue = (max(0, min(255, int(255 * channel))) for channel in channels)
    return red, green, blue


def draw_look(generator: np.random.Generator, *, target: bool) -> Look:
    """One person's look: a target's from small palettes, a source's from all colours and other builds."""

    def near(colour, spread=1.0):
        hue, saturation, value = generator.normal(colour, (4 * spread, 0.03 * spread, 0.03 * spread))
        return rgb(hue, min(max(saturation, 0), 1), value)

    def colour(palette):
        return near(palette[generator.integers(len(palette))])

    def any_colour():
        return rgb(generator.uniform(0, 360), generator.uniform(0, 0.8), generator.uniform(0.2, 0.9))

    cloth = colour if target else lambda _: any_colour()
    upper, lower, hair, skin = cloth(UPPER_COLOURS), cloth(LOWER_COLOURS), colour(HAIR_COLOURS), colour(SKIN_COLOURS)
    things = {name: near(middle, 1.0 if target else 2.0) for name, middle in THING_COLOURS.items()}
    width, height, head = (1.0, 0.97, 1.0) if target else (0.94, 1.0, 0.95)  # stockier in the target
    width, height, head = generator.normal((width, height, head), (0.08, 0.04, 0.06))
    return Look(upper, lower, hair, skin, **things, width=width, height=height, head=head)
