import numpy as np
from PIL import Image, ImageDraw

from acrn_jax.report import sheet


def test_long_lines_lose_their_middle():
    shown = sheet._fitted("camera_3/2016_05_04/0012_c3s1_000451.jpg", lambda text: len(text) <= 16)
    assert shown == "camer…000451.jpg" and len(shown) == 16
    assert sheet._fitted("a.jpg", lambda text: len(text) <= 16) == "a.jpg"
    assert sheet._fitted("a.jpg", lambda text: False) == ""


def test_every_line_of_a_caption_is_drawn(tmp_path, monkeypatch):
    drawn = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, at, line, **more: (drawn.append(line), text(pen, at, line, **more))
    )
    pixels = [np.zeros((20, 10, 3), np.uint8)] * 2
    sheet.write(tmp_path / "grid.jpg", pixels, [["query", "q.jpg"], ["1  d 0.5", "far/away/" * 9 + "7.jpg", "Hat 9 %"]])
    assert drawn[:3] == ["query", "q.jpg", "1  d 0.5"] and drawn[3].endswith("7.jpg") and drawn[4] == "Hat 9 %"
    with Image.open(tmp_path / "grid.jpg") as image:
        assert image.size == (2 * 120 + 8, 224 + 8 + 3 * 14 + 3 + 8)
