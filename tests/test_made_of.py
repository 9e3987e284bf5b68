"""A run is used with what it was trained with, or not at all: other attribute nets, data prepared anew, moved folders.

Two layers in place of the nets. People 1 to 6 train the attribute net, 7 to 12 the re-id net, 13 to 18 are for test.
"""

import csv
import json
import os
import shutil
from pathlib import Path

import jax
import pytest

from acrn_jax import build, runs
from acrn_jax.data_prep import prepare
from acrn_jax.report import tables
from acrn_jax.report.seeds import check_same
from acrn_jax.results import Unfinished
from acrn_jax.runs import bundles, extraction, phases, search
from acrn_jax.runs.workdir import write_json
from acrn_jax.studies import finished, table
from acrn_jax.train import checkpoint
from acrn_jax.train.state import State
from tests.fixtures import small_net

NET, REID, TEST = range(1, 7), range(7, 13), range(13, 19)


def prepared(place, name, train, test, *, ids=lambda person: person):
    """Data set image_folder/`name` in place/data of the pictures in place/raw."""
    rows = []
    for row in csv.DictReader((place / "raw" / "images.csv").read_text().splitlines()):
        person, image = int(row["person_id"]), int(row["path"].split("_")[1][0])
        if person in (*train, *test):
            split = "train" if person in train else ("query", "gallery", "test")[image % 3]
            rows.append(row | {"person_id": ids(person), "split": split})
    file = place / f"{name}.csv"
    with file.open("w") as out:
        writer = csv.DictWriter(out, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    prepare.prepare("image_folder", name, data_dir=place / "data", raw_dir=place / "raw", csv=file)


def config_of(part, data_dir, net=None, **changes):
    kind, name = ("mva", "net") if part == "mva" else ("reid", "people")
    own = {"attributes.allow_overlap": False, "devices": 1, "attributes.from": str(net) if net else None}
    return small_net.config(kind, data_dir, name, steps=10).changed(own | changes)


@pytest.fixture(scope="module", autouse=True)
def narrow():
    before = small_net.stand_in()
    yield
    build.net = before


@pytest.fixture(scope="module")
def trained(tmp_path_factory, narrow):
    """A folder with data/, net/ and run/ (at its end), trained from within it, by relative paths."""
    place, before = tmp_path_factory.mktemp("trained"), Path.cwd()
    (place / "raw").mkdir()
    small_net.write_images(place / "raw", people=18)
    prepared(place, "net", NET, TEST)
    prepared(place, "people", REID, TEST)
    os.chdir(place)
    try:
        runs.train(config_of("mva", "data"), Path("net"))
        runs.train(config_of("reid", "data", "net"), Path("run"))
    finally:
        os.chdir(before)
    return place


@pytest.fixture
def place(trained, tmp_path, monkeypatch):
    """A copy of it, and the working directory there."""
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def other_values(phase):
    """Puts other values into a phase's newest checkpoint, as another training would."""
    state = checkpoint.load_any(phase / "checkpoints")
    shutil.rmtree(phase / "checkpoints")
    saved = checkpoint.Checkpoints(phase / "checkpoints")
    saved.save(State(**(state | {"params": jax.tree.map(lambda x: x + 0.5, state["params"])})))
    saved.close()


def stop(phase):
    """As if it had been stopped at step 8 of 10."""
    shutil.rmtree(phase / "checkpoints" / "10")


USES = {
    "evaluate": lambda run, **more: runs.evaluate(run, **more),
    "search": lambda run, **more: search.search(run, Path("raw"), query=Path("raw/1_0.jpg"), **more),
    "export": lambda run, **more: bundles.export(run, run / "out", formats=["npz"], **more),
}


def test_another_attribute_net_is_refused_with_both_named(place):
    shutil.copytree("net", "other")
    other_values(Path("other/mva"))
    old, new = (phases.fingerprint(Path(name, "mva"))[:12] for name in ("net", "other"))
    told = f"run/reid was trained with the attribute net net .fingerprint {old}., not other as it is now .{new}."
    before = Path("run/config.json").read_text()
    for again in (
        lambda: runs.train(config_of("reid", "data", "other"), Path("run")),
        lambda: runs.reproduce(config_of("reid", "data"), attributes=Path("other"), workdir=Path("run")),
    ):
        with pytest.raises(ValueError, match=told):
            again()
    for use in USES.values():
        with pytest.raises(ValueError, match=told):
            use(Path("run"), attributes=Path("other"))
    assert Path("run/config.json").read_text() == before and not Path("run/results.json").exists()
    stop(Path("run/reid"))
    with pytest.raises(ValueError, match=told):
        runs.train(config_of("reid", "data", "other"), Path("run"))


def test_a_net_retrained_in_place_is_refused_and_the_same_net_elsewhere_is_not(place, capsys):
    shutil.copytree("net", "there/net")
    runs.train(config_of("reid", "data", "there/net"), Path("run"))
    assert capsys.readouterr().out.count("nothing to do") == 2
    results = runs.evaluate(Path("run"))
    made_of = results.made_of
    assert made_of["attributes"]["values"] == made_of["run"]["attributes"]["fingerprint"]
    assert (
        made_of["run"]["data"]["fingerprint"]
        == json.loads(next(Path("data/image_folder/people").glob("*/fingerprint.json")).read_text())["train"]["sha256"]
    )
    assert results.unfinished is None
    other_values(Path("there/net/mva"))
    Path("net").rename("gone")
    with pytest.raises(ValueError, match="run/reid was trained with the attribute net there/net"):
        finished.load(Path("run"))
    for use in USES.values():
        with pytest.raises(ValueError, match="run/reid was trained with the attribute net there/net"):
            use(Path("run"))
    runs.evaluate(Path("run"), attributes=Path("gone"))


def test_another_start_is_refused(place, capsys):
    start = {"phases": ("reid",), "init_from": "run/identity"}
    runs.train(config_of("reid", "data", "net", **start), Path("second"))
    shutil.copytree("run/identity", "copied/identity")
    runs.train(config_of("reid", "data", "net", **start | {"init_from": "copied/identity"}), Path("second"))
    assert "nothing to do" in capsys.readouterr().out
    other_values(Path("run/identity"))
    for folder, again in (("second", start), ("run", {})):
        with pytest.raises(ValueError, match=f"{folder}/reid was started from .*identity"):
            runs.train(config_of("reid", "data", "net", **again), Path(folder))
    with pytest.raises(ValueError, match=r"was started from copied/identity .*not nothing"):
        runs.train(config_of("reid", "data", "net", **start | {"init_from": None}), Path("second"))


@pytest.mark.parametrize("change", ["others' numbers", "fewer people"])
def test_data_prepared_anew_are_refused_with_both_named(place, change, capsys):
    shutil.rmtree("data")
    ids = (lambda person: (person % 3) * 10 + person // 3 + 1) if change == "others' numbers" else lambda person: person
    for name, train in (("net", NET), ("people", REID)):
        prepared(place, name, train if change == "others' numbers" else train[:5], TEST, ids=ids)
    told = (
        r"(run/\w+|net/mva) was trained on image_folder/{0}/train \(fingerprint \w{{12}}\), not image_folder/{0}/train"
    )
    opened = (lambda run: extraction.open_splits(run, ["query"]), lambda run: finished.load(with_results(run)))
    for use in (USES["evaluate"], USES["export"], *opened):
        with pytest.raises(ValueError, match=told.format("people")):
            use(Path("run"))
    with pytest.raises(ValueError, match=told.format("net")):
        runs.evaluate(Path("net"))
    for part, folder, name in (("reid", "run", "people"), ("mva", "net", "net")):
        for _ in range(2):  # the second time stopped
            with pytest.raises(ValueError, match=told.format(name)):
                runs.train(config_of(part, "data", "net"), Path(folder))
            shutil.rmtree(f"{folder}/{part}/checkpoints/10", ignore_errors=True)
    assert not Path("run/predictions/query.npz").exists()


def with_results(folder):
    write_json(Path(folder, "results.json"), {"protocol": "market1501", "dataset": "d/0", "methods": {"ACRN": {}}})
    return Path(folder)


def test_unfinished_phases_are_not_used_but_evaluated_when_asked_to(place, capsys):
    stop(Path("run/reid"))
    told = "run/reid is not finished: it is at step 8 of 10; run the command again"
    for use in (
        *USES.values(),
        lambda run: runs.load(run).outputs(build.open_split(runs.read_config(run), "query")),
        lambda run: finished.load(with_results(run)),
    ):
        with pytest.raises(ValueError, match=told):
            use(Path("run"))
    start = {"phases": ("reid",), "init_from": "run/reid", "loss.kind": "classic"}
    with pytest.raises(ValueError, match=told):
        runs.train(config_of("reid", "data", **start), Path("second"))
    assert not Path("second").exists()
    results = runs.evaluate(Path("run"), unfinished=True)
    assert results.unfinished == Unfinished(step=8, steps=10)
    assert "NOT FINISHED: step 8 of 10" in tables.methods_table(results)
    capsys.readouterr()
    runs.train(config_of("reid", "data", "net"), Path("run"))
    assert "reid: goes on from step 8 of 10 (run/reid)." in capsys.readouterr().out
    ended = runs.evaluate(Path("run"), unfinished=True)
    assert ended.unfinished is None and "NOT FINISHED" not in tables.methods_table(ended)
    write_json(Path("run/results.json"), results.to_json())
    for read in (finished.load, lambda run: table.of_methods([run])):
        with pytest.raises(ValueError, match="run was evaluated at step 8 of 10 of its training; let that come"):
            read(Path("run"))
    with pytest.raises(ValueError, match="different unfinished"):
        check_same([ended, results], ["a", "b"])


@pytest.mark.parametrize("said", [True, False])
def test_an_unfinished_attribute_net_is_refused(place, said):
    stop(Path("net/mva"))
    if not said:  # stopped in its first training; else its newest checkpoint was lost later
        Path("net/attributes.json").unlink()
    for use in (*USES.values(), lambda run: runs.train(config_of("reid", "data", "net"), Path("new"))):
        with pytest.raises(ValueError, match=r"net(/mva)? is not finished: it is at step 8 of 10"):
            use(Path("run"))
    assert not Path("new").exists()
    with pytest.raises(ValueError, match="is not finished"):
        runs.evaluate(Path("net"))
    found = runs.evaluate(Path("net"), unfinished=True)
    assert found.unfinished == Unfinished(step=8, steps=10)
    assert "NOT FINISHED: step 8 of 10" in tables.recognition_table(found)


@pytest.mark.parametrize("old", [False, True])
def test_a_moved_run_finds_what_lies_in_it(place, tmp_path, monkeypatch, old, capsys):
    shutil.copytree("run", "moved")  # what lies in it: net and data, as a demo has them
    for name in ("net", "data"):
        shutil.copytree(name, f"moved/{name}")
    if old:
        for file in place.glob("moved/**/inputs.json"):
            file.unlink()
    before = runs.evaluate(Path("run")).methods
    capsys.readouterr()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    Path("moved").rename(elsewhere / "moved")
    picture = (place / "raw" / "1_0.jpg").rename(elsewhere / "1_0.jpg")
    shutil.copytree(place / "raw", elsewhere / "raw")
    shutil.rmtree(place)
    monkeypatch.chdir(elsewhere)
    run = Path("moved")
    results = runs.evaluate(run)
    assert results.methods == before and results.runs["attributes"] == "net"
    USES["export"](run)
    search.search(run, Path("raw"), query=picture)
    told = capsys.readouterr().out
    assert told.count("was trained by an older version") == (1 if old else 0)  # once for the run and the net in it


def test_a_run_beside_its_net_works_from_anywhere_and_a_flag_names_a_net_elsewhere(place, monkeypatch):
    monkeypatch.chdir(place.parent)
    before = runs.evaluate(Path("copy/run")).methods
    Path("copy/net").rename("net_elsewhere")
    with pytest.raises(FileNotFoundError, match=r"^net holds no finished attribute net .*--attributes=M"):
        runs.evaluate(Path("copy/run"))
    results = runs.evaluate(Path("copy/run"), attributes=Path("net_elsewhere"))
    assert results.methods == before and results.runs["attributes"] == "../../net_elsewhere"


@pytest.mark.parametrize(("name", "people", "who"), [("a", NET, "attribute net"), ("b", REID, "run")])
def test_images_that_a_net_was_trained_on_are_not_scored(place, name, people, who):
    prepared(place, name, TEST[:2], people)
    other = {"dataset": f"image_folder/{name}"}
    with pytest.raises(ValueError, match=f"The {who} .* was trained on 12 images of image_folder/{name}/query, e.g. "):
        runs.evaluate(Path("run"), **other)
    assert runs.evaluate(Path("run"), allow_overlap=True, **other).config["attributes"]["allow_overlap"]
    if name == "a":
        with pytest.raises(ValueError, match="The run net was trained on 12 images of image_folder/a/test"):
            runs.evaluate(Path("net"), **other)
        for picture in Path("raw").glob("*.jpg"):  # other pictures of the same names are not the same images
            picture.write_bytes(Path("raw/18_0.jpg").read_bytes() + picture.name.encode())
        prepared(place, "c", TEST[:2], people)
        runs.evaluate(Path("run"), dataset="image_folder/c")


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("run/config.json", lambda c: c | {"loss": c["loss"] | {"gamma": "big"}}, "config.loss.gamma is 'big'"),
        ("run/config.json", lambda c: c | {"phases": []}, r"config.phases is \[\]; known"),
        ("run/config.json", lambda c: c | {"data": 3}, "data is to be a JSON object of keys"),
        ("run/config.json", lambda c: {}, "lacks phases, attributes, "),
        ("run/config.json", lambda c: [c], "is to hold a JSON object, not a list"),
        ("run/reid/inputs.json", lambda c: {}, "lacks steps"),
        ("net/attributes.json", lambda c: {}, "lacks attribute_names"),
        ("net/attributes.json", lambda c: c | {"attribute_names": c["attribute_names"][::-1]}, "in another order"),
    ],
)
def test_a_file_of_a_run_that_was_changed_by_hand_is_named(place, file, change, told):
    file = Path(file)
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    with pytest.raises(ValueError, match=f"^{file}.*{told}.*bring .* back|{told}.*Bring the file back"):
        runs.evaluate(Path("run"))
    file.write_text('{"steps": 1')
    with pytest.raises(ValueError, match=f"^{file} is not JSON .*bring it back"):
        runs.evaluate(Path("run"))
