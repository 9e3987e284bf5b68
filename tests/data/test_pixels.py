"""Against Pillow, which is to be met bit for bit."""

import numba
import numpy as np
import pytest
from PIL import Image

from acrn_jax.data import pixels

BILINEAR = Image.Resampling.BILINEAR


def pillow(image, box, height, width):
    """Columns, then rows, each a call of its own."""
    left, top, right, bottom = box
    narrow = Image.fromarray(image).resize((width, len(image)), BILINEAR, box=(left, 0, right, len(image)))
    return np.asarray(narrow.resize((width, height), BILINEAR, box=(0, top, width, bottom)))


@pytest.mark.parametrize("seed", range(8))
def test_any_size_and_part_is_pillows(seed):
    rng = np.random.default_rng(seed)
    for number in range(25):
        (h, w), (height, width) = rng.integers(1, 150, 2), rng.integers(1, 150, 2)
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        (left, right), (top, bottom) = (np.sort(rng.uniform(0, size, 2)) for size in (w, h))
        box = (left, top, max(right, left + w / 100), max(bottom, top + h / 100)) if number % 3 else (0, 0, w, h)
        box = tuple(np.minimum(box, (w, h, w, h)).tolist())
        wanted, out = pillow(image, box, height, width), np.empty((height, width, 3), np.uint8)
        pixels.resample(image, box, out=out)
        np.testing.assert_array_equal(out, wanted)
        pixels.resample(image, box, out=out, flip=True)
        np.testing.assert_array_equal(out, wanted[:, ::-1])


def test_same_width_takes_the_short_way_and_constant_or_strided_images_are_read():
    image = np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)
    image.setflags(write=False)
    out = np.empty((160, 64, 3), np.uint8)
    for given in (image, image[::-1], image[:, ::-1]):
        for box in ((0, 0, 64, 128), (0, 3.5, 64, 120), (9, 0, 64, 128), (0, 0, 50, 128)):
            pixels.resample(given, box, out=out)
            np.testing.assert_array_equal(out, pillow(np.ascontiguousarray(given), box, 160, 64))


@pytest.mark.parametrize("seed", range(5))
def test_colours_are_pillows(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)
    matrix = np.column_stack([np.eye(3) + rng.normal(size=(3, 3)), rng.normal(scale=50, size=3)]).astype(np.float32)
    wanted = np.asarray(Image.fromarray(image).convert("RGB", tuple(matrix.ravel().tolist())))
    pixels.recolour(image, matrix)
    assert len(np.unique(wanted)) > 100
    np.testing.assert_array_equal(image, wanted)


def test_without_a_place_for_the_cache_it_is_compiled_each_time(monkeypatch):
    plain, asked = numba.njit, []

    def njit(function, *, cache=False, **options):
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return plain(function, **options)

    monkeypatch.setattr(pixels.numba, "njit", njit)
    assert pixels.compiled(lambda x: x + 1)(2) == 3 and asked == [True, False]
