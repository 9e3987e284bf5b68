import pathlib
import re
import shutil

import pytest

from acrn_jax.configs import acrn_cuhk01
from acrn_jax.data_prep import prepare, reid
from acrn_jax.data_prep.cuhk01 import cuhk01_dataset_builder as cuhk01
from acrn_jax.evaluation import protocols
from tests.fixtures import cuhk01 as fixture
from tests.fixtures import trivial


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def broken(planted, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(planted.root, tmp_path / "raw" / "campus")


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("0001001.png", ("0001", "1")),
        ("0971004.png", ("0971", "4")),
        ("0001005.png", None),
        ("0001000.png", None),
        ("0000001.png", None),
        ("001001.png", None),
        ("0001001.jpg", None),
        ("0001101.png", None),
    ],
)
def test_names(name, groups):
    match = re.fullmatch(cuhk01.NAME, name)
    assert (match and match.groups()) == groups


def parts(config, root):
    """Split -> file name -> person, camera."""
    contents = cuhk01.read(config, raw_dir=root)
    assert not contents.faults
    return {s: {e.file_name: (e.person_id, e.camera_id) for e in part} for s, part in contents.splits.items()}


@pytest.mark.parametrize("config", cuhk01.config_names())
def test_every_config(config, planted):
    """Held against the names alone: 1 and 2 are of camera A, 3 and 4 of camera B; half the people, or two."""
    found = parts(config, planted.root)
    everything = {f"campus/{name}": who for name, who in planted.images["campus"].items()}
    people = {split: {person for person, _ in part.values()} for split, part in found.items()}
    assert all(part.items() <= everything.items() for part in found.values())
    assert people["query"] == people["gallery"] == set(fixture.PEOPLE) - people["train"]
    assert len(people["train"]) == (7 if config.startswith("485") else 13)
    assert len(found["train"]) == 4 * len(people["train"])
    each = 1 if "single" in config else 2
    for split, numbers in (("query", "12"), ("gallery", "34")):
        assert len(found[split]) == each * len(people["query"])
        assert all(name[-5] in numbers for name in found[split])


def test_a_seed_tests_the_same_people_in_each_kind_and_others_test_others(planted):
    drawn = {name: parts(name, planted.root) for name in cuhk01.config_names()}
    for i in range(10):
        assert drawn[f"485_single_{i}"]["train"] == drawn[f"485_multi_{i}"]["train"]
        for split in ("query", "gallery"):
            small, large = drawn[f"871_single_{i}"][split], drawn[f"485_single_{i}"][split]
            assert small.items() < large.items() < drawn[f"485_multi_{i}"][split].items()
    assert len({str(drawn[f"485_single_{i}"]["train"]) for i in range(10)}) == 10
    shown = [name[-5] for i in range(10) for name in drawn[f"485_single_{i}"]["query"]]
    assert 20 < shown.count("1") < 60 and len(shown) == 80  # either image of a camera is drawn


@pytest.mark.parametrize("place", [".", "..", "../..", "../../.."])
def test_nestings(tmp_path, place):
    planted = fixture.write(tmp_path / "cuhk" / "CUHK01")
    contents = cuhk01.read("485_multi_3", raw_dir=planted.root / place)
    assert [c.images for c in contents.counts().values()] == [28, 16, 16]


def test_the_counts_are_the_releases():
    """485 + 486 and 871 + 100 people are 971; of each two and two images."""
    single, multi = (cuhk01._official(485, shots) for shots in ("single", "multi"))
    assert single == {"train": (1940, 485), "query": (486, 486), "gallery": (486, 486)}
    assert sum(c.images for c in multi.values()) == 3884 and multi["query"] == (972, 486)
    assert cuhk01._official(871, "multi") == {"train": (3484, 871), "query": (200, 100), "gallery": (200, 100)}
    assert cuhk01.config_names() == acrn_cuhk01.SPLITS


@pytest.mark.parametrize("config", ["485_single_0", "485_multi_0"])
def test_from_raw_files_to_a_metric(config, planted, tmp_path):
    options = {"raw_dir": planted.root}
    with pytest.raises(ValueError, match=r"60 images of 15 people, officially 3,884 of 971; train: 28 images of 7"):
        cuhk01.Builder(config=config, options=options, data_dir=tmp_path)
    builder = cuhk01.Builder(config=config, options=options | {"allow_partial": True}, data_dir=tmp_path)
    builder.download_and_prepare()
    assert builder.info.metadata["partial"] and builder.info.metadata["seed"] == 0
    measured, loops, chance = trivial.rank(builder, protocols.named(builder.info.metadata["protocol"]))
    assert measured == pytest.approx(loops)
    assert measured["mAP_precision"] > 0.6 > chance["mAP_precision"]
    other, _, _ = trivial.rank(builder, protocols.MULTI_SHOT)  # nobody is left out: the cameras are others
    assert measured == other
    for record in trivial.records(builder, "gallery"):
        assert record["image"] == (planted.root.parent / record["file_name"].decode()).read_bytes()


def test_a_missing_camera(broken, tmp_path):
    for number in (3, 4):
        (broken / f"0005{number:03d}.png").unlink()
    for config in ("485_single_0", "871_multi_4"):
        faults = cuhk01.read(config, raw_dir=broken).faults
        assert faults == [
            f"{broken / '0005001.png'} shows person 5, of whom there is no image of camera B, 0005003.png or "
            "0005004.png; restore it, or remove the person's images."
        ]
    with pytest.raises(ValueError, match=r"0005001\.png shows person 5"):
        prepare.prepare("cuhk01", "485_single_0", raw_dir=broken, data_dir=tmp_path / "d", allow_partial=True)
    for path in [*broken.glob("*001.png"), *broken.glob("*002.png")]:
        path.unlink()
    with pytest.raises(ValueError, match=r"campus has no image of camera A, named PPPP001\.png or PPPP002\.png"):
        prepare.prepare("cuhk01", "485_single_0", raw_dir=broken, data_dir=tmp_path / "d", allow_partial=True)
    assert not (tmp_path / "d").exists()


def test_one_image_of_a_camera_is_enough_in_a_part_of_the_release(broken):
    (broken / "0005003.png").unlink()
    for i in range(10):
        contents = cuhk01.read(f"485_single_{i}", raw_dir=broken)
        assert not contents.faults and len(contents.splits["gallery"]) == 8
        assert "59 images of 15 people" in contents.short()[0]


def test_files_that_do_not_belong_and_none(broken, tmp_path):
    image = broken / "0005003.png"
    shutil.copy(image, broken / "0005005.png")
    shutil.copy(image, broken / "0005_c1.png")
    faults = reid.examine(cuhk01.read("485_multi_0", raw_dir=broken)).faults
    assert [pathlib.Path(fault.split()[0]).name for fault in faults] == ["0005005.png", "0005_c1.png"]
    assert all("is not named as 0001001.png is" in fault for fault in faults)
    for path in broken.glob("*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="campus holds no images"):
        cuhk01.read("485_multi_0", raw_dir=broken.parent)
    with pytest.raises(FileNotFoundError, match=r"No folder with campus in .*/campus"):
        cuhk01.read("485_multi_0", raw_dir=broken)
    for person in (1, 2, 3, 4):
        shutil.copy(fixture.write(tmp_path / "other").root / "0001001.png", broken / f"0001{person:03d}.png")
        shutil.rmtree(tmp_path / "other")
    with pytest.raises(ValueError, match="campus shows 1 people, too few to train on some and test on others"):
        cuhk01.read("485_multi_0", raw_dir=broken)
