import io
import itertools
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from acrn_jax.data_prep import reid
from acrn_jax.data_prep.synthetic_pedestrians import drawing, people, scene
from acrn_jax.data_prep.synthetic_pedestrians import synthetic_pedestrians_dataset_builder as module

NAMES = people.ATTRIBUTE_NAMES
UNIT, TOP = 2.2, 18  # of the canvases drawn here
LOOK = people.Look(
    upper=(60, 120, 60),
    lower=(110, 80, 60),
    hair=(60, 40, 20),
    skin=(225, 175, 140),
    hat=(180, 60, 40),
    muffler=(200, 160, 40),
    backpack=(40, 80, 160),
    bag=(160, 40, 90),
    case=(40, 140, 150),
    width=1.0,
    height=1.0,
    head=1.0,
)
# Rows, in hundredths of a body height, outside of which an attribute may change nothing.
REGIONS = {
    "carryingBackpack": (17, 46),
    "carryingOther": (48, 99),
    "upperBodyFormal": (15, 62),
    "accessoryHat": (-5, 7),
    "upperBodyJacket": (15, 58),
    "lowerBodyJeans": (46, 95),
    "footwearLeatherShoes": (79, 100),
    "upperBodyLogo": (37, 50),
    "hairLong": (0, 41),
    "personalMale": (11, 100),
    "carryingMessengerBag": (17, 65),
    "accessoryMuffler": (13, 40),
    "upperBodyPlaid": (15, 55),
    "carryingPlasticBags": (50, 77),
    "footwearSandals": (79, 100),
    "footwearShoes": (79, 100),
    "lowerBodyShorts": (46, 95),
    "upperBodyShortSleeve": (17, 56),
    "lowerBodyShortSkirt": (44, 95),
    "footwearSneaker": (79, 100),
    "upperBodyThinStripes": (15, 55),
    "accessorySunglasses": (4, 14),
    "lowerBodyTrousers": (46, 95),
    "upperBodyVNeck": (15, 38),
}


def person(view, *shown):
    """Pixels of one drawn person, float [128, 64, 3]: as in a finished image, without camera."""
    canvas = Image.new("RGB", scene.CANVAS, (150, 160, 165))
    pose = drawing.Pose(view, centre=64, top=TOP, unit=UNIT, stride=0.5)
    drawing.draw_person(canvas, LOOK, dict.fromkeys(shown, True), pose)
    return np.asarray(canvas.reduce(drawing.SUPERSAMPLING), float)


def jpegs(examples, count):
    return [example.image for example in itertools.islice(examples, count)]


def test_names_are_peta_s_in_peta_s_order():
    assert len(NAMES) >= 20
    positions = [reid.PETA_ATTRIBUTES.index(name) for name in NAMES]
    assert positions == sorted(positions)
    assert set(REGIONS) | set(people.NOTHING) == set(NAMES)


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("view", drawing.VIEWS)
def test_an_attribute_changes_its_part_of_the_body_and_nothing_else(name, view):
    group = next(group for group in people.GROUPS if name in group)
    dressed = {"lowerBodyTrousers", "footwearLeatherShoes"} - set(group)
    change = np.abs(person(view, *dressed, name) - person(view, *dressed)).max(2)  # [128, 64]
    low, high = ((TOP + UNIT * unit) / drawing.SUPERSAMPLING for unit in REGIONS[name])
    rows = np.flatnonzero((change > 0).any(1))
    assert rows.min() >= low - 1 and rows.max() <= high + 1
    assert (change > 40).sum() >= 20  # pixels of 8,192


@pytest.mark.parametrize("view", drawing.VIEWS)
def test_members_of_a_group_look_different(view):
    for group in people.GROUPS:
        for one, other in itertools.combinations(group, 2):
            assert (np.abs(person(view, one) - person(view, other)).max(2) > 40).sum() >= 20, (one, other)


@pytest.mark.parametrize("view", drawing.VIEWS)
def test_an_attribute_stays_visible_whatever_else_is_worn(view):
    """Each change must survive a full outfit: a backpack hides no logo, long hair no muffler."""
    generator = np.random.default_rng(0)
    for attributes in people.draw_attributes(30, generator):
        outfit = {name for name, yes in zip(NAMES, attributes, strict=True) if yes}
        for group in people.GROUPS:
            name = str(generator.choice(list(group)))
            rest = outfit - set(group)
            assert (np.abs(person(view, *rest, name) - person(view, *rest)).max(2) > 30).sum() >= 6, (name, rest)


def test_labels_are_consistent():
    attributes = people.draw_attributes(2000, np.random.default_rng(0))
    for group in people.GROUPS:
        held = attributes[:, [people.COLUMN[name] for name in group]]
        assert held.sum(1).max() == 1
        np.testing.assert_allclose(held.mean(0), list(group.values()), atol=0.04)
    for row in attributes:
        has = dict(zip(NAMES, row, strict=True))
        assert (
            has["lowerBodyJeans"] + has["lowerBodyTrousers"] + has["lowerBodyShorts"] + has["lowerBodyShortSkirt"] == 1
        )
        assert has["accessoryNothing"] == (
            not (has["accessoryHat"] or has["accessoryMuffler"] or has["accessorySunglasses"])
        )
        bags = ("carryingBackpack", "carryingOther", "carryingMessengerBag", "carryingPlasticBags")
        assert has["carryingNothing"] == (not any(has[bag] for bag in bags))


def test_shown_attributes_are_as_reliable_as_stated():
    generator = np.random.default_rng(0)
    reliability = module.reliability(3)
    assert list(reliability) == list(NAMES)
    true = people.draw_attributes(20_000, generator)
    shown = people.show(true, reliability, generator)
    for group in people.GROUPS:
        for name, rate in group.items():
            t, s = true[:, people.COLUMN[name]], shown[:, people.COLUMN[name]]
            p = reliability[name]
            assert s[t].mean() == pytest.approx(p + (1 - p) * rate, abs=0.02)  # seen where it is true
            assert s[~t].mean() == pytest.approx((1 - p) * rate, abs=0.02)  # seen where it is not
    for column, name in enumerate(NAMES):  # derived ones too
        assert np.corrcoef(true[:, column], shown[:, column])[0, 1] == pytest.approx(reliability[name], abs=0.03)


def test_unreliable_attributes_err_independently():
    generator = np.random.default_rng(0)
    singles = [next(iter(group)) for group in people.GROUPS if len(group) == 1]
    true = people.draw_attributes(20_000, generator)
    wrong = people.show(true, module.reliability(0), generator) != true
    wrong = wrong[:, [people.COLUMN[name] for name in singles]]
    wrong = wrong[:, wrong.any(0)]  # one attribute is never wrong
    assert np.abs(np.corrcoef(wrong.T) - np.eye(wrong.shape[1])).max() < 0.03


def test_reliability_is_spread_anew_by_each_seed():
    firsts = {tuple(module.reliability(seed).items()) for seed in range(5)}
    assert len(firsts) == 5
    for seed in range(5):
        values = sorted(module.reliability(seed)[next(iter(group))] for group in people.GROUPS)
        assert (values[0], values[-1]) == module.RELIABILITY
        assert np.diff(values).min() > 0 and np.diff(values).max() < 0.25


@pytest.mark.parametrize("examples", [module.source_examples, module.target_examples])
def test_a_seed_decides_every_byte(examples):
    sizes = {"train": 8, "val": 8, "test": 8, "distractors": 8, "junk": 8}
    assert jpegs(examples("train", 0, sizes), 6) == jpegs(examples("train", 0, sizes), 6)
    assert not set(jpegs(examples("train", 0, sizes), 6)) & set(jpegs(examples("train", 1, sizes), 6))


def test_target_follows_the_market_protocol():
    plan = module.target_plan(0, module.TARGET_SIZES)
    rows = {split: [row for row in plan.rows if row.split == split] for split in ("train", "query", "gallery")}
    people_of = {split: {row.person_id for row in rows[split]} for split in rows}
    assert len(people_of["train"]) == module.TARGET_SIZES["train"]
    assert len(people_of["query"]) == module.TARGET_SIZES["test"]
    assert not people_of["train"] & people_of["gallery"] and min(people_of["train"] | people_of["query"]) >= 1
    assert people_of["gallery"] == people_of["query"] | {reid.DISTRACTOR, reid.JUNK}
    assert {row.camera for row in plan.rows} == set(range(module.CAMERAS))
    for query in rows["query"]:
        assert any(row.person_id == query.person_id and row.camera != query.camera for row in rows["gallery"])
    assert len({(row.person_id, row.camera) for row in rows["query"]}) == len(rows["query"])
    strangers = {row.person for row in rows["gallery"] if row.person_id == reid.DISTRACTOR}
    assert len(strangers) == module.TARGET_SIZES["distractors"]
    assert not strangers & {row.person for row in plan.rows if row.person_id != reid.DISTRACTOR}
    assert len({row.file_name for row in plan.rows}) == len(plan.rows)


def test_junk_shows_less_of_the_person():
    def dressed_share(cut):
        generator = np.random.default_rng(0)
        camera = scene.draw_camera(np.random.default_rng(1))._replace(occlusion=0.0, noise=0.0, gain=np.ones(3))
        look = LOOK._replace(**dict.fromkeys(("upper", "lower", "hair", "skin"), (255, 0, 255)))
        shown = np.zeros(len(NAMES), bool)
        images = [Image.open(io.BytesIO(scene.photograph(look, shown, camera, generator, cut=cut))) for _ in range(10)]
        pixels = np.stack([np.asarray(image, int) for image in images])
        return ((pixels[..., 0] > 180) & (pixels[..., 1] < 90)).mean()

    assert dressed_share(True) < 0.7 * dressed_share(False)


@pytest.mark.parametrize(
    ("config", "splits", "protocol"),
    [
        ("source_tiny", {"train": 80, "val": 10, "test": 20}, "attributes"),
        ("target_tiny", {"train", "query", "gallery"}, "market1501"),
    ],
)
def test_builder_writes_what_was_drawn(tmp_path, config, splits, protocol):
    builder = module.Builder(config=config, data_dir=tmp_path, file_format="array_record")
    builder.download_and_prepare()
    assert "tensorflow" not in sys.modules
    read = tfds.builder_from_directory(builder.data_path)
    assert read.info.metadata["attribute_names"] == list(NAMES)
    assert read.info.metadata["protocol"] == protocol
    assert ("reliability" in read.info.metadata) == (protocol == "market1501")
    assert set(read.info.splits) == set(splits)
    if isinstance(splits, dict):
        assert {split: read.info.splits[split].num_examples for split in splits} == splits
    draw = module.target_examples if protocol == "market1501" else module.source_examples
    seen = {}
    for split in splits:
        drawn = list(draw(split, 0, builder.builder_config.sizes))
        stored = read.as_data_source(split=split, decoders={"image": tfds.decode.SkipDecoding()})
        assert len(stored) == len(drawn)
        for record, example in zip(stored, drawn, strict=True):
            assert record["image"] == example.image
            assert record["key"].decode() == f"synthetic_pedestrians/{config}/{example.file_name}"
            assert (record["person_id"], record["camera_id"]) == (example.person_id, example.camera_id)
            np.testing.assert_array_equal(record["attributes"], example.attributes)
        seen[split] = {example.person_id for example in drawn}
        assert Image.open(io.BytesIO(drawn[0].image)).size == (drawing.WIDTH, drawing.HEIGHT)
    assert not seen["train"] & (seen.get("query", set()) | seen.get("val", set()) | seen.get("test", set()))


def test_true_attributes_of_a_target_are_the_person_s():
    attributes = {}
    for split in ("query", "gallery"):
        for example in module.target_examples(split, 0, {"train": 4, "test": 6, "distractors": 4, "junk": 4}):
            if example.person_id > 0:
                attributes.setdefault(example.person_id, set()).add(tuple(example.attributes))
    assert {len(found) for found in attributes.values()} == {1}
    assert len(set.union(*attributes.values())) > 3
