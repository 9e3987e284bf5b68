"""Decoding against Pillow's own ImageOps and numbers by hand; folders against what was put into them."""

import io
import os
import pathlib
import zlib

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps, PngImagePlugin

from acrn_jax.data import source, transforms
from acrn_jax.data_prep import checks, pictures

ORIENTATION = 0x112


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def encode(image, form, **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, form, **options)
    return file.getvalue()


def exif(orientation):
    block = Image.Exif()
    block[ORIENTATION] = orientation
    return block


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_a_picture_is_turned_as_exif_says(form, orientation):
    pixels = np.repeat(np.repeat(noise(3, 2, 3), 8, 0), 8, 1)  # blocks, so that JPEG keeps them
    options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[form]
    data = encode(pixels, form, exif=exif(orientation), **options)
    with Image.open(io.BytesIO(data)) as image:
        wanted = np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    found = transforms.decode(data)
    assert found.shape == wanted.shape == ((16, 24, 3) if orientation in (5, 6, 7, 8) else (24, 16, 3))
    assert np.abs(found - wanted).max() <= 2 and found.flags.c_contiguous


def test_a_broken_exif_block_says_nothing():
    pixels = noise(6, 4, 3)
    for block in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff", b"Exif\0\0no block at all"):
        np.testing.assert_array_equal(pictures.decode(encode(pixels, "PNG", exif=block)), pixels)
        assert pictures.decode(encode(pixels, "JPEG", exif=block)).shape == (6, 4, 3)


def test_exif_of_a_png_behind_its_pixels_or_in_a_text():
    pixels, block = noise(6, 4, 3), exif(6).tobytes()
    data, body = encode(pixels, "PNG"), b"eXIf" + block.removeprefix(b"Exif\0\0")
    chunk = (len(body) - 4).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(block):8d}\n{block.hex()[:72]}\n{block.hex()[72:]}\n")
    for spelled in (data[:-12] + chunk + data[-12:], encode(pixels, "PNG", pnginfo=text)):
        np.testing.assert_array_equal(pictures.decode(spelled), np.rot90(pixels, -1))
        assert pictures.look(spelled).turned


def test_an_ordinary_jpeg_is_what_the_decoder_gives_to_the_bit():
    for pixels, options in ((noise(40, 20, 3), {}), (noise(40, 20), {}), (noise(9, 5, 3), {"exif": exif(1)})):
        data = encode(pixels, "JPEG", **options)
        np.testing.assert_array_equal(pictures.decode(data), simplejpeg.decode_jpeg(data))


def test_sixteen_bits_become_their_upper_eight():
    grey = noise(5, 4)
    found = pictures.decode(encode(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"))
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, 2))  # as the same picture of 8 bits
    ramp = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    found = pictures.decode(encode(Image.fromarray(ramp), "PNG"))
    assert found.mean() == 127.5 and [found[i, 0, 0] for i in (0, 1, 128, 255)] == [0, 1, 128, 255]


def test_the_grey_that_is_transparent_among_sixteen_bits_is_white():
    grey = np.array([[256, 257], [258, 65535]], np.uint16)
    data = encode(Image.fromarray(grey), "PNG", transparency=257)
    assert pictures.decode(data)[..., 0].tolist() == [[1, 255], [1, 255]]


def test_the_first_picture_of_a_camera_that_stores_previews_too():
    first, preview = (Image.fromarray(np.full((16, 8, 3), level, np.uint8)) for level in (200, 20))
    data = encode(first, "MPO", save_all=True, append_images=[preview])
    assert np.abs(pictures.decode(data).astype(int) - 200).max() <= 2 and not pictures.look(data).fault


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png(bits, colour, rows):
    """A PNG as its specification says, from big-endian values [h, w, c]."""
    height, width = rows.shape[:2]
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, colour, 0, 0, 0])
    lines = b"".join(b"\0" + row.tobytes() for row in rows.astype(">u2" if bits == 16 else np.uint8))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_every_png_of_sixteen_bits(tmp_path, colour, channels):
    values = np.random.default_rng(colour).integers(0, 65_536, (4, 3, channels))
    if channels in (2, 4):
        values[..., -1] = 65_535  # not transparent
    wanted = np.broadcast_to(values[..., :3] if channels > 2 else values[..., :1], (4, 3, 3)) // 256
    (tmp_path / "x.png").write_bytes(png(16, colour, values))
    np.testing.assert_array_equal(pictures.decode((tmp_path / "x.png").read_bytes()), wanted)
    assert pictures.look(tmp_path / "x.png") == pictures.Look(sixteen=True, small=True)


def test_transparency_is_laid_on_white():
    colours, alpha = noise(4, 3, 3), np.array([[0, 128, 255]] * 4, np.uint8)
    found = pictures.decode(encode(np.dstack([colours, alpha]), "PNG")).astype(float)
    share = alpha[..., None] / 255
    assert np.abs(found - (share * colours + (1 - share) * 255)).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    found = pictures.decode(encode(palette, "PNG", transparency=0))
    np.testing.assert_array_equal(found, [[[255, 255, 255], [40, 50, 60]]])


def film(form):
    return encode(Image.new("RGB", (4, 4)), form, save_all=True, append_images=[Image.new("RGB", (4, 4), "red")])


ZOO = {
    "animated.png": (lambda: film("PNG"), "2 frames"),
    "animated.webp": (lambda: film("WEBP"), "2 frames"),
    "a.jpg": (lambda: encode(noise(4, 4, 3), "TIFF"), r"a TIFF, which is not read \(save it as PNG"),
    "big.jpg": (lambda: b"MM\0*" + bytes(20), "a TIFF"),
    "deep.png": (lambda: encode(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), "a TIFF"),
    "film.png": (lambda: encode(noise(4, 4, 3), "GIF"), "a GIF"),
    "phone.jpg": (lambda: b"\0\0\0\x18ftypheic" + bytes(20), "a HEIC"),
    "text.jpg": (lambda: b"no picture", "not an image"),
    "half.jpg": (lambda: encode(noise(64, 64, 3), "JPEG")[:2000], "truncated"),
    "none.jpg": (lambda: b"", "0 bytes"),
    "wide.png": (lambda: encode(Image.new("1", (40_000, 1)), "PNG"), "40,000 x 1 pixels, more than 10,000"),
}  # fmt: skip


@pytest.mark.parametrize("name", ZOO)
def test_what_is_refused_is_named_alike_by_prepare_and_by_those_who_read(tmp_path, name):
    make, fault = ZOO[name]
    data = make()
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"(?s)1 of 1 images.*{fault}"):
        checks.check_images([tmp_path / name])
    with pytest.raises(ValueError, match=f"Image 'set/{name}'.* cannot be decoded: .*{fault if data else ''}"):
        transforms.decode(data, key=f"set/{name}")


def test_prepare_counts_what_is_turned_and_scaled(tmp_path):
    images = {
        "a.jpg": encode(noise(8, 8, 3), "JPEG"),
        "b.jpg": encode(noise(8, 8, 3), "JPEG", exif=exif(6)),
        "c.png": encode(noise(8, 8, 3), "PNG", exif=exif(2)),
        "d.png": encode(Image.fromarray(noise(8, 8).astype(np.uint16) * 257), "PNG"),
        "e.png": encode(Image.fromarray(noise(8, 8).astype(np.uint16) * 16), "PNG"),  # a camera of 12 bits
    }
    for name, data in images.items():
        (tmp_path / name).write_bytes(data)
    notes = checks.check_images(sorted(tmp_path.iterdir()))
    assert [note.split(" images ")[0] for note in notes] == ["2 of 5", "2 of 5", "1 of 5"]
    said = (("turned when", "b.jpg"), ("upper 8", "d.png"), ("nearly black", "e.png"))
    for note, (words, first) in zip(notes, said, strict=True):
        assert words in note and note.endswith(f"{tmp_path / first}.")


@pytest.fixture
def folder(tmp_path):
    """Pictures, and all that people's folders hold beside them."""
    good = encode(noise(12, 8, 3), "PNG")
    for name in ("b.PNG", "a/2.jpg", "a/10.webp", ".thumbs/b.png", "@eaDir/b.png", "a/__MACOSX/b.png", "._b.png"):
        (tmp_path / "g" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "g" / name).write_bytes(good)
    for name in ("scan.tif", "x.jfif", "y.gif", "z.gif", "Thumbs.db", "README", "half.jpg", "empty.bmp"):
        (tmp_path / "g" / name).write_bytes(good[:40] if name == "half.jpg" else b"")
    (tmp_path / "g" / "loop").symlink_to(tmp_path / "g")
    (tmp_path / "g" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "g" / "linked.png").symlink_to(tmp_path / "g" / "b.PNG")
    return tmp_path / "g"


def test_one_list_of_a_folder(folder):
    found = pictures.find(folder)
    assert found.names == ["a/10.webp", "a/2.jpg", "b.PNG", "linked.png"]
    assert found.paths == [folder / name for name in found.names]
    assert found.unreadable.keys() == {"half.jpg", "empty.bmp"} and found.unreadable["empty.bmp"] == "0 bytes"
    assert {reason: sorted(names) for reason, names in found.passed_over.items()} == {
        "hidden folder": [".thumbs", "@eaDir", "a/__MACOSX"],
        "hidden file": ["._b.png"],
        "link to a folder": ["loop"],
        "link to nothing": ["gone.jpg"],
        "ending in .tif": ["scan.tif"],
        "ending in .jfif": ["x.jfif"],
        "ending in .gif": ["y.gif", "z.gif"],
        "ending in .db": ["Thumbs.db"],
        "without an ending": ["README"],
    }
    assert found.notes == []
    lines = pictures.told(found.passed_over)
    assert lines[0] == "hidden folder: 3" and lines[1] == "ending in .gif: 2, such as y.gif"
    assert "ending in .tif: 1, such as scan.tif" in lines and len(lines) == 9


def test_what_is_to_be_known_of_a_folder_is_told(folder):
    (folder / "phone.jpg").write_bytes(encode(noise(8, 8, 3), "JPEG", exif=exif(3)))
    (folder / "thermal.png").write_bytes(encode(Image.fromarray(np.full((8, 8), 4095, np.uint16)), "PNG"))
    with open(os.fsencode(folder) + b"/Stra\xdfe.jpg", "wb") as file:  # as Windows wrote it, long ago
        file.write(encode(noise(8, 8, 3), "JPEG"))
    split = source.open_folder(folder)
    assert [os.path.basename(name) for name in split.file_name[3:]] == ["linked.png", "phone.jpg", "thermal.png"]
    assert split.metadata["passed_over"]["name that is no UTF-8"] == ["Stra\\udcdfe.jpg"]
    lines = source.told_of_folder(split.metadata).splitlines()
    assert [line.split(" images ")[0] for line in lines[:3]] == ["1 of 8"] * 3
    assert f"turned when they are read; the first is {folder}/phone.jpg." in lines[0] and "nearly black" in lines[2]
    assert lines[3] == "Skipped 2 files not readable as a picture:" and lines[6].startswith("Passed over, as pic")


@pytest.mark.skipif(os.geteuid() == 0, reason="root opens every folder")
def test_a_folder_that_cannot_be_opened(folder):
    (folder / "a").chmod(0)
    assert pictures.find(folder).passed_over["folder that cannot be opened (Permission denied)"] == ["a"]
    (folder / "a").chmod(0o700)


def test_folders_without_a_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"There is no folder .*none"):
        pictures.find(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"holds no images \(.bmp, .*\); name a folder"):
        pictures.find(tmp_path)
    (tmp_path / "scan.tif").touch()
    with pytest.raises(FileNotFoundError, match=r"holds no images .*, but ending in \.tif: 1, such as scan\.tif"):
        pictures.find(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ValueError, match=r"None of the 1 files in .* first is .*a\.jpg \(0 bytes\)"):
        pictures.find(tmp_path)


def test_a_bag_of_all_that_people_have(tmp_path):
    """Each is used as it is seen, or listed; none is taken for another."""
    upright, block = np.repeat(np.repeat(noise(4, 2, 3), 8, 0), 8, 1), exif(6)
    grey = noise(32, 16)
    cmyk = Image.fromarray(np.repeat(np.repeat(noise(4, 2, 4, seed=1), 8, 0), 8, 1), "CMYK")
    alpha = np.dstack([upright, np.full((32, 16), 255, np.uint8)])
    bag = {
        "cmyk.jpg": encode(cmyk, "JPEG", quality=100, subsampling=0),
        "deep.png": encode(Image.fromarray(grey.astype(np.uint16) * 257), "PNG"),
        "film.png": film("PNG"),
        "gif.jpg": encode(noise(8, 8, 3), "GIF"),
        "phone.jpg": encode(np.rot90(upright), "JPEG", exif=block, quality=100, subsampling=0),
        "scene.jpg": encode(noise(20, 60, 3), "JPEG"),
        "stamp.png": encode(noise(3, 3, 3), "PNG"),
        "tower.png": encode(Image.new("1", (1, 40_000)), "PNG"),
        "veil.png": encode(alpha, "PNG"),
        "notes.txt": b"who",
        "walk.mp4": b"\0\0\0\x18ftypisom",
        "walk.gif": film("GIF"),
    }
    for name, data in bag.items():
        (tmp_path / name).write_bytes(data)
    split = source.open_folder(tmp_path)
    used = ["cmyk.jpg", "deep.png", "phone.jpg", "scene.jpg", "stamp.png", "veil.png"]
    assert split.file_name.tolist() == used
    assert split.metadata["unreadable"].keys() == {"film.png", "gif.jpg", "tower.png"}
    assert split.metadata["passed_over"].keys() == {"ending in .txt", "ending in .mp4", "ending in .gif"}
    shown = {name: transforms.decode(split.image_bytes(i)).astype(int) for i, name in enumerate(used)}
    assert np.abs(shown["phone.jpg"] - upright).max() <= 3 and (shown["veil.png"] == upright).all()
    assert (shown["deep.png"] == grey[..., None]).all()
    assert np.abs(shown["cmyk.jpg"] - np.asarray(cmyk.convert("RGB")).astype(int)).max() <= 8
    told = source.told_of_folder(split.metadata)
    assert "1 of 9 images are wider than tall" in told and f"the first is {tmp_path}/scene.jpg." in told
    assert "1 of 9 images have a side of fewer than 8 pixels" in told and "1 x 40,000 pixels" in told


def test_nine_broken_among_many_are_counted(tmp_path):
    good = encode(noise(12, 8, 3), "PNG")
    for i in range(1000):
        (tmp_path / f"{i:04}.png").write_bytes(good[: 30 + i] if i % 111 == 5 else good)
    found = pictures.find(tmp_path)
    broken = [f"{i:04}.png" for i in range(1000) if i % 111 == 5 and 30 + i < len(good)]
    assert list(found.unreadable) == broken and len(found.names) == 1000 - len(broken) and broken
    told = source.told_of_folder({"unreadable": dict.fromkeys(map(str, range(12)), "not an image")})
    assert told.startswith("Skipped 12 files") and told.endswith("  and 2 more\n")


def test_a_folder_that_changes_while_it_is_read(tmp_path, monkeypatch):
    """A file that goes before it is read is told; afterwards it is what it was, or the run stops."""
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encode(noise(12, 8, 3, seed=i), "PNG"))
    listed = pictures.listed

    def then_gone(folder):
        found = listed(folder)
        (tmp_path / "1.png").unlink()
        return found

    monkeypatch.setattr(pictures, "listed", then_gone)
    split = source.open_folder(tmp_path)
    assert split.metadata["unreadable"] == {"1.png": "No such file or directory"}
    assert split.file_name.tolist() == ["0.png", "2.png", "3.png"]
    (tmp_path / "0.png").unlink()
    (tmp_path / "2.png").write_bytes(encode(noise(12, 8, 3, seed=9), "PNG"))
    for place, seed in enumerate((0, 2, 3)):
        np.testing.assert_array_equal(transforms.decode(split.image_bytes(place)), noise(12, 8, 3, seed=seed))

    monkeypatch.setattr(pictures, "listed", listed)
    monkeypatch.setattr(pictures, "KEEP_BYTES", 0)  # as if the folder were too large to be held
    split = source.open_folder(tmp_path)
    (tmp_path / "2.png").write_bytes(encode(noise(12, 8, 3), "PNG"))
    (tmp_path / "3.png").unlink()
    with pytest.raises(ValueError, match=r"2\.png was changed since it was looked at; run "):
        split.image_bytes(0)
    with pytest.raises(ValueError, match=r"3\.png has gone since it was listed \(No such file or directory\)"):
        split.image_bytes(1)


def test_what_may_not_be_read_is_listed(tmp_path, monkeypatch):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(encode(noise(12, 8, 3), "PNG"))
    read = pathlib.Path.read_bytes

    def refused(path):
        if path.name == "a.png":  # root may read every file
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", refused)
    found = pictures.find(tmp_path)
    assert found.unreadable == {"a.png": "Permission denied"} and found.names == ["b.png"]
    os.mkfifo(tmp_path / "pipe.png")  # which would be waited for without end
    assert pictures.find(tmp_path).passed_over == {"no file (a pipe, socket or device)": ["pipe.png"]}
