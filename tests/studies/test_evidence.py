"""The oracle is per query: numbers drawn here, means by hand, and the table of the runs themselves."""

import json
import subprocess
import sys

import numpy as np
import pytest

from acrn_jax.results import PerQuery
from acrn_jax.studies import evidence, table

METHODS = ("ReIdCNN", "ACRN")


def evaluated(folder, *, seed=0, draws=False, place="/home/somebody/runs/M"):
    """A folder with results of 12 queries of 6 people, the last one without a match."""
    drawn, counted = np.random.default_rng(seed), np.arange(12) < 11
    each, first, methods = {}, {}, {}
    for method in METHODS:
        first[method] = np.where(counted, drawn.integers(1, 30, 12), 0)
        ap = np.where(counted, drawn.random(12), 0.0)
        ranks = {f"rank{k}": np.where(counted, first[method] <= k, 0).astype(float) for k in (1, 5, 10, 20)}
        if draws:
            ranks = {name: values * 0.9 for name, values in ranks.items()}
        each[method] = {"mAP_precision": ap, "mINP": ap / 2, **ranks}
        methods[method] = {name: float(values[counted].mean()) for name, values in each[method].items()}
    folder.mkdir()
    scored = PerQuery(np.array([f"q{i}" for i in range(12)]), np.arange(12) // 2, counted, each, first)
    np.savez(folder / "per_query.npz", **scored.to_arrays())
    about = {
        **{"dataset": "market1501/dev_0", "protocol": "market1501", "methods": methods, "queries": 12},
        **{"seeds": {"seed": seed}, "config": {"seed": seed, "attributes": {"from": place}}, "fingerprint": "f0"},
    }
    (folder / "results.json").write_text(json.dumps(about))
    return scored


@pytest.mark.parametrize("draws", [False, True])
def test_the_file_gives_the_scores_of_the_runs_back(tmp_path, draws):
    runs = [tmp_path / "a", tmp_path / "b"]
    scored = [evaluated(folder, seed=i, draws=draws) for i, folder in enumerate(runs)]
    names = evidence.write(runs, tmp_path / "kept" / "market.npz")
    assert names == ["market1501/dev_0/seed_0", "market1501/dev_0/seed_1"]
    found = evidence.read(tmp_path / "kept" / "market.npz")
    assert list(found) == names
    for (about, back), given in zip(found.values(), scored, strict=True):
        assert about.dataset == "market1501/dev_0" and back.person_id.tolist() == given.person_id.tolist()
        for method in METHODS:
            assert back.first_rank[method].tolist() == given.first_rank[method].tolist()
            for metric in ("mAP_precision", "rank1", "rank5", "rank10", "rank20"):
                assert back.scores[method][metric] == pytest.approx(given.scores[method][metric], abs=1e-7)
            assert "mINP" not in back.scores[method]


def test_intervals_are_those_of_the_runs(tmp_path):
    runs = [tmp_path / "a", tmp_path / "b"]
    for i, folder in enumerate(runs):
        evaluated(folder, seed=i)
    evidence.write(runs, tmp_path / "market.npz")
    of_runs = {(r.arm, r.metric): r for r in table.of_methods(runs, "ReIdCNN").rows}
    of_file = {(r.arm, r.metric): r for r in table.of_methods([tmp_path / "market.npz"], "ReIdCNN").rows}
    assert of_file.keys() == {key for key in of_runs if key[1] != "mINP"} and len(of_file) == 10
    for key, row in of_file.items():
        assert row.mean == pytest.approx(of_runs[key].mean, abs=1e-7)
        if row.arm == "ACRN":
            ends = [(r.difference, r.low, r.high) for r in (row, of_runs[key])]
            assert ends[0] == pytest.approx(ends[1], abs=1e-6) and row.low < row.difference < row.high


def test_it_names_no_place_of_the_machine(tmp_path):
    evaluated(tmp_path / "a")
    evidence.write([tmp_path / "a"], tmp_path / "market.npz")
    [(about, _)] = evidence.read(tmp_path / "market.npz").values()
    assert about.config["attributes"]["from"] == "M"


def test_what_it_is_not_is_told(tmp_path):
    evaluated(tmp_path / "a")
    evaluated(tmp_path / "b")
    with pytest.raises(ValueError, match=r"a and .*b are both market1501/dev_0/seed_0; one file holds one run of each"):
        evidence.write([tmp_path / "a", tmp_path / "b"], tmp_path / "market.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz, not 'market\.csv'"):
        evidence.write([tmp_path / "a"], tmp_path / "market.csv")
    with pytest.raises(FileNotFoundError, match=r"no file .*other\.npz; .* report --evidence=FILE writes one"):
        evidence.read(tmp_path / "other.npz")
    (tmp_path / "other.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(ValueError, match=r"other\.npz is no file that .* report --evidence=FILE writes"):
        evidence.read(tmp_path / "other.npz")
    kept = dict(np.load(tmp_path / "a" / "per_query.npz"))
    np.savez(tmp_path / "a" / "per_query.npz", **{k: v for k, v in kept.items() if "first_rank" not in k})
    with pytest.raises(ValueError, match=r"a has no first ranks of ReIdCNN; run .* evaluate again"):
        evidence.write([tmp_path / "a"], tmp_path / "market.npz")
    assert not (tmp_path / "market.npz").exists()


def test_the_command_takes_the_file_for_methods_alone(tmp_path):
    scored = evaluated(tmp_path / "a")
    evidence.write([tmp_path / "a"], tmp_path / "market.npz")
    on = [sys.executable, "-m", "acrn_jax.cli.ablate", f"--on={tmp_path}/market.npz", "--study"]
    done = subprocess.run([*on, "methods", f"--workdir={tmp_path}/table"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "table" / "methods" / "table.json").read_text())["rows"]
    [found] = [row["mean"] for row in rows if (row["arm"], row["metric"]) == ("ACRN", "mAP_precision")]
    assert found == pytest.approx(scored.scores["ACRN"]["mAP_precision"][scored.counted].mean(), abs=1e-6)
    done = subprocess.run([*on, "gamma"], capture_output=True, text=True)
    assert done.returncode == 2 and "market.npz is a file; --study=gamma wants folders of runs" in done.stderr
