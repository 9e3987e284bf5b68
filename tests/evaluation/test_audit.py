"""Slices of a ranking and its cameras, against loops, enumeration, scipy and simulation."""

import itertools
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from acrn_jax.data import source
from acrn_jax.evaluation import audit, audit_columns, fusion, protocols, ranking
from acrn_jax.evaluation.audit import Column
from acrn_jax.report import audit as audits
from acrn_jax.report import html
from acrn_jax.results import Audit
from acrn_jax.runs import slices
from acrn_jax.schema import Labels

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world():
    """(query and gallery features, their labels): three cameras, of which the third shifts what it sees."""
    rng = np.random.default_rng(0)
    centre, person = rng.normal(size=(31, 6)), np.repeat(np.arange(1, 31), 4)
    camera = rng.integers(1, 4, len(person))
    values = centre[person] + rng.normal(size=(len(person), 6)) + (camera == 3)[:, None]
    gallery_person = np.concatenate([np.repeat(np.arange(1, 31), 3), [0, 0, -1]])
    gallery_camera = np.concatenate([np.tile([1, 2, 3], 30), [1, 2, 3]])
    images = centre[np.maximum(gallery_person, 0)] + rng.normal(size=(93, 6)) + (gallery_camera == 3)[:, None]
    return values, images, Labels(person, camera), Labels(gallery_person, gallery_camera)


def audited(world, columns=None, protocol=protocols.MARKET1501, distances=None, **options):
    values, images, query, gallery = world
    rows = fusion.distance_rows("squared_euclidean", values, images) if distances is None else distances
    result = ranking.evaluate(rows, query, gallery, protocol=protocol)
    options = {"resamples": 500, "permutations": 500, "features": images} | options
    return audit.audit(rows, query, gallery, result, protocol=protocol, columns=columns, **options), result


def of(found, column):
    order = next(c["slices"] for c in found["columns"] if c["name"] == column)
    slices = {one["name"]: one for one in found["slices"] if one["column"] == column}
    assert set(slices) == set(order)
    return slices


def brute_precision(row, right, valid):
    """Average precision of a ranking, image by image; None without a right one."""
    order = [i for i in np.argsort(row, kind="stable") if valid[i]]
    hits = [place for place, i in enumerate(order, 1) if right[i]]
    return np.mean([n / place for n, place in enumerate(hits, 1)]) if hits else None


def test_camera_pairs_rank_the_images_of_one_camera(world):
    values, images, query, gallery = world
    matrix = ((values[:, None] - images[None]) ** 2).sum(-1)
    scores: dict[str, list[float]] = {}
    for q, b in itertools.product(range(len(values)), (1, 2, 3)):
        valid = (gallery.camera_id == b) & (gallery.person_id != -1)
        same = gallery.person_id == query.person_id[q]
        valid &= ~(same & (gallery.camera_id == query.camera_id[q]))
        precision = brute_precision(matrix[q], same, valid)
        if precision is not None:
            scores.setdefault(f"{query.camera_id[q]} → {b}", []).append(precision)
    for given in (None, matrix, lambda index: matrix[index]):
        pairs = of(audited(world, distances=given)[0], audit.PAIRS)
        assert set(pairs) == set(scores) and len(scores) == 6
        for name, wanted in scores.items():
            assert pairs[name]["queries"] == len(wanted)
            assert pairs[name]["scores"]["mAP_precision"]["mean"] == pytest.approx(np.mean(wanted))


def test_a_slice_is_its_queries_beside_the_rest_of_its_column(world):
    rng = np.random.default_rng(2)
    texts = rng.choice(["a", "b", "c", ""], len(world[0]))
    found, result = audited(world, {"kind": Column(texts)}, names=np.array([f"{i}.jpg" for i in range(len(texts))]))
    scores, slices = result.per_query["mAP_precision"], of(found, "kind")
    assert next(c for c in found["columns"] if c["name"] == "kind")["unknown"] == np.sum(texts == "")
    for name in "abc":
        own, rest = scores[texts == name], scores[(texts != name) & (texts != "")]
        one = slices[name]
        assert (one["queries"], one["people"]) == (len(own), len(set(world[2].person_id[texts == name])))
        assert one["scores"]["mAP_precision"]["mean"] == pytest.approx(own.mean())
        assert one["difference"] == pytest.approx(own.mean() - rest.mean())
        ends = one["scores"]["rank1"]
        assert ends["low"] < ends["mean"] < ends["high"]
        hardest = [entry["query"] for entry in one["hardest"]]
        assert hardest == [f"{i}.jpg" for i in np.argsort(scores, kind="stable") if texts[i] == name][: audit.HARDEST]
        assert [found["names"][i] for i in one["members"]][: audit.HARDEST] == hardest
        assert sorted(one["members"]) == np.flatnonzero(texts == name).tolist()
        assert [entry["score"] for entry in one["hardest"]] == sorted(own)[: audit.HARDEST]


def test_p_values_are_those_of_all_signs():
    """Eight people, some in both slices: every pattern of signs by a loop."""
    rng = np.random.default_rng(3)
    person, inside = np.repeat(np.arange(8), 3), rng.random(24) < 0.5
    scores = rng.random(24) + 0.4 * inside
    seen = audit._Observed(scores[:, None], person, np.arange(24), np.ones(24, int))
    cut = audit._Cut(inside.astype(int), ["out", "in"])
    slices = audit._of_column("c", seen, cut, ["mAP_precision"], None, 100, 1000, 0)
    smaller = slices[int(inside.sum() <= 12)]
    centred = scores - scores.mean()
    part = [
        centred[(person == p) & inside].sum() / inside.sum() - centred[(person == p) & ~inside].sum() / (~inside).sum()
        for p in range(8)
    ]  # fmt: skip
    observed = abs(scores[inside].mean() - scores[~inside].mean())
    patterns = [abs(np.dot(signs, part)) >= observed - 1e-12 for signs in itertools.product((1, -1), repeat=8)]
    assert smaller["p_value"] == pytest.approx(np.mean(patterns))
    assert [one["p_value"] for one in slices].count(None) == 1  # two slices are one test


def test_false_discoveries_are_those_of_benjamini_and_hochberg():
    p = [0.04, 0.001, None, 0.02, 0.5, 0.012]
    slices = [{"p_value": value} for value in p]
    audit._control(slices)
    known = sorted(value for value in p if value is not None)
    for value, one in zip(p, slices, strict=True):
        wanted = None
        if value is not None:
            wanted = min(len(known) * other / (i + 1) for i, other in enumerate(known) if other >= value)
        assert one["adjusted"] == (wanted if wanted is None else pytest.approx(wanted))
        assert one["differs"] == (wanted is not None and wanted < 0.05)


def test_slices_that_do_not_differ_are_found_by_chance_alone():
    """People differ, and a slice holds whole people, or some images of each: 5 % of p-values are below 0.05."""
    rng, person, wrong = np.random.default_rng(4), np.repeat(np.arange(40), 5), np.zeros(2)
    for _ in range(400):
        scores = (rng.normal(size=40)[person] + 0.5 * rng.normal(size=200))[:, None]
        seen = audit._Observed(scores, person, np.arange(200), np.ones(200, int))
        for i, inside in enumerate((rng.permutation(40)[person] < 12, rng.random(200) < 0.3)):
            cut = audit._Cut(inside.astype(int), ["out", "in"])
            wrong[i] += audit._of_column("c", seen, cut, ["mAP_precision"], None, 1, 199, 0)[1]["p_value"] <= 0.05
    assert np.all(wrong / 400 > 0.02) and np.all(wrong / 400 < 0.085), wrong / 400


def test_a_planted_difference_comes_first(world):
    found, _ = audited(world, {"noise": Column(np.random.default_rng(5).choice(["x", "y"], 120))})
    marked = [one["differs"] for one in found["slices"]]
    assert marked == sorted(marked, reverse=True)
    scores = audited(world)[1].per_query["mAP_precision"]
    easy = np.where(scores > np.quantile(scores, 0.7), "easy", "hard")
    found, _ = audited(world, {"planted": Column(easy)})
    assert (found["slices"][0]["column"], found["slices"][0]["name"]) == ("planted", "easy")


def test_cameras_of_wrong_first_images_and_what_they_explain(world):
    values, images, query, gallery = world
    matrix = ((values[:, None] - images[None]) ** 2).sum(-1)
    found, _ = audited(world)
    first = {camera: np.zeros(3) for camera in (1, 2, 3)}
    expected = {camera: np.zeros(3) for camera in (1, 2, 3)}
    explained = []
    for q, row in enumerate(matrix):
        same = gallery.person_id == query.person_id[q]
        valid = (gallery.person_id != -1) & ~(same & (gallery.camera_id == query.camera_id[q]))
        nearest = min(np.flatnonzero(valid), key=lambda i, row=row: row[i])
        others = valid & ~same
        if not same[nearest]:
            first[query.camera_id[q]][gallery.camera_id[nearest] - 1] += 1
            expected[query.camera_id[q]] += [np.mean(gallery.camera_id[others] == b) for b in (1, 2, 3)]
        within = [row[others & (gallery.camera_id == b)] for b in (1, 2, 3)]
        explained.append(1 - sum(len(w) * w.var() for w in within) / (others.sum() * row[others].var()))
    cameras = found["cameras"]
    assert cameras["gallery"] == [1, 2, 3]
    for entry in cameras["confusions"]:
        assert entry["first"] == list(first[entry["camera"]]) and entry["wrong"] == first[entry["camera"]].sum()
        assert entry["expected"] == pytest.approx(list(expected[entry["camera"]]))
    assert sum(map(sum, first.values())) > 20
    assert cameras["explained"]["mean"] == pytest.approx(np.mean(explained))


def test_the_probe_tells_cameras_of_people_it_has_not_seen():
    rng, person = np.random.default_rng(6), np.repeat(np.arange(1, 61), 4)
    camera, noise = np.tile([1, 1, 1, 2], 60), rng.normal(size=(240, 5))
    shown = audit.probe(noise + 9 * (camera == 2)[:, None], Labels(person, camera))
    assert shown["accuracy"]["mean"] == 1 and shown["chance"] == 0.5 and shown["people"] == 60
    hidden = audit.probe(noise, Labels(person, camera))
    assert abs(hidden["accuracy"]["mean"] - 0.5) < 0.1
    of_person = audit.probe(np.eye(61)[person], Labels(person, 1 + person % 2))["accuracy"]["mean"]
    assert of_person < 0.7  # who is seen says which camera, but not of others
    assert audit.probe(noise, Labels(person, np.ones(240, int))) is None


def test_numbers_are_cut_into_bands_of_as_many_queries():
    values = np.array([*np.arange(100.0), np.nan])
    cut = audit._cut("c", values)
    assert cut.names == ["0 to 24", "25 to 49", "50 to 74", "75 to 99"]
    assert cut.label[[0, 24, 25, 99, 100]].tolist() == [0, 0, 1, 3, -1]
    assert audit._cut("c", np.array([2.0, 1.0, np.nan])).names == ["1", "2"]
    assert audit._cut("c", np.array([0.0] * 90 + list(range(1, 10)))).names == ["0 to 0", "1 to 9"]


LEFT_OUT = {  # sentence -> values
    "has 120 different texts, and at most 50": np.array([f"t{i}" for i in range(120)]),
    "none of the queries has a value": np.full(120, np.nan),
    "all queries with a value have the same (x)": np.array(["x", ""] * 60),
}


@pytest.mark.parametrize("told", LEFT_OUT)
def test_what_makes_no_slices_is_told(world, told):
    found, _ = audited(world, {"bad": Column(LEFT_OUT[told])})
    assert any(told in note and "bad" in note for note in found["notes"])
    assert all(one["column"] != "bad" for one in found["slices"])


def test_few_people_have_counts_and_no_interval(world):
    texts = np.array(["rare", "rare", *["usual"] * 118])
    rare = of(audited(world, {"c": Column(texts)})[0], "c")["rare"]
    assert (rare["queries"], rare["people"], rare["p_value"]) == (2, 1, None)
    assert rare["scores"]["rank1"]["low"] is None and not rare["differs"]
    values, images, query, gallery = world
    unknown = Labels(query.person_id, np.full(120, -1)), Labels(gallery.person_id, np.full(93, -1))
    found, _ = audited((values, images, *unknown), protocol=protocols.named("multi_shot"))
    assert found["cameras"] is None and "Slices by camera are left out" in found["notes"][0]
    one = Labels(np.ones(4, int), query.camera_id[:4])
    found, _ = audited((values[:4], images, one, gallery), protocol=protocols.named("multi_shot"))
    assert "show one person" in found["notes"][0] and found["overall"]["rank1"]["low"] is None
    assert audits.section(Audit.of(found, dataset="d"))["verdict"].startswith("No slice can be told")


def test_columns_of_a_csv_file_are_joined_by_name_or_person(tmp_path):
    file, names, person = tmp_path / "c.csv", {"file_name": np.array(["b", "a", "c"])}, np.array([7, 8, 8])
    file.write_text("file_name,time,hat,note\na,3.5,1,x\nb,,-1,unknown\nz,1,0,y\n")
    found = audit_columns.from_csv(file, names, person)
    np.testing.assert_array_equal(found["time"].values, [np.nan, 3.5, np.nan])
    np.testing.assert_array_equal(found["hat"].values, [np.nan, 1, np.nan])
    assert found["note"].values.tolist() == ["", "x", ""] and set(found) == {"time", "hat", "note"}
    file.write_text("person_id,sex\n0008,f\n7,m\n")
    assert audit_columns.from_csv(file, {}, person)["sex"].values.tolist() == ["m", "f", "f"]
    file.write_text("sex\nf\nm\nf\n")
    assert audit_columns.from_csv(file, {}, person)["sex"].values.tolist() == ["f", "m", "f"]
    for text, told in {
        "sex\nf\n": "has 1 rows for 3 queries, and no column key, file_name or person_id",
        "key,sex\na,f\n": "joined by key, which the queries do not have",
        "file_name,sex\na,f\na,m\n": "two rows of file_name a",
        "file_name,sex\nq,f\n": "no row of any query: its first file_name is q, that of the queries b",
        "file_name,sex\na\n": "row 0 has 1 fields",
        "sex,sex\nf,f\n": "two columns have one name",
    }.items():
        file.write_text(text)
        with pytest.raises(ValueError, match=told):
            audit_columns.from_csv(file, names, person)


def test_labels_tell_sex_and_age():
    names = ("personalMale", "ageYoung", "ageOld", "hat")
    values = np.array([[1, 1, 0, 1], [0, 0, 1, 0], [-1, 1, 1, -1]], np.int8)
    found = {name: column.values.tolist() for name, column in audit_columns.from_attributes(values, names).items()}
    assert found == {"sex": ["male", "female", ""], "age": ["Young", "Old", ""], "hat": ["yes", "no", ""]}


def test_pixels_are_measured():
    pixels = np.random.default_rng(7).integers(0, 256, (9, 5, 3), np.uint8)
    luma = 0.299 * pixels[..., 0] + 0.587 * pixels[..., 1] + 0.114 * pixels[..., 2]
    wanted = (9, luma.mean(), ndimage.laplace(luma)[1:-1, 1:-1].var())
    assert audit_columns.measured(pixels) == pytest.approx(wanted)
    assert np.isnan(audit_columns.measured(pixels[:2])[2])


@pytest.fixture(scope="module")
def folder(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    values, images, query, gallery = world
    names = np.array([f"q/{i}.png" for i in range(len(values))])
    np.savez(
        folder / "a.npz", query_features=values, query_person_id=query.person_id, query_camera_id=query.camera_id,
        gallery_features=images, gallery_person_id=gallery.person_id, gallery_camera_id=gallery.camera_id,
        query_file_name=names,
    )  # fmt: skip
    (folder / "pictures" / "q").mkdir(parents=True)
    for i, name in enumerate(names):
        Image.new("RGB", (4, 8), (i, i, i)).save(folder / "pictures" / name)
    (folder / "c.csv").write_text("person_id,sex\n" + "".join(f"{p},{'fm'[p % 2]}\n" for p in range(1, 31)))
    return folder


CALLS = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from acrn_jax.cli import evaluate
for case in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS(["evaluate", "--features=a.npz", "--protocol=market1501", *case])
        try:
            evaluate.main([])
        except (ValueError, OSError) as error:
            print("refused:", error)
"""
REFUSED = {
    "wants --out=FOLDER": ["--audit"],
    "--columns is for an audit": ["--columns=c.csv"],
    "--rerank does not go with --audit": ["--audit", "--out=o", "--rerank"],
    "--audit does not go with --against": ["--audit", "--against=a.npz"],
    "has none of the queries' pictures": ["--audit", "--out=o", "--pictures=."],
    "There is no file none.csv": ["--audit", "--out=o", "--columns=none.csv"],
}


def test_the_verb(folder):
    good = ["--audit", "--out=out", "--columns=c.csv", "--pictures=pictures"]
    command = [sys.executable, "-P", "-c", CALLS, json.dumps([good, *REFUSED.values()])]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused:")]
    for told, line in zip(REFUSED, refused, strict=True):
        assert told in line
    kept = Audit.read(folder / "out" / "audit.json")
    assert [c.name for c in kept.columns] == [
        "camera pair", "camera", "brightness", "sex"
    ]  # fmt: skip
    assert any("image height" in note for note in kept.notes)
    assert kept.columns[2].slices[0].startswith("0 to ")
    assert not (folder / "o").exists()
    page, text = (folder / "out" / "audit.html").read_text(), (folder / "out" / "audit.md").read_text()
    assert page.count("<figure>") == len(kept.columns) and "<script" not in page
    assert "sex: f" in page and "sex: f" in text and "Confusions" in text
    assert "Audit:" in html.page.template("audit.html").render(
        title="Audit: x", about="", audit=audits.section(kept), id="audit"
    )


def test_queries_of_a_file_are_found_in_a_prepared_set(folder, monkeypatch):
    opened = source.open_folder(folder / "pictures")
    monkeypatch.setattr(slices.source, "open_split", lambda *_: opened)
    names = {"key": np.array(["another", "q/3.png"]), "file_name": np.array(["q/7.png", "q/3.png"])}
    found = slices.of_prepared("set/config", "D", names)
    assert found["brightness"].values == pytest.approx([7, 3]) and found["image height"].values.tolist() == [8, 8]
    with pytest.raises(ValueError, match="set/config has no query another; give the set"):
        slices.of_prepared("set/config", "D", {"key": names["key"]})
    for call in (lambda: slices.of_prepared("set/config", "D", {}), lambda: slices.of_folder(folder, {})):
        with pytest.raises(ValueError, match="wants names of the queries in the file of features"):
            call()
