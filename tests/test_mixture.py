"""Runs trained on a mixture: whom its batches show, what the net may be scored on. Two layers as nets."""

import csv
import functools

import numpy as np
import pytest

from acrn_jax import build, runs
from acrn_jax.data import sampler, source
from acrn_jax.data_prep import prepare
from tests.fixtures import small_net

A, B, TEST = range(1, 9), range(9, 14), range(14, 18)  # people of two parts, and of a's query and gallery


def prepared(place, name, train, test=()):
    """Data set image_folder/`name` in place/data of the pictures in place/raw."""
    rows = []
    for row in csv.DictReader((place / "raw" / "images.csv").read_text().splitlines()):
        person, image = int(row["person_id"]), int(row["path"].split("_")[1][0])
        if person in (*train, *test):
            rows.append(row | {"split": "train" if person in train else ("query", "gallery")[image % 2]})
    file = place / f"{name}.csv"
    with file.open("w") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare.prepare("image_folder", name, data_dir=place / "data", raw_dir=place / "raw", csv=file)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data/: a (train, query, gallery), b (train), the mixture ab of what both train on."""
    place, before = tmp_path_factory.mktemp("mixture"), small_net.stand_in()
    (place / "raw").mkdir()
    small_net.write_images(place / "raw", people=17)
    prepared(place, "a", A, TEST)
    prepared(place, "b", B)
    parts = "image_folder/a:train,image_folder/b:train"
    prepare.prepare("mixture", "ab", data_dir=place / "data", parts=parts)
    yield place
    build.net = before


def config_of(place, part="reid", **changes):
    own = {"data.name": "mixture", "data.config": "ab", "loss.kind": "classic", "devices": 1}
    own["attributes.allow_overlap"] = False
    return small_net.config(part, place / "data", "ab", steps=8).changed(own | changes)


def test_parts_are_known_from_the_records(place):
    split = build.open_split(config_of(place), "train")
    assert len(split) == 6 * (len(A) + len(B))
    wanted = [{"a": 0, "b": 1}[name.split("/")[1]] for name in split.file_name]
    np.testing.assert_array_equal(source.part_numbers(split), wanted)
    some = split.take(np.arange(0, len(split), 3))
    np.testing.assert_array_equal(source.part_numbers(some), wanted[::3])
    for (dataset, part), letter, people in zip(source.parts(split), "ab", (A, B), strict=True):
        own = source.open_split(place / "data", "image_folder", letter, "train")
        assert dataset == "image_folder" and part.name == f"mixture/ab/train (image_folder/{letter})"
        there = {str(name): own.image_bytes(i) for i, name in enumerate(own.file_name)}
        assert {str(name): part.image_bytes(i) for i, name in enumerate(part.file_name)} == there
        assert len(np.unique(part.person_id)) == len(people)
    np.testing.assert_array_equal(source.part_numbers(own), 0)


PHASES = {
    "reid": {"reid.people": 4, "reid.images": 2, "reid.miner": "batch_hard", "loss.attribute_miner": "batch_hard"},
    "triplets": {"reid.triplets": 5, "reid.miner": "offline", "loss.attribute_miner": "offline"},
    "identity": {"identity.batch": 8},
    "mva": {"mva.batch": 8},
    "capped": {"mva.batch": 8, "mva.images_per_person": 2},
}


@pytest.mark.parametrize("kind", PHASES)
def test_batches_of_one_set(place, kind):
    """Rows and numbers of batches counted by loops; 48 and 30 images, capped 16 and 10."""
    phase = {"triplets": "reid", "capped": "mva"}.get(kind, kind)
    config = config_of(place, "mva" if phase == "mva" else "reid", **PHASES[kind])
    split = build.open_split(config, "train")
    plan = build.epoch_plan(config.changed({"data.batches": "one_set"}), split, phase)
    mixed = build.epoch_plan(config, split, phase)
    letter = np.array([name.split("/")[1] for name in split.file_name])
    for epoch in range(3):
        turns = [set(letter[batch]) for batch in plan(epoch)]
        assert all(len(turn) == 1 for turn in turns)
        wanted = {"reid": (6, 4), "triplets": (10, 6), "identity": (6, 4), "mva": (6, 4), "capped": (2, 2)}[kind]
        assert (turns.count({"a"}), turns.count({"b"})) == wanted
        assert any(len(set(letter[batch])) == 2 for batch in mixed(epoch))
        np.testing.assert_array_equal(
            plan(epoch), build.epoch_plan(config.changed({"data.batches": "one_set"}), split, phase)(epoch)
        )
        if kind == "triplets":
            anchor, positive, negative = np.split(split.person_id[plan(epoch)], 3, axis=1)
            assert (anchor == positive).all() and (anchor != negative).all()
    assert not np.array_equal(plan(0), plan(1))


def test_mixed_batches_are_those_of_one_large_set(place):
    config = config_of(place, **PHASES["reid"])
    split = build.open_split(config, "train")
    wanted = functools.partial(sampler.identity_plan, split.person_id, p=4, k=2, seed=config.seed)
    np.testing.assert_array_equal(build.epoch_plan(config, split, "reid")(3), wanted(epoch=3))
    alone = source.open_split(place / "data", "image_folder", "a", "train")  # one set, whatever the key says
    one = build.epoch_plan(config.changed({"data.batches": "one_set"}), alone, "reid")
    np.testing.assert_array_equal(one(3), build.epoch_plan(config, alone, "reid")(3))


def test_a_part_too_small_for_its_batches_is_named(place, tmp_path):
    config = config_of(place, **PHASES["reid"], **{"data.batches": "one_set"}).changed({"reid.people": 6})
    told = (
        r"reid\.people is 6, but there are 5 people to train on in mixture/ab/train \(image_folder/b\); ask for at most"
    )
    with pytest.raises(ValueError, match=told):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    build.check_images(config.changed({"data.batches": "mixed"}), build.open_split(config, "train"))
    with pytest.raises(ValueError, match=r"config\.data\.batches is 'one'; known: mixed, one_set"):
        config.changed({"data.batches": "one"})


def test_a_run_is_scored_on_people_whom_no_part_showed(place, tmp_path):
    run = tmp_path / "run"
    runs.train(config_of(place, **PHASES["reid"], **{"data.batches": "one_set"}), run)
    found = runs.evaluate(run, dataset="image_folder/a")
    assert found.config["data"]["name"] == "mixture" and found.dataset == "image_folder/a"
    prepared(place, "seen", A, B)
    with pytest.raises(ValueError, match=r"The run .* was trained on 15 images of image_folder/seen/query, e\.g\. "):
        runs.evaluate(run, dataset="image_folder/seen")
    assert runs.evaluate(run, dataset="image_folder/seen", allow_overlap=True).config["attributes"]["allow_overlap"]
    with pytest.raises(ValueError, match="mixture/ab has no split 'query'; it has train"):
        runs.evaluate(run)


def test_an_attribute_net_is_trained_and_not_scored(place, tmp_path, capsys):
    net = tmp_path / "net"
    runs.train(config_of(place, "mva", **{"data.batches": "one_set"}), net)
    assert "mixture/ab has no test images, so the net is not scored; another set has: " in capsys.readouterr().out
    assert runs.attribute_net(net).names == ("red", "green", "blue") and not (net / "recognition.json").exists()
    assert runs.evaluate(net, dataset="image_folder/a").split == "query+gallery"
    with pytest.raises(
        ValueError, match=r"attribute net .* was trained on 78 images of mixture/ab/train, e\.g\. image_f"
    ):
        runs.train(config_of(place, **{"loss.kind": "acrn", "attributes.from": str(net)}), tmp_path / "run")
