import re
import shutil

import pytest

from acrn_jax.data_prep.msmt17 import msmt17_dataset_builder as msmt17
from acrn_jax.evaluation import protocols
from tests.fixtures import msmt17 as fixture
from tests.fixtures import trivial


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def broken(planted, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(planted.root, tmp_path / "raw")


@pytest.mark.parametrize(
    ("path", "camera"),
    [
        ("0000/0000_000_01_0303morning_0015_0.jpg", "01"),
        ("0000/0000_046_12_0303morning_0006_2_ex.jpg", "12"),
        ("../0000/0000_000_01_0303morning_0015_0.jpg", None),
        ("/0000/0000_000_01_0303morning_0015_0.jpg", None),
        ("0000/../0000_000_01_0303morning_0015_0.jpg", None),
        ("0000/0000_000_01_../0303morning.jpg", None),
        ("0000_000_01_0303morning_0015_0.jpg", None),
    ],
)
def test_names(path, camera):
    match = re.fullmatch(msmt17.PATH, path)
    assert (match and match[3]) == camera


@pytest.mark.parametrize("version", ["V1", "V2"])
@pytest.mark.parametrize("place", [".", "..", "../.."])
def test_every_image_person_and_camera(tmp_path, version, place):
    planted = fixture.write(tmp_path / "msmt17", version=version)
    contents = msmt17.read(raw_dir=planted.root / place)
    assert not contents.faults and contents.metadata["release"] == version
    for split, lists, after in (
        ("train", ["list_train.txt", "list_val.txt"], 1),
        ("query", ["list_query.txt"], 1042),  # whoever has number 0 in test is another person than in train
        ("gallery", ["list_gallery.txt"], 1042),
    ):
        folder = fixture.FOLDERS[version][split != "train"]
        found = {e.file_name: (e.person_id, e.camera_id) for e in contents.splits[split]}
        assert found == {
            f"{folder}/{name}": (person + after, camera)
            for file in lists
            for name, (person, camera) in planted.images[file].items()
        }
        assert len(found) == {"train": 72, "query": 24, "gallery": 48}[split]
    assert {e.camera_id for e in contents.splits["gallery"]} == set(range(1, 16))


def test_from_raw_files_to_a_metric(planted, tmp_path):
    options = {"raw_dir": planted.root}
    with pytest.raises(ValueError, match="gallery: 48 images of 8 people, officially 82,161"):
        msmt17.Builder(options=options, data_dir=tmp_path)
    builder = msmt17.Builder(options=options | {"allow_partial": True}, data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.metadata["partial"] and builder.info.metadata["protocol"] == "market1501"
    measured, loops, chance = trivial.rank(builder, protocols.MARKET1501)
    assert measured == pytest.approx(loops)
    assert measured["mAP_precision"] > 0.6 > 2 * chance["mAP_precision"]
    for record in trivial.records(builder, "gallery"):
        assert record["image"] == (planted.root / record["file_name"].decode()).read_bytes()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../test/0000/0000_000_01_0303morning_0000_0.jpg 0", r"line 64: '\.\./test.*'; wanted is"),
        ("/etc/passwd 0", "line 64: '/etc/passwd 0'; wanted is"),
        ("0000/0000_000_01_0303morning_0000_0.jpg", "line 64: .*; wanted is"),
        ("0000/0000_000_01_0303morning_0000_0.jpg 0 0", "line 64: .*; wanted is"),
        ("0000/0000_000_01_0303morning_0000_0.jpg zero", "line 64: .*; wanted is"),
        ("0000/0000_099_01_0303morning_0000_0.jpg 0", r"line 64: there is no file .*train/0000/0000_099_01"),
        ("0000/0000_000_16_0303morning_0000_0.jpg 0", "line 64: .*camera 16; there are 01 to 15"),
        ("0000/0000_000_01_0113morning_0000_0.jpg 1", "line 64: .* is of person 0, the line says 1"),
        (
            "0000/0000_000_01_0113morning_0000_0.jpg 0",
            "0000_000_01_0113morning_0000_0.jpg is listed twice",
        ),
    ],
)
def test_lines_that_are_wrong(broken, line, message):
    path = broken / "list_train.txt"
    lines = path.read_text().splitlines()
    assert len(lines) == 64
    path.write_text("\n".join([*lines[:63], line, lines[63], ""]))
    contents = msmt17.read(raw_dir=broken)
    assert len(contents.faults) == 1 and re.search(message, contents.faults[0])
    with pytest.raises(ValueError, match=message):
        msmt17.Builder(options={"raw_dir": broken, "allow_partial": True}, data_dir=broken)


def test_missing_and_empty_parts(broken):
    (broken / "list_val.txt").write_text("\n")
    with pytest.raises(FileNotFoundError, match=r"list_val\.txt lists no images"):
        msmt17.read(raw_dir=broken)
    (broken / "list_val.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match=r"list_val\.txt is no text"):
        msmt17.read(raw_dir=broken)
    (broken / "train").rename(broken / "mask_train_v2")
    with pytest.raises(FileNotFoundError, match="neither train and test nor mask_train_v2 and mask_test_v2"):
        msmt17.read(raw_dir=broken)
    (broken / "list_val.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no list_val\.txt"):
        msmt17.read(raw_dir=broken)


def test_both_releases_at_once(tmp_path):
    for version in ("V1", "V2"):
        fixture.write(tmp_path, version=version)
    with pytest.raises(ValueError, match=r"MSMT17_V1 and .*MSMT17_V2 both hold"):
        msmt17.read(raw_dir=tmp_path)
