"""Pictures side by side with captions, as one JPEG."""

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from acrn_jax import files

TILE = (112, 224)  # width and height of a picture's place, pixels
MARGIN, LINE, FRAME = 8, 14, 3
COLUMNS = 10
BLUE = (10, 88, 202)


def write(
    out: Path, pictures: Sequence[np.ndarray], captions: Sequence[Sequence[str]], *, marked: int = 0, note: str = ""
) -> None:
    """Writes pictures (each uint8 [h, w, 3]) with lines of text below each; the first `marked` ones framed in blue.

    A note stands below all of them.
    """
    lines = max(map(len, captions))
    width, height = TILE[0] + MARGIN, TILE[1] + MARGIN + LINE * lines + FRAME
    columns = min(COLUMNS, len(pictures))
    rows = -(-len(pictures) // columns)
    below = textwrap.wrap(note, max(20, columns * width // 7))  # 7 pixels a letter
    page = Image.new("RGB", (columns * width + MARGIN, rows * height + MARGIN + LINE * len(below)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(11)
    for place, (pixels, text) in enumerate(zip(pictures, captions, strict=True)):
        left, top = MARGIN + place % columns * width, MARGIN + place // columns * height
        image = Image.fromarray(pixels)
        factor = min(TILE[0] / image.width, TILE[1] / image.height)
        image = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))
        corner = (left + (TILE[0] - image.width) // 2, top + (TILE[1] - image.height) // 2)
        page.paste(image, corner)
        if place < marked:
            ends = (corner[0] + image.width - 1, corner[1] + image.height - 1)
            pen.rectangle((*corner, *ends), outline=BLUE, width=FRAME)
        for number, line in enumerate(text):
            fitted = _fitted(line, lambda part: pen.textlength(part, font=font) <= TILE[0] + MARGIN - 2)
            pen.text((left, top + TILE[1] + FRAME + LINE * number), fitted, fill="black", font=font)
    for number, line in enumerate(below):
        pen.text((MARGIN, rows * height + MARGIN // 2 + LINE * number), line, fill="black", font=font)
    content = io.BytesIO()  # Pillow itself would pass over a write that a full disk cuts short
    page.save(content, "jpeg", quality=90)
    files.write_bytes(out, content.getvalue())


def _fitted(line: str, fits: Callable[[str], bool]) -> str:
    """A line without as much of its middle as it takes to fit: names differ at their ends, and there numbers stand."""
    for removed in range(len(line)):
        kept = len(line) - removed
        shorter = f"{line[: kept // 3]}…{line[kept // 3 + removed :]}" if removed else line
        if fits(shorter):
            return shorter
    return ""
