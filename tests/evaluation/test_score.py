"""Feature files to numbers: every kind of file and every step against plain loops; what does not go together."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from acrn_jax.evaluation import expansion, feature_files, kissme, protocols, reranking, score
from acrn_jax.evaluation.feature_files import Features
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.report import scores
from acrn_jax.schema import Labels
from tests import oracles

ROOT = pathlib.Path(__file__).parents[2]
MARKET = protocols.MARKET1501


def people(seed, person, noise=1.0):
    """Everybody in turn, in three cameras."""
    rng, person = np.random.default_rng(seed), np.array(person)
    centre = np.random.default_rng(7).normal(size=(30, 6))
    values = centre[person] + noise * rng.normal(size=(len(person), 6))
    order = rng.permutation(len(person))
    return Features(values.astype(np.float32)[order], Labels(person[order], np.arange(len(person))[order] // 8 % 3 + 1))


QUERY, GALLERY = people(0, [*range(1, 9)] * 3 + [1]), people(1, [*range(1, 9)] * 6 + [0, -1] * 11)
TRAIN = people(2, [*range(10, 20)] * 6)
BOXES = Features(
    np.concatenate([QUERY.values, people(3, [*range(1, 9)] * 3 + [1]).values]),
    Labels(*(np.tile(v, 2) for v in QUERY.labels)),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    arrays = {
        f"{who}_{name}": value
        for who, part in (("query", QUERY), ("gallery", GALLERY), ("mquery", BOXES))
        for name, value in zip(("features", "person_id", "camera_id"), (part.values, *part.labels), strict=True)
    }
    np.savez(folder / "a.npz", **arrays)
    no_cameras = {name: value for name, value in arrays.items() if "camera" not in name and "mquery" not in name}
    np.savez(folder / "no_cameras.npz", **no_cameras)
    np.savez(folder / "train.npz", features=TRAIN.values, **TRAIN.labels._asdict())
    np.savez(folder / "set.npz", features=QUERY.values, person_id=QUERY.labels.person_id)
    feature_files.write_mat(folder / "a.mat", QUERY, GALLERY)
    for name, part in (("q", QUERY), ("g", GALLERY)):
        feature_files.write_h5(folder / f"{name}.h5", part, range(len(part.values)))
    np.save(folder / "d.npy", squared(QUERY.values, GALLERY.values))
    return folder


def squared(query, gallery):
    return np.array([[np.sum((q - g) ** 2) for g in gallery.astype(np.float64)] for q in query.astype(np.float64)])


def cosine(query, gallery):
    return np.array([[1 - q @ g / np.sqrt((q @ q) * (g @ g)) for g in gallery] for q in query.astype(np.float64)])


def unit(values):
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def expected(distances, query=QUERY.labels, gallery=GALLERY.labels, protocol="market1501", no_match="error"):
    return oracles.ranking(distances, query, gallery, protocol, no_match)


def check(results, distances, **options):
    assert results["methods"]["features"] == pytest.approx(expected(distances, **options), abs=1e-9)


@pytest.mark.parametrize("names", [("a.npz",), ("a.mat",), ("q.h5,g.h5", "q.csv,g.csv"), ("d.npy", "q.csv,g.csv")])
def test_every_kind_of_file_scores_as_loops_do(files, names):
    paths = [[files / name for name in part.split(",")] for part in names]
    results = score.score_files(*paths, protocol=MARKET)
    check(results, squared(QUERY.values, GALLERY.values))
    assert tuple(results["methods"]["features"]) == tuple(METRICS) and len(results["files"]) == sum(map(len, paths))
    for name, value in results["methods"]["features"].items():
        assert results["intervals"][name]["low"] <= value <= results["intervals"][name]["high"]
    assert results["intervals"]["mAP_precision"]["low"] < results["intervals"]["mAP_precision"]["high"]
    assert results["gallery_junk"] == np.sum(GALLERY.labels.person_id == -1) > 0
    assert (results["queries"], results["gallery"], results["people"]) == (25, 70, 8)
    text = scores.table(json.loads(json.dumps(results)))
    assert "protocol market1501: 25 queries, 70 gallery images" in text
    random = f"random distances give an mAP (precision) of {100 * results['chance']:.1f}"
    assert results["hints"] == [] and random in " ".join(text.split())
    for name in ("mAP_precision", "mAP_trapezoid"):
        assert f"{100 * results['methods']['features'][name]:.1f}" in text


def test_intervals_are_over_people(files, tmp_path):
    """Every query three times over tells no more of other people, though there are three times as many queries."""
    arrays = dict(np.load(files / "a.npz"))
    arrays |= {name: np.repeat(values, 3, axis=0) for name, values in arrays.items() if name.startswith("query")}
    np.savez(tmp_path / "thrice.npz", **arrays)
    once, thrice = (score.score_files([file], protocol=MARKET) for file in (files / "a.npz", tmp_path / "thrice.npz"))
    assert thrice["queries"] == 3 * once["queries"] and "over people" in once["interval"]
    for name, ends in once["intervals"].items():
        assert thrice["intervals"][name] == pytest.approx(ends, abs=1e-9)
    arrays |= {name: values[arrays["query_person_id"] == 1] for name, values in arrays.items() if "query_" in name[:6]}
    np.savez(tmp_path / "one.npz", **arrays)
    alone = score.score_files([tmp_path / "one.npz"], protocol=MARKET)
    assert alone["intervals"]["rank1"] == {"low": None, "high": None}  # of one person, nothing is known of others
    assert "to" not in scores.table(json.loads(json.dumps(alone))).splitlines()[4]


def test_distances_by_name(files):
    first = [files / "a.npz"]
    check(score.score_files(first, protocol=MARKET, distance="cosine"), cosine(QUERY.values, GALLERY.values))
    root = score.score_files(first, protocol=MARKET, distance="euclidean", operating_points=True)
    check(root, squared(QUERY.values, GALLERY.values))
    plain = score.score_files(first, protocol=MARKET, operating_points=True)["operating_points"]
    for one, other in zip(root["operating_points"]["roc"], plain["roc"], strict=True):
        assert one["tpr"] == other["tpr"] and one["threshold"] ** 2 == pytest.approx(other["threshold"], rel=1e-5)
    assert plain["identification"] is None


def test_multi_query_is_the_mean_of_a_persons_boxes_in_a_camera(files):
    boxes = list(zip(*BOXES.labels, strict=True))
    means = [
        np.mean([x for x, box in zip(BOXES.values, boxes, strict=True) if box == mine], axis=0)
        for mine in zip(*QUERY.labels, strict=True)
    ]
    for options in ({"protocol": MARKET, "multi_query": True}, {"protocol": protocols.named("market1501_multi_query")}):
        results = score.score_files([files / "a.npz"], **options)
        check(results, squared(np.array(means), GALLERY.values))
        assert results["protocol"] == "market1501_multi_query"
        assert "multi-query" in scores.table(results)


def test_kissme_ranks_by_the_metric_of_another_file(files):
    results = score.score_files([files / "a.npz"], protocol=MARKET, kissme_train=files / "train.npz")
    metric = kissme.fit(TRAIN.values, *TRAIN.labels).matrix
    check(results, [[(q - g) @ metric @ (q - g) for g in GALLERY.values] for q in QUERY.values])
    assert str(files / "train.npz") in results["files"]


@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine", "euclidean"])
def test_expansion_and_re_ranking(files, distance):
    first, options = [files / "a.npz"], {"protocol": MARKET, "distance": distance}
    query, gallery = QUERY.values, GALLERY.values
    measure = cosine if distance == "cosine" else squared
    if distance == "cosine":
        query, gallery = unit(query), unit(gallery)
    check(
        score.score_files(first, expand=(3, None), **options), measure(expansion.average(query, gallery, k=3), gallery)
    )
    weighted = expansion.alpha_weighted(query, gallery, k=4, alpha=2.0)
    check(score.score_files(first, expand=(4, 2.0), **options), measure(weighted, gallery))
    settings = {"k1": 5, "k2": 3, "weight": 0.2}
    everything = np.concatenate([query, gallery])
    whole = squared(everything, everything) ** (0.5 if distance == "euclidean" else 1)
    wanted = reranking.rerank_rows(lambda index: whole[index].astype(np.float32), 25, 95, **settings)
    found = score.score_files(first, reranking=settings, **options)["methods"]["features"]
    assert found == pytest.approx(expected(wanted), abs=2e-3)  # equal distances but for rounding
    assert found != score.score_files(first, **options)["methods"]["features"]


def test_pictures_of_the_query_in_the_gallery_are_told(tmp_path):
    values, person = np.random.default_rng(0).normal(size=(6, 4)), np.array([1, 2, 3, 1, 2, 3])

    def hints(query, gallery, name="multi_shot"):
        query, gallery = np.array(query), np.array(gallery)
        rows = {"query_features": values[query], "gallery_features": values[gallery].astype(np.float32).astype(float)}
        rows["query_features"] = rows["query_features"].astype(np.float32)
        np.savez(tmp_path / "a.npz", **rows, query_person_id=person[query], gallery_person_id=person[gallery])
        return score.score_files([tmp_path / "a.npz"], protocol=protocols.named(name))["hints"]

    assert hints([0, 1, 2], [3, 4, 5]) == hints([0], [3], "single_shot") == []
    (told,) = hints([0, 1, 2], [5, 4, 3, 2, 0])
    assert told.startswith("2 of 3 queries have a gallery image of their person with the very same features")
    person[5] = 9
    assert hints([0, 1], [3, 4, 5]) == [] and "2 of 2" in hints([0, 1], [1, 0], "single_shot")[0]


def test_without_cameras(files):
    with pytest.raises(ValueError, match=r"25 of 25 query images have no camera .*single_shot or all_vs_all"):
        score.score_files([files / "no_cameras.npz"], protocol=MARKET)
    results = score.score_files([files / "set.npz"], protocol=protocols.ALL_VS_ALL)
    options = {"protocol": "all_vs_all", "query": QUERY.labels, "gallery": QUERY.labels}
    check(results, squared(QUERY.values, QUERY.values), **options)


def test_open_gallery(files, tmp_path):
    kept = GALLERY.labels.person_id > 2
    arrays = dict(np.load(files / "a.npz"))
    arrays |= {name: value[kept] for name, value in arrays.items() if name.startswith("gallery")}
    np.savez(tmp_path / "open.npz", **arrays)
    with pytest.raises(ValueError, match="set no_match"):
        score.score_files([tmp_path / "open.npz"], protocol=MARKET)
    results = score.score_files([tmp_path / "open.npz"], protocol=MARKET, no_match="skip", operating_points=True)
    watch = results["operating_points"]["identification"]
    assert watch["strangers"] == np.sum(QUERY.labels.person_id <= 2) and len(watch["points"]) == 2
    assert results["queries_counted"] == 25 - results["queries_without_match"]
    assert "DIR" in scores.table(json.loads(json.dumps(results)))


@pytest.mark.parametrize(
    ("file", "options", "told"),
    [
        ("d.npy", {"reranking": {}, "expand": None}, None),
        ("d.npy", {"reranking": {"k1": 5}}, "--rerank wants features"),
        ("d.npy", {"expand": (3, None)}, "--expand wants features"),
        ("d.npy", {"distance": "cosine"}, "--distance wants features"),
        ("a.mat", {"multi_query": True}, "--multi_query wants mquery_f"),
        ("a.npz", {"multi_query": True, "protocol": protocols.SINGLE_SHOT}, "single_shot wants one gallery image"),
        ("set.npz", {"multi_query": True, "protocol": protocols.ALL_VS_ALL}, "the protocol is all_vs_all"),
        ("set.npz", {"reranking": {}, "protocol": protocols.ALL_VS_ALL}, "meet every image twice"),
        ("set.npz", {"protocol": protocols.MULTI_SHOT}, "find itself first under multi_shot; choose all_vs_all"),
        ("set.npz", {}, "have no camera"),
        ("a.npz", {"kissme_train": "train.npz", "distance": "cosine"}, "leave --distance=cosine out"),
        ("a.npz", {"kissme_train": "a.npz"}, "lacks features, person_id; it holds"),
        ("a.npz", {"reranking": {"k1": 500}}, "k1 is 500; .* it can be 1 to 94"),
        ("a.npz", {"expand": (500, None)}, "k is 500"),
        ("a.npz", {"distance": "manhattan"}, "no distance 'manhattan'"),
    ],
)
def test_what_does_not_go_together(files, file, options, told):
    options = {"protocol": MARKET} | options
    if "kissme_train" in options:
        options["kissme_train"] = files / options["kissme_train"]
    labels = [files / "q.csv", files / "g.csv"] if file == "d.npy" else []
    if told is None:
        options["reranking"] = None
        score.score_files([files / file], labels, **options)
        return
    with pytest.raises(ValueError, match=told) as caught:
        score.score_files([files / file], labels, **options)
    assert "\n" not in str(caught.value)


def test_values_that_cannot_be_ranked(files, tmp_path):
    def scored(distance="squared_euclidean", **change):
        np.savez(tmp_path / "b.npz", **(dict(np.load(files / "a.npz")) | change))
        return score.score_files([tmp_path / "b.npz"], protocol=MARKET, distance=distance)

    dark = GALLERY.values.copy()
    dark[4] = 0
    scored(gallery_features=dark)
    with pytest.raises(ValueError, match="gallery row 4 is all zeros and has no cosine"):
        scored(gallery_features=dark, distance="cosine")
    with pytest.raises(ValueError, match="gallery row 4 is all zeros and has no cosine"):
        score.score_files([tmp_path / "b.npz"], protocol=MARKET, distance="cosine", expand=(2, None))
    constant = scored(gallery_features=dark + np.float32(1e30))
    check(constant, np.zeros((25, 70)))  # nothing left to tell them apart by
    assert "equally far from all" in constant["hints"][0]
    assert constant["hints"][0] in " ".join(scores.table(constant).split())
    np.save(tmp_path / "d.npy", np.where(np.eye(25, 70) > 0, np.nan, 1))
    with pytest.raises(ValueError, match="distance of query 0 and gallery image 0 is NaN or infinite"):
        score.score_files([tmp_path / "d.npy"], [files / "q.csv", files / "g.csv"], protocol=MARKET)
    cameras = np.ones(70, int)
    with pytest.raises(ValueError, match=r"Query \d+ is of camera 1, and so is every gallery image"):
        scored(gallery_camera_id=cameras)
    np.savez(tmp_path / "f.npz", feature=GALLERY.values, person_id=np.zeros(70, int), camera_id=-cameras)
    with pytest.raises(ValueError, match="queries show no person"):  # as extract --folder writes it
        score.score_files([tmp_path / "f.npz"], protocol=MARKET)
    with pytest.raises(ValueError, match="queries show no person"):
        scored(query_person_id=np.zeros(25, int))


@pytest.mark.parametrize(("text", "wanted"), [("5", (5, None)), ("5,3.5", (5, 3.5)), ("a", None), ("1,2,3", None)])
def test_expand_flag(text, wanted):
    if wanted:
        assert score.parse_expand(text.split(",")) == wanted
    else:
        with pytest.raises(ValueError, match="neither K nor K,ALPHA"):
            score.parse_expand(text.split(","))


def evaluate(folder, *flags):
    command = [sys.executable, "-P", "-m", "acrn_jax.cli.evaluate", *flags]
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_the_verb(files):
    code, out, err = evaluate(
        files, "--features=q.h5,g.h5", "--labels=q.csv,g.csv", "--protocol=market1501", "--json=o/o.json"
    )
    assert (code, err) == (0, ""), err
    results = json.loads((files / "o" / "o.json").read_text())
    check(results, squared(QUERY.values, GALLERY.values))
    assert set(results["files"]) == {"q.h5", "g.h5", "q.csv", "g.csv"} and results["versions"]["numpy"]
    assert "mAP trap." in out and "95 % interval" in out


def test_the_verb_refuses_in_one_sentence(files):
    scipy.io.savemat(files / "odd.mat", {"query_feat": QUERY.values})
    code, out, err = evaluate(files, "--features=odd.mat", "--protocol=market1501")
    assert (code, out, err.count("\n")) == (2, "", 1) and "lacks query_f, " in err, err


FLAGS = """
import json, sys
from absl import flags
from absl.testing import flagsaver
from acrn_jax.cli import evaluate
for case in json.loads(sys.argv[1]):
    flags.FLAGS.unparse_flags()
    with flagsaver.flagsaver():
        flags.FLAGS(["evaluate", *case])
        try:
            evaluate.main([])
        except ValueError as error:
            print(error)
"""


def test_flags_that_do_not_go_together(files):
    cases = {
        "--features wants --protocol; choose one of market1501, ": ["--features=a.mat"],
        "give --rerank too": ["--features=a.mat", "--protocol=market1501", "--k1=3"],
        "--workdir does not go with --features": ["--features=a.mat", "--workdir=x"],
        "--rerank does not go without --features": ["--workdir=x", "--rerank"],
    }
    command = [sys.executable, "-P", "-c", FLAGS, json.dumps(list(cases.values()))]
    done = subprocess.run(
        command, cwd=files, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    for told, line in zip(cases, done.stdout.splitlines(), strict=True):
        assert told in line
