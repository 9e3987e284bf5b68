"""The verdict of a search: from a calibration, refused on another distance."""

import numpy as np
import pytest

from acrn_jax import files
from acrn_jax.report import verdict
from acrn_jax.results import PairCalibration, Pairs
from acrn_jax.runs import pair_calibration

METRIC = {"distance": "euclidean", "gamma": 0.5, "weights": [1.0, 2.0], "net": "a"}


def curve(**changes):
    table = {"size": [10, 100], "rate": [0.1, 0.5], "low": [[1.0, 2.0], [0.5, 1.5]], "high": [[2.0, 3.0], [1.5, 2.5]]}
    content = {
        "metric": METRIC, "fitted_on": "drawn/a", "people": 20, "images": 40, "same": 20, "different": 200, "seed": 0,
        "distance": [1.0, 3.0], "probability": [0.9, 0.1], "judged": [],
        "thresholds": {**table, "threshold": [[1.5, 2.5], [1.0, 2.0]]},
    }  # fmt: skip
    return pair_calibration.PairCurve.of(Pairs.of(content | changes), "here")


@pytest.mark.parametrize(("distances", "passing"), [([0.9, 2.0], 1), ([1.1, 2.0], 0)])
def test_what_passes_and_none_of_these(distances, passing):
    entries = [{}, {}]
    found = pair_calibration.tell(entries, distances, curve(), max_false_alarms=0.1, gallery=100)
    np.testing.assert_allclose(entries[1]["same_person"], 0.5)
    assert [e["passes"] for e in entries] == [bool(passing), False]
    assert found["threshold"]["none"] == (not passing)
    assert ("None of these" in found["threshold"]["note"]) == (not passing)
    assert "larger than" not in found["threshold"]["note"]
    larger = pair_calibration.tell(entries, distances, curve(), max_false_alarms=0.1, gallery=101)
    assert "larger than the largest that was tested, 100 pictures" in larger["threshold"]["note"]


def test_another_distance_is_refused_with_the_reason():
    assert pair_calibration.differing(METRIC, METRIC | {"weights": [1.0, 2.00001]}) is None
    others = {"gamma": 0.0, "net": "b", "weights": [1.0, 2.1], "distance": "cosine"}
    for (name, value), words in zip(
        others.items(), ("gamma 0.5", "another net's", "weights", "euclidean"), strict=True
    ):
        assert words in (pair_calibration.differing(METRIC, METRIC | {name: value}) or "")
    for wrong in ({"probability": [0.1, 0.9]}, {"distance": [1.0]}, {"probability": [2.0, 0.1]}):
        with pytest.raises(ValueError, match="damaged"):
            curve(**wrong)


def test_the_report_shows_how_well_it_holds(tmp_path):
    judged = {
        "on": "drawn/b", "people": 7, "images": 9, "same": 5, "different": 6, "error": 0.1234, "table": [],
        "alarms": [{"rate": 0.05, "size": 10, "threshold": 1.0, "measured": 0.0625, "found": None}],
    }  # fmt: skip
    content = PairCalibration.of(calibration={"pairs": Pairs.of(curve().record, judged=[judged])})
    files.write_json(tmp_path / "pairs.json", content.to_json())
    assert verdict.read(tmp_path).rows == [("drawn/b", "7", "5", "12.3", "10", "5", "6.2", "-")]
    assert verdict.read(tmp_path / "other") is None
