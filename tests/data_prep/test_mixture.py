"""Prepared data sets joined into one: whom and what it shows, where that is from, and what is refused."""

import json

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from acrn_jax.data_prep import prepare, prepared
from acrn_jax.data_prep.mixture import parts

A = (  # path, person_id, camera_id, split, hat
    ("x/1.png", "7", "4", "train", "1"),
    ("x/2.png", "7", "9", "train", ""),
    ("x/3.png", "3", "4", "train", "0"),
    ("x/4.png", "5", "9", "query", "1"),
    ("x/5.png", "5", "4", "gallery", "1"),
    ("x/6.png", "0", "4", "gallery", ""),
    ("x/7.png", "-1", "", "gallery", ""),
)
B = (  # path, person_id, split, skirt, hat
    ("x/1.png", "7", "train", "1", "0"),
    ("x/2.png", "9", "train", "0", ""),
    ("x/3.png", "9", "train", "", "1"),
)
BOTH = "image_folder/a:train+query+gallery,image_folder/b:train"


def prepare_folder(place, name, rows, columns, *, first=0):
    """Data set image_folder/`name` in place/data, whose pictures are drawn with seeds from `first` on."""
    raw = place / f"raw {name}"
    for i, (path, *_) in enumerate(rows):
        (raw / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(first + i).integers(256, size=(6, 3, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(raw / path)
    csv = raw / "images.csv"
    csv.write_text("\n".join([columns, *(",".join(row) for row in rows)]) + "\n")
    return prepare.prepare("image_folder", name, data_dir=place / "data", raw_dir=raw, csv=csv)


@pytest.fixture
def data(tmp_path):
    """Folder of the prepared sets image_folder/a and image_folder/b."""
    prepare_folder(tmp_path, "a", A, "path,person_id,camera_id,split,hat")
    prepare_folder(tmp_path, "b", B, "path,person_id,split,skirt,hat", first=100)
    return tmp_path / "data"


def read(folder):
    """file_name -> (person, camera, attributes, image, key) of the one split, and metadata."""
    builder = tfds.builder_from_directory(folder)
    assert list(builder.info.splits) == ["train"]
    found = {
        record["file_name"].decode(): (
            int(record["person_id"]),
            int(record["camera_id"]),
            record["attributes"].tolist(),
            record["image"],
            record["key"].decode(),
        )
        for record in prepared.records(builder, "train")
    }
    return found, dict(builder.info.metadata)


def test_people_and_cameras_are_made_distinct(data):
    """Person 7 of a and person 7 of b are two people; numbers by hand, in the order of the parts' own."""
    found, about = read(prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH))
    wanted = {  # person, camera, (hat, skirt)
        "image_folder/a/x/1.png": (3, 1, [1, -1]),
        "image_folder/a/x/2.png": (3, 2, [-1, -1]),
        "image_folder/a/x/3.png": (1, 1, [0, -1]),
        "image_folder/a/x/4.png": (2, 2, [1, -1]),
        "image_folder/a/x/5.png": (2, 1, [1, -1]),
        "image_folder/b/x/1.png": (4, -1, [0, 1]),
        "image_folder/b/x/2.png": (5, -1, [-1, 0]),
        "image_folder/b/x/3.png": (5, -1, [1, -1]),
    }
    assert {name: row[:3] for name, row in found.items()} == wanted
    assert about["attribute_names"] == ["hat", "skirt"] and about["protocol"] == "attributes"
    for name, row in found.items():
        letter, path = name.split("/", 2)[1:]
        assert row[3] == (data.parent / f"raw {letter}" / path).read_bytes()
        assert row[4] == f"mixture/ab/{name}"


def test_order_of_parts_decides_numbers(data, tmp_path):
    rows = [("x/1.png", "7", "4", "train"), ("x/2.png", "7", "", "train"), ("x/3.png", "2", "4", "train")]
    prepare_folder(tmp_path, "c", rows, "path,person_id,camera_id,split", first=300)
    given = "image_folder/b:train,image_folder/a:query,image_folder/c:train"
    found, _ = read(prepare.prepare("mixture", "bac", data_dir=data, parts=given))
    assert {name: row[:2] for name, row in found.items()} == {
        "image_folder/b/x/1.png": (1, -1),
        "image_folder/b/x/2.png": (2, -1),
        "image_folder/b/x/3.png": (2, -1),
        "image_folder/a/x/4.png": (3, 1),
        "image_folder/c/x/1.png": (5, 2),  # camera 4, as one of a is too
        "image_folder/c/x/2.png": (5, -1),
        "image_folder/c/x/3.png": (4, 2),
    }


def test_origin_is_kept(data):
    folder = prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH)
    _, about = read(folder)
    first, second = about["parts"]
    marks = json.loads((data / "image_folder" / "a" / "1.0.0" / "fingerprint.json").read_text())
    assert first.pop("fingerprints") == {split: marks[split]["sha256"] for split in ("train", "query", "gallery")}
    assert first.pop("metadata") == {"protocol": "market1501", "partial": False}
    assert set(first.pop("options")) == {"csv_sha256"}
    assert first == {
        "dataset": "image_folder", "config": "a", "images": 5, "left_out": 2, "people": [1, 3], "cameras": 2,
        "first_camera": 1, "no_camera": 0,
    }  # fmt: skip
    assert (second["people"], second["images"], second["cameras"], second["no_camera"]) == ([4, 5], 3, 0, 3)
    assert second["first_camera"] is None
    told = prepared.told(folder).splitlines()
    whole = "image_folder/a:train+query+gallery: 5 images of 3 people (now 1 to 3), 2 cameras"
    assert told[0] == f"{whole}, 2 distractors and junk left out."
    options = json.loads((folder / "options.json").read_text())
    assert options["parts"] == BOTH.split(",") and len(options["parts_sha256"]) == 64


def test_prepared_before(data):
    folder = prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH)
    assert prepare.prepare("mixture", "ab", data_dir=data) == folder
    assert prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH.replace(",", ", ")) == folder
    with pytest.raises(
        ValueError, match=r"ab/1\.0\.0 was prepared with parts .*, asked for is \['image_folder/a:train'"
    ):
        prepare.prepare("mixture", "ab", data_dir=data, parts="image_folder/a:train")
    (data / "image_folder" / "b").rename(data / "gone")
    assert prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH) == folder
    prepare_folder(data.parent, "b", B, "path,person_id,split,skirt,hat", first=200)
    with pytest.raises(ValueError, match="was prepared with parts_sha256"):
        prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH)


def test_an_image_of_two_splits_comes_once(monkeypatch):
    def record(name, image):
        return {"file_name": name, "image": image, "person_id": 1, "camera_id": 2, "attributes": np.zeros(0, np.int8)}

    stored = {"query": [record(b"1", b"one")], "gallery": [record(b"2", b"two"), record(b"1", b"one")]}
    monkeypatch.setattr(prepared, "records", lambda builder, split: stored[split])
    part = parts.Part("set", "c", ("query", "gallery"))
    found = [image.example for image in parts.images(None, part)]
    assert [(example.file_name, example.image()) for example in found] == [("1", b"one"), ("2", b"two")]
    stored["gallery"][1] = record(b"1", b"another")
    with pytest.raises(ValueError, match=r"set/c:query\+gallery has two different images of the name 1; take fewer"):
        list(parts.images(None, part))


def test_check_looks_and_writes_nothing(data):
    before = sorted(data.rglob("*"))
    text, faults, notes = prepare.check("mixture", "ab", data_dir=data, parts=BOTH)
    assert text.splitlines()[1].split() == ["train", "8", "-", "5", "-"] and not faults and len(notes) == 2
    assert sorted(data.rglob("*")) == before
    prepare.prepare("mixture", "ab", data_dir=data, parts=BOTH)
    assert prepare.check("mixture", "ab", data_dir=data)[1] == []
    with pytest.raises(ValueError, match="--parts are looked for in --data_dir, which is missing"):
        prepare.check("mixture", "ab", parts=BOTH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            "image_folder/a:train,peta/reid_x:train",
            r"has peta/reid_x:train, but peta/reid_x is not prepared in .*; prep",
        ),
        ("image_folder/a:train,image_folder/a:query", "has image_folder/a:query and splits of image_folder/a before"),
        ("image_folder/a:train,image_folder/a:train", "has image_folder/a:train and splits of image_folder/a before"),
        ("image_folder/a:train+train", "give each once"),
        ("image_folder/a:test", "has image_folder/a:test, but image_folder/a has the splits .*train"),
        ("image_folder/a", "--parts has 'image_folder/a'; wanted is DATASET/CONFIG:SPLIT"),
        ("image_folder/a:train,", "--parts has ''; wanted is DATASET/CONFIG:SPLIT"),
        ("../a:train", r"--parts has '../a:train'; wanted"),
        ("mixture/m:train", "a mixture itself; give its own parts"),
        (None, "mixture needs --parts"),
    ],
)
def test_bad_parts(data, given, message):
    before = sorted(data.rglob("*"))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        prepare.prepare("mixture", "m", data_dir=data, parts=given)
    assert "\n" not in str(error.value) and str(error.value).rstrip(".").count(". ") == 0
    assert sorted(data.rglob("*")) == before


def test_parts_of_another_data_set(data):
    with pytest.raises(ValueError, match="image_folder takes no --parts; it takes --raw_dir and --csv"):
        prepare.prepare("image_folder", "m", data_dir=data, parts=BOTH)
    with pytest.raises(ValueError, match="mixture takes no --raw_dir; it takes --parts"):
        prepare.prepare("mixture", "m", data_dir=data, parts=BOTH, raw_dir=data)


def test_nobody_in_a_part(data, tmp_path):
    prepare_folder(tmp_path, "d", [("x/1.png", "-1", "train", "1")], "path,person_id,split,hat")
    with pytest.raises(
        ValueError, match="image_folder/d:train shows no people with a number, only distractors or junk"
    ):
        prepare.prepare("mixture", "m", data_dir=data, parts="image_folder/a:train,image_folder/d:train")


def test_one_picture_in_two_parts(data, tmp_path):
    """Its person would be two people who look the same."""
    prepare_folder(tmp_path, "e", B, "path,person_id,split,skirt,hat", first=1)  # x/1.png is a's x/2.png
    told = (
        r"image_folder/a/x/([23]).png and image_folder/e/x/[12].png are one picture, whose person would be two .*leave "
    )
    with pytest.raises(ValueError, match=told):
        prepare.prepare("mixture", "m", data_dir=data, parts="image_folder/a:train,image_folder/e:train")
    _, faults, _ = prepare.check("mixture", "m", data_dir=data, parts="image_folder/a:train,image_folder/e:train")
    assert len(faults) == 2  # x/2.png is a's x/3.png
    assert not (data / "mixture").exists()


def test_a_damaged_part(data):
    file = data / "image_folder" / "b" / "1.0.0" / "fingerprint.json"
    marks = json.loads(file.read_text())
    file.write_text(json.dumps(marks | {"train": marks["train"] | {"sha256": "0"}}))
    with pytest.raises(ValueError, match=r"b/1\.0\.0 is not what was written; remove it and prepare it again"):
        prepare.prepare("mixture", "m", data_dir=data, parts=BOTH)
    file.unlink()
    with pytest.raises(ValueError, match=r"b/1\.0\.0 was not written by prepare, or not wholly"):
        prepare.prepare("mixture", "m", data_dir=data, parts=BOTH)
