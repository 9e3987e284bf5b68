"""One entry of the table adds a metric everywhere; many settings at once agree with one by one."""

import numpy as np
import pytest

from acrn_jax.evaluation import metrics, protocols, ranking, resampling
from acrn_jax.evaluation.metrics import METRICS, Metric, Ranks
from acrn_jax.report import table, tables
from acrn_jax.results import Results
from acrn_jax.schema import Labels

LABELS = Labels(np.array([1, 2, 3, 1, 2, 3, 3]), np.array([1, 1, 1, 2, 2, 2, 2]))


def test_what_a_metric_is_given():
    found = Ranks.of(np.array([2, 5, 9, 1, 3, 4]), np.array([0, 3, 4]))
    assert found.count.tolist() == [3, 1, 2] and found.nth.tolist() == [1, 2, 3, 1, 1, 2]
    assert found.first.tolist() == [2, 1, 3] and found.last.tolist() == [9, 1, 4]
    assert found.mean(found.rank.astype(float)) == pytest.approx([16 / 3, 1, 3.5])
    assert metrics.rank_at(2).of(found).tolist() == [1, 1, 0]


@pytest.mark.parametrize("name", ["market1501", "cuhk03_single_shot", "cuhk03_torchreid"])
def test_an_entry_adds_a_metric_to_rankings_draws_and_intervals(name, monkeypatch):
    monkeypatch.setitem(METRICS, "last", Metric("one over last", lambda ranks: 1 / ranks.last))
    distances = np.random.default_rng(0).random((7, 7))
    found = ranking.evaluate(distances, LABELS, LABELS, protocol=protocols.named(name), no_match="skip")
    assert list(found.metrics)[-1] == "last" and 0 < found.metrics["last"] < 1
    if name == "cuhk03_single_shot":  # one right image: its rank is the last one's
        assert found.metrics["last"] == found.metrics["mAP_precision"]
    assert (found.deviation is not None and "last" in found.deviation) == (name == "cuhk03_single_shot")
    ends = resampling.intervals(found, groups=LABELS.person_id, resamples=20)["last"]
    assert ends.low <= found.metrics["last"] <= ends.high


def test_an_entry_adds_a_column(monkeypatch):
    monkeypatch.setitem(METRICS, "last", Metric("one over last", lambda ranks: 1 / ranks.last))
    methods = {"ACRN": dict.fromkeys(METRICS, 0.5)}
    found = tables.methods(Results.parse({"schema": 1, "dataset": "d/c", "protocol": "market1501", "methods": methods}))
    assert "last" in table.render(found)
    assert len(found.columns) == len(found.rows[0]) and found.columns[-1] == "one over last"


def test_many_settings_at_once():
    rng = np.random.default_rng(1)
    ranks = np.stack([[rng.permutation(np.arange(1, 9))[:4] for _ in range(5)] for _ in range(3)])
    valid = rng.random((5, 4)) < 0.6
    valid[2] = False
    found = metrics.of_many(ranks, valid)
    for s in range(3):
        for q in range(5):
            own = np.sort(ranks[s, q][valid[q]])
            for name, metric in METRICS.items():
                wanted = metric.of(Ranks.of(own, np.array([0])))[0] if own.size else 0
                assert found[name][s, q] == wanted
    assert not any(values.any() for values in metrics.of_many(ranks, np.zeros((5, 4), bool)).values())


def test_other_ranks():
    table = metrics.with_ranks((2, 50))
    found = ranking.evaluate(np.eye(7), LABELS, LABELS, protocol=protocols.MARKET1501, table=table)
    assert list(found.metrics) == ["mAP_precision", "mAP_trapezoid", "mINP", "rank2", "rank50"]
    assert found.metrics["rank50"] == 1
