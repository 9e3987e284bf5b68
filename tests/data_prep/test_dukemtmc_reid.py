import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from acrn_jax.data_prep import annotations, reid
from acrn_jax.data_prep.dukemtmc_reid import dukemtmc_reid_dataset_builder as duke
from acrn_jax.evaluation import protocols
from tests.fixtures import dukemtmc_reid as fixture
from tests.fixtures import trivial


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw") / "dukemtmc-reid")


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("0001_c2_f0046182.jpg", ("0001", "2")),
        ("7140_c8_f0209111.jpg", ("7140", "8")),
        ("0001_c9_f0046182.jpg", None),
        ("0000_c2_f0046182.jpg", None),
        ("-1_c2_f0046182.jpg", None),
        ("0002_c1s1_000451_03.jpg", None),
        ("0001_c2_f0046182.jpg.jpg", None),
    ],
)
def test_names(name, groups):
    match = re.fullmatch(duke.NAME, name)
    assert (match and match.groups()) == groups


@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_every_image_person_and_camera(planted, place):
    contents = duke.read(raw_dir=planted.root / place)
    assert not contents.faults
    for split, images in planted.images.items():
        found = {e.file_name: (e.person_id, e.camera_id) for e in contents.splits[split]}
        assert found == {f"{fixture.FOLDERS[split]}/{name}": who for name, who in images.items()}
        assert {camera for _, camera in found.values()} == set(range(1, 9))
    people = {split: {e.person_id for e in examples} for split, examples in contents.splits.items()}
    assert people["gallery"] - people["query"] == set(fixture.DISTRACTORS)  # with ids of their own
    assert contents.counts()["gallery"].people == 11


def test_from_raw_files_to_a_metric(planted, tmp_path):
    mat = tmp_path / "duke_attribute.mat"
    values = fixture.write_attributes(mat)
    options = {"raw_dir": planted.root, "attributes_mat": mat}
    with pytest.raises(ValueError, match=r"Not the official release .*query: \d+ images of 8 people, officially 2,228"):
        duke.Builder(options=options, data_dir=tmp_path)
    builder = duke.Builder(options=options | {"allow_partial": True}, data_dir=tmp_path)
    builder.download_and_prepare()
    about = builder.info.metadata
    assert about["partial"] and about["protocol"] == "market1501"
    assert about["invalid_annotations"] == ["top of person 0370", "top of person 0679"]
    measured, loops, chance = trivial.rank(builder, protocols.MARKET1501)
    assert measured == pytest.approx(loops)
    assert measured["mAP_precision"] > 0.6 > 2 * chance["mAP_precision"]
    for split in planted.images:
        for record in trivial.records(builder, split):
            assert record["image"] == (planted.root / record["file_name"].decode()).read_bytes()
            found = dict(zip(about["attribute_names"], record["attributes"].tolist(), strict=True))
            assert found == meaning(values[int(record["person_id"])])


def meaning(fields):
    """The attributes of a person, spelt out."""
    colours = {name: int(value == 2) for name, value in fields.items() if re.match(r"(up|down)\w", name)}
    return colours | {
        "personalMale": int(fields["gender"] == 1),
        "accessoryHat": int(fields["hat"] == 2),
        "carryingBackpack": int(fields["backpack"] == 2),
        "bag": int(fields["bag"] == 2),
        "handbag": int(fields["handbag"] == 2),
        "boots": int(fields["boots"] == 2),
        "shoesLight": int(fields["shoes"] == 2),
        "topLong": {0: -1, 1: 0, 2: 1}[fields["top"]],
    }


def test_files_that_do_not_belong(planted, tmp_path):
    broken = shutil.copytree(planted.root, tmp_path / "raw")
    image = next((broken / "query").glob("0002*.jpg"))
    for name in ("bounding_box_train/0002_c1_f0000001.jpg", "query/0002_c1s1_000451_03.jpg"):
        shutil.copy(image, broken / name)
    faults = reid.examine(duke.read(raw_dir=broken)).faults
    assert len(faults) == 2 and "query/0002_c1s1_000451_03.jpg is not named as 0001_c2_f0046182.jpg" in faults[0]
    assert faults[1].startswith(
        "Person 2 is in train (bounding_box_train/0002_c1_f0000001.jpg) and in test (query/0002"
    )


def test_missing_and_empty_folders(planted, tmp_path):
    broken = shutil.copytree(planted.root, tmp_path / "raw")
    for image in (broken / "bounding_box_test").glob("*.jpg"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match="bounding_box_test holds no images"):
        duke.read(raw_dir=broken)
    (broken / "bounding_box_test").rmdir()
    with pytest.raises(FileNotFoundError, match="has no bounding_box_test"):
        duke.read(raw_dir=broken)


def test_annotations_of_another_set(planted, tmp_path):
    fixture.write_attributes(tmp_path / "a.mat")
    with pytest.raises(ValueError, match="no variable 'market_attribute'"):
        annotations.read_market(tmp_path / "a.mat")


@pytest.mark.skipif("ACRN_ANNOTATIONS_DIR" not in os.environ, reason="ACRN_ANNOTATIONS_DIR names no folder with them")
def test_the_real_annotations():
    found = annotations.read_duke(pathlib.Path(os.environ["ACRN_ANNOTATIONS_DIR"]) / "duke_attribute.mat")
    assert found.people == {"train": 702, "test": 1110} and len(found.of_person) == 1812
    assert found.invalid == ("top of person 0370", "top of person 0679")
    table = np.stack(list(found.of_person.values()))  # [1812, 23]
    assert (table == -1).sum() == 2
    yes = dict(zip(found.names, (table == 1).sum(0).tolist(), strict=True))
    assert (yes["personalMale"], yes["boots"], yes["topLong"], yes["downgreen"]) == (1031, 485, 222, 8)
