"""Exact ranking without sorting the gallery: both average precisions, CMC and mINP under a named protocol.

A right gallery image's rank is 1 + the number of images that stand before it: those nearer, and those equally near
with a lower index, which is what a stable sort of the distances gives. Queries come in blocks, and a large gallery in
parts, so memory grows with neither.

`metrics` says what is made of the ranks.

Of a random ranking of N images AP_precision is expected to be (H_N + (n - 1) (N - H_N) / (N - 1)) / N, H_N = sum 1 / i.

Where a protocol draws images, the drawn ones are ranked among themselves, and scores are means over its repeats.

Source: chance: Bestgen, "Exact Expected Average Precision of the Random Baseline for System Evaluation", 2015.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from typing import Any, Literal, NamedTuple, cast

import numpy as np

from acrn_jax.evaluation import metrics, protocols
from acrn_jax.evaluation.metrics import METRICS, Metric, Ranks
from acrn_jax.schema import JUNK, Labels

# Index of queries (slice or [q] int) -> their distances to the whole gallery, a fresh float array [q, G].
DistanceFn = Callable[[slice | np.ndarray], np.ndarray]
NoMatch = Literal["error", "skip", "count_as_miss"]
NO_RANK = np.iinfo(np.int64).max  # of a query without a right image: beyond every k
_BLOCK_BYTES = 1 << 25  # of one float32 block of distances
_WIDTH = 1 << 15  # gallery images in a part; galleries of up to twice as many are ranked whole


class Tiles(NamedTuple):
    """Distances that can be had for a part of the gallery; called with queries alone, they are `DistanceFn`."""

    tile: Callable[[slice | np.ndarray, slice | np.ndarray], np.ndarray]  # queries, gallery -> a fresh float [q, g]

    def __call__(self, index: slice | np.ndarray) -> np.ndarray:
        return self.tile(index, slice(None))


class Result(NamedTuple):
    """Scores of one method; fractions in [0, 1]."""

    metrics: dict[str, float]  # keys of METRICS; means over the counted queries, or over repeats
    per_query: dict[str, np.ndarray]  # the same keys -> [Q] float64, means over draws; 0 for a query without a match
    first_rank: np.ndarray  # [Q] int64, rank of the first right image among all, NO_RANK without one
    counted: np.ndarray  # [Q] bool, which queries the means are over
    queries: int
    gallery: int
    queries_without_match: int
    deviation: dict[str, float] | None = None  # over repeats (n - 1), of the drawn metrics; NaN for one repeat
    chance: float = float("nan")  # mAP_precision that random rankings have on average


class RankList(NamedTuple):
    """The beginning of n rankings."""

    order: np.ndarray  # [n, k] int64, gallery indices, nearest first; -1 where a ranking is shorter than k
    distance: np.ndarray  # [n, k] float; inf there
    right: np.ndarray  # [n, k] bool


def evaluate(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
    no_match: NoMatch = "error",
    table: Mapping[str, Metric] = METRICS,
) -> Result:
    """Scores a ranking of the gallery for each query.

    Args:
      distances: [Q, G], smaller is more alike, or a function from an index of queries to their rows (see `DistanceFn`).
        Whether two equal images tie is up to whoever computed them; the functions of `fusion` see to it.
      query: [Q].
      gallery: [G].
      protocol: what is left out, e.g. `protocols.MARKET1501`.
      no_match: queries without a right image are an "error", left out of the means ("skip"), or hits of nothing that
        count in every mean ("count_as_miss").
      table: the metrics, e.g. `metrics.with_ranks((1, 50))`.

    Raises:
      ValueError: the protocol does not fit the labels, shapes disagree, a distance is NaN or infinite, a query shows
        no person, or queries without a match are an error.
    """
    query, gallery = _check(query, gallery, protocol, no_match)
    total = len(query.person_id)
    scores = {name: np.zeros(total) for name in table}
    first_rank, kept = np.full(total, NO_RANK), gallery.person_id != JUNK
    draws = protocol.draw(query, gallery, protocol) if protocol.draw else None
    probes, drawn, everything = draws.probes if draws else np.ones(total, bool), [], np.arange(len(kept))

    def whole():
        for block, rows, columns, excluded, matrix in _blocks(distances, query, gallery, protocol, no_match, probes):
            if draws:
                for i in range(total)[block]:
                    row = matrix[i - block.start]
                    for number, images in draws.of(i):
                        rank = _drawn_ranks(row, query, gallery, i, images)
                        drawn.append((np.full_like(number, i), number, rank, np.full_like(number, images.shape[1])))
            rows, columns = rows[~excluded], columns[~excluded]  # of right images
            right = [(matrix[rows[q.start] - block.start], columns[q]) for q in _by_query(rows)]
            yield rows, [np.sort(1 + _before(row, kept, everything, row[own], own, own=1)) for row, own in right]

    wide = isinstance(distances, Tiles) and len(kept) > 2 * _WIDTH and not draws
    for rows, ranks_of in _in_parts(distances, query, gallery, protocol, no_match) if wide else whole():
        if not rows.size:
            continue
        found = Ranks.of(np.concatenate(ranks_of), np.array([part.start for part in _by_query(rows)]))
        matched = rows[found.start]
        first_rank[matched] = found.first
        for name, metric in table.items():
            scores[name][matched] = metric.of(found)
    without = probes & (first_rank == NO_RANK)
    counted = probes & ~without if no_match == "skip" else probes
    _check_counted(counted, query, gallery, protocol, without)
    means = {name: float(values[counted].mean()) for name, values in scores.items()}
    deviation, expected = None, _chance(query, gallery, protocol)[counted].mean()
    if draws:
        query_of, number, rank, size = (np.concatenate(values) for values in zip(*drawn, strict=True))
        each, overall, deviation = _over_repeats(rank, number, query_of, counted, draws.rounds, protocol, table)
        scores, means = scores | each, means | overall
        if not protocol.all_shot_precision:
            expected = np.mean(
                np.where(rank == NO_RANK, 0, _random_precision(np.ones_like(size), size))[counted[query_of]]
            )
        counted = counted & (np.bincount(query_of, minlength=total) > 0)
    gallery_size, misses = len(gallery.person_id), int(without.sum())
    return Result(means, scores, first_rank, counted, total, gallery_size, misses, deviation, float(expected))


def check(query: Labels, gallery: Labels, *, protocol: protocols.Protocol, no_match: NoMatch = "error") -> None:
    """Raises what `evaluate` would say about these labels, before there is a distance, or a net to compute some."""
    query, gallery = _check(query, gallery, protocol, no_match)
    total = len(query.person_id)
    probes = protocol.draw(query, gallery, protocol).probes if protocol.draw else np.ones(total, bool)
    matched = _matched(query, gallery, protocol, protocols.same_person(query, gallery), [slice(0, total)])
    if no_match == "error":
        _check_matches(query, gallery, protocol, matched | ~probes)
    counted = probes & matched if no_match == "skip" else probes
    _check_counted(counted, query, gallery, protocol, probes & ~matched)


def rank_list(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
    k: int = 14,
    queries: np.ndarray | None = None,
) -> RankList:
    """First k gallery images of the rankings of some queries, [n] indices (default: all), as `evaluate` ranks them."""
    query, gallery = _check(query, gallery, protocol)
    queries = np.arange(len(query.person_id)) if queries is None else np.asarray(queries)
    order = np.full((len(queries), k), -1)
    distance, right = np.full(order.shape, np.inf), np.zeros(order.shape, bool)
    pairs, junk = protocols.same_person(query, gallery), gallery.person_id == JUNK
    for i, index in enumerate(queries):
        row = _rows(distances, np.array([index]), len(gallery.person_id))[0]
        rows, columns = pairs(slice(index, index + 1))
        valid = ~junk
        valid[columns[protocol.excluded(query, gallery, rows, columns)]] = False
        valid = np.flatnonzero(valid)
        near = valid[np.argsort(row[valid], kind="stable")[:k]]
        order[i, : len(near)], distance[i, : len(near)] = near, row[near]
        right[i, : len(near)] = gallery.person_id[near] == query.person_id[index]
    return RankList(order, distance, right)


def _chance(query: Labels, gallery: Labels, protocol: protocols.Protocol) -> np.ndarray:
    """AP_precision [Q] that a random ranking has on average, 0 without a right image."""
    total, pairs = len(query.person_id), protocols.same_person(query, gallery)
    right, images = np.zeros(total, np.int64), np.full(total, np.sum(gallery.person_id != JUNK))
    for start in range(0, total, 1 << 10):
        rows, columns = pairs(slice(start, min(start + (1 << 10), total)))
        excluded = protocol.excluded(query, gallery, rows, columns)
        right += np.bincount(rows[~excluded], minlength=total)
        images -= np.bincount(rows[excluded], minlength=total)
    return np.where(right > 0, _random_precision(right, images), 0)


def _random_precision(right: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Expected AP_precision of random rankings of `images` [n], `right` [n] of which are right."""
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, images.max(initial=0) + 1)))[np.maximum(images, 0)]
    return (harmonic + (right - 1) * (images - harmonic) / np.maximum(images - 1, 1)) / np.maximum(images, 1)


def _check(
    query: Labels, gallery: Labels, protocol: protocols.Protocol, no_match: str = "error"
) -> tuple[Labels, Labels]:
    if no_match not in ("error", "skip", "count_as_miss"):
        raise ValueError(f"no_match is {no_match!r}; choose error, skip or count_as_miss.")
    query, gallery = protocols.check_labels(query, "query"), protocols.check_labels(gallery, "gallery")
    nobody = query.person_id <= 0
    if nobody.any():
        first = int(np.argmax(nobody))
        raise ValueError(
            f"{nobody.sum()} queries show no person (person_id below 1), the first is query {first}; leave them out, "
            "or add 1 to all person ids where they begin with 0."
        )
    protocol.check(query, gallery)
    return query, gallery


def _blocks(
    distances: np.ndarray | DistanceFn,
    query: Labels,
    gallery: Labels,
    protocol: protocols.Protocol,
    no_match: NoMatch,
    probes: np.ndarray,
) -> Iterator[tuple[slice, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Yields block, pairs of one person (rows, columns, left out: each [n]), distances [q, G], inf where left out."""
    total, width = len(query.person_id), len(gallery.person_id)
    if isinstance(distances, np.ndarray) and distances.shape != (total, width):
        raise ValueError(
            f"Distances are {list(distances.shape)}, but there are {total} query and {width} gallery labels."
        )
    pairs = protocols.same_person(query, gallery)
    step = max(16, _BLOCK_BYTES // (4 * width))
    blocks = [slice(start, min(start + step, total)) for start in range(0, total, step)]
    if no_match == "error":
        _check_matches(query, gallery, protocol, _matched(query, gallery, protocol, pairs, blocks) | ~probes)
    matrices = ahead(lambda block: _rows(distances, block, width), blocks)
    for block, matrix in zip(blocks, matrices, strict=True):
        rows, columns = pairs(block)
        excluded = protocol.excluded(query, gallery, rows, columns)
        matrix[rows[excluded] - block.start, columns[excluded]] = np.inf
        yield block, rows, columns, excluded, matrix


def _in_parts(
    distances: Tiles, query: Labels, gallery: Labels, protocol: protocols.Protocol, no_match: NoMatch
) -> Iterator[tuple[np.ndarray, list[np.ndarray]]]:
    """Yields queries of right images [n], ranks of each query's right images; the gallery comes in parts.

    For a block of queries, first come all gallery images of the people whom it shows, then the parts, less those: what
    others are compared with is there from the start, and no distance is counted in two computations of it.
    """
    total, width, kept = len(query.person_id), len(gallery.person_id), gallery.person_id != JUNK
    pairs = protocols.same_person(query, gallery)

    def split(block):  # until the distances of all images of all its people are few
        size, shown = block.stop - block.start, np.unique(pairs(block)[1])
        if size <= 16 or 4 * size * len(shown) <= _BLOCK_BYTES:
            return [(block, shown)]
        middle = block.start + size // 2
        return split(slice(block.start, middle)) + split(slice(middle, block.stop))

    step = max(16, _BLOCK_BYTES // (4 * _WIDTH))
    blocks = [part for start in range(0, total, step) for part in split(slice(start, min(start + step, total)))]
    parts = [np.arange(start, min(start + _WIDTH, width)) for start in range(0, width, _WIDTH)]
    if no_match == "error":
        matched = _matched(query, gallery, protocol, pairs, [block for block, _ in blocks])
        _check_matches(query, gallery, protocol, matched)
    jobs = ((block, part) for block, shown in blocks for part in (shown, *(slice(p[0], p[-1] + 1) for p in parts)))
    tiles = ahead(lambda job: _rows(distances, job[0], width, job[1]), jobs)
    for block, shown in blocks:
        rows, columns = pairs(block)
        excluded = protocol.excluded(query, gallery, rows, columns)
        matrix, place = next(tiles), np.searchsorted(shown, columns)
        matrix[rows[excluded] - block.start, place[excluded]] = np.inf
        rows, columns, place = rows[~excluded], columns[~excluded], place[~excluded]
        wanted, rank = matrix[rows - block.start, place], np.ones(len(rows), np.int64)
        for number, part in enumerate((shown, *parts)):
            free = kept[part]
            if number:
                matrix = next(tiles)
                free &= ~np.isin(part, shown, assume_unique=True)
            for q in _by_query(rows):
                row = matrix[rows[q.start] - block.start]
                rank[q] += _before(row, free, part, wanted[q], columns[q], own=int(not number))
        yield rows, [np.sort(rank[q]) for q in _by_query(rows)]


def _by_query(rows: np.ndarray) -> list[slice]:
    """Where each query's entries lie in ascending queries [n]."""
    starts = np.flatnonzero(np.diff(rows, prepend=-1)).tolist()
    return [slice(*ends) for ends in itertools.pairwise([*starts, len(rows)])]


def ahead(compute: Callable[[Any], Any], jobs: Iterable[Any]) -> Iterator[Any]:
    """Yields compute(job) for each job; the next one is computed beside the work on this one."""
    with futures.ThreadPoolExecutor(1) as beside:
        pending = None
        for job in jobs:
            result = pending.result() if pending else None
            following = beside.submit(compute, job)
            if pending:
                yield result
            pending = following
        if pending:
            yield pending.result()


def _matched(query: Labels, gallery: Labels, protocol: protocols.Protocol, pairs, blocks: list[slice]) -> np.ndarray:
    """Which queries have a right gallery image, bool [Q]; the blocks are all of them."""
    matched = np.zeros(len(query.person_id), bool)
    for block in blocks:
        rows, columns = pairs(block)
        matched[rows[~protocol.excluded(query, gallery, rows, columns)]] = True
    return matched


def _check_counted(
    counted: np.ndarray, query: Labels, gallery: Labels, protocol: protocols.Protocol, without: np.ndarray
) -> None:
    """Raises where no query [Q] that counts has a match: a mean over misses (`without`) would look like a score."""
    if not np.any(counted & ~without):
        raise ValueError(
            f"None of {len(counted)} queries has a right gallery image under {protocol.name}"
            f"{_all_excluded(query, gallery, without) or '; do both come from one data set?'}"
        )


def _check_matches(query: Labels, gallery: Labels, protocol: protocols.Protocol, matched: np.ndarray) -> None:
    """Raises before any distance is computed unless all queries [Q] are matched, or no probes."""
    if not matched.all():
        first = int(np.argmin(matched))
        raise ValueError(
            f"{np.sum(~matched)} of {len(matched)} queries have no right gallery image under {protocol.name}, the "
            f"first is query {first} (person {query.person_id[first]}, camera {query.camera_id[first]}); set no_match "
            f"to skip or count_as_miss{_all_excluded(query, gallery, ~matched)}."
        )


def _all_excluded(query: Labels, gallery: Labels, without: np.ndarray) -> str:
    """The end of a sentence about queries without a match [Q] bool, of those whose person is in the gallery."""
    own = int(np.sum(without & np.isin(query.person_id, gallery.person_id)))
    return f"; {own} of them have images that it leaves out, which the protocol multi_shot counts" if own else ""


def _rows(
    distances: np.ndarray | DistanceFn, index: slice | np.ndarray, width: int, columns: slice | np.ndarray | None = None
) -> np.ndarray:
    """Distances of some queries [q, G], or of some gallery images [q, g], finite, in an array free to overwrite."""
    if columns is not None and isinstance(distances, Tiles):
        matrix = np.asarray(distances.tile(index, columns))
        width = columns.stop - columns.start if isinstance(columns, slice) else len(columns)
    else:
        matrix = np.asarray(distances(index) if callable(distances) else distances[index])
    wanted = index.stop - index.start if isinstance(index, slice) else len(index)
    if matrix.shape != (wanted, width):
        raise ValueError(f"Distances of {wanted} queries are {list(matrix.shape)}; {[wanted, width]} is wanted.")
    # One pass: a sum is finite unless a term is not, or it overflows.
    with np.errstate(over="ignore", invalid="ignore"):
        suspicious = not np.isfinite(matrix.sum())
    if suspicious and not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        row = row + index.start if isinstance(index, slice) else index[row]
        if columns is not None:
            column = column + columns.start if isinstance(columns, slice) else columns[column]
        raise ValueError(
            f"The distance of query {row} and gallery image {column} is NaN or infinite; are all features finite?"
        )
    fresh = callable(distances) and matrix.base is None and matrix.flags.writeable
    return matrix.astype(np.result_type(matrix, np.float32), copy=not fresh)


def _before(
    row: np.ndarray, kept: np.ndarray, columns: np.ndarray, wanted: np.ndarray, right: np.ndarray, *, own: int
) -> np.ndarray:
    """How many gallery images `columns` [g], ascending, of distances `row` [g], where `kept`, stand before others.

    The others are gallery images `right` [n] of distances `wanted` [n], themselves among the columns (`own` 1) or not.
    """
    near = ((row <= wanted.max()) & kept).nonzero()[0]  # only these can stand before one of them
    values = row[near]
    ordered = np.sort(values)  # sorting few bare values is quicker than a count for each
    before = ordered.searchsorted(wanted)
    for i in (ordered.searchsorted(wanted, side="right") > before + own).nonzero()[0]:  # ties: the index decides
        before[i] += np.count_nonzero(values[: np.searchsorted(columns[near], right[i])] == wanted[i])
    return before


def _drawn_ranks(row: np.ndarray, query: Labels, gallery: Labels, i: int, images: np.ndarray) -> np.ndarray:
    """Ranks [n] of query i's right image among drawn gallery images [n, P], in its row of distances [G]."""
    right = gallery.person_id[images] == query.person_id[i]  # at most one in each draw, in all or in none
    if not right.any():
        return np.full(len(images), NO_RANK)
    own = images[right][:, None]
    return 1 + np.sum((row[images] < row[own]) | ((row[images] == row[own]) & (images < own)), axis=1)


def _over_repeats(
    rank: np.ndarray,
    number: np.ndarray,
    query_of: np.ndarray,
    counted: np.ndarray,
    rounds: int,
    protocol: protocols.Protocol,
    table: Mapping[str, Metric],
) -> tuple[dict[str, np.ndarray], dict[str, float], dict[str, float]]:
    """Scores of n drawn rankings with one right image each, at `rank`, in round `number`, of query `query_of`.

    Returns:
      means over each query's draws [Q], means over repeats, deviations over repeats.
    """
    drawn = {name: metric for name, metric in table.items() if metric.cmc or not protocol.all_shot_precision}
    matched = rank != NO_RANK
    scores = metrics.spread(Ranks.of(rank[matched], np.arange(np.sum(matched))), matched, drawn)
    times = np.maximum(np.bincount(query_of, minlength=len(counted)), 1)
    each = {name: np.bincount(query_of, values, len(counted)) / times for name, values in scores.items()}
    kept = counted[query_of]
    in_round = np.bincount(number[kept], minlength=rounds)
    if not in_round.all():
        raise ValueError(
            f"{protocol.name} has a draw without any right gallery image; set probe_view to the other view."
        )
    count = cast(int, protocol.repeats)
    repeats = {
        name: (np.bincount(number[kept], values[kept], rounds) / in_round).reshape(count, -1).mean(axis=1)
        for name, values in scores.items()
    }
    deviation = {name: float(np.std(v, ddof=1)) if len(v) > 1 else float("nan") for name, v in repeats.items()}
    return each, {name: float(values.mean()) for name, values in repeats.items()}, deviation
