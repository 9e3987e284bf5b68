"""What results say of the code that made them: our own commit or the version, never somebody else's commit."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="git is not here")


def put(folder: pathlib.Path, *, installed: bool) -> pathlib.Path:
    """The two files that tell, as they lie in a checkout or in site-packages."""
    (folder / "acrn_jax").mkdir(parents=True)
    for name in ("__init__.py", "provenance.py"):
        shutil.copy(ROOT / "acrn_jax" / name, folder / "acrn_jax")
    (folder / ("acrn_jax/configs" if installed else "configs")).mkdir()
    return folder


def repository(folder: pathlib.Path) -> str:
    """Makes a repository of all that lies there; its commit."""
    folder.mkdir(exist_ok=True)
    (folder / "note").touch()
    who = ("-c", "user.name=A", "-c", "user.email=a@b.c")
    for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-q", "-m", "all")):
        subprocess.run(["git", *command], cwd=folder, check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True).stdout.strip()


def told(folder: pathlib.Path, **variables: str) -> str:
    code = "from acrn_jax import provenance; print(provenance.commit())"
    env = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"} | variables
    done = subprocess.run([sys.executable, "-P", "-c", code], env=env, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_checkout_tells_its_commit_and_whether_files_differ(tmp_path):
    own = put(tmp_path / "own", installed=False)
    commit = repository(own)
    assert re.fullmatch("[0-9a-f]{40}", commit) and told(own) == commit
    repository(tmp_path / "other")
    assert told(own, GIT_DIR=str(tmp_path / "other" / ".git")) == commit  # as in a hook of that repository
    (own / "mine").touch()
    assert told(own) == commit  # of no concern to results
    (own / "configs" / "mine.py").touch()
    assert told(own) == f"{commit}+"


def test_a_repository_around_the_package_is_not_its_own(tmp_path):
    """A project of somebody, whose environment lies in it and is under version control at that."""
    place = put(tmp_path / "theirs" / "venv" / "site-packages", installed=True)
    repository(tmp_path / "theirs")
    assert re.fullmatch(r"acrn_jax \d+\.\d+\.\d+\S* \(wheel\)", told(place))


def test_a_copy_in_a_repository_is_not_its_own(tmp_path):
    copy = put(tmp_path / "theirs" / "third_party", installed=False)
    repository(tmp_path / "theirs")
    assert re.fullmatch(r"acrn_jax \S+ \(copy\)", told(copy))


def test_what_pip_installed_from_a_repository_tells_its_commit(tmp_path):
    place = put(tmp_path / "site-packages", installed=True)
    about = place / "acrn_jax-0.2.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Name: acrn_jax\nVersion: 0.2.0\n")
    url = {"url": "https://example.org/a.git", "vcs_info": {"vcs": "git", "commit_id": "ab" * 20}}
    (about / "direct_url.json").write_text(json.dumps(url))
    assert told(place).endswith(f"(commit {'ab' * 20})")
    (about / "direct_url.json").write_text(json.dumps({"url": "file:///a.whl", "archive_info": {}}))
    assert told(place).endswith("(wheel)")
    (about / "direct_url.json").write_text(json.dumps(url))
    elsewhere = put(tmp_path / "first", installed=True)  # another copy goes before the installed one
    assert told(elsewhere, PYTHONPATH=f"{elsewhere}:{place}").endswith("(wheel)")
