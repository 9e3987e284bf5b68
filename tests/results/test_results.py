"""Records of result files: what 0.1.0 wrote is read and written again as it was; what is damaged is named."""

import dataclasses
import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest

from acrn_jax import files, results
from tests.fixtures import old_workdir

FILES = {  # in the workdir of 0.1.0
    "results.json": results.Results,
    "gamma/gamma_2/seed_0/results.json": results.Results,
    "attribute_net/recognition.json": results.Recognition,
    "rank_lists.json": results.RankLists,
    "look_alikes.json": results.Confusions,
    "ledger.json": results.Ledger,
    "methods/table.json": results.StudyTable,
    "gamma/table.json": results.StudyTable,
    "gamma/reference/seed_0/job.json": results.Job,
}


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return old_workdir.extract(tmp_path_factory.mktemp("old"))


@pytest.mark.parametrize("name", FILES)
def test_files_of_0_1_0_are_read_and_written_with_the_same_keys_and_values(old, name):
    """Compared with plain JSON; a schema number where there was none is all that may be new."""
    plain = json.loads((old / name).read_text())
    kind = FILES[name]
    record = kind.read(old / name)
    again = record.to_json()
    if "schema" not in plain:
        assert again.pop("schema", 1) == 1
    assert json.loads(json.dumps(again)) == plain
    assert list(again) == [key for key in plain if key in again]  # in the same order, for those who read the file
    assert kind.of(record.to_json() if name != "rank_lists.json" else record) == record
    assert kind.of(record) is record


def test_arrays_of_0_1_0_are_read_and_written_alike(old):
    record = results.PerQuery.read(old / "per_query.npz")
    with np.load(old / "per_query.npz") as plain:
        arrays = record.to_arrays()
        assert list(arrays) == list(plain)
        assert all(np.array_equal(arrays[name], plain[name]) for name in plain)
        assert np.array_equal(record.scores["ReIdCNN+Attributes"]["rank5"], plain["ReIdCNN+Attributes/rank5"])


def test_values_are_found_under_their_names(old):
    """By hand, from the JSON text."""
    scores = results.Results.read(old / "results.json")
    plain = json.loads((old / "results.json").read_text())
    assert scores.methods["ACRN"]["rank1"] == plain["methods"]["ACRN"]["rank1"] == 4 / 24
    assert scores.weights[1].name == "green" and scores.weights[1].weight == plain["weights"][1]["weight"]
    attributes, records = (results.source(scores.made_of, kind) for kind in ("attributes", "records"))
    assert attributes.path == "attribute_net" and records.path is None
    assert scores.attributes_from.mA == plain["attributes_from"]["mA"]
    net = results.Recognition.read(old / "attribute_net" / "recognition.json")
    assert net.rates() == {entry["name"]: entry["mA"] for entry in net.to_json()["attributes"]}
    lists = results.RankLists.read(old / "rank_lists.json")
    first = lists.splits["query"]["hardest"][0].gallery[0]
    assert first.rank == 1 and set(first.shares) == {"feature", "red", "green", "blue"}
    rows = results.StudyTable.read(old / "gamma" / "table.json").rows
    assert {row.arm for row in rows} == {"reference", "gamma_2"}


MINIMAL = {"schema": 1, "dataset": "d/0", "protocol": "market1501", "methods": {"ACRN": {"rank1": 0.5}}}


@pytest.mark.parametrize(
    ("dataset", "said", "dev"),
    [
        ("market1501/dev_0", {}, True),  # of a version that did not say it
        ("cuhk03/detected_dev_4", {}, True),
        ("market1501/default", {}, None),
        ("image_folder/dev_0", {}, None),  # anyone's name
        ("market1501/dev_0", {"dev": False}, False),
        ("image_folder/mine", {"dev": True}, True),
    ],
)
def test_older_files_tell_a_dev_split_by_its_name(tmp_path, dataset, said, dev):
    files.write_json(tmp_path / "results.json", {**MINIMAL, "dataset": dataset, **said})
    assert results.Results.read(tmp_path / "results.json").dev is dev
    recognition = {"dataset": dataset, "attributes": [], **said}
    assert results.Recognition.parse(recognition).dev is dev


def test_old_keys_have_defaults_and_later_ones_are_passed_over(tmp_path):
    files.write_json(tmp_path / "results.json", {**MINIMAL, "of_a_later_version": {}, "weights": []})
    scores = results.Results.read(tmp_path / "results.json")
    assert scores == results.Results(dataset="d/0", protocol="market1501", methods=MINIMAL["methods"], weights=())
    assert results.source(scores.made_of, "data") is None and scores.split == "query/gallery" and not scores.partial
    assert "tuned_factor" not in dataclasses.replace(scores, weights=None).to_json()  # of a ReIdCNN
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.dataset = "other"


BROKEN = [
    (results.Results, MINIMAL | {"schema": 2}, "has schema 2, and this version of acrn_jax reads schema 1; read it wi"),
    (
        results.Results,
        {"schema": 1, "dataset": "d"},
        "is not what evaluate writes: it lacks protocol, methods; run ./l",
    ),
    (results.Results, MINIMAL | {"methods": {}}, "methods is empty"),
    (results.Results, MINIMAL | {"methods": {"A+B": {"rank1": "x"}}}, r"methods.A\+B.rank1 is to be a number, not 'x'"),
    (results.Results, MINIMAL | {"methods": {"ACRN": {"rank1": True}}}, "methods.ACRN.rank1 is to be a number, not Tr"),
    (results.Results, MINIMAL | {"methods": [1]}, r"methods is to be an object, not \[1\]"),
    (results.Results, MINIMAL | {"weights": [{"weight": 1}]}, r"weights\[0\] lacks name"),
    (results.Results, MINIMAL | {"weights": [1]}, r"weights\[0\] is to be an object, not 1"),
    (results.Results, MINIMAL | {"queries": 1.5}, "queries is to be a whole number, not 1.5"),
    (results.Results, MINIMAL | {"unfinished": {"step": 8}}, "unfinished lacks steps"),
    (
        results.Recognition,
        {"dataset": "d", "attributes": [], "threshold": "x"},
        "threshold is to be a number or a list",
    ),
    (results.Recognition, {"dataset": "d"}, "it lacks attributes; run ./launch.sh evaluate again"),
    (
        results.RankLists,
        {"query": {"random": [{}]}},
        r"query.random\[0\] lacks image, person_id, camera_id, file_name, ",
    ),
    (results.RankLists, {"schema": 3, "query": {}}, "has schema 3"),
    (results.Confusions, {"pairs": [{"query": {}}]}, r"pairs\[0\] lacks wrong, right, attributes"),
    (results.Ledger, {"attributes": []}, "is not what ledger writes: it lacks target, runs, .*run ./launch.sh ledger"),
    (results.StudyTable, {}, "is not what ablate writes: it lacks study, .*run ./launch.sh ablate again"),
    (results.Job, {"config": 1}, "config is to be an object, not 1"),
]


@pytest.mark.parametrize(("kind", "content", "words"), BROKEN)
def test_damaged_and_foreign_files_are_one_sentence(tmp_path, kind, content, words):
    path = tmp_path / "some.json"
    files.write_json(path, content)
    with pytest.raises(ValueError, match=words) as caught:
        kind.read(path)
    assert str(caught.value).startswith(str(path)) and str(caught.value).count(". ") == 0


def test_what_is_no_file_of_json_or_arrays_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(f"no {tmp_path}/results.json; run ./launch.sh evaluate")):
        results.Results.read(tmp_path / "results.json")
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(ValueError, match=r"results.json is not JSON"):
        results.Results.read(tmp_path / "results.json")
    place = tmp_path / "per_query.npz"
    with pytest.raises(FileNotFoundError, match=r"There is no .*per_query.npz"):
        results.PerQuery.read(place)
    place.write_bytes(b"no arrays")
    with pytest.raises(ValueError, match=r"per_query.npz is not what evaluate writes, a file of arrays"):
        results.PerQuery.read(place)
    good = {"key": np.array(["a", "b"]), "person_id": np.array([1, 2]), "counted": np.array([True, True])}
    np.savez(place, **good, **{"ACRN/rank1": np.zeros(3)})
    with pytest.raises(ValueError, match=r"ACRN/rank1 has shape \(3,\) for 2 people"):
        results.PerQuery.read(place)
    np.savez(place, **good, rank1=np.zeros(2))
    with pytest.raises(ValueError, match="METHOD/METRIC are wanted"):
        results.PerQuery.read(place)
    np.savez(place, counted=good["counted"])
    with pytest.raises(ValueError, match="evaluated by an older version, whose files lack people"):
        results.PerQuery.read(place)
    np.savez(tmp_path / "per_image.npz", person_id=good["person_id"], mA=np.zeros(2))
    assert list(results.PerImage.read(tmp_path / "per_image.npz").to_arrays()) == ["person_id", "mA"]


def test_writers_are_held_to_the_fields():
    scores = results.Results.of(MINIMAL, partial=True, weights=[{"name": "hairLong", "weight": np.float32(0.5)}])
    assert scores.partial and scores.weights[0] == results.Weight(name="hairLong", weight=0.5)
    assert results.Results.of(scores, partial=False).partial is False and scores.partial
    with pytest.raises(ValueError, match="chances is no field of Results"):
        results.Results.of(MINIMAL, chances=0.1)
    with pytest.raises(ValueError, match=r"weights\[0\].weights is no field of Weight"):
        results.Results.of(MINIMAL, weights=[{"name": "x", "weight": 1.0, "weights": 1.0}])
    with pytest.raises(ValueError, match="it lacks protocol"):
        results.Results.of(dataset="d", methods={})


def test_undefined_numbers_are_kept(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(MINIMAL | {"methods": {"A": {"rank1": math.nan, "mINP": None}}}))
    scores = results.Results.read(tmp_path / "results.json").methods["A"]
    assert math.isnan(scores["rank1"]) and scores["mINP"] is None


def test_no_jax_is_needed():
    code = "import sys, acrn_jax.results; print({'jax', 'scipy', 'PIL'} & set(sys.modules) or 'none')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "none"
