"""Input pipeline: 128x64 JPEG -> uint8 batches of 160x64, as ratio to decoding alone.

./launch.sh bench input [--images=2048] [--rounds=5]

Claim: 8,000 images/s on two cores. Each round runs every case once, so that a shared machine slows all of them alike;
the median counts. `CPU us` is processor time an image over all threads, `on 2 cores` the images/s that it allows on two
cores at rest, `x decode` the share of the speed of bare decoding on as many threads.
"""

import concurrent.futures
import io
import time

import numpy as np
import simplejpeg
from absl import app, flags
from PIL import Image

from acrn_jax.data import pipeline, sampler, source, transforms

_IMAGES = flags.DEFINE_integer("images", 2048, "Images a case and round.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds; the median is printed.")
HEIGHT, WIDTH, BATCH = 160, 64, 64


def photograph(seed: int) -> bytes:
    """JPEG of 128x64, about 4 kB as in Market-1501: large patches and some grain."""
    rng = np.random.default_rng(seed)
    patches = Image.fromarray(rng.integers(0, 256, (16, 8, 3), dtype=np.uint8)).resize((64, 128))
    file = io.BytesIO()
    grain = rng.integers(-12, 13, (128, 64, 3))
    Image.fromarray(np.clip(np.asarray(patches) + grain, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def in_memory(n: int) -> source.Split:
    """A split of n images of as many people."""
    files = [photograph(i % 256) for i in range(n)]
    names, numbers = np.arange(n).astype(str), np.arange(n, dtype=np.int32)
    empty = np.zeros((n, 0), np.int8)
    return source.Split("bench", names, names, numbers, numbers, empty, (), {}, "", np.arange(n), files.__getitem__)


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments {argv[1:]}.")
    split = in_memory(_IMAGES.value)
    plan = lambda epoch: sampler.shuffle_plan(len(split), batch=BATCH, seed=0, epoch=epoch)
    size = {"height": HEIGHT, "width": WIDTH, "seed": 0, "steps": len(split) // BATCH}
    kinds = {"resize": None, "crop, flip": transforms.Augment()}
    kinds["crop, flip, jitter, erasing"] = transforms.Augment(erase=0.5, brightness=0.2, contrast=0.2, saturation=0.2)

    def decode(threads):
        with concurrent.futures.ThreadPoolExecutor(threads) as pool:
            ranges = np.array_split(np.arange(len(split)), 8 * threads)
            list(pool.map(lambda rows: [simplejpeg.decode_jpeg(split.image_bytes(i)) for i in rows], ranges))

    def read(threads, augment, cache_bytes=0):
        batches = pipeline.train_batches(
            split, plan, augment=augment, threads=threads, prefetch=2 * threads, cache_bytes=cache_bytes, **size
        )
        for _ in batches:
            pass

    cases = {}
    for threads in (1, 2):
        cases["decode alone", threads] = lambda threads=threads: decode(threads)
        for name, augment in kinds.items():
            cases[name, threads] = lambda threads=threads, augment=augment: read(threads, augment)
    spent = {case: [] for case in cases}
    for _ in range(_ROUNDS.value):
        for case, run in cases.items():
            wall, processor = time.perf_counter(), time.process_time()
            run()
            spent[case].append((time.perf_counter() - wall, time.process_time() - processor))

    print(f"{'case':30}{'threads':>8}{'images/s':>10}{'x decode':>10}{'CPU us':>9}{'on 2 cores':>12}")
    for (name, threads), times in spent.items():
        wall, processor = np.median(times, axis=0) / len(split)
        floor = np.median(spent["decode alone", threads], axis=0)[0] / len(split)
        print(f"{name:30}{threads:8}{1 / wall:10,.0f}{floor / wall:10.2f}{processor * 1e6:9.0f}{2 / processor:12,.0f}")


if __name__ == "__main__":
    app.run(main)
