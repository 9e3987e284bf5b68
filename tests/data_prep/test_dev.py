"""Dev configs: the training half split anew, held against plain loops."""

import json
import random
import re
import shutil

import numpy as np
import PIL.Image
import pytest

from acrn_jax import schema
from acrn_jax.data_prep import dev, prepare, reid
from acrn_jax.data_prep.cuhk03 import cuhk03_dataset_builder as cuhk03
from acrn_jax.data_prep.cuhk03 import release
from acrn_jax.data_prep.cuhk03_np import cuhk03_np_dataset_builder as cuhk03_np
from acrn_jax.data_prep.dukemtmc_reid import dukemtmc_reid_dataset_builder as duke
from acrn_jax.data_prep.market1501 import market1501_dataset_builder as market
from acrn_jax.data_prep.msmt17 import msmt17_dataset_builder as msmt17
from acrn_jax.evaluation import protocols, ranking
from tests.fixtures import cuhk03 as cuhk03_fixture
from tests.fixtures import dukemtmc_reid as duke_fixture
from tests.fixtures import market1501 as fixture
from tests.fixtures import msmt17 as msmt17_fixture
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
    assert told.startswith("dev fold 1, no official split; protocol market1501")
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


# The other sets


def fold(people, number):
    """The people of a fold of the miniature, size by size."""
    order = [int(p) for p in np.random.default_rng(0).permutation(sorted(people))]
    size = len(order) // 5
    return set(order[size * number : size * number + size])


@pytest.fixture(scope="module")
def duke_planted(tmp_path_factory):
    return duke_fixture.write(tmp_path_factory.mktemp("duke"))


def test_duke(duke_planted, tmp_path):
    half = shutil.copytree(duke_planted.root / "bounding_box_train", tmp_path / "half")
    duke_fixture.write_attributes(tmp_path / "a.mat")
    for place in (duke_planted.root, half):
        contents = duke.read_dev(3, raw_dir=place, attributes_mat=tmp_path / "a.mat")
        people = {split: {e.person_id for e in examples} for split, examples in contents.splits.items()}
        assert people["query"] == people["gallery"] == fold(duke_fixture.TRAIN, 3)
        assert people["train"] == set(duke_fixture.TRAIN) - people["query"] and not contents.faults
        assert sum(map(len, contents.splits.values())) == len(duke_planted.images["train"])
        assert contents.metadata["invalid_annotations"] == ["top of person 0370", "top of person 0679"]
    with pytest.raises(ValueError, match=r"query is not the training half; a dev config wants .*bounding_box_train"):
        duke.read_dev(0, raw_dir=duke_planted.root / "query")
    name = next(iter(duke_planted.images["query"]))
    shutil.copy(duke_planted.root / "query" / name, half)
    found = duke.read_dev(0, raw_dir=half, attributes_mat=tmp_path / "a.mat")
    assert len(found.faults) == 1 and name in found.faults[0] and "not of the training half" in found.faults[0]


@pytest.mark.parametrize("version", ["V1", "V2"])
def test_msmt17(tmp_path, version):
    planted = msmt17_fixture.write(tmp_path, version=version)
    (planted.root / "list_query.txt").unlink()
    (planted.root / "list_gallery.txt").unlink()
    shutil.rmtree(planted.root / msmt17_fixture.FOLDERS[version][1])
    contents = msmt17.read_dev(4, raw_dir=tmp_path)
    people = {split: {e.person_id for e in examples} for split, examples in contents.splits.items()}
    everybody = set(range(1, msmt17_fixture.PEOPLE + 1))
    assert people["query"] == people["gallery"] == fold(everybody, 4)
    assert people["train"] == everybody - people["query"] and not contents.faults
    assert sum(map(len, contents.splits.values())) == 9 * len(everybody)
    lines = (planted.root / "list_val.txt").read_text()
    (planted.root / "list_val.txt").write_text(lines + lines.splitlines()[0] + "\n")
    found = msmt17.read_dev(4, raw_dir=tmp_path)
    assert len(found.faults) == 1 and "listed twice" in found.faults[0]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return cuhk03_fixture.write(tmp_path_factory.mktemp("cuhk03"))


@pytest.fixture
def images(facts, tmp_path):
    """The miniature's images as files with official names, some of them JPEG."""
    for kind in cuhk03_fixture.KINDS:
        (tmp_path / "raw" / "cuhk" / kind).mkdir(parents=True)
        for i, (at, pixels) in enumerate(sorted(facts.images[kind].items())):
            name = cuhk03_fixture.name(at)
            name = name.replace(".png", ".jpg") if i % 3 == 0 else name
            PIL.Image.fromarray(pixels).save(tmp_path / "raw" / "cuhk" / kind / name)
    return tmp_path / "raw" / "cuhk"


def official_id(at):
    return sum((843, 440, 77, 58, 49)[: at[0] - 1]) + at[1]


@pytest.mark.parametrize("kind", cuhk03_fixture.KINDS)
@pytest.mark.parametrize("source", ["mat", "folder"])
def test_cuhk03(facts, images, kind, source):
    number = facts.person_id if source == "mat" else official_id  # a folder does not tell how many there are
    order = {number(at): at[:2] for k in cuhk03_fixture.KINDS for at in facts.images[k]}
    tested = {order[p] for p in fold(order, 1)}
    contents = cuhk03.read(f"{kind}_dev_1", raw_dir=facts.mat if source == "mat" else images.parent)
    assert not contents.faults and contents.metadata["protocol"] == "cuhk03_new" and contents.metadata["dev"]
    shown = {
        split: sorted((e.file_name[:-4], e.person_id, e.camera_id) for e in examples)
        for split, examples in contents.splits.items()
    }
    wanted = {"train": [], "test": []}
    for k in cuhk03_fixture.KINDS:
        for at in facts.images[k]:
            record = (f"{k}/{cuhk03_fixture.name(at)[:-4]}", number(at), 1 + (at[2] > 5))
            if at[:2] not in tested:
                wanted["train"].append(record)
            elif k == kind:
                wanted["test"].append(record)
    assert shown["train"] == sorted(wanted["train"])
    assert sorted(shown["query"] + shown["gallery"]) == sorted(wanted["test"])
    assert len({record[1:] for record in shown["query"]}) == len(shown["query"])


def test_cuhk03_tests_people_of_both_kinds_alone(images):
    for image in (images / "detected").glob("1_00[1-4]_*"):
        image.unlink()
    contents = cuhk03.read("labeled_dev_0", raw_dir=images)
    everybody = {e.person_id for examples in contents.splits.values() for e in examples}
    assert {1, 2, 3, 4} <= everybody
    assert {e.person_id for e in contents.splits["query"]} <= fold(everybody - {1, 2, 3, 4}, 0)
    shutil.rmtree(images / "detected")
    alone = cuhk03.read("labeled_dev_0", raw_dir=images)
    assert {e.person_id for e in alone.splits["gallery"]} == fold(everybody, 0)
    with pytest.raises(FileNotFoundError, match="has no detected images; choose a config of the other kind"):
        cuhk03.read("detected_dev_0", raw_dir=images)


def test_cuhk03_from_a_folder_to_both_protocols(images, tmp_path):
    folder = prepare.prepare("cuhk03", "detected_dev_2", raw_dir=images, data_dir=tmp_path / "data", allow_partial=True)
    builder = market.tfds.builder_from_directory(folder)
    assert builder.info.metadata["partial"] and builder.info.metadata["dev"]
    rule = protocols.named("cuhk03_new")._replace(name="market1501")  # as which the oracle knows it
    measured, loops, _ = trivial.rank(builder, rule)
    assert {name: measured[name] for name in loops} == pytest.approx(loops)
    parts = [trivial.records(builder, split) for split in ("query", "gallery")]
    x, y = (np.stack([trivial.feature(r["image"]) for r in part]) for part in parts)
    labels = [schema.Labels(*(np.array([int(r[k]) for r in p]) for k in ("person_id", "camera_id"))) for p in parts]
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    single = ranking.evaluate(distances, *labels, protocol=protocols.named("cuhk03_single_shot"), no_match="skip")
    assert single.metrics["mAP_precision"] >= single.metrics["rank1"] > 0  # one right image each
    with pytest.raises(FileNotFoundError, match="A folder of images has no test sets and serves configs such as"):
        cuhk03.read("detected_2", raw_dir=images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("1_001_2_01.png", "images 1 to 5 are of view 1 and 6 to 10 of view 2"),
        ("1_001_2_11.png", "images 1 to 5 are of view 1"),
        ("1_844_1_01.png", "pair 1 has people 1 to 843; remove it"),
        ("5_000_1_01.png", "pair 5 has people 1 to 49; remove it"),
        ("6_001_1_01.png", "is not named as 1_001_1_01.png is"),
        ("0000_01.jpg", "is not named as 1_001_1_01.png is"),
        ("2_001_1_01.bmp", "are the same image by their names; remove one"),
    ],
)
def test_cuhk03_names_that_are_wrong(images, tmp_path, name, message):
    first, *others = sorted((images / "labeled").glob("2_001_1_0*"))  # which may not begin with image 1
    first.rename(first.with_name("2_001_1_01.png"))
    for path in others:
        path.unlink()
    shutil.copy(next((images / "labeled").glob("1_*.png")), images / "labeled" / name)
    _, faults = release.read_folder(images)
    assert len(faults) == 1 and name in faults[0] and message in faults[0]
    with pytest.raises(ValueError, match=re.escape(message)):
        prepare.prepare("cuhk03", "labeled_dev_0", raw_dir=images, data_dir=tmp_path / "data", allow_partial=True)
    assert not (tmp_path / "data").exists()


def test_cuhk03_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No cuhk-03\.mat in .*, and no folder labeled or detected of images"):
        cuhk03.read("labeled_dev_0", raw_dir=tmp_path)
    (tmp_path / "labeled").mkdir()
    with pytest.raises(FileNotFoundError, match="labeled holds no images"):
        cuhk03.read("labeled_dev_0", raw_dir=tmp_path)


def test_cuhk03_np(facts, tmp_path):
    mat = cuhk03_np.read_dev("labeled", 0, raw_dir=facts.mat.parents[1])
    train = facts.splits["labeled"]["train"]
    people = {facts.person_id(at) for at in train}
    assert {e.person_id for e in mat.splits["query"]} <= fold(people, 0)
    names = sorted(e.file_name for examples in mat.splits.values() for e in examples)
    assert names == sorted(f"labeled/{cuhk03_fixture.name(at)}" for at in train)
    assert {e.person_id for e in mat.splits["train"]} == people - fold(people, 0)
    place = tmp_path / "np" / "labeled" / "bounding_box_train"
    place.mkdir(parents=True)
    for i, at in enumerate(train):
        name = f"{facts.person_id(at):04d}_c{1 + (at[2] > 5)}_{i}.png"
        PIL.Image.fromarray(facts.images["labeled"][at]).save(place / name)
    for raw_dir in (tmp_path / "np", place.parent, place):
        found = cuhk03_np.read_dev("labeled", 0, raw_dir=raw_dir)
        assert not found.faults and found.metadata["protocol"] == "cuhk03_new"
        assert {e.person_id for e in found.splits["train"]} == people - fold(people, 0)
        assert sum(map(len, found.splits.values())) == len(train)
    for raw_dir in (tmp_path / "np", place.parent, place):
        with pytest.raises(FileNotFoundError, match=r"has labeled images and no detected; choose labeled_dev_0"):
            cuhk03_np.read_dev("detected", 0, raw_dir=raw_dir)
    place.rename(place.with_name("query"))
    with pytest.raises(ValueError, match="query is not the training half"):
        cuhk03_np.read_dev("labeled", 0, raw_dir=place.with_name("query"))


@pytest.mark.parametrize(("builder", "configs"), [(duke, 6), (msmt17, 6), (market, 6), (cuhk03, 50), (cuhk03_np, 12)])
def test_configs(builder, configs):
    names = [config.name for config in builder.Builder.BUILDER_CONFIGS]
    assert len(set(names)) == configs and sum(dev.fold_of(name) is not None for name in names) == 5 * (
        1 + (configs > 6)
    )
