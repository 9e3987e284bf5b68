"""Which files of a folder are pictures, and what their pixels are: one rule for every verb.

| what comes | what becomes of it |
| --- | --- |
| JPEG, PNG, BMP or WebP, whatever the name's ending says | read; every other format is refused by its name |
| EXIF that says how the camera was held | the picture is turned, as viewers show it |
| 16 bits a value | the upper 8: 0 to 65,535 become 0 to 255, whatever part of that range a picture uses |
| grey, black and white, palette, CMYK | RGB |
| transparency | laid on white |
| several frames | refused |
| a side of more than MAX_SIDE pixels, a broken file | refused |

Prepared sets keep the bytes that came; whoever reads them, training too, decodes them by `decode`.
"""

import hashlib
import io
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # what re-id sets come in; others start decoders for no one's good
RULE = b"2"  # of this table; 1 knew no EXIF, and 16 bits were white
ENDINGS = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
MAX_SIDE = 10_000  # pixels
SMALL_SIDE = 8  # pixels; with fewer nobody can be told from anybody
KEEP_BYTES = 2**29  # of a folder's files, held so that what is looked at and what is used cannot differ
_SETTLED = 2 * 10**9  # ns after which another change of a file shows in its times, whatever the file system
_OTHERS = ((0, b"II*\0", "a TIFF"), (0, b"MM\0*", "a TIFF"), (0, b"GIF8", "a GIF"), (4, b"ftyp", "a HEIC or AVIF"))
_ORIENTATION = 0x112  # EXIF's tag
_TURNS = {  # its values -> how the pixels [h, w, 3] come to lie as they were seen; 1 is as they lie
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels.swapaxes(0, 1)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels.swapaxes(0, 1)[::-1],
}
# Folders of thumbnails, of waste and of system files; whatever begins with a dot is hidden too.
_HIDDEN = ("@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")


class Look(NamedTuple):
    """What a file's picture is like."""

    fault: str = ""  # why it cannot be read
    turned: bool = False  # by EXIF
    sixteen: bool = False  # bits a value
    dim: bool = False  # 16 bits, of which less than a quarter of the range is used: nearly black once it is read
    small: bool = False  # a side of fewer than SMALL_SIDE pixels
    wide: bool = False  # wider than tall, as it is seen


class Seen(NamedTuple):
    """A file that was looked at, as it was then."""

    stamp: tuple[int, int, int] | None  # size, times of content and status in ns; None: changed a moment ago
    digest: str  # sha256 of its content
    look: Look


class Found(NamedTuple):
    """What lies below a folder."""

    paths: list[pathlib.Path]  # pictures, sorted
    names: list[str]  # theirs, relative to the folder, with "/"
    seen: list[Seen]  # of each
    content: list[bytes | None]  # of each, while all together have no more than KEEP_BYTES and it had to be read
    unreadable: dict[str, str]  # name of what ends as a picture does -> why it is none
    passed_over: dict[str, list[str]]  # reason -> names of everything else
    notes: list[str]  # of `notes`


def decode(data: bytes, *, key: str = "") -> np.ndarray:
    """Pixels of an encoded picture by the rule above, uint8 [h, w, 3]; JPEG by libjpeg-turbo, in half of Pillow's time.

    Raises:
      ValueError: broken or refused; the sentence names `key`.
    """
    try:
        return _decode(data)
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, DecompressionBombError and others
        raise ValueError(f"Image {str(key)!r} ({len(data)} bytes) cannot be decoded: {error}; replace it.") from error


def look(picture: pathlib.Path | bytes) -> Look:
    """Reads a file, or what one holds, as `decode` would."""
    try:
        data = picture if isinstance(picture, bytes) else picture.read_bytes()
        if not data:
            return Look("0 bytes")
        with _open(data) as image:
            turned = _orientation(image) in _TURNS
            sixteen = image.format == "PNG" and data[24] == 16  # its header's bits a value
        pixels = _decode(data)
        height, width, _ = pixels.shape
        dim = sixteen and int(pixels.max()) < 64
        return Look("", turned, sixteen, dim, min(height, width) < SMALL_SIDE, width > height)
    except Exception as error:
        return Look(getattr(error, "strerror", None) or str(error))


def find(folder: str | os.PathLike, known: Mapping[str, Seen] | None = None) -> Found:
    """All pictures below a folder that can be read, see `listed`.

    Args:
      folder: of pictures.
      known: name -> how a file was seen before; one whose stamp is the same is not read again.

    Raises:
      FileNotFoundError: no such folder, or nothing in it that ends as a picture does.
      ValueError: none of those can be read.
    """
    folder = pathlib.Path(folder)
    paths, passed_over = listed(folder)
    names = [path.relative_to(folder).as_posix() for path in paths]
    found = look_at(paths, names, known or {})
    if not found.paths:
        first = f"the first is {paths[0]} ({found.unreadable[names[0]]})"
        raise ValueError(f"None of the {len(paths)} files in {folder} can be read as a picture, {first}.")
    return found._replace(passed_over=passed_over)


def look_at(paths: Sequence[pathlib.Path], names: Sequence[str], known: Mapping[str, Seen]) -> Found:
    """Files, called `names`, each read once at most; `known` as of `find`."""
    now, budget = time.time_ns(), [KEEP_BYTES]

    def see(path: pathlib.Path, name: str) -> tuple[Seen, bytes | None]:
        try:
            status = path.stat()
            stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
            if (before := known.get(name)) and before.stamp == stamp:
                return before, None
            data = path.read_bytes()
        except OSError as error:  # it may have gone since it was listed
            return Seen(None, "", Look(error.strerror or str(error))), None
        settled = now - max(stamp[1:]) > _SETTLED
        seen = Seen(stamp if settled else None, hashlib.sha256(data).hexdigest(), look(data))
        budget[0] -= len(data)
        return seen, data if budget[0] >= 0 else None

    with futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        every = list(pool.map(see, paths, names))
    good = [i for i, (seen, _) in enumerate(every) if not seen.look.fault]
    return Found(
        paths=[paths[i] for i in good],
        names=[names[i] for i in good],
        seen=[every[i][0] for i in good],
        content=[every[i][1] for i in good],
        unreadable={name: seen.look.fault for name, (seen, _) in zip(names, every, strict=True) if seen.look.fault},
        passed_over={},
        notes=notes({path: seen.look for path, (seen, _) in zip(paths, every, strict=True)}),
    )


def listed(folder: str | os.PathLike) -> tuple[list[pathlib.Path], dict[str, list[str]]]:
    """(what ends as a picture does below a folder, sorted; reason -> names of what was passed over).

    Hidden files and folders, and links to folders, are passed over.

    Raises:
      FileNotFoundError: no such folder, or nothing in it that ends as a picture does.
    """
    folder, paths, passed_over = pathlib.Path(folder), [], {}
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}; name a folder of pictures.")

    def leave(path, reason):
        name = pathlib.Path(path).relative_to(folder).as_posix()
        passed_over.setdefault(reason, []).append(name.encode(errors="backslashreplace").decode())

    def shut(error):
        leave(error.filename, f"folder that cannot be opened ({error.strerror})")

    for here, folders, files in os.walk(folder, onerror=shut):
        for name in sorted(folders):  # a copy
            path = os.path.join(here, name)
            if name.startswith(".") or name in _HIDDEN:
                leave(path, "hidden folder")
            elif os.path.islink(path):
                leave(path, "link to a folder")
            else:
                continue
            folders.remove(name)
        for name in sorted(files):
            path, ending = pathlib.Path(here, name), os.path.splitext(name)[1].lower()
            if name.startswith("."):
                leave(path, "hidden file")
            elif ending not in ENDINGS:
                leave(path, f"ending in {ending}" if ending else "without an ending")
            elif not os.path.isfile(path):
                leave(path, _no_file(path))
            elif any("\ud800" <= letter <= "\udfff" for letter in str(path.relative_to(folder))):
                leave(path, "name that is no UTF-8")  # nor could it be printed
            else:
                paths.append(path)
    if not paths:
        there = f", but {'; '.join(told(passed_over))}" if passed_over else ""
        raise FileNotFoundError(f"{folder} holds no images ({', '.join(ENDINGS)}){there}; name a folder of pictures.")
    return sorted(paths), passed_over


def _no_file(path: pathlib.Path) -> str:
    """Why a name that was listed is none of a file."""
    try:
        path.stat()
        return "no file (a pipe, socket or device)"
    except OSError as error:
        return "link to nothing" if os.path.islink(path) else f"file that cannot be opened ({error.strerror})"


def notes(looks: Mapping[Any, Look]) -> list[str]:
    """What happens to pictures, by their names, when they are read."""
    about = {
        "turned": "lie on their side, upside down or mirrored, as EXIF says, and are turned when they are read",
        "sixteen": "have 16 bits a value and are read as the upper 8",
        "dim": "have 16 bits a value and use less than a quarter of that range, so they are read nearly black: stretch "
        "them to 0 to 65,535 first",
        "small": f"have a side of fewer than {SMALL_SIDE} pixels, in which nobody can be told from anybody",
        "wide": "are wider than tall: nets want crops of one person, head to feet, and see a whole scene squeezed into "
        "one",
    }
    found = []
    for name, words in about.items():
        if pictures := [picture for picture, seen in looks.items() if getattr(seen, name)]:
            found.append(f"{len(pictures):,} of {len(looks):,} images {words}; the first is {pictures[0]}.")
    return found


def told(passed_over: dict[str, Sequence[str]]) -> list[str]:
    """What was passed over: "REASON: COUNT, such as NAME" for each reason, the most frequent first."""
    return [
        f"{reason}: {len(names):,}" + (f", such as {names[0]}" if reason != "hidden folder" else "")
        for reason, names in sorted(passed_over.items(), key=lambda item: -len(item[1]))
    ]


def _decode(data: bytes) -> np.ndarray:
    if data[:2] == b"\xff\xd8":
        try:
            pixels = simplejpeg.decode_jpeg(data)
        except ValueError:
            pass  # Pillow also reads CMYK and forgives stray bytes, but not missing ones
        else:
            if b"Exif\0\0" not in data:  # far quicker than asking Pillow
                return pixels
            with _open(data) as image:
                return _turned(pixels, _orientation(image))
    with _open(data) as image:
        orientation, flat = _orientation(image), image
        if image.mode.startswith("I"):
            values = np.array(image)
            values[values == image.info.get("transparency")] = 0xFFFF  # the one grey that is transparent, on white
            flat = Image.fromarray((values >> 8).astype(np.uint8))
        elif image.has_transparency_data:
            flat = image.convert("RGBA")
            flat = Image.alpha_composite(Image.new("RGBA", flat.size, "white"), flat)
        return _turned(np.array(flat.convert("RGB")), orientation)


def _open(data: bytes) -> Image.Image:
    """The picture with its header read; ValueError for one that is refused."""
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        kind = next((name for start, mark, name in _OTHERS if data[start:].startswith(mark)), "")
        wanted = ", which is not read (save it as PNG or JPEG)"
        raise ValueError(kind + wanted if kind else "not an image") from None
    if max(image.size) > MAX_SIDE:  # before decoding: a file of a kilobyte may say that it is of gigabytes
        raise ValueError(f"{image.width:,} x {image.height:,} pixels, more than {MAX_SIDE:,} a side")
    if image.format != "MPO" and (frames := getattr(image, "n_frames", 1)) > 1:  # a camera's MPO has one and previews
        raise ValueError(f"{frames} frames: save the one that is meant")
    return image


def _orientation(image: Image.Image) -> int:
    """What EXIF says; 1 where it says nothing, or is broken."""
    exif = Image.Exif()
    try:
        if image.format == "PNG":
            image.load()  # it may stand behind the pixels
        if text := image.info.get("Raw profile type exif"):  # ImageMagick's: name, length, hexadecimal digits
            exif.load(bytes.fromhex("".join(text.split()[2:])))
        else:
            exif.load(image.info.get("exif", b""))
        return exif.get(_ORIENTATION, 1)
    except Exception:  # whatever Pillow trips over in a block that is beside the picture
        return 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    return np.ascontiguousarray(_TURNS[orientation](pixels)) if orientation in _TURNS else pixels
