"""What looks at the repository from outside agrees with itself: .ci/run, the hooks of pre-commit, the container."""

import importlib.machinery
import importlib.util
import pathlib
import re
import subprocess
import tomllib

import pytest
import yaml

import acrn_jax

ROOT = pathlib.Path(__file__).parents[1]


def plain(command):
    """A command without quotes, comments and what only one of the two writes."""
    command = re.sub(r" #.*|['\"]|^env |^bash -c ", "", " ".join(command.split()))
    return command.strip()


def test_hooks_check_what_ci_checks():
    lines = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "./launch.sh" in line]
    *checks, tests = map(plain, lines)
    assert tests == "exec ./launch.sh test $@"
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [plain(hook["entry"]) for hook in local["hooks"]] == checks
    assert {hook["language"] for hook in local["hooks"]} == {"system"} and len(checks) == 4


def git(*arguments):
    return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False).stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")
def test_what_verbs_write_by_default_is_in_no_commit():
    """Reports and searches show people of the data set and name folders of the machine."""
    written = ["demo/report.html", "demo_real/search.html", "report.html", "search/search.html", "search/grid.jpg"]
    assert git("check-ignore", *written).split() == written
    assert not git("ls-files", "--cached", "--ignored", "--exclude-standard")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no checkout of git")
def test_no_committed_page_shows_pictures():
    pages = [name for name in git("ls-files").splitlines() if name.endswith((".html", ".md"))]
    assert len(pages) > 30
    for name in pages:
        text = (ROOT / name).read_text()
        assert not re.search(r"data:image/\w+;base64,[\w+/]{40}", text), (
            f"{name} holds pictures, which may be of people"
        )


@pytest.fixture
def container():
    path = str(ROOT / ".ci" / "container")
    spec = importlib.util.spec_from_loader("container", importlib.machinery.SourceFileLoader("container", path))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_container_holds_what_the_package_is_built_of(container):
    steps = container.instructions((ROOT / "Dockerfile").read_text())
    known = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENTRYPOINT", "CMD"}
    assert {name for name, _ in steps} == known
    copied = {source for name, rest in steps if name == "COPY" for source in rest.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert copied >= {*project["tool"]["hatch"]["build"]["only-include"], "pyproject.toml", "constraints.txt"}
    assert copied >= {project["project"]["readme"], *project["project"]["license-files"]}
    assert all((ROOT / source).exists() for source in copied)


def test_versions_agree():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert acrn_jax.__version__ == version
    cited = re.search(r"^version: (\S+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)[1]
    assert version.endswith(".dev0") or cited == version  # the citation is of what is released
