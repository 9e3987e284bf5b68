"""Draws one person with Pillow: 100 units from top to toe, at twice the final size, every attribute big enough to see.

Whatever is shown is visible from every side: a logo is printed on chest and back, sunglasses have a strap, a jacket a
contrasting hem, a suit tails. Labels are therefore what is drawn, whatever the view.
"""

import functools

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


def draw_person(
    canvas: Image.Image,
    look: Look,
    shown: dict[str, bool],
    *,
    view: str,
    centre: float,
    top: float,
    unit: float,
    stride: float = 0.0,
    mirrored: bool = False,
) -> None:
    """Paints a person onto `canvas` (RGB, in place).

    Args:
      canvas: what is behind the person.
      look: colours and build.
      shown: {attribute: is it drawn}; names that this module does not know are ignored, absent ones are false.
      view: one of VIEWS; a side view looks right.
      centre: column of the body's axis, in pixels of the canvas.
      top: row of the top of the head.
      unit: pixels per hundredth of a body height.
      stride: -1 to 1, how far legs and arms are swung.
      mirrored: swaps left and right.
    """
    draw = ImageDraw.Draw(canvas)
    across, down = unit * look.width * (-1 if mirrored else 1), unit * look.height
    has = lambda name: shown.get(name, False)
    side, back = view == "side", view == "back"

    def place(points):
        return [(centre + x * across, top + y * down) for x, y in points]

    def polygon(colour, *points, on=draw):
        on.polygon(place(points), fill=colour)

    def line(colour, breadth, *points, on=draw):
        placed = place(points)
        on.line(placed, fill=colour, width=max(1, round(breadth * unit)), joint="curve")

    def box(colour, left, upper, right, lower, shape="rectangle", radius=0.0, on=draw):
        (x0, y0), (x1, y1) = place([(left, upper), (right, lower)])
        corners = (min(x0, x1), y0, max(x0, x1), y1)
        if shape == "ellipse":
            on.ellipse(corners, fill=colour)
        elif radius:
            on.rounded_rectangle(corners, radius * unit, fill=colour)
        else:
            on.rectangle(corners, fill=colour)

    male = has("personalMale")
    jacket, formal, short = has("upperBodyJacket"), has("upperBodyFormal"), has("upperBodyShortSleeve")
    if side:
        rows = (
            [(18, -3.5, 4), (23, -9.5, 9), (37, -9, 9.5), (50, -7, 7.5)]
            if male
            else [(18, -3, 3.5), (22, -5.5, 5.5), (28, -5, 9.5), (37, -3.5, 4.5), (48, -9.5, 5.5), (50, -9, 6)]
        )
        shoulder, hip = 0, 7.5
    else:
        shoulder, waist, hip = (16, 13, 9.5) if male else (9, 5.5, 12)
        rows = [(18, -shoulder + 4, shoulder - 4), (22, -shoulder, shoulder), (37, -waist, waist), (50, -hip, hip)]
    if jacket or formal:
        rows.append((60 if formal else 56, rows[-1][1] - 1.5, rows[-1][2] + 1.5))
    torso = [(left, y) for y, left, _ in rows] + [(right, y) for y, _, right in reversed(rows)]
    edge = max(right for _, _, right in rows)  # how far the body reaches to the side

    # Feet and legs, the far one first.
    swing = 7 * stride if side else 1.5 * stride
    legs = [(-swing, 0.82), (swing, 1.0)] if side else [(-hip / 2, 1.0), (hip / 2, 1.0)]
    for start, light in legs:
        foot = 1.7 * start if side else start * 1.15 + (swing if start > 0 else -swing)
        hip_x = 0.3 * start if side else start
        thick = 9.5 if side else hip - 1
        half = thick / 2
        skin, dark = mix(BLACK, look.skin, light), lambda colour, light=light: mix(BLACK, colour, light)
        line(skin, 5.5, (hip_x, 50), (foot, 94))
        middle = (hip_x + foot) / 2
        if has("lowerBodyJeans") or has("lowerBodyTrousers"):
            colour = dark(mix(DENIM, look.lower, 0.2) if has("lowerBodyJeans") else look.lower)
            polygon(colour, (hip_x - half, 48), (hip_x + half, 48), (foot + half - 0.6, 93), (foot - half + 0.6, 93))
            if has("lowerBodyJeans"):  # faded thighs and turned-up hems
                box(mix(colour, WHITE, 0.38), middle - 2.2, 56, middle + 2.2, 74, "ellipse")
                box(mix(colour, WHITE, 0.6), foot - half, 87, foot + half, 92)
            else:
                line(shade(colour, 0.45), 1.0, (hip_x, 52), (foot, 92))
        elif has("lowerBodyShorts"):
            colour = dark(look.lower)
            polygon(colour, (hip_x - half, 48), (hip_x + half, 48), (middle + half, 68), (middle - half, 68))
            box(mix(colour, contrast(colour), 0.6), middle - half, 65.5, middle + half, 68)
        toe, heel = (foot + 6.5, foot - 3.5) if side else (foot + 4.5, foot - 4.5)
        if has("footwearSandals"):
            box(skin, heel, 92, toe, 98, "ellipse")
            box(LEATHER, heel, 97, toe, 99.5)
            line(LEATHER, 1.6, (heel + 1, 92.5), (toe - 1, 97))
            line(LEATHER, 1.6, (heel + 1, 97), (toe - 1, 92.5))
        elif has("footwearSneaker"):
            box((225, 60, 50), heel - 0.5, 91, toe + 0.5, 99, radius=2)
            box(WHITE, heel - 1, 95.5, toe + 1, 99.5, radius=1)
        elif has("footwearShoes"):  # brown boots
            box(dark((150, 98, 45)), (foot - 4), 81, (foot + 4), 97)
            box(dark((150, 98, 45)), heel, 92, toe, 99, radius=2)
            box(dark((205, 165, 95)), foot - 4.5, 80, foot + 4.5, 83)
        elif has("footwearLeatherShoes"):
            box(BLACK, heel - 0.5, 92, toe + 0.5, 99.5, "ellipse")
            box((150, 150, 160), foot - 1.5, 93.5, foot + 2, 95.5, "ellipse")
    if has("lowerBodyShortSkirt"):
        flare = hip + 4.5
        polygon(look.lower, (-hip * 0.9, 46), (hip * 0.9, 46), (flare, 69), (-flare, 69))
        polygon(shade(look.lower, 0.4), (-flare + 0.5, 66.5), (flare - 0.5, 66.5), (flare, 69), (-flare, 69))

    # Things behind the body.
    if has("carryingOther"):  # a suitcase on wheels
        x = -18
        line(BLACK, 1.2, (x, 72), (x + (5 if side else 4), 50))
        box(look.case, x - 6, 70, x + 6, 94, radius=2)
        box(mix(look.case, WHITE, 0.6), x - 6, 76, x + 6, 78.5)
        box(mix(look.case, WHITE, 0.6), x - 6, 85, x + 6, 87.5)
        box(BLACK, x - 5, 94, x - 2, 98, "ellipse")
        box(BLACK, x + 2, 94, x + 5, 98, "ellipse")
    if has("carryingBackpack") and not back:
        if side:
            box(look.backpack, -17.5, 20, -3, 44, radius=4)
            box(shade(look.backpack, 0.45), -17.5, 32, -11, 43, radius=2)
        else:
            box(look.backpack, -edge - 3.5, 23, edge + 3.5, 42, radius=4)
    if has("hairLong") and not back:
        if side:
            box(look.hair, -10, 3, 0, 37, radius=4)
        else:
            box(look.hair, -10, 2, 10, 34, radius=5)

    # Torso and arms. Where cloth has a pattern, a mask says where the cloth is.
    second = contrast(look.upper)
    kind = "stripes" if has("upperBodyThinStripes") else "plaid" if has("upperBodyPlaid") else None
    surfaces = [(draw, look.upper)]
    mask = Image.new("L", canvas.size) if kind else None
    if mask:
        surfaces.append((ImageDraw.Draw(mask), 255))
    for on, colour in surfaces:
        polygon(colour, *torso, on=on)
    reach = 9 * stride if side else 0
    arm = 6.2 if male else 5.0
    hands = [(reach, 51)] if side else [(-edge - 3.6, 51), (edge + 3.6, 51)]
    for x, y in hands:
        start = 0 if side else (x / abs(x)) * (shoulder - 3.0)
        elbow = (0.3 * x if side else x * 0.97, 37)
        line(look.skin, arm - 1, (start, 22), elbow, (x, y))
        box(look.skin, x - 2.6, y - 2, x + 2.6, y + 3, "ellipse")
        for on, colour in surfaces:
            if short:
                line(colour, arm + 2, (start, 21.5), (start + (elbow[0] - start) * 0.6, 30), on=on)
            else:
                line(colour, arm, (start, 22), elbow, (x, y - 2), on=on)
    if mask:
        (_, upper), (_, lower) = place([(0, 16), (0, 62)])
        rows_of_cloth = (0, max(0, int(upper)), canvas.width, min(canvas.height, int(lower)))
        if rows_of_cloth[1] < rows_of_cloth[3]:
            mask = mask.crop(rows_of_cloth)
            canvas.paste(
                mix(look.upper, second, 0.8), rows_of_cloth, ImageChops.multiply(mask, pattern(kind, mask.size))
            )
    if side and not short:
        line(shade(look.upper, 0.45), 0.8, (2.6, 25), (reach * 0.3 + 2.8, 37), (reach + 2.6, 48))

    # Jacket: open over a light shirt, contrasting hem; suit: white shirt front, tie, tails.
    if jacket:
        inner = mix(look.upper, second, 0.9)
        if back:
            box(shade(look.upper, 0.5), -6.5, 17, 6.5, 27, "ellipse")  # hood
        elif side:
            polygon(inner, (3, 19), (6.5, 25), (6, 50), (4.5, 50))
        else:
            polygon(inner, (-3.4, 18), (3.4, 18), (3.4, 54), (-3.4, 54))
        y, left, right = rows[-1]
        box(inner, left, y - 3.5, right, y)
    if formal:
        if back:
            polygon(WHITE, (-8, 17), (8, 17), (6, 21), (-6, 21))
            polygon(RED, (-5, 19), (5, 19), (4.5, 21), (-4.5, 21))
            polygon(BLACK, (-1.4, 44), (1.4, 44), (2.4, 60), (-2.4, 60))
        elif side:
            polygon(WHITE, (0, 18), (4.5, 18), (8, 26), (7.5, 44))
        else:
            polygon(WHITE, (-8.5, 17.5), (8.5, 17.5), (0, 46))
    if has("carryingBackpack"):
        pale = mix(look.backpack, WHITE, 0.6)
        if back:
            width = min(edge - 0.5, 10.5)
            box(look.backpack, -width, 25, width, 43, radius=4)
            box(pale, -width, 31, width, 33.5)
            box(shade(look.backpack, 0.45), -width + 2, 35, width - 2, 42, radius=2)
        else:
            for x in (-4, 3.5) if side else (-6.5, 6.5):
                line(look.backpack, 3.4, (x, 18.5), (x, 40))
                box(pale, x - 1.7, 28, x + 1.7, 31)
    if has("upperBodyVNeck"):
        width = 10.5 if back else 8
        points = [(-3, 17), (6, 17), (8, 25), (4, 36)] if side else [(-width, 17.5), (width, 17.5), (0, 36)]
        polygon(look.skin, *points)
        line(second, 3.0, points[0], points[-1], *([] if side else points[1:2]))
    if formal and not back:
        if side:
            line(RED, 2.6, (5, 19), (7.2, 42))
        else:
            polygon(RED, (-2.6, 18), (2.6, 18), (1.6, 23), (3.2, 39), (0, 44), (-3.2, 39), (-1.6, 23))
            line(BLACK, 1.0, (0, 46), (0, 59))
    if has("upperBodyLogo"):
        x, y = (1, 43.5) if side else (0, 43.5)
        box((250, 215, 40), x - 5.2, y - 5, x + 5.2, y + 5, "ellipse")
        box(RED, x - 2.6, y - 2.5, x + 2.6, y + 2.5, "ellipse")
    if has("carryingMessengerBag"):
        x = -1 if side else edge + 0.5
        line(shade(look.bag, 0.5), 2.6, (-5 if side else -edge * 0.6, 19), (x, 52))
        box(look.bag, x - 7, 49, x + 7, 63, radius=1.5)
        box(shade(look.bag, 0.5), x - 7, 49, x + 7, 56, radius=1.5)
        box((235, 200, 90), x - 1.8, 54, x + 1.8, 58.5)  # buckle

    # Neck, head, and what is on them.
    r = 7.2 * look.head
    polygon(look.skin, (-2.8, 12), (2.8, 12), (3.2, 19), (-3.2, 19))
    box(look.skin, -r * (0.9 if side else 1), 1, r * (0.9 if side else 1), 17, "ellipse")
    if back:
        box(look.hair, -r - 0.4, 0, r + 0.4, 14.5, "ellipse")
        if has("hairLong"):
            polygon(look.hair, (-r - 0.4, 7), (r + 0.4, 7), (3.6, 22), (3, 40), (-3, 40), (-3.6, 22))
            box(RIBBON, -5.5, 22.5, 5.5, 28)
    elif side:
        box(look.skin, r * 0.6, 8, r * 0.9 + 1.6, 11.5, "ellipse")  # nose
        if male:
            box(look.hair, 0, 12, r * 0.9 + 0.5, 18, radius=2.5)
        polygon(
            look.hair,
            (-r - 0.3, 9),
            (-r * 0.8, 2),
            (-1, -0.5),
            (r * 0.75, 2.2),
            (r * 0.7, 5),
            (0, 6),
            (-1.5, 13.5),
            (-r * 0.8, 14),
        )
        if has("hairLong"):
            polygon(look.hair, (-r - 1.5, 7), (-1.5, 7), (-2, 20), (-3, 38), (-11, 38))
            box(RIBBON, -12, 25, -1.5, 31)
        box(BLACK, r * 0.35, 7.5, r * 0.7, 9.5, "ellipse")
    else:
        polygon(
            look.hair,
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
        if has("hairLong"):
            for sign in (-1, 1):
                polygon(look.hair, (sign * (r - 1.5), 5), (sign * (r + 1.8), 5), (sign * 10.5, 37), (sign * 5.6, 37))
                box(RIBBON, sign * 5, 25, sign * 11, 31)
        box(BLACK, -r * 0.55, 8, -r * 0.2, 9.8, "ellipse")
        box(BLACK, r * 0.2, 8, r * 0.55, 9.8, "ellipse")
        if male:
            box(look.hair, -r * 0.8, 12, r * 0.8, 18, radius=2.5)
        line(shade(look.skin, 0.4), 0.8, (-1.8, 13.6), (1.8, 13.6))
    if has("accessorySunglasses"):
        if back:
            box(WHITE, -r - 0.5, 6, r + 0.5, 11)
            box(BLACK, -r - 0.5, 7.2, r + 0.5, 9.8)
        elif side:
            box(BLACK, r * 0.15, 6.6, r + 0.9, 11.4, radius=1)
            line(BLACK, 1.6, (-r, 8), (r * 0.3, 8))
        else:
            box(BLACK, -r - 0.3, 7, r + 0.3, 8.6)
            box(BLACK, -r * 0.95, 6.8, -0.5, 12, radius=1.5)
            box(BLACK, 0.5, 6.8, r * 0.95, 12, radius=1.5)
    if has("accessoryHat"):
        polygon(look.hat, (-r - 0.8, 5), (-r * 0.9, -1), (-r * 0.5, -3.5), (r * 0.5, -3.5), (r * 0.9, -1), (r + 0.8, 5))
        box(shade(look.hat, 0.5), -r - (0.5 if side else 4), 3.4, r + (6 if side else 4), 5.6, radius=1)
    if has("accessoryMuffler"):
        band = mix(look.muffler, contrast(look.muffler), 0.75)
        box(look.muffler, -8.6, 15, 8.6, 22, radius=2.5)
        for x in (-5.5, 0, 5.5):
            box(band, x - 1.1, 15, x + 1.1, 22)
        x = -5 if side else 6
        box(look.muffler, x - 3, 19, x + 3, 38)
        for y in (25, 30, 35):
            box(band, x - 3, y, x + 3, y + 2)
    if has("carryingPlasticBags"):
        x = reach + 3 if side else edge + 4.5
        line(WHITE, 1.0, (x - 3, 60), (x, 52), (x + 3, 60))
        box(WHITE, x - 6.5, 59, x + 6.5, 75, radius=3)
        box((215, 40, 40), x - 3, 64.5, x + 3, 69.5)
