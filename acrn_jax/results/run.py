"""What evaluate leaves in a workdir as JSON: scores, rankings, look-alikes."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Self

from acrn_jax import COMMAND
from acrn_jax.results import record
from acrn_jax.results.record import SCHEMA, Record, optional


class Estimate(NamedTuple):
    """A number over seeds: mean, standard deviation (n - 1), half the width of the mean's 95 % interval."""

    mean: float
    std: float
    half_width: float


Value = float | Estimate | None  # files hold numbers; records of several seeds (report/seeds.py) hold estimates
Scores = Mapping[str, Mapping[str, Value]]  # method -> metric -> value


# What a result was made of


class Source(Record):
    """One input of a phase, see phases.py: its name and fingerprint, and where it lies."""

    name: str
    fingerprint: str
    path: str | None = optional()


class Unfinished(Record):
    """How far a training had come that had not come to its end."""

    step: int
    steps: int


def source(made_of: Mapping[str, Any] | None, kind: str) -> Source | None:
    """An input of a run's last phase: "data", "records", "attributes" or "start"; older files do not tell.

    Args:
      made_of: of a record of scores: the inputs of "run", "attributes", "baseline" and "tune".
      kind: which input.
    """
    tree = ((made_of or {}).get("run") or {}).get(kind)
    return Source.parse(tree, f"made_of.run.{kind}") if tree else None


# Scores of a re-id run

_DEV = re.compile(r"(?!image_folder/|mixture/).+[/_]dev_\d+")  # names of these sets' configs are anyone's


class Weight(Record):
    """An attribute's learned weight beside what is known of the attribute on the target's test images."""

    name: str
    weight: Value
    reliability: Value = None  # probability that it is shown truthfully, which built-in data knows
    accuracy: Value = None  # balanced
    between_within: Value = None  # variance between people over variance within a person


class AttributesFrom(Record):
    """The training set of an ACRN's attribute net, and the net's mA."""

    dataset: str | None = None
    fingerprint: str | None = None
    mA: float | None = None


class _Scored(Record):
    """Scores on a data set; where an older file does not say that it is a dev split, the config's name does."""

    @classmethod
    def parse(cls, tree: Mapping[str, Any], where: str = "", *, strict: bool = False) -> Self:
        if not strict and isinstance(tree, Mapping) and _DEV.fullmatch(str(tree.get("dataset"))):
            tree = {"dev": True, **tree}
        return super().parse(tree, where, strict=strict)


class Results(_Scored):
    """results.json: scores in [0, 1] of a run's methods, with all that they depend on; docs/results.md."""

    schema: int = SCHEMA
    dataset: str
    trained_on: str | None = None  # None: the same
    split: str = "query/gallery"
    protocol: str
    no_match: str | None = None
    methods: Scores
    chance: float | None = None  # mAP (precision) of random distances
    hints: tuple[str, ...] = ()
    queries: int | None = None
    gallery: int | None = None
    queries_without_match: int = 0
    partial: bool = False  # whether the prepared set lacks something
    dev: bool | None = optional()  # true: a fold to choose and compare on, no official split
    people_seen_in_training: int = 0
    runs: Mapping[str, str] = dataclasses.field(default_factory=dict)  # "attributes", "baseline": relative paths
    gamma: float | None = optional()
    scales: Mapping[str, float] | None = optional()  # "feature", "attribute"
    tuned_factor: float | None = None
    attributes_from: AttributesFrom | None = optional()
    missing: Mapping[str, str] | None = optional()  # method -> why it has no row
    weights: tuple[Weight, ...] | None = optional()
    spearman_weight_reliability: Value = None
    spearman_weight_accuracy: Value = None
    spearman_weight_between_within: Value = None
    protocol_options: Mapping[str, Any] | None = optional()
    deviation: Mapping[str, Mapping[str, float | None]] | None = optional()  # over the protocol's repeats
    made_of: Mapping[str, Any] | None = optional()
    unfinished: Unfinished | None = optional()
    seeds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commit: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device: str | None = None
    fingerprint: str | None = None  # of the test images

    @classmethod
    def read(cls, path: str | os.PathLike) -> Self:
        """As `Record.read`; a file of results has at least one method."""
        results = super().read(path)
        if not results.methods:
            raise ValueError(f"{path} is not what {cls.verb} writes: methods is empty; run {COMMAND} evaluate again.")
        return results

    def to_json(self) -> dict[str, Any]:
        """As `Record.to_json`; what a ReIdCNN cannot have is left out."""
        of_attributes = {"tuned_factor", *(f.name for f in dataclasses.fields(self) if f.name.startswith("spearman_"))}
        tree = super().to_json()
        return tree if self.weights is not None else {k: v for k, v in tree.items() if k not in of_attributes}


# Scores of an attribute net


class AttributeRate(Record):
    """How well one attribute is recognised: balanced accuracy, None without a positive or a negative image."""

    name: str
    mA: float | None
    positives: int | None = optional()
    negatives: int | None = optional()


class RecognitionPart(Record):
    """The scores of an attribute net on some of the images."""

    mA: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    images: int | None = optional()
    attributes: tuple[AttributeRate, ...] = ()

    def rates(self) -> dict[str, float]:
        """The mA of each attribute that has one."""
        return {entry.name: entry.mA for entry in self.attributes if entry.mA is not None}


class Calibrated(Record):
    """What the thresholds were chosen for, and on which images."""

    target: str
    split: str
    fingerprint: str | None = None


class Recognition(_Scored):
    """recognition.json: scores of an attribute net; those of all images, of people seen in training, of people not."""

    schema: int = SCHEMA
    dataset: str
    trained_on: str | None = None  # None: the same
    split: str = "test"
    dev: bool | None = optional()  # as of `Results`
    fingerprint: str | None = None
    partition_sha256: str | None = optional()  # of the file of a published split, where one was given
    made_of: Mapping[str, Any] | None = optional()
    unfinished: Unfinished | None = optional()
    threshold: float | tuple[float, ...] | None = None
    calibrated: Calibrated | None = optional()
    undefined: int = 0  # attributes without a positive or a negative image
    mA: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    images: int | None = optional()
    images_trained_on: int | None = optional()  # of these, where there are any
    attributes: tuple[AttributeRate, ...]
    seen: RecognitionPart | None = optional()
    unseen: RecognitionPart | None = optional()
    seeds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commit: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device: str | None = None

    def rates(self) -> dict[str, float]:
        """The mA of each attribute that has one."""
        return {entry.name: entry.mA for entry in self.attributes if entry.mA is not None}


# Scores of wish lists


class Ends(Record):
    """A mean with the ends of its 95 % interval, None where there is none."""

    mean: float | None
    low: float | None
    high: float | None


class QueryRow(Record):
    """What one row reached on wish lists; fractions in [0, 1]."""

    metrics: Mapping[str, float]
    by_number: Mapping[str, float]  # mAP (precision) by the lists' number of attributes
    by_band: Mapping[str, float]  # and by how frequent right images are
    interval: Ends | None = optional()  # of mAP
    change: Ends | None = optional()  # of mAP, against the row "product"


class AttributeQueries(_Scored):
    """attribute_query.json: how attribute scores rank images for wish lists; docs/attribute_query.md."""

    schema: int = SCHEMA
    dataset: str
    trained_on: str | None = None  # None: the same, or not known
    split: str | None = None
    dev: bool | None = optional()  # as of `Results`
    protocol: str = "attribute_query"
    images: int
    people: int
    half: str | None = optional()  # of the people that is scored; curves and weights are fitted on the other
    attributes: tuple[str, ...]
    wish_lists: tuple[Mapping[str, Any], ...]  # "want" and "not" names, "band"
    lists_sha256: str
    seed: int | None = None  # of the drawing; None: the lists were given
    counts: Mapping[str, Mapping[str, int]]  # lists "by_number" and "by_band"
    rows: Mapping[str, QueryRow]
    interval: str
    probabilities: Mapping[str, Any] | None = optional()  # what is known of them
    fingerprint: str | None = None  # of the images
    files: Mapping[str, str] | None = optional()  # name -> sha256, of scores that came as files
    made_of: Mapping[str, Any] | None = optional()
    unfinished: Unfinished | None = optional()
    seeds: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    commit: str | None = None
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    device: str | None = None


# Pictures


class Shown(Record):
    """A picture (a path in the workdir) and what the data set says of it."""

    image: str
    person_id: int
    camera_id: int
    file_name: str


class Ranked(Shown):
    """A gallery picture in a ranking; `shares` are the parts of its distance, by "feature" and attribute."""

    rank: int | None = optional()  # None in old files, which hold the first ones
    distance: float
    right: bool
    shares: Mapping[str, float] | None = optional()


class RankList(Shown):
    """A query with the gallery pictures nearest to it."""

    average_precision: float
    gallery: tuple[Ranked, ...]


class RankLists(Record):
    """rank_lists.json: {split: {"hardest" or "random": rank lists}}, whose file has no key but the splits."""

    splits: Mapping[str, Mapping[str, tuple[RankList, ...]]]

    @classmethod
    def parse(cls, tree: Mapping[str, Any], where: str = "", *, strict: bool = False) -> Self:
        """As `Record.parse`, of the splits themselves."""
        kind = Mapping[str, tuple[RankList, ...]]
        return cls(splits={k: record.parse_value(kind, v, k, strict) for k, v in tree.items() if k != "schema"})

    def to_json(self) -> dict[str, Any]:
        """As `Record.to_json`."""
        return record.plain(self.splits)


class Confused(Shown):
    """A gallery picture with its distances to the query: of the feature alone, over s_f, and with attributes."""

    feature_distance: float
    distance: float


class TellingAttribute(Record):
    """What the attribute net says of the three pictures, in the run's representation."""

    name: str
    query: float
    wrong: float
    right: float


class Confusion(Record):
    """A query, the wrong picture that its feature takes for it, and the right one that attributes put first."""

    query: Shown
    wrong: Confused
    right: Confused
    attributes: tuple[TellingAttribute, ...]


class Rates(Record):
    """mA of each attribute, and on which images."""

    on: str
    mA: Mapping[str, float | None]


class Confusions(Record):
    """look_alikes.json: people whom the feature takes for one and attributes tell apart."""

    schema: int = SCHEMA
    representation: str | None = None  # "probabilities", "logits" or "binary"
    recognition: Rates | None = None
    pairs: tuple[Confusion, ...]
