"""Where people are drawn and what a camera does to them: backdrops, occlusion, colour cast, blur, noise, JPEG."""

import functools
import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from acrn_jax.data_prep.synthetic_pedestrians import drawing
from acrn_jax.data_prep.synthetic_pedestrians.people import ATTRIBUTE_NAMES, Look, rgb

CANVAS = (drawing.WIDTH * drawing.SUPERSAMPLING, drawing.HEIGHT * drawing.SUPERSAMPLING)  # width, height while drawing
STREET = (3 * CANVAS[0], CANVAS[1] + 40)  # a street is wider than an image, which shows some part of it


class Camera(NamedTuple):
    """What every image of one camera has in common."""

    street: Image.Image | None  # backdrop, STREET pixels; None: a plain one of its own for every image
    gain: np.ndarray  # [3] factor of each colour channel
    offset: float  # added to every pixel value
    blur: float  # radius in pixels
    noise: float  # deviation of a pixel's noise, of 255
    scale: float  # of people
    views: tuple[float, float, float]  # shares of drawing.VIEWS
    occlusion: float  # share of images with something in front of the person


def draw_camera(generator: np.random.Generator) -> Camera:
    """A camera of the target: own street, colour cast, sharpness, noise, distance and usual viewpoint."""
    return Camera(
        draw_street(generator),
        np.exp(generator.normal(0, 0.05, 3) + generator.normal(0, 0.06)),
        generator.uniform(-6, 14),
        generator.uniform(0.0, 0.8),
        generator.uniform(2, 6),
        generator.uniform(0.92, 1.0),
        tuple(generator.dirichlet((4, 4, 4))),
        0.15,
    )


def source_camera(generator: np.random.Generator) -> Camera:
    """A camera for one image of the source, whose images come from everywhere: plain backdrop, mild defects."""
    return Camera(
        None,
        np.exp(generator.normal(0, 0.06, 3) + generator.normal(0, 0.12)),
        generator.uniform(-10, 15),
        max(0.0, generator.uniform(-0.5, 0.9)),
        generator.uniform(0, 6),
        generator.uniform(0.92, 1.04),
        (0.4, 0.3, 0.3),
        0.05,
    )


def draw_street(generator: np.random.Generator) -> Image.Image:
    """A backdrop: wall, pavement, windows, doors, lamp posts; greyish, so that people stand out."""
    dull = lambda low, high: rgb(generator.uniform(0, 360), generator.uniform(0, 0.25), generator.uniform(low, high))
    width, height = STREET
    street = Image.new("RGB", STREET, dull(0.45, 0.75))
    draw = ImageDraw.Draw(street)
    ground = int(height * generator.uniform(0.6, 0.8))
    for _ in range(generator.integers(6, 16)):
        x, y = generator.integers(0, width), generator.integers(0, ground)
        draw.rectangle((x, y, x + generator.integers(15, 60), y + generator.integers(20, 120)), fill=dull(0.25, 0.85))
    draw.rectangle((0, ground, width, height), fill=dull(0.3, 0.65))
    for y in range(ground, height, int(generator.integers(12, 30))):
        draw.line((0, y, width, y), fill=dull(0.3, 0.7), width=2)
    for _ in range(generator.integers(1, 4)):
        x = generator.integers(0, width)
        draw.rectangle((x, 0, x + 7, ground + 20), fill=dull(0.1, 0.3))
    return street.filter(ImageFilter.GaussianBlur(1.5))


def plain_backdrop(generator: np.random.Generator) -> Image.Image:
    """A wall and a floor of one colour each, with a few plain things on them."""
    pale = lambda: rgb(generator.uniform(0, 360), generator.uniform(0, 0.3), generator.uniform(0.35, 0.95))
    backdrop = Image.new("RGB", CANVAS, pale())
    ground = int(CANVAS[1] * generator.uniform(0.55, 0.9))
    draw = ImageDraw.Draw(backdrop)
    draw.rectangle((0, ground, CANVAS[0], CANVAS[1]), fill=pale())
    for _ in range(generator.integers(0, 4)):
        x, y = generator.uniform(-0.2, 1) * CANVAS[0], generator.uniform(0, 1) * CANVAS[1]
        width, height = generator.uniform(0.05, 0.4) * CANVAS[0], generator.uniform(0.1, 0.6) * CANVAS[1]
        draw.rectangle((x, y, x + width, y + height), fill=pale())
    return backdrop


def occlude(canvas: Image.Image, generator: np.random.Generator) -> None:
    """Puts a post or something low, such as a bench, in front of the person."""
    draw, (width, height) = ImageDraw.Draw(canvas), canvas.size
    colour = rgb(generator.uniform(0, 360), generator.uniform(0, 0.4), generator.uniform(0.15, 0.6))
    if generator.random() < 0.5:
        x = generator.uniform(0, 0.85) * width
        draw.rectangle((x, 0, x + generator.uniform(0.08, 0.16) * width, height), fill=colour)
    else:
        x = generator.uniform(-0.5, 0.6) * width
        draw.rectangle((x, generator.uniform(0.78, 0.9) * height, x + 0.9 * width, height), fill=colour)


@functools.cache
def grain() -> np.ndarray:
    """Noise of deviation 1, float32 [2 H, 2 W], of which each image takes a part: drawing it anew would be slow."""
    return np.random.default_rng(0).standard_normal((2 * drawing.HEIGHT, 2 * drawing.WIDTH), np.float32)


def photograph(
    look: Look, shown: np.ndarray, camera: Camera, generator: np.random.Generator, *, cut: bool = False
) -> bytes:
    """One finished image.

    Args:
      look: the person's colours and build.
      shown: bool [A], the attributes to draw, in the order of people.ATTRIBUTE_NAMES.
      camera: what the image is taken with.
      generator: source of view, pose, place and noise.
      cut: shows only part of the person, as a failed detection does.

    Returns:
      JPEG bytes, drawing.HEIGHT x drawing.WIDTH pixels.
    """
    width, height = CANVAS
    if camera.street is None:
        canvas = plain_backdrop(generator)
    else:
        x, y = generator.integers(0, STREET[0] - width), generator.integers(0, STREET[1] - height)
        canvas = camera.street.crop((x, y, x + width, y + height))
    unit = height / 112 * camera.scale * generator.uniform(0.96, 1.04)
    top = (height - 100 * unit * look.height) * generator.uniform(0.35, 0.75)
    centre = width / 2 + generator.normal(0, 0.03) * width
    if cut:
        shift, sign = generator.uniform(0.45, 0.65), generator.choice((-1, 1))
        top, centre = (
            (top + sign * shift * height, centre) if generator.random() < 0.6 else (top, centre + sign * shift * width)
        )
    pose = drawing.Pose(
        view=drawing.VIEWS[np.searchsorted(np.cumsum(camera.views)[:-1], generator.random())],
        centre=centre,
        top=top,
        unit=unit,
        stride=generator.uniform(-1, 1),
        mirrored=generator.random() < 0.5,
    )
    drawing.draw_person(canvas, look, dict(zip(ATTRIBUTE_NAMES, shown, strict=True)), pose)
    if generator.random() < camera.occlusion:
        occlude(canvas, generator)
    image = canvas.reduce(drawing.SUPERSAMPLING)
    if camera.blur > 0.05:
        image = image.filter(ImageFilter.BoxBlur(camera.blur))
    pixels = np.asarray(image, np.float32)
    pixels *= (camera.gain * np.exp(generator.normal(0, 0.02, 3))).astype(np.float32)
    x, y = generator.integers(0, drawing.WIDTH), generator.integers(0, drawing.HEIGHT)
    pixels += grain()[y : y + drawing.HEIGHT, x : x + drawing.WIDTH, None] * np.float32(camera.noise)
    pixels += np.float32(camera.offset)
    np.clip(pixels, 0, 255, out=pixels)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
