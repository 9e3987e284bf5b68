"""Images without a CSV: names read by a pattern, held against regular expressions, and splits against plain loops."""

import json
import random
import re

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from acrn_jax.data_prep import prepare, prepared, reid
from acrn_jax.data_prep.image_folder import image_folder_dataset_builder as image_folder
from acrn_jax.data_prep.image_folder import tree


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"nobody decodes it here")
    return root


def where(contents):
    """Name -> (split, person, camera)."""
    return {e.file_name: (s, e.person_id, e.camera_id) for s, part in contents.splits.items() for e in part}


def test_a_folder_a_person(tmp_path):
    names = [f"{who}/{i}.jpg" for who in ("zoe", "adam", "mia", "bo") for i in range(3)]
    contents = tree.read(touch(tmp_path, *names))
    found = where(contents)
    assert found.keys() == set(names)
    assert contents.metadata["person_names"] == {"adam": 1, "bo": 2, "mia": 3, "zoe": 4}
    assert all(found[name][1:] == (["adam", "bo", "mia", "zoe"].index(name[:-6]) + 1, -1) for name in names)
    assert contents.metadata["protocol"] == "multi_shot" and contents.metadata["attribute_names"] == []
    trained = {person for split, person, _ in found.values() if split == "train"}
    tested = {person for split, person, _ in found.values() if split != "train"}
    assert len(trained) == 2 and tested == {1, 2, 3, 4} - trained
    for person in tested:
        assert sorted(s for s, p, _ in found.values() if p == person) == ["gallery", "gallery", "query"]
    assert not contents.faults and len(contents.notes) == 1 and "no camera" in contents.notes[0]


def test_pairs_are_single_shot(tmp_path):
    contents = tree.read(touch(tmp_path, *(f"{who}/{i}.png" for who in "abcd" for i in range(2))))
    assert contents.metadata["protocol"] == "single_shot"


MARKET = re.compile(r"([-\d]+)_c(\d)s(\d)_(\d{6}_\d{2})\.jpg")  # the field's own expression


def market(seed, people=40):
    """Names as Market-1501 has them, and of some people in one camera alone."""
    draw, names = random.Random(seed), []
    for person in range(1, people + 1):
        for camera in draw.sample(range(1, 7), draw.choice([1, 2, 3])):
            for _ in range(draw.randint(1, 4)):
                names.append(f"{person:04}_c{camera}s{draw.randint(1, 6)}_{draw.randint(0, 999999):06}_01.jpg")
    names += ["0000_c1s1_000451_03.jpg", "-1_c2s1_000401_02.jpg"]
    return sorted(set(names))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_cameras_of_file_names(tmp_path, seed):
    names = market(seed)
    touch(tmp_path / "a", *names[::2]), touch(tmp_path / "b/c", *names[1::2])  # in whatever folder
    contents = tree.read(tmp_path, pattern="{person}_c{camera}s{}_{}.jpg", seed=seed, train_share=0.3)
    found = {name.rpartition("/")[2]: what for name, what in where(contents).items()}
    assert found.keys() == set(names)
    for name, (_, person, camera) in found.items():
        match = MARKET.fullmatch(name)
        assert (person, camera) == (int(match[1]), int(match[2]))
    assert contents.metadata["protocol"] == "market1501" and "person_names" not in contents.metadata
    images = {}
    for name in names:
        images.setdefault(int(MARKET.fullmatch(name)[1]), []).append(name)
    several = {person for person, own in images.items() if person > 0 and len(own) > 1}
    trained = {person for split, person, _ in found.values() if split == "train"}
    assert trained < several and len(trained) == round(0.3 * len(several))
    asked = {(p, c) for split, p, c in found.values() if split == "query"}
    assert len(asked) == sum(split == "query" for split, *_ in found.values())  # one a person and camera
    for person, camera in asked:
        assert any(s == "gallery" and p == person and c != camera for s, p, c in found.values())
    for person in several - trained:  # whoever is seen by two cameras asks
        cameras = {MARKET.fullmatch(name)[2] for name in images[person]}
        assert (person in {p for p, _ in asked}) == (len(cameras) > 1)
    for person in {0, -1} | (images.keys() - several):
        assert {found[name][0] for name in images[person]} == {"gallery"}
    said = " ".join(contents.notes)
    for what, count in (
        ("Distractors (person 0, nobody's match; rename a 0 that is somebody)", 1),
        ("Junk (person -1, never counted)", 1),
        ("People with one image", len([own for p, own in images.items() if p > 0 and len(own) == 1])),
        ("People to search for whom one camera alone sees", len(several - trained - {p for p, _ in asked})),
    ):
        assert (f"{what}: {count}, the first is " in said) == (count > 0)


def test_draws_follow_the_seed_alone(tmp_path):
    names = market(3)
    one, other = (touch(tmp_path / which, *order) for which, order in (("x", names), ("y", names[::-1])))
    pattern = "{person}_c{camera}s{}_{}.jpg"
    splits = [where(tree.read(place, pattern=pattern, seed=seed)) for place, seed in ((one, 4), (other, 4), (one, 5))]
    assert splits[0] == splits[1] != splits[2]
    for which in ("query", "train"):
        assert {n for n, w in splits[0].items() if w[0] == which} != {n for n, w in splits[2].items() if w[0] == which}
    again = where(tree.read(one, pattern=pattern, seed=4, train_share=0))
    assert {split for split, *_ in again.values()} == {"query", "gallery"}
    more = where(tree.read(one, pattern=pattern, seed=4, train_share=0.99))
    assert len({p for s, p, _ in more.values() if s == "query"}) <= 1 < len({p for s, p, _ in more.values()})


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        ("{person}/{camera}/{}.jpg", "ann/east/01.jpg", ("ann", "east")),
        ("{person}/{}", "ann/01.jpg", ("ann", None)),
        ("{person:4}{camera:1}{}.png", "0001002.png", ("0001", "0")),
        ("{person}{:3}.png", "0001002.png", ("0001", None)),
        ("{:2}{person}.png", "x1ann.png", ("ann", None)),
        ("{camera}-{person}_{}.png", "3-b c_1.png", ("b c", "3")),
        ("{person}[{camera}].png", "a[1].png", ("a", "1")),
        ("{person}_{}.png", "a_.png", ("a", None)),
        ("{person}_{}.png", "_1.png", None),
        ("{person}_{}.png", "a_1xpng", None),
        ("{person}/{}", "ann/east/01.jpg", None),
        ("{person}.png", "a/b.png", None),
        ("{person:4}.png", "abc.png", None),
    ],
)
def test_what_a_pattern_reads(pattern, name, groups):
    match, several = tree.parse(pattern).read(name)
    found = match and match.groupdict()
    assert (match and (found["person"], found.get("camera"))) == groups and not several


def test_names_that_can_be_read_in_two_ways_are_told(tmp_path):
    assert tree.parse("{person}_{}.jpg").read("ann_lee_1.jpg")[1]
    assert not tree.parse("{person}_{:1}.jpg").read("ann_lee_1.jpg")[1]
    contents = tree.read(touch(tmp_path, "a_1.jpg", "a_2.jpg", "b_x_1.jpg", "b_2.jpg"), pattern="{person}_{}.jpg")
    assert any(note.startswith("Names that can be read in several ways: 1 (b_x_1.jpg)") for note in contents.notes)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{}/{}.jpg", r"has no {person}; say where"),
        ("{camera}/{}.jpg", "has no {person}"),
        ("", "has no {person}"),
        ("{person}/{person}_{}.jpg", "has {person} twice"),
        ("{person}_c{camera}_c{camera}.jpg", "has {camera} twice"),
        ("{person}_{cam}.jpg", r"has {cam}; known are .*: {camera}\?"),
        ("{person}{}.jpg", "two placeholders side by side"),
        ("{person}{camera}.jpg", "two placeholders side by side"),
        ("{person:x}.jpg", "has {person:x}; a width is a number"),
        ("{person:0}.jpg", "a width is a number"),
        ("{person}_{.jpg", "a brace on its own"),
        ("person}_{}.jpg", "a brace on its own"),
    ],
)
def test_wrong_patterns(pattern, message):
    with pytest.raises(ValueError, match=r"^--pattern=" + re.escape(pattern) + ".*" + message):
        tree.parse(pattern)


def test_pictures_that_the_pattern_does_not_match(tmp_path):
    names = [f"{who}/{i}.jpg" for who in "ab" for i in range(2)]
    touch(tmp_path, *names, "a/x/9.jpg", "top.jpg", "notes.txt", "a/.hidden.jpg", ".git/a/1.jpg")
    contents = tree.read(tmp_path)
    assert [fault.partition(" is not named")[0] for fault in contents.faults] == ["a/x/9.jpg", "top.jpg"]
    contents = tree.read(tmp_path, skip_unmatched=True)
    assert not contents.faults and where(contents).keys() == set(names)
    assert contents.notes[0] == "Passed over, ending in .txt: 1, such as notes.txt."
    assert contents.notes[1] == "Left out, as not named as the pattern says: 2 (a/x/9.jpg, top.jpg)."


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "holds no images"),
        (["a.txt"], {}, "holds no images .* ending in .txt: 1"),
        (["a.jpg", "b.jpg"], {}, "None of the 2 pictures in .*, such as a.jpg, is named as --pattern={person}/{} says"),
        (["a/1.jpg", "b/1.jpg"], {}, "0 of 2 people have several images; wanted are two"),
        (["a/1.jpg", "a/2.jpg", "b/1.jpg"], {}, "1 of 2 people have several images"),
        (["a/1.jpg"], {"train_share": 1.0}, "--train_share=1; wanted is a share .* from 0 to below 1"),
        (["a/1.jpg"], {"train_share": -0.1}, "--train_share=-0.1; wanted"),
    ],
)
def test_folders_that_make_no_set(tmp_path, names, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        tree.read(touch(tmp_path, *names), **options)


def test_numbers_too_large_are_names(tmp_path):
    long = ["20261130101500/1.jpg", "20261130101500/2.jpg", "7/1.jpg", "7/2.jpg"]
    assert tree.read(touch(tmp_path, *long)).metadata["person_names"] == {"20261130101500": 1, "7": 2}


def paint(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(np.full((16, 8, 3), 7 * i % 256, np.uint8)).save(root / name)


def test_prepared_like_any_other_set(tmp_path):
    paint(tmp_path / "raw", *(f"{who}/c{camera}_{i}.png" for who in "abcdef" for camera in (1, 2) for i in range(2)))
    options = {"raw_dir": tmp_path / "raw", "pattern": "{person}/c{camera}_{}.png", "seed": 2}
    table, faults, notes = prepare.check("image_folder", "mine", **options)
    assert "protocol market1501: 6 of 6 queries" in table and not faults + notes
    folder = prepare.prepare("image_folder", "mine", data_dir=tmp_path / "d", **options)
    builder = tfds.builder_from_directory(folder)
    assert json.loads(json.dumps(builder.info.metadata["drawn"])) == {
        "pattern": options["pattern"], "seed": 2, "train_share": 0.5
    }  # fmt: skip
    found = prepared.labels(builder)
    assert where(found) == where(tree.read(**options)) and reid.summary(found).startswith("protocol market1501: 6 of 6")
    assert prepare.prepare("image_folder", "mine", data_dir=tmp_path / "d", **options) == folder  # already there
    for change in ({"seed": 3}, {"train_share": 0.3}, {"pattern": None}):
        with pytest.raises(ValueError, match=f"was prepared with {next(iter(change))}"):
            prepare.prepare("image_folder", "mine", data_dir=tmp_path / "d", **options | change)


def test_one_of_csv_and_draws(tmp_path):
    csv = tmp_path / "images.csv"
    csv.write_text("path,person_id,split\na/1.png,1,train\n")
    paint(tmp_path, "a/1.png", "a/2.png", "b/1.png", "b/2.png")
    for flag in ("seed", "pattern", "train_share"):
        with pytest.raises(ValueError, match=f"--csv says who is where, and --{flag} would draw it; give one"):
            image_folder.Builder(options={"raw_dir": tmp_path, "csv": csv, flag: 0}).contents  # noqa: B018
    folder = prepare.prepare("image_folder", "tree", data_dir=tmp_path / "d", raw_dir=tmp_path)
    assert json.loads((folder / "options.json").read_text()) == {"pattern": "{person}/{}"}
    with pytest.raises(ValueError, match="was prepared with csv_sha256 None"):
        prepare.prepare("image_folder", "tree", data_dir=tmp_path / "d", raw_dir=tmp_path, csv=csv)
