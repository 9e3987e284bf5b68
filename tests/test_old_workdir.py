"""A workdir of 0.1.0 is used by today's code as it was by its own: scored anew, reported, taken into tables."""

import json

import numpy as np
import pytest

from acrn_jax import build, runs
from acrn_jax.report import html
from acrn_jax.results import Ledger, PerQuery, RankLists, Recognition, Results
from acrn_jax.studies import attribute_ledger, table
from tests.fixtures import old_workdir, small_net


@pytest.fixture
def old(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "net", small_net.net)
    monkeypatch.chdir(tmp_path)
    return old_workdir.extract(tmp_path).relative_to(tmp_path)


def test_checkpoints_are_loaded_and_give_the_same_scores(old, tmp_path):
    before = Results.read(old / "results.json")
    runs.evaluate(old, baseline=old / "baseline", out=tmp_path / "again")
    again = Results.read(tmp_path / "again" / "results.json")
    assert list(again.methods) == list(before.methods) and len(before.methods) == 8
    for method, metrics in before.methods.items():
        assert again.methods[method] == pytest.approx(metrics, abs=1e-9), method  # ranks, which rounding hardly moves
    assert [w.weight for w in again.weights] == pytest.approx([w.weight for w in before.weights], rel=1e-5)
    assert again.scales == pytest.approx(before.scales, rel=1e-5)
    assert (again.made_of["run"]["values"], again.fingerprint) == (before.made_of["run"]["values"], before.fingerprint)
    with np.load(old / "per_query.npz") as plain:
        arrays = PerQuery.read(tmp_path / "again" / "per_query.npz").to_arrays()
        assert all(np.allclose(arrays[name], plain[name]) for name in plain if plain[name].dtype.kind == "f")
    lists = [RankLists.read(folder / "rank_lists.json").splits["query"] for folder in (old, tmp_path / "again")]
    pictures = [[item.image for query in of["hardest"] for item in query.gallery] for of in lists]
    assert pictures[0] == pictures[1]


def test_the_attribute_net_is_scored_alike(old, tmp_path):
    before = Recognition.read(old / "attribute_net" / "recognition.json")
    runs.evaluate(old / "attribute_net", out=tmp_path / "again")
    again = Recognition.read(tmp_path / "again" / "recognition.json")
    assert again.rates() == before.rates() and again.unseen == before.unseen and again.f1 == before.f1


def test_it_is_reported_and_taken_into_tables(old, tmp_path):
    page = html.write([old, old / "attribute_net"], tmp_path / "report.html").read_text()
    for part in ("<h3>Attribute ledger</h3>", "<h3>Ablations</h3>", "Look-alikes that attributes tell apart", "31.7"):
        assert part in page
    assert "<h3>Ablations</h3>" in html.render([html.read(old / "gamma" / "reference" / "seed_0")])
    assert table.of_methods([old]).to_json() == json.loads((old / "methods" / "table.json").read_text())
    before = Ledger.read(old / "ledger.json")
    again = attribute_ledger.collect([old])
    assert [entry.name for entry in again.attributes] == [entry.name for entry in before.attributes]
    for entry, old_entry in zip(again.attributes, before.attributes, strict=True):
        assert entry.auc.mean == pytest.approx(old_entry.auc.mean, rel=1e-5)  # other versions of jax round otherwise
    assert again.spearman.keys() == before.spearman.keys()
