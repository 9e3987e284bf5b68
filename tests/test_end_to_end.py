"""The whole chain on a few drawn people with nets as narrow as they come: from data to table and report."""

import dataclasses
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

from acrn_jax import build, runs, schema, settings
from acrn_jax.cli import shell
from acrn_jax.configs import demo
from acrn_jax.data import source
from acrn_jax.data_prep.synthetic_pedestrians import synthetic_pedestrians_dataset_builder as drawn
from acrn_jax.evaluation import attributes, protocols, ranking, score
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.report import html, tables
from acrn_jax.results import Audit, Results
from acrn_jax.runs import bundles, calibrating, extraction, face
from acrn_jax.train import checkpoint

SIZES = {
    "source_mini": {"train": 60, "val": 4, "test": 20},
    "target_mini": {"train": 24, "test": 16, "distractors": 20, "junk": 8},
    "target_other": {"train": 2, "test": 9, "distractors": 4, "junk": 2},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for name, sizes in SIZES.items():
        config = drawn.Config(name=name, target=name.startswith("target"), seed=0, sizes=sizes)
        drawn.Builder(config=config, data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def config_of(part, data_dir, **changes):
    c = demo.get_config(part)
    c.data.dir, c.devices, c.log_every = str(data_dir), 1, 5
    c.data.config = "source_mini" if part == "attributes" else "target_mini"
    c.data.height, c.data.width, c.model.width, c.model.feature_dim = 32, 16, 0.0625, 16
    c.data.validation_identities = 6
    c.mva.epochs, c.mva.batch = 10, 32
    c.identity.epochs, c.identity.batch = 12, 32
    c.reid.update({"epochs": 6, "people": 8, "images": 2})
    c.evaluate.rank_lists, c.evaluate.batch = 2, 16  # one size of batches for all splits compiles once
    return settings.read(c).changed(changes)


@pytest.fixture(scope="module")
def chain(data_dir, tmp_path_factory):
    """(attribute run, ACRN run, its results, hash of the attribute net before ACRN was trained)."""
    net, run = (tmp_path_factory.mktemp("runs") / name for name in ("attribute_net", "acrn"))
    runs.train(config_of("attributes", data_dir), net)
    before = contents(net / "mva" / "checkpoints")
    return net, run, runs.reproduce(config_of("acrn", data_dir), attributes=net, workdir=run), before


def query_and_gallery(data_dir):
    return [source.open_split(data_dir, "synthetic_pedestrians", "target_mini", s) for s in ("query", "gallery")]


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


def test_results_hold_what_the_readme_says(chain, data_dir):
    _, run, results, _ = chain
    assert results.to_json() == json.loads((run / "results.json").read_text())
    assert results == Results.read(run / "results.json")
    assert tuple(results.methods) == schema.METHODS
    for metrics in results.methods.values():
        assert tuple(metrics) == tuple(METRICS) and all(0 <= value <= 1 for value in metrics.values())
    query, gallery = (
        source.open_split(data_dir, "synthetic_pedestrians", "target_mini", s) for s in ("query", "gallery")
    )
    assert (results.queries, results.gallery, results.protocol) == (len(query), len(gallery), "market1501")
    assert {w.name: w.reliability for w in results.weights} == query.metadata["reliability"]
    assert results.seeds == {"train": 0} and results.config["loss"]["gamma"] == 0.5
    assert results.scales["feature"] != 1 and results.tuned_factor is not None
    assert set(results.versions) >= {"jax", "flax", "optax", "numpy", "python"}


def test_learned_features_tell_apart_the_people_they_were_learned_from(chain, data_dir):
    """Far from chance on every machine; of new people there are too few, for so narrow a net, to be sure of that."""
    _, run, _, _ = chain
    train, _ = build.reid_splits(config_of("acrn", data_dir))

    def scored(distances):
        found = ranking.evaluate(distances, train.labels, train.labels, protocol=protocols.ALL_VS_ALL)
        return found.metrics["mAP_precision"]

    chance = [scored(np.random.default_rng(i).random((len(train), len(train)))) for i in range(20)]
    for folder in (run, run / "baseline"):
        f = runs.load(folder).outputs(train, batch=16)["feature"].astype(np.float64)
        found = scored(((f[:, None] - f[None]) ** 2).sum(-1))
        assert found > np.mean(chance) + 5 * np.std(chance), folder


def test_acrn_row_is_the_distance_of_the_stored_parts(chain, data_dir):
    """The score of d_f / s_f + gamma d_w / s_a, computed here from the stored predictions and a forward pass."""
    _, run, results, _ = chain
    splits = query_and_gallery(data_dir)
    f = [runs.load(run).outputs(s, batch=16)["feature"].astype(np.float64) for s in splits]
    stored = [np.load(run / "predictions" / f"{s}.npz") for s in ("query", "gallery")]
    for split, kept in zip(splits, stored, strict=True):
        assert list(kept["key"]) == list(split.key)
    w = np.array([entry.weight for entry in results.weights])
    a = [w / (1 + np.exp(-kept["logits"].astype(np.float64))) for kept in stored]

    def squared(pair):
        return ((pair[0][:, None] - pair[1][None]) ** 2).sum(-1)

    d = squared(f) / results.scales["feature"] + 0.5 * squared(a) / results.scales["attribute"]
    found = ranking.evaluate(d, splits[0].labels, splits[1].labels, protocol=protocols.MARKET1501).metrics
    for name, value in found.items():
        assert np.isclose(value, results.methods["ACRN"][name], atol=1e-3), name


def test_a_calibration_of_one_person_is_of_the_runs_distance_and_goes_into_its_bundle(chain, data_dir, tmp_path):
    """Pairs and expected calibration error by loops, from the net's outputs."""
    net, run, results, _ = chain
    mine = shutil.copytree(run, tmp_path / "run")
    name = "synthetic_pedestrians/target_"
    pairs = calibrating.calibrate(mine, [f"{name}mini"], judge=[f"{name}other"]).calibration.pairs
    splits = [source.open_split(data_dir, "synthetic_pedestrians", "target_other", s) for s in ("query", "gallery")]
    w = np.array([entry.weight for entry in results.weights])
    rows = {}  # each image once
    for split in splits:
        f = runs.load(mine).outputs(split, batch=16)["feature"].astype(np.float64)
        a = w / (1 + np.exp(-runs.load(net).outputs(split, batch=16)["attribute_logits"].astype(np.float64)))
        rows |= {str(split.file_name[i]): (*(of[i] for of in split.labels), f[i], a[i]) for i in range(len(split))}
    images, found = [row for row in rows.values() if row[0] >= 0], {True: [], False: []}
    for i, (person, camera, f, a) in enumerate(images):
        for other, seen_by, g, b in images[:i]:
            d = ((f - g) ** 2).sum() / results.scales["feature"]
            d += 0.5 * ((a - b) ** 2).sum() / results.scales["attribute"]
            if person != other:
                found[False].append(d)
            elif person > 0 and camera != seen_by:
                found[True].append(d)
    judged = pairs.judged[1]
    assert (judged.on, judged.people) == (f"{name}other", len({row[0] for row in images} - {0}))
    assert (judged.same, judged.different) == (len(found[True]), len(found[False]))
    assert pairs.people + pairs.judged[0].people == len(np.unique(query_and_gallery(data_dir)[0].person_id))
    bins = {}
    for same, distances in found.items():
        for d in distances:
            p = float(np.interp(d, pairs.distance, pairs.probability))
            bins.setdefault(min(int(10 * p), 9), []).append((0.5 / len(distances), p, same))
    error = sum(abs(sum(w * (p - same) for w, p, same in of)) for of in bins.values())
    np.testing.assert_allclose(judged.error, error, atol=2e-3)
    model = face.load(mine)
    np.testing.assert_allclose(model.same_person(pairs.distance), pairs.probability)
    _, about = bundles.describe(runs.load(mine), ["feature"])
    assert about["pairs"] == pairs.to_json()


@pytest.mark.parametrize(
    ("which", "options", "told"),
    [
        ("net", {"datasets": ["synthetic_pedestrians/target_mini"]}, "is an attribute net"),
        ("run", {"datasets": []}, "no people to fit on"),
        ("run", {"datasets": ["target_mini"]}, "write NAME/CONFIG"),
    ],
)
def test_what_cannot_be_calibrated_leaves_nothing(chain, which, options, told):
    folder = chain[0] if which == "net" else chain[1]
    with pytest.raises(ValueError, match=told):
        calibrating.calibrate(folder, **options)
    assert not (folder / "pairs.json").exists()


def test_features_that_leave_in_a_mat_file_score_the_same(chain, data_dir, tmp_path):
    _, run, results, _ = chain
    extraction.extract(run / "baseline", query_and_gallery(data_dir), tmp_path / "f.mat", format="mat")
    found = score.score_files([tmp_path / "f.mat"], protocol=protocols.MARKET1501)
    assert found["methods"]["features"] == results.methods["ReIdCNN"]


def test_the_attribute_net_stays_frozen(chain):
    net, _, _, before = chain
    assert contents(net / "mva" / "checkpoints") == before


def test_weights_moved_and_the_identity_phase_is_shared(chain):
    _, run, results, _ = chain
    assert len({round(entry.weight, 6) for entry in results.weights}) > 5
    base = json.loads((run / "baseline" / "config.json").read_text())
    assert base["init_from"].endswith("identity") and base["phases"] == ["reid"]
    assert not (run / "baseline" / "identity").exists()


def test_training_leaves_out_the_held_people(chain, data_dir):
    train, held = build.reid_splits(config_of("acrn", data_dir))
    assert len(np.unique(held.person_id)) == 6 and not set(train.person_id) & set(held.person_id)
    query = source.open_split(data_dir, "synthetic_pedestrians", "target_mini", "query")
    assert not set(query.person_id) & (set(train.person_id) | set(held.person_id))


def test_again_does_nothing_and_says_so(chain, data_dir, capsys):
    net, run, results, _ = chain
    before = contents(run / "reid" / "checkpoints")
    again = runs.reproduce(config_of("acrn", data_dir), attributes=net, workdir=run)
    assert again.methods == results.methods and contents(run / "reid" / "checkpoints") == before
    assert capsys.readouterr().out.count("nothing to do") == 3


def test_same_seed_same_bits(chain, data_dir, tmp_path):
    """The reid phase again from the same identity phase: equal parameters, bit for bit."""
    net, run, _, _ = chain
    changes = {"phases": ("reid",), "init_from": str(run / "identity"), "attributes.from": str(net)}
    runs.train(config_of("acrn", data_dir, **changes), tmp_path / "again")
    first, second = (checkpoint.load_any(f / "reid" / "checkpoints") for f in (run, tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_recognition(chain):
    net = chain[0]
    found = json.loads((net / "recognition.json").read_text())
    assert 0.5 < found["mA"] < 1 and len(found["attributes"]) == 26
    assert found["unseen"]["images"] == 40 and "seen" not in found  # a source shows nobody twice


def test_report(chain, tmp_path):
    _, run, results, _ = chain
    page = html.write([run], tmp_path / "report.html").read_text()
    for name, metrics in results.methods.items():
        assert name in page and f"{100 * metrics['mAP_precision']:.1f}" in page
    assert page.count("data:image/jpeg") >= 2 * 2 * 5


def test_audit(chain, data_dir, tmp_path):
    """Of the row that is named, in slices of the labels and pictures of the prepared set, and in the report."""
    _, run, results, _ = chain
    runs.evaluate(run, out=tmp_path / "out", audited=True)
    found = Audit.read(tmp_path / "out" / "audit.json")
    assert (found.method, found.fingerprint) == ("ACRN", results.fingerprint)
    assert found.overall["rank1"].mean == pytest.approx(results.methods["ACRN"]["rank1"])
    query, _ = query_and_gallery(data_dir)
    assert found.names == tuple(query.file_name) and found.cameras.probe
    name = next(c.name for c in found.columns if c.source == "label" and c.name in query.attribute_names)
    kept = np.load(tmp_path / "out" / "per_query.npz")
    shown = query.attributes[:, query.attribute_names.index(name)] == 1
    yes = next(s for s in found.slices if (s.column, s.name) == (name, "yes"))
    assert yes.scores["mAP_precision"].mean == pytest.approx(kept["ACRN/mAP_precision"][shown].mean())
    page = html.render([html.read(tmp_path / "out")])
    assert "Audit: where it is good" in page and "How much cameras explain" in page
    with pytest.raises(ValueError, match="is an attribute net"):
        runs.evaluate(chain[0], out=tmp_path / "net", audited=True)


def test_rank_lists_mark_right_and_wrong(chain, data_dir):
    _, run, _, _ = chain
    lists = json.loads((run / "rank_lists.json").read_text())["query"]
    assert {name: len(entries) for name, entries in lists.items()} == {"hardest": 2, "random": 2}
    for entry in [e for entries in lists.values() for e in entries]:
        assert (run / entry["image"]).exists()
        for other in entry["gallery"]:
            assert other["right"] == (other["person_id"] == entry["person_id"]) and other["person_id"] != -1
            assert not (other["right"] and other["camera_id"] == entry["camera_id"])
        distances = [other["distance"] for other in entry["gallery"]]
        assert distances == sorted(distances)


def test_wrong_input_is_one_sentence(chain, data_dir, tmp_path):
    net, run, _, _ = chain
    with pytest.raises(FileNotFoundError, match="holds no run"):
        runs.evaluate(tmp_path)
    with pytest.raises(ValueError, match=r"a ReIdCNN, with .* is wanted"):
        runs.evaluate(run, baseline=run)
    with pytest.raises(FileNotFoundError, match="prepare"):
        runs.evaluate(run, data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no finished attribute net"):
        runs.train(config_of("acrn", data_dir, **{"attributes.from": str(run)}), tmp_path / "a")
    changes = {"attributes.from": str(net), "phases": ("reid",), "init_from": str(run / "identity")}
    with pytest.raises(ValueError, match="there are 18 people"):
        runs.train(config_of("acrn", data_dir, **changes, **{"reid.people": 19}), tmp_path / "b")
    config = config_of("attributes", data_dir, **{"data.exclude_subsets": ("GRID",)})
    with pytest.raises(ValueError, match="exclude_subsets names GRID"):
        runs.train(config, tmp_path / "c")
    (run / "config.json").rename(run / "kept")
    (run / "config.json").write_text("{")
    try:
        with pytest.raises(ValueError, match="is not JSON"):
            runs.read_config(run)
    finally:
        (run / "kept").replace(run / "config.json")


@pytest.mark.slow
def test_scored_on_another_data_set(chain, data_dir, tmp_path, capsys):
    _, run, results, _ = chain
    other = "synthetic_pedestrians/target_other"
    found = runs.evaluate(run, baseline=run / "baseline", dataset=other)
    assert found == json.loads((run / "on_synthetic_pedestrians_target_other" / "results.json").read_text())
    assert results.to_json() == json.loads((run / "results.json").read_text())
    assert results == Results.read(run / "results.json")
    assert (found.dataset, found.trained_on) == (other, results.dataset)
    assert tuple(found.methods) == schema.METHODS and found.missing == {}
    query, gallery = (source.open_split(data_dir, *other.split("/"), s) for s in ("query", "gallery"))
    f = [runs.load(run / "baseline").outputs(s, batch=16)["feature"].astype(np.float64) for s in (query, gallery)]
    d = ((f[0][:, None] - f[1][None]) ** 2).sum(-1)
    expected = ranking.evaluate(d, query.labels, gallery.labels, protocol=protocols.MARKET1501)
    assert found.methods["ReIdCNN"] == pytest.approx(expected.metrics, abs=1e-3)
    text = " ".join(tables.methods_table(found).split())
    assert "target_other, query/gallery, trained on synthetic_pedestrians/target_mini" in text
    # The run's own training set need not be there.
    (tmp_path / "synthetic_pedestrians").mkdir()
    (tmp_path / other).symlink_to(data_dir / other)
    alone = runs.evaluate(run, baseline=run / "baseline", dataset=other, data_dir=str(tmp_path))
    assert set(alone.missing) == {"Attributes-KISSME", "ReIdCNN+Attributes-tuned"}
    assert "target_mini is not prepared" in alone.missing["Attributes-KISSME"]
    assert alone.methods == {n: m for n, m in found.methods.items() if n not in alone.missing}
    with pytest.raises(ValueError, match="has no split 'query'; it has"):
        runs.evaluate(run, dataset="synthetic_pedestrians/source_mini")
    with pytest.raises(ValueError, match="write NAME/CONFIG"):
        runs.evaluate(run, dataset="target_other")


@pytest.mark.slow
def test_an_image_in_query_and_gallery_is_not_its_own_match(chain, monkeypatch):
    """The query searched in itself: multi_shot, which knows images by their keys, scores as all_vs_all, by places."""
    run, opened = chain[1], build.open_split
    monkeypatch.setattr(build, "open_split", lambda config, name: opened(config, name.replace("gallery", "query")))
    one, other = (
        runs.evaluate(run, dataset="synthetic_pedestrians/target_mini", settings={"protocol": name, "no_match": "skip"})
        for name in ("multi_shot", "all_vs_all")
    )
    assert one["methods"] == other["methods"] and one["methods"]["ACRN"]["rank1"] < 1


@pytest.mark.slow
def test_protocols_that_draw(chain, monkeypatch):
    _, run, _, _ = chain
    changes = {"protocol": "cuhk03_single_shot", "draws": 3, "no_match": "skip"}
    here = {"dataset": "synthetic_pedestrians/target_mini", "settings": changes}
    with pytest.raises(ValueError, match=r"4 camera ids .*choose market1501"):
        runs.evaluate(run, **here)
    opened = build.open_split

    def two_views(config, name):
        split = opened(config, name)
        return dataclasses.replace(split, camera_id=(split.camera_id - 1) % 2 + 1)

    monkeypatch.setattr(build, "open_split", two_views)
    found = runs.evaluate(run, **here)
    assert found.protocol_options == {"repeats": 3, "seed": 0, "probe_view": "both"}
    assert tuple(found.deviation) == tuple(found.methods) and set(found.missing) == set(schema.METHODS) - set(
        found.methods
    )
    assert set(found.deviation["ACRN"]) == set(METRICS)
    text = " ".join(tables.methods_table(found).split())
    assert "cuhk03_single_shot (repeats 3, seed 0, probe_view both)" in text and "deviation over 3 draws" in text
    row = f"{100 * found['methods']['ACRN']['rank1']:.1f} ± {100 * found['deviation']['ACRN']['rank1']:.1f}"
    assert row in text


@pytest.mark.slow
def test_multi_query_averages_features_and_attributes(chain, monkeypatch):
    _, run, _, _ = chain
    opened = build.open_split

    def with_boxes(config, name):
        if name != "multi_query":
            return opened(config, name)
        query, gallery = opened(config, "query"), opened(config, "gallery")
        twice = source.join([query, gallery.take(np.arange(len(query)) % len(gallery))])
        labels = {key: np.tile(getattr(query, key), 2) for key in ("person_id", "camera_id")}
        return dataclasses.replace(twice, name=query.name.replace("/query", "/multi_query"), **labels)

    monkeypatch.setattr(build, "open_split", with_boxes)
    other = "synthetic_pedestrians/target_mini"
    changes = {"protocol": "market1501_multi_query"}
    found = runs.evaluate(run, baseline=run / "baseline", dataset=other, settings=changes)
    target = runs.read_config(run).changed({"data.config": "target_mini"})
    query, gallery, boxes = (with_boxes(target, s) for s in ("query", "gallery", "multi_query"))
    values = {
        "ReIdCNN": [runs.load(run / "baseline").outputs(s, batch=16)["feature"] for s in (boxes, gallery)],
        "Attributes": [
            1 / (1 + np.exp(-runs.load(chain[0]).outputs(s, batch=16)["attribute_logits"])) for s in (boxes, gallery)
        ],
    }
    for name, (asked, known) in values.items():
        person_camera = list(zip(*boxes.labels, strict=True))
        asked = np.array(
            [
                np.mean([x for x, who in zip(asked, person_camera, strict=True) if who == mine], axis=0)
                for mine in zip(*query.labels, strict=True)
            ]
        )
        d = ((asked[:, None].astype(np.float64) - known[None]) ** 2).sum(-1)
        expected = ranking.evaluate(d, query.labels, gallery.labels, protocol=protocols.MARKET1501)
        assert found.methods[name] == pytest.approx(expected.metrics, abs=1e-3), name


@pytest.mark.slow
def test_calibrated_recognition(chain, data_dir, tmp_path, capsys):
    net = chain[0]
    first = json.loads((net / "recognition.json").read_text())
    config = config_of("attributes", data_dir, **{"mva.calibrate": "mA"})
    found = runs.recognise(net, config=config, out=tmp_path)
    assert first == json.loads((net / "recognition.json").read_text())
    val = build.open_split(config, "val")
    said = REPRESENTATIONS["probabilities"](runs.load(net).outputs(val, batch=16)["attribute_logits"])
    np.testing.assert_allclose(found.threshold, attributes.calibrate(said, val.attributes), atol=1e-6)
    assert found.calibrated.split == "synthetic_pedestrians/source_mini/val"
    assert "A threshold per attribute. Each has the best mA on synthetic_pedestrians/source_mini/val." in " ".join(
        capsys.readouterr().out.split()
    )
    with pytest.raises(ValueError, match=r"chooses thresholds on .*/val, but the net is trained on"):
        runs.train(config.changed({"data.train_split": "train+val"}), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()
    with pytest.raises(ValueError, match=r"mva.calibrate is 'recall'; known: none, mA, f1"):
        config.changed({"mva.calibrate": "recall"})


def test_attribute_net_on_another_data_set(chain):
    net = chain[0]
    first = json.loads((net / "recognition.json").read_text())
    found = runs.evaluate(net, dataset="synthetic_pedestrians/source_mini").to_json()  # its own will do
    file = net / "on_synthetic_pedestrians_source_mini" / "recognition.json"
    assert found == json.loads(file.read_text())
    assert set(first) - set(found) == {"unseen"}  # person ids there are other people, or so one must think
    for key in ("mA", "f1", "threshold", "undefined", "attributes", "fingerprint", "dataset", "trained_on"):
        assert found[key] == first[key], key
    # A re-id set has no split test: its people of query and gallery, without distractors.
    elsewhere = runs.evaluate(net, dataset="synthetic_pedestrians/target_mini")
    config = runs.load(net).config.changed({"data.name": "synthetic_pedestrians", "data.config": "target_mini"})
    people = np.concatenate([build.open_split(config, name).person_id for name in ("query", "gallery")])
    assert (elsewhere.split, elsewhere.images) == ("query+gallery", np.sum(people > 0))


def test_attribute_net_on_images_that_it_was_trained_on(chain, tmp_path, capsys):
    net = chain[0]
    found = runs.recognise(net, split_name="train", out=tmp_path)
    assert found.images_trained_on == found.images and found.unseen is None
    told = f"The net was trained on {found.images} of these images. Nothing is left for scores of people whom training"
    assert told in " ".join(capsys.readouterr().out.split())
    assert "images_trained_on" not in json.loads((net / "recognition.json").read_text())


def test_missing_flags():
    with pytest.raises(ValueError, match="--workdir must be given"):
        shell.require(config=1, workdir=None)
