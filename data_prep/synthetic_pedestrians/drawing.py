"""Draws one person with Pillow: 100 units from top to toe, at twice the final size, every attribute big enough to see.

Whatever is shown is visible from every side: a logo is printed on chest and back, sunglasses have a strap, a jacket a
contrasting hem, a suit tails. Labels are therefore what is drawn, whatever the view.
"""

import functools
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw

from acrn_jax.data_prep.synthetic_pedestrians.people import Look

HEIGHT, WIDTH = 128, 64  # pixels of a finished image
SUPERSAMPLING = 2
VIEWS = ("front", "back", "side")

DENIM, WHITE, BLACK, LEATHER = (52, 84, 150), (238, 238, 238), (22, 22, 26), (92, 54, 28)
RED, RIBBON = (200, 30, 40), (235, 80, 160)


def mix(colour: tuple, other: tuple, share: float) -> tuple:
    """`colour` with `share` of `other` in it."""
    return tuple(int(a + share * (b - a)) for a, b in zip(colour, other, strict=True))


def shade(colour: tuple, share: float) -> tuple:
    """`colour` with `share` of black in it."""
    return mix(colour, BLACK, share)


def contrast(colour: tuple) -> tuple:
    """Light on dark, dark on light."""
    return WHITE if 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2] < 120 else BLACK


@functools.cache
def pattern(kind: str, size: tuple[int, int]) -> Image.Image:
    """Where a cloth pattern, "stripes" or "plaid", puts its second colour, mode "L"."""
    mask = Image.new("L", size)
    draw = ImageDraw.Draw(mask)
    period, breadth = (16, 6) if kind == "stripes" else (26, 7)
    for start in range(0, max(size), period):
        draw.rectangle((0, start, size[0], start + breadth - 1), fill=255)
        if kind == "plaid":
            draw.rectangle((start, 0, start + breadth - 1, size[1]), fill=255)
    return mask


class Pose(NamedTuple):
    """Where a person stands on the canvas, and how."""

    view: str  # one of VIEWS; a side view looks right
    centre: float  # column of the body's axis, in pixels of the canvas
    top: float  # row of the top of the head
    unit: float  # pixels per hundredth of a body height
    stride: float = 0.0  # -1 to 1, how far legs and arms are swung
    mirrored: bool = False  # swaps left and right


def draw_person(canvas: Image.Image, look: Look, shown: dict[str, bool], pose: Pose) -> None:
    """Paints a person onto `canvas` (RGB, in place).

    Args:
      canvas: what is behind the person.
      look: colours and build.
      shown: {attribute: is it drawn}; names that this module does not know are ignored, absent ones are false.
      pose: where and how the person stands.
    """
    person = _Person(canvas, look, shown, pose)
    for draw in (_legs, _skirt, _behind, _torso, _jacket_or_suit, _in_front, _head, _on_the_head, _plastic_bag):
        draw(person)


class _Person:
    """One person on one canvas: measures of the body, and brushes that take places in the body's own units.

    x runs from the body's axis to its right, y from the top of the head (0) to the toes (100).
    """

    def __init__(self, canvas: Image.Image, look: Look, shown: dict[str, bool], pose: Pose):
        self.canvas, self.look, self.shown, self.pose = canvas, look, shown, pose
        self.draw = ImageDraw.Draw(canvas)
        self.side, self.back = pose.view == "side", pose.view == "back"
        self.male, self.short = self.has("personalMale"), self.has("upperBodyShortSleeve")
        self.jacket, self.formal = self.has("upperBodyJacket"), self.has("upperBodyFormal")
        if self.side:
            self.rows = (
                [(18, -3.5, 4), (23, -9.5, 9), (37, -9, 9.5), (50, -7, 7.5)]
                if self.male
                else [(18, -3, 3.5), (22, -5.5, 5.5), (28, -5, 9.5), (37, -3.5, 4.5), (48, -9.5, 5.5), (50, -9, 6)]
            )
            self.shoulder, self.hip = 0, 7.5
        else:
            self.shoulder, waist, self.hip = (16, 13, 9.5) if self.male else (9, 5.5, 12)
            s, h = self.shoulder, self.hip
            self.rows = [(18, -s + 4, s - 4), (22, -s, s), (37, -waist, waist), (50, -h, h)]
        if self.jacket or self.formal:
            self.rows.append((60 if self.formal else 56, self.rows[-1][1] - 1.5, self.rows[-1][2] + 1.5))
        self.edge = max(right for _, _, right in self.rows)  # how far the body reaches to the side
        self.reach = 9 * pose.stride if self.side else 0  # of the hand
        self.r = 7.2 * look.head  # half the head's breadth
        self.second = contrast(look.upper)  # of the cloth's two colours

    def has(self, name: str) -> bool:
        return self.shown.get(name, False)

    def place(self, points):
        """Body units -> pixels of the canvas."""
        across = self.pose.unit * self.look.width * (-1 if self.pose.mirrored else 1)
        down = self.pose.unit * self.look.height
        return [(self.pose.centre + x * across, self.pose.top + y * down) for x, y in points]

    def polygon(self, colour, *points, on=None):
        (on or self.draw).polygon(self.place(points), fill=colour)

    def line(self, colour, breadth, *points, on=None):
        width = max(1, round(breadth * self.pose.unit))
        (on or self.draw).line(self.place(points), fill=colour, width=width, joint="curve")

    def box(self, colour, left, upper, right, lower, shape="rectangle", radius=0.0):
        (x0, y0), (x1, y1) = self.place([(left, upper), (right, lower)])
        corners = (min(x0, x1), y0, max(x0, x1), y1)
        if shape == "ellipse":
            self.draw.ellipse(corners, fill=colour)
        elif radius:
            self.draw.rounded_rectangle(corners, radius * self.pose.unit, fill=colour)
        else:
            self.draw.rectangle(corners, fill=colour)


def _legs(p: _Person) -> None:
    """Feet and legs, the far one first."""
    swing = 7 * p.pose.stride if p.side else 1.5 * p.pose.stride
    legs = [(-swing, 0.82), (swing, 1.0)] if p.side else [(-p.hip / 2, 1.0), (p.hip / 2, 1.0)]
    for start, light in legs:
        foot = 1.7 * start if p.side else start * 1.15 + (swing if start > 0 else -swing)
        hip_x = 0.3 * start if p.side else start
        thick = 9.5 if p.side else p.hip - 1
        half = thick / 2
        skin, dark = mix(BLACK, p.look.skin, light), lambda colour, light=light: mix(BLACK, colour, light)
        p.line(skin, 5.5, (hip_x, 50), (foot, 94))
        middle = (hip_x + foot) / 2
        if p.has("lowerBodyJeans") or p.has("lowerBodyTrousers"):
            colour = dark(mix(DENIM, p.look.lower, 0.2) if p.has("lowerBodyJeans") else p.look.lower)
            p.polygon(colour, (hip_x - half, 48), (hip_x + half, 48), (foot + half - 0.6, 93), (foot - half + 0.6, 93))
            if p.has("lowerBodyJeans"):  # faded thighs and turned-up hems
                p.box(mix(colour, WHITE, 0.38), middle - 2.2, 56, middle + 2.2, 74, "ellipse")
                p.box(mix(colour, WHITE, 0.6), foot - half, 87, foot + half, 92)
            else:
                p.line(shade(colour, 0.45), 1.0, (hip_x, 52), (foot, 92))
        elif p.has("lowerBodyShorts"):
            colour = dark(p.look.lower)
            p.polygon(colour, (hip_x - half, 48), (hip_x + half, 48), (middle + half, 68), (middle - half, 68))
            p.box(mix(colour, contrast(colour), 0.6), middle - half, 65.5, middle + half, 68)
        toe, heel = (foot + 6.5, foot - 3.5) if p.side else (foot + 4.5, foot - 4.5)
        if p.has("footwearSandals"):
            p.box(skin, heel, 92, toe, 98, "ellipse")
            p.box(LEATHER, heel, 97, toe, 99.5)
            p.line(LEATHER, 1.6, (heel + 1, 92.5), (toe - 1, 97))
            p.line(LEATHER, 1.6, (heel + 1, 97), (toe - 1, 92.5))
        elif p.has("footwearSneaker"):
            p.box((225, 60, 50), heel - 0.5, 91, toe + 0.5, 99, radius=2)
            p.box(WHITE, heel - 1, 95.5, toe + 1, 99.5, radius=1)
        elif p.has("footwearShoes"):  # brown boots
            p.box(dark((150, 98, 45)), foot - 4, 81, foot + 4, 97)
            p.box(dark((150, 98, 45)), heel, 92, toe, 99, radius=2)
            p.box(dark((205, 165, 95)), foot - 4.5, 80, foot + 4.5, 83)
        elif p.has("footwearLeatherShoes"):
            p.box(BLACK, heel - 0.5, 92, toe + 0.5, 99.5, "ellipse")
            p.box((150, 150, 160), foot - 1.5, 93.5, foot + 2, 95.5, "ellipse")


def _skirt(p: _Person) -> None:
    if p.has("lowerBodyShortSkirt"):
        flare = p.hip + 4.5
        p.polygon(p.look.lower, (-p.hip * 0.9, 46), (p.hip * 0.9, 46), (flare, 69), (-flare, 69))
        p.polygon(shade(p.look.lower, 0.4), (-flare + 0.5, 66.5), (flare - 0.5, 66.5), (flare, 69), (-flare, 69))


def _behind(p: _Person) -> None:
    """Things behind the body."""
    if p.has("carryingOther"):  # a suitcase on wheels
        x = -18
        p.line(BLACK, 1.2, (x, 72), (x + (5 if p.side else 4), 50))
        p.box(p.look.case, x - 6, 70, x + 6, 94, radius=2)
        p.box(mix(p.look.case, WHITE, 0.6), x - 6, 76, x + 6, 78.5)
        p.box(mix(p.look.case, WHITE, 0.6), x - 6, 85, x + 6, 87.5)
        p.box(BLACK, x - 5, 94, x - 2, 98, "ellipse")
        p.box(BLACK, x + 2, 94, x + 5, 98, "ellipse")
    if p.has("carryingBackpack") and not p.back:
        if p.side:
            p.box(p.look.backpack, -17.5, 20, -3, 44, radius=4)
            p.box(shade(p.look.backpack, 0.45), -17.5, 32, -11, 43, radius=2)
        else:
            p.box(p.look.backpack, -p.edge - 3.5, 23, p.edge + 3.5, 42, radius=4)
    if p.has("hairLong") and not p.back:
        if p.side:
            p.box(p.look.hair, -10, 3, 0, 37, radius=4)
        else:
            p.box(p.look.hair, -10, 2, 10, 34, radius=5)


def _torso(p: _Person) -> None:
    """Torso and arms. Where cloth has a pattern, a mask says where the cloth is."""
    kind = "stripes" if p.has("upperBodyThinStripes") else "plaid" if p.has("upperBodyPlaid") else None
    surfaces = [(p.draw, p.look.upper)]
    mask = Image.new("L", p.canvas.size) if kind else None
    if mask:
        surfaces.append((ImageDraw.Draw(mask), 255))
    outline = [(left, y) for y, left, _ in p.rows] + [(right, y) for y, _, right in reversed(p.rows)]
    for on, colour in surfaces:
        p.polygon(colour, *outline, on=on)
    arm = 6.2 if p.male else 5.0
    hands = [(p.reach, 51)] if p.side else [(-p.edge - 3.6, 51), (p.edge + 3.6, 51)]
    for x, y in hands:
        start = 0 if p.side else (x / abs(x)) * (p.shoulder - 3.0)
        elbow = (0.3 * x if p.side else x * 0.97, 37)
        p.line(p.look.skin, arm - 1, (start, 22), elbow, (x, y))
        p.box(p.look.skin, x - 2.6, y - 2, x + 2.6, y + 3, "ellipse")
        for on, colour in surfaces:
            if p.short:
                p.line(colour, arm + 2, (start, 21.5), (start + (elbow[0] - start) * 0.6, 30), on=on)
            else:
                p.line(colour, arm, (start, 22), elbow, (x, y - 2), on=on)
    if mask:
        (_, upper), (_, lower) = p.place([(0, 16), (0, 62)])
        cloth = (0, max(0, int(upper)), p.canvas.width, min(p.canvas.height, int(lower)))
        if cloth[1] < cloth[3]:
            mask = mask.crop(cloth)
            p.canvas.paste(mix(p.look.upper, p.second, 0.8), cloth, ImageChops.multiply(mask, pattern(kind, mask.size)))
    if p.side and not p.short:
        p.line(shade(p.look.upper, 0.45), 0.8, (2.6, 25), (p.reach * 0.3 + 2.8, 37), (p.reach + 2.6, 48))


def _jacket_or_suit(p: _Person) -> None:
    """Jacket: open over a light shirt, contrasting hem; suit: white shirt front, tie, tails."""
    if p.jacket:
        inner = mix(p.look.upper, p.second, 0.9)
        if p.back:
            p.box(shade(p.look.upper, 0.5), -6.5, 17, 6.5, 27, "ellipse")  # hood
        elif p.side:
            p.polygon(inner, (3, 19), (6.5, 25), (6, 50), (4.5, 50))
        else:
            p.polygon(inner, (-3.4, 18), (3.4, 18), (3.4, 54), (-3.4, 54))
        y, left, right = p.rows[-1]
        p.box(inner, left, y - 3.5, right, y)
    if p.formal:
        if p.back:
            p.polygon(WHITE, (-8, 17), (8, 17), (6, 21), (-6, 21))
            p.polygon(RED, (-5, 19), (5, 19), (4.5, 21), (-4.5, 21))
            p.polygon(BLACK, (-1.4, 44), (1.4, 44), (2.4, 60), (-2.4, 60))
        elif p.side:
            p.polygon(WHITE, (0, 18), (4.5, 18), (8, 26), (7.5, 44))
        else:
            p.polygon(WHITE, (-8.5, 17.5), (8.5, 17.5), (0, 46))


def _in_front(p: _Person) -> None:
    """What is in front of the torso: straps, neckline, tie, logo, bag."""
    if p.has("carryingBackpack"):
        pale = mix(p.look.backpack, WHITE, 0.6)
        if p.back:
            width = min(p.edge - 0.5, 10.5)
            p.box(p.look.backpack, -width, 25, width, 43, radius=4)
            p.box(pale, -width, 31, width, 33.5)
            p.box(shade(p.look.backpack, 0.45), -width + 2, 35, width - 2, 42, radius=2)
        else:
            for x in (-4, 3.5) if p.side else (-6.5, 6.5):
                p.line(p.look.backpack, 3.4, (x, 18.5), (x, 40))
                p.box(pale, x - 1.7, 28, x + 1.7, 31)
    if p.has("upperBodyVNeck"):
        width = 10.5 if p.back else 8
        points = [(-3, 17), (6, 17), (8, 25), (4, 36)] if p.side else [(-width, 17.5), (width, 17.5), (0, 36)]
        p.polygon(p.look.skin, *points)
        p.line(p.second, 3.0, points[0], points[-1], *([] if p.side else points[1:2]))
    if p.formal and not p.back:
        if p.side:
            p.line(RED, 2.6, (5, 19), (7.2, 42))
        else:
            p.polygon(RED, (-2.6, 18), (2.6, 18), (1.6, 23), (3.2, 39), (0, 44), (-3.2, 39), (-1.6, 23))
            p.line(BLACK, 1.0, (0, 46), (0, 59))
    if p.has("upperBodyLogo"):
        x, y = (1, 43.5) if p.side else (0, 43.5)
        p.box((250, 215, 40), x - 5.2, y - 5, x + 5.2, y + 5, "ellipse")
        p.box(RED, x - 2.6, y - 2.5, x + 2.6, y + 2.5, "ellipse")
    if p.has("carryingMessengerBag"):
        x = -1 if p.side else p.edge + 0.5
        p.line(shade(p.look.bag, 0.5), 2.6, (-5 if p.side else -p.edge * 0.6, 19), (x, 52))
        p.box(p.look.bag, x - 7, 49, x + 7, 63, radius=1.5)
        p.box(shade(p.look.bag, 0.5), x - 7, 49, x + 7, 56, radius=1.5)
        p.box((235, 200, 90), x - 1.8, 54, x + 1.8, 58.5)  # buckle


def _head(p: _Person) -> None:
    """Neck, face and hair."""
    r = p.r
    p.polygon(p.look.skin, (-2.8, 12), (2.8, 12), (3.2, 19), (-3.2, 19))
    p.box(p.look.skin, -r * (0.9 if p.side else 1), 1, r * (0.9 if p.side else 1), 17, "ellipse")
    if p.back:
        _back_of_head(p, r)
    elif p.side:
        _profile(p, r)
    else:
        _face(p, r)


def _back_of_head(p: _Person, r: float) -> None:
    p.box(p.look.hair, -r - 0.4, 0, r + 0.4, 14.5, "ellipse")
    if p.has("hairLong"):
        p.polygon(p.look.hair, (-r - 0.4, 7), (r + 0.4, 7), (3.6, 22), (3, 40), (-3, 40), (-3.6, 22))
        p.box(RIBBON, -5.5, 22.5, 5.5, 28)


def _profile(p: _Person, r: float) -> None:
    p.box(p.look.skin, r * 0.6, 8, r * 0.9 + 1.6, 11.5, "ellipse")  # nose
    if p.male:
        p.box(p.look.hair, 0, 12, r * 0.9 + 0.5, 18, radius=2.5)
    p.polygon(
        p.look.hair,
        (-r - 0.3, 9),
        (-r * 0.8, 2),
        (-1, -0.5),
        (r * 0.75, 2.2),
        (r * 0.7, 5),
        (0, 6),
        (-1.5, 13.5),
        (-r * 0.8, 14),
    )
    if p.has("hairLong"):
        p.polygon(p.look.hair, (-r - 1.5, 7), (-1.5, 7), (-2, 20), (-3, 38), (-11, 38))
        p.box(RIBBON, -12, 25, -1.5, 31)
    p.box(BLACK, r * 0.35, 7.5, r * 0.7, 9.5, "ellipse")


def _face(p: _Person, r: float) -> None:
    p.polygon(
        p.look.hair,
        (-r - 0.3, 8),
        (-r * 0.85, 2.5),
        (-2.5, -0.3),
        (2.5, -0.3),
        (r * 0.85, 2.5),
        (r + 0.3, 8),
        (r * 0.7, 4.8),
        (0, 3.6),
        (-r * 0.7, 4.8),
    )
    if p.has("hairLong"):
        for sign in (-1, 1):
            p.polygon(p.look.hair, (sign * (r - 1.5), 5), (sign * (r + 1.8), 5), (sign * 10.5, 37), (sign * 5.6, 37))
            p.box(RIBBON, sign * 5, 25, sign * 11, 31)
    p.box(BLACK, -r * 0.55, 8, -r * 0.2, 9.8, "ellipse")
    p.box(BLACK, r * 0.2, 8, r * 0.55, 9.8, "ellipse")
    if p.male:
        p.box(p.look.hair, -r * 0.8, 12, r * 0.8, 18, radius=2.5)
    p.line(shade(p.look.skin, 0.4), 0.8, (-1.8, 13.6), (1.8, 13.6))


def _on_the_head(p: _Person) -> None:
    """Sunglasses and hat, and a scarf below them."""
    r = p.r
    if p.has("accessorySunglasses"):
        if p.back:
            p.box(WHITE, -r - 0.5, 6, r + 0.5, 11)
            p.box(BLACK, -r - 0.5, 7.2, r + 0.5, 9.8)
        elif p.side:
            p.box(BLACK, r * 0.15, 6.6, r + 0.9, 11.4, radius=1)
            p.line(BLACK, 1.6, (-r, 8), (r * 0.3, 8))
        else:
            p.box(BLACK, -r - 0.3, 7, r + 0.3, 8.6)
            p.box(BLACK, -r * 0.95, 6.8, -0.5, 12, radius=1.5)
            p.box(BLACK, 0.5, 6.8, r * 0.95, 12, radius=1.5)
    if p.has("accessoryHat"):
        p.polygon(
            p.look.hat, (-r - 0.8, 5), (-r * 0.9, -1), (-r * 0.5, -3.5), (r * 0.5, -3.5), (r * 0.9, -1), (r + 0.8, 5)
        )
        p.box(shade(p.look.hat, 0.5), -r - (0.5 if p.side else 4), 3.4, r + (6 if p.side else 4), 5.6, radius=1)
    if p.has("accessoryMuffler"):
        band = mix(p.look.muffler, contrast(p.look.muffler), 0.75)
        p.box(p.look.muffler, -8.6, 15, 8.6, 22, radius=2.5)
        for x in (-5.5, 0, 5.5):
            p.box(band, x - 1.1, 15, x + 1.1, 22)
        x = -5 if p.side else 6
        p.box(p.look.muffler, x - 3, 19, x + 3, 38)
        for y in (25, 30, 35):
            p.box(band, x - 3, y, x + 3, y + 2)


def _plastic_bag(p: _Person) -> None:
    if p.has("carryingPlasticBags"):
        x = p.reach + 3 if p.side else p.edge + 4.5
        p.line(WHITE, 1.0, (x - 3, 60), (x, 52), (x + 3, 60))
        p.box(WHITE, x - 6.5, 59, x + 6.5, 75, radius=3)
        p.box((215, 40, 40), x - 3, 64.5, x + 3, 69.5)
