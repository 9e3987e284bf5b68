"""Files of anyone's attribute scores and labels: what is joined, what is refused."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from acrn_jax import files
from acrn_jax.evaluation import attribute_files, attribute_query

SCORES = [("file_name", "hat", "bag", "red"), ("b.jpg", "0.9", "0.2", "0.5"), ("a.jpg", "0.1", "0.7", "0.4")]
LABELS = [
    ("file_name", "person_id", "bag", "hat", "dress"),
    ("a.jpg", "7", "1", "", "0"),
    ("b.jpg", "8", "0", "1", "0"),
]


def write(folder, scores=SCORES, labels=LABELS):
    files.write_csv(folder / "scores.csv", scores)
    files.write_csv(folder / "labels.csv", labels)
    return folder / "scores.csv", folder / "labels.csv"


def test_images_and_attributes_are_joined_by_name(tmp_path):
    found = attribute_files.read(*write(tmp_path))
    assert found.names == ("bag", "hat") and found.person_id.tolist() == [7, 8]
    assert found.probabilities.tolist() == [[0.7, 0.1], [0.2, 0.9]] and found.labels.tolist() == [[1, -1], [0, 1]]
    np.savez(tmp_path / "s.npz", attributes=[[0.9, 0.2], [0.1, 0.7]], attribute_names=["hat", "bag"])
    np.savez(tmp_path / "l.npz", attributes=[[0, 1], [1, -1]], attribute_names=["bag", "hat"])
    found = attribute_files.read(tmp_path / "s.npz", tmp_path / "l.npz")  # no names: by order
    assert found.names == ("bag", "hat") and found.person_id.tolist() == [0, 0]
    assert found.probabilities.tolist() == [[0.2, 0.9], [0.7, 0.1]] and found.labels.tolist() == [[0, 1], [1, -1]]


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (SCORES[:2], LABELS, "no scores of 1 images of .*labels.csv, e.g. a.jpg"),
        ([*SCORES, SCORES[1]], LABELS, r"scores.csv has 2 lines of b.jpg"),
        ([row[1:] for row in SCORES], LABELS, "scores.csv has no file_name"),
        ([row[1:] for row in SCORES[:2]], [row[1:] for row in LABELS], "1 images and .* 2; give both"),
        ([row[:1] + row[3:] for row in SCORES], LABELS, "no attribute in common: red and bag, hat, dress"),
        (
            [*SCORES[:2], ("a.jpg", "0.1", "1.7", "0.4")],
            LABELS,
            r"bag of image 0 is 1.7; probabilities lie in \[0, 1\]",
        ),
        ([*SCORES[:2], ("a.jpg", "0.1", "", "0.4")], LABELS, r"bag of image 0 is nan; probabilities"),
        ([*SCORES[:2], ("a.jpg", "yes", "0.1", "0.4")], LABELS, "hat holds what is no number"),
        (SCORES, [*LABELS[:2], ("b.jpg", "8", "2", "1", "0")], "bag of image 1 is 2; labels are 1, 0, or -1"),
        (SCORES, [*LABELS[:2], ("b.jpg", "x", "0", "1", "0")], "person_id row 1 is 'x'"),
        (SCORES[:1], LABELS, "scores.csv holds no scores"),
        ([("file_name", "hat", "hat"), ("a.jpg", "1", "1")], LABELS, "two columns have one name"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        attribute_files.read(*write(tmp_path, scores, labels))


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*x.csv"):
        attribute_files.read(tmp_path / "x.csv", tmp_path / "y.csv")
    (tmp_path / "x.txt").touch()
    with pytest.raises(ValueError, match=r"neither .csv nor .npz"):
        attribute_files.read(tmp_path / "x.txt", tmp_path / "y.csv")
    np.savez(tmp_path / "x.npz", features=[1])
    with pytest.raises(ValueError, match=r"attributes \[N, A\] and attribute_names \[A\]; it has features"):
        attribute_files.read(tmp_path / "x.npz", tmp_path / "y.csv")


def test_the_verb_scores_files_and_takes_its_own_lists_again(tmp_path):
    rng = np.random.default_rng(0)
    names = ["hat", "bag", "red", "skirt"]
    labels = (rng.random((90, 4)) < [0.1, 0.2, 0.3, 0.4]).astype(int)
    scores = np.clip(0.5 + 0.2 * (2 * labels - 1) + 0.2 * rng.normal(size=labels.shape), 0, 1)
    for name, values in (("scores", scores), ("labels", labels)):
        np.savez(tmp_path / f"{name}.npz", attributes=values, attribute_names=names)

    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}

    def call(*more):
        command = [sys.executable, "-m", "acrn_jax.cli.evaluate", "--protocol=attribute_query"]
        given = ["--probabilities=scores.npz", "--labels=labels.npz", *more]
        return subprocess.run([*command, *given], cwd=tmp_path, text=True, capture_output=True, env=environment)

    done = call("--draws=4", "--draw_seed=5", "--json=out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert done.returncode == 0 and f"{len(found['wish_lists'])} wish lists on labels.npz: 90 images" in done.stdout
    lists = attribute_query.draw(labels.astype(np.int8), each=4, seed=5)
    wanted = attribute_query.evaluate(scores, labels.astype(np.int8), np.zeros(90, int), names, lists)
    assert found["rows"] == json.loads(json.dumps(wanted["rows"])) and found["people"] == 90
    assert call("--wish_lists=out.json", "--json=again.json").returncode == 0
    again = json.loads((tmp_path / "again.json").read_text())
    assert again["rows"]["product"]["metrics"] == pytest.approx(found["rows"]["product"]["metrics"])
    assert again["lists_sha256"] == found["lists_sha256"] and again["seed"] is None
    for flags, message in (
        (["--wish_lists=out.json", "--draws=3"], "--wish_lists has lists already"),
        (["--workdir=."], "--workdir does not go with --protocol=attribute_query of anyone's probabilities"),
    ):
        done = call(*flags)
        assert done.returncode and message in done.stderr
