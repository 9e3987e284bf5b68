"""Search with nets that look at nothing but colours, against loops."""

import base64
import html.parser
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from acrn_jax import build, files, runs
from acrn_jax.configs import demo
from acrn_jax.data import source
from acrn_jax.data_prep import pictures
from acrn_jax.evaluation import calibration
from acrn_jax.runs import attribute_calibration, nets, picture_cache, search, search_table

NAMES = ["personalMale", "hairLong", "accessoryHat"]
WEIGHTS = np.array([0.5, -2.0, 1.0], np.float32)
SCALES = {"attribute": 0.6, "feature": 0.3}  # in the order that a checkpoint gives them in
MIXED = np.random.default_rng(0).normal(size=(3, 3))
CURVE = calibration.Platt(np.array([2.0, 1.0, 0.5]), np.array([0.0, 1.0, -1.0]), np.ones(3, bool))

ABOUT = {
    "kind": "fitted",
    "fitted_on": "drawn/a/val",
    "images": 1200,
    "raw": ["hairLong"],
    "recognition": {"on": "drawn/a, test", "mA": {"personalMale": 0.714, "hairLong": None}},
}


def said(split):
    """(features [N, 2], logits [N, 3]) of images of one colour each."""
    colours = [np.asarray(Image.open(split.read.args[0][i]))[0, 0] / 255 for i in split.rows]
    return np.array(colours)[:, :2].astype(np.float32), (4 * (np.array(colours) - 0.5) @ MIXED).astype(np.float32)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A run and a gallery, and which nets were asked about pictures."""
    for folder, part in (("run", "acrn"), ("net", "attributes")):
        config = demo.get_config(part)
        config.attributes["from"] = str(tmp_path / "net") if part == "acrn" else ""
        files.write_json(tmp_path / folder / "config.json", json.loads(config.to_json_best_effort()))
    files.write_json(tmp_path / "net" / "attributes.json", {"attribute_names": NAMES})
    rng = np.random.default_rng(1)
    for i in range(12):
        file = tmp_path / "gallery" / f"sub{i % 2}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), tuple(map(int, rng.integers(0, 256, 3)))).save(file)
    ran = []

    def compute(run, split, batch, quiet):
        ran.append(run.workdir.name)
        feature, logits = said(split)
        return {"attribute_logits": logits} if run.workdir.name == "net" else {"feature": feature}

    monkeypatch.setattr(runs.Run, "_compute", compute)
    monkeypatch.setattr(runs.Run, "fingerprint", property(lambda run: str(run.phase)))
    monkeypatch.setattr(runs.ReidCnnRun, "scales", SCALES)
    monkeypatch.setattr(runs.AcrnRun, "weights", lambda *arguments: WEIGHTS)
    monkeypatch.setattr(attribute_calibration, "calibrated", lambda *arguments: (CURVE, ABOUT))
    monkeypatch.setenv("ACRN_CACHE", str(tmp_path / "cache"))
    return tmp_path, ran


def everything(folder):
    split = source.open_folder(folder / "gallery")
    feature, logits = said(split)
    return [str(n) for n in split.file_name], feature, logits


def sigmoid(x):
    return 1 / (1 + np.exp(-np.float64(x)))


def expected(folder, query, wishes, gamma):
    """[(distance, file)], by loops."""
    files, feature, logits = everything(folder)
    found = []
    for file, f, z in zip(files, feature, logits, strict=True):
        if file == query:
            continue
        total = 0.0
        if query:
            q = files.index(query)
            total += sum((float(a) - float(b)) ** 2 for a, b in zip(feature[q], f, strict=True)) / 0.3
        for a, name in enumerate(NAMES):
            if name in wishes:
                p = sigmoid(CURVE.slope[a] * z[a] + CURVE.offset[a])
                total += gamma * 4.0 / 0.6 * (wishes[name] - p) ** 2 if query else -np.log(p if wishes[name] else 1 - p)
            elif query:
                total += gamma / 0.6 * (float(WEIGHTS[a]) * (sigmoid(logits[q][a]) - sigmoid(z[a]))) ** 2
        found.append((total, file))
    return sorted(found)


@pytest.mark.parametrize(
    ("query", "want", "avoid", "gamma"),
    [
        ("sub0/4.png", [], [], None),
        ("sub0/4.png", [], [], 0.0),
        ("sub0/4.png", ["hairLong"], ["accessoryHat"], 3.0),
        (None, ["personalMale"], ["hairLong"], None),
    ],
)
def test_order_and_shares_are_those_of_loops(place, query, want, avoid, gamma, monkeypatch):
    folder, _ = place
    monkeypatch.setenv("COLUMNS", "80")
    captions, write = [], search.sheet.write
    monkeypatch.setattr(
        search.sheet, "write", lambda *given, **more: (captions.extend(given[2]), write(*given, **more))
    )
    found = search.search(
        folder / "run",
        folder / "gallery",
        query=folder / "gallery" / query if query else None,
        want=want,
        avoid=avoid,
        gamma=gamma,
        top=5,
        explained=True,
    )
    wishes = dict.fromkeys(want, 1) | dict.fromkeys(avoid, 0)
    loops = expected(folder, query, wishes, (0.5 if gamma is None else gamma) if query else 1.0)
    assert [entry["file"] for entry in found["results"]] == [file for _, file in loops[:5]]
    assert [entry["distance"] for entry in found["results"]] == pytest.approx([d for d, _ in loops[:5]], abs=1e-5)
    for entry in found["results"]:
        assert sum(entry["shares"].values()) == pytest.approx(entry["distance"], abs=1e-5)
        assert ("feature" in entry["shares"]) == (query is not None) and entry["rank_without"].keys() == entry[
            "shares"
        ].keys()
        assert list(entry["probabilities"]) == [*want, *avoid]
    assert found == json.loads((folder / "run" / "search" / "results.json").read_text())
    assert found["pictures"] == 12 - (query is not None)
    with Image.open(folder / "run" / "search" / "grid.jpg") as grid:
        grid.load()
    assert [lines[1] for lines in captions] == ["4.png"] * bool(query) + [entry["file"] for entry in found["results"]]
    text = search_table.table(found)
    of_query = "of features, d_f / s_f." if gamma == 0 else "of features and weighted attributes"
    measured = f"squared Euclidean, {of_query}" if query else "-log(probability of what is wished), summed"
    assert f"distance: {measured}" in " ".join(text.split())
    assert all(len(line) <= 80 for line in text.splitlines() if str(folder) not in line)
    assert "not who is on them" in text and found["results"][0]["file"] in text
    shown = " ".join(text.split())
    fitted = "curve fitted on 1,200 images of drawn/a/val, but raw for hairLong"
    assert (fitted in shown and "nothing is known about pictures from elsewhere" in shown) == bool(wishes)
    assert ("guessing has 50 %), are of drawn/a, test." in shown) == bool(wishes) and "are calibrated:" not in shown
    if wishes:
        assert found["probabilities"] == ABOUT
        lines = text.splitlines()
        start = next(i for i, line in enumerate(lines) if line.startswith("rank "))
        header, rates = lines[start].split(), lines[start + 2].split()
        assert header == ["rank", "file", "distance", *wishes]
        beside = [cell for name in wishes for cell in (["71", "%"] if name == "personalMale" else ["-"])]
        assert rates == ["recognition", "rate", *beside]


def test_a_net_is_asked_about_a_picture_once_wherever_it_lies(place):
    folder, asked = place
    query = folder / "gallery" / "sub0" / "4.png"
    arguments = {"workdir": folder / "run", "gallery": folder / "gallery"}
    found = search.search(query=query, **arguments)
    assert asked == ["run", "net"]  # the query lies in the gallery
    assert search.search(query=query, **arguments) == found and len(asked) == 2
    Image.new("RGB", (8, 16), (1, 2, 3)).save(folder / "other.png")
    search.search(query=folder / "other.png", want=["hairLong"], **arguments)
    assert asked[2:] == ["run", "net"]  # about the query
    query.rename(folder / "gallery" / "moved.png")
    moved = search.search(want=["hairLong"], top=12, **arguments)
    assert "moved.png" in [entry["file"] for entry in moved["results"]] and len(asked) == 4
    Image.new("RGB", (8, 16), (9, 9, 9)).save(folder / "gallery" / "new.png")
    assert search.search(want=["hairLong"], **arguments)["pictures"] == 13
    assert asked[4:] == ["net"]
    assert not list((folder / "run" / "search").glob("*.npz")) and not list((folder / "gallery").rglob("*.sqlite"))


def test_only_new_and_changed_files_are_read_again_and_asked_about(place, monkeypatch):
    folder, _ = place
    gallery, read = folder / "gallery", []
    for file in gallery.rglob("*.png"):
        os.utime(file, (1, 1))
    monkeypatch.setattr(pictures, "_SETTLED", 0)  # as if they had lain there for long
    monkeypatch.setattr(pictures, "look", lambda data, look=pictures.look: read.append(data) or look(data))
    compute, rows = runs.Run._compute, []
    monkeypatch.setattr(runs.Run, "_compute", lambda *given: rows.append(set(given[1].key.tolist())) or compute(*given))
    arguments = {"workdir": folder / "run", "gallery": gallery, "want": ["hairLong"]}
    search.search(**arguments)
    assert len(read) == 12 and len(rows[0]) == 12
    search.search(**arguments)
    assert len(read) == 12 and len(rows) == 1
    changed = gallery / "sub1" / "3.png"
    Image.new("RGB", (8, 16), (1, 2, 3)).save(changed)
    os.utime(changed, (1, 1))  # the time of its content says nothing, as after cp -p
    Image.new("RGB", (8, 16), (9, 9, 9)).save(gallery / "new.png")
    (gallery / "sub0" / "4.png").unlink()
    again = search.search(top=20, **arguments)
    assert rows[1:] == [{"sub1/3.png", "new.png"}] and len(read) == 14
    assert [e["file"] for e in again["results"]] == [file for _, file in expected(folder, None, {"hairLong": 1}, 1.0)]


@pytest.mark.parametrize("fault", ["damaged", "a file", "no home"])
def test_without_a_cache_a_search_takes_longer_and_says_so(place, fault, monkeypatch, capsys):
    folder, asked = place
    monkeypatch.setattr(picture_cache, "_told", set())
    if fault == "damaged":
        (folder / "cache").mkdir()
        (folder / "cache" / "pictures.sqlite").write_text("no database " * 99)
    elif fault == "a file":
        (folder / "cache").touch()
    else:
        for name in ("ACRN_CACHE", "XDG_CACHE_HOME", "HOME"):
            monkeypatch.delenv(name, raising=False)
    arguments = {"workdir": folder / "run", "gallery": folder / "gallery", "want": ["hairLong"]}
    found = [search.search(**arguments) for _ in range(2)]
    assert found[0] == found[1] and len(asked) == 2
    assert [e["file"] for e in found[0]["results"]] == [f for _, f in expected(folder, None, {"hairLong": 1}, 1.0)]
    said = capsys.readouterr().err
    assert said.count("is not kept in") == (fault != "no home") and ("ACRN_CACHE" in said) == (fault != "no home")


def test_where_results_go_and_what_is_taken_where_no_net_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("ACRN_NETS", str(tmp_path / "nets"))
    monkeypatch.chdir(tmp_path)
    if not nets.known():  # of the package itself
        with pytest.raises(FileNotFoundError, match=r"There is no net acrn-small.*--workdir.*ACRN_NETS"):
            nets.default()
    (tmp_path / "nets" / "acrn-small").mkdir(parents=True)
    (tmp_path / "nets" / "acrn-small" / "card.json").touch()
    assert nets.default() == Path("acrn-small")
    place_of = search.place_of_results
    assert place_of(Path("acrn-small"), None) == Path("search") and place_of(Path("r"), None) == Path("r/search")
    assert place_of(Path("acrn-small"), Path("x")) == place_of(Path("r"), Path("x")) == Path("x")
    with pytest.raises(ValueError, match="is a net that ships"):
        place_of(Path("r"), tmp_path / "nets" / "acrn-small" / "search")


def test_where_things_are_kept(monkeypatch):
    for name in ("ACRN_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert picture_cache.folder() is None
    for name, value, wanted in (
        ("HOME", "/h", "/h/.cache/acrn_jax"),
        ("XDG_CACHE_HOME", "/x", "/x/acrn_jax"),
        ("ACRN_CACHE", "/a", "/a"),
    ):
        monkeypatch.setenv(name, value)
        assert str(picture_cache.folder()) == wanted


def test_what_cannot_be_read_is_listed_and_skipped(place):
    folder, _ = place
    (folder / "gallery" / "aaa.jpg").write_text("no picture")
    found = search.search(folder / "run", folder / "gallery", want=["hairLong"], top=3)
    assert list(found["unreadable"]) == ["aaa.jpg"] and "0x" not in found["unreadable"]["aaa.jpg"]
    assert found["pictures"] == 12 and len(found["results"]) == 3
    assert [e["file"] for e in found["results"]] == [f for _, f in expected_without(folder, {"hairLong": 1})[:3]]
    assert "Skipped 1 file not readable" in search_table.table(found)
    for name in (".thumbs/a.png", "@eaDir/a.png", "scan.tif", "._a.png"):
        (folder / "gallery" / name).parent.mkdir(exist_ok=True)
        (folder / "gallery" / name).write_bytes((folder / "gallery" / "sub0" / "4.png").read_bytes())
    found = search.search(folder / "run", folder / "gallery", want=["hairLong"], top=3)
    assert found["pictures"] == 12 and sorted(found["passed_over"].pop("hidden folder")) == [".thumbs", "@eaDir"]
    assert found["passed_over"] == {"ending in .tif": ["scan.tif"], "hidden file": ["._a.png"]}
    text = search_table.table(found)
    assert "  ending in .tif: 1, such as scan.tif\n" in text and "thumbs" not in text
    (folder / "bad").mkdir()
    (folder / "bad" / "a.png").touch()
    with pytest.raises(ValueError, match="None of the 1 files"):
        search.search(folder / "run", folder / "bad", want=["hairLong"])


def expected_without(folder, wishes):
    (folder / "gallery" / "aaa.jpg").unlink()
    return expected(folder, None, wishes, 1.0)


class Page(html.parser.HTMLParser):
    """A page's pictures, its text, and all that a browser would follow."""

    def __init__(self, text):
        super().__init__()
        self.images, self.words, self.links, self.tags, self.widths = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.links += [given[name] for name in ("href", "src", "srcset", "action") if name in given]
        self.images += [given["src"]] if tag == "img" else []
        self.widths += [given["style"]] if "style" in given else []

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def test_the_page_shows_what_was_found_and_nothing_else_of_the_machine(place):
    folder, _ = place
    colour, odd = (0, 90, 200), folder / "gallery" / "a&b <i>.png"
    secret = Image.Exif()
    secret[0x10E] = "a secret"
    Image.new("RGB", (400, 800), colour).save(odd, exif=secret)
    (folder / "gallery" / "broken.jpg").write_text("no picture")
    Image.new("RGB", (40, 20), (7, 7, 7)).save(folder / "gallery" / "wide.png")
    found = search.search(
        folder / "run", folder / "gallery", query=odd, want=["hairLong"], gamma=2.0, top=14, out=folder / "out"
    )
    text = (folder / "out" / "search.html").read_text()
    page = Page(text)
    assert len(page.images) == 14 and page.links == page.images and not {"script", "link", "a", "i"} & set(page.tags)
    assert str(folder) not in text and "a secret" not in text
    shown = [Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) for uri in page.images]
    assert shown[0].size == (144, 288) and not shown[0].getexif()
    assert np.abs(np.asarray(shown[0])[100, 100].astype(int) - colour).max() <= 3
    for image, entry in zip(shown[1:], found["results"], strict=True):
        wanted = np.asarray(Image.open(folder / "gallery" / entry["file"]))[0, 0].astype(int)
        assert np.abs(np.asarray(image)[0, 0].astype(int) - wanted).max() <= 6  # in the order of the ranks
    _, _, logits = everything(folder)
    names = [str(n) for n in source.open_folder(folder / "gallery").file_name]
    for entry in found["results"]:
        z = logits[names.index(entry["file"])]
        p = [sigmoid(s * x + o) for s, x, o in zip(CURVE.slope, z, CURVE.offset, strict=True)]
        assert entry["attributes"] == pytest.approx(dict(zip(NAMES, p, strict=True)), abs=1e-5)
        shares = {name: round(100 * share / entry["distance"]) for name, share in entry["shares"].items()}
        assert sum(entry["shares"].values()) == pytest.approx(entry["distance"])
        assert f"feature {shares['feature']} %" in page.text
    p = found["results"][0]["attributes"]["personalMale"]
    answer = "yes" if p > 0.65 else "no" if p < 0.35 else "unknown"
    assert f"Male {100 * p:.0f} % {answer} 71 %" in page.text and "answer recognition rate" in page.text
    assert "1 of 15 images are wider than tall" in page.text and "the first is wide.png." in page.text
    assert "1 file could not be read" in page.text and "wanted: " in page.text and "not who is on them" in page.text
    assert all(0 <= float(style.removeprefix("width: ").rstrip("%")) <= 100 for style in page.widths) and page.widths


def test_a_search_by_image_wants_no_attribute_net(place):
    folder, _ = place
    query = folder / "gallery" / "sub0" / "4.png"
    with_net = search.search(folder / "run", folder / "gallery", query=query, gamma=0.0)
    (folder / "net" / "attributes.json").unlink()
    found = search.search(folder / "run", folder / "gallery", query=query, gamma=0.0)
    assert [e["file"] for e in found["results"]] == [e["file"] for e in with_net["results"]]
    assert with_net["results"][0]["attributes"].keys() == set(NAMES) and found["results"][0]["attributes"] == {}
    page = Page((folder / "run" / "search" / "search.html").read_text())
    assert "No attribute net was at hand" in page.text and len(page.images) == 12 and str(folder) not in page.text
    assert "gamma" not in page.text and "of features, d_f / s_f." in " ".join(search_table.table(found).split())


def test_an_attribute_run_searches_by_attributes(place):
    folder, ran = place
    query = folder / "gallery" / "sub0" / "4.png"
    found = search.search(folder / "net", folder / "gallery", query=query, top=4, explained=True)
    files, _, logits = everything(folder)
    p = sigmoid(logits)
    loops = sorted((np.sum((p[i] - p[files.index("sub0/4.png")]) ** 2), files[i]) for i in range(12))[1:]
    assert [e["file"] for e in found["results"]] == [file for _, file in loops[:4]] and set(ran) == {"net"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "nothing to search for"),
        ({"want": ["Male"]}, "no 'Male'; did you mean 'personalMale'"),
        ({"want": ["male"]}, "no 'male'; did you mean 'personalMale'"),
        ({"want": ["hairLong"], "avoid": ["hairLong"]}, "hairLong cannot be wanted and not wanted"),
        ({"want": ["hairLong"], "gamma": 1.0}, "there is no --query"),
        ({"query": "gallery/sub0/4.png", "gamma": -1.0}, "--gamma is -1.0"),
        ({"query": "gone.png"}, "There is no picture"),
    ],
)
def test_wrong_wishes_are_told(place, options, words):
    folder, ran = place
    if "query" in options:
        options = options | {"query": folder / options["query"]}
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        search.search(folder / "run", folder / "gallery", **options)
    assert ran == []


def test_distances_that_do_not_add_up_are_ranked_but_not_explained(place):
    folder, _ = place
    config = runs.read_config(folder / "run").changed({"loss.distance": "euclidean"})
    files.write_json(folder / "run" / "config.json", config.tree)
    query = folder / "gallery" / "sub0" / "4.png"
    assert search.search(folder / "run", folder / "gallery", query=query)["distance"] == "euclidean"
    with pytest.raises(ValueError, match="no sum over attributes"):
        search.search(folder / "run", folder / "gallery", query=query, explained=True)


def test_calibration_says_on_what_it_was_fitted(place, monkeypatch):
    folder, _ = place
    monkeypatch.undo()
    monkeypatch.setattr(runs.Run, "fingerprint", "f")
    monkeypatch.setenv("ACRN_CACHE", str(folder / "kept"))
    net = runs.attribute_net(folder / "net")
    curve, about = attribute_calibration.calibrated(net, str(folder / "gone"))
    assert about["kind"] == "raw" and "no data folder" in about["why"] and not curve.fitted.any()
    assert "not calibrated" in calibration.told(about) and "is not known" in calibration.told(about)

    rng = np.random.default_rng(3)
    logits = rng.normal(size=(400, 3)) * 2
    labels = (rng.random((400, 3)) < sigmoid(0.5 * logits)).astype(np.int8)
    labels[:, 2] = 1  # settles nothing

    class Part:
        name, key, attribute_names = "peta/random_0/val", np.array(["a", "b"]), NAMES

        def __len__(self):
            return 400

        def attributes_of(self, names):
            return labels

    class Trained:
        key = np.array(["b", "c"])

    monkeypatch.setattr(build, "open_split", lambda config, name: Part())
    monkeypatch.setattr(build, "attribute_split", lambda config: Trained)
    about = attribute_calibration.calibrated(net, None)[1]
    assert about == {"kind": "raw", "why": "the net was trained on 1 images of peta/random_0/val", "recognition": None}
    Trained.key = np.array(["c"])
    monkeypatch.setattr(runs.Run, "outputs", lambda net, split, quiet: {"attribute_logits": logits})
    scored = {"dataset": "peta/random_0", "split": "test", "attributes": [{"name": n, "mA": 0.5} for n in NAMES]}
    files.write_json(folder / "net" / "recognition.json", scored)
    curve, about = attribute_calibration.calibrated(net, None)
    rates = {"on": "peta/random_0, test", "mA": dict.fromkeys(NAMES, 0.5)}
    fitted = {"kind": "fitted", "fitted_on": "peta/random_0/val", "images": 400, "raw": ["accessoryHat"]}
    assert about == fitted | {"recognition": rates}
    np.testing.assert_allclose(curve.slope[:2], 0.5, atol=0.2)
    kept = folder / "kept" / "nets" / "f" / "calibration.json"
    assert [file for file in (folder / "kept").rglob("*") if file.is_file()] == [kept]
    monkeypatch.setattr(runs.Run, "outputs", None)  # from now on it is kept
    unseen = {"attributes": [{"name": "hairLong", "mA": 0.625}]}
    files.write_json(folder / "net" / "recognition.json", scored | {"unseen": unseen})
    again, about = attribute_calibration.calibrated(net)
    np.testing.assert_array_equal(again.slope, curve.slope)
    packed = json.loads(json.dumps(attribute_calibration.for_card(net)))
    assert packed.keys() == {"fitted_on", "images", "curves"} and list(packed["curves"]) == NAMES[:2]
    of_card, told = attribute_calibration.of_card({"calibration": {"attributes": packed}}, net)
    for column in range(3):
        np.testing.assert_array_equal([part[column] for part in of_card], [part[column] for part in curve])
    assert told == about
    bare, told = attribute_calibration.of_card({"calibration": None}, net)
    assert told["kind"] == "raw" and bare.slope.tolist() == [1, 1, 1] and bare.offset.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match=r"card.json has no calibration.attributes that can be read"):
        attribute_calibration.of_card({"calibration": {"attributes": packed | {"curves": {NAMES[0]: ["a", 1]}}}}, net)
    (folder / "net" / "search").mkdir()
    kept.rename(folder / "net" / "search" / "calibration.json")  # where older versions kept it
    np.testing.assert_array_equal(attribute_calibration.calibrated(net)[0].offset, curve.offset)
    on = "peta/random_0, test, people whom training did not show"
    assert about == fitted | {"recognition": {"on": on, "mA": {"hairLong": 0.625}}}
