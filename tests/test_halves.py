"""An attribute net on half of a re-id set's training people, and an ACRN on the other half. Two layers as nets."""

import csv
import types

import numpy as np
import pytest

from acrn_jax import build, runs, settings
from acrn_jax.configs import mva_peta
from acrn_jax.data import source
from acrn_jax.data_prep import prepare
from acrn_jax.results import PerImage
from acrn_jax.runs import phases
from acrn_jax.studies import attribute_ledger, job
from tests.fixtures import small_net


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data/ (train, query and gallery, no test), net/ of the first half, run/ of the second."""
    place, before = tmp_path_factory.mktemp("halves"), small_net.stand_in()
    (place / "raw").mkdir()
    rows = list(csv.DictReader(small_net.write_images(place / "raw", people=28).read_text().splitlines()))
    with (place / "images.csv").open("w") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(row | {"split": row["split"].replace("test", "gallery")} for row in rows)
    prepare.prepare("image_folder", "people", data_dir=place / "data", raw_dir=place / "raw", csv=place / "images.csv")
    try:
        runs.train(config_of("mva", place, "first_half"), place / "net")
        runs.reproduce(config_of("reid", place, "second_half"), attributes=place / "net", workdir=place / "run")
        yield place
    finally:
        build.net = before


def config_of(part, place, half, **changes):
    own = {"data.people_part": half, "attributes.allow_overlap": False, "devices": 1, "mva.batch": 8}
    return small_net.config(part, place / "data", "people", steps=8).changed(own | changes)


def people_of(place, half):
    split = runs.load(place).training_images(None)
    return set(split.person_id.tolist())


def test_both_train_on_people_of_their_own(place):
    first, second = people_of(place / "net", "first_half"), people_of(place / "run", "second_half")
    assert len(first) == len(second) == 7 and not first & second
    assert first | second == set(range(1, 29, 2))  # write_images: odd ones train
    assert people_of(place / "run" / "baseline", "second_half") == second
    records = [
        phases.read(folder)["records"]["fingerprint"] for folder in (place / "net" / "mva", place / "run" / "reid")
    ]
    assert records[0] != records[1]


@pytest.mark.parametrize("half", ["all", "first_half"])
def test_a_net_that_saw_the_people_is_refused(place, half, tmp_path):
    config = config_of("reid", place, half, **{"attributes.from": str(place / "net")})
    with pytest.raises(ValueError, match="was trained on 42 images of image_folder/people/train"):
        runs.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_it_is_recognised_on_the_test_people_and_on_the_other_half(place, tmp_path):
    net = runs.load(place / "net")
    found = runs.evaluate(place / "net", out=tmp_path / "again")
    assert (found.split, found.images_trained_on, found.seen) == ("query+gallery", None, None)
    labels, said = [], []
    for name in ("query", "gallery"):
        split = build.open_split(net.config, name)
        labels.append(split.attributes)
        said.append(net.outputs(split)["attribute_logits"] > 0)
    yes, said = np.concatenate(labels) == 1, np.concatenate(said)
    for column, entry in enumerate(found.attributes):
        right = said[yes[:, column], column].mean(), (~said[~yes[:, column], column]).mean()
        assert entry.mA == pytest.approx(np.mean(right), abs=1e-6)
    other = runs.evaluate(place / "net", out=tmp_path / "other", split="train")
    assert (other.split, other.images_trained_on, other.unseen.images) == (
        "train",
        42,
        other.images - other.seen.images,
    )
    with pytest.raises(ValueError, match="--split=train wants --out"):
        runs.evaluate(place / "net", split="train")
    with pytest.raises(ValueError, match="--split=train is for attribute nets"):
        runs.evaluate(place / "run", split="train", out=tmp_path / "no")


def test_weights_and_truth_stand_beside_each_other(place):
    ledger = attribute_ledger.collect([place / "run"])
    assert ledger.spearman["accuracy"].attributes == ledger.spearman["recognition_unseen"].attributes == 3
    assert all(entry.recognition.mean == entry.recognition_unseen.mean for entry in ledger.attributes)


def test_attributes_are_left_out_by_name(place, tmp_path):
    config = config_of("mva", place, "first_half", **{"data.exclude_attributes": ("green",)})
    split = build.attribute_split(config)
    whole = build.attribute_split(config.changed({"data.exclude_attributes": ()}))
    assert split.attribute_names == ("red", "blue")
    np.testing.assert_array_equal(split.attributes, whole.attributes[:, [0, 2]])
    with pytest.raises(ValueError, match=r"no attribute of .*'gren'; did you mean 'green'"):
        build.attribute_split(config.changed({"data.exclude_attributes": ("gren",)}))
    runs.train(config, tmp_path / "net")
    assert runs.load(tmp_path / "net").names == ("red", "blue")


def test_a_study_scores_each_image_of_the_same_people(place):
    config = config_of("mva", place, "first_half")
    job._score_images(types.SimpleNamespace(config=config, folder=place / "net"))
    told = PerImage.read(place / "net" / "per_image.npz")
    assert sorted(told.person_id.tolist()) == sorted(6 * list(range(2, 29, 2)))


def test_sub_sets_of_a_mixture_are_left_out_of_attribute_training(monkeypatch):
    """Its files are called NAME/CONFIG/FILE, those of a set itself FILE."""
    for name, before in (("peta", ""), ("mixture", "peta/random_0/")):
        files = np.array([f"{before}{subset}/{i}.png" for i, subset in enumerate(("GRID", "MIT", "GRID", "3DPeS"))])
        split = source.Split(
            name=name,
            key=files,
            file_name=files,
            person_id=np.arange(1, 5),
            camera_id=np.full(4, -1),
            attributes=np.array([[0], [1], [1], [0]], np.int8),
            attribute_names=("personalMale",),
            metadata={"protocol": "attributes"},
            fingerprint="f",
            rows=np.arange(4),
            read=lambda i: b"",
        )
        monkeypatch.setattr(build, "open_split", lambda config, which, split=split: split)
        config = settings.read(mva_peta.get_config("small")).changed(
            {"data.name": name, "data.exclude_subsets": ("GRID",), "data.dir": "D"}
        )
        assert build.attribute_split(config).person_id.tolist() == [2, 4]
        with pytest.raises(ValueError, match=r"names VIPeR, which .* does not hold; it has 3DPeS, GRID, MIT"):
            build.attribute_split(config.changed({"data.exclude_subsets": ("VIPeR",)}))
