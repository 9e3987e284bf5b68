"""An audit at the size of Market-1501 beside the ranking: ./launch.sh bench audit [--slices=N].

Prints seconds of ranking one set of features, seconds of an audit of it with 2,000 resamples and 10,000 permutations
(camera pairs, cameras, right images, and bands of random numbers up to that many slices of queries), the ratio of the
two, and the peak of the memory that the audit holds beyond the features, for 1,000 and 10,000 resamples.
"""

import argparse

import numpy as np

from acrn_jax.evaluation import audit, fusion, protocols, ranking
from benchmarks.ranking import MARKET, market, peak, seconds


def main() -> None:
    """The whole benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=MARKET)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--slices", type=int, default=20)
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    query, gallery, asked, labels = market(given.queries, given.gallery, given.dimension, 2.0, rng)
    rows = fusion.distance_rows("squared_euclidean", query, gallery)
    made = []

    def rank():
        made.append(ranking.evaluate(rows, asked, labels, protocol=protocols.MARKET1501, no_match="skip"))

    one = seconds(rank)
    print(f"ranking {given.queries:,} queries against {given.gallery:,} images: {one:.1f} s")
    columns = {f"number {i}": audit.Column(rng.normal(size=given.queries)) for i in range(given.slices // audit.BANDS)}
    found = []

    def audited(resamples=2_000):
        found.append(
            audit.audit(
                rows, asked, labels, made[0], protocol=protocols.MARKET1501, columns=columns, features=gallery,
                resamples=resamples,
            )
        )  # fmt: skip

    took = seconds(audited)
    memory = [peak(lambda n=n: audited(n)) for n in (1_000, 10_000)]
    print(
        f"audit of {len(found[0]['slices'])} slices: {took:.1f} s, {took / one:.1f} of the ranking; "
        f"{memory[0]:.0f} MB with 1,000 resamples, {memory[1]:.0f} with 10,000"
    )


if __name__ == "__main__":
    main()
