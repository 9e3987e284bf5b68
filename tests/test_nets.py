"""Nets that ship: a run exported as a folder of two files, and taken by name wherever a workdir is asked for."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
import safetensors.numpy
from absl.testing import flagsaver

from acrn_jax import build, runs
from acrn_jax.cli import demo, models
from acrn_jax.data import source
from acrn_jax.data_prep import prepare
from acrn_jax.export import net_file
from acrn_jax.runs import adaptation, bundles, extraction, face, nets, overlap, search, shipping
from acrn_jax.train import checkpoint
from tests.fixtures import small_net


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder of pictures, prepared data, runs, nets "mva-tiny", "acrn-tiny" and "reid-tiny" that ACRN_NETS names)."""
    raw, data, folder, home = (tmp_path_factory.mktemp(name) for name in ("raw", "data", "runs", "nets"))
    before, patch = small_net.stand_in(), pytest.MonkeyPatch()
    patch.setenv(nets.VARIABLE, str(home))
    everywhere = nets.homes
    patch.setattr(nets, "homes", lambda: everywhere()[1:])  # the package's own are of another kind of net
    try:
        small_net.prepare(raw, data, "mini")
        runs.train(small_net.config("mva", data, "mini").changed({"devices": 1}), folder / "attributes")
        reid = small_net.config("reid", data, "mini").changed({"devices": 1, "loss.gamma": 0.7, "ema": 0.5})
        named = {"attributes.from": str(folder / "attributes"), "loss.weight_form": "unit_mean"}
        runs.train(reid.changed(named), folder / "acrn")
        runs.train(reid.changed({"loss.kind": "classic"}), folder / "reidcnn")
        shipping.export_net(folder / "attributes", home / "mva-tiny", sample=4)
        for run, name in (("acrn", "acrn-tiny"), ("reidcnn", "reid-tiny")):
            shipping.export_net(folder / run, home / name, attributes_name="mva-tiny", sample=4)
        yield raw, data, folder, home
    finally:
        patch.undo()
        build.net = before


def test_a_net_says_what_its_run_says(made):
    raw, _, folder, _ = made
    pictures = sorted(raw.glob("*.jpg"))[:6]
    close = {"rtol": 1e-2, "atol": 2e-3}
    for run, name in (("acrn", "acrn-tiny"), ("reidcnn", "reid-tiny")):
        net, own = face.load(name), face.load(folder / run)
        np.testing.assert_allclose(net.embed(pictures), own.embed(pictures), **close)
        np.testing.assert_allclose(
            net.distances(pictures[:2], pictures), own.distances(pictures[:2], pictures), **close
        )
    expected = face.load(folder / "attributes").attributes(pictures).probabilities
    for name in ("mva-tiny", "acrn-tiny", "reid-tiny"):  # a ReIdCNN has the attribute net to describe with
        found = face.load(name).attributes(pictures)
        np.testing.assert_allclose(found.probabilities, expected, **close)
        assert found.names == ("red", "green", "blue")
    shares = face.load("reid-tiny").explain(pictures[0], pictures[1])[0]
    assert shares.feature == pytest.approx(shares.distance) and not shares.attributes


def test_values_are_those_of_evaluation_rounded(made):
    """Averaged (config.ema), by an oracle that reads the checkpoint and safetensors; the classifier stays at home."""
    _, _, folder, home = made
    for run, name in (("acrn", "acrn-tiny"), ("attributes", "mva-tiny")):
        saved = checkpoint.load_any(folder / run / ("mva" if run == "attributes" else "reid") / "checkpoints")
        stored = safetensors.numpy.load((home / name / "weights.safetensors").read_bytes())
        params = saved["opt"]["average"]["net"] if run == "acrn" else saved["params"]["net"]
        layer = next(part for part in params if part in ("stem", "trunk"))
        kernel = np.asarray(params[layer]["kernel"])
        assert stored[f"params/net/{layer}/kernel"].dtype == np.float16
        np.testing.assert_array_equal(stored[f"params/net/{layer}/kernel"], kernel.astype(np.float16))
        if run == "acrn":
            last = np.asarray(saved["params"]["net"][layer]["kernel"])
            assert (last.astype(np.float16) != kernel.astype(np.float16)).any()  # the average is another net
        statistics = saved["batch_stats"][f"{layer}_norm"]["var"]
        np.testing.assert_allclose(stored[f"batch_stats/{layer}_norm/var"], statistics, rtol=1e-3)
        assert not [name for name in stored if "classifier" in name]


def test_the_card_says_where_a_net_comes_from(made):
    raw, data, folder, home = made
    card = json.loads((home / "acrn-tiny" / "card.json").read_text())
    assert (card["format"], card["name"], card["kind"], card["attributes"]) == (
        "acrn_jax net 1", "acrn-tiny", "acrn", "mva-tiny",
    )  # fmt: skip
    content = (home / "acrn-tiny" / "weights.safetensors").read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest() and card["bytes"] == len(content)
    run = runs.load_acrn(folder / "acrn", "")
    expected = run.weights(run.training_attributes())
    np.testing.assert_allclose([card["weights"][name] for name in ("red", "green", "blue")], expected, rtol=1e-6)
    np.testing.assert_allclose(runs.load_acrn("acrn-tiny", "").weights(), expected, rtol=1e-6)
    assert card["gamma"] == 0.7 and card["scales"] == run.scales == runs.load_acrn("acrn-tiny", "").scales
    assert card["training"]["images"] == 36 and card["training"]["people"] == 6
    assert card["training"]["parts"] == ["image_folder"]
    assert 0 < card["float16"]["feature"]["relative"] < 1e-2 and card["float16"]["images"] == 12
    assert card["parameters"] == 3 * 9 * 6 + 6 + 6 * 2 + (8 * 4 * 6) * 8 + 8 + 8 * 2
    everything = json.dumps(card)
    for place in (data, folder, home, raw):
        assert str(place) not in everything
    attributes = json.loads((home / "mva-tiny" / "card.json").read_text())
    scored = json.loads((folder / "attributes" / "recognition.json").read_text())
    assert attributes["recognition"]["mA"] == scored["mA"] == attributes["scores"][0]["mA"]
    assert runs.attribute_net("mva-tiny").recognition_rates["mA"]["red"] is not None


def trained(raw):
    """Files of the training people, who are those of odd numbers."""
    return sorted((f for f in raw.glob("*.jpg") if int(f.name.split("_")[0]) % 2), key=lambda f: f.name)


def test_search_extract_export_and_adapt_take_the_name(made, tmp_path):
    raw, data, folder, home = made
    before = {file: file.stat().st_mtime_ns for file in home.rglob("*")}
    query = sorted(raw.glob("*.jpg"))[0]
    for run, name in (("acrn", "acrn-tiny"), ("reidcnn", "reid-tiny"), ("attributes", "mva-tiny")):
        found, own = (
            search.search(where, raw, query=query, top=5, out=tmp_path / f"search_{i}_{run}")
            for i, where in enumerate((name, folder / run))
        )
        for a, b in zip(found["results"], own["results"], strict=True):
            assert a["distance"] == pytest.approx(b["distance"], rel=0.02, abs=2e-3)
        found = search.search(name, raw, want=["red"], top=3, out=tmp_path / f"want_{run}")
        assert len(found["results"]) == 3 and "red" in found["results"][0]["probabilities"]
    with pytest.raises(ValueError, match="a net that ships, into which nothing is written; name a folder with --out"):
        search.search("acrn-tiny", raw, query=query, out=home / "acrn-tiny" / "search")
    splits = [extraction.open_pictures(raw)]
    for name, key in (("acrn-tiny", "feature"), ("mva-tiny", "attributes")):
        extraction.extract(name, splits, tmp_path / f"{name}.npz", format="npz")
        with np.load(tmp_path / f"{name}.npz") as stored:
            model = face.load(name)
            values = model.embed(raw) if key == "feature" else model.attributes(raw).probabilities
            np.testing.assert_allclose(stored[key], values, rtol=1e-5)
    bundles.export("acrn-tiny", tmp_path / "bundle", formats=["stablehlo"], sample=0, data_dir=str(data))
    found = face.load(tmp_path / "bundle").distances(query, raw)
    np.testing.assert_allclose(found, face.load("acrn-tiny").distances(query, raw), rtol=1e-3, atol=1e-4)
    net = adaptation.adapt("mva-tiny", splits[0], tmp_path / "adapted", batch=16)
    assert net.names == ("red", "green", "blue") and net.fingerprint != runs.attribute_net("mva-tiny").fingerprint
    assert {file: file.stat().st_mtime_ns for file in home.rglob("*")} == before


def test_evaluate_takes_the_name_and_writes_elsewhere(made, tmp_path):
    _, data, folder, home = made
    for run, name, method in (("acrn", "acrn-tiny", "ACRN"), ("reidcnn", "reid-tiny", "ReIdCNN")):
        own = runs.evaluate(folder / run, out=tmp_path / run)
        found = runs.evaluate(name, out=tmp_path / name, data_dir=str(data))
        for metric, value in own.methods[method].items():
            assert found.methods[method][metric] == pytest.approx(value, abs=0.03)
        with pytest.raises(ValueError, match="into which nothing is written; name a folder with --out"):
            runs.evaluate(name, data_dir=str(data))
    with pytest.raises(ValueError, match="into which nothing is written; name a folder with --out"):
        runs.evaluate("mva-tiny", data_dir=str(data))
    scored = runs.evaluate("mva-tiny", out=tmp_path / "mva", data_dir=str(data))
    assert scored.mA == pytest.approx(runs.evaluate(folder / "attributes", out=tmp_path / "own").mA, abs=0.02)
    assert sorted(file.name for file in home.rglob("*") if file.is_file()) == 3 * ["card.json"] + 3 * [
        "weights.safetensors"
    ]


def test_training_takes_the_name(made, tmp_path):
    """As start (config.init_from) and as attribute net; values that are taken are those of the run, rounded."""
    _, data, _, _ = made
    config = small_net.config("reid", data, "mini").changed({"devices": 1, "loss.kind": "classic"})
    runs.train(config.changed({"init_from": "acrn-tiny", "phases": ("reid",)}), tmp_path / "on")
    report = json.loads((tmp_path / "on" / "reid" / "init.json").read_text())
    assert report["source"] == "net" and report["from"] == "acrn-tiny" and not report["new"]
    stored = json.loads((tmp_path / "on" / "reid" / "inputs.json").read_text())["start"]
    assert stored["fingerprint"] == runs.load("acrn-tiny").fingerprint == report["sha256"]
    named = {"loss.kind": "acrn", "attributes.from": "mva-tiny", "phases": ("reid",)}
    runs.train(config.changed(named), tmp_path / "acrn")
    run = runs.load_acrn(tmp_path / "acrn", "")
    assert run.attribute_net.fingerprint == runs.attribute_net("mva-tiny").fingerprint
    run.check_attributes()
    # A run trained with a net that ships may be shipped with it.
    shipping.export_net(tmp_path / "acrn", tmp_path / "again", attributes_name="mva-tiny", sample=0)
    assert nets.card(tmp_path / "again")["made_of"]["attributes"]["fingerprint"] == run.attribute_net.fingerprint
    results = runs.reproduce(
        config.changed({"loss.kind": "acrn", "reid.epochs": 1}), attributes="mva-tiny", workdir=tmp_path / "chain"
    )
    assert {"ACRN", "ReIdCNN", "Attributes"} <= set(results.methods)
    with pytest.raises(FileNotFoundError, match=r"nor a net; .* Did you mean the net acrn-tiny"):
        runs.train(config.changed({"init_from": "acrn-tin"}), tmp_path / "no")


def test_images_that_a_net_was_trained_on_are_known_without_them(made, tmp_path):
    """By content: under another name and in another data set, too."""
    raw, _, _, home = made
    net = nets.trained_on(home / "acrn-tiny")
    expected = {
        int.from_bytes(hashlib.sha256(f.read_bytes()).digest()[:8], "little", signed=True) for f in trained(raw)
    }
    assert set(net.tolist()) == expected and len(net) == 36
    other = tmp_path / "raw"
    other.mkdir()
    images = small_net.write_images(other)
    lines = images.read_text().splitlines()
    swapped = [lines[0]]
    for line in lines[1:]:  # who was trained on is tested here
        name, person, camera, split, *rest = line.split(",")
        test = ("query", "gallery", "test")[int(name[-5]) % 3]
        swapped.append(",".join([name, person, camera, test if split == "train" else "train", *rest]))
    images.write_text("\n".join(swapped) + "\n")
    prepare.prepare("image_folder", "swapped", data_dir=tmp_path / "data", raw_dir=other, csv=images)
    where = {"dataset": "image_folder/swapped", "data_dir": str(tmp_path / "data"), "out": tmp_path / "out"}
    for name in ("acrn-tiny", "mva-tiny"):
        with pytest.raises(ValueError, match=f"The run .*{name} was trained on 12 images of image_folder/swapped/"):
            runs.evaluate(name, **where)
    found = runs.evaluate("acrn-tiny", **where, allow_overlap=True)
    assert "ACRN" in found.methods
    config = small_net.config("reid", tmp_path / "data", "swapped").changed({"devices": 1})
    config = config.changed({"attributes.from": "mva-tiny", "attributes.allow_overlap": False})
    split = source.open_split(tmp_path / "data", "image_folder", "swapped", "train")
    overlap.check_attribute_net(config, [split])  # strangers to it
    split = source.open_split(tmp_path / "data", "image_folder", "swapped", "query")
    with pytest.raises(ValueError, match=r"The attribute net .*mva-tiny was trained on 12 images"):
        overlap.check_attribute_net(config, [split])


@pytest.fixture
def copy(made, tmp_path, monkeypatch):
    """The nets in a folder of this test's own, which ACRN_NETS names."""
    home = shutil.copytree(made[3], tmp_path / "nets")
    monkeypatch.setenv(nets.VARIABLE, str(home))
    return home


def test_what_is_not_as_it_was_is_refused(copy):
    weights = copy / "mva-tiny" / "weights.safetensors"
    whole = weights.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for content in (bytes(flipped), whole[:-7], b""):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"weights.safetensors is damaged, or of another net: it has [\d,]+ bytes"):
            runs.attribute_net("mva-tiny").fingerprint  # noqa: B018
        with pytest.raises(ValueError, match="is damaged"):
            face.load("acrn-tiny")  # whose attribute net it is
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"weights.safetensors is missing beside its card.json"):
        runs.attribute_net("mva-tiny").fingerprint  # noqa: B018
    card = copy / "acrn-tiny" / "card.json"
    text = card.read_text()
    for old, new, words in (
        (
            "acrn_jax net 1",
            "acrn_jax net 2",
            "newer than 'acrn_jax net 1', which this version of acrn_jax reads; update",
        ),
        ("acrn_jax net 1", "something 1", "is of format 'something 1'; 'acrn_jax net 1' is wanted"),
        ('"kind": "acrn"', '"kind": "dog"', "says kind 'dog'; known: attributes, reid, acrn"),
        ('"sha256"', '"sha"', "card.json lacks sha256"),
        ('"scales": {', '"scales: {', "card.json is not JSON"),
    ):
        assert text.count(old) >= 1
        card.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=words):
            runs.load("acrn-tiny")
    card.write_text(text)
    runs.load("acrn-tiny")


def test_another_attribute_net_than_in_training_is_refused(copy, made):
    """Under the name of the right one, too."""
    _, data, folder, _ = made
    other = copy.parent / "other"
    runs.train(small_net.config("mva", data, "mini").changed({"devices": 1, "seed": 5}), other)
    shutil.rmtree(copy / "mva-tiny")
    shipping.export_net(other, copy / "mva-tiny", sample=0)
    with pytest.raises(ValueError, match="was trained with the attribute net mva-tiny"):
        face.load("acrn-tiny")
    with pytest.raises(ValueError, match=r"is not of the attribute net .*attributes that .* was trained with"):
        shipping.export_net(folder / "acrn", copy / "a", attributes_name="mva-tiny", sample=0)


def test_a_name_that_nearly_exists_gets_the_nearest(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for ask in (runs.load, face.load, runs.attribute_net, runs.read_config):
        with pytest.raises(FileNotFoundError, match=r"Did you mean the net acrn-tiny"):
            ask("acrn-tny")
    with pytest.raises(FileNotFoundError, match="Nets that are known by name: acrn-tiny, mva-tiny, reid-tiny"):
        runs.load("xyz")
    with pytest.raises(FileNotFoundError) as error:
        runs.load("some/where")
    assert "net" not in str(error.value).split("train --workdir")[1]


def test_a_path_goes_before_a_name_and_the_package_before_the_variable(made, tmp_path, monkeypatch):
    _, _, folder, home = made
    monkeypatch.chdir(tmp_path)
    assert runs.load("acrn-tiny").workdir == home / "acrn-tiny"
    shutil.copytree(folder / "reidcnn", tmp_path / "acrn-tiny")
    assert isinstance(runs.load("acrn-tiny"), runs.ReidCnnRun) and not isinstance(runs.load("acrn-tiny"), runs.AcrnRun)
    package = tmp_path / "package"
    shutil.copytree(home / "reid-tiny", package / "mva-tiny")
    monkeypatch.setattr(nets, "homes", lambda: [package, home])
    assert runs.load("mva-tiny").workdir == package / "mva-tiny"
    assert nets.known() == {"mva-tiny": package / "mva-tiny"} | {n: home / n for n in ("acrn-tiny", "reid-tiny")}
    assert nets.VARIABLE in os.environ


def test_float32_stays_where_float16_would_not_hold_it():
    values = {
        "params/kernel": np.array([1e-7, 2.0], np.float32),
        "params/wide": np.array([7e4], np.float32),
        "batch_stats/a/var": np.array([1e-6, 1.0], np.float32),
        "batch_stats/b/var": np.array([0.0, 1.0], np.float32),
        "batch_stats/b/mean": np.array([1e-6], np.float32),
    }
    kinds = {name: value.dtype for name, value in net_file.rounded(values).items()}
    assert kinds == {
        "params/kernel": np.float16,
        "params/wide": np.float32,
        "batch_stats/a/var": np.float32,
        "batch_stats/b/var": np.float16,
        "batch_stats/b/mean": np.float16,
    }


def test_what_cannot_be_exported_leaves_nothing(made, tmp_path):
    _, _, folder, home = made
    card = tmp_path / "card.json"

    def refused(words, run, kind=ValueError, **options):
        with pytest.raises(kind, match=words):
            shipping.export_net(folder / run, tmp_path / "out" / "x", sample=0, **options)
        assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())

    refused("is an ACRN run, whose attribute net .* ships as a net of its own; first", "acrn")
    refused("There is no net 'mva-tin' beside .* Did you mean the net mva-tiny", "acrn", FileNotFoundError,
            attributes_name="mva-tin")  # fmt: skip
    refused("is a path; it takes the name", "acrn", attributes_name=str(home / "mva-tiny"))
    refused("is an attribute net and wants no other", "attributes", attributes_name="mva-tiny")
    refused("There is no data folder", "reidcnn", FileNotFoundError, data_dir=str(tmp_path / "nowhere"))
    for content, words in (('{"sha256": "0"}', "sets 'sha256', which the run itself says"), ("[1]", "JSON object")):
        card.write_text(content)
        refused(words, "reidcnn", card=card)
    card.write_text('{"command": "train it", "training": {"terms": "research only"}, "scores": [{"mAP": 1}]}')
    found = shipping.export_net(folder / "reidcnn", tmp_path / "net", card=card, sample=0)
    assert found == nets.card(tmp_path / "net")
    assert (found["command"], found["scores"], found["training"]["terms"]) == (
        "train it", [{"mAP": 1}], "research only",
    )  # fmt: skip
    assert found["training"]["images"] == 36
    with pytest.raises(FileExistsError, match="exists; name another --out"):
        shipping.export_net(folder / "reidcnn", tmp_path / "net")
    with pytest.raises(ValueError, match="already a net that ships"):
        shipping.export_net("reid-tiny", tmp_path / "net2")


def test_a_net_larger_than_four_mebibytes_wants_to_be_meant(tmp_path):
    values, seen = {"params/net/kernel": np.zeros(2**21, np.float32)}, np.zeros(0, np.int64)
    with pytest.raises(ValueError, match=r"would have 4.0 MiB, more than the 4 MiB"):
        net_file.write(tmp_path, values, seen)
    assert not list(tmp_path.iterdir())
    assert net_file.write(tmp_path, values, seen, large=True)["bytes"] > 2**22
    values = {"params/net/kernel": np.array([np.nan], np.float32)}
    with pytest.raises(ValueError, match="kernel holds values that are not finite"):
        net_file.write(tmp_path / "b", values, seen)


def test_models_lists_what_is_there(copy, capsys, monkeypatch):
    def said(verify):
        with flagsaver.flagsaver(verify=verify):
            code = models.main([])
        return code, capsys.readouterr().out

    monkeypatch.setenv("COLUMNS", "200")
    code, text = said(True)
    rows = {line.split()[0]: line for line in text.splitlines() if "tiny" in line.split()[0]}
    assert not code and list(rows) == ["acrn-tiny", "mva-tiny", "reid-tiny"] and f"Nets in {copy}" in text
    assert "attribute net" in rows["mva-tiny"] and "ReIdCNN" in rows["reid-tiny"] and "ACRN" in rows["acrn-tiny"]
    assert all(" runs " in row and " 0.0 " in row for row in rows.values())
    card = json.loads((copy / "mva-tiny" / "card.json").read_text())
    assert f"{card['parameters']:,}" in rows["mva-tiny"]
    assert f"image_folder/mini mA {100 * card['recognition']['mA']:.1f}" in rows["mva-tiny"]
    file = copy / "mva-tiny" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    for verify, codes in ((False, None), (True, 2)):
        code, text = said(verify)
        rows = {line.split()[0]: line for line in text.splitlines() if line.split()[0:1] and "tiny" in line.split()[0]}
        assert code == codes and "REFUSED" in rows["mva-tiny"] and "weights.safetensors is damaged" in text
        assert ("REFUSED" in rows["acrn-tiny"]) == verify  # whose attribute net it is; a ReIdCNN only names it
        assert "REFUSED" not in rows["reid-tiny"]
    monkeypatch.setenv(nets.VARIABLE, str(copy / "nowhere"))
    monkeypatch.setattr(nets, "homes", lambda: [copy / "nowhere"])
    code, text = said(True)
    assert not code and text.startswith("There is no net in ") and text.count("\n") == 1 and "--format=net" in text


def test_demo_on_a_folder_takes_the_net_that_ships(made, tmp_path, monkeypatch, capsys):
    """By default the first picture is searched for; nothing goes into the folder of the drawn demo."""
    raw, *_ = made
    monkeypatch.setattr(nets, "DEFAULT", "reid-tiny")
    monkeypatch.chdir(tmp_path)
    with flagsaver.flagsaver():
        demo.show_real(raw, None)
    found = json.loads((tmp_path / "demo_real" / "results.json").read_text())
    first = str(source.open_folder(raw).file_name[0])
    assert found["query"].endswith(first) and first not in [entry["file"] for entry in found["results"]]
    lines = (tmp_path / "demo_real" / "attributes.csv").read_text().splitlines()
    assert len(lines) == 1 + len(list(raw.glob("*.jpg"))) and "red" in lines[0]
    assert (tmp_path / "demo_real" / "search.html").is_file() and "search.html" in capsys.readouterr().out
    (alone := tmp_path / "alone").mkdir()
    shutil.copy(sorted(raw.glob("*.jpg"))[0], alone)
    with pytest.raises(ValueError, match="holds one picture"):
        demo.show_real(alone, None)
