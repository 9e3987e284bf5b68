"""What ledger and ablate write: the attribute ledger, the table of a study, the note beside each of its runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from acrn_jax.results.record import SCHEMA, Record, optional


class Spread(Record):
    """A value over runs; the standard deviation (n - 1) of one run is None."""

    mean: float
    deviation: float | None
    runs: int


class LedgerRun(Record):
    """A run of a ledger: ACRN's scores and its learned weights."""

    workdir: str
    dataset: str
    dev: bool | None = optional()  # as of `Results`
    protocol: str
    seed: int
    mAP_precision: float | None
    rank1: float | None
    weights: Mapping[str, float]


class LedgerNet(Record):
    """An attribute net of a ledger."""

    workdir: str
    dataset: str | None = None
    split: str | None = None
    mA: float | None = None
    mA_seen: float | None = optional()
    mA_unseen: float | None = optional()


class Gain(Record):
    """What a run would gain in mAP if an attribute were recognised better; the interval's ends where there are any."""

    accuracy: float  # balanced, before
    mean: float
    low: float | None
    high: float | None


class LedgerAttribute(Record):
    """The size of an attribute's weight, and what it might follow: the columns of studies/attribute_ledger.py."""

    name: str
    weight: Spread
    recognition: Spread | None = None
    recognition_seen: Spread | None = None
    recognition_unseen: Spread | None = None
    recognition_disjoint: Spread | None = None
    calibration_error: Spread | None = None
    reliability: Spread | None = None
    accuracy: Spread | None = None
    auc: Spread | None = None
    between_within: Spread | None = None
    mAP_change: Spread | None = None
    rank1_change: Spread | None = None
    gain: Gain | None = optional()  # if its balanced accuracy on the target rose by the ledger's `rise`


class Spearman(Record):
    """Spearman's correlation over attributes with its interval; None where nothing defines it."""

    value: float | None
    low: float | None
    high: float | None
    attributes: int


class Ledger(Record):
    """ledger.json: attributes by the size of their weight, and the weights' correlation with each column."""

    verb: ClassVar[str] = "ledger"

    schema: int = SCHEMA
    target: str
    runs: tuple[LedgerRun, ...]
    recognition: tuple[LedgerNet, ...]
    recognition_disjoint: tuple[LedgerNet, ...] = ()
    attributes: tuple[LedgerAttribute, ...]
    spearman: Mapping[str, Spearman]
    interval: str
    rise: float | None = optional()  # of the balanced accuracy, that gains are for


class StudyRow(Record):
    """One metric of one method of one arm; its fields are the columns of table.csv."""

    study: str | None = None
    arm: str
    method: str | None = None  # None: the arm has no results yet
    metric: str | None = None
    seeds: int
    mean: float | None = None
    deviation: float | None = None
    reference: str | None = None
    difference: float | None = None  # to the reference, with the ends of its interval
    low: float | None = None
    high: float | None = None
    over: str | None = None  # what the interval is about
    seconds: float | None = None
    images_per_second: float | None = None
    peak_memory_mib: float | None = None
    failed: str | None = None


class StudyTable(Record):
    """table.json: what the arms of a study reach, and what they gain over its reference."""

    verb: ClassVar[str] = "ablate"

    schema: int = SCHEMA
    study: str
    reference: str
    interval: str
    protocol: str | None
    datasets: tuple[str, ...]
    dev: bool | None = optional()  # as of `Results`
    fingerprints: tuple[str | None, ...] = ()
    attribute_nets: Mapping[str, str] = dataclasses.field(default_factory=dict)  # fingerprint -> name
    commits: tuple[str | None, ...] = ()
    replicates: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)  # arm -> SPLIT/seed_N
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)  # ARM/REPLICATE -> sentence
    missing: tuple[str, ...] = ()
    rows: tuple[StudyRow, ...]


class Job(Record):
    """job.json: which config a finished run of a study is of, and what it was made of."""

    verb: ClassVar[str] = "ablate"

    schema: int = SCHEMA
    config: Mapping[str, Any] | None = None
    made_of: Mapping[str, Any] | None = optional()
    peak_memory_mib: float | None = optional()
    memory_of: str | None = optional()  # "device" or "process"
