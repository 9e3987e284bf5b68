import os
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import scipy.io
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.cuhk03_np import cuhk03_np_dataset_builder as builder
from acrn_jax.evaluation import protocols
from tests.fixtures import cuhk03 as fixture
from tests.fixtures import trivial


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def read(facts, tmp_path):
    """Reads the labeled config with a protocol file of the given variables."""

    def with_table(table):
        scipy.io.savemat(tmp_path / "protocol.mat", table)
        return builder.read("labeled", raw_dir=facts.mat, protocol_mat=tmp_path / "protocol.mat")

    return with_table


@pytest.mark.parametrize("kind", fixture.KINDS)
def test_splits_are_the_planted_ones(facts, kind):
    contents = builder.read(kind, raw_dir=facts.mat.parents[1])
    for split, places in facts.splits[kind].items():
        assert [(e.file_name, e.person_id, e.camera_id) for e in contents.splits[split]] == [
            (f"{kind}/{fixture.name(at)}", facts.person_id(at), 1 + (at[2] > 5)) for at in places
        ]
    assert not contents.faults and contents.metadata["protocol"] == "cuhk03_new"
    assert len(contents.metadata["protocol_mat_sha256"]) == 64


def test_official_counts():
    assert {"labeled", "detected"} < set(builder.Builder.builder_configs)
    for kind, images in (("labeled", 14_096), ("detected", 14_097)):
        assert sum(counts.images for counts in builder.OFFICIAL[kind].values()) == images
        assert builder.OFFICIAL[kind]["train"].people + builder.OFFICIAL[kind]["query"].people == 1467


def test_the_miniature_is_not_the_official_release(facts):
    with pytest.raises(ValueError, match=r"train: \d+ images of 9 people, officially 7,368 of 767; query"):
        _ = builder.Builder(options={"raw_dir": facts.mat.parents[1]}, config="labeled").contents


@pytest.mark.parametrize("kind", fixture.KINDS)
def test_from_release_to_metric(facts, tmp_path, kind):
    options = {"raw_dir": facts.mat.parents[1], "allow_partial": True}
    made = builder.Builder(options=options, data_dir=tmp_path, config=kind)
    made.download_and_prepare(file_format="array_record")
    prepared = tfds.builder_from_directory(made.data_path)
    assert prepared.info.metadata["protocol"] == "cuhk03_new" and prepared.info.metadata["partial"]
    # The oracle knows the rule as Market-1501's.
    rule = protocols.named("cuhk03_new")._replace(name="market1501")
    measured, loops, chance = trivial.rank(prepared, rule)
    assert {name: measured[name] for name in loops} == pytest.approx(loops)
    assert measured["mAP_precision"] > chance["mAP_precision"] + 0.3 and measured["rank1"] > chance["rank1"] + 0.3


@pytest.mark.parametrize("raw_dir", [".", "cuhk03_release", "cuhk03_release/cuhk-03.mat"])
def test_protocol_is_found_beside_the_release(facts, raw_dir):
    root = facts.mat.parents[1]
    assert builder._find_protocol(root / raw_dir, facts.mat, "detected").resolve() == facts.protocol["detected"]


def test_protocol_of_the_other_kind(facts):
    contents = builder.read("labeled", raw_dir=facts.mat, protocol_mat=facts.protocol["detected"])
    missing = set(facts.images["detected"]) - set(facts.images["labeled"])
    assert len(contents.faults) == len(missing) > 0
    assert contents.faults[0].endswith("is not among the labeled images of cuhk-03.mat.")
    with pytest.raises(ValueError, match=r"filelist \d+: \d_.*faults in all"):
        options = {"raw_dir": facts.mat, "protocol_mat": facts.protocol["detected"], "allow_partial": True}
        _ = builder.Builder(options=options, config="labeled").contents


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t["filelist"][:1].fill("1_001_2_02.png"), r"filelist 1: 1_001_2_02.png is not a name such as"),
        (lambda t: t["filelist"][:1].fill("holiday.png"), r"filelist 1: holiday.png is not a name such as"),
        (lambda t: t["filelist"][:1].fill("6_001_1_01.png"), r"filelist 1: 6_001_1_01.png is not among the labeled"),
        (
            lambda t: t["labels"][:1].fill(9),
            r"filelist 1: .* is labelled person 9 in view 1, and by its name .* person 1",
        ),
        (lambda t: t["camId"][:1].fill(2), r"is labelled person 1 in view 2, and by its name it is person 1 in view 1"),
        (lambda t: t["query_idx"][:1].fill(t["gallery_idx"][0, 0]), r"png comes twice in the splits"),
        (lambda t: t["train_idx"][:1].fill(t["gallery_idx"][0, 0]), r"Person \d+ is in train .* and in test"),
    ],
)
def test_contradictions_are_faults(facts, read, change, fault):
    table = fixture.table(facts, "labeled")
    change(table)
    assert any(re.search(fault, said) for said in reid.examine(read(table)).faults)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("filelist"), "no variable 'filelist'"),
        (lambda t: t.pop("gallery_idx"), "no variable 'gallery_idx'"),
        (lambda t: t.update(filelist=np.ones((4, 1))), "filelist holds more than names"),
        (lambda t: t.update(filelist="one name"), r"1 names in filelist, \d+ labels"),
        (lambda t: t.update(labels=t["labels"][1:]), r"names in filelist, \d+ labels"),
        (lambda t: t.update(labels=t["labels"] + 0.5), "labels holds more than whole numbers"),
        (lambda t: t.update(labels=t["labels"] * np.nan), "labels holds more than whole numbers"),
        (lambda t: t.update(camId="view 1"), "camId holds more than whole numbers"),
        (lambda t: t["query_idx"][:1].fill(0), "query_idx points outside"),
        (lambda t: t["train_idx"][:1].fill(5_000), "train_idx points outside"),
    ],
)
def test_what_is_no_protocol(facts, read, change, message):
    table = fixture.table(facts, "labeled")
    change(table)
    with pytest.raises(ValueError, match=message) as caught:
        read(table)
    assert "protocol.mat" in str(caught.value)


def test_numbers_may_be_doubles(facts, read):
    table = {k: v if k == "filelist" else v.astype(float) for k, v in fixture.table(facts, "labeled").items()}
    assert not read(table).faults


def test_missing_files(facts, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No .*nowhere; --raw_dir wants"):
        builder.read("labeled", raw_dir=tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"No cuhk-03\.mat in .*, and no folder labeled with bounding_box_train"
    ):
        builder.read("labeled", raw_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No file .*none\.mat"):
        builder.read("labeled", raw_dir=facts.mat, protocol_mat=tmp_path / "none.mat")
    shutil.copy(facts.mat, tmp_path)
    with pytest.raises(FileNotFoundError, match=r"No cuhk03_new_protocol_config_labeled\.mat in .*--protocol_mat=FILE"):
        builder.read("labeled", raw_dir=tmp_path)


@pytest.fixture
def unpacked(facts, tmp_path):
    """The set as images, cuhk03-np/KIND/FOLDER/PERSON_cVIEW_NUMBER.png."""
    for kind in fixture.KINDS:
        for split, folder in builder.FOLDERS.items():
            (tmp_path / "cuhk03-np" / kind / folder).mkdir(parents=True)
            for at in facts.splits[kind][split]:
                name = f"{facts.person_id(at):04d}_c{1 + (at[2] > 5)}_{at[2]}.png"
                PIL.Image.fromarray(facts.images[kind][at]).save(tmp_path / "cuhk03-np" / kind / folder / name)
    (tmp_path / "cuhk03-np" / "labeled" / "query" / "Thumbs.db").write_bytes(b"not an image")
    return tmp_path


@pytest.mark.parametrize("place", [".", "cuhk03-np", "cuhk03-np/labeled"])
def test_the_set_as_images(facts, unpacked, place):
    contents = builder.read("labeled", raw_dir=unpacked / place)
    whole = builder.read("labeled", raw_dir=facts.mat)
    assert contents.counts() == whole.counts() and not contents.faults
    for split, examples in contents.splits.items():
        assert sorted(e[2:4] for e in examples) == sorted(e[2:4] for e in whole.splits[split])
        assert all(pathlib.Path(e.image).is_file() and e.file_name.startswith(builder.FOLDERS[split]) for e in examples)
    (unpacked / "cuhk03-np" / "labeled" / "query" / "0001_c3_1.png").write_bytes(b"")
    assert "0001_c3_1.png is not named as 0001_c1_1.png is" in builder.read("labeled", raw_dir=unpacked).faults[0]
    shutil.rmtree(unpacked / "cuhk03-np" / "labeled" / "query")
    with pytest.raises(FileNotFoundError, match="query"):
        builder.read("labeled", raw_dir=unpacked)


@pytest.mark.skipif(
    "ACRN_CUHK03_NP_DIR" not in os.environ, reason="ACRN_CUHK03_NP_DIR names no folder with the two .mat"
)
@pytest.mark.parametrize("kind", fixture.KINDS)
def test_the_real_protocol(kind):
    path = pathlib.Path(os.environ["ACRN_CUHK03_NP_DIR"]) / f"cuhk03_new_protocol_config_{kind}.mat"
    found = builder.read_protocol(path)
    people = (843, 440, 77, 58, 49)
    for name, person, camera in zip(found.names, found.person_id, found.camera_id, strict=True):
        pair, number, view, image = (int(part) for part in name.removesuffix(".png").split("_"))
        assert (sum(people[: pair - 1]) + number, view) == (person, camera) and view == 1 + (image > 5)
    assert max(found.person_id) == sum(people) == 1467
    counts = {split: reid.Counts(len(rows), len(set(found.person_id[rows]))) for split, rows in found.splits.items()}
    assert counts == builder.OFFICIAL[kind]
