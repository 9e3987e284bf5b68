"""The wheel: one name in site-packages, and every verb from an empty folder with nothing of the checkout."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from acrn_jax.cli import main
from tests import commands
from tests.fixtures import image_folder

ROOT = commands.ROOT
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CONFIGS = "demo acrn_market1501 acrn_cuhk03 mva_peta reidcnn_market1501".split()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built with what is here: nothing is fetched."""
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-P", "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (file,) = folder.iterdir()
    return file


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with the package as an installer leaves it, and none of its requirements."""
    folder = tmp_path_factory.mktemp("site")
    uv = shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))
    command = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    subprocess.run([*command, "--quiet", "--no-deps", "--no-index", "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def acrn(site, tmp_path, monkeypatch):
    """Runs the console script in an empty folder."""
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    def run(*arguments):
        command = [str(site / "bin" / "acrn"), *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    return run


def test_one_name_goes_into_site_packages(wheel, site):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"acrn_jax", f"acrn_jax-{VERSION}.dist-info"}
    assert {path.name for path in site.iterdir() if path.name[0] != "."} == {
        "acrn_jax", f"acrn_jax-{VERSION}.dist-info", "bin"
    }  # fmt: skip
    assert [path.name for path in (site / "bin").iterdir()] == ["acrn"]


def test_all_files_of_the_package_are_in_the_wheel(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    wanted = {"acrn_jax/py.typed", "acrn_jax/report/template.html", "acrn_jax/data_prep/peta/README.md"}
    assert wanted <= names
    for folder, place in (("acrn_jax", ""), ("configs", "acrn_jax/"), ("data_prep", "acrn_jax/")):
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        wanted |= {place + str(path.relative_to(ROOT)) for path in files}
    assert names == wanted


def test_what_lies_beside_the_package_in_a_checkout_lies_in_it(site, tmp_path):
    code = "import acrn_jax, acrn_jax.configs.demo as c, acrn_jax.data_prep.reid as d; print(c.__file__, d.__file__); "
    code += "print(acrn_jax.CHECKOUT, acrn_jax.__version__, acrn_jax.COMMAND, len(acrn_jax.__path__)); import configs"
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == f"{site}/acrn_jax/configs/demo.py {site}/acrn_jax/data_prep/reid.py\nNone {VERSION} acrn 1\n"
    assert "No module named 'configs'" in done.stderr


def test_every_verb_starts_and_speaks_of_acrn(site, tmp_path):
    verbs = [verb for verb in commands.VERBS if verb != "prepare"]  # which has its help from absl
    asked = [[verb, "--help"] for verb in verbs]
    asked += [["train", f"--config={name}", "--workdir=w"] for name in (*CONFIGS, "demo:attributes")]
    asked += [["train", "--config=demmo"], ["ablate", "--config=configs/demo.py:attribute"]]
    *helps, shipped, unknown, mode = commands.ask(asked, package=site, folder=tmp_path)
    assert [answer["code"] for answer in helps] == [0] * len(helps)
    for verb, answer in zip(verbs, helps, strict=False):
        assert "launch.sh" not in answer["said"] and len(answer["said"].splitlines()) > 5, verb
    assert any("acrn train --config" in answer["said"] for answer in helps)
    assert shipped["config"]["data"]["config"] == "source_0"
    assert "no config 'demmo'; did you mean demo?" in unknown["said"]
    assert "Unknown part 'attribute'" in mode["said"]
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_prepared_and_wrong_input_refused_in_an_empty_folder(acrn, tmp_path):
    csv = image_folder.write(tmp_path / "raw")
    flags = ["--dataset=image_folder", "--config_name=mine", f"--raw_dir={csv.parent}", f"--csv={csv}"]
    done = acrn("prepare", *flags, "--data_dir=data")
    assert done.returncode == 0 and "protocol market1501: 1 of 1 queries" in done.stdout, done.stderr
    assert (tmp_path / "data" / "image_folder" / "mine" / "1.0.0" / "fingerprint.json").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "data"}

    for arguments, told in (
        (["prepare"], "--dataset is missing; acrn prepare --help lists the flags."),
        (["train", "--config=demo:attributes", "--workdir=w"], "(acrn prepare makes data)"),
        (["ablate", "--study=gama", "--config=demo", "--workdir=w"], "no study 'gama'; did you mean 'gamma'?"),
        (["report", "--workdir=data"], "run acrn evaluate --workdir=data (or acrn reproduce) first."),
        (["bench"], "bench needs files that are not installed; clone the repository"),
        (["test"], "test needs files that are not installed"),
        (["tain"], "there is no verb 'tain'; did you mean 'train'? acrn --help lists them all."),
    ):
        done = acrn(*arguments)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), (arguments, done)
        assert told in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"raw", "data"}


def test_help_of_prepare(acrn):
    done = acrn("prepare", "--help")
    assert done.returncode == 0 and "acrn prepare --dataset=peta" in done.stdout and "launch.sh" not in done.stdout


def test_usage_and_version(acrn, tmp_path):
    usage = acrn("--help").stdout
    assert re.findall(r"^  ([a-z]+) ", usage, re.MULTILINE) == [v for v in main.VERBS if v not in main.OF_CHECKOUT]
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    assert acrn("--version").stdout == f"acrn_jax {VERSION}, acrn_jax {VERSION} (wheel)\n"


def test_an_extra_that_is_missing_is_named(site, tmp_path):
    code = "from acrn_jax import extras; print(extras.remedy('export', ['onnx']))"
    environment = os.environ | {"PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "pip install 'acrn_jax[export]'\n"
    metadata = next(site.glob("*.dist-info/METADATA")).read_text()
    extras = set(re.findall("^Provides-Extra: (.*)$", metadata, re.MULTILINE))
    assert {"cuda12", "cuda13", "tpu", "export", "faiss"} <= extras
