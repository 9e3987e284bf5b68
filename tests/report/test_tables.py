import math

import numpy as np
import pytest
from scipy import stats

from acrn_jax import schema
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.report import published, tables
from acrn_jax.report.seeds import aggregate, check_same, t_quantile
from acrn_jax.report.table import escape_latex, render
from acrn_jax.results import Ledger, Recognition, Results, StudyTable
from tests.report import conftest


def results_of(**changes):
    """Results of a made-up run."""
    return Results.of(conftest.make_results(**changes))


def recognition_of(*dataset, **changes):
    return Recognition.of(conftest.make_recognition(*dataset), **changes)


def cells(line):
    return [cell for cell in line.split("  ") if cell.strip()]


def test_methods_are_in_schemas_order_and_missing_ones_left_out():
    results = conftest.make_results()
    del results["methods"]["ACRN"]
    results["methods"]["ACRN+reranking"] = results["methods"]["ReIdCNN"]
    rows = [row[0] for row in tables.methods(Results.of(results)).rows]
    assert rows == [name for name in schema.METHODS if name != "ACRN"] + ["ACRN+reranking"]


def test_text_table_shows_per_cent_under_the_right_title(monkeypatch):
    results = conftest.make_results()
    values = dict(zip(METRICS, (0.11, 0.222, 0.3333, 0.44444, 0.5, 0.6, 1.0), strict=True))
    results["methods"] = {"ACRN": dict(reversed(values.items()))}  # by name, not by place
    monkeypatch.setenv("COLUMNS", "110")
    lines = tables.methods_table(Results.of(results)).splitlines()
    assert lines[0] == (
        "synthetic_pedestrians/target_0, query/gallery, protocol market1501: 150 queries, 1,234 gallery images"
    )
    assert [c.strip() for c in cells(lines[2])] == [
        *("method", "mAP prec.", "mAP trap.", "mINP", "r1", "r5", "r10", "r20")
    ]
    assert lines[4].split() == ["ACRN", "11.0", "22.2", "33.3", "44.4", "50.0", "60.0", "100.0"]
    assert len({len(line) for line in lines[1:6]}) == 1  # aligned


def studied():
    """A table.json with two metrics, costs and an arm of a long name."""
    row = {"seeds": 5, "mean": 0.532, "deviation": 0.021, "difference": -0.033, "low": -0.111, "high": 0.078}
    row |= {"method": "ACRN", "seconds": 1234.0, "images_per_second": 567.0, "peak_memory_mib": 12345.0}
    arms = ("reference", "improved_minus_identity_loss")
    rows = [{"arm": a, "metric": m, **row} for a in arms for m in ("mAP_precision", "rank1")]
    return {
        "study": "ingredients", "rows": rows, "interval": "95 %, paired bootstrap over queries and seeds",
        "failed": {"a/seed_1": "broke " * 30}, "missing": ["b/seed_2"], "datasets": ["peta/reid_ilid_0", "d/1"],
        "protocol": "market1501", "reference": "reference",
    }  # fmt: skip


def ledger_of_all_columns():
    item = {"mean": 0.8125, "deviation": 0.0513, "runs": 3}
    entries = [{"name": n, "weight": item, **dict.fromkeys(tables.LEDGER, item)} for n in conftest.NAMES]
    about = [{"workdir": "M", "dataset": "peta/random_0"}]
    return {
        "target": "synthetic_pedestrians/target_0", "runs": [conftest.LEDGER_RUN] * 3, "interval": "95 %",
        "attributes": entries,
        "recognition": about, "recognition_disjoint": about,
        "spearman": {c: {"value": 0.5, "low": 0.1, "high": 0.9, "attributes": 26} for c in tables.LEDGER},
    }  # fmt: skip


def every_table():
    seeds = [results_of(seed=seed) for seed in range(3)]
    wide = conftest.make_results(dataset="cuhk03/detected_0", trained_on="market1501/default")
    wide |= {"protocol": "cuhk03_single_shot", "protocol_options": {"repeats": 4, "seed": 0, "probe_view": "1"}}
    wide["deviation"] = {name: dict.fromkeys(METRICS, 0.0123) for name in schema.METHODS}
    for results in (seeds[0], aggregate(seeds), Results.of(wide), results_of(dataset="market1501/default")):
        yield from (tables.methods(results), tables.weights(results))
    yield tables.study(StudyTable.of(studied()))
    yield tables.ledger(Ledger.of(ledger_of_all_columns()))
    yield tables.ledger_spearman(Ledger.of(ledger_of_all_columns()))
    yield tables.recognition_summary(recognition_of())
    yield tables.recognition_attributes(recognition_of())


@pytest.mark.parametrize("columns", [None, "80", "132", "56"])
def test_every_table_fits_the_page_and_loses_no_cell(monkeypatch, columns):
    """80 columns where nothing is known of the page; what is too wide comes in blocks that repeat the row's name."""
    monkeypatch.delenv("COLUMNS", raising=False)
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
    for table in every_table():
        lines = render(table).splitlines()
        assert max(map(len, lines)) <= int(columns or 80), max(lines, key=len)
        words = " ".join(lines).split()
        for row in table.rows:
            blocks = [line for line in lines if line.startswith(f"{row[0]}  ")]
            shown = " ".join(line[len(row[0]) :] for line in blocks).split()
            assert shown == " ".join(row[1:]).split()
        assert set(" ".join((table.caption, *table.columns, table.note)).split()) <= set(words)


def test_metrics_of_a_study_stay_together(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = render(tables.study(StudyTable.of(studied()))).splitlines()
    heads = [line.split()[1:] for line in lines if line.startswith("arm ")]
    assert heads == [
        ["seeds", "prec.", "±", "sd", "change", "95", "%"],  # "mAP" is above
        ["r1", "±", "sd", "change", "95", "%"],
        ["s", "images/s", "MiB"],
    ]


def test_distances_say_what_they_are():
    results = results_of(config={"loss": {"distance": "euclidean"}})
    assert tables.distance(results).endswith("s_f = 1.5, s_a = 0.25.") and "/ s_f + 0.5 d_w / s_a: Eucl" in (
        tables.distance(results)
    )
    raw = Results.of(results, scales={"feature": 1.0, "attribute": 1.0})
    assert tables.distance(raw).startswith("d = d_f + 0.5 d_w: Euclid") and tables.distance(raw).endswith("not scaled.")
    alone = Results.of(results, gamma=None)
    assert tables.distance(alone) == "d = d_f: Euclidean distances of features, as they are."
    assert tables.distance(results_of()) == ""  # an old config without the key


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_undefined_is_a_dash(value):
    results = conftest.make_results()
    results["methods"] = {"ACRN": {**results["methods"]["ACRN"], "mINP": value}}
    assert tables.methods(Results.of(results)).rows[0][3] == "-"


def test_papers_numbers_stand_beneath_ours():
    table = tables.methods(results_of(dataset="market1501/official"))
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["ACRN, paper"] == ("-", "62.6", "-", "83.6", "92.6", "95.3", "97.0")
    assert list(rows).index("ACRN, paper") == list(rows).index("ACRN") + 1
    assert "Attributes-weighted, paper" not in rows and "trapezoid" in table.note and "do not compare" not in table.note
    assert "PIE" in [row[0] for row in tables.others(results_of(dataset="market1501")).rows]


@pytest.mark.parametrize("changes", [{"protocol": "all_vs_all"}, {"partial": True}])
def test_other_protocols_are_not_to_be_compared_with_the_paper(changes):
    table = tables.methods(results_of(dataset="market1501", **changes))
    assert "do not compare" in table.note


def test_dev_splits_are_marked_and_no_published_row_stands_beside_them():
    of = results_of(dataset="market1501/dev_0", dev=True)
    table = tables.methods(of)
    assert table.caption.startswith("market1501/dev_0 (dev, no official split), query/gallery, protocol market1501")
    assert not any("paper" in row[0] for row in table.rows) and tables.others(of) is None
    assert "paper" not in tables.weights(of).note and "(dev, no official split)" in tables.weights(of).caption
    with pytest.raises(ValueError, match="different dev do not belong in one table"):
        tables.comparison({"a": of, "b": results_of(dataset="market1501/dev_0")})
    content = ledger_of_all_columns()
    assert "(dev" not in tables.ledger(Ledger.of(content)).caption
    content["runs"] = [conftest.LEDGER_RUN, {**conftest.LEDGER_RUN, "dev": True}]
    assert "target_0 (dev, no official split), 2 runs" in tables.ledger(Ledger.of(content)).caption
    content = StudyTable.of(studied(), dev=True)
    assert "peta/reid_ilid_0 and 1 more (dev, no official split), protocol" in tables.study(content).caption


@pytest.mark.parametrize("dataset", ["synthetic_pedestrians/target_0", "cuhk03/labeled_0", "cuhk03_np/detected"])
def test_other_data_sets_have_no_rows_of_the_paper(dataset):
    results = conftest.make_results(dataset=dataset)
    assert (
        not any("paper" in row[0] for row in tables.methods(Results.of(results)).rows)
        and tables.others(Results.of(results)) is None
    )


def test_weights_are_sorted_by_size_whatever_their_sign():
    results = conftest.make_results(spearman_weight_reliability=None)
    results["weights"] = [
        {"name": "hairLong", "weight": 0.5, "reliability": None, "accuracy": 0.75, "between_within": 1.5},
        {"name": "mine", "weight": -2.0, "reliability": None, "accuracy": 0.5, "between_within": None},
    ]
    table = tables.weights(Results.of(results))
    assert table.columns == ("attribute", "weight", "balanced accuracy", "between / within")
    assert table.rows == [("mine", "-2.000", "50.0", "-"), ("LongHair", "0.500", "75.0", "1.500")]
    assert "Spearman" not in table.note


def test_recognition_is_sorted_by_mA_with_undefined_last():
    table = tables.recognition_attributes(recognition_of())
    assert [row[0] for row in table.rows[-2:]] == ["Male", "Backpack"] and table.rows[-1][1] == "-"
    assert table.rows[-2][1:] == ("60.0", "92.3", "0", "7,600")
    assert "paper" not in tables.recognition_attributes(recognition_of("synthetic/source")).columns
    summary = {row[0]: row[1:] for row in tables.recognition_summary(recognition_of()).rows}
    assert summary["people not seen"] == ("70.2", "55.0", "66.0", "70.0", "67.9") and summary["all"][0] == "77.1"
    text = tables.recognition_table(recognition_of())
    assert "people seen in training" in text and "Sunglasses" in text


def test_hints_stand_below_the_table():
    results = conftest.make_results() | {"hints": ["ACRN: far below chance."]}
    assert tables.methods(Results.of(results)).note.endswith("ACRN: far below chance.")


def test_draws_and_another_data_set_are_named():
    results = conftest.make_results(dataset="cuhk03/detected_0", trained_on="market1501/default")
    results |= {"protocol": "cuhk03_single_shot", "protocol_options": {"repeats": 4, "seed": 0, "probe_view": "1"}}
    results["deviation"] = {name: {"rank1": 0.0123} for name in schema.METHODS}
    table = tables.methods(Results.of(results))
    assert table.caption.startswith(
        "cuhk03/detected_0, query/gallery, trained on market1501/default, protocol cuhk03_single_shot (repeats 4, seed "
    )
    assert "over 4 draws" in table.note and not any("paper" in row[0] for row in table.rows)
    assert [row[4][-6:] for row in table.rows] == [" ± 1.2"] * 8 and not any("±" in row[1] for row in table.rows)
    first, second = Results.of(results), Results.of(results, seeds={"train": 1})
    seeds = tables.methods(aggregate([first, second]))
    assert "draws" not in seeds.note and max(cell.count("±") for row in seeds.rows for cell in row) == 1
    assert "trained on" not in tables.describe(results_of(trained_on=results_of().dataset))
    with pytest.raises(ValueError, match="different protocol_options"):
        check_same([first, Results.of(first, protocol_options={"repeats": 5})], ["a", "b"])


def test_thresholds_may_be_one_per_attribute():
    table = tables.recognition_summary(recognition_of(threshold=[0.4, 0.5]))
    assert table.note.startswith("A threshold per attribute.")


@pytest.mark.parametrize("degrees", [1, 2, 4, 11, 30, 200])
def test_t_quantile_matches_scipy(degrees):
    np.testing.assert_allclose(t_quantile(degrees), stats.t.ppf(0.975, degrees), rtol=1e-5)
    np.testing.assert_allclose(t_quantile(degrees, 0.9), stats.t.ppf(0.95, degrees), rtol=1e-5)


def test_aggregate_matches_scipy_and_hand_numbers():
    runs = [conftest.make_results(seed=seed) for seed in range(5)]
    for value, run in zip((0.5, 0.6, 0.7, 0.6, 0.6), runs, strict=True):
        run["methods"]["ACRN"]["rank1"] = value
    whole = aggregate([Results.of(run) for run in runs])
    got = whole.methods["ACRN"]["rank1"]
    np.testing.assert_allclose(got[:2], (0.6, math.sqrt(0.02 / 4)))
    low, high = stats.t.interval(0.95, 4, loc=0.6, scale=math.sqrt(0.02 / 4 / 5))
    np.testing.assert_allclose((got.mean - got.half_width, got.mean + got.half_width), (low, high), rtol=1e-5)
    table = tables.methods(whole)
    assert {row[0]: row[4] for row in table.rows}["ACRN"] == "60.0 ± 8.8"
    assert table.caption.endswith("mean and 95 % interval over 5 runs")
    first = tables.by_weight(whole)[0]
    np.testing.assert_allclose(first.weight.mean, np.mean([run["weights"][0]["weight"] for run in runs]))
    assert first.reliability == 0.95


def test_aggregate_leaves_out_what_some_seed_lacks():
    runs = [conftest.make_results(seed=seed) for seed in range(2)]
    del runs[1]["methods"]["ACRN"]
    runs[1]["spearman_weight_reliability"] = None
    whole = aggregate([Results.of(run) for run in runs])
    assert "ACRN" not in whole.methods and "left out: ACRN" in tables.methods(whole).note
    assert whole.spearman_weight_reliability is None


def test_one_run_has_no_interval():
    assert tables.methods_table(aggregate([results_of()])).splitlines()[4].count("±") == 0


@pytest.mark.parametrize(
    "key, value", [("protocol", "single_shot"), ("dataset", "market1501"), ("fingerprint", "bad"), ("queries", 3)]
)
def test_mixed_results_are_refused(key, value):
    runs = [results_of(), results_of(seed=1, **{key: value})]
    with pytest.raises(ValueError, match=f"different {key} .*run 2 has {value!r}"):
        aggregate(runs)
    with pytest.raises(ValueError, match=f"different {key} .*A has .*B has {value!r}"):
        tables.comparison(dict(zip("AB", runs, strict=True)))


def test_comparison_puts_runs_beside_each_other():
    def made_with(net):
        entry = {"name": net, "fingerprint": f"{net}-values"}
        return {"made_of": {"run": {"attributes": entry}}}

    told = tables.comparison({run: results_of(**made_with(net)) for run, net in (("A", "M1"), ("B", "M2"))}).note
    assert told == "The runs have different attribute nets: A: M1 (M1-values); B: M2 (M2-values)."
    assert not tables.comparison({run: results_of(**made_with("M1")) for run in "AB"}).note
    table = tables.comparison({"A": results_of(), "B": results_of(seed=1)})
    assert [row[0] for row in table.rows[:3]] == ["ReIdCNN [A]", "ReIdCNN [B]", "Attributes [A]"]


def test_nothing_to_aggregate_is_refused():
    with pytest.raises(ValueError, match="no results"):
        aggregate([])


def test_latex_is_escaped():
    assert escape_latex("a_b & 5 % #1 $x$ {y} ~ ^ \\ <z>") == (
        r"a\_b \& 5 \% \#1 \$x\$ \{y\} \textasciitilde{} \textasciicircum{} \textbackslash{} \textless{}z\textgreater{}"
    )
    text = tables.weights_table(results_of(), format="latex")
    assert r"home\_made \& \textless{}b\textgreater{}\$x\$\textless{}/b\textgreater{} & -0.8" in text
    assert r"\begin{tabular}{lrrrr}" in text and text.count(r"\\") == 1 + len(conftest.NAMES)


def test_markdown_is_escaped_and_rectangular():
    results = conftest.make_results()
    results["weights"][0]["name"] = "a|b*c\nd"
    lines = tables.weights_table(Results.of(results), format="markdown").splitlines()
    table = [line.replace("\\|", "") for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {6} and len(table) == 2 + len(conftest.NAMES)
    assert any(line.startswith("| a\\|b\\*c d |") for line in lines)


def test_unknown_format_is_refused():
    with pytest.raises(ValueError, match="text, markdown, latex"):
        tables.methods_table(results_of(), format="pdf")


def test_every_peta_name_has_one_display_name():
    assert len(published.DISPLAY) == len(set(published.DISPLAY.values())) == 35
    assert set(published.ATTRIBUTES) <= set(published.DISPLAY)
    for paper in published.PAPER.values():
        assert set(paper.methods) == set(schema.METHODS[:5])
        assert all(len(row) == 5 for row in [*paper.methods.values(), *paper.others.values()])
        assert set(", ".join(paper.weights).split(", ")) <= set(published.DISPLAY.values())
