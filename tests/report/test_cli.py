import json
import subprocess
import sys

import pytest

from tests.report import conftest


def report(*flags):
    return subprocess.run([sys.executable, "-m", "acrn_jax.cli.report", *flags], capture_output=True, text=True)


def test_report_prints_the_table_and_the_path(tmp_path):
    folder = conftest.make_bare_workdir(tmp_path / "with space", weights=[])
    done = report(f"--workdir={folder}", f"--out={tmp_path / 'a' / 'r.html'}")
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == str(tmp_path / "a" / "r.html"), done.stderr
    assert "ReIdCNN+Attributes-weighted" in done.stdout and (tmp_path / "a" / "r.html").stat().st_size > 10_000


def test_an_attribute_net_is_reported_by_itself_and_beside_a_run(tmp_path):
    net = tmp_path / "net"
    net.mkdir()
    (net / "recognition.json").write_text(json.dumps(conftest.make_recognition()))
    run = conftest.make_bare_workdir(tmp_path / "run", weights=[])
    for folders in ([net], [net, run]):
        out = tmp_path / f"{len(folders)}.html"
        done = report(f"--workdir={','.join(map(str, folders))}", f"--out={out}")
        assert done.returncode == 0, done.stderr
        assert "Attribute recognition on peta/random_0" in done.stdout and "77.1" in done.stdout
        page = out.read_text()
        assert ("<h3>Methods</h3>" in page) == ("<h3>Rank lists</h3>" in page) == (run in folders)
        assert page.count("<h3>Attribute recognition</h3>") == 1 and "No common table" not in page
        assert page.count("81.2") >= 3  # of people seen in training: the table, and its copies to paste


@pytest.mark.parametrize(
    "given, words", [("--workdir=gone", "no folder gone"), ("--out=x.html", "--workdir is not set")]
)
def test_wrong_input_is_one_sentence(given, words):
    done = report(given)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
