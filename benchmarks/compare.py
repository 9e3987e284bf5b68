"""Comparing rankings at the size of Market-1501 beside making them: ./launch.sh bench compare [--rankings=N ...].

Prints seconds of ranking one set of features, seconds of comparing 2 or more rankings with 10,000 resamples and
permutations, the ratio of the two, and the peak of the memory that the comparison holds beyond the scores, for 1,000
and 10,000 resamples.
"""

import argparse

import numpy as np

from acrn_jax.evaluation import comparison, fusion, protocols, ranking
from benchmarks.ranking import MARKET, market, peak, seconds


def main() -> None:
    """The whole benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=MARKET)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--rankings", type=int, nargs="+", default=[2, 4])
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    query, gallery, asked, labels = market(given.queries, given.gallery, given.dimension, 2.0, rng)
    rows = fusion.distance_rows("squared_euclidean", query, gallery)
    made = []

    def rank():
        made.append(ranking.evaluate(rows, asked, labels, protocol=protocols.MARKET1501, no_match="skip"))

    one = seconds(rank)
    found = made[0]
    print(f"ranking {given.queries:,} queries against {given.gallery:,} images: {one:.1f} s")
    for count in given.rankings:
        runs = {}
        for i in range(count):
            scores = {k: np.clip(v + 0.02 * rng.normal(size=v.shape), 0, 1) for k, v in found.per_query.items()}
            means = {k: float(v[found.counted].mean()) for k, v in scores.items()}
            runs[f"ranking {i}"] = comparison.Scored(scores, means, found.counted, asked.person_id)
        took = seconds(lambda runs=runs: comparison.compare(runs))
        memory = [peak(lambda n=n, runs=runs: comparison.compare(runs, resamples=n)) for n in (1_000, 10_000)]
        print(
            f"comparing {count}: {took:.2f} s, {took / one:.2f} of the ranking; "
            f"{memory[0]:.0f} MB with 1,000 resamples, {memory[1]:.0f} with 10,000"
        )


if __name__ == "__main__":
    main()
