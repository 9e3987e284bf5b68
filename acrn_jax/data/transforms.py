"""From encoded bytes to uint8 pixels: one preprocessing for training, evaluation and export, and random augmentation.

Normalisation is not here: mean and deviation travel with a net and are applied on the device.
"""

import dataclasses
import io
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
_ERASE_TRIES = 10  # rectangles drawn until one fits


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens at random to a training image.

    Images are enlarged by `enlarge` and a window of the net's size is cut out at random. `flip` and `erase` are
    probabilities. `brightness`, `contrast` and `saturation` are b in factors drawn from [1 - b, 1 + b].
    """

    enlarge: float = 1.125
    flip: float = 0.5
    erase: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    def __post_init__(self):
        if self.enlarge < 1:
            raise ValueError(f"enlarge is {self.enlarge}; the window cut out needs at least 1.")
        for name in ("flip", "erase", "brightness", "contrast", "saturation"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it lies between 0 and 1.")

    def enlarged(self, height: int, width: int) -> tuple[int, int]:
        """Size from which windows of height x width are cut, pixels."""
        return round(height * self.enlarge), round(width * self.enlarge)


def decode(data: bytes, *, key: str = "") -> np.ndarray:
    """Pixels of an encoded image, uint8 [h, w, 3].

    Raises:
      ValueError: broken or unknown image; the sentence names `key`.
    """
    return _pixels(_open(data, key))


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with antialiasing, uint8 [h, w, 3] -> [height, width, 3]."""
    return _pixels(_resized(Image.fromarray(image), height, width, None))


def prepare(
    data: bytes,
    height: int,
    width: int,
    *,
    key: str = "",
    window: tuple[float, float, float, float] | None = None,
    flip: bool = False,
) -> np.ndarray:
    """The preprocessing of every net: encoded image -> uint8 [height, width, 3].

    Args:
      data: JPEG, PNG, BMP or whatever else Pillow reads.
      height: of the result, pixels.
      width: likewise.
      key: names the image in errors.
      window: left, top, right, bottom as fractions of the image, for training: the part that fills the result. Equal
        to enlarging the whole image and cutting the part out, at half the cost.
      flip: mirrors left-right, for training.

    Raises:
      ValueError: broken or unknown image.
    """
    image = _resized(_open(data, key), height, width, window)
    return _pixels(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else image)


def draw(augment: Augment, rows: int, height: int, width: int, *, seed: int, step: int) -> dict[str, np.ndarray]:
    """Everything random about one global batch, a pure function of (seed, step); arrays [rows] or [rows, ...].

    Drawn for the whole batch at once, so that a row's augmentation does not depend on who assembles it.

    Returns:
      top, left int: window in the enlarged image; flip bool; brightness, contrast, saturation float32 factors; erase
      int [rows, 4] top, left, height, width (height 0: nothing); noise int64, seed of what fills the erased part.
    """
    rng = np.random.default_rng((seed, step, 3))  # the last number names the use: plans have their own
    enlarged_height, enlarged_width = augment.enlarged(height, width)
    drawn = {
        "top": rng.integers(enlarged_height - height + 1, size=rows),
        "left": rng.integers(enlarged_width - width + 1, size=rows),
        "flip": rng.random(rows) < augment.flip,
    }
    for name in ("brightness", "contrast", "saturation"):
        spread = getattr(augment, name)
        drawn[name] = rng.uniform(1 - spread, 1 + spread, rows).astype(np.float32)
    drawn["erase"] = _rectangles(rows, height, width, rng) * (rng.random(rows) < augment.erase)[:, None]
    drawn["noise"] = rng.integers(2**63, size=rows)
    return drawn


def finish(image: np.ndarray, drawn: dict[str, Any]) -> None:
    """Colour jitter and random erasing of one image uint8 [H, W, 3], in place; `drawn` is its row of `draw`.

    Jitter is brightness, contrast, saturation, in this order and rounded once, at the end. The erased part is filled
    with noise.

    Source: Zhong et al., "Random Erasing Data Augmentation", 2017, algorithm 1 (random values).
    """
    brightness, contrast, saturation = drawn["brightness"], drawn["contrast"], drawn["saturation"]
    if not brightness == contrast == saturation == 1:
        # All three are linear in the pixel, so they are one 3x3 matrix and one shift towards the mean grey.
        matrix = brightness * contrast * (saturation * np.eye(3) + (1 - saturation) * _GREY)
        mean = image.reshape(len(image), -1).mean(0).reshape(-1, 3).mean(0)  # [3], rows first: far quicker
        shift = (1 - contrast) * brightness * (mean @ _GREY)
        affine = np.column_stack([matrix, np.full(3, shift)])  # [3, 4]
        image[...] = _pixels(Image.fromarray(image).convert("RGB", tuple(affine.ravel())))
    top, left, height, width = drawn["erase"]
    if height:
        noise = np.random.default_rng(drawn["noise"]).integers(256, size=(height, width, 3), dtype=np.uint8)
        image[top : top + height, left : left + width] = noise


def _open(data: bytes, key: str) -> Image.Image:
    """RGB image; JPEG by libjpeg-turbo through simplejpeg, which takes half of Pillow's time."""
    try:
        if data[:2] == b"\xff\xd8":
            try:
                pixels = simplejpeg.decode_jpeg(data, "RGBX")  # four bytes a pixel, as Pillow stores RGB
                return Image.frombytes("RGB", pixels.shape[1::-1], pixels, "raw", "RGBX")
            except ValueError:
                pass  # Pillow also reads CMYK and forgives stray bytes, but not missing ones
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise ValueError(f"Image {key!r} ({len(data)} bytes) cannot be decoded: {error}; replace it.") from error


def _resized(image: Image.Image, height: int, width: int, window: tuple[float, ...] | None) -> Image.Image:
    bilinear = Image.Resampling.BILINEAR
    if window is None:
        # Columns first and rounded, whatever the size: left to itself, Pillow 13 chooses the order by cost, and older
        # ones do not, which moves single pixels by a level. Exported nets do as we do here, bit for bit.
        return image.resize((width, image.height), bilinear).resize((width, height), bilinear)
    left, top, right, bottom = window
    window = (left * image.width, top * image.height, right * image.width, bottom * image.height)
    return image.resize((width, height), bilinear, box=window)


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 [h, w, 3] of an RGB image, read-only."""
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def _rectangles(rows: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Rectangles of 2 to 40 per cent of the image, sides 0.3 to 1 / 0.3, int [rows, 4]; all 0 where no try fits."""
    area = rng.uniform(0.02, 0.4, (rows, _ERASE_TRIES)) * height * width
    ratio = rng.uniform(0.3, 1 / 0.3, area.shape)
    sides = np.rint(np.sqrt([area * ratio, area / ratio])).astype(int)  # [2, rows, tries]
    fits = (sides[0] < height) & (sides[1] < width) & (sides > 0).all(0)
    first = fits.argmax(1)
    tall, wide = (sides[axis, np.arange(rows), first] * fits.any(1) for axis in (0, 1))
    return np.stack([rng.integers(height - tall), rng.integers(width - wide), tall, wide], axis=1)
