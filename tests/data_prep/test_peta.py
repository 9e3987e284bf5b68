import collections
import hashlib
import json
import os
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.io

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.peta import peta_dataset_builder as peta
from acrn_jax.data_prep.peta import release
from tests.fixtures import peta as fixture


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    return root, fixture.write(root)


@pytest.fixture
def broken(raw, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(raw[0], tmp_path / "raw") / "PETA dataset"


@pytest.mark.parametrize(
    ("subset", "name", "groups"),
    [  # as they come in the official archive
        ("3DPeS", "100_3_FRAME_26_RGB.bmp", ("100", "3")),
        ("3DPeS", "166_B_1280_FRAME_105_RGB.bmp", ("166", "1280")),
        ("CAVIAR4REID", "0047_005.jpg", ("0047",)),
        ("CUHK", "0002.png", ("0002",)),
        ("GRID", "0001_2_25023_116_134_128_330.jpeg", ("0001", "2")),
        ("i-LID", "0001_004.jpg", ("0001",)),
        ("MIT", "00004_female_back.jpg", ("00004",)),
        ("PRID", "0001_b.png", ("0001", "b")),
        ("SARC3D", "001_Right.bmp", ("001", "Right")),
        ("TownCentre", "0_16.jpg", ("0",)),
        ("VIPeR", "001_90_2.bmp", ("001", "2")),
    ],
)
def test_official_names(subset, name, groups):
    assert re.fullmatch(release.SUBSETS[subset].name, name, re.IGNORECASE).groups() == groups


def test_vocabulary():
    assert len(release.KNOWN_ATTRIBUTES) == 109 and len(fixture.COLUMNS) == 105
    assert sum(subset.images for subset in release.SUBSETS.values()) == 19_000


def test_images_come_in_the_order_of_the_table(raw):
    root, rows = raw
    images = release.read_images(release.find_archives(root))
    found = [(im.file_name, im.subset, im.local_id, im.person_id, im.camera_id) for im in images]
    assert found == [row[:5] for row in rows]
    for image, row in zip(images, rows, strict=True):
        assert image.labels - {"accessoryShawl"} == row.labels
        assert image.attributes == [int(name in row.labels) for name in reid.PETA_ATTRIBUTES]
    assert any("footwearSneaker" in row.labels for row in rows)  # Label.txt spells it otherwise
    release.check_table(release.read_table(root / "PETA.mat"), images)


@pytest.mark.parametrize("place", [".", "PETA dataset", ".."])
def test_raw_dir_may_be_above_or_below(raw, place):
    assert list(release.find_archives(raw[0] / place)) == list(fixture.FILES)


def test_random_configs_are_the_tables_splits(raw):
    root, rows = raw
    partitions = scipy.io.loadmat(root / "PETA.mat")["peta"][0][0][3]
    for number in (0, 4):
        contents = peta.read(f"random_{number}", raw_dir=root)
        for k, split in enumerate(("train", "val", "test")):
            wanted = [rows[i - 1] for i in partitions[number][0][0][0][k][:, 0]]
            got = contents.splits[split]
            assert [(e.file_name, e.person_id) for e in got] == [(row.file_name, row.person_id) for row in wanted]
            assert [list(e.attributes) for e in got] == [
                [int(name in row.labels) for name in reid.PETA_ATTRIBUTES] for row in wanted
            ]
        assert contents.metadata["attribute_names"] == reid.PETA_ATTRIBUTES
        assert contents.metadata["protocol"] == "attributes" and contents.shortfall
    assert contents.splits != peta.read("random_0", raw_dir=root).splits


def test_disjoint_shares_nobody(raw):
    root, rows = raw
    splits = peta.read("disjoint", raw_dir=root).splits
    assert sorted(e.file_name for s in splits.values() for e in s) == sorted(row.file_name for row in rows)
    people = {split: {e.person_id for e in examples} for split, examples in splits.items()}
    assert not people["train"] & people["val"] and not (people["train"] | people["val"]) & people["test"]
    assert 0.4 < len(splits["train"]) / len(rows) <= 0.5 and 0.3 < len(splits["test"]) / len(rows) < 0.5
    assert (
        splits
        == peta.read("disjoint", raw_dir=root, seed=0).splits
        != peta.read("disjoint", raw_dir=root, seed=1).splits
    )


@pytest.mark.parametrize("config", list(peta.REID_SUBSETS))
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_query_has_a_match_and_nobody_trains_and_tests(raw, config, seed):
    root, rows = raw
    contents = peta.read(f"{config}_{seed}", raw_dir=root)
    train, query, gallery = (contents.splits[split] for split in ("train", "query", "gallery"))
    subset = {row.file_name: row for row in rows if row.subset == peta.REID_SUBSETS[config][0]}
    names = [e.file_name for e in train + query + gallery]
    assert len(set(names)) == len(names) and set(names) <= set(subset)
    assert not {e.person_id for e in train} & {e.person_id for e in query + gallery}
    assert min(e.person_id for e in train + query) >= 1
    for example in query:  # by loops: images of the same person that the protocol counts
        right = [e for e in gallery if e.person_id == example.person_id]
        if contents.metadata["protocol"] == "market1501":
            assert any(e.camera_id != example.camera_id for e in right) and example.camera_id > 0
        else:
            assert len(right) == 1
    for example in train + query + gallery:
        row = subset[example.file_name]
        assert example.camera_id == row.camera_id
        assert list(example.attributes) == [int(name in row.labels) for name in reid.PETA_ATTRIBUTES]
        if example.person_id != reid.DISTRACTOR:
            assert example.person_id == row.local_id + (config == "reid_viper")
    assert contents.metadata["seed"] == seed


def test_what_the_reid_splits_hold(raw):
    root = raw[0]

    def names(config, split):
        return [e.file_name.split("/")[1] for e in peta.read(config, raw_dir=root).splits[split]]

    def nobody(config):
        return {e.file_name.split("/")[1] for e in peta.read(config, raw_dir=root).splits["gallery"] if not e.person_id}

    assert nobody("reid_grid") == {f"000{p}_5_32849_235_75_87_237.jpeg" for p in (5, 6, 7)}
    assert nobody("reid_prid") == {"1007_b.png", "1008_b.png"}
    assert not any(name.startswith(("0005", "0006")) for s in ("train", "query") for name in names("reid_prid", s))
    assert len(names("reid_grid", "train")) == 4 and len(names("reid_grid", "query")) == 2
    for name in names("reid_grid", "query"):  # cameras p and p + 1
        assert int(name.split("_")[1]) == int(name.split("_")[0])
    assert all(name.endswith("_1.bmp") for name in names("reid_viper", "query"))
    assert all(name.endswith("a.png") for name in names("reid_prid", "query"))
    assert all("front" in name for name in names("reid_sarc3d", "query"))
    assert len(names("reid_caviar4reid", "query")) == 4 and len(names("reid_caviar4reid", "gallery")) == 2
    three = collections.Counter(name.split("_")[0] for name in names("reid_3dpes", "train"))
    assert len(three) == 3  # of six people


def test_whole_sets_test_everybody(raw):
    """The fixture's people by hand: all of camera a whom b saw ask, and all of b is the gallery."""
    wanted = {  # (file, person) of query and of gallery
        "reid_viper_whole": (
            {(f"VIPeR/{p:03d}_0_1.bmp", p + 1) for p in (0, 1, 3, 7)},
            {(f"VIPeR/{p:03d}_90_2.bmp", p + 1) for p in (0, 1, 3, 7)},
        ),
        "reid_prid_whole": (
            {(f"PRID/{p:04d}_a.png", p) for p in (1, 2, 3, 4)},
            {(f"PRID/{p:04d}_b.png", p) for p in (1, 2, 3, 4)} | {("PRID/1007_b.png", 0), ("PRID/1008_b.png", 0)},
        ),
    }
    for config, sides in wanted.items():
        found = peta.read(config, raw_dir=raw[0])
        assert list(found.splits) == ["query", "gallery"] and found.metadata["protocol"] == "single_shot"
        for split, side in zip(found.splits.values(), sides, strict=True):
            assert {(e.file_name, e.person_id) for e in split} == side and len(split) == len(side)
        with pytest.raises(ValueError, match=f"--seed=1 has no effect here: {config}"):
            peta.read(config, raw_dir=raw[0], seed=1)
        with pytest.raises(ValueError, match="--split_file is for the reid_ configs"):
            peta.read(config, raw_dir=raw[0], split_file="x.csv")


def test_3dpes_person_of_one_track_is_no_query(raw):
    for seed in range(10):
        splits = peta.read(f"reid_3dpes_{seed}", raw_dir=raw[0]).splits
        assert 2 not in {e.person_id for e in splits["query"]}
        for person in {e.person_id for e in splits["query"]}:
            asked = {e.camera_id for e in splits["query"] if e.person_id == person}
            assert len(asked) == 1 and asked.isdisjoint(e.camera_id for e in splits["gallery"] if e.person_id == person)


def test_seed_and_number_of_a_config_mean_the_same(raw):
    root = raw[0]
    by_number, by_seed = peta.read("reid_grid_3", raw_dir=root), peta.read("reid_grid", raw_dir=root, seed=3)
    assert by_number == by_seed
    assert any(peta.read(f"reid_grid_{i}", raw_dir=root).splits != by_seed.splits for i in range(3))
    with pytest.raises(ValueError, match="leave it out"):
        peta.read("reid_grid_3", raw_dir=root, seed=4)


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """GRID's 1,275 file names; each person has one camera below his number's, and one above."""
    folder = tmp_path_factory.mktemp("grid") / "GRID" / "archive"
    folder.mkdir(parents=True)
    people = {p: (1 + p % 3, 4 + p % 3) for p in range(1, 251)} | {p: (1 + p % 6,) for p in range(251, 1026)}
    (folder / "Label.txt").write_text("".join(f"{p:04d} personalMale\n" for p in people))
    for person, cameras in people.items():
        for camera in cameras:
            (folder / f"{person:04d}_{camera}_25004_107_32_106_221.jpeg").write_bytes(b"not looked at")
    return folder


# Sums of the numbers of the 125 people who are asked for, from the release's lists of probes and not of who trains.
PROBES = (17028, 14728, 16349, 15126, 15970, 15958, 16073, 15116, 16044, 15488)


@pytest.mark.parametrize("trial", range(10))
def test_the_official_trials_of_grid(grid, trial):
    contents = peta.read(f"reid_grid_trial_{trial}", raw_dir=grid.parents[1])
    assert not contents.shortfall and contents.metadata["official_trial"] == trial
    assert contents.metadata["protocol"] == "market1501" and "seed" not in contents.metadata
    train, query, gallery = (contents.splits[split] for split in ("train", "query", "gallery"))
    asked = {e.person_id for e in query}
    assert sum(asked) == PROBES[trial] and len(asked) == len(query) == 125 and len(gallery) == 900
    assert len(train) == 250 and {e.person_id for e in train} == set(range(1, 251)) - asked
    assert all(e.camera_id == 1 + e.person_id % 3 for e in query)
    right = [e for e in gallery if e.person_id > 0]
    assert {(e.person_id, e.camera_id) for e in right} == {(p, 4 + p % 3) for p in asked} and len(right) == 125
    assert len({e.file_name for e in gallery}) == 900 and not reid.examine(contents).faults


def test_official_trials_are_not_the_drawn_splits(grid):
    drawn = peta.read("reid_grid_0", raw_dir=grid.parents[1])
    assert drawn.metadata["seed"] == 0 and len(drawn.splits["train"]) == 250
    assert drawn.splits["train"] != peta.read("reid_grid_trial_0", raw_dir=grid.parents[1]).splits["train"]
    first = sorted(peta.grid_trials()[0])  # as the release's own list begins and ends
    assert first[:3] == [1, 9, 10] and first[-2:] == [247, 248]
    for wrong in ({"seed": 1}, {"split_file": "s.csv"}):
        with pytest.raises(ValueError, match="reid_grid_trial_0"):
            peta.read("reid_grid_trial_0", raw_dir=grid.parents[1], **wrong)


def test_official_trials_on_another_release(grid, tmp_path):
    folder = shutil.copytree(grid, tmp_path / "GRID" / "archive")
    (folder / "0007_5_25004_107_32_106_221.jpeg").unlink()
    with pytest.raises(ValueError, match=r"0007_2_25004.* shows person 7, whom one camera saw; the official trials"):
        peta.read("reid_grid_trial_3", raw_dir=tmp_path)
    (folder / "0007_2_25004_107_32_106_221.jpeg").unlink()  # a part of the release
    assert peta.read("reid_grid_trial_3", raw_dir=tmp_path).shortfall == ["1,273 images, officially 1,275"]
    (folder / "0251_1_25004_107_32_106_221.jpeg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"0251_1_25004.* shows person 251, whom several cameras saw"):
        peta.read("reid_grid_trial_3", raw_dir=tmp_path)
    assert peta.read("reid_grid_3", raw_dir=tmp_path).splits["train"]


SPLIT = """path,role
GRID/0001_1_25004_107_32_106_221.jpeg,train
0001_2_25004_107_32_106_221.jpeg,train
GRID/0002_2_25004_107_32_106_221.jpeg,query
GRID/0002_3_25004_107_32_106_221.jpeg,gallery
GRID/0006_5_32849_235_75_87_237.jpeg,distractor
"""


def test_split_file(raw, tmp_path):
    (tmp_path / "s.csv").write_text(SPLIT)
    contents = peta.read("reid_grid", raw_dir=raw[0], split_file=tmp_path / "s.csv")
    people = {split: [e.person_id for e in examples] for split, examples in contents.splits.items()}
    assert people == {"train": [1, 1], "query": [2], "gallery": [2, 0]}
    assert len(contents.metadata["split_file_sha256"]) == 64 and "seed" not in contents.metadata


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("path,role", "path,part", "role missing"),
        (",query", ",probe", "line 4: unknown role 'probe'; there are train, query, gallery, distractor"),
        ("GRID/0006", "GRID/0036", "line 6: no image 'GRID/0036"),
        ("GRID/0006", "VIPeR/0006", "line 6: no image 'VIPeR/0006"),
        ("GRID/0006_5_32849_235_75_87_237.jpeg", "0001_2_25004_107_32_106_221.jpeg", "line 6: .* in line 3 already"),
        (",distractor", ",train", None),
        ("0001_2_25004_107_32_106_221.jpeg,train", "0001_2_25004_107_32_106_221.jpeg,gallery", "person 1 .* in train"),
        (",gallery", ",train", "no image the role gallery"),
    ],
)
def test_wrong_split_file(raw, tmp_path, old, new, message):
    assert old in SPLIT
    (tmp_path / "s.csv").write_text(SPLIT.replace(old, new))
    if message is None:
        peta.read("reid_grid", raw_dir=raw[0], split_file=tmp_path / "s.csv")
        return
    with pytest.raises(ValueError, match=message):
        peta.read("reid_grid", raw_dir=raw[0], split_file=tmp_path / "s.csv")


def test_options_that_do_not_belong(raw, tmp_path):
    with pytest.raises(ValueError, match="split_file is for the reid_ configs"):
        peta.read("random_0", raw_dir=raw[0], split_file=tmp_path / "s.csv")
    with pytest.raises(FileNotFoundError, match=r"No split file .*path,role"):
        peta.read("reid_grid", raw_dir=raw[0], split_file=tmp_path / "s.csv")


def test_missing_and_empty_folders(tmp_path, broken):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere"):
        peta.read("disjoint", raw_dir=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"No PETA images in .*empty"):
        peta.read("disjoint", raw_dir=tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"No file .*PETA\.mat"):
        peta.read("random_0", raw_dir=tmp_path / "raw", peta_mat=tmp_path / "PETA.mat")
    shutil.rmtree(broken / "VIPeR")
    with pytest.raises(FileNotFoundError, match="reid_viper needs VIPeR/archive"):
        peta.read("reid_viper", raw_dir=broken)
    with pytest.raises(ValueError, match=r"PETA.mat has 94 rows and the folders hold 86 images \(VIPeR missing\)"):
        peta.read("random_0", raw_dir=broken.parent)
    for image in (broken / "GRID" / "archive").glob("*.jpeg"):
        image.unlink()
    with pytest.raises(FileNotFoundError, match=r"GRID.* no images"):
        peta.read("reid_grid", raw_dir=broken)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0099 upperBodyBlack carryingPiano", r"Label\.txt, line \d+: unknown attribute 'carryingPiano'"),
        ("0001 upperBodyBlack", r"Label\.txt, line \d+: person 0001 comes a second time"),
        ("x7 upperBodyBlack", r"Label\.txt, line \d+: starts with 'x7'"),
    ],
)
def test_wrong_labels(broken, line, message):
    with (broken / "GRID" / "archive" / "Label.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=message):
        peta.read("reid_grid", raw_dir=broken)


def test_images_that_do_not_belong(broken):
    image = PIL.Image.new("RGB", (8, 16))
    image.save(broken / "GRID" / "archive" / "holiday.jpeg")
    with pytest.raises(ValueError, match=r"holiday\.jpeg is not named as GRID's images are"):
        peta.read("reid_grid", raw_dir=broken)
    image.save(broken / "VIPeR" / "archive" / "500_0_1.bmp")
    with pytest.raises(ValueError, match=r"500_0_1\.bmp shows person 500, who has no line"):
        peta.read("reid_viper", raw_dir=broken)


def test_table_of_other_files(broken):
    folder = broken / "GRID" / "archive"
    (folder / "0005_5_32849_235_75_87_237.jpeg").rename(folder / "0001_6_32849_235_75_87_237.jpeg")
    with pytest.raises(
        ValueError,
        match=r"PETA.mat's row 33 speaks of person 2 of GRID with .*0001_6_32849_235_75_87_237.jpeg is person 1",
    ):
        peta.read("random_0", raw_dir=broken.parent)


def test_table_of_other_labels(broken):
    labels = broken / "MIT" / "archive" / "Label.txt"
    person = next(line for line in labels.read_text().splitlines() if line.startswith("00002"))
    labels.write_text(labels.read_text().replace(person, person.replace(person.split()[1], "")))
    with pytest.raises(ValueError, match=r"MIT/00002_female_fore\.jpg .*1 rows differ"):
        peta.read("random_0", raw_dir=broken.parent)


@pytest.mark.parametrize("spoil", ["text", "empty", "half", "other", "outside"])
def test_table_that_is_none(broken, spoil):
    mat = broken.parent / "PETA.mat"
    content = mat.read_bytes()
    if spoil == "other":
        scipy.io.savemat(mat, {"people": np.ones(3)})
    elif spoil == "outside":
        loaded = scipy.io.loadmat(mat)["peta"]
        loaded[0][0][3][2, 0][0][0][1][0] = 4000
        scipy.io.savemat(mat, {"peta": loaded})
    else:
        mat.write_bytes({"text": b"no table", "empty": b"", "half": content[: len(content) // 2]}[spoil])
    with pytest.raises(ValueError, match=r"PETA\.mat (cannot be read|has splits that point outside)"):
        peta.read("random_0", raw_dir=broken.parent)


@pytest.mark.skipif("ACRN_PETA_DIR" not in os.environ, reason="ACRN_PETA_DIR names no folder with PETA and PETA.mat")
def test_the_real_release():
    raw_dir = pathlib.Path(os.environ["ACRN_PETA_DIR"])
    images = release.read_images(release.find_archives(raw_dir))
    table = release.read_table(raw_dir / "PETA.mat")
    release.check_table(table, images)  # 19,000 of 19,000 agree on ids and on all labels
    assert len(images) == 19_000 and tuple(table.names[:35]) == reid.PETA_ATTRIBUTES
    assert [len(table.splits[4][split]) for split in ("train", "val", "test")] == [9500, 1900, 7600]


@pytest.fixture
def zero_shot(raw, tmp_path):
    """The fixture's images as a zero-shot split: a function of changes to the file, giving its path."""
    root, rows = raw
    people = sorted({row.person_id for row in rows})
    part = {person: ("train", "val", "test")[i % 3] for i, person in enumerate(people)}
    lists = {
        split: [i for i, row in enumerate(rows) if part[row.person_id] == split] for split in ("train", "val", "test")
    }

    def write(ending=".json", first=0, **changes):
        held = {split: [i + first for i in found] for split, found in lists.items()} | {"first_index": first} | changes
        held = {name: value for name, value in held.items() if value is not None}
        path = tmp_path / f"zs{ending}"
        if ending == ".json":
            path.write_text(json.dumps(held))
        elif ending == ".mat":
            scipy.io.savemat(path, held)
        else:
            np.savez(path, **held)
        return path

    return root, rows, lists, write


@pytest.mark.parametrize("ending", [".json", ".npz", ".mat"])
@pytest.mark.parametrize("first", [0, 1])
def test_zero_shot_split_of_a_file(zero_shot, ending, first):
    root, rows, lists, write = zero_shot
    path = write(ending, first)
    contents = peta.read("zero_shot_0", raw_dir=root, partition=path)
    for split, found in lists.items():
        assert [e.file_name for e in contents.splits[split]] == [rows[i].file_name for i in found]
    assert contents.metadata["partition_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    joined = write(ending, first, train=None, val=None, trainval=[i + first for i in lists["train"] + lists["val"]])
    contents = peta.read("zero_shot_0", raw_dir=root, partition=joined)
    assert contents.splits.keys() == {"train", "test"} and len(contents.splits["train"]) + len(lists["test"]) == len(
        rows
    )
    names = [f"{i:05}.png" for i in range(1, len(rows) + 1)]
    for right in (names, [row.file_name for row in rows]):
        assert peta.read("zero_shot_0", raw_dir=root, partition=write(".json", first, image_name=right)).splits


def test_zero_shot_files_that_are_not_as_wanted(zero_shot):
    root, rows, lists, write = zero_shot
    number = len(rows)
    names = [f"{i:05}.png" for i in range(1, number + 1)]
    wrong = {
        "does not say whether its numbers count from 0 or 1": {"first_index": None},
        "count from 0 or 1": {"first_index": 2},
        rf"test has the number {number}, outside of 0 to {number - 1}; is first_index, 0": {"test": [number]},
        "train is no list of whole numbers": {"train": ["a"]},
        "wanted are lists train, val and test": {"test": None},
        "twice; list each image once": {"test": [*lists["test"], lists["test"][0]]},
        "in train and test; an image is in one split": {"test": [lists["train"][0]]},
        "show people of test, e.g.": {"test": lists["val"][1:], "val": lists["val"][:1]},
        "has 1 names": {"image_name": names[:1]},
        r"image_name has 00000\.png as its image 0": {"image_name": [f"{i:05}.png" for i in range(number)]},
        "where PETA has": {"image_name": [row.file_name for row in rows[::-1]]},
    }
    shared = next(p for p in {row.person_id for row in rows} if sum(row.person_id == p for row in rows) > 1)
    images = [i for i, row in enumerate(rows) if row.person_id == shared]
    others = [i for i in range(number) if i not in images]
    wrong["show people of test, e.g."] = {"train": [*others, images[0]], "val": None, "test": images[1:]}
    for told, changes in wrong.items():
        with pytest.raises(ValueError, match=told):
            peta.read("zero_shot_0", raw_dir=root, partition=write(**changes))
    (pickled := write().with_suffix(".pkl")).write_bytes(b"\x80\x04.")
    with pytest.raises(ValueError, match="never opened here"):
        peta.read("zero_shot_0", raw_dir=root, partition=pickled)
    with pytest.raises(ValueError, match="wants --partition=FILE"):
        peta.read("zero_shot_0", raw_dir=root)
    with pytest.raises(ValueError, match="--partition is for the zero_shot_ configs"):
        peta.read("disjoint", raw_dir=root, partition=write())
    with pytest.raises(FileNotFoundError, match="--partition wants the indices"):
        peta.read("zero_shot_0", raw_dir=root, partition=root / "none.json")
