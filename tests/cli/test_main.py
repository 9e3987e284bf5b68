"""The command `acrn` and the environment of its verbs, in the checkout; tests/test_install.py has the package."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

from acrn_jax.cli import main
from tests import test_launch

ROOT = pathlib.Path(__file__).parents[2]


def acrn(*arguments, **options):
    command = [sys.executable, "-P", "-m", "acrn_jax", *arguments]
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **options.pop("env", {})}
    return subprocess.run(command, env=environment, capture_output=True, text=True, **options)


def test_verbs_are_those_of_launch_sh():
    script = (ROOT / "launch.sh").read_text()
    usage = script.split("<<'USAGE'")[1].split("Environment variables")[0]
    assert dict(re.findall(r"^  ([a-z]+) +(\S.*)$", usage, re.MULTILINE)) == main.VERBS
    assert script.split('VERBS="')[1].split('"')[0].split() == list(main.VERBS)
    assert {*test_launch.VERBS, "python"} == set(main.VERBS)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage_names_every_verb(arguments):
    done = acrn(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert [verb for verb in main.VERBS if f"\n  {verb} " not in done.stdout] == []


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("tset", "test"), ("eval", "evaluate"), ("trian", "train"), ("benhc", "bench"), ("e x", ""), ("", "")],
)
def test_unknown_verb_names_the_nearest(typed, meant):
    done = acrn(typed)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"'{typed}'; did you mean '{meant}" in done.stderr


def test_each_verb_has_a_program_that_is_there(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for verb in sorted(main.VERBS.keys() - {"python"}):
        dash_m, module, flag = main.program(verb, ["--x=a b"])
        assert (dash_m, flag) == ("-m", "--x=a b")
        file = module.replace("acrn_jax.data_prep", "data_prep").replace(".", "/")
        assert module == "pytest" or (ROOT / f"{file}.py").exists() or (ROOT / file / "__main__.py").exists()
    assert main.program("python", ["-m", "pip"]) == ["-m", "pip"]


def test_tests_take_paths_of_the_caller_and_of_the_checkout(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").touch()
    arguments = main.program("test", ["-k", "a b", "mine.py::test", "tests/test_modules.py", "/abs"])
    assert arguments == ["-m", "pytest", "-k", "a b", f"{tmp_path}/mine.py::test", "tests/test_modules.py", "/abs"]
    assert os.getcwd() == str(ROOT)


def test_a_verb_runs_in_the_callers_folder_with_the_environment_and_its_exit_code(tmp_path):
    code = "import os, sys; print(os.getcwd(), os.environ['MALLOC_ARENA_MAX'], *sys.argv[1:]); sys.exit(7)"
    done = acrn("python", "-c", code, "a b", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (7, f"{tmp_path} 1 a b\n"), done.stderr


def test_a_module_in_the_callers_folder_is_not_taken_for_ours(tmp_path):
    (tmp_path / "absl.py").write_text("raise SystemExit('not this one')")
    done = acrn("report", "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith("Writes one self-contained HTML file"), done.stderr


def test_what_the_user_set_stays(tmp_path):
    mine = {"XLA_FLAGS": "--mine", "MALLOC_TOP_PAD_": "7", "TF_CPP_MIN_LOG_LEVEL": "0", "HOME": str(tmp_path)}
    found = main.environment(mine)
    assert not mine.keys() & found.keys()
    assert found["MALLOC_TRIM_THRESHOLD_"] == "8589934592" and found["MALLOC_MMAP_MAX_"] == "0"
    assert found["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1" and found["PYTHONPATH"] == str(ROOT)
    assert main.environment({"PYTHONPATH": "/mine"})["PYTHONPATH"] == f"{ROOT}:/mine"
    assert "PYTHONPATH" not in main.environment({"PYTHONPATH": f"{ROOT}:/mine"})


def test_compiling_is_cut_short_on_the_cpu_alone(monkeypatch):
    there: set[str] = set()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name if name in there else None)
    assert main.environment({})["XLA_FLAGS"] == "--xla_backend_optimization_level=1"
    for plugin in ("jax_plugins", "libtpu"):  # what jax[cuda12], jax[cuda13] and jax[tpu] bring
        there = {plugin}
        assert "XLA_FLAGS" not in main.environment({})


def test_compiled_programs_are_kept_where_there_is_room(tmp_path):
    def kept(**given):
        return main.environment({"HOME": str(tmp_path), **given}).get("JAX_COMPILATION_CACHE_DIR")

    assert kept() == f"{tmp_path}/.cache/acrn_jax/jax" and os.path.isdir(kept())
    assert kept(XDG_CACHE_HOME=f"{tmp_path}/x") == f"{tmp_path}/x/acrn_jax/jax"
    assert kept(HOME="") == f"{ROOT}/.cache/acrn_jax/jax"
    assert kept(JAX_COMPILATION_CACHE_DIR="/mine") is None
    assert kept(HOME=os.devnull) is None
