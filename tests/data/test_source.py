import json
import pickle
import shutil

import numpy as np
import pytest

from acrn_jax.data import source


def by_name(split):
    return {name: i for i, name in enumerate(split.file_name)}


def test_columns_say_what_was_prepared(train):
    assert len(train) == 20 and train.name == "tiny/plain/train" and train.protocol == "market1501"
    assert train.attribute_names == ("hat", "bag", "skirt")
    i = by_name(train)["0003_c2_1.jpeg"]
    assert train.key[i] == "tiny/plain/0003_c2_1.jpeg"
    assert (train.person_id[i], train.camera_id[i], train.attributes[i].tolist()) == (3, 2, [1, 1, -1])
    assert train.person_id.dtype == train.camera_id.dtype == np.int32 and train.attributes.dtype == np.int8
    assert train.attributes.shape == (20, 3)
    np.testing.assert_array_equal(train.labels.person_id, train.person_id)


@pytest.mark.parametrize("keep_bytes", [0, 2**20])
def test_images_are_the_bytes_that_came(data_dir, builder, keep_bytes):
    split = source.open_split(data_dir, "tiny", "plain", "train", keep_bytes=keep_bytes)
    official = {key: example["image"].getvalue() for key, example in builder._generate_examples()}
    assert {key: split.image_bytes(i) for i, key in enumerate(split.key)} == official
    assert pickle.loads(pickle.dumps(split)).image_bytes(7) == split.image_bytes(7)


def test_take_is_a_view(train):
    part = train.take(train.person_id == 4)
    assert len(part) == 4 and set(part.person_id) == {4}
    swapped = part.take(np.array([3, 0]))
    assert swapped.key.tolist() == [part.key[3], part.key[0]]
    assert swapped.image_bytes(0) == train.image_bytes(by_name(train)[swapped.file_name[0]])
    assert len({train.fingerprint, part.fingerprint, swapped.fingerprint}) == 3
    assert part.fingerprint == train.take(np.flatnonzero(train.person_id == 4)).fingerprint
    with pytest.raises(ValueError, match="20 records"):
        train.take(np.ones(3, bool))


def test_joined_splits_keep_their_records_and_images(train, data_dir):
    parts = [train.take([3, 1]), train.take([5]), train.take([0, 2, 19])]
    whole = source.join(parts)
    for columns in ("key", "person_id", "camera_id", "attributes"):
        np.testing.assert_array_equal(getattr(whole, columns), getattr(train, columns)[[3, 1, 5, 0, 2, 19]])
    images = [train.image_bytes(i) for i in (3, 1, 5, 0, 2, 19)]
    assert [whole.image_bytes(i) for i in range(6)] == images and len(set(images)) == 6
    assert whole.take([4, 2]).image_bytes(0) == images[4]
    assert source.join([train]) is train and whole.name == "tiny/plain/train+train+train"
    # What is said of sets without reading them, where prepare has left no fingerprint.
    for splits in (["train"], ["train", "train"]):
        found = source.fingerprint(data_dir, "tiny", "plain", splits)
        assert found == source.join([train] * len(splits)).fingerprint


def test_attributes_by_name(train):
    expected = [[skirt, -1, hat] for hat, _, skirt in train.attributes]
    assert np.unique(train.attributes[:, [0, 2]]).size > 1
    found = train.attributes_of(["skirt", "umbrella", "hat"])
    assert found.dtype == np.int8 and found.tolist() == expected
    assert train.attributes_of([]).shape == (20, 0)


def test_fingerprint_is_the_one_that_prepare_writes(train, marks, builder, tmp_path):
    assert train.fingerprint == marks["train"]["sha256"]  # computed: no file there
    folder = shutil.copytree(builder.data_path, tmp_path / "tiny/plain/1.0.0")
    (folder / "fingerprint.json").write_text(json.dumps({"train": {"sha256": "stored"}}))
    assert source.open_split(tmp_path, "tiny", "plain", "train").fingerprint == "stored"


def test_newest_version_is_read(builder, tmp_path):
    for version in ("1.0.0", "1.9.0", "1.10.0", "1.11.0.incomplete"):
        folder = shutil.copytree(builder.data_path, tmp_path / "tiny/plain" / version)
        (folder / "fingerprint.json").write_text(json.dumps({"train": {"sha256": version}}))
    assert source.open_split(tmp_path, "tiny", "plain", "train").fingerprint == "1.10.0"


@pytest.mark.parametrize(
    ("change", "error", "sentence"),
    [
        ({"data_dir": "nowhere"}, FileNotFoundError, r"no data folder nowhere.*launch.sh prepare --dataset=tiny"),
        ({"dataset": "market1501"}, FileNotFoundError, r"market1501/plain is not prepared.*there: tiny/plain.*prepare"),
        ({"config_name": "odd"}, FileNotFoundError, r"tiny/odd is not prepared"),
        ({"split": "test"}, ValueError, r"no split 'test'; it has .*train"),
    ],
)
def test_what_is_not_there_is_said(data_dir, change, error, sentence):
    wanted = {"data_dir": data_dir, "dataset": "tiny", "config_name": "plain", "split": "train"} | change
    with pytest.raises(error, match=sentence):
        source.open_split(**wanted)


def test_of_many_sets_the_nearest_are_named(tmp_path):
    for number in range(20):
        folder = tmp_path / "drawn" / f"target_{number}" / "1.0.0"
        folder.mkdir(parents=True)
        (folder / "dataset_info.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"there: drawn/\w+(, drawn/target_\d+){5} and 14 more\); prep"):
        source.open_split(tmp_path, "drawn", "target_x", "train")
