"""An attribute net's wish lists: which images, people and probabilities are taken, and what is written."""

import json

import numpy as np
import pytest

from acrn_jax import build, files
from acrn_jax.configs import demo
from acrn_jax.data import sampler, source
from acrn_jax.evaluation import attribute_query, calibration
from acrn_jax.results import AttributeQueries
from acrn_jax.runs import attribute_calibration, attribute_queries, origin, overlap
from acrn_jax.runs.run import AttributeRun

NAMES = ("hat", "bag", "red", "skirt", "coat")  # of the net; the data set has them in another order, and no coat
SHOWN = ("skirt", "red", "bag", "hat")
CURVE = calibration.Platt(np.full(5, 0.5), np.full(5, 0.1), np.ones(5, bool))


@pytest.fixture
def made(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(1, 61), 3)
    labels = (rng.random((60, 4)) < [0.4, 0.3, 0.2, 0.1])[person - 1].astype(np.int8)
    logits = np.full((180, 5), 9.0, np.float32)
    logits[:, :4] = 2 * (2 * labels[:, ::-1] - 1) + 3 * rng.normal(size=(180, 4))
    names = np.array([f"{'A' if p % 2 else 'B'}/{i}.jpg" for i, p in enumerate(person)])
    metadata = {"protocol": "market1501"}
    read = names.__getitem__
    split = source.Split(
        "drawn/a/test", names, names, person, person, labels, SHOWN, metadata, "f" * 64, np.arange(180), read
    )
    config = json.loads(demo.get_config("attributes").to_json_best_effort())
    files.write_json(tmp_path / "net" / "config.json", config)
    files.write_json(tmp_path / "net" / "attributes.json", {"attribute_names": list(NAMES)})
    checked = []
    monkeypatch.setattr(build, "recognition_split", lambda config, name=None: split)
    monkeypatch.setattr(AttributeRun, "outputs", lambda run, of, **_: {"attribute_logits": logits[of.rows]})
    monkeypatch.setattr(overlap, "check_scored_on", lambda run, target, splits: checked.extend(splits))
    monkeypatch.setattr(origin, "of_nets", lambda folders, unfinished: {"made_of": {"run": {"steps": 1}}})
    about = {"kind": "fitted", "fitted_on": "drawn/a/val", "images": 9, "raw": [], "recognition": None}
    monkeypatch.setattr(attribute_calibration, "calibrated", lambda *given: (CURVE, about))
    return tmp_path, split, logits[:, 3::-1], checked  # logits in the data set's order


def test_probabilities_are_calibrated_and_joined_by_name(made):
    folder, split, logits, checked = made
    found = attribute_queries.score(folder / "net", each=5, seed=2)
    assert AttributeQueries.read(folder / "net" / "attribute_query.json") == found and checked == [split]
    assert found.attributes == ("hat", "bag", "red", "skirt") and found.probabilities["fitted_on"] == "drawn/a/val"
    labels = split.attributes[:, ::-1]
    lists = attribute_query.draw(labels, each=5, seed=2)
    wanted = attribute_query.evaluate(
        CURVE.probabilities(np.c_[logits[:, ::-1], logits[:, :1]])[:, :4], labels, split.person_id, NAMES[:4], lists
    )
    assert found.rows["product"].metrics == pytest.approx(wanted["rows"]["product"]["metrics"])
    assert found.rows["product"].metrics["mAP_precision"] > 0.2 + found.rows["random"].metrics["mAP_precision"]
    text = (folder / "net" / "attribute_query.md").read_text()
    assert f"{100 * found.rows['squares'].metrics['rank1']:.1f}" in text and "| true labels |" in text
    again = attribute_queries.score(folder / "net", stored=folder / "net" / "attribute_query.json", out=folder / "out")
    assert again.lists_sha256 == found.lists_sha256 and again.seed is None and (folder / "out").is_dir()


def test_one_half_of_the_people_is_scored_by_what_the_other_teaches(made):
    folder, split, logits, _ = made
    halves = [
        attribute_queries.score(folder / "net", half=half, each=5, out=folder / half)
        for half in attribute_queries.HALVES
    ]
    assert [found.people for found in halves] == [30, 30] and halves[0].lists_sha256 != halves[1].lists_sha256
    first = sampler.half_of_people(split.person_id, "first_half")
    curve = calibration.platt(logits[~first], split.attributes[~first])
    probabilities = curve.probabilities(logits)[:, ::-1]
    labels = split.attributes[:, ::-1]
    lists = attribute_query.draw(labels[first], each=5)
    scored = attribute_query.score(
        lambda w: attribute_query.costs(probabilities[first], w.wishes), labels[first], lists
    )
    assert halves[0].rows["product"].metrics == pytest.approx(scored.mean())
    assert {"learned_product", "learned_log_odds"} < halves[0].rows.keys() and halves[0].half == "first_half"


def test_sub_sets_and_what_is_refused(made, tmp_path):
    folder, *_ = made
    found = attribute_queries.score(folder / "net", subsets=["A"], each=3, out=folder / "a")
    assert found.people == 30 and found.split == "test A"
    with pytest.raises(ValueError, match=r"--subsets names C, which drawn/a/test does not hold; it has A, B\."):
        attribute_queries.score(folder / "net", subsets=["A", "C"])
    files.write_json(folder / "run" / "config.json", json.loads(demo.get_config("acrn").to_json_best_effort()))
    with pytest.raises(ValueError, match="is no attribute net"):
        attribute_queries.score(folder / "run")
    files.write_json(folder / "lists.json", {"wish_lists": [{"want": ["coat"], "not": [], "band": "rare"}]})
    with pytest.raises(ValueError, match="list 0 wishes for coat"):
        attribute_queries.score(folder / "net", stored=folder / "lists.json", out=folder / "b")
    assert not (folder / "b" / "attribute_query.json").exists()
