"""Files that are whole or not there, with the umask's permissions, and errors that name them."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from acrn_jax import files
from acrn_jax.evaluation import feature_files
from acrn_jax.report import sheet
from acrn_jax.schema import Labels

ROOT = Path(__file__).parents[1]
FEATURES = feature_files.Features(
    np.arange(1200, dtype=np.float32).reshape(300, 4), Labels(np.arange(300), np.arange(300))
)
NAMES = [f"{i}.jpg" for i in range(300)]
WRITERS = {  # every kind of file, each more than LIMIT bytes
    "a.json": lambda path: files.write_json(path, list(range(1000))),
    "a.csv": lambda path: files.write_csv(path, [[i] for i in range(1000)]),
    "a.npz": lambda path: files.write_arrays(path, a=np.arange(1000)),
    "a.txt": lambda path: files.write_text(path, "ä" * 1000),
    "a.jpg": lambda path: sheet.write(path, [np.zeros((9, 9, 3), np.uint8)] * 9, [["a"]] * 9),
    "a.mat": lambda path: feature_files.write_mat(path, FEATURES, FEATURES),
    "a.h5": lambda path: feature_files.write_h5(path, FEATURES, NAMES),
}
READERS = {
    "a.json": lambda path: json.loads(path.read_text()) == list(range(1000)),
    "a.csv": lambda path: path.read_bytes() == b"".join(b"%d\n" % i for i in range(1000)),
    "a.npz": lambda path: np.array_equal(np.load(path)["a"], np.arange(1000)),
    "a.txt": lambda path: path.read_bytes() == b"\xc3\xa4" * 1000,
    "a.jpg": lambda path: Image.open(io.BytesIO(path.read_bytes())).size == (9 * 120 + 8, 224 + 8 + 14 + 3 + 8),
    "a.mat": lambda path: np.array_equal(scipy.io.loadmat(path)["gallery_f"], FEATURES.values),
    "a.h5": lambda path: np.array_equal(h5py.File(path)["emb"], FEATURES.values),
}


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize(("mask", "wanted"), [(0o002, 0o664), (0o022, 0o644), (0o077, 0o600)])
def test_content_and_permissions(tmp_path, name, mask, wanted):
    before = os.umask(mask)
    try:
        WRITERS[name](tmp_path / "new" / name)
        WRITERS[name](tmp_path / "new" / name)  # over one that is there
    finally:
        os.umask(before)
    assert READERS[name](tmp_path / "new" / name)
    for path in (tmp_path / "new").iterdir():
        assert path.stat().st_mode & 0o777 == wanted and not path.name.startswith(".")


@pytest.mark.parametrize("name", WRITERS)
def test_a_place_that_cannot_be_written_is_named(tmp_path, name):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(files.WriteError, match=rf"{tmp_path}/file/sub/{name} cannot be written: Not a directory"):
        WRITERS[name](tmp_path / "file" / "sub" / name)
    (tmp_path / name).mkdir()
    with pytest.raises(files.WriteError, match=rf"{tmp_path}/{name} cannot be written: Is a directory"):
        WRITERS[name](tmp_path / name)
    assert left(tmp_path) == sorted([name, "file"]) and left(tmp_path / name) == []


FULL = """
import resource, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests"]
import pathlib, test_files
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # bytes that a file may grow to, as if the disk were full there
for name, write in test_files.WRITERS.items():
    try:
        write(pathlib.Path({folder!r}) / name)
        print(name, "was written")
    except test_files.files.WriteError as error:
        print(error)
"""


def test_a_full_disk_is_told_and_leaves_the_file_of_before(tmp_path):
    for name in WRITERS:
        (tmp_path / name).write_text("before")
    code = FULL.format(root=str(ROOT), folder=str(tmp_path))
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    lines = done.stdout.splitlines()
    assert len(lines) == len(WRITERS), done.stderr
    for name, line in zip(WRITERS, lines, strict=True):
        reason = os.strerror(errno.EFBIG)
        assert line.startswith(f"{tmp_path / name} cannot be written: {reason}; make room there"), line
        assert (tmp_path / name).read_text() == "before"
    assert left(tmp_path) == sorted(WRITERS)


def test_what_fails_for_another_reason_leaves_nothing(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        files.write_json(tmp_path / "a.json", {"a": object()})
    for break_off in (KeyboardInterrupt, ZeroDivisionError):
        with pytest.raises(break_off), files.replacing(tmp_path / "b") as partial:
            partial.write_text("half")
            raise break_off
        with pytest.raises(break_off), files.new_folder(tmp_path / "c") as partial:
            (partial / "d").write_text("half")
            raise break_off
    assert left(tmp_path) == []


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with files.replacing(tmp_path / "a") as one, files.replacing(tmp_path / "a") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a").read_text() == "one" and left(tmp_path) == ["a"]


def test_links_are_followed_and_devices_stay(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere/real")
    for content in ("first", "second"):
        files.write_text(tmp_path / "link", content)
        assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / "real").read_text() == content
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    files.write_json(tmp_path / "pipe", [1])
    assert os.read(reader, 99) == b"[\n 1\n]\n" and (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_library_errors_and_reasons():
    told = "a cannot be written: No space left on device; make room"
    with pytest.raises(files.WriteError, match=told), files.naming("a", also=(RuntimeError,)):
        raise RuntimeError("RESOURCE_EXHAUSTED: write: No space left on device [source.cc:12]")
    with pytest.raises(RuntimeError, match="bug"), files.naming("a"):
        raise RuntimeError("bug")
    told = r"\Ainner cannot be written: odd; write elsewhere"
    with pytest.raises(files.WriteError, match=told), files.naming("outer"), files.naming("inner"):
        raise OSError("odd")


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    wanted = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == wanted
