import csv
import json

import numpy as np
import pytest
from scipy import stats

from acrn_jax.results import Results, StudyTable
from acrn_jax.studies import table

ABOUT = {"protocol": "market1501", "dataset": "d/0", "split": "query/gallery", "fingerprint": "f0", "queries": 40}


def results_of(about):
    """Results without scores, of a run made of `inputs`."""
    known = {key: value for key, value in about.items() if key != "inputs"}
    return Results.of(known, methods={}, made_of={"run": about["inputs"]} if "inputs" in about else None)


def scores(gain, seed, *, about=ABOUT, n=40):
    """A method whose queries lie `gain` above those of the reference of the same seed, up to noise."""
    each = (
        np.random.default_rng(seed).random(n)
        + gain
        + 0.01 * np.random.default_rng((seed, int(100 * gain))).normal(size=n)
    )
    key, about = ("ACRN", "rank1"), results_of(about)
    return table.Scores(about, {key: each.mean()}, {key: each}, np.arange(n) // 2, {"seconds": 10.0 + seed})


def study(**others):
    found = {"reference": {f"seed_{s}": scores(0, s) for s in range(3)}}
    return found | {"up": {f"seed_{s}": scores(0.1, s) for s in range(3)}} | others


def test_rows_hold_mean_deviation_and_paired_interval(tmp_path):
    failed = {"up/seed_3": "broke", "down/seed_1": "too"}
    found = table.build_table("gamma", study(), reference="reference", failed=failed, resamples=500)
    reference, up = found.rows
    values = [scores(0.1, s).metrics["ACRN", "rank1"] for s in range(3)]
    assert up.mean == pytest.approx(np.mean(values)) and up.deviation == pytest.approx(np.std(values, ddof=1))
    assert up.difference == pytest.approx(0.1, abs=0.005)
    # Paired: queries and seeds differ by 0.3 and more, the gain does not.
    assert 0.08 < up.low < up.difference < up.high < 0.12
    assert reference.difference is None and up.seconds == 11 and up.failed == "up/seed_3: broke"
    table.write(tmp_path, found)
    assert json.loads((tmp_path / "table.json").read_text()) == found.to_json()
    assert StudyTable.read(tmp_path / "table.json") == found
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["arm"] for row in rows] == ["reference", "up"] and float(rows[1]["mean"]) == up.mean
    assert up.over == "seeds and people" and reference.over is None and rows[1]["over"] == up.over
    text = table.show(found)
    assert "Interval: 95 % over trainings and people of this split: Student's t over seeds" in text
    assert "+10." in text and "-" in text.splitlines()[4]
    assert text.endswith("\nfailed: up/seed_3: broke\nfailed: down/seed_1: too\n")
    assert "| up |" in table.show(found, format="markdown")
    with pytest.raises(ValueError, match="no method 'ReIdCNN'; it has ACRN"):
        table.show(found, method="ReIdCNN")


def test_a_persons_queries_are_drawn_together():
    """Four queries that say the same are worth one: the interval is twice as wide as that of as many people."""
    gain = np.repeat(np.random.default_rng(0).normal(0.1, 0.2, 50), 4)
    width = {}
    for name, groups in (("together", np.arange(200) // 4), ("alone", np.arange(200))):
        arms = {}
        for arm, more in (("reference", 0), ("up", gain)):
            each = {("ACRN", "rank1"): np.random.default_rng(1).random(200) + more}
            arms[arm] = {
                "seed_0": table.Scores(results_of(ABOUT), {key: v.mean() for key, v in each.items()}, each, groups, {})
            }
        row = table.build_table("s", arms, reference="reference", resamples=4000).rows[1]
        width[name] = row.high - row.low
        assert row.seeds == 1 and row.deviation is None  # not NaN, which is no JSON
    assert width["together"] == pytest.approx(2 * width["alone"], rel=0.15)
    assert width["together"] == pytest.approx(2 * 1.96 * gain.std() / np.sqrt(50), rel=0.15)


def test_only_common_replicates_are_compared_and_splits_weigh_alike():
    other = ABOUT | {"fingerprint": "f1", "dataset": "d/1"}
    base = {"a/seed_0": scores(0, 0), "a/seed_1": scores(0, 1), "b/seed_0": scores(0, 2, about=other, n=30)}
    arm = {"a/seed_0": scores(0.1, 0), "a/seed_1": scores(0.1, 1), "b/seed_0": scores(0.4, 2, about=other, n=30)}
    found = table.build_table("s", {"base": base, "arm": arm, "few": {"b/seed_0": arm["b/seed_0"]}}, reference="base")
    by_arm = {row.arm: row for row in found.rows}
    assert by_arm["arm"].difference == pytest.approx(0.25, abs=0.005)
    means = [0.1, 0.4]  # of the splits
    expected = stats.t.interval(0.95, 1, np.mean(means), stats.sem(means))  # two splits tell very little
    assert (by_arm["arm"].low, by_arm["arm"].high) == pytest.approx(expected, abs=0.1)
    assert (by_arm["arm"].over, by_arm["few"].over) == ("splits", "people")
    assert "t over splits" in found.interval and "95 % over people alone" in found.interval
    assert by_arm["few"].difference == pytest.approx(0.4, abs=0.005) and by_arm["few"].high < 0.42
    assert found.datasets == ("d/0", "d/1")


@pytest.mark.parametrize(("key", "value"), [("protocol", "odd"), ("fingerprint", "odd"), ("dev", True)])
def test_other_protocols_and_data_are_refused(key, value):
    odd = {"seed_0": scores(0, 0, about=ABOUT | {key: value})}
    with pytest.raises(ValueError, match=f"different {key} .*reference/seed_0 has .*odd/seed_0 has {value!r}"):
        table.build_table("s", study(odd=odd), reference="reference")


def test_the_bootstrap_draws_as_often_as_asked():
    arms = {name: {"seed_0": scores(gain, 0)} for name, gain in (("base", 0.0), ("arm", 0.1))}
    row = table.build_table("s", arms, reference="base", resamples=1).rows[1]
    assert row.low == row.high != row.difference  # one draw has one mean, the quantiles of which coincide
    row = table.build_table("s", arms, reference="base", resamples=50).rows[1]
    assert row.low < row.difference < row.high


def made(net, data="d1", name="d/0/train"):
    kinds = {"attributes": {"name": f"runs/{net}", "fingerprint": f"{net}-values"}}
    return ABOUT | {"inputs": kinds | {"data": {"name": name, "fingerprint": data}}}


def test_arms_of_other_attribute_nets_or_training_data_are_refused():
    def build(*abouts):
        of = {f"seed_{s}": scores(0.1, s, about=about) for s, about in enumerate(abouts)}
        base = {f"seed_{s}": scores(0, s, about=made("M1")) for s in range(len(abouts))}
        return table.build_table("s", {"base": base, "arm": of}, reference="base", resamples=10)

    assert build(made("M1"), made("M1")).attribute_nets == {"M1-values": "runs/M1"}
    build(ABOUT, made("M1"))  # a ReIdCNN, or a run that does not tell
    told = r"base/seed_0 was made with runs/M1 \(fingerprint M1-values\), arm/seed_1 with runs/M2 \(M2-values\)"
    with pytest.raises(ValueError, match="different attribute nets do not belong in one table: " + told):
        build(made("M1"), made("M2"))
    with pytest.raises(ValueError, match="different training data of one name do not belong in one table"):
        build(made("M1"), made("M1", data="d2"))
    build(made("M1"), made("M1", data="d2", name="other/train"))  # trained elsewhere: that may be what is compared


def test_worlds_with_a_net_each_are_replicates_and_the_nets_are_named():
    worlds = [made(f"M{s}", f"d{s}") | {"fingerprint": f"f{s}"} for s in range(3)]
    arms = {
        name: {f"target_{s}": scores(gain, s, about=about) for s, about in enumerate(worlds)}
        for name, gain in (("base", 0), ("arm", 0.1))
    }
    found = table.build_table("s", arms, reference="base", resamples=10)
    assert "3 attribute nets: runs/M0, runs/M1, runs/M2." in table.show(found)


def test_arms_without_results_are_told():
    found = table.build_table("s", study(none={}), reference="reference", missing=["none/seed_0"], resamples=10)
    assert [row.arm for row in found.rows] == ["reference", "up", "none"]
    assert "not there yet: none/seed_0." in table.show(found)
    assert "no method" in table.show(table.build_table("s", {"a": {}}, reference="a"))


def finished_run(folder, gains, *, seed, about=ABOUT):
    """results.json and per_query.npz with methods that lie `gains` above one another's queries."""
    each = {name: np.random.default_rng(seed).random(40) + gain for name, gain in gains.items()}
    folder.mkdir()
    methods = {name: {"rank1": values.mean()} for name, values in each.items()}
    (folder / "results.json").write_text(json.dumps(about | {"methods": methods}))
    arrays = {f"{name}/rank1": values for name, values in each.items()}
    kept = {"counted": np.ones(40, bool), "key": np.arange(40).astype(str), "person_id": np.arange(40) // 2}
    np.savez(folder / "per_query.npz", **arrays, **kept)
    return folder


def test_rows_of_finished_runs_are_compared_within_each(tmp_path):
    gains = [{"ReIdCNN": 0.0, "ACRN": 0.1}, {"ReIdCNN": 0.0, "ACRN": 0.3}, {"ReIdCNN": 0.0, "ACRN": 0.2, "mine": 0.5}]
    folders = [finished_run(tmp_path / str(i), each, seed=i) for i, each in enumerate(gains)]
    found = table.of_methods(folders)
    rows = {row.arm: row for row in found.rows}
    assert list(rows) == ["ReIdCNN", "ACRN", "mine"] and found.reference == "ReIdCNN"
    # Exact gains: queries and people cancel, so the interval is Student's of the runs' 0.1, 0.3 and 0.2 alone.
    assert rows["ACRN"].difference == pytest.approx(0.2)
    assert (rows["ACRN"].low, rows["ACRN"].high) == pytest.approx(stats.t.interval(0.95, 2, 0.2, 0.1 / np.sqrt(3)))
    assert (rows["mine"].seeds, rows["mine"].difference) == (1, pytest.approx(0.5))
    against = {row.arm: row for row in table.of_methods(folders, "ACRN").rows}
    assert against["ReIdCNN"].difference == pytest.approx(-0.2) and against["ACRN"].difference is None
    with pytest.raises(ValueError, match="0 has no method 'mine'; it has ReIdCNN, ACRN"):
        table.of_methods(folders, "mine")
    with pytest.raises(FileNotFoundError, match=r"has no results.json; run"):
        table.of_methods([tmp_path])
    old = finished_run(tmp_path / "old", gains[0], seed=8)
    np.savez(old / "per_query.npz", counted=np.ones(40, bool))
    with pytest.raises(ValueError, match="old was evaluated by an older version"):
        table.of_methods([old])
    settings = [
        ABOUT | {"config": {"seed": seed, "loss": {"gamma": gamma}, "data": {"config": f"c{seed}"}, "log_every": seed}}
        for seed, gamma in ((0, 0.5), (1, 0.5), (2, 2.0))
    ]
    configured = [finished_run(tmp_path / f"c{i}", gains[0], seed=i, about=about) for i, about in enumerate(settings)]
    table.of_methods([*folders, *configured[:2]])
    with pytest.raises(ValueError, match=r"not replicates of one setting: loss.gamma is 0.5 in .*c0, 2.0 in .*c2"):
        table.of_methods(configured)
    many = [ABOUT | {"config": {f"key{i}": value for i in range(7)}} for value in (0, 1)]
    different = [finished_run(tmp_path / f"m{i}", gains[0], seed=i, about=about) for i, about in enumerate(many)]
    with pytest.raises(ValueError, match="not replicates of one setting") as told:
        table.of_methods(different)
    assert [f"key{i} is 0 in" in str(told.value) for i in range(7)] == 5 * [True] + 2 * [False]
    odd = finished_run(tmp_path / "odd", gains[0], seed=9, about=ABOUT | {"protocol": "single_shot"})
    with pytest.raises(ValueError, match="different protocol"):
        table.of_methods([*folders, odd])


@pytest.mark.parametrize("where", ["results", "phase"])
def test_finished_runs_tell_what_they_are_made_of_in_their_results_or_as_older_ones_beside_them(tmp_path, where):
    def run(name, net):
        inputs = made(net)["inputs"]
        about = ABOUT | ({"made_of": {"run": inputs}} if where == "results" else {})
        folder = finished_run(tmp_path / name, {"ReIdCNN": 0.0, "ACRN": 0.1}, seed=len(name), about=about)
        (folder / "reid").mkdir()
        if where == "phase":
            (folder / "reid" / "inputs.json").write_text(json.dumps({"steps": 1} | inputs))
        return folder

    first, alike, other = run("a", "M1"), run("bb", "M1"), run("ccc", "M2")
    assert table.of_methods([first, alike]).attribute_nets == {"M1-values": "runs/M1"}
    with pytest.raises(ValueError, match="different attribute nets do not belong in one table"):
        table.of_methods([first, other])
