"""Dev configs: the training half split anew, held against plain loops."""

import json
import random
import shutil

import numpy as np
import pytest

from acrn_jax.data_prep import dev, prepare, reid
from acrn_jax.data_prep.market1501 import market1501_dataset_builder as market
from acrn_jax.evaluation import protocols
from tests.fixtures import market1501 as fixture
from tests.fixtures import trivial

RELEASED = sorted(market.TRAIN_PEOPLE)


@pytest.mark.parametrize(
    ("config", "fold"),
    [("dev_0", 0), ("detected_dev_12", 12), ("default", None), ("dev", None), ("labeled_3", None), ("xdev_1", None)],
)
def test_fold_of_a_config(config, fold):
    assert dev.fold_of(config) == fold


def test_folds_are_slices_of_one_permutation():
    order = np.random.default_rng(0).permutation(RELEASED).tolist()
    assert len(RELEASED) == 751 and order[:4] == [616, 620, 10, 206]  # folds stay what they were published as
    for fold in range(5):
        assert dev.tested(reversed(RELEASED * 2), fold) == set(order[150 * fold : 150 * fold + 150])
        assert dev.tested(RELEASED, fold, most=100) == set(order[100 * fold : 100 * fold + 100])
    assert dev.tested(range(1, 6), 4) == {int(np.random.default_rng(0).permutation([1, 2, 3, 4, 5])[4])}
    with pytest.raises(ValueError, match="4 people are too few for 5 dev folds"):
        dev.tested(range(4), 0)


def made(seed, people=200, cameras=4):
    """Images of people in some cameras, one to three in each, in any order."""
    draw = random.Random(seed)
    found = []
    for person in range(1, people + 1):
        for camera in draw.sample(range(1, cameras + 1), draw.randint(1, cameras)):
            found += [
                reid.Example(b"", f"{person}_{camera}_{i}", person, camera) for i in range(draw.choice([1, 1, 2, 3]))
            ]
    draw.shuffle(found)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_query_and_gallery(seed):
    examples = made(seed)
    query, gallery = dev.query_and_gallery(examples)
    assert sorted(query + gallery) == sorted(examples)  # each image once
    assert len({(q.person_id, q.camera_id) for q in query}) == len(query)
    for q in query:  # each has a match in another camera
        assert any(g.person_id == q.person_id and g.camera_id != q.camera_id for g in gallery)
    asked = {(q.person_id, q.camera_id) for q in query}
    kinds = set()
    for person, camera in {
        (e.person_id, e.camera_id) for e in examples
    } - asked:  # who asks no question has none to ask
        elsewhere = [e for e in examples if e.person_id == person and e.camera_id != camera]
        assert all(e in query for e in elsewhere)  # nothing of them in the gallery
        kinds.add(bool(elsewhere))
    assert kinds == {True, False}  # people of one camera, and single images of several
    assert len({q.file_name[-1] for q in query}) == 3  # any of a camera's images may be the one


def test_the_choice_depends_on_neither_order_nor_other_people():
    examples = made(7)
    query, gallery = dev.query_and_gallery(examples)
    random.Random(1).shuffle(examples)
    again = dev.query_and_gallery(examples)
    assert query == again[0] and gallery == again[1]
    few = [e for e in examples if e.person_id % 3 == 0]
    assert dev.query_and_gallery(few)[0] == [q for q in query if q.person_id % 3 == 0]


def test_two_lone_images_ask_one_question():
    lone = [reid.Example(b"", f"1_{camera}", 1, camera) for camera in (2, 1)]
    query, gallery = dev.query_and_gallery(lone)
    assert [q.camera_id for q in query] == [2] and [g.camera_id for g in gallery] == [1]
    with pytest.raises(ValueError, match="None of 1 people tested is seen by two cameras"):
        dev.query_and_gallery(lone[:1])


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("raw"))


@pytest.fixture
def half(planted, tmp_path):
    """A copy of bounding_box_train by another name."""
    return shutil.copytree(planted.root / "bounding_box_train", tmp_path / "raw" / "half")


def test_every_place_of_the_training_half_gives_the_same(planted, half):
    """The release, a folder above it, its folder, and a folder of its files alone."""
    places = [planted.root, planted.root.parent, planted.root / "bounding_box_train", half, half.parent]
    found = [market.read_dev(2, raw_dir=place) for place in places]
    for contents in found:
        assert not contents.faults and contents.metadata["dev"] and contents.metadata["dev_fold"] == 2
        names = {split: [e.file_name for e in examples] for split, examples in contents.splits.items()}
        assert names == {split: [e.file_name for e in examples] for split, examples in found[0].splits.items()}
        everything = sorted(name for part in names.values() for name in part)
        assert everything == sorted(f"bounding_box_train/{name}" for name in planted.images["train"])


def test_folds_of_the_miniature(planted):
    order = np.random.default_rng(0).permutation(sorted(fixture.TRAIN)).tolist()
    for fold in range(5):
        splits = market.read_dev(fold, raw_dir=planted.root).splits
        people = {split: {e.person_id for e in examples} for split, examples in splits.items()}
        assert people["query"] == people["gallery"] == {order[fold]}
        assert people["train"] == set(fixture.TRAIN) - {order[fold]}
        for split, examples in splits.items():
            for e in examples:
                assert (e.person_id, e.camera_id) == planted.images["train"][e.file_name.split("/")[1]], split


def test_from_a_folder_of_images_to_a_metric(planted, half, tmp_path):
    """With attributes of the training people alone."""
    values = fixture.write_attributes(tmp_path / "a.mat")
    fixture.write_struct(tmp_path / "a.mat", "market_attribute", values, {"train": fixture.PARTS["train"]})
    options = {"raw_dir": half, "attributes_mat": tmp_path / "a.mat", "data_dir": tmp_path / "data"}
    with pytest.raises(ValueError, match=r"training half: 48 images of 8 people, officially 12,936 of 751"):
        prepare.prepare("market1501", "dev_1", **options)
    assert not (tmp_path / "data").exists()
    folder = prepare.prepare("market1501", "dev_1", **options, allow_partial=True)
    builder = market.tfds.builder_from_directory(folder)
    about = builder.info.metadata
    assert (about["dev"], about["dev_fold"], about["dev_seed"], about["partial"]) == (True, 1, 0, True)
    measured, loops, _ = trivial.rank(builder, protocols.MARKET1501)
    assert measured == pytest.approx(loops)
    at = about["attribute_names"].index("personalMale")
    for split in builder.info.splits:
        for record in trivial.records(builder, split):
            assert record["attributes"][at] == (values[int(record["person_id"])]["gender"] == 1)
    told = json.loads((folder / "notes.json").read_text())["summary"]
    assert told.startswith("dev fold 1 of the training half, protocol market1501")
    with pytest.raises(ValueError, match="no struct of train and test"):
        market.read(raw_dir=planted.root, attributes_mat=tmp_path / "a.mat")


def test_the_default_needs_no_name(planted, tmp_path):
    folder = prepare.prepare("market1501", raw_dir=planted.root, data_dir=tmp_path, allow_partial=True)
    assert folder.parts[-2] == "default"
    with pytest.raises(ValueError, match=r"No config of market1501 'dev_5'; did you mean dev_"):
        prepare.prepare("market1501", "dev_5", raw_dir=planted.root, data_dir=tmp_path)


def spoil(planted, half, how):
    """Puts something beside the training half's images that is none of it."""
    if how == "a test person":
        name = next(n for n, (person, _) in planted.images["query"].items() if person > 0)
        shutil.copy(planted.root / "query" / name, half / name)
    elif how in ("junk", "a distractor"):
        name = next(n for n in planted.images["gallery"] if n.startswith("-1" if how == "junk" else "0000"))
        shutil.copy(planted.root / "bounding_box_test" / name, half / name)
    elif how == "a second folder":
        shutil.copytree(half, half.parent / "query")
    else:
        (half / "0002.jpg").write_bytes(b"")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("a test person", r"half/0\d\d\d_c\S+ shows person \d, who is not of the training half"),
        ("junk", r"half/-1_c\S+ shows person -1, who is not of the training half"),
        ("a distractor", r"half/0000_c\S+ shows person 0, who is not of the training half"),
        ("a second folder", r"half and \S+query both hold images and neither is called bounding_box_train"),
        ("another name", r"half/0002\.jpg is not named as 0002_c1s1_000451_03\.jpg is"),
    ],
)
def test_folders_that_are_not_the_training_half(planted, half, tmp_path, how, message):
    spoil(planted, half, how)
    options = {"raw_dir": half.parent, "data_dir": tmp_path / "data", "allow_partial": True}
    with pytest.raises(ValueError, match=message):
        prepare.prepare("market1501", "dev_0", **options)
    assert not (tmp_path / "data").exists()


def test_folders_without_the_training_half(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere; --raw_dir wants"):
        market.read_dev(0, raw_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="has neither bounding_box_train nor images"):
        market.read_dev(0, raw_dir=tmp_path)
