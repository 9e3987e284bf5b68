import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from acrn_jax.data_prep import checks, disk, prepare, prepared, reid
from tests.fixtures import image_folder as image_folder_fixture
from tests.fixtures import peta as peta_fixture

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def mine(tmp_path):
    """Options for a small set of one's own."""
    csv = image_folder_fixture.write(tmp_path / "raw")
    return {"dataset": "image_folder", "config_name": "mine", "raw_dir": csv.parent, "csv": csv}


def run(*flags, code=None):
    """The program as a process: (exit code, stdout, stderr). `code` runs first, in its place."""
    program = ["-m", "acrn_jax.data_prep.prepare"] if code is None else ["-c", code]
    done = subprocess.run([sys.executable, *program, *flags], cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def left(folder):
    """Files in a data folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    root = tmp_path_factory.mktemp("peta")
    rows = peta_fixture.write(root / "raw")
    return (
        rows,
        prepare.prepare("peta", "reid_grid", data_dir=root / "data", raw_dir=root / "raw", allow_partial=True),
        root,
    )


def test_what_is_stored_is_what_was_given(grid):
    rows, folder, root = grid
    assert folder == root / "data" / "peta" / "reid_grid" / "1.0.0"
    builder = tfds.builder_from_directory(folder)
    decoders = {"image": tfds.decode.SkipDecoding()}
    marks = json.loads((folder / "fingerprint.json").read_text())
    found, parts = set(), []
    for split in ("gallery", "query", "train"):
        everything = b""
        people = set()
        for record in builder.as_data_source(split, decoders=decoders):
            name = record["file_name"].decode()
            subset, file = name.split("/")
            assert record["image"] == (root / "raw" / "PETA dataset" / subset / "archive" / file).read_bytes()
            assert record["key"].decode() == f"peta/reid_grid/{name}"
            found.add(name)
            people |= {int(record["person_id"])} - {0}
            numbers = f"{record['person_id']} {record['camera_id']}".encode()
            for field in (record["key"], record["file_name"], numbers, bytes(record["attributes"]), record["image"]):
                everything += len(field).to_bytes(8, "little") + field
        assert marks[split]["sha256"] == hashlib.sha256(everything).hexdigest()
        assert marks[split]["images"] == len(builder.as_data_source(split)) and marks[split]["people"] == len(people)
        parts.append(f"{split} {marks[split]['sha256']}\n")
    assert marks["sha256"] == hashlib.sha256("".join(parts).encode()).hexdigest()
    assert found == {row.file_name for row in rows if row.subset == "GRID"}


def test_fingerprint_changes_with_one_pixel(grid, tmp_path):
    _, folder, root = grid
    again = prepare.prepare("peta", "reid_grid", data_dir=tmp_path, raw_dir=root / "raw", allow_partial=True)
    assert (again / "fingerprint.json").read_text() == (folder / "fingerprint.json").read_text()
    other = tmp_path / "raw"
    peta_fixture.write(other)
    image = other / "PETA dataset" / "GRID" / "archive" / "0006_5_32849_235_75_87_237.jpeg"
    pixels = np.array(PIL.Image.open(image))
    pixels[0, 0] ^= 128
    PIL.Image.fromarray(pixels).save(image)
    third = prepare.prepare("peta", "reid_grid", data_dir=tmp_path / "third", raw_dir=other, allow_partial=True)
    old, new = (json.loads((f / "fingerprint.json").read_text()) for f in (again, third))
    assert old["gallery"]["sha256"] != new["gallery"]["sha256"] and old["sha256"] != new["sha256"]
    assert old["train"] == new["train"]


def test_table(grid):
    lines = prepared.table(grid[1]).splitlines()
    assert lines[0].split() == ["split", "images", "people", "cameras", "attributes"]
    assert [line.split() for line in lines[1:]] == [
        ["train", "4", "2", lines[1].split()[3], "35"],
        ["query", "2", "2", lines[2].split()[3], "35"],
        ["gallery", "5", "2", lines[3].split()[3], "35"],
    ]


def test_prepared_before(grid, capsys):
    _, folder, root = grid
    before = (folder / "dataset_info.json").stat().st_mtime_ns
    assert prepare.prepare("peta", "reid_grid", data_dir=root / "data") == folder  # raw files may be gone
    assert "Already prepared" in capsys.readouterr().err
    assert (folder / "dataset_info.json").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="was prepared with seed 0, asked for is 4"):
        prepare.prepare("peta", "reid_grid", data_dir=root / "data", raw_dir=root / "raw", seed=4)


def test_prepared_from_another_csv(mine, tmp_path):
    before = os.umask(0o002)  # of groups that share a folder
    try:
        folder = prepare.prepare(**mine, data_dir=tmp_path / "data")
    finally:
        os.umask(before)
    for path in (tmp_path / "data").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o775 if path.is_dir() else 0o664), path
    assert folder.parts[-3:] == ("image_folder", "mine", "1.0.0")
    assert prepare.prepare(**mine, data_dir=tmp_path / "data") == folder
    with mine["csv"].open("a") as file:
        file.write("\n")
    with pytest.raises(ValueError, match="was prepared with csv_sha256"):
        prepare.prepare(**mine, data_dir=tmp_path / "data")


def test_bad_images_are_named_and_counted(mine, tmp_path):
    raw = mine["raw_dir"]
    for name, fault in (("a/0001.jpg", "truncated"), ("a/0002.png", "0 bytes"), ("b/0003.jpg", "not an image")):
        content = (raw / name).read_bytes()
        (raw / name).write_bytes({"truncated": content[:-40], "0 bytes": b"", "not an image": b"text"}[fault])
        with pytest.raises(ValueError, match=rf"(?i)1 of 6 images .* first is .*{name} \(.*{fault}"):
            prepare.prepare(**mine, data_dir=tmp_path / "data")
        (raw / name).write_bytes(content)
    for name in ("b/0003.jpg", "a/0002.png"):
        (raw / name).write_bytes(b"")
    with pytest.raises(ValueError, match=r"2 of 6 images cannot be read, the first is .*a/0002\.png"):
        prepare.prepare(**mine, data_dir=tmp_path / "data")
    assert left(tmp_path / "data") == []


FULL = """
import resource, signal, sys
from acrn_jax.data_prep import archives, prepare
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
archive, *folders = sys.argv[1:]
options = dict(raw_dir=folders[0], csv=folders[0] + "/images.csv")
for size in (200, 3000):  # bytes that a file may grow to, as if the disk were full: some files come through
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    for work in (
        lambda: prepare.prepare("image_folder", "mine", data_dir=folders[1], **options),
        lambda: prepare.prepare("synthetic_pedestrians", "target_tiny", data_dir=folders[1]),
        lambda: archives.unpack(archive, f"{folders[2]}/{size}"),
    ):
        try:
            work()
        except OSError as error:
            print(error)
"""


def test_a_full_disk_gets_one_sentence_and_nothing_is_left(mine, tmp_path):
    for i in range(3):  # larger than what a file may grow to
        (tmp_path / "big" / "sub").mkdir(parents=True, exist_ok=True)
        (tmp_path / "big" / "sub" / f"{i}").write_bytes(bytes(5000))
    shutil.make_archive(str(tmp_path / "big"), "zip", tmp_path / "big")
    folders = [str(mine["csv"].parent), str(tmp_path / "data"), str(tmp_path / "unpacked")]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "big.zip"), *folders],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = done.stdout.splitlines()
    assert len(told) == 6, done.stderr
    places = ("data", "data", "unpacked/200", "data", "data", "unpacked/3000")
    for line, place in zip(told, places, strict=True):
        assert line.startswith(f"{tmp_path / place} cannot be written: File too large; make room there"), line
    assert "Traceback" not in done.stderr and not (tmp_path / "data").exists()


def test_a_place_that_is_closed_is_named(mine, tmp_path):
    (tmp_path / "file").write_text("kept")
    flags = [f"--{name}={value}" for name, value in mine.items()]
    status, _, err = run(*flags, f"--data_dir={tmp_path / 'file' / 'sub'}")
    assert status == 2 and "file is a file" in err and len(err.splitlines()) == 1
    with pytest.raises(disk.DiskError, match="file/sub cannot be written: Not a directory"):
        prepare.prepare(**mine, data_dir=tmp_path / "file" / "sub")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("ending", ["jpg", "png", "bmp"])
def test_truncated_images_of_each_format(tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    peta_fixture.write_image(path, np.random.default_rng(0))
    checks.check_images([path])
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="1 of 1 images"):
        checks.check_images([path])


def test_interrupted_while_writing(mine, tmp_path, monkeypatch):
    def stop(builder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepared, "fingerprint", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare.prepare(**mine, data_dir=tmp_path / "data")
    assert left(tmp_path / "data") == []
    prepare.prepare(**mine, data_dir=tmp_path / "data")


@pytest.mark.parametrize(("number", "wanted"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_told_to_stop_while_writing(mine, tmp_path, number, wanted):
    """SIGTERM cleans up as ctrl-C does, and leaves with the code of work that the same command takes up again."""
    code = "import os, signal; from absl import app; from acrn_jax.data_prep import prepare, prepared; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "  # which a background job has not
    code += f"prepared.fingerprint = lambda builder: os.kill(os.getpid(), {int(number)}); "
    code += "prepare.define_flags(); app.run(prepare.main, flags_parser=prepare._parse)"
    flags = [f"--{name}={value}" for name, value in {**mine, "data_dir": tmp_path / "data"}.items()]
    status, _, err = run(*flags, code=code)
    assert status == wanted and err.endswith("interrupted, nothing was written; the same command starts again.\n"), err
    assert left(tmp_path / "data") == []


def test_killed_while_writing(mine, tmp_path):
    data = tmp_path / "data"
    code = "import os; from acrn_jax.data_prep import prepare, prepared; "
    code += "prepared.fingerprint = lambda builder: os.kill(os.getpid(), 9); "
    status, _, _ = run(code=code + f"prepare.prepare({mine['dataset']!r}, 'mine', data_dir={str(data)!r}, "
                       f"raw_dir={str(mine['raw_dir'])!r}, csv={str(mine['csv'])!r})")  # fmt: skip
    assert status == -signal.SIGKILL
    assert left(data) and all(name.startswith(".preparing-") for name in left(data))
    folder = prepare.prepare(**mine, data_dir=data)
    assert left(data) == left_of(folder, data)


def left_of(folder, data):
    return sorted(str((folder / name).relative_to(data)) for name in left(folder))


def test_two_at_once(mine, tmp_path):
    staging = tmp_path / "data" / ".preparing-image_folder-mine"
    staging.mkdir(parents=True)
    with open(staging / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="Another prepare"):
            prepare.prepare(**mine, data_dir=tmp_path / "data")
        assert staging.exists()


def test_no_room_on_the_disk(mine, tmp_path, monkeypatch):
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"GB free and .* needed"):
        prepare.prepare(**mine, data_dir=tmp_path / "data")
    assert left(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("petta", "x"), "No data set 'petta'; did you mean peta"),
        (("xyz", "x"), "No data set 'xyz'; there are peta, image_folder"),
        (("peta", "reid_gird"), "'reid_gird'; did you mean reid_grid"),
        (("peta", None), "peta needs --config_name; there are random_0 to random_4, disjoint, reid_grid"),
        (("peta", "disjoint"), "peta needs --raw_dir"),
        (("image_folder", "../x"), "A config is named with letters"),
    ],
)
def test_names(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        prepare.prepare(*arguments, data_dir=tmp_path)
    assert left(tmp_path) == []


def test_options_of_another_data_set(tmp_path):
    with pytest.raises(ValueError, match="peta takes no --csv; it takes --raw_dir and --peta_mat"):
        prepare.prepare("peta", "disjoint", data_dir=tmp_path, csv="x.csv")


def test_folder_that_prepare_did_not_write(mine, tmp_path):
    folder = tmp_path / "data" / "image_folder" / "mine" / "1.0.0"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="was not written by prepare"):
        prepare.prepare(**mine, data_dir=tmp_path / "data")


def test_command(mine, tmp_path):
    options = [f"--{name}={value}" for name, value in mine.items()]
    status, out, err = run(*options, f"--data_dir={tmp_path / 'my data'}")
    assert status == 0, err
    assert out.split("\n")[0].split()[0] == "split" and "gallery" in out and "my data/image_folder/mine/1.0.0" in out
    assert ".preparing" not in out + err and "Checking images 6 of 6" in err


def test_wrong_input_gets_one_sentence(tmp_path):
    status, out, err = run(
        "--dataset=peta", "--config_name=disjoint", "--raw_dir=/nowhere", f"--data_dir={tmp_path / 'x'}"
    )
    assert (status, out) == (2, "") and err.count("\n") == 1 and err.startswith("acrn_jax: No folder /nowhere;")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--datasett=peta"], "Unknown command line flag 'datasett'"),
        ([], "--dataset is missing;"),
        (["peta"], "unexpected argument 'peta'"),
    ],
)
def test_wrong_flags_get_one_sentence(flags, message):
    status, _, err = run(*flags)
    assert status == 2 and err.startswith(f"acrn_jax: {message}") and err.count("\n") == 1


def test_part_of_a_release(grid, tmp_path):
    _, folder, root = grid
    assert json.loads((folder / "metadata.json").read_text())["partial"]
    with pytest.raises(ValueError, match=r"\(11 images, officially 1,275\): unpack it again, or pass --allow_partial"):
        prepare.prepare("peta", "reid_grid", data_dir=tmp_path, raw_dir=root / "raw")
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_archive(grid, tmp_path, kind):
    _, folder, root = grid
    archive = shutil.make_archive(tmp_path / "PETA", kind, root / "raw")
    out = prepare.prepare("peta", "reid_grid", data_dir=tmp_path / "d", raw_dir=archive, allow_partial=True)
    assert (out / "fingerprint.json").read_text() == (folder / "fingerprint.json").read_text()
    assert left(tmp_path / "d") == left_of(out, tmp_path / "d")  # what was unpacked is gone
    with open(archive, "r+b") as file:
        file.truncate(5000)
    with pytest.raises(ValueError, match="cannot be unpacked"):
        prepare.prepare("peta", "reid_grid", data_dir=tmp_path / "e", raw_dir=archive, allow_partial=True)
    assert left(tmp_path / "e") == []


def test_colours_are_labels_beside_the_35(grid, tmp_path):
    rows, _, root = grid
    with_colours = {"raw_dir": root / "raw", "allow_partial": True, "colours": True}
    folder = prepare.prepare("peta", "reid_grid", data_dir=tmp_path, **with_colours)
    names = json.loads((folder / "metadata.json").read_text())["attribute_names"]
    assert len(names) == 79 and names[:35] == list(reid.PETA_ATTRIBUTES) and "hairBlack" in names[35:]
    labels = {row.file_name: row.labels for row in rows}
    records = list(tfds.builder_from_directory(folder).as_data_source("train"))
    for record in records:
        expected = [int(name in labels[record["file_name"].decode()]) for name in names]
        assert record["attributes"].tolist() == expected
    assert sum(record["attributes"][35:].sum() for record in records) > 0
    with pytest.raises(ValueError, match="was prepared with colours True, asked for is False"):
        prepare.prepare("peta", "reid_grid", data_dir=tmp_path, **with_colours | {"colours": None})


def test_check_looks_and_writes_nothing(grid, tmp_path):
    raw = shutil.copytree(grid[2] / "raw", tmp_path / "raw")
    images = sorted((raw / "PETA dataset" / "GRID" / "archive").glob("*.jpeg"))
    shutil.copy(images[0], images[1])
    images[2].write_bytes(b"")
    flags = ("--check", "--dataset=peta", "--config_name=reid_grid", f"--raw_dir={raw}")
    status, out, err = run(*flags, f"--data_dir={tmp_path / 'data'}")
    assert status == 1, err
    lines = out.splitlines()
    assert lines[0].split() == ["split", "images", "officially", "people", "officially"]
    assert lines[1].split() == ["train", "4", "-", "2", "-"]
    assert "2 faults:" in lines and "  11 images, officially 1,275" in lines
    assert f"  {images[2]} (0 bytes)" in lines
    assert "1 note:" in lines and f"  the same bytes: {images[0]} and {images[1]}" in lines
    assert not (tmp_path / "data").exists()


def test_check_of_what_is_prepared(grid, tmp_path):
    data = shutil.copytree(grid[2] / "data", tmp_path / "data")
    flags = ("--check", "--dataset=peta", "--config_name=reid_grid", f"--data_dir={data}")
    status, out, _ = run(*flags)
    assert status == 0 and "0 faults" in out
    marks = data / "peta" / "reid_grid" / "1.0.0" / "fingerprint.json"
    marks.write_text(marks.read_text().replace('"images": 4', '"images": 5'))
    status, out, _ = run(*flags)
    assert status == 1 and "train is not what was written" in out
    status, _, err = run(*flags[:-1], f"--data_dir={tmp_path / 'nowhere'}")
    assert status == 2 and "There is no prepared set" in err and err.count("\n") == 1


def test_what_is_to_be_known_is_printed_and_kept(tmp_path):
    rows = [
        *(("a/0001.jpg", "7", "1", "train", "", ""), ("a/0002.png", "8", "1", "query", "", "")),
        *(("b/0003.jpg", "8", "1", "gallery", "", ""), ("b/0004.jpg", "9", "1", "query", "", "")),
        ("b/0005.jpg", "0", "1", "gallery", "", ""),
    ]
    csv = image_folder_fixture.write(tmp_path / "raw", rows=rows)
    options = ["--dataset=image_folder", f"--csv={csv}", f"--raw_dir={csv.parent}", f"--data_dir={tmp_path / 'data'}"]
    status, out, err = run(*options)
    assert status == 0, err
    summary = "protocol multi_shot: 1 of 2 queries have a right gallery image; 2 gallery images, of them 1 distractors"
    lonely = "1 of 2 queries have no right gallery image under multi_shot, the first is b/0004.jpg (person 9, camera 1)"
    for words in (summary, lonely, "--no_match=skip", "Nobody is seen by two cameras"):
        assert words in out
    assert run(*options)[1] == out  # prepared before
    found, faults, notes = prepare.check("image_folder", "default", data_dir=tmp_path / "data")
    assert summary in found and not faults and lonely in notes[0]
    csv.write_text(csv.read_text().replace("0001.jpg,7", "0001.jpg,8"))
    status, out, _ = run("--check", *options)
    assert status == 1 and "Person 8 is in train (a/0001.jpg) and in test (a/0002.png)" in out
    with pytest.raises(ValueError, match=r"Person 8 is in train .*--allow_overlap"):
        prepare.prepare("image_folder", "other", csv=csv, raw_dir=csv.parent, data_dir=tmp_path / "data")
    folder = prepare.prepare(
        "image_folder", "other", csv=csv, raw_dir=csv.parent, data_dir=tmp_path / "data", allow_overlap=True
    )
    assert "1 people of train are in query or gallery" in prepared.told(folder)
    assert json.loads((folder / "metadata.json").read_text())["people_seen_in_training"] == 1
    assert not prepare.check("image_folder", "other", data_dir=tmp_path / "data")[1]


def test_check_of_what_is_prepared_counts_pictures_too(mine, tmp_path):
    ramp = np.arange(32_768, 32_768 + 128, dtype=np.uint16).reshape(16, 8)
    PIL.Image.fromarray(ramp).save(mine["raw_dir"] / "a/0002.png")
    side = PIL.Image.Exif()
    side[0x112] = 6
    PIL.Image.new("RGB", (16, 8)).save(mine["raw_dir"] / "b/0003.jpg", exif=side)
    folder = prepare.prepare(**mine, data_dir=tmp_path)
    _, faults, notes = prepare.check("image_folder", "mine", data_dir=tmp_path)
    assert not faults and notes == [
        "1 of 6 images lie on their side, upside down or mirrored, as EXIF says, and are turned when they are read; "
        "the first is b/0003.jpg.",
        "1 of 6 images have 16 bits a value and are read as the upper 8; the first is a/0002.png.",
    ]
    assert "1 of 6 images have 16 bits" in prepared.told(folder)


def test_pictures_that_are_too_large_or_of_another_kind(tmp_path):
    PIL.Image.new("1", (40_000, 1)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png \(40,000 x 1 pixels, more than 10,000 a side\)"):
        checks.check_images([tmp_path / "wide.png"])
    PIL.Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match=r"x\.jpg \(not an image\)"):
        checks.check_images([tmp_path / "x.jpg"])
