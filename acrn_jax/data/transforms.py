"""From encoded bytes to uint8 pixels: one preprocessing for training, evaluation and export, and random augmentation.

Normalisation is not here: mean and deviation travel with a net and are applied on the device.
"""

import dataclasses
from typing import Annotated, Any

import numpy as np

from acrn_jax.data import pixels
from acrn_jax.data_prep import pictures
from acrn_jax.rules import CountOrZero, Share, number

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma
_ERASE_TRIES = 10  # rectangles drawn until one fits
decode = pictures.decode  # one rule for all who read pictures


@dataclasses.dataclass(frozen=True)
class Augment:
    """What happens at random to a training image.

    Images are enlarged by `enlarge`, get a black border of `pad` pixels, and a window of the net's size is cut out at
    random. `flip`, `erase` and `grey` (the image without its colours) are probabilities. `brightness`, `contrast` and
    `saturation` are b in factors drawn from [1 - b, 1 + b].

    Sources: the border: Luo et al., "Bag of Tricks and a Strong Baseline for Deep Person Re-identification", 2019,
    section 2; grey: Gong et al., "A Person Re-identification Data Augmentation Method with Adversarial Defense Effect",
    2021, the global variant.
    """

    enlarge: Annotated[float, number(1)] = 1.125
    flip: Share = 0.5
    erase: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    grey: Share = 0.0
    pad: CountOrZero = 0

    def __post_init__(self):
        if self.enlarge < 1:
            raise ValueError(f"enlarge is {self.enlarge}; the window cut out needs at least 1.")
        for name in ("flip", "erase", "brightness", "contrast", "saturation", "grey"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it lies between 0 and 1.")

    def enlarged(self, height: int, width: int) -> tuple[int, int]:
        """Size from which windows of height x width are cut, pixels."""
        return round(height * self.enlarge), round(width * self.enlarge)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear with antialiasing, uint8 [h, w, 3] -> [height, width, 3]."""
    out = np.empty((height, width, 3), np.uint8)
    pixels.resample(image, (0, 0, image.shape[1], image.shape[0]), out=out)
    return out


def prepare(
    data: bytes,
    height: int,
    width: int,
    *,
    key: str = "",
    window: tuple[float, float, float, float] = (0, 0, 1, 1),
    flip: bool = False,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """The preprocessing of every net: encoded image -> uint8 [height, width, 3].

    Args:
      data: JPEG, PNG, BMP or WebP, decoded by the rule of data_prep/pictures.py.
      height: of the result, pixels.
      width: likewise.
      key: names the image in errors.
      window: left, top, right, bottom as fractions of the image, for training: the part that fills the result. Equal
        to enlarging the whole image and cutting the part out, at half the cost.
      flip: mirrors left-right, for training.
      out: where to write the result, uint8 [height, width, 3]; default: a new array.

    Raises:
      ValueError: broken or unknown image.
    """
    image = decode(data, key=key)
    left, top, right, bottom = window
    box = (left * image.shape[1], top * image.shape[0], right * image.shape[1], bottom * image.shape[0])
    out = np.empty((height, width, 3), np.uint8) if out is None else out
    pixels.resample(image, box, out=out, flip=flip)
    return out


def draw(augment: Augment, rows: int, height: int, width: int, *, seed: int, step: int) -> dict[str, np.ndarray]:
    """Everything random about one global batch, a pure function of (seed, step); arrays [rows] or [rows, ...].

    Drawn for the whole batch at once, so that a row's augmentation does not depend on who assembles it.

    Returns:
      top, left int: window in the enlarged image with its border; flip bool; brightness, contrast, saturation float32
      factors (saturation 0: grey); erase int [rows, 4] top, left, height, width (height 0: nothing); noise int64, seed
      of what fills the erased part.
    """
    rng = np.random.default_rng((seed, step, 3))  # the last number names the use: plans have their own
    whole_height, whole_width = (size + 2 * augment.pad for size in augment.enlarged(height, width))
    drawn: dict[str, np.ndarray] = {
        "top": rng.integers(whole_height - height + 1, size=rows),
        "left": rng.integers(whole_width - width + 1, size=rows),
        "flip": rng.random(rows) < augment.flip,
    }
    for name in ("brightness", "contrast", "saturation"):
        spread = getattr(augment, name)
        drawn[name] = rng.uniform(1 - spread, 1 + spread, rows).astype(np.float32)
    drawn["erase"] = _rectangles(rows, height, width, rng) * (rng.random(rows) < augment.erase)[:, None]
    drawn["noise"] = rng.integers(2**63, size=rows)
    drawn["saturation"][rng.random(rows) < augment.grey] = 0  # last, so that without it all else is drawn as ever
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
        pixels.recolour(image, np.column_stack([matrix, np.full(3, shift)]).astype(np.float32))
    top, left, height, width = drawn["erase"]
    if height:
        noise = np.random.default_rng(drawn["noise"]).integers(256, size=(height, width, 3), dtype=np.uint8)
        image[top : top + height, left : left + width] = noise


def _rectangles(rows: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Rectangles of 2 to 40 per cent of the image, sides 0.3 to 1 / 0.3, int [rows, 4]; all 0 where no try fits."""
    area = rng.uniform(0.02, 0.4, (rows, _ERASE_TRIES)) * height * width
    ratio = rng.uniform(0.3, 1 / 0.3, area.shape)
    sides = np.rint(np.sqrt([area * ratio, area / ratio])).astype(int)  # [2, rows, tries]
    fits = (sides[0] < height) & (sides[1] < width) & (sides > 0).all(0)
    first = fits.argmax(1)
    tall, wide = (sides[axis, np.arange(rows), first] * fits.any(1) for axis in (0, 1))
    return np.stack([rng.integers(height - tall), rng.integers(width - wide), tall, wide], axis=1)
