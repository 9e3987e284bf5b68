"""Ranking at the size of Market-1501 beside the bare matrix product: python benchmarks/ranking.py [--queries=N ...].

Prints seconds, their ratio to numpy's product of the two feature matrices in the same run, and the peak memory of the
whole process, features included. Features are random around a centre for each person; the noise sets how hard the
ranking is. Product and ranking alternate, medians count.
"""

import argparse
import resource
import statistics
import time

import numpy as np

from acrn_jax import schema
from acrn_jax.evaluation import fusion, protocols, ranking


def market(queries: int, gallery: int, dimension: int, noise: float, rng: np.random.Generator):
    """Features and labels with Market-1501's shares of junk and distractors, 750 people, 6 cameras."""
    centre = rng.normal(size=(751, dimension)).astype(np.float32)
    shares = rng.choice(3, gallery, p=(0.194, 0.142, 0.664))  # junk, distractors, people
    person = np.where(shares == 2, rng.integers(1, 751, gallery), shares - 1)
    asked = rng.integers(1, 751, queries)
    labels = [schema.Labels(who, rng.integers(1, 7, len(who))) for who in (asked, person)]
    spread = noise * rng.standard_normal((queries + gallery, dimension), np.float32)
    strangers = rng.standard_normal((gallery, dimension), np.float32)
    found = np.where((person > 0)[:, None], centre[person], strangers) + spread[queries:]
    return centre[asked] + spread[:queries], found, *labels


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak() -> float:
    """Peak memory of the process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, default=19732)
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--noise", type=float, nargs="+", default=(1.0, 2.0, 30.0), help="30 is chance")
    flags = parser.parse_args()
    print(f"{flags.queries} queries x {flags.gallery} gallery x {flags.dimension}")
    print("noise  mAP_precision  product [s]  ranking with distances [s]  ratio  peak [MB]")
    for noise in flags.noise:
        data = market(flags.queries, flags.gallery, flags.dimension, noise, np.random.default_rng(0))
        query, gallery, query_labels, gallery_labels = data
        step = max(16, (1 << 25) // (4 * flags.gallery))
        times: dict[str, list[float]] = {"product": [], "ranking": []}
        result = None

        def product(query=query, gallery=gallery, step=step):
            for start in range(0, len(query), step):  # in blocks: less memory and no more time
                query[start : start + step] @ gallery.T

        def rank(query=query, gallery=gallery, labels=(query_labels, gallery_labels)):
            nonlocal result
            rows = fusion.squared_euclidean_rows(query, gallery)
            result = ranking.evaluate(rows, *labels, protocol=protocols.MARKET1501, no_match="skip")

        for _ in range(flags.repeats):
            times["product"].append(seconds(product))
            times["ranking"].append(seconds(rank))
        medians = {name: statistics.median(values) for name, values in times.items()}
        ratio, score = medians["ranking"] / medians["product"], result.metrics["mAP_precision"]
        numbers = f"{score:13.4f}  {medians['product']:11.3f}  {medians['ranking']:26.3f}  {ratio:5.2f}"
        print(f"{noise:5}  {numbers}  {peak():9.0f}")


if __name__ == "__main__":
    main()
