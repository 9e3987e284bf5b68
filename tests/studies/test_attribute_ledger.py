"""The ledger of two made-up runs, each number against loops."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from acrn_jax import build, settings
from acrn_jax.configs import demo
from acrn_jax.data import source
from acrn_jax.evaluation import attributes, methods, protocols, ranking
from acrn_jax.report import tables
from acrn_jax.report.table import render
from acrn_jax.results import Results
from acrn_jax.runs import AcrnRun
from acrn_jax.runs.outputs import Predictions
from acrn_jax.schema import Labels
from acrn_jax.studies import attribute_gain, attribute_ledger, finished
from acrn_jax.studies.finished import FinishedRun

NAMES = ("hairLong", "personalMale", "accessoryHat", "upperBodyLogo", "footwearShoes")
Q, G = 12, 40


def split(name, person, camera, attributes):
    key = np.array([f"{name}/{i}" for i in range(len(person))])
    labels = ("upperBodyLogo", "hairLong", "personalMale")  # another order, and not all
    rows = np.arange(len(person))
    return source.Split(f"drawn/x/{name}", key, key, person, camera, attributes, labels, {}, name, rows, lambda i: b"")


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Two runs below tmp_path/W; (folder, their FinishedRun, splits, logits)."""
    rng = np.random.default_rng(0)
    splits = {
        name: split(
            name,
            rng.integers(-1 if name == "gallery" else 1, 7, n),
            rng.integers(1, 4, n),
            rng.integers(-1, 2, (n, 3)).astype(np.int8),
        )
        for name, n in (("query", Q), ("gallery", G))
    }
    logits = {name: rng.normal(size=(len(s), 5)).astype(np.float32) for name, s in splits.items()}
    shown = [1 / (1 + np.exp(-logits[name])) for name in ("query", "gallery")]
    labels = [splits[name].labels for name in ("query", "gallery")]
    every = {}
    for seed in range(2):
        changes = {"seed": seed, "attributes.from": str(tmp_path / "M")}
        config = settings.read(demo.get_config("acrn")).changed(changes)
        folder = tmp_path / "W" / f"seed_{seed}"
        results = {"dataset": "drawn/x", "protocol": "market1501", "no_match": "skip", "methods": {"ACRN": {}}}
        results["methods"]["ACRN"] = {"mAP_precision": 0.5, "rank1": 0.5}
        keys = ("reliability", "accuracy", "between_within")
        results["weights"] = [
            {"name": n, "weight": 1.0} | dict.fromkeys(keys, 0.1 * i + seed) for i, n in enumerate(NAMES)
        ]
        results["weights"][4]["accuracy"] = None
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "results.json").write_text("{}")
        own = methods.Features(*(rng.normal(size=(n, 3)).astype(np.float32) for n in (Q, G)), 5.0)
        weights = np.array([1.0, -2.0, 0.5, 0.1 + seed, 0.0], np.float32)
        every[folder] = FinishedRun(
            AcrnRun(folder, config),
            Results.of(results),
            *labels,
            NAMES,
            weights,
            own,
            None,
            methods.Attributes(*shown, 0.3),
            None,
        )
    (tmp_path / "M").mkdir()
    rates = [{"name": n, "mA": v} for n, v in zip(NAMES, (0.9, 0.8, 0.7, None, 0.5), strict=True)]
    parts = {"seen": {"mA": 0.9}, "unseen": {"mA": 0.6, "attributes": rates[:1]}}
    (tmp_path / "M" / "recognition.json").write_text(
        json.dumps({"dataset": "peta/random_0", "split": "test", "mA": 0.75, "attributes": rates, **parts})
    )
    monkeypatch.setattr(finished, "load", lambda folder, out: every[folder])
    monkeypatch.setattr(build, "open_split", lambda config, name: splits[name])
    monkeypatch.setattr(
        AcrnRun, "predictions", lambda self, name, out: Predictions(splits[name].key, logits[name], NAMES)
    )
    return tmp_path, list(every.values()), splits, shown


def score(run, shown, weights):
    """Mean average precision and rank 1 of d_f / s_f + gamma d_w / s_a, by loops."""
    d = np.zeros((Q, G))
    for q in range(Q):
        for g in range(G):
            d[q, g] = np.sum((run.own.query[q].astype(float) - run.own.gallery[g]) ** 2) / 5.0
            d[q, g] += 0.5 / 0.3 * np.sum((weights * (shown[0][q].astype(float) - shown[1][g])) ** 2)
    labels = [Labels(run.query.person_id, run.query.camera_id), run.gallery]
    found = ranking.evaluate(d, *labels, protocol=protocols.MARKET1501, no_match="skip").metrics
    return found["mAP_precision"], found["rank1"]


def test_every_column(made, capsys):
    folder, every, splits, shown = made
    record = attribute_ledger.collect([folder / "W"], disjoint=folder / "M")
    content = json.loads(json.dumps(record.to_json()))
    rows = {entry["name"]: entry for entry in content["attributes"]}
    assert [e["name"] for e in content["attributes"]] == [
        "personalMale", "hairLong", "upperBodyLogo", "accessoryHat", "footwearShoes",
    ]  # fmt: skip
    assert rows["personalMale"]["weight"] == {"mean": 2.0, "deviation": 0.0, "runs": 2}
    assert rows["upperBodyLogo"]["weight"]["mean"] == pytest.approx(0.6)
    assert rows["upperBodyLogo"]["weight"]["deviation"] == pytest.approx(np.sqrt(0.5), abs=1e-6)
    assert rows["hairLong"]["recognition"] == {"mean": 0.9, "deviation": None, "runs": 1}  # one net, not two
    assert rows["hairLong"]["recognition_disjoint"]["mean"] == 0.9 and rows["upperBodyLogo"]["recognition"] is None
    assert rows["hairLong"]["recognition_unseen"]["mean"] == 0.9 and rows["hairLong"]["recognition_seen"] is None
    assert content["recognition"][0]["mA_seen"] == 0.9 and len(content["runs"]) == 2
    assert rows["accessoryHat"]["reliability"]["mean"] == pytest.approx(0.7)
    assert rows["footwearShoes"]["accuracy"] is None and rows["accessoryHat"]["auc"] is None
    for i, name in enumerate(NAMES):
        changes = []
        for run in every:
            keep = np.arange(5) != i
            changes.append(np.subtract(score(run, shown, run.weights * keep), score(run, shown, run.weights)))
        for column, values in zip(("mAP_change", "rank1_change"), np.transpose(changes), strict=True):
            assert rows[name][column]["mean"] == pytest.approx(values.mean(), abs=1e-6), (name, column)
            assert rows[name][column]["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-6)
    assert any(row["mAP_change"]["mean"] != 0 for row in rows.values())
    assert rows["footwearShoes"]["mAP_change"]["mean"] == 0  # its weight is 0
    pairs = [
        (shown[s][i, 0], part.attributes[i, 1])  # hairLong
        for s, part in enumerate(splits.values())
        for i in range(len(part))
        if part.person_id[i] > 0 and part.attributes[i, 1] >= 0
    ]
    wins = [x > y for x, is_yes in pairs if is_yes for y, other in pairs if not other]
    assert rows["hairLong"]["auc"]["mean"] == pytest.approx(np.mean(wins))
    assert content["spearman"]["recognition"]["attributes"] == 4
    assert content["spearman"]["between_within"]["attributes"] == 5

    attribute_ledger.write(folder, record)
    assert json.loads((folder / "ledger.json").read_text()) == content
    lines = list(csv.DictReader((folder / "ledger.csv").read_text().splitlines()))
    assert [line["attribute"] for line in lines] == list(rows) and lines[3]["auc"] == ""
    assert float(lines[2]["weight_deviation"]) == rows["upperBodyLogo"]["weight"]["deviation"]
    text = render(tables.ledger(record)) + render(tables.ledger_spearman(record))
    text = " ".join(text.split())
    assert "0.600 ± 0.707" in text and "people whom training never" in text and "mA seen" not in text


def test_wrong_runs_are_told(made, tmp_path, monkeypatch):
    folder, every, _, _ = made
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="neither a run"):
        attribute_ledger.collect([tmp_path / "empty"])
    odd = every[1].config.changed({"data.name": "market1501"})
    every[1] = every[1]._replace(run=dataclasses.replace(every[1].run, config=odd))
    monkeypatch.setattr(finished, "load", lambda folder, out: next(run for run in every if run.folder == folder))
    with pytest.raises(ValueError, match="a run on market1501 with 5 attributes"):
        attribute_ledger.collect([run.folder for run in every])
    (folder / "M" / "recognition.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no recognition.json; run ./launch.sh evaluate"):
        attribute_ledger.collect([every[0].folder])


def test_gains_are_those_of_rankings_with_the_truth_in_place_of_one_attribute(made, monkeypatch):
    folder, every, splits, shown = made
    truth = tuple(part.attributes_of(NAMES) for part in splits.values())
    every = [run._replace(truth=truth) for run in every]
    monkeypatch.setattr(finished, "load", lambda folder, out: next(run for run in every if run.folder == folder))
    with pytest.raises(ValueError, match=r"at most 1, not by 1\.5"):
        attribute_ledger.collect([folder / "W"], rise=1.5)
    record = attribute_ledger.collect([folder / "W"], rise=1.0)  # all answers that the target knows
    gained = {entry.name: entry.gain for entry in record.attributes}
    assert gained["accessoryHat"] is gained["footwearShoes"] is None
    for name in ("upperBodyLogo", "hairLong", "personalMale"):
        i, changes = NAMES.index(name), []
        better = [values.copy() for values in shown]
        for values, labels in zip(better, truth, strict=True):
            for image, label in enumerate(labels[:, i]):
                if label >= 0:
                    values[image, i] = label
        for run in every:
            changes.append(score(run, better, run.weights)[0] - score(run, shown, run.weights)[0])
        gain = gained[name]
        assert gain.mean == pytest.approx(np.mean(changes), abs=1e-6) and gain.low < gain.mean < gain.high
    assert gained["hairLong"].mean != 0
    attribute_ledger.write(folder, record)
    lines = {line["attribute"]: line for line in csv.DictReader((folder / "ledger.csv").read_text().splitlines())}
    assert float(lines["hairLong"]["gain_low"]) == gained["hairLong"].low and lines["accessoryHat"]["gain"] == ""
    text = " ".join(render(tables.ledger_gain(record)).split())
    assert "raised by 100 points" in text and f"{100 * gained['hairLong'].mean:+.2f}" in text
    assert tables.ledger_gain(attribute_ledger.collect([folder / "W"])) is None
    dark = [run._replace(truth=tuple(np.full_like(of, -1) for of in truth)) for run in every]
    with pytest.raises(ValueError, match="labels none of the attributes"):
        attribute_gain.gains(dark, 0.1)


def test_so_many_answers_are_corrected_that_the_accuracy_rises_as_wanted(made, monkeypatch):
    _, (run, _), _, _ = made
    rng, taken = np.random.default_rng(1), []
    labels = rng.integers(0, 2, (4000, 5)).astype(np.int8)
    answers = np.where(rng.random(labels.shape) < 0.7, labels, 1 - labels).astype(np.float32)
    halves = [slice(0, 1000), slice(1000, 4000)]
    people = [Labels(np.ones(of.stop - of.start, int), np.ones(of.stop - of.start, int)) for of in halves]
    run = run._replace(
        truth=tuple(labels[of] for of in halves),
        attributes=methods.Attributes(*(answers[of] for of in halves), 0.3),
        query=people[0],
        gallery=people[1],
    )

    def score(run, sweep):
        raise StopIteration  # the terms are looked at, no ranking is made

    monkeypatch.setattr(attribute_gain.fusion, "distance_rows", lambda kind, *pair: taken.append(pair))
    monkeypatch.setattr(attribute_gain.sweeps, "score", score)
    with pytest.raises(StopIteration):
        attribute_gain.gains([run], 0.1, draws=2)
    first, again = taken[2:]
    for pair in (first, again):
        found = np.concatenate(pair) / run.weights[0]
        accuracy = attributes.evaluate(found[:, :1].clip(0, 1), labels[:, :1]).mA
        assert accuracy == pytest.approx(0.8, abs=0.02)
    assert not np.array_equal(first[0], again[0]) and np.array_equal(first[0][:, 1:], taken[1][0][:, 1:])
