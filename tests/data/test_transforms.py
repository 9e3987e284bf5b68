import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from acrn_jax.data import transforms


def encode(image, form, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def smooth(height, width):
    small = Image.fromarray(noise(4, 3, 3))
    return np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))


def triangle_loops(image, height, width):
    """Bilinear with antialiasing, by its definition: a triangle as wide as one output pixel, at least two inputs."""

    def along(values, size):
        scale = len(values) / size
        support = max(scale, 1.0)
        rows = []
        for i in range(size):
            weights = [max(0.0, 1 - abs((j + 0.5 - (i + 0.5) * scale) / support)) for j in range(len(values))]
            rows.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        return np.array(rows)

    return along(along(image.astype(float), height).swapaxes(0, 1), width).swapaxes(0, 1)


@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_decode_is_exact_for_lossless_images(form):
    pixels = noise(7, 5, 3)
    np.testing.assert_array_equal(transforms.decode(encode(pixels, form)), pixels)


def test_decode_reads_jpeg_as_pillow_does():
    data = encode(smooth(40, 20), "JPEG", quality=95)
    ours, pillows = transforms.decode(data), np.asarray(Image.open(io.BytesIO(data)))
    assert ours.dtype == np.uint8 and ours.shape == (40, 20, 3)
    assert np.abs(ours.astype(int) - pillows).max() <= 2  # two builds of libjpeg-turbo
    assert np.abs(ours.astype(int) - smooth(40, 20)).mean() < 4


@pytest.mark.parametrize(
    ("mode", "form"), [("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("L", "JPEG"), ("CMYK", "JPEG")]
)
def test_decode_gives_three_colours_whatever_came(mode, form):
    image = Image.fromarray(smooth(16, 8)).convert(mode)
    decoded = transforms.decode(encode(image, form))
    assert decoded.shape == (16, 8, 3)
    assert np.abs(decoded.astype(int) - np.asarray(image.convert("RGB"))).mean() < 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("part", [0.0, 0.1, 0.5])
def test_broken_images_are_named(form, part):
    data = encode(noise(32, 16, 3), form)
    with pytest.raises(ValueError, match=r"Image 'set/a\.jpg' .* cannot be decoded"):
        transforms.decode(data[: int(part * len(data))], key="set/a.jpg")


@pytest.mark.parametrize(("height", "width"), [(5, 3), (20, 9), (40, 30), (12, 8)])
def test_resize_is_antialiased_bilinear(height, width):
    image = noise(20, 9, 3)
    resized = transforms.resize(image, height, width)
    assert resized.shape == (height, width, 3) and resized.dtype == np.uint8
    assert np.abs(resized - triangle_loops(image, height, width)).max() <= 1.01  # rounded after each axis


def test_prepare_is_decode_and_resize():
    data = encode(smooth(31, 17), "JPEG")
    whole = transforms.prepare(data, 24, 12)
    np.testing.assert_array_equal(whole, transforms.resize(transforms.decode(data), 24, 12))
    np.testing.assert_array_equal(transforms.prepare(data, 24, 12, flip=True), whole[:, ::-1])


def test_window_is_cut_from_the_enlarged_image():
    data = encode(noise(31, 17, 3), "PNG")
    enlarged = transforms.prepare(data, 27, 14)
    for top, left in [(0, 0), (3, 2), (1, 2)]:
        window = (left / 14, top / 27, (left + 12) / 14, (top + 24) / 27)
        cut = transforms.prepare(data, 24, 12, window=window).astype(int)
        assert np.abs(cut - enlarged[top : top + 24, left : left + 12]).max() <= 1


def test_draw_is_a_function_of_seed_and_step():
    augment = transforms.Augment(erase=0.5, brightness=0.1, contrast=0.2, saturation=0.3)
    draw = lambda seed, step: transforms.draw(augment, 16, 24, 12, seed=seed, step=step)
    first = draw(0, 0)
    for name, values in draw(0, 0).items():
        np.testing.assert_array_equal(values, first[name])
    for other in (draw(0, 1), draw(1, 0)):
        assert all(not np.array_equal(values, first[name]) for name, values in other.items())


def test_draw_covers_what_it_promises():
    augment = transforms.Augment(enlarge=1.2, flip=0.3, erase=0.25, brightness=0.1, contrast=0.2, saturation=0.3)
    drawn = transforms.draw(augment, 20_000, 40, 20, seed=0, step=0)
    assert set(drawn["top"]) == set(range(9)) and set(drawn["left"]) == set(range(5))  # 48 x 24 holds 9 x 5 windows
    assert abs(drawn["flip"].mean() - 0.3) < 0.02
    for name, spread in {"brightness": 0.1, "contrast": 0.2, "saturation": 0.3}.items():
        low, high = drawn[name].min(), drawn[name].max()
        assert 1 - spread <= low < 1 - 0.99 * spread and 1 + 0.99 * spread < high <= 1 + spread
    top, left, height, width = drawn["erase"].T
    erased = height > 0
    assert abs(erased.mean() - 0.25) < 0.02 and np.array_equal(erased, width > 0)
    assert (top + height <= 40).all() and (left + width <= 20).all()
    share = (height * width)[erased] / 800
    assert 0.01 < share.min() < 0.03 and 0.35 < share.max() < 0.45
    ratio = (height / np.maximum(width, 1))[erased]
    assert 0.2 < ratio.min() < 0.5 and 2.5 < ratio.max() < 4.5


def test_grey_and_border_leave_all_else_as_it_was_drawn():
    augment = transforms.Augment(erase=0.5, saturation=0.3)
    plain = transforms.draw(augment, 4000, 24, 12, seed=0, step=5)
    grey = transforms.draw(dataclasses.replace(augment, grey=0.25), 4000, 24, 12, seed=0, step=5)
    without = grey["saturation"] == 0
    assert abs(without.mean() - 0.25) < 0.03
    for name, values in plain.items():
        np.testing.assert_array_equal(grey[name][~without], values[~without])
        assert name == "saturation" or np.array_equal(grey[name], values)
    drawn = transforms.draw(dataclasses.replace(augment, enlarge=1.0, pad=3), 4000, 24, 12, seed=0, step=5)
    assert set(drawn["top"]) == set(drawn["left"]) == set(range(7))


def test_a_grey_image_has_its_luma_in_all_colours():
    image = noise(9, 6, 3)
    drawn = transforms.draw(transforms.Augment(grey=1.0), 1, 9, 6, seed=0, step=0)
    wanted = image @ np.array([0.299, 0.587, 0.114])
    transforms.finish(image, {name: values[0] for name, values in drawn.items()})
    assert np.abs(image - wanted[..., None]).max() <= 0.51 and np.ptp(image, axis=2).max() == 0


def test_no_augmentation_draws_nothing():
    drawn = transforms.draw(transforms.Augment(enlarge=1.0, flip=0.0), 8, 24, 12, seed=0, step=0)
    assert not drawn["top"].any() and not drawn["left"].any() and not drawn["flip"].any() and not drawn["erase"].any()
    image = noise(24, 12, 3)
    before = image.copy()
    transforms.finish(image, {name: values[0] for name, values in drawn.items()})
    np.testing.assert_array_equal(image, before)


PLAIN = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "erase": np.zeros(4, int), "noise": 7}


@pytest.mark.parametrize("factors", [(1.3, 1.0, 1.0), (1.0, 0.6, 1.0), (1.0, 1.0, 0.2), (0.8, 1.4, 1.5)])
def test_jitter_is_its_three_steps(factors):
    image = noise(9, 6, 3)
    brightness, contrast, saturation = factors
    grey = lambda pixels: 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]
    wanted = brightness * image.astype(float)
    wanted = contrast * wanted + (1 - contrast) * grey(wanted).mean()
    wanted = saturation * wanted + (1 - saturation) * grey(wanted)[..., None]
    transforms.finish(image, PLAIN | dict(zip(("brightness", "contrast", "saturation"), factors, strict=True)))
    assert np.abs(image - np.clip(wanted, 0, 255)).max() <= 0.51


def test_erasing_touches_its_rectangle_alone():
    image = np.full((24, 12, 3), 100, np.uint8)
    transforms.finish(image, PLAIN | {"erase": np.array([5, 2, 10, 6])})
    inside = np.zeros((24, 12), bool)
    inside[5:15, 2:8] = True
    assert (image[~inside] == 100).all()
    assert len(np.unique(image[inside])) > 50


@pytest.mark.parametrize("change", [{"enlarge": 0.9}, {"flip": 1.5}, {"grey": 2.0}, {"erase": -0.1}, {"contrast": 2.0}])
def test_impossible_augmentation_is_refused(change):
    with pytest.raises(ValueError, match=next(iter(change))):
        dataclasses.replace(transforms.Augment(), **change)
