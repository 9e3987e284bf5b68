"""Evaluation as calls on arrays, whoever made them: what `acrn_jax` and `acrn_jax.evaluation` offer.

Arrays are numpy's, lists, or another library's on the CPU: torch tensors, JAX arrays, whatever has `__array__` or
`__dlpack__`. Labels are integers (floats without a fraction and texts of digits are read as such): q_pids and g_pids
say who is on an image, 1 or more a person, 0 a distractor, -1 junk; q_camids and g_camids by which camera, -1 unknown.
"""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from acrn_jax.evaluation import (
    comparison,
    fusion,
    hints,
    inputs,
    metrics,
    operating_points,
    protocols,
    ranking,
    resampling,
)
from acrn_jax.evaluation import reranking as k_reciprocal
from acrn_jax.evaluation.inputs import Search
from acrn_jax.evaluation.metrics import RANKS
from acrn_jax.evaluation.protocols import Protocol
from acrn_jax.evaluation.resampling import Interval

_WIDTH = 100  # of the printed hints


@dataclasses.dataclass(frozen=True, repr=False)
class Evaluation:
    """Scores of one search, fractions in [0, 1]; prints as a table of per cent.

    The fields of `result` are attributes of this, too: `metrics` and `per_query` by name, `first_rank`, `counted`,
    `queries`, `gallery`, `queries_without_match`, `deviation` over repeats, `chance`. So is each metric:
    `mAP_precision`, `mAP_trapezoid`, `mINP`, `rank1`, ... `mAP` is mAP_precision, the mean of the precisions at the
    right images, which most libraries print.
    """

    result: ranking.Result
    protocol: str
    options: dict[str, Any]  # of a protocol that draws: repeats, seed, probe_view
    people: np.ndarray  # [Q] int, q_pids
    hints: tuple[str, ...] = ()  # what looks odd about the scores
    intervals: dict[str, Interval] | None = None  # over people, where asked for

    def __getattr__(self, name: str) -> Any:
        if "result" in self.__dict__:  # not yet while a copy is made
            if name in ranking.Result._fields:
                return getattr(self.result, name)
            metric = "mAP_precision" if name == "mAP" else name
            if metric in self.result.metrics:
                return self.result.metrics[metric]
        raise AttributeError(f"An evaluation has no {name!r}; see dir() of it.")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *ranking.Result._fields, "mAP", *self.metrics]

    def bootstrap(self, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0) -> dict[str, Interval]:
        """Interval of each metric over people, see `bootstrap`."""
        return resampling.intervals(self.result, groups=self.people, seed=seed, resamples=resamples, level=level)

    def __str__(self) -> str:
        drawn = "".join(f", {name} {value}" for name, value in self.options.items())
        lines = [f"protocol {self.protocol}{drawn}: {self.queries:,} queries, {self.gallery:,} gallery images"]
        lines.append(f"{'metric':<10} {'per cent':>8}" + ("   95 % interval" if self.intervals else ""))
        for name, value in self.metrics.items():
            title = metrics.METRICS[name].title if name in metrics.METRICS else name.replace("rank", "r")
            line = f"{title:<10} {100 * value:>8.1f}"
            if self.intervals and np.isfinite(self.intervals[name].low):
                line += f"   {100 * self.intervals[name].low:.1f} to {100 * self.intervals[name].high:.1f}"
            lines.append(line)
        notes = list(self.hints)
        if self.queries_without_match:
            notes.insert(0, f"{self.queries_without_match:,} queries have no right gallery image.")
        return "\n".join([*lines, *textwrap.wrap(" ".join(notes), _WIDTH)])

    __repr__ = __str__


def evaluate(
    distances_or_features: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any = None,
    g_camids: Any = None,
    protocol: str | Protocol = "market1501",
    *,
    distance: str | None = None,
    no_match: ranking.NoMatch = "error",
    ranks: Sequence[int] = RANKS,
    bootstrap: bool = False,
    repeats: int | None = None,
    seed: int | None = None,
    probe_view: str | None = None,
) -> Evaluation:
    """Both average precisions, CMC ranks and mINP, exact, under a named protocol.

    >>> import acrn_jax
    >>> distances = [[0.2, 0.4, 0.9], [0.8, 0.1, 0.3]]
    >>> found = acrn_jax.evaluate(distances, q_pids=[1, 2], g_pids=[1, 1, 2], q_camids=[1, 1], g_camids=[2, 3, 2])
    >>> print(found)
    protocol market1501: 2 queries, 3 gallery images
    metric     per cent
    mAP prec.      75.0
    mAP trap.      62.5
    mINP           75.0
    r1             50.0
    r5            100.0
    r10           100.0
    r20           100.0
    >>> found.mAP, found.rank1, found.per_query["mAP_precision"].tolist()
    (0.75, 0.5, [1.0, 0.5])

    Args:
      distances_or_features: distances [Q, G], smaller is more alike, or a pair of features [Q, D] and [G, D].
      q_pids: [Q] who is on the query images, 1 or more each.
      g_pids: [G] who is on the gallery images; 0 a distractor, -1 junk.
      q_camids: [Q] by which camera; None, as g_camids, where the protocol needs none.
      g_camids: [G].
      protocol: a key of PROTOCOLS, or a `Protocol` of your own.
      distance: of features, a key of DISTANCES; default squared_euclidean, which ranks as euclidean does.
      no_match: queries without a right gallery image are an "error", left out of the means ("skip", as most libraries
        do without a word) or hits of nothing that count in every mean ("count_as_miss").
      ranks: the k of rank k.
      bootstrap: compute intervals over people too (`.intervals`, printed); `.bootstrap()` does it later.
      repeats, seed, probe_view: of protocols that draw; default 10, 0 and "both".

    Raises:
      TypeError: something that numpy cannot read: a tensor on a GPU, or one that requires a gradient.
      ValueError: NaN, lengths that differ, an unknown protocol or distance, labels that are no integers, an empty
        gallery, labels that the protocol does not fit, or queries without a match; one sentence.

    Source: see `metrics` and `protocols`.
    """
    rule = named(protocol, repeats=repeats, seed=seed, probe_view=probe_view)
    search = _search(distances_or_features, q_pids, g_pids, q_camids, g_camids)
    inputs.check(search, rule)
    query, gallery = search.query_labels, search.gallery_labels
    rows = _rows(search, distance)
    result = ranking.evaluate(
        rows, query, gallery, protocol=rule, no_match=no_match, table=metrics.with_ranks(_check_ranks(ranks))
    )
    given = "features" if search.distances is None else "distances"
    odd = (*hints.hints(result, rows, of=given), *inputs.same_pictures(search, rule))
    found = Evaluation(result, rule.name, rule.options, query.person_id, odd)
    return dataclasses.replace(found, intervals=found.bootstrap()) if bootstrap else found


def roc(
    distances_or_features: Any,
    q_pids: Any,
    g_pids: Any,
    q_camids: Any = None,
    g_camids: Any = None,
    protocol: str | Protocol = "market1501",
    *,
    distance: str | None = None,
    fpr: Sequence[float] = operating_points.RATES,
) -> operating_points.Roc:
    """True positive rates of pairs at wanted false positive rates, with the thresholds on the distance.

    >>> import acrn_jax
    >>> distances = [[0.2, 0.4, 0.9], [0.8, 0.1, 0.3]]
    >>> print(acrn_jax.roc(distances, [1, 2], [1, 1, 2], [1, 1], [2, 3, 2], fpr=[0.1, 0.5]))
    3 genuine and 3 impostor pairs
    FPR 0         TPR   0.0 %  distance below 0.1
    FPR 0.333     TPR 100.0 %  distance below 0.8

    Args:
      distances_or_features, q_pids, g_pids, q_camids, g_camids, protocol, distance: as `evaluate` takes them.
      fpr: wanted rates in [0, 1]; a fine grid draws the curve.

    Raises:
      TypeError: as `evaluate`.
      ValueError: as `evaluate`; a rate is not in [0, 1], or there is no genuine or no impostor pair.

    Source: see `operating_points`.
    """
    rule, search = named(protocol), _search(distances_or_features, q_pids, g_pids, q_camids, g_camids)
    inputs.check(search, rule)
    rows = _rows(search, distance)
    return operating_points.roc(rows, search.query_labels, search.gallery_labels, protocol=rule, fpr=fpr)


def rerank(
    query: Any,
    gallery: Any,
    gallery_gallery: Any = None,
    *,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    distance: str | None = None,
) -> np.ndarray:
    """k-reciprocal re-ranking: new distances for `evaluate`, of two sets of features or of three distance matrices.

    >>> import acrn_jax, numpy as np
    >>> query, gallery = np.array([[0.0], [5.0]]), np.array([[0.1], [5.5], [4.9], [0.3]])
    >>> acrn_jax.rerank(query, gallery, k1=2, k2=1).argmin(axis=1)
    array([0, 2])

    Args:
      query: features [Q, D]; or distances [Q, G] of query and gallery.
      gallery: features [G, D]; or distances [Q, Q] among the queries.
      gallery_gallery: None; or distances [G, G] among the gallery images. Distances are taken as they come; the paper
        takes squared ones.
      k1: neighbours that are searched for reciprocal ones, 1 to Q + G - 1.
      k2: images that the local query expansion averages, 1 (none) to Q + G.
      lambda_value: the given distance's share of the result, in [0, 1].
      distance: of features, a key of DISTANCES; default squared_euclidean.

    Returns:
      [Q, G] float32, smaller is more alike.

    Raises:
      TypeError: as `evaluate`.
      ValueError: shapes disagree, NaN, or k1, k2 or lambda_value out of range.

    Source: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017.
    """
    if gallery_gallery is None:
        names = ("query features", "gallery features")
        query, gallery = (inputs.as_array(x, name) for x, name in zip((query, gallery), names, strict=True))
        query, gallery = (inputs.features(x, len(x), name) for x, name in zip((query, gallery), names, strict=True))
        inputs.check_width(query, gallery, *names)
        return k_reciprocal.rerank(
            query, gallery, distance=distance or "squared_euclidean", k1=k1, k2=k2, weight=lambda_value
        )
    if distance is not None:
        raise ValueError(f"distance={distance!r} is of features; three arrays are distances already.")
    names = ("distances of query and gallery", "distances of queries", "distances of gallery images")
    parts = [
        inputs.numbers(inputs.as_array(x, name), name, "[n, m]")
        for x, name in zip((query, gallery, gallery_gallery), names, strict=True)
    ]
    between, among_queries, among_gallery = parts
    q, g = between.shape
    if among_queries.shape != (q, q) or among_gallery.shape != (g, g):
        raise ValueError(
            f"Re-ranking wants distances [Q, G], [Q, Q] and [G, G], got {', '.join(str(list(x.shape)) for x in parts)}."
        )
    both = np.block([[among_queries, between], [between.T, among_gallery]])
    return k_reciprocal.rerank_rows(lambda index: both[index], q, q + g, k1=k1, k2=k2, weight=lambda_value)


def bootstrap(
    first: Evaluation,
    second: Evaluation | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Bootstrap intervals over people of each metric, or of how much two evaluations of the same queries differ.

    Queries of one person resemble each other, so people are drawn, each with all their queries.

    >>> import acrn_jax
    >>> labels = [1, 2, 3], [1, 2, 3], [1, 1, 1], [2, 2, 2]
    >>> first = acrn_jax.evaluate([[0, 1, 1], [1, 0, 1], [1, 1, 0]], *labels)
    >>> second = acrn_jax.evaluate([[0, 1, 1], [0, 1, 1], [1, 1, 0]], *labels)
    >>> round(acrn_jax.bootstrap(first, second)["rank1"].mean, 3)
    0.333

    Args:
      first: of `evaluate`.
      second: of `evaluate`, for the differences first - second, paired by query; None for `first` alone.
      resamples: number of resamples.
      level: share of resamples inside, in (0, 1).
      seed: same seed, same intervals.

    Returns:
      metric -> mean, low, high; of a single person low and high are NaN.

    Raises:
      TypeError: not what `evaluate` returns.
      ValueError: not the same queries or metrics; resamples or level out of range.

    Source: see `resampling`.
    """
    for given in (first, *([] if second is None else [second])):
        if not isinstance(given, Evaluation):
            raise TypeError(f"A bootstrap wants what acrn_jax.evaluate returns, got a {type(given).__name__}.")
    if second is None:
        return first.bootstrap(resamples=resamples, level=level, seed=seed)
    if not np.array_equal(first.people, second.people):
        raise ValueError("A paired bootstrap wants two evaluations of the same queries; their q_pids differ.")
    options = {"groups": first.people, "seed": seed, "resamples": resamples, "level": level}
    return resampling.differences(first.result, second.result, **options)


def compare(
    rankings: Mapping[str, Evaluation | Sequence[Evaluation]], *, resamples: int = 10_000, seed: int = 0
) -> comparison.Comparison:
    """Whether the first of several rankings is better than each of the others, and whether this test set could tell.

    >>> import acrn_jax
    >>> labels = [1, 2, 3], [1, 2, 3], [1, 1, 1], [2, 2, 2]
    >>> ours = acrn_jax.evaluate([[0, 1, 1], [1, 0, 1], [1, 1, 0]], *labels)
    >>> theirs = acrn_jax.evaluate([[0, 1, 1], [0, 1, 1], [1, 1, 0]], *labels)
    >>> found = acrn_jax.compare({"ours": ours, "theirs": theirs})
    >>> rank1 = next(each for each in found.others["theirs"] if each.metric == "rank1")
    >>> round(rank1.interval.mean, 3), rank1.p_value
    (0.333, 1.0)

    Args:
      rankings: name -> what `evaluate` returned, or a list of it: the evaluations of several training seeds, or of
        several splits, the i-th of each ranking of the same queries.
      resamples: of the bootstrap, and number of permutations.
      seed: same seed, same intervals and p-values.

    Raises:
      TypeError: not what `evaluate` returns.
      ValueError: as `comparison.compare`.

    Source: see `comparison`.
    """
    lists: dict[str, list[comparison.Scored]] = {}
    for name, of in rankings.items():
        many = [of] if isinstance(of, Evaluation) else list(of)
        if strays := [one for one in many if not isinstance(one, Evaluation)]:
            raise TypeError(f"{name} holds a {type(strays[0]).__name__}; give what acrn_jax.evaluate returns.")
        lists[name] = [
            comparison.Scored(r.per_query, r.metrics, r.counted, one.people, gallery=r.gallery)
            for one in many
            for r in [one.result]
        ]
    return comparison.compare(lists, resamples=resamples, seed=seed)


def named(protocol: str | Protocol, **options: Any) -> Protocol:
    """A protocol by its name, with those options that are not None.

    Raises:
      TypeError: neither a name nor a Protocol.
      ValueError: no such protocol (names the nearest), an option out of range, or one of a protocol that has none.
    """
    given = {name: value for name, value in options.items() if value is not None}
    if isinstance(protocol, Protocol):
        if given:
            raise ValueError(f"{', '.join(given)} cannot be given beside a Protocol, which holds its own.")
        return protocol
    if not isinstance(protocol, str):
        raise TypeError(f"A protocol is a name, such as 'market1501', or a Protocol; got {protocol!r}.")
    strays = set(given) - set(protocols.named(protocol).options)
    if strays:
        raise ValueError(f"{', '.join(sorted(strays))} cannot be set: {protocol} has no such option.")
    return protocols.named(protocol, **given)


def _search(distances_or_features, q_pids, g_pids, q_camids, g_camids) -> Search:
    search = inputs.search(distances_or_features, q_pids, g_pids, q_camids, g_camids)
    protocols.check_labels(search.query_labels, "query")
    protocols.check_labels(search.gallery_labels, "gallery")
    return search


def _rows(search: Search, distance: str | None) -> np.ndarray | ranking.DistanceFn:
    if search.distances is None:
        return fusion.distance_rows(distance or "squared_euclidean", search.query, search.gallery)
    if distance is not None:
        raise ValueError(f"distance={distance!r} is of features, given as a pair; distances [Q, G] came instead.")
    return search.distances


def _check_ranks(ranks: Sequence[int]) -> tuple[int, ...]:
    if isinstance(ranks, str) or not all(isinstance(k, int | np.integer) and k >= 1 for k in ranks):
        raise ValueError(f"ranks is {ranks!r}; give whole numbers of 1 or more, such as (1, 5, 10).")
    return tuple(int(k) for k in ranks)
