"""audit.json: where a ranking is good and where it is bad."""

from collections.abc import Mapping

from acrn_jax.results.record import SCHEMA, Record, optional


class Range(Record):
    """A mean and the ends of its 95 % interval, None where too few people are there for one."""

    mean: float
    low: float | None
    high: float | None


class HardQuery(Record):
    """A query of a slice: its name, score, and the rank of its first right image, None without one."""

    query: str
    score: float
    first_rank: int | None


class Slice(Record):
    """The queries with one value of a column; of a pair of cameras, against the images of the second alone."""

    column: str
    name: str
    queries: int
    people: int
    scores: Mapping[str, Range]  # metric -> its mean
    difference: float  # of the tested metric: the slice minus the rest of its column
    p_value: (
        float | None
    )  # None: too few people in it or its rest, or the larger of two, of which the smaller is tested
    adjusted: float | None  # after Benjamini and Hochberg, over all slices
    differs: bool  # whether it does beyond chance
    hardest: tuple[HardQuery, ...]  # lowest score first
    members: tuple[int, ...]  # places of all its queries, likewise, from 0, in the order of `names`


class AuditColumn(Record):
    """What slices were made by: its name, where it comes from, how many queries have no value."""

    name: str
    source: str  # "ranking", "picture", "label", "file"
    unknown: int
    slices: tuple[str, ...]  # their names, in order


class Confusable(Record):
    """Queries of one camera: how many have a wrong first image, and of which gallery cameras these are."""

    camera: int
    queries: int
    wrong: int
    first: tuple[int, ...]  # of each gallery camera
    expected: tuple[float, ...]  # as many of each, if wrong images came by chance


class Probe(Record):
    """A linear classifier of cameras on features, judged on people that it was not fitted on."""

    accuracy: Range  # balanced
    chance: float
    cameras: int
    images: int
    people: int


class Cameras(Record):
    """What cameras have to do with a ranking."""

    gallery: tuple[int, ...]  # cameras of the gallery
    confusions: tuple[Confusable, ...]
    explained: Range  # share of the variance of a query's distances to others' images that lies between cameras
    explained_chance: float  # with cameras that mean nothing
    probe: Probe | None


class Audit(Record):
    """audit.json; docs/audit.md. Slices that differ beyond chance come first, the largest difference before."""

    verb = "evaluate --audit"
    schema: int = SCHEMA
    dataset: str
    method: str | None = optional()  # row of the table of a run
    protocol: str
    queries: int
    people: int
    tested: str  # metric that slices are compared by
    overall: Mapping[str, Range]
    names: tuple[str, ...] | None = None  # of all queries, in order
    columns: tuple[AuditColumn, ...]
    slices: tuple[Slice, ...]
    cameras: Cameras | None  # None: cameras are not known
    notes: tuple[str, ...] = ()  # what is left out and why
    rule: str = ""  # how intervals and p-values come about
    fingerprint: str | None = optional()  # of the test images
