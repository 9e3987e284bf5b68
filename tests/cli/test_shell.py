import os
import pathlib
import signal
import subprocess
import sys

import pytest

from acrn_jax.cli import shell

ROOT = pathlib.Path(__file__).parents[2]

VERB = """
import os, signal, sys
from absl import flags, logging
from ml_collections import config_flags
from acrn_jax.cli import shell

CONFIG = config_flags.DEFINE_config_file("config", None, "Settings.")
DO = flags.DEFINE_string("do", "", "What to do.")
flags.register_validator("do", lambda text: text != "nothing", message="do something")

def main(argv):
    exec(DO.value)
    print(CONFIG.value and CONFIG.value.to_dict())

shell.run(main)
"""

CONFIG = """
from ml_collections import config_dict

def get_config(mode="a"):
    if mode not in ("a", "b"):
        raise ValueError(f"Unknown mode {mode!r}; write ':a' or ':b'.")
    config = config_dict.ConfigDict({"seed": 0, "mode": mode, "loss": {"gamma": 0.5}}).lock()
    config.update_from_flattened_dict({"loss.gama": 1.0} if mode == "b" else {})
    return config
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("with space")
    (folder / "verb.py").write_text(VERB)
    (folder / "config.py").write_text(CONFIG)
    return folder


def call(folder, *arguments):
    """Exit code, stdout and stderr of the verb, run where its config lies."""
    command = [sys.executable, "-P", "verb.py", *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    return done.returncode, done.stdout.strip(), done.stderr.strip()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--do=raise ValueError('three\\n words  here')"], ["three words here"]),
        (["--do=raise ValueError"], ["ValueError"]),
        (["--do=open('no/such/file')"], ["No such file or directory: no/such/file"]),
        (["--do=raise FileNotFoundError('no folder x; make it')"], ["no folder x; make it"]),
        (["--do=nothing"], ["--do=nothing", "do something"]),
        (["--confg=x"], ["'confg'", "config"]),
        (["stray"], ["'stray'"]),
        (["--config"], ["--config"]),
        (["--config=config.py", "--config.loss.gama=1"], ["'gama'", "--config.loss.gama=1", "'gamma'"]),
        (["--config=config.py", "--config.los.gamma=1"], ["'los'", "--config.los.gamma=1", "'loss'"]),
        (["--config=config.py", "--config.zzz=1"], ["'zzz'", "configs/common.py"]),
        (["--config=config.py", "--config.loss.gamma=much"], ["--config.loss.gamma=much"]),
        (["--config=config.py:z"], ["Unknown mode 'z'; write ':a' or ':b'."]),
        (["--config=config.py:b"], ["'gama'", "the config file", "'gamma'"]),
        (["--config=no.py"], ["'no.py'", "configs/"]),
        (["--config", "configs/demoo.py"], ["'configs/demoo.py'", "did you mean configs/demo.py?"]),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(folder, arguments, told):
    code, out, err = call(folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 0), err
    assert err.startswith("acrn_jax: ")
    assert all(part in err for part in told), err


def test_ctrl_c_says_how_to_go_on(folder):
    # Python's own handler, which a run in the background of a shell does not get.
    kill = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)"
    code, _, err = call(folder, f"--do={kill}")
    assert (code, err) == (130, "acrn_jax: stopped; run the same command again to continue.")
    assert code == signal.SIGINT + 128


@pytest.mark.parametrize(
    "arguments",
    [
        ["--do=raise KeyError('a bug')"],
        ["--do=raise ValueError('wrong')", "--debug"],
        ["--config=config.py:z", "--debug"],
        ["--config=no.py", "--debug"],
    ],
)
def test_bugs_and_debug_show_the_traceback(folder, arguments):
    code, _, err = call(folder, *arguments)
    assert code == 1
    assert "Traceback" in err


def test_exit_codes_pass(folder):
    assert call(folder, "--do=sys.exit(5)")[0] == 5
    assert call(folder, "--do=pass") == (0, "None", "")


def test_config_of_the_callers_folder_goes_before_that_of_the_repository(folder):
    assert call(folder, "--config", "config.py:a", "--config.seed=3")[1] == str(
        {"loss": {"gamma": 0.5}, "mode": "a", "seed": 3}
    )
    (folder / "configs").mkdir(exist_ok=True)
    (folder / "configs" / "demo.py").write_text(CONFIG.replace('"seed": 0', '"seed": 77'))
    assert "77" in call(folder, "--config=configs/demo.py")[1]


def test_config_is_found_in_the_repository_from_anywhere(tmp_path, folder):
    (tmp_path / "verb.py").write_text(VERB)
    code, out, err = call(tmp_path, "--config=configs/common.py", "--config.seed=12345")
    assert (code, err) == (0, "")
    assert "12345" in out


def test_libraries_keep_their_info_lines_to_themselves(folder):
    log = "--do=logging.info('of no interest'); logging.warning('of interest')"
    assert "of no interest" not in call(folder, log)[2]
    assert "of interest" in call(folder, log)[2]
    assert "of no interest" in call(folder, log, "--verbosity=0")[2]


def test_a_key_that_is_a_word_of_python_can_be_set():
    asked = ["--config=a.py", "--config.attributes.from=a.from.b", "-config.data.dir=from", "--workdir=config.from"]
    wanted = ["--config=a.py", "--config.attributes['from']=a.from.b", "-config.data.dir=from", "--workdir=config.from"]
    assert shell.quote_keywords(asked) == wanted
