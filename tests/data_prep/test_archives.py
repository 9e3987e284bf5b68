"""Archives: what is written lies in the folder, and what is wrong is named."""

import io
import os
import tarfile
import zipfile

import numpy as np
import pytest

from acrn_jax.data_prep import archives

FILES = {"Set/train/0001.jpg": b"one" * 500, "Set/query/0002.jpg": b"two", "Set/readme.txt": b""}


def write_zip(path, files=FILES, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.mkdir("Set")
        for name, content in files.items():
            file.writestr(name, content)
    return path


def write_tar(path, files=FILES, mode="w:gz", extra=()):
    with tarfile.open(path, mode) as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
        for info in extra:
            file.addfile(info)
    return path


def found(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("name, mode", [("a.zip", None), ("a.tar", "w"), ("a.tar.gz", "w:gz"), ("a.tar.xz", "w:xz")])
def test_unpacks_every_kind(tmp_path, name, mode):
    path = write_zip(tmp_path / name) if mode is None else write_tar(tmp_path / name, mode=mode)
    assert archives.is_archive(path)
    assert archives.unpack(path, tmp_path / "out") == 3
    assert found(tmp_path / "out") == FILES


def test_what_is_an_archive(tmp_path):
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0")
    assert not archives.is_archive(tmp_path / "x.mat") and not archives.is_archive(tmp_path)
    (tmp_path / "x.zip").write_bytes(b"no")
    assert archives.is_archive(tmp_path / "x.zip")  # says so, and is refused by name when unpacked
    with pytest.raises(ValueError, match=r"x\.zip cannot be unpacked .*download it again"):
        archives.unpack(tmp_path / "x.zip", tmp_path / "out")
    unnamed = write_zip(tmp_path / "Market")
    assert archives.is_archive(unnamed)


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "..\\x", "C:\\x", "C:x", "\\x", "a/b/../../../x", "."])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_names_that_leave_the_folder(tmp_path, name, write):
    path = write(tmp_path / "evil", {"good.jpg": b"1", name: b"2"})
    with pytest.raises(ValueError, match=r"evil cannot be unpacked .*(outside the folder|names no file)"):
        archives.unpack(path, tmp_path / "in" / "out")
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} <= {"evil", "in/out/good.jpg"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_of_a_tar(tmp_path, kind):
    info = tarfile.TarInfo("Set/link")
    info.type, info.linkname = kind, "/etc/passwd"
    path = write_tar(tmp_path / "x.tar", mode="w", extra=[info])
    with pytest.raises(ValueError, match="'Set/link' is a link or a device"):
        archives.unpack(path, tmp_path / "out")
    assert not (tmp_path / "out" / "Set" / "link").is_symlink()


def test_link_in_a_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        info = zipfile.ZipInfo("Set/link")
        info.external_attr = (0o120777) << 16
        file.writestr(info, "/etc")
        file.writestr("Set/link/passwd", "x")
    with pytest.raises(ValueError, match="'Set/link' is a link or a device"):
        archives.unpack(tmp_path / "x.zip", tmp_path / "out")


def test_encrypted_and_twice(tmp_path):
    path = write_zip(tmp_path / "x.zip", compression=zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := content.find(mark, at + 1)) >= 0:
            content[at + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is encrypted.*unpack it yourself"):
        archives.unpack(path, tmp_path / "out")
    twice = write_tar(tmp_path / "y.tar", {"a.jpg": b"1", "./A.jpg": b"2"})
    with pytest.raises(ValueError, match="comes twice"):
        archives.unpack(twice, tmp_path / "out2")


def test_more_than_the_disk_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match="unpacks to more than the disk has free; make room"):
        archives.unpack(write_zip(tmp_path / "x.zip"), tmp_path / "out")
    assert not found(tmp_path / "out")


@pytest.mark.parametrize("write, name", [(write_zip, "x.zip"), (write_tar, "x.tar.gz")])
def test_every_truncation_and_many_mutations(tmp_path, write, name):
    """Each ends with the right files, or with an error that names the archive; nothing is written beside the folder."""
    whole = write(tmp_path / name).read_bytes()
    path, generator = tmp_path / f"broken-{name}", np.random.default_rng(0)
    for trial in range(600):
        content = bytearray(whole)
        if trial < 200:
            content = content[: trial * len(whole) // 200]
        else:
            for at in generator.integers(0, len(whole), generator.integers(1, 6)):
                content[at] = generator.integers(256)
        path.write_bytes(content)
        out = tmp_path / "out" / str(trial)
        try:
            archives.unpack(path, out)
        except ValueError as error:
            assert str(path) in str(error)
        except OSError as error:
            assert "unpacks to more than" in str(error)
        else:
            if name.endswith("zip"):  # its checksums cover what a file holds
                assert set(found(out).values()) <= set(FILES.values())
        assert set(os.listdir(tmp_path)) <= {name, path.name, "out"}
