"""pairs.json: the probability that two pictures show one person, over a run's distance."""

from collections.abc import Mapping
from typing import Any

from acrn_jax.results.record import Record


class ReliabilityBin(Record):
    """Pairs whose probabilities lie in one bin of equal width; one person's and two people's weigh one half each."""

    weight: float  # share of the pairs
    probability: float | None  # their mean
    same: float | None  # share of them that shows one person


class Alarms(Record):
    """What a threshold does on one data set."""

    rate: float  # of false alarms, as wanted
    size: int  # of the gallery
    threshold: float
    measured: float  # share of searches for strangers that found anybody
    found: float | None  # share of searches for people who are there that found a right picture


class Judged(Record):
    """How well a calibration holds on people whom it was not fitted on."""

    on: str
    people: int
    images: int
    same: int  # pairs of one person
    different: int  # of two
    error: float  # expected calibration error
    table: tuple[ReliabilityBin, ...]
    alarms: tuple[Alarms, ...]


class PairThresholds(Record):
    """As evaluation.strangers.Thresholds."""

    size: tuple[int, ...]
    rate: tuple[float, ...]
    threshold: tuple[tuple[float, ...], ...]
    low: tuple[tuple[float, ...], ...]
    high: tuple[tuple[float, ...], ...]


class Pairs(Record):
    """A calibration of pairs: of which distance, a falling curve, thresholds, and how well it holds."""

    verb = "calibrate"

    metric: Mapping[str, Any]  # the distance; see runs.pair_calibration.described
    fitted_on: str
    people: int
    images: int
    same: int
    different: int
    seed: int
    distance: tuple[float, ...]
    probability: tuple[float, ...]
    thresholds: PairThresholds
    judged: tuple[Judged, ...]


class CardPart(Record):
    """`calibration` of a card, as far as it is of pairs."""

    pairs: Pairs


class PairCalibration(Record):
    """pairs.json, which is a part of a card as `export --card` takes it."""

    verb = "calibrate"

    calibration: CardPart
