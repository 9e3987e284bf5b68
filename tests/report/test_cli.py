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


@pytest.mark.parametrize(
    "given, words", [("--workdir=gone", "no folder gone"), ("--out=x.html", "--workdir is not set")]
)
def test_wrong_input_is_one_sentence(given, words):
    done = report(given)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) == 1
