"""Ranking at the size of Market-1501 beside the bare matrix product: ./launch.sh bench ranking [--queries=N ...].

Prints, for each size of the gallery, seconds of numpy's product of the two feature matrices, of torch's where it is
installed, and of the ranking, distances included; its ratio to numpy's; seconds of the ranking per 10^9 distances; and
the peak of the memory that the ranking holds beyond the features (Linux). All take turns in one run, and medians count.

Features are random around a centre for each person; the noise sets how hard the ranking is. A gallery of more than
19,732 images has distractors for the rest; its features lie in a temporary file that is mapped to memory:

  ./launch.sh bench ranking --gallery 19732 100000 500000 --queries 256 --noise 2 --repeats 3
"""

import argparse
import pathlib
import statistics
import tempfile
import threading
import time

import numpy as np

from acrn_jax import schema
from acrn_jax.evaluation import fusion, protocols, ranking

MARKET = 19_732


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


def with_distractors(data, gallery: int, noise: float, rng: np.random.Generator, folder: pathlib.Path):
    """The same with distractors up to `gallery` images, features in a file."""
    query, found, query_labels, labels = data
    features = np.lib.format.open_memmap(folder / "gallery.npy", "w+", np.float32, (gallery, found.shape[1]))
    features[: len(found)] = found
    for start in range(len(found), gallery, MARKET):
        part = features[start : start + MARKET]
        part[:] = np.sqrt(1 + noise**2) * rng.standard_normal(part.shape, np.float32)
    more = gallery - len(found)
    person, camera = np.zeros(more, np.int64), rng.integers(1, 7, more)
    return query, features, query_labels, schema.Labels(*map(np.append, labels, (person, camera)))


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def held() -> float:
    """Memory that the process holds, mapped files aside, MB; NaN where the system does not say."""
    try:
        status = pathlib.Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon")), float("nan"))


def peak(work) -> float:
    """Most memory held during `work` beyond that before, MB."""
    before, done, most = held(), threading.Event(), [0.0]

    def watch():
        while not done.wait(0.005):
            most[0] = max(most[0], held() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return most[0]


def products(query: np.ndarray, gallery: np.ndarray):
    """Name -> product of all features, in blocks: less memory and no more time."""
    step, part = 256, 1 << 15

    def numpy_product():
        for start in range(0, len(query), step):
            for first in range(0, len(gallery), part):
                query[start : start + step] @ gallery[first : first + part].T

    found = {"numpy": numpy_product}
    try:
        import torch
    except ImportError:
        return found
    asked, others = torch.from_numpy(query), torch.from_numpy(np.asarray(gallery))

    def torch_product():
        for start in range(0, len(query), step):
            for first in range(0, len(gallery), part):
                asked[start : start + step] @ others[first : first + part].T

    return found | {"torch": torch_product}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3368)
    parser.add_argument("--gallery", type=int, nargs="+", default=(MARKET,))
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--noise", type=float, nargs="+", default=(1.0, 2.0, 30.0), help="30 is chance")
    flags = parser.parse_args()
    print(f"{flags.queries} queries x {flags.dimension}")
    print("gallery  noise  mAP_precision  numpy [s]  torch [s]  ranking [s]  ratio  s / 10^9  beyond features [MB]")
    with tempfile.TemporaryDirectory() as folder:
        for gallery in flags.gallery:
            for noise in flags.noise:
                rng = np.random.default_rng(0)
                data = market(flags.queries, min(gallery, MARKET), flags.dimension, noise, rng)
                if gallery > MARKET:
                    data = with_distractors(data, gallery, noise, rng, pathlib.Path(folder))
                report(gallery, noise, data, flags.repeats)


def report(gallery: int, noise: float, data, repeats: int) -> None:
    query, features, *labels = data
    scores: list[float] = []

    def rank():
        rows = fusion.squared_euclidean_rows(query, features)
        result = ranking.evaluate(rows, *labels, protocol=protocols.MARKET1501, no_match="skip")
        scores.append(result.metrics["mAP_precision"])

    work = products(query, features) | {"ranking": rank}
    memory = peak(rank)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, function in work.items():
            times[name].append(seconds(function))
    median = {name: statistics.median(values) for name, values in times.items()}
    torch = f"{median['torch']:9.3f}" if "torch" in median else "        -"
    rate = median["ranking"] / (len(query) * gallery / 1e9)
    print(
        f"{gallery:7}  {noise:5}  {scores[0]:13.4f}  {median['numpy']:9.3f}  {torch}  {median['ranking']:11.3f}  "
        f"{median['ranking'] / median['numpy']:5.2f}  {rate:8.2f}  {memory:20.0f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
