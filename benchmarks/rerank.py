"""k-reciprocal re-ranking at the size of Market-1501: ./launch.sh bench rerank [--queries=N ...].

Prints seconds (and CPU seconds, which count on a busy machine) beside those of numpy's product of all features with
themselves in the same run, their ratio, and the peak of the memory that re-ranking holds beyond the features (Linux).
Features are random around a centre for each person.
"""

import argparse
import statistics
import time

import numpy as np

from acrn_jax.evaluation import reranking
from benchmarks import ranking as market


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=19732)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--noise", type=float, default=2.0)
    flags = parser.parse_args()
    size = (flags.queries, flags.gallery, flags.dimension, flags.noise)
    query, gallery, _, _ = market.market(*size, np.random.default_rng(0))
    times: dict[str, list[tuple[float, float]]] = {"product": [], "rerank": []}

    def product():
        everything = np.concatenate([query, gallery])
        for start in range(0, len(everything), 256):
            everything[start : start + 256] @ everything.T

    memory = market.peak(lambda: reranking.rerank(query, gallery))
    for _ in range(flags.repeats):
        for name, work in (("product", product), ("rerank", lambda: reranking.rerank(query, gallery))):
            before = time.process_time()
            times[name].append((market.seconds(work), time.process_time() - before))
    print(f"{flags.queries} queries + {flags.gallery} gallery x {flags.dimension}, k1 20, k2 6")
    for i, what in enumerate(("seconds", "CPU seconds")):
        product_s, rerank_s = (statistics.median(each[i] for each in values) for values in times.values())
        print(f"{what}: product {product_s:.2f}, re-ranking {rerank_s:.2f}, ratio {rerank_s / product_s:.2f}")
    print(f"beyond features {memory:.0f} MB")


if __name__ == "__main__":
    main()
