import html.parser
import json
import os
import re
import shutil

import pytest

from acrn_jax.report import html as report
from acrn_jax.report.seeds import estimate
from tests.report import conftest

VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


class Page(html.parser.HTMLParser):
    """Tags with attributes, text, and whether every tag is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open, self.cells = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def page(*folders, out):
    return Page(report.write(folders, out).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run's folder, which no test changes, beside a picture that is not its."""
    folder = tmp_path_factory.mktemp("runs")
    conftest.draw(folder / "outside.jpg", (255, 0, 0), 0)
    return conftest.make_workdir(folder / "run")


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    return page(run, out=tmp_path_factory.mktemp("out") / "new" / "report.html")


def test_numbers_are_in_the_tables(written, run):
    results = json.loads((run / "results.json").read_text())
    for values in results["methods"].values():
        for value in values.values():
            assert f"{100 * value:.1f}" in written.cells
    for item in results["weights"]:
        assert f"{item['weight']:.3f}" in written.cells
    text = " ".join(written.text)
    for part in ("protocol market1501", "abc123", "f00d", "jax 0.12.0", "train 0", '"gamma": 0.5', "12.3 %", "1,234"):
        assert part in text
    assert "70.2" in written.cells  # the attribute run's people not seen in training


def test_nothing_is_loaded_or_run(written):
    names = {tag for tag, _ in written.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base", "form"}
    assert "b" not in names  # an attribute's name holds <b>
    for tag, attributes in written.tags:
        for key, value in attributes.items():
            assert not key.startswith("on"), (tag, key)
            if key in ("src", "srcset", "href", "data", "action"):
                assert value.startswith(("data:image/", "#")), value[:60]
    style = "".join(written.text)
    assert not re.search(r"url\(|@import|https?://", style)
    assert written.open == []


def test_hostile_text_stays_text(written):
    text = "".join(written.text)
    assert "3_<script>'\"&.jpg" in text and "</pre><script>alert(1)</script>" in text and "<b>$x$</b>" in text
    titles = [attributes["title"] for attributes in written.all("li") if "title" in attributes]
    assert "1_<script>'\"&.jpg" in titles


def test_it_can_be_read_without_eyes_or_colours(written):
    assert written.all("html")[0]["lang"] == "en"
    assert all(attributes["alt"].strip() for attributes in written.all("img"))
    assert all(attributes.get("scope") in ("row", "col") for attributes in written.all("th"))
    assert len(written.all("caption")) == len(written.all("table"))
    identifiers = [attributes["id"] for _, attributes in written.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert {a["aria-labelledby"] for _, a in written.tags if "aria-labelledby" in a} <= set(identifiers)
    marks = [part.split()[-1] for part in written.text if re.fullmatch(r"(… )?\d+ [✓✗] (right|wrong)", part)]
    classes = [a["class"].split()[0] for a in written.all("li") if a.get("class", "").startswith(("right", "wrong"))]
    assert marks == classes and len(marks) == 3 * report.RANK_LIST_LENGTH
    assert [attributes.get("class") for attributes in written.all("li")].count("query") == 3


def test_right_and_wrong_are_as_stored(written, run):
    lists = json.loads((run / "rank_lists.json").read_text())["query"]
    stored = [shown["right"] for query in lists["hardest"] + lists["random"] for shown in query["gallery"][:14]]
    shown = [a["class"] == "right" for a in written.all("li") if a.get("class") in ("right", "wrong")]
    assert shown == stored


def test_the_first_right_picture_has_its_rank_and_distances_say_what_they_are(tmp_path):
    run = conftest.make_workdir(tmp_path / "run", config={"loss": {"distance": "squared_euclidean"}})
    lists = json.loads((run / "rank_lists.json").read_text())
    for query in lists["query"]["hardest"]:
        del query["gallery"][report.RANK_LIST_LENGTH :]
        for rank, item in enumerate(query["gallery"], start=1):
            item |= {"rank": rank, "right": False}
        query["gallery"][-1] |= {"rank": 1203, "right": True}
    (run / "rank_lists.json").write_text(json.dumps(lists))
    got = page(run, out=tmp_path / "report.html")
    assert "… 1203 ✓ right" in got.text and [a.get("class") for a in got.all("li")].count("right gap") == 1
    assert any("Rank 1203, right: person" in a["alt"] for a in got.all("img"))
    text = " ".join("".join(got.text).split())
    assert "d = d_f / s_f + 0.5 d_w / s_a: squared Euclidean distances of features" in text
    assert "s_f = 1.5, s_a = 0.25" in text and "d 0.05" in text  # of the fixture's first pictures


def test_pictures_come_from_the_workdir_alone(run, written):
    assert report.picture(run, "thumbnails/1_99.jpg").startswith("data:image/jpeg;base64,")
    assert report.picture(run, "../outside.jpg") is None and (run / "../outside.jpg").exists()
    assert report.picture(run, "results.json") is None and report.picture(run, "gone.jpg") is None
    assert "".join(written.text).count("no picture") == 1


def test_training_of_the_run_and_of_the_attribute_net(written):
    text = "".join(written.text)
    for part in ("Phase identity", "Phase reid", "Phase mva of the attributes run", "The baseline run is not at"):
        assert part in text
    alternatives = [attributes["alt"] for attributes in written.all("img")]
    assert any("active from 0.9" in alternative for alternative in alternatives)


@pytest.mark.parametrize("partial", [True, False])
def test_settings_say_whether_it_is_the_whole_data_set(tmp_path, partial):
    folder = conftest.make_bare_workdir(tmp_path / "run", weights=[], partial=partial)
    facts = dict(report._facts(report.read(folder)))
    assert facts["part of the data set only"] == ("yes" if partial else "no")


def test_settings_say_where_a_split_is_not_official(tmp_path):
    for dev, said in ((True, "no, a dev split"), (False, None)):
        folder = conftest.make_bare_workdir(tmp_path / str(dev), weights=[], dev=dev)
        assert dict(report._facts(report.read(folder))).get("official split") == said


def test_a_bare_run_is_enough(tmp_path):
    text = "".join(page(conftest.make_bare_workdir(tmp_path / "run", weights=[]), out=tmp_path / "report.html").text)
    assert "no rank lists" in text and "no scalars.jsonl" in text and "Learned attribute weights" not in text


def test_seeds_become_mean_and_interval(tmp_path):
    folder = tmp_path / "W"
    for seed in (10, 9, 2):
        conftest.make_bare_workdir(folder / f"seed_{seed}", seed=seed)
    run = report.read(folder)
    assert list(run.seeds) == ["seed_2", "seed_9", "seed_10"] and run.first == folder / "seed_2"
    got = page(folder, out=tmp_path / "report.html")
    values = [one.methods["ACRN"]["rank1"] for one in run.seeds.values()]
    expected = estimate(values)
    assert f"{100 * expected.mean:.1f} ± {100 * expected.half_width:.1f}" in got.cells
    assert f"{100 * values[1]:.1f}" in got.cells  # each seed is there too
    assert "Training of seed_2" in got.text


def test_seeds_of_different_data_are_refused(tmp_path):
    for seed, fingerprint in enumerate(("one", "two")):
        conftest.make_bare_workdir(tmp_path / "W" / f"seed_{seed}", seed=seed, fingerprint=fingerprint)
    with pytest.raises(ValueError, match=r"different fingerprint .*seed_1.*'two'"):
        report.read(tmp_path / "W")


@pytest.mark.parametrize(("kind", "what"), [("attributes", "attribute nets"), ("data", "training images")])
def test_seeds_that_were_made_of_other_things_are_refused(tmp_path, kind, what):
    for seed, name in enumerate(("first", "second")):
        made = {"run": {kind: {"name": name, "fingerprint": f"{name}-print"}}}
        conftest.make_bare_workdir(tmp_path / "W" / f"seed_{seed}", seed=seed, made_of=made)
    told = rf"different {what} .*seed_0.* has first \(fingerprint first-print\), .*seed_1.* has second \(second-print\)"
    with pytest.raises(ValueError, match=told):
        report.read(tmp_path / "W")
    (tmp_path / "W" / "seed_1").rename(tmp_path / "away")
    conftest.make_bare_workdir(tmp_path / "W" / "seed_1", seed=1)  # evaluated by an older version: it does not tell
    assert len(report.read(tmp_path / "W").seeds) == 2


@pytest.mark.parametrize("protocol, common", [("market1501", True), ("all_vs_all", False)])
def test_several_runs_share_a_table_only_where_they_may(tmp_path, protocol, common):
    first = conftest.make_bare_workdir(tmp_path / "A")
    second = conftest.make_bare_workdir(tmp_path / "B", seed=1, protocol=protocol)
    got = page(first, second, out=tmp_path / "report.html")
    assert (f"ACRN [{first}]" in got.cells) == common
    assert ("No common table." in got.text) != common
    assert f"Run {second}" in got.text


def test_missing_results_name_the_command(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"launch.sh evaluate --workdir="):
        report.write([tmp_path], tmp_path / "report.html")
    with pytest.raises(FileNotFoundError, match="no folder"):
        report.write([tmp_path / "gone"], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "content, words",
    [
        ('{"schema": 1,', "is not JSON"),
        ("\xff", "is not JSON"),
        ("[1]", "is to hold a JSON object"),
        ('{"schema": 2}', "schema 2"),
        ('{"schema": 1, "dataset": "x", "protocol": "y"}', "lacks methods"),
        (
            '{"schema": 1, "dataset": "x", "protocol": "y", "methods": {"ACRN": {"rank1": "high"}}}',
            "rank1 is",
        ),
        (
            '{"schema": 1, "dataset": "x", "protocol": "y", "methods": {"ACRN": {}}, "weights": [1]}',
            r"\[0\] is",
        ),
    ],
)
def test_broken_results_are_named(tmp_path, content, words):
    (tmp_path / "results.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=words) as caught:
        report.write([tmp_path], tmp_path / "report.html")
    assert "results.json" in str(caught.value)


@pytest.mark.parametrize(
    "name, content", [("rank_lists.json", '{"query": {"random": [{}]}}'), ("reid/scalars.jsonl", '{"loss": 1}\n{}\n')]
)
def test_other_broken_files_are_named_and_the_old_report_stays(workdir, tmp_path, name, content):
    out = tmp_path / "report.html"
    out.write_text("old")
    folder = workdir / "study" if name == "table.json" else workdir
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(name)):
        report.write([workdir], out)
    assert out.read_text() == "old" and not list(tmp_path.glob(".report.html*"))


def test_out_and_workdirs_are_checked(workdir, tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        report.write([workdir], tmp_path)
    with pytest.raises(ValueError, match="twice"):
        report.write([workdir, workdir / "." / "reid" / ".."], tmp_path / "report.html")
    with pytest.raises(ValueError, match="no run"):
        report.write([], tmp_path / "report.html")


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    folder = conftest.make_bare_workdir(tmp_path / "run", weights=[])
    out = tmp_path / "to" / "report.html"

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        report.write([folder], out)
    assert list(out.parent.iterdir()) == []


def add_studies(folder):
    """A ledger, look-alikes and shares of distances, as today's evaluate and ledger write them."""
    item = {"mean": 0.8125, "deviation": 0.05, "runs": 3}
    attributes = [
        {"name": "personalMale", "weight": item, "recognition": item, "mAP_change": {**item, "mean": -0.0123}},
        {"name": "<i>x</i>", "weight": {"mean": 0.5, "deviation": 0.1, "runs": 3}, "recognition": None},
    ]
    ledger = {
        "target": "peta", "runs": [conftest.LEDGER_RUN] * 3, "attributes": attributes, "interval": "95 % bootstrap",
        "recognition": [{"workdir": "M", "dataset": "peta/random_0"}], "recognition_disjoint": [],
        "spearman": {"recognition": {"value": 0.375, "low": -0.25, "high": 0.7, "attributes": 35},
                     "mAP_change": {"value": None, "low": None, "high": None, "attributes": 1}},
    }  # fmt: skip
    (folder / "ledger.json").write_text(json.dumps(ledger))
    lists = json.loads((folder / "rank_lists.json").read_text())
    query = lists["query"]["hardest"][0]
    query["gallery"][0] |= {"distance": 2.0, "shares": {"feature": 1.5, "personalMale": 0.24, "<i>x</i>": 0.1}}
    (folder / "rank_lists.json").write_text(json.dumps(lists))
    seen = {key: query[key] for key in ("image", "person_id", "camera_id", "file_name")}
    other = seen | {"feature_distance": 0.123456, "distance": 0.3}
    told = [{"name": "accessoryHat", "query": 0.9, "wrong": 0.02, "right": 0.88}]
    pair = {"query": seen, "wrong": other, "right": other | {"distance": 0.2}, "attributes": told}
    rates = {"on": "peta/random_0, test", "mA": {"accessoryHat": 0.714}}
    found = {"representation": "probabilities", "recognition": rates, "pairs": [pair]}
    (folder / "look_alikes.json").write_text(json.dumps(found))


def test_ledger_look_alikes_and_shares_are_shown_where_they_are(workdir, written, tmp_path):
    add_studies(workdir)
    got = page(workdir, out=tmp_path / "report.html")
    text = "".join(got.text)
    assert "0.812 ± 0.050" in got.cells and "-1.23 ± 5.00" in got.cells and "-0.25 to +0.70" in got.cells
    assert "<i>x</i>" in got.cells and "i" not in {tag for tag, _ in got.tags} and got.open == []
    assert "feature 75\N{NO-BREAK SPACE}%" in text and "Male 12\N{NO-BREAK SPACE}%" in text
    assert got.cells[got.cells.index("Hat (71 %)") + 1 :][:3] == ["90 %", "2 %", "88 %"]
    assert "recognition rate (guessing has 50 %) on peta/random_0, test" in text and "not calibrated" in text
    assert "d_f 0.123" in text and text.count("Attribute ledger on peta, 3 runs") == 3  # also Markdown and LaTeX
    assert all(attributes["alt"].strip() for attributes in got.all("img"))
    assert len(got.all("caption")) == len(got.all("table"))
    identifiers = [attributes["id"] for _, attributes in got.tags if "id" in attributes]
    assert len(set(identifiers)) == len(identifiers)
    assert not {"Attribute ledger", "Look-alikes that attributes tell apart"} & set(written.text)  # of older runs


def make_study():
    """A table.json as ablate writes it: two arms, one metric; one replicate failed."""
    row = {"study": "gamma", "method": "ACRN", "metric": "mAP_precision", "seeds": 3, "deviation": 0.02,
           "seconds": 61.4, "images_per_second": 1234.0, "peak_memory_mib": None}  # fmt: skip
    none = {"difference": None, "low": None, "high": None}
    arms = [{"arm": "reference", "mean": 0.5, **none}, {"arm": "gamma_1.0", "mean": 0.5333}]
    arms[1] |= {"difference": 0.0333, "low": -0.0111, "high": 0.0777}
    return {
        "study": "gamma", "reference": "reference", "protocol": "market1501", "datasets": ["d/0", "d/1"],
        "interval": "95 %, paired bootstrap", "failed": {"gamma_1.0/seed_3": "<b>broke</b>"}, "missing": [],
        "rows": [row | arm for arm in arms],
    }  # fmt: skip


@pytest.mark.parametrize("place", ["gamma/table.json", "../table.json", "../../table.json"])
def test_studies_are_shown_in_the_workdir_and_around_their_arms(workdir, written, tmp_path, place):
    arm = tmp_path / "gamma" / "reference" / "seed_0" if place.startswith("..") else workdir
    if arm != workdir:
        shutil.copytree(workdir, arm)
        (arm / place).resolve().write_text("{}")  # of someone else, as long as the run is no arm
        assert "Ablations" not in page(arm, out=tmp_path / "alone.html").text
        (arm / "job.json").write_text("{}")
    (arm / place).resolve().parent.mkdir(exist_ok=True)
    (arm / place).resolve().write_text(json.dumps(make_study()))
    got = page(arm, out=tmp_path / "report.html")
    at = got.cells.index("gamma_1.0")
    assert got.cells[at : at + 8] == ["gamma_1.0", "3", "53.3", "2.0", "+3.3", "-1.1 to +7.8", "61", "1234"]
    text = "".join(got.text)
    assert text.count("gamma, ACRN on d/0 and 1 more, protocol market1501") == 3  # also Markdown and LaTeX
    assert "Interval: 95 %, paired bootstrap. failed: gamma_1.0/seed_3: <b>broke</b>" in " ".join(text.split())
    assert "Ablations" in got.text and "Ablations" not in written.text


@pytest.mark.parametrize(
    "name, content",
    [("ledger.json", '{"attributes": []}'), ("look_alikes.json", '{"pairs": [{"query": {}}]}'), ("table.json", "{}")],
)
def test_broken_studies_are_named(workdir, tmp_path, name, content):
    folder = workdir / "study" if name == "table.json" else workdir
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content)
    with pytest.raises(ValueError, match=re.escape(name)):
        report.write([workdir], tmp_path / "report.html")
