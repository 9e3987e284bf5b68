"""describe with a net that looks at nothing but colours: every number by hand from its logits."""

import csv
import io
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from acrn_jax import files, runs
from acrn_jax.configs import demo
from acrn_jax.evaluation import calibration
from acrn_jax.runs import attribute_calibration, describe_table, describing

ROOT = pathlib.Path(__file__).parents[1]
NAMES = ("personalMale", "hairLong", "accessoryHat")
SLOPE, OFFSET = np.array([2.0, 1.0, 0.5]), np.array([0.0, 1.0, -1.0])
COLOURS = {"a.png": (0, 128, 255), "sub/b.png": (255, 128, 100), "sub/c.png": (130, 10, 250)}
ABOUT = {"kind": "fitted", "fitted_on": "drawn/a/val", "images": 1200, "raw": ["hairLong"], "recognition": None}


def said(colour):
    """Logits [3] of a picture of one colour."""
    return (np.array(colour, float) - 128) / 40


def wanted(colour):
    """Probabilities [3], one by one."""
    return [1 / (1 + np.exp(-(s * z + o))) for s, z, o in zip(SLOPE, said(colour), OFFSET, strict=True)]


@pytest.fixture
def place(tmp_path, monkeypatch):
    config = demo.get_config("attributes")
    files.write_json(tmp_path / "net" / "config.json", json.loads(config.to_json_best_effort()))
    files.write_json(tmp_path / "net" / "attributes.json", {"attribute_names": NAMES})
    for name, colour in COLOURS.items():
        (tmp_path / "pictures" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 16), colour).save(tmp_path / "pictures" / name)

    def compute(run, split, batch, quiet):
        colours = [np.asarray(Image.open(io.BytesIO(split.image_bytes(i))))[0, 0] for i in range(len(split))]
        return {"attribute_logits": np.array([said(c) for c in colours], np.float32)}

    monkeypatch.setattr(runs.Run, "_compute", compute)
    monkeypatch.setattr(runs.Run, "fingerprint", property(lambda run: str(run.phase)))
    curve = calibration.Platt(SLOPE, OFFSET, np.array([True, False, True]))
    monkeypatch.setattr(attribute_calibration, "calibrated", lambda *arguments: (curve, ABOUT))
    monkeypatch.setenv("ACRN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path


def test_probabilities_are_calibrated_and_the_middle_is_unknown(place):
    found = describing.describe(place / "net", [place / "pictures"], unknown=(0.2, 0.6))
    assert found.files == tuple(COLOURS) and found.names == NAMES
    for row, answers, colour in zip(found.probabilities, found.answers, COLOURS.values(), strict=True):
        p = wanted(colour)
        np.testing.assert_allclose(row, p, rtol=1e-5)
        assert answers.tolist() == ["no" if x < 0.2 else "yes" if x > 0.6 else "unknown" for x in p]
    assert set(found.answers.ravel()) == {"yes", "no", "unknown"}
    content = json.loads(json.dumps(found.to_json()))
    assert content["unknown"] == [0.2, 0.6] and content["probabilities"] == ABOUT
    entry = content["pictures"][1]
    assert entry["file"] == "sub/b.png" and list(entry["attributes"]) == list(NAMES)
    assert entry["attributes"]["personalMale"]["answer"] == "yes"
    header, *rows = csv.reader(io.StringIO("\n".join(",".join(row) for row in found.rows())))
    assert header[:3] == ["file", "personalMale", "personalMale_probability"] and len(rows) == 3
    assert float(rows[2][6]) == pytest.approx(wanted(COLOURS["sub/c.png"])[2], abs=1e-4)


def test_an_end_of_the_band_is_unknown(place):
    found = describing.describe(place / "net", [place / "pictures" / "a.png"], unknown=(0.0, 1.0))
    assert set(found.answers.ravel()) == {"unknown"}
    p = float(found.probabilities[0, 1])
    again = describing.describe(place / "net", [place / "pictures" / "a.png"], unknown=(p, p))
    assert again.answers[0].tolist() == ["no", "unknown", "yes" if found.probabilities[0, 2] > p else "no"]


def test_chosen_attributes_in_their_order(place):
    found = describing.describe(place / "net", [place / "pictures"], attributes=["accessoryHat", "personalMale"])
    assert found.names == ("accessoryHat", "personalMale") and found.about["raw"] == []
    np.testing.assert_allclose(found.probabilities[0], np.array(wanted(COLOURS["a.png"]))[[2, 0]], rtol=1e-5)


def test_few_pictures_are_columns_and_many_a_list(place):
    found = describing.describe(place / "net", [place / "pictures"])
    text = describe_table.table(found)
    p = wanted(COLOURS["sub/b.png"])
    line = next(line for line in text.splitlines() if line.startswith("personalMale"))
    assert f"yes {100 * p[0]:.0f} %" in line and "no 0 %" in line
    shown = " ".join(text.split())
    assert "unknown: a probability from 35 to 65 % (--unknown=0.35,0.65)." in shown
    assert "curve fitted on 1,200 images of drawn/a/val, but raw for hairLong" in shown
    for i in range(4):
        Image.new("RGB", (8, 16), (10 * i, 200, 90)).save(place / "pictures" / f"z{i}.png")
    (place / "pictures" / "broken.jpg").write_text("no picture")
    (place / "pictures" / "film.mp4").touch()
    text = describe_table.table(describing.describe(place / "net", [place / "pictures"]))
    assert all(len(line) <= 80 for line in text.splitlines()) and "sub/c.png\n  yes" in text
    assert "broken.jpg: not an image" in text and "ending in .mp4: 1, such as film.mp4" in text


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (["pictures"], {"attributes": ["hat"]}, "knows no 'hat'; did you mean 'accessoryHat'"),
        (["pictures"], {"attributes": ["hairShort"]}, "did you mean 'hairLong'"),
        (["pictures"], {"unknown": (0.7, 0.2)}, "--unknown is 0.7,0.2; give two probabilities, the lower one first"),
        (["pictures"], {"unknown": (-0.1, 0.2)}, "--unknown is -0.1,0.2"),
        (["gone.jpg"], {}, "There is no folder .*gone.jpg"),
        (["pictures/a.png", "gone.jpg"], {}, "There is no picture .*gone.jpg"),
        (["pictures/a.png", "pictures"], {}, "is a folder, beside 1 other"),
        (["pictures/a.png", "pictures/a.png"], {}, "given twice"),
        (["net/config.json"], {}, "config.json' cannot be decoded: not an image"),
    ],
)
def test_what_cannot_be_described_is_told(place, images, options, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        describing.describe(place / "net", [place / name for name in images], **options)


def test_a_run_names_its_net_and_one_without_is_told(place):
    config = demo.get_config("acrn")
    for name, net in (("run", str(place / "net")), ("bare", "")):
        config.attributes["from"], config.loss.kind = net, "acrn" if net else "classic"
        files.write_json(place / name / "config.json", json.loads(config.to_json_best_effort()))
    assert describing.describe(place / "run", [place / "pictures"]).names == NAMES
    with pytest.raises(ValueError, match="has no attribute net"):
        describing.describe(place / "bare", [place / "pictures"])


def test_the_command_takes_bare_paths(place):
    code = """
import json, sys
from acrn_jax.cli import describe, shell
from acrn_jax.runs import describing
def told(workdir, images, **more):
    raise ValueError(json.dumps([str(workdir), list(map(str, images)), more["unknown"], more["attributes"]]))
describing.describe = told
shell.run(describe.main, bare="images")
"""

    def ask(*arguments):
        env = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=place, env=env)
        assert done.returncode == 2
        return done.stderr.removeprefix("acrn_jax: ").strip()

    assert json.loads(ask("a.jpg", "--workdir=net", "b.jpg", "--unknown=0.1,0.9")) == [
        "net",
        ["a.jpg", "b.jpg"],
        [0.1, 0.9],
        [],
    ]
    given = ask("--images=a.jpg,b.jpg", "--workdir=net", "--attribute=x,y", "--attribute=z")
    assert json.loads(given) == ["net", ["a.jpg", "b.jpg"], [0.35, 0.65], ["x", "y", "z"]]
    assert "given beside --images" in ask("a.jpg", "--images=b.jpg", "--workdir=net")
    assert "--unknown=few is not two numbers" in ask("a.jpg", "--workdir=net", "--unknown=few")
    assert "--images must be given" in ask()
