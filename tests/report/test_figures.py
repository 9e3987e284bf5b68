import base64
import xml.etree.ElementTree

import matplotlib
import numpy as np
import pytest
from scipy import stats

from acrn_jax.report import figures, tables
from acrn_jax.report.seeds import aggregate
from acrn_jax.results import Results
from tests.report import conftest


def svg(chart):
    head, body = chart.uri.split(",")
    assert head == "data:image/svg+xml;base64"
    return xml.etree.ElementTree.fromstring(base64.b64decode(body))


def rows(count=2000):
    return [{"step": i, "loss": 2.0 - i / count, "active": 0.5, "images_per_second": 9.0} for i in range(count)]


def test_training_draws_what_the_scalars_hold():
    charts = figures.training(rows())
    assert [chart.title for chart in charts] == ["Loss", "Triplets", "Speed"]
    assert charts[0].text == "Steps 0 to 1,999: loss from 2 to 1."
    for chart in charts:
        assert svg(chart).tag.endswith("svg") and len(chart.uri) < 200_000


def test_legends_lie_outside_the_axes(monkeypatch):
    """Over curves they hide what is to be read."""
    drawings = []
    monkeypatch.setattr(figures, "_chart", lambda drawing, title, text: drawings.append(drawing))
    keys = ("active", "switched_on", "switched_off", "positive", "negative", "attribute_active", "spread", "weight_rms")
    figures.training([{"step": i, **dict.fromkeys(keys, 0.5), "loss": 1.0, "attribute_loss": 1.0} for i in range(9)])
    figures.cmc(Results.of(conftest.make_results()))
    assert len(drawings) == 5
    for drawing in drawings:
        drawing.draw_without_rendering()
        (axes,), (legend,) = drawing.axes, drawing.legends
        assert not legend.get_window_extent().overlaps(axes.get_tightbbox()) and axes.get_legend() is None
        assert axes.bbox.height > 100 and drawing.bbox.contains(*legend.get_window_extent().min)


def test_curve_is_thinned_finite_sorted_and_keeps_its_ends():
    scalars = [*rows(), {"step": 5, "loss": float("nan")}, {"step": 3000, "loss": 7.0}, {"step": 1, "loss": -1.0}]
    points = figures._curve(scalars, "loss")
    assert len(points) <= figures.MOST_POINTS and np.isfinite(points).all() and (np.diff(points[:, 0]) > 0).all()
    assert points[-1].tolist() == [3000, 7] and points[0].tolist() == [0, 2]
    assert figures._curve([{"step": 1, "loss": 3.0}, {"step": 1, "loss": 4.0}], "loss").tolist() == [[1, 4]]
    assert len(figures._curve([{"step": 1, "loss": None}], "loss")) == 0


def test_no_scalars_no_charts():
    assert figures.training([]) == []


def test_scatter_names_spearman():
    results = conftest.make_results()
    assert "Spearman 0.89" in figures.weight_scatter(Results.of(results)).title
    for item in results["weights"]:
        item["between_within"] = -abs(item["weight"])
    assert "Spearman -1.00" in figures.weight_scatter(Results.of(results), against="between_within").title


def test_scatter_needs_three_attributes_with_both():
    results = conftest.make_results()
    for item in results["weights"][2:]:
        item["reliability"] = None
    assert figures.weight_scatter(Results.of(results)) is None
    assert figures.weight_bars(Results.of({**results, "weights": []})) is None


def test_charts_of_aggregates():
    whole = aggregate([Results.of(conftest.make_results(seed=seed)) for seed in range(3)])
    for chart in (figures.weight_scatter(whole), figures.weight_bars(whole), figures.cmc(whole)):
        svg(chart)
    assert "Male 1.2" in figures.weight_bars(whole).text


@pytest.mark.parametrize("weight", [None, float("nan")])
def test_undefined_weights_are_not_drawn(weight):
    results = conftest.make_results()
    results["weights"][0]["weight"] = weight
    assert "Male" not in figures.weight_bars(Results.of(results)).text
    assert figures.weight_scatter(Results.of(results)).text.startswith("6 attributes")
    assert tables.weights(Results.of(results)).rows[-1][:2] == ("Male", "-")


def test_cmc_survives_a_missing_rank():
    results = conftest.make_results()
    results["methods"]["ACRN"]["rank5"] = None
    assert "ACRN" in figures.cmc(Results.of(results)).text


@pytest.mark.parametrize("seed", range(3))
def test_spearman_matches_scipy_with_ties(seed):
    random = np.random.default_rng(seed)
    x, y = random.integers(0, 6, 20), random.integers(0, 6, 20)
    np.testing.assert_allclose(figures.spearman(x, y), stats.spearmanr(x, y).statistic)


def test_spearman_of_a_constant_is_undefined():
    assert np.isnan(figures.spearman(np.ones(4), np.arange(4)))


def test_equal_input_gives_equal_bytes_and_no_global_state_moves():
    before = dict(matplotlib.rcParams)
    assert figures.cmc(Results.of(conftest.make_results())) == figures.cmc(Results.of(conftest.make_results()))
    assert dict(matplotlib.rcParams) == before
