"""Batches as a pure function of (seed, step), assembled by Grain's threads while the device computes.

The unit that Grain maps is the step, not the record: one call decodes and augments the rows of one batch into one
array. Any step can be asked for first, so resuming needs no iterator state; the number of threads, processes and
hosts cannot change what a batch holds; and Python's cost is paid once a batch. Decoding and resizing release the
interpreter lock, so threads use all cores.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grain
import numpy as np

from acrn_jax.data import source, transforms

Batch = dict[str, np.ndarray]
_FOREVER = 2**40  # steps


def train_batches(
    split: source.Split,
    plan: Callable[[int], np.ndarray],
    *,
    height: int,
    width: int,
    seed: int,
    augment: transforms.Augment | None = None,
    columns: Mapping[str, np.ndarray] | None = None,
    first_step: int = 0,
    steps: int = _FOREVER,
    share: slice = slice(None),
    threads: int = 2,
    prefetch: int = 4,
    cache_bytes: int = 0,
) -> Iterator[Batch]:
    """Training batches from global step `first_step` on, up to step `steps`.

    Args:
      split: where images come from.
      plan: epoch -> record numbers int64 [batches, rows] (data/sampler.py), as many batches in every epoch.
      height: of the images that come out, pixels.
      width: likewise.
      seed: of the augmentation.
      augment: what happens at random; None: what evaluation sees.
      columns: name -> array [N, ...], joined by record: "person", "camera_id", "attributes", "probabilities".
      first_step: global step of the first batch.
      steps: global step at which the run ends.
      share: rows of each global batch that this process assembles.
      threads: batches in the making at a time.
      prefetch: batches waiting ready at most; at least `threads` to keep those busy.
      cache_bytes: images are decoded and enlarged once and kept, if all of them take no more than this: augmenting
        then takes a tenth of the time. Rounding ties fall differently with the cache (7 per cent of the values, by a
        level), so a run that must repeat to the bit keeps its choice.

    Returns:
      Iterator of dicts: image uint8 [rows, height, width, 3] and the columns.

    Raises:
      ValueError: a column has another length than the split; while iterating: a broken image, named by its key.
    """
    images = _Images(split, height, width, augment, cache_bytes)
    make = _Batches(images, plan, seed=seed, columns=columns, share=share)
    dataset = grain.MapDataset.range(first_step, max(first_step, steps)).map(make)
    if len(dataset) == 0:
        return iter(())
    batches = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch))
    return iter(batches)


def eval_batches(
    split: source.Split,
    *,
    batch: int,
    height: int,
    width: int,
    columns: Mapping[str, np.ndarray] | None = None,
    threads: int = 2,
    prefetch: int = 4,
) -> Iterator[Batch]:
    """All records once, in order; the last batch is filled up with its last record, where `valid` [batch] is False."""
    numbers = np.arange(-(-len(split) // batch) * batch).reshape(-1, batch)
    rows = np.minimum(numbers, len(split) - 1)
    make = _Batches(_Images(split, height, width), lambda epoch: rows, columns=columns)
    dataset = grain.MapDataset.range(len(rows)).map(lambda step: make(step) | {"valid": numbers[step] < len(split)})
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)))


def timed(batches: Iterator[Batch]) -> Iterator[tuple[Batch, float]]:
    """Each batch with the seconds that it was waited for."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - start


class _Images:
    """Record number -> image of the wanted size; keeps the decoded ones if they take no more than `cache_bytes`."""

    def __init__(
        self,
        split: source.Split,
        height: int,
        width: int,
        augment: transforms.Augment | None = None,
        cache_bytes: int = 0,
    ):
        self.split, self.height, self.width, self.augment = split, height, width, augment
        self.stored_size = augment.enlarged(height, width) if augment else (height, width)
        shape = (len(split), *self.stored_size, 3)
        self.cache = np.empty(shape, np.uint8) if np.prod(shape) <= cache_bytes else None
        self.cached = np.zeros(len(split), bool)

    def draw(self, rows: int, share: slice, *, seed: int, step: int) -> list[dict[str, Any]]:
        """What happens at random to each image of a process's share of a batch of `rows`."""
        if not self.augment:
            return [{}] * len(range(rows)[share])
        arrays = transforms.draw(self.augment, rows, self.height, self.width, seed=seed, step=step)
        lists = zip(*(values[share].tolist() for values in arrays.values()), strict=True)
        return [dict(zip(arrays, row, strict=True)) for row in lists]  # plain numbers: numpy's are slow one by one

    def write(self, row: int, drawn: dict[str, Any], out: np.ndarray) -> None:
        """Writes the image of one record into `out`, uint8 [height, width, 3]."""
        pad, (stored_height, stored_width) = self.augment.pad if self.augment else 0, self.stored_size
        top, left = drawn.get("top", 0) - pad, drawn.get("left", 0) - pad  # of the window, maybe in the border
        box = (max(top, 0), max(left, 0), min(top + self.height, stored_height), min(left + self.width, stored_width))
        flip = drawn.get("flip", False)
        if pad:
            inner = np.empty((box[2] - box[0], box[3] - box[1], 3), np.uint8)
            self._cut(row, box, flip, inner)
            above, before = box[0] - top, left + self.width - box[3] if flip else box[1] - left  # border, rows, columns
            out[...] = 0
            out[above : above + len(inner), before : before + inner.shape[1]] = inner
        else:
            self._cut(row, box, flip, out)
        if drawn:
            transforms.finish(out, drawn)

    def _cut(self, row: int, box: tuple[int, int, int, int], flip: bool, out: np.ndarray) -> None:
        """Writes a part (top, left, bottom, right) of one record's stored image into `out`, as large."""
        (top, left, bottom, right), (stored_height, stored_width) = box, self.stored_size
        key = self.split.key[row]
        if self.cache is None:
            window = (left / stored_width, top / stored_height, right / stored_width, bottom / stored_height)
            data = self.split.image_bytes(row)
            transforms.prepare(data, *out.shape[:2], key=key, window=window, flip=flip, out=out)
        else:
            if not self.cached[row]:
                transforms.prepare(self.split.image_bytes(row), *self.stored_size, key=key, out=self.cache[row])
                self.cached[row] = True  # last, so that no other thread reads a half-written image
            image = self.cache[row, top:bottom, left:right]
            for colour in range(3):  # one by one: numpy mirrors planes five times as fast as pixels
                out[..., colour] = image[:, :: -1 if flip else 1, colour]


class _Batches:
    """Global step -> batch; a class since it keeps the epoch's plan."""

    def __init__(
        self,
        images: _Images,
        plan: Callable[[int], np.ndarray],
        *,
        seed: int = 0,
        columns: Mapping[str, np.ndarray] | None = None,
        share: slice = slice(None),
    ):
        self.images, self.plan, self.seed, self.columns, self.share = images, plan, seed, dict(columns or {}), share
        self.epoch = (0, plan(0))  # the plan used last
        self.batches = len(self.epoch[1])
        split = images.split
        for name, column in self.columns.items():
            if len(column) != len(split):
                raise ValueError(f"Column {name!r} has {len(column)} rows, {split.name} has {len(split)} records.")

    def __call__(self, step: int) -> Batch:
        epoch, index = divmod(int(step), self.batches)
        number, plan = self.epoch  # one read: other threads may be an epoch ahead or behind
        if number != epoch:
            plan = self.plan(epoch)
            self.epoch = (epoch, plan)
        rows = plan[index][self.share]
        drawn = self.images.draw(plan.shape[1], self.share, seed=self.seed, step=int(step))
        pixels = np.empty((len(rows), self.images.height, self.images.width, 3), np.uint8)
        for row, random, image in zip(rows.tolist(), drawn, pixels, strict=True):
            self.images.write(row, random, image)
        return {"image": pixels} | {name: column[rows] for name, column in self.columns.items()}
