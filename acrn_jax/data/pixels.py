"""Resizing and colours as Pillow has them, bit for bit and in a third of its time: machine code for uint8 [h, w, 3].

Resizing is bilinear with antialiasing: where an image is made smaller, the triangle grows with the factor. Columns
first, then rows, rounded in between: left to itself, Pillow 13 chooses the order by cost, and older ones do not, which
moves single pixels by a level. Exported nets resize in this order too.
"""

import numba
import numpy as np

_BITS = 22  # of the fraction in a weight: Pillow's PRECISION_BITS for channels of 8 bits


def compiled(function):
    """`function` as machine code that lets other threads run, kept on disk where there is a place for it."""
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # neither the package's folder nor the user's cache can be written
        return numba.njit(function, nogil=True)


@compiled
def _taps(size, low, high, out):
    """What each of `out` pixels is made of: first source pixel [out], number [out], weights int32 [out, most]."""
    low, high = np.float32(low), np.float32(high)  # Pillow's corners are of single precision
    scale = np.float64(high - low) / out
    support = max(scale, 1.0)
    steepness = 1.0 / support
    most = 2 * int(np.ceil(support)) + 1
    first, number = np.empty(out, np.int64), np.empty(out, np.int64)
    weights, exact = np.zeros((out, most), np.int32), np.empty(most)
    for x in range(out):
        centre = np.float64(low) + (x + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), size) - start
        total = 0.0
        for tap in range(count):
            exact[tap] = max(1.0 - abs((tap + start - centre + 0.5) * steepness), 0.0)
            total += exact[tap]
        for tap in range(count):
            weights[x, tap] = int(0.5 + exact[tap] / total * (1 << _BITS))
        first[x], number[x] = start, count
    return first, number, weights


@compiled
def _columns(image, begin, end, left, right, flip, width):
    """Rows begin to end of an image, as many pixels wide as asked for: [rows, 3 width]."""
    first, number, weights = _taps(image.shape[1], left, right, width)
    narrow = np.empty((end - begin, 3 * width), np.uint8)
    one, two, three = np.uintp(1), np.uintp(2), np.uintp(3)  # unsigned, else indices from the end are looked out for
    for y in range(end - begin):
        row, result = image[begin + y].reshape(-1), narrow[y]
        for x in range(width):
            at = np.uintp(3 * first[x])
            red = green = blue = np.int32(1 << (_BITS - 1))
            for tap in range(number[x]):
                weight = weights[x, tap]
                red = np.int32(red + weight * row[at])
                green = np.int32(green + weight * row[at + one])
                blue = np.int32(blue + weight * row[at + two])
                at += three
            place = np.uintp(3 * (width - 1 - x if flip else x))
            result[place], result[place + one], result[place + two] = red >> _BITS, green >> _BITS, blue >> _BITS
    return narrow


@compiled
def _resample(image, left, top, right, bottom, flip, out):
    height, width = out.shape[:2]
    first, number, weights = _taps(image.shape[0], top, bottom, height)
    begin, end = first[0], first[-1] + number[-1]
    if left == 0 and right == width == image.shape[1] and not flip:
        narrow = image[begin:end].reshape(end - begin, 3 * width)
    else:
        narrow = _columns(image, begin, end, left, right, flip, width)
    flat = out.reshape(height, 3 * width)
    sums = np.empty(3 * width, np.int32)
    for y in range(height):
        sums[:] = 1 << (_BITS - 1)
        for tap in range(number[y]):
            weight, row = weights[y, tap], narrow[first[y] - begin + tap]
            for place in range(3 * width):
                sums[place] += np.int32(weight * row[place])
        result = flat[y]
        for place in range(3 * width):
            result[place] = sums[place] >> _BITS


def resample(image: np.ndarray, box: tuple[float, float, float, float], *, out: np.ndarray, flip: bool = False) -> None:
    """Fills `out`, uint8 [height, width, 3] in C order, with a part of `image`, uint8 [h, w, 3].

    Args:
      image: pixels.
      box: left, top, right, bottom of the part in pixels of `image`, fractions allowed.
      out: is written; its size is that of the result.
      flip: mirrors left-right.
    """
    # Writable, so that there is one program, and not another for constant arrays.
    _resample(np.require(image, np.uint8, ["C", "W"]), *map(float, box), flip, out)


@compiled
def recolour(image, matrix):
    """Each pixel of `image`, uint8 [h, w, 3], becomes `matrix`, float32 [3, 4], times (red, green, blue, 1)."""
    height, width = image.shape[:2]
    planes, made = np.empty((3, width), np.float32), np.empty(width, np.uint8)
    for y in range(height):
        row = image[y]
        for colour in range(3):
            for x in range(width):
                planes[colour, x] = row[x, colour]
        red, green, blue = planes[0], planes[1], planes[2]
        for colour in range(3):
            m0, m1, m2, m3 = matrix[colour, 0], matrix[colour, 1], matrix[colour, 2], matrix[colour, 3]
            for x in range(width):
                value = m0 * red[x] + m1 * green[x] + m2 * blue[x] + m3
                made[x] = np.uint8(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255)))
            for x in range(width):
                row[x, colour] = made[x]
