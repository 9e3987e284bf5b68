import itertools
import os
import pathlib
import re
import shutil

import numpy as np
import pytest
import scipy.io

from acrn_jax.data_prep import annotations, reid
from acrn_jax.data_prep.market1501 import market1501_dataset_builder as market
from acrn_jax.evaluation import protocols
from tests.fixtures import market1501 as fixture
from tests.fixtures import trivial


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def broken(planted, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(planted.root, tmp_path / "raw")


@pytest.mark.parametrize(
    ("name", "groups"),
    [  # as they come in the official archive
        ("0002_c1s1_000451_03.jpg", ("0002", "1")),
        ("-1_c1s1_000401_03.jpg", ("-1", "1")),
        ("0000_c6s4_014480_05.jpg", ("0000", "6")),
        ("1501_c6s4_001902_01.jpg.jpg", ("1501", "6")),
        ("0002_c7s1_000451_03.jpg", None),
        ("002_c1s1_000451_03.jpg", None),
        ("0002_c1_f0000451.jpg", None),
        ("0002_c1s1_000451_03.jpg.jpg.jpg", None),
    ],
)
def test_names(name, groups):
    match = re.fullmatch(market.NAME, name)
    assert (match and match.groups()) == groups


def test_every_image_person_and_camera(planted):
    contents = market.read(raw_dir=planted.root)
    assert not contents.faults and contents.metadata["attribute_names"] == []
    asked = set(planted.images["query"].values())
    for split, images in planted.images.items():
        found = {e.file_name: (e.person_id, e.camera_id) for e in contents.splits[split]}
        wanted = {f"{fixture.FOLDERS[split]}/{name}": who for name, who in images.items()}
        if split == "multi_query":
            wanted = {name: who for name, who in wanted.items() if who in asked}
            assert len(wanted) == len(images) - 1 == 3 * len(planted.images["query"])
        assert found == wanted and list(found) == sorted(found)
        assert {camera for _, camera in found.values()} == set(range(1, 7))
    assert {e.person_id for e in contents.splits["gallery"]} == {-1, 0, *fixture.TEST}
    assert contents.counts()["gallery"].people == len(fixture.TEST)
    doubled = [e.file_name for split in contents.splits.values() for e in split if e.file_name.endswith(".jpg.jpg")]
    assert len(doubled) == 2


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_nestings_and_no_boxes(tmp_path, place):
    planted = fixture.write(tmp_path / "raw" / "market1501", boxes=False)
    contents = market.read(raw_dir=planted.root / place)
    assert list(contents.splits) == ["train", "query", "gallery"]
    assert len(contents.splits["gallery"]) == len(planted.images["gallery"])


def test_from_raw_files_to_a_metric(planted, tmp_path):
    mat = tmp_path / "market_attribute.mat"
    values = fixture.write_attributes(mat)
    options = {"raw_dir": planted.root, "attributes_mat": mat}
    with pytest.raises(ValueError, match=r"Not the official release .*train: 48 images of 8 people, officially 12,936"):
        market.Builder(options=options, data_dir=tmp_path)
    builder = market.Builder(options=options | {"allow_partial": True}, data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.metadata["partial"] and builder.info.metadata["protocol"] == "market1501"
    measured, loops, chance = trivial.rank(builder, protocols.MARKET1501)
    assert measured == pytest.approx(loops)
    assert measured["mAP_precision"] > 0.6 > 2 * chance["mAP_precision"]
    names = builder.info.metadata["attribute_names"]
    for split in planted.images:
        for record in trivial.records(builder, split):
            person, file = int(record["person_id"]), record["file_name"].decode()
            assert record["image"] == (planted.root / file).read_bytes()
            found = dict(zip(names, record["attributes"].tolist(), strict=True))
            assert set(found.values()) == {-1} if person < 1 else found == meaning(values[person])


def meaning(fields):
    """The attributes of a person, spelt out."""
    colours = {name: int(value == 2) for name, value in fields.items() if re.match(r"(up|down)\w", name)}
    return colours | {
        "personalMale": int(fields["gender"] == 1),
        "hairLong": int(fields["hair"] == 2),
        "accessoryHat": int(fields["hat"] == 2),
        "carryingBackpack": int(fields["backpack"] == 2),
        "bag": int(fields["bag"] == 2),
        "handbag": int(fields["handbag"] == 2),
        "upperBodyShortSleeve": int(fields["up"] == 2),
        "downShort": int(fields["down"] == 2),
        "dress": int(fields["clothes"] == 1),
        "lowerBodyShorts": int(fields["down"] == 2 and fields["clothes"] == 2),
        "lowerBodyShortSkirt": int(fields["down"] == 2 and fields["clothes"] == 1),
        "ageYoung": int(fields["age"] == 1),
        "ageTeenager": int(fields["age"] == 2),
        "ageAdult": int(fields["age"] == 3),
        "ageOld": int(fields["age"] == 4),
    }


def test_annotations_lie_in_the_order_of_the_release(tmp_path):
    """The miniature's fields are ordered as the real file's: otherwise in train than in test."""
    fixture.write_attributes(tmp_path / "a.mat")
    tables = scipy.io.loadmat(tmp_path / "a.mat")["market_attribute"]
    assert tables.dtype.names == ("test", "train")
    assert [*tables["train"][0, 0].dtype.names] == [*fixture.TRAIN_FIELDS, "image_index"]
    assert sorted(fixture.TRAIN_FIELDS) == sorted(fixture.TEST_FIELDS) and len(fixture.TEST_FIELDS) == 27
    assert fixture.TRAIN_FIELDS != fixture.TEST_FIELDS


def test_person_without_annotation_is_unknown(planted, tmp_path):
    values = fixture.write_attributes(tmp_path / "a.mat")
    parts = fixture.PARTS | {"train": (fixture.TRAIN[1:], fixture.TRAIN_FIELDS)}
    fixture.write_struct(tmp_path / "a.mat", "market_attribute", values, parts)
    splits = market.read(raw_dir=planted.root, attributes_mat=tmp_path / "a.mat").splits
    for example in splits["train"] + splits["multi_query"]:
        assert (set(example.attributes) == {-1}) == (example.person_id == fixture.TRAIN[0])


def spoil(values, parts, *, field=None, people=None, unknown=None, value=None):
    """Arguments of `write_struct` with one thing wrong."""
    train_people, train_fields = parts["train"]
    if value is not None:
        values = values | {train_people[0]: values[train_people[0]] | value}
    if unknown is not None:
        values = {person: fields | {unknown: 1} for person, fields in values.items()}
        train_fields = [*train_fields, unknown]
    train_fields = [name for name in train_fields if name != field]
    return values, parts | {"train": ((*train_people, *(people or ())), train_fields)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"unknown": "upbeige"}, "train: an unknown field upbeige"),
        ({"field": "hat"}, "train: no field hat"),
        ({"people": [fixture.TEST[0]]}, "person 0001 comes twice"),
        ({"people": [fixture.TRAIN[0]]}, "person 0002 comes twice"),
        ({"value": {"hat": 3}}, "train: hat has the value 3; wanted are 1, 2"),
        ({"value": {"age": 5}}, "train: age has the value 5; wanted are 1, 2, 3, 4"),
    ],
)
def test_annotations_that_are_wrong(tmp_path, change, message):
    values = fixture.write_attributes(tmp_path / "a.mat")
    fixture.write_struct(tmp_path / "a.mat", "market_attribute", *spoil(values, fixture.PARTS, **change))
    with pytest.raises(ValueError, match=rf"a\.mat.*({message})"):
        annotations.read_market(tmp_path / "a.mat")


@pytest.mark.parametrize("kind", ["text", "empty", "half", "other", "duke", "numbers", "lengths", "people"])
def test_annotations_that_are_none(tmp_path, kind):
    mat = tmp_path / "a.mat"
    fixture.write_attributes(mat)
    content = mat.read_bytes()
    if kind in ("other", "duke", "numbers"):
        variable = {"other": "people", "duke": "duke_attribute", "numbers": "market_attribute"}[kind]
        scipy.io.savemat(mat, {variable: np.ones((1, 1))})
    elif kind in ("lengths", "people"):
        tables = scipy.io.loadmat(mat)["market_attribute"]
        if kind == "lengths":
            tables["test"][0, 0]["hat"][0, 0] = np.ones((1, 3), np.uint8)
        else:
            tables["test"][0, 0]["image_index"][0, 0][0, 2] = "-001"
        scipy.io.savemat(mat, {"market_attribute": tables})
    else:
        mat.write_bytes({"text": b"no table", "empty": b"", "half": content[: len(content) // 2]}[kind])
    messages = {
        "lengths": r"test: hat is uint8 \[3\]; wanted is a number for each of 8",
        "people": "image_index has '-001'",
        "numbers": "no struct of train and test",
    }
    with pytest.raises(ValueError, match=rf"a\.mat.*{messages.get(kind, 'cannot be read as a MATLAB 5 file')}"):
        annotations.read_market(mat)
    with pytest.raises(FileNotFoundError, match=r"No file .*none\.mat"):
        annotations.read_market(tmp_path / "none.mat")


def test_mutated_annotations_end_in_an_answer_or_a_named_error(tmp_path):
    mat = tmp_path / "a.mat"
    fixture.write_attributes(mat)
    content, generator, answers = mat.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        changed = bytearray(content[: generator.integers(len(content)) if generator.random() < 0.2 else None])
        for _ in range(generator.integers(1, 4)):
            if changed:
                changed[generator.integers(len(changed))] = generator.integers(256)
        mat.write_bytes(changed)
        try:
            found = annotations.read_market(mat)
        except ValueError as error:
            assert str(mat) in str(error)
        else:
            answers += 1
            assert all(set(row) <= {-1, 0, 1} for row in found.of_person.values())
    assert 0 < answers < 200


def test_folders_that_are_missing_or_empty(broken):
    for image in (broken / "query").glob("*.jpg"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match="query holds no images"):
        market.read(raw_dir=broken)
    shutil.rmtree(broken / "query")
    with pytest.raises(FileNotFoundError, match="raw has no query; unpack"):
        market.read(raw_dir=broken.parent)


def test_files_that_do_not_belong(broken, tmp_path):
    image = next((broken / "query").glob("0001*.jpg"))
    for name in (
        "bounding_box_train/holiday.jpg",
        "bounding_box_train/0001_c1s1_000001_01.jpg",
        "bounding_box_train/0000_c1s1_000001_01.jpg",
        "query/-1_c1s1_000001_00.jpg",
    ):
        shutil.copy(image, broken / name)
    faults = reid.examine(market.read(raw_dir=broken)).faults
    wanted = [
        "bounding_box_train/holiday.jpg is not named as",
        "bounding_box_train/0000_c1s1_000001_01.jpg shows no person",
        "query/-1_c1s1_000001_00.jpg shows no person",
        "Person 1 is in train (bounding_box_train/0001_c1s1_000001_01.jpg) and in test (query/0001_",
    ]
    assert len(faults) == 4
    for fault, start in itertools.zip_longest(faults, wanted):
        assert start in fault
    with pytest.raises(ValueError, match=r"holiday\.jpg is not named as .*4 faults in all"):
        market.Builder(options={"raw_dir": broken, "allow_partial": True}, data_dir=tmp_path)


@pytest.mark.skipif("ACRN_ANNOTATIONS_DIR" not in os.environ, reason="ACRN_ANNOTATIONS_DIR names no folder with them")
def test_the_real_annotations():
    found = annotations.read_market(pathlib.Path(os.environ["ACRN_ANNOTATIONS_DIR"]) / "market_attribute.mat")
    assert found.people == {"test": 750, "train": 751} and found.invalid == ()
    table = np.stack(list(found.of_person.values()))  # [1501, 32]
    assert len(found.of_person) == 1501 and table.min() == 0
    yes = dict(zip(found.names, table.sum(0).tolist(), strict=True))
    assert (yes["personalMale"], yes["hairLong"], yes["ageOld"], yes["downpurple"]) == (845, 520, 13, 2)
