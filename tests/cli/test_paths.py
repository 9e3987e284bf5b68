"""Every flag of every verb that names files or folders, as users type them."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags

from acrn_jax import settings
from acrn_jax.cli import shared_flags, shell
from acrn_jax.configs import common
from acrn_jax.data_prep import paths

ROOT = pathlib.Path(__file__).parents[2]
VERBS = [*(ROOT / "acrn_jax" / "cli").glob("[a-z]*.py"), ROOT / "data_prep" / "prepare.py"]
WORDS = """
    against arms attribute attributes_name config_name coordinator_address dataset expand format job judge method not
    output parts pattern protocol split splits study subsets unknown values want
""".split()  # flags of text that name neither files nor folders


def calls():
    """(verb, function such as "define_file" or "DEFINE_string", the flag's name, its default)"""
    for file in VERBS:
        for node in ast.walk(ast.parse(file.read_text())):
            function = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if function.lower().startswith("define_"):
                name, default = (ast.literal_eval(argument) for argument in node.args[:2])
                yield file.stem, function, name, default


PATH_FLAGS = [call for call in calls() if call[1].startswith("define_")]


def test_flags_that_name_paths_say_so():
    """A new flag of text is either one of paths.py's or stands in WORDS."""
    texts = {
        name for _, function, name, _ in calls() if function in ("DEFINE_string", "DEFINE_list", "DEFINE_multi_string")
    }
    assert texts == set(WORDS)
    assert {verb for verb, *_ in PATH_FLAGS} == {file.stem for file in VERBS} - {
        "__init__", "against", "cards", "distributed", "main", "manual", "models", "shared_flags", "shell"
    }  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")
    return tmp_path


def value(function, name, default, given):
    """What a flag makes of what is given."""
    known = flags.FlagValues()
    getattr(paths, function)(name, default, "of a test", flag_values=known)
    known(["verb", *([] if given is None else [f"--{name}={given}"])])
    return known[name].value


@pytest.mark.parametrize(("verb", "function", "name", "default"), PATH_FLAGS)
def test_each_path_flag(home, verb, function, name, default):
    several = function in ("define_files", "define_folders", "define_paths")

    def read(given):
        found = value(function, name, default, given)
        return found[0] if several and len(found) == 1 else found

    assert value(function, name, default, None) == default
    assert read("~/new/x") == str(home / "new" / "x")
    for typed in ("new", "new/sub", "/new", "../new", "a=b", "with space", "ü", "x~", "folder_link/new"):
        assert read(typed) == typed
    assert read("new//sub/") == "new/sub"
    for wrong, told in (
        ("", "is empty"),
        (" ", "is empty"),
        ("~nobody_of_that_name/x", "no home folder"),
        ("file/x", "is a file"),
    ):
        with pytest.raises(flags.IllegalFlagValueError, match=f"--{name}=.*{wrong}.*: .*{told}"):
            read(wrong)
    wrong, told = {
        "file": ("folder", "is a folder; give the name of a file"),
        "folder": ("file", "is a file; give the name of a folder"),
    }.get(function.removeprefix("define_").rstrip("s"), (None, None))
    if wrong:
        with pytest.raises(flags.IllegalFlagValueError, match=told):
            read(wrong)
    assert (home / "file").read_text() == "kept"


def test_several_paths(home):
    (home / "a,b").mkdir()
    assert value("define_folders", "on", [], "a,b") == ["a,b"]  # it is there
    assert value("define_folders", "on", [], "~/a,b") == [str(home / "a,b")]
    assert value("define_folders", "on", [], "a,c") == ["a", "c"]
    assert value("define_folders", "on", [], '"a,c",~/d/') == ["a,c", str(home / "d")]
    with pytest.raises(flags.IllegalFlagValueError, match="is empty"):
        value("define_folders", "on", [], "a,,c")


def test_links_are_what_they_point_at(home):
    (home / "to_folder").symlink_to("folder")
    (home / "to_file").symlink_to("file")
    assert value("define_folder", "out", None, "to_folder") == "to_folder"
    assert value("define_file", "out", None, "to_file") == "to_file"
    with pytest.raises(flags.IllegalFlagValueError, match="is a file"):
        value("define_folder", "out", None, "to_file")


def test_config_keys_that_name_paths(home):
    config = common.get_config().lock()
    named = {key for key, shown in config.to_dict().items() if key == "init_from"} | {
        f"{group}.{key}"
        for group, part in config.to_dict().items()
        if isinstance(part, dict)
        for key in part
        if key in ("dir", "from") or key.endswith(("_file", "_dir", "_from"))
    }
    assert named == set(settings.PATHS)
    config.data.dir, config.init_from = "~/data/", "nets/a"
    config.attributes["from"], config.loss.attribute_weights_file = "~/m", "~"
    found = shared_flags.config_of(config)
    assert (found.data.dir, found.init_from) == (str(home / "data"), "nets/a")
    assert (found.attributes.from_, found.loss.attribute_weights_file) == (str(home / "m"), str(home))
    config.data.dir = "~nobody_of_that_name/data"
    with pytest.raises(ValueError, match=r"config\.data\.dir: no home folder ~nobody_of_that_name"):
        shared_flags.config_of(config)
    assert shared_flags.config_of(common.get_config()).data.dir is None


def test_a_config_file_below_the_home_folder(home):
    (home / "my.py").write_text("")
    assert shell.find_config(["--config=~/my.py:a"]) == [f"--config={home / 'my.py'}:a"]
    assert shell.find_config(["--config", "~/my.py"]) == ["--config", str(home / "my.py")]


def test_a_verb_takes_them(home):
    """The whole way: report of a run below ~, and prepare."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(ROOT / ".cache" / "matplotlib")}

    def told(*command):
        done = subprocess.run(
            [sys.executable, "-P", "-m", *command], capture_output=True, text=True, env=environment, check=False
        )
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr

    assert f"There is no folder {home}/gone" in told("acrn_jax.cli.report", "--workdir=~/gone/")
    prepare = ("acrn_jax.data_prep.prepare", "--dataset=market1501", "--data_dir=new")
    assert f"{home}/gone" in told(*prepare, "--raw_dir=~/gone")
    assert sorted(os.listdir(home)) == ["file", "folder"]
