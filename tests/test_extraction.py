"""Features of a net that is none, in every format that is written, back to the numbers that they give here."""

import csv
import sys

import h5py
import numpy as np
import pytest
from PIL import Image

from acrn_jax import files, runs, settings
from acrn_jax.configs import demo
from acrn_jax.data import source
from acrn_jax.evaluation import feature_files, fusion, protocols, ranking, score
from acrn_jax.runs import extraction


def split(name, person):
    count, rng = len(person), np.random.default_rng(len(person))
    names = np.array([f"{name}/ä {i}.jpg" for i in range(count)])
    return source.Split(
        name=f"drawn/{name}",
        key=names,
        file_name=names,
        person_id=np.array(person, np.int32),
        camera_id=np.arange(count, dtype=np.int32) // 6 % 3 + 1,
        attributes=np.zeros((count, 0), np.int8),
        attribute_names=(),
        metadata={"protocol": "market1501"},
        fingerprint=f"print of {name}",
        rows=rng.permutation(count),
        read=lambda i: b"",
    )


QUERY, GALLERY = split("query", [*range(1, 7)] * 2 + [-1]), split("gallery", [*range(1, 7)] * 6 + [0, -1] * 4)


@pytest.fixture(autouse=True)
def net(tmp_path, monkeypatch):
    """The runs "net" and "attributes"."""

    def outputs(run, split):
        values = np.sin(np.outer(split.person_id + 0.3 * split.rows, np.arange(1, 6))).astype(np.float32)
        return {"attribute_logits" if run.config.of_attributes else "feature": values}

    monkeypatch.setattr(runs.Run, "outputs", outputs)
    monkeypatch.chdir(tmp_path)
    for name, part in (("net", "acrn"), ("attributes", "attributes")):
        files.write_json(tmp_path / name / "config.json", settings.read(demo.get_config(part)).tree)
    files.write_json(tmp_path / "attributes" / "attributes.json", {"attribute_names": list("abcde")})


@pytest.mark.parametrize("workdir", ["net", "attributes"])
def test_mat_scores_as_the_features_do(tmp_path, workdir):
    told = extraction.extract(workdir, [QUERY, GALLERY], tmp_path / "f.mat", format="mat")
    assert "12 images of drawn/query and 44 images of drawn/gallery" in told
    results = score.score_files([tmp_path / "f.mat"], protocol=protocols.MARKET1501)
    query = QUERY.take(QUERY.person_id > 0)
    run = runs.load(workdir)
    values = [next(iter(extraction._values(run, run.outputs(s)).values())) for s in (query, GALLERY)]
    wanted = ranking.evaluate(
        fusion.squared_euclidean_rows(*values), query.labels, GALLERY.labels, protocol=protocols.MARKET1501
    )
    assert results["methods"]["features"] == wanted.metrics
    assert 0 < wanted.metrics["mAP_precision"] < 1


def test_one_set_each_in_npz_and_h5(tmp_path):
    query = QUERY.take(QUERY.person_id > 0)
    metrics = []
    for suffix in (".npz", ".h5"):
        paths = [tmp_path / f"{name}{suffix}" for name in ("query", "gallery")]
        for path, part in zip(paths, (query, GALLERY), strict=True):
            extraction.extract("net", [part], path, format=suffix[1:])
        labels = [path.with_suffix(".csv") for path in paths] if suffix == ".h5" else []
        metrics.append(score.score_files(paths, labels, protocol=protocols.MARKET1501)["methods"])
    assert metrics[0] == metrics[1]
    with open(tmp_path / "gallery.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file_name"] for row in rows] == GALLERY.file_name.tolist()
    assert list(rows[0]) == ["person_id", "camera_id", "file_name"]  # the values of features have no names


def test_npz_of_an_attribute_run_serves_kissme(tmp_path):
    extraction.extract("attributes", [GALLERY], tmp_path / "a.npz", format="npz")
    with np.load(tmp_path / "a.npz") as file:
        names = "key file_name fingerprint person_id camera_id attributes logits attribute_names"
        assert set(file) == {*names.split(), "recognition_rate", "recognised_on"}
        np.testing.assert_allclose(file["attributes"], 1 / (1 + np.exp(-file["logits"])), atol=1e-6)
    assert feature_files.read_set(tmp_path / "a.npz").values.shape == (44, 5)


def test_attributes_as_a_table_with_their_names(tmp_path):
    told = extraction.extract("attributes", [GALLERY], tmp_path / "a.csv", format="csv")
    assert told.splitlines()[0].endswith("attributes [44, 5]")
    with open(tmp_path / "a.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["person_id", "camera_id", "file_name", *"abcde"]
    logits = np.sin(np.outer(GALLERY.person_id + 0.3 * GALLERY.rows, np.arange(1, 6)))
    found = np.array([[float(row[name]) for name in "abcde"] for row in rows])
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert [row["file_name"] for row in rows] == GALLERY.file_name.tolist()
    assert [int(row["person_id"]) for row in rows] == GALLERY.person_id.tolist()
    extraction.extract("net", [GALLERY], tmp_path / "f.csv", format="csv")
    with open(tmp_path / "f.csv", newline="", encoding="utf-8") as file:
        assert next(csv.reader(file))[3:] == [f"feature_{i}" for i in range(5)]


def test_h5_of_an_attribute_run_holds_what_it_announces(tmp_path):
    told = extraction.extract("attributes", [GALLERY], tmp_path / "a.h5", format="h5")
    assert "attributes [44, 5], logits [44, 5], attribute_names [5], recognition_rate [5]" in told
    beside = (tmp_path / "a.csv").read_text()
    extraction.extract("attributes", [GALLERY], tmp_path / "a.csv", format="csv")
    assert (tmp_path / "a.csv").read_text() == beside  # so that it does not matter which of the two is written last
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["attribute_names"].asstr()[()].tolist() == list("abcde")
        np.testing.assert_allclose(file["emb"][()], 1 / (1 + np.exp(-file["logits"][()])), atol=1e-6)
    told = extraction.extract("attributes", [QUERY, GALLERY], tmp_path / "a.mat", format="mat")
    assert told.splitlines()[0].endswith("[12, 5]")
    assert feature_files.read([tmp_path / "a.h5"], [tmp_path / "a.csv"]).gallery.shape == (44, 5)


def test_one_picture_is_as_good_as_a_folder_of_it(tmp_path):
    (tmp_path / "few").mkdir()
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(5, 4, 3)).save(tmp_path / "few" / "one.png")
    alone, folder = (extraction.open_pictures(tmp_path / name) for name in ("few/one.png", "few"))
    assert alone.file_name.tolist() == folder.file_name.tolist() == ["one.png"]
    assert alone.fingerprint == folder.fingerprint and alone.image_bytes(0) == folder.image_bytes(0)
    told = extraction.extract("attributes", [alone], tmp_path / "a.csv", format="csv")
    assert told.startswith(f"1 image of {tmp_path / 'few' / 'one.png'} -> ")
    (tmp_path / "note.jpg").write_text("no picture")
    with pytest.raises(ValueError, match=r"note\.jpg"):
        extraction.open_pictures(tmp_path / "note.jpg")
    with pytest.raises(FileNotFoundError, match="none"):
        extraction.open_pictures(tmp_path / "none")


def test_formats_and_endings(tmp_path, monkeypatch):
    assert feature_files.format_of(tmp_path / "a.hdf5", None) == "h5"
    assert feature_files.format_of(tmp_path / "a.index", "faiss") == "faiss"
    for name, format, told in (
        ("a.txt", None, r"\.npz, \.csv, \.mat"),
        ("a", "h5", r"\.h5, \.hdf5"),
        ("a.npz", "mat", r"are \.mat"),
    ):
        with pytest.raises(ValueError, match=told):
            feature_files.format_of(tmp_path / name, format)
    with pytest.raises(ValueError, match="mat takes query and gallery, got 1"):
        extraction.extract("net", [QUERY], tmp_path / "a.mat", format="mat")
    monkeypatch.setitem(sys.modules, "faiss", None)
    monkeypatch.setattr(runs.Run, "outputs", None)
    with pytest.raises(ValueError, match=r"the extra 'faiss'"):
        extraction.extract("net", [QUERY], tmp_path / "a.faiss", format="faiss")


def test_attributes_come_with_how_far_to_trust_them(tmp_path):
    told = extraction.extract("attributes", [QUERY], tmp_path / "a.npz", format="npz")
    assert "not calibrated" in told and "is not known" in told
    with np.load(tmp_path / "a.npz") as stored:
        assert np.isnan(stored["recognition_rate"]).all() and stored["recognised_on"] == ""
    rates = [{"name": "a", "mA": 0.75}, {"name": "c", "mA": None}]
    scored = {"dataset": "peta/random_0", "split": "test", "attributes": rates}
    files.write_json(tmp_path / "attributes" / "recognition.json", scored)
    told = extraction.extract("attributes", [QUERY], tmp_path / "a.npz", format="npz")
    assert "guessing has 50 %), are of peta/random_0, test." in told
    with np.load(tmp_path / "a.npz") as stored:
        np.testing.assert_array_equal(stored["recognition_rate"], np.float32([0.75, *[np.nan] * 4]))
        assert stored["recognised_on"] == "peta/random_0, test"
    assert "calibrated" not in extraction.extract("net", [QUERY], tmp_path / "f.npz", format="npz")
