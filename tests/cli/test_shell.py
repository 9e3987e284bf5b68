import os
import pathlib
import signal
import subprocess
import sys

import pytest

from acrn_jax import settings
from acrn_jax.cli import cards, manual, shared_flags, shell
from acrn_jax.configs import common

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
        (["--config=config.py", "--config.zzz=1"], ["'zzz'", "--help=TEXT"]),
        (["--config=config.py", "--config.loss.gamma=much"], ["--config.loss.gamma=much: a number is wanted."]),
        (["--config=config.py", "--config.seed=one"], ["--config.seed=one: a whole number is wanted."]),
        (["--config=config.py", "--config.loss=acrn"], ["--config.loss=acrn: this is a group of keys; give one"]),
        (["--debug=maybe"], ["--debug=maybe: True or False is wanted."]),
        (["--config=config.py:z"], ["Unknown mode 'z'; write ':a' or ':b'."]),
        (["--config=config.py:b"], ["'gama'", "the config file", "'gamma'"]),
        (["--config=no.py"], ["'no.py'", "name a file, or one of acrn_cuhk01,", "demo, mva_market1501, mva_peta"]),
        (["--config=demoo:acrn"], ["no config 'demoo'; did you mean demo?"]),
        (["--config=small"], ["no config 'small'; name a file, or one of"]),  # a part of others, without get_config
        (["--config=demo:z"], ["Unknown part 'z'"]),
        (["--config", "configs/demoo.py"], ["'configs/demoo.py'", "did you mean configs/demo.py?"]),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(folder, arguments, told):
    code, out, err = call(folder, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 0), err
    assert err.startswith("acrn_jax: ")
    assert all(part in err for part in told), err


def test_sigterm_leaves_with_a_code_of_its_own(folder):
    """Neither 0, which && and afterok take for finished, nor that of a failure: the same command would go on."""
    code, _, err = call(folder, "--do=os.kill(os.getpid(), signal.SIGTERM)")
    assert (code, err) == (75, "acrn_jax: stopped by SIGTERM; run the same command again to continue.")
    assert code == os.EX_TEMPFAIL


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
    for name in ("configs/common.py", "./configs/common.py", "common", "common.py"):
        code, out, err = call(tmp_path, f"--config={name}", "--config.seed=12345")
        assert (code, err) == (0, "")
        assert "12345" in out
    assert "'config': 'source_0'" in call(tmp_path, "--config", "demo:attributes")[1]
    assert "'config': 'target_0'" in call(tmp_path, "--config=demo")[1]
    (tmp_path / "demo").mkdir()  # of ./launch.sh demo, and no config
    assert "'config': 'target_0'" in call(tmp_path, "--config=demo")[1]


def test_help_lists_flags_and_keys_and_can_be_searched(folder):
    code, out, err = call(folder, "--help")
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert any(line.startswith("--do=...") and line.endswith("What to do. Default: ''.") for line in lines)
    assert any(line.startswith("--debug ") for line in lines)
    assert "--config.loss.gamma=0.5" in [line.split("  ")[0] for line in lines]
    (rate,) = [line for line in lines if line.startswith("--config.mva.trunk.rate=")]
    assert rate.startswith("--config.mva.trunk.rate=0.001  ") and rate.endswith("0 freezes the group")
    for asked in (["--help=WARMUP"], ["-help", "warmup"], ["-h", "warmup"]):
        code, out, err = call(folder, *asked)
        assert (code, err) == (0, "")
        assert out.splitlines() and all("warmup" in line and "--config." in line for line in out.splitlines())
    assert "has 'zzz' in its name" in call(folder, "--help=zzz")[1]
    own = call(folder, "--config=config.py", "--config.seed=3", "--help")[1]
    assert "--config.seed=3" in own and "--config.mode=a" in own and "--config.reid" not in own
    code, out, err = call(folder, "--helpfull")
    assert (code, err) == (0, "") and "--[no]logtostderr" in out


def test_every_key_has_a_comment_that_help_finds():
    """The comments are had from the source: each line of configs/common.py with one must give it to its key."""
    from acrn_jax.configs import common

    source = (ROOT / "configs" / "common.py").read_text()
    found = manual.comments(source)
    flat = dict(manual._flat(common.get_config().to_dict()))
    assert set(found) <= set(flat)
    assert found["attributes.from"] == "workdir of a trained attribute net"
    assert found["phases"].startswith('("mva",) for an attribute net')
    assert found["init_from"].endswith("torchvision's .pth or .safetensors, TF-slim's as .npz")
    assert found["reid.attribute_weights.kind"] == "sgd | adam | adamw"
    behind = [line.split("  # ")[1] for line in source.splitlines() if "  # " in line and line.strip()[0] != "#"]
    assert all(any(comment in said for said in found.values()) for comment in behind)


def test_an_attribute_net_that_is_not_there_is_refused_before_any_work(tmp_path):
    """Even where the study would not need it: what is named is meant."""
    command = [sys.executable, "-m", "acrn_jax.cli.ablate", "--study=distance", "--config=configs/demo.py"]
    command += ["--config.loss.kind=classic", f"--data_dir={tmp_path}", f"--workdir={tmp_path}/w", "--attributes=gone"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "gone holds no finished attribute net" in done.stderr, done.stderr
    assert not (tmp_path / "w").exists()


def test_reproduce_counts_from_the_configs_seed_and_evaluates_as_told(tmp_path):
    """With a stand-in for the work: each seed has its folder, its config and the settings of evaluation."""
    code = """
import runpy, types
from acrn_jax import runs
from acrn_jax.report import html, tables
tables.methods_table, html.write, html.read = str, lambda *_: ".", lambda _: types.SimpleNamespace(results="")
def reproduce(config, *, attributes, workdir, **_):
    print(workdir.name, config.seed, config.evaluate.no_match, config.evaluate.draws, attributes)
    return {"dataset": "d", "protocol": "p", "methods": {}}
runs.reproduce = reproduce
runpy.run_module("acrn_jax.cli.reproduce", run_name="__main__", alter_sys=True)
"""
    command = [sys.executable, "-c", code, "--config=configs/demo.py", f"--workdir={tmp_path}", "--seeds=2"]
    command += ["--config.seed=5", "--config.loss.kind=classic", "--no_match=skip", "--draws=3"]  # needs no net
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines()[:4:2] == ["seed_5 5 skip 3 None", "seed_6 6 skip 3 None"], done.stderr


def test_one_attribute_net_is_named(tmp_path):
    config = settings.read(common.get_config()).changed({"attributes.from": f"{tmp_path}/../{tmp_path.name}"})
    assert shared_flags.attribute_net(None, config) == pathlib.Path(config.attributes.from_)
    assert shared_flags.attribute_net(str(tmp_path), config) == tmp_path  # the same folder
    with pytest.raises(ValueError, match=r"--attributes=M and --config.attributes.from=.* name two nets"):
        shared_flags.attribute_net("M", config)
    assert shared_flags.attribute_net(None, config.changed({"attributes.from": None})) is None


@pytest.mark.parametrize("verb", ["train", "prepare", "report", "bench"])
def test_verbs_help_is_no_failure(verb):
    module = {"prepare": "acrn_jax.data_prep.prepare", "bench": "benchmarks"}.get(verb, f"acrn_jax.cli.{verb}")
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) > 5


def test_help_of_prepare_can_be_searched():
    def found(text):
        command = [sys.executable, "-m", "acrn_jax.data_prep.prepare", f"--help={text}"]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    assert [line.split()[0] for line in found("Partial").splitlines()] == ["--allow_partial"]
    assert found("zzz") == "No flag of prepare has 'zzz' in its name or description; --help lists all.\n"


@pytest.mark.parametrize("values", ["-1", "0,nan", "inf"])
def test_wrong_values_of_a_study_on_finished_runs(values):
    command = [sys.executable, "-m", "acrn_jax.cli.ablate", "--study=gamma", "--on=nowhere", f"--values={values}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    told = f"acrn_jax: --values has {values.split(',')[-1]}; give numbers of at least 0.\n"
    assert (done.returncode, done.stderr) == (2, told)


def test_a_card_that_jax_does_not_use_is_told_loudly(tmp_path, monkeypatch, capsys):
    """With a stand-in for the driver's tool; jax has the CPU alone here."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA A100 (UUID: GPU-1)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "ACRN_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)

    def told():
        cards.warn_of_idle_card()
        return capsys.readouterr().err

    assert "WARNING: this machine shows a graphics card (GPU 0: NVIDIA A100), but jax computes on the CPU" in (
        said := told()
    )
    assert "ACRN_ACCELERATOR=cuda12" in said and "docs/clusters.md" in said
    for name, value in (("JAX_PLATFORMS", "cpu"), ("CUDA_VISIBLE_DEVICES", ""), ("ACRN_ACCELERATOR", "cpu")):
        with monkeypatch.context() as asked:
            asked.setenv(name, value)
            assert told() == ""
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert told() == ""
    monkeypatch.undo()
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES", "ACRN_ACCELERATOR"):
        monkeypatch.delenv(name, raising=False)
    tool.write_text("#!/bin/sh\nexit 9\n")  # a driver without a card
    assert told() == ""


@pytest.mark.parametrize("error", [AssertionError(), RuntimeError("no such plugin")])
def test_a_platform_that_jax_does_not_have_is_refused_with_the_remedy(monkeypatch, error):
    def fails():
        raise error

    monkeypatch.setattr("jax.default_backend", fails)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ValueError, match=r"cannot compute on JAX_PLATFORMS=cuda.*ACCELERATOR=cuda12"):
        cards.warn_of_idle_card()
    monkeypatch.delenv("JAX_PLATFORMS")
    with pytest.raises(type(error)):  # a bug, or a driver that fails
        cards.backend()


def test_libraries_keep_their_info_lines_to_themselves(folder):
    log = "--do=logging.info('of no interest'); logging.warning('of interest')"
    assert "of no interest" not in call(folder, log)[2]
    assert "of interest" in call(folder, log)[2]
    assert "of no interest" in call(folder, log, "--verbosity=0")[2]


def test_a_key_that_is_a_word_of_python_can_be_set():
    asked = ["--config=a.py", "--config.attributes.from=a.from.b", "-config.data.dir=from", "--workdir=config.from"]
    wanted = ["--config=a.py", "--config.attributes['from']=a.from.b", "-config.data.dir=from", "--workdir=config.from"]
    assert shell.quote_keywords(asked) == wanted
