"""launch.sh with a uv and Pythons that only write down how they are called: no package is installed here."""

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[1]
VERBS = """
    demo test prepare train adapt extract evaluate calibrate reproduce export ablate ledger report search describe
    models bench
""".split()
TOOLS = "bash cat cp dirname env flock ls mkdir mv readlink rm sed sha256sum shasum sleep sort".split()

PYTHON = """#!/usr/bin/env bash
case "$1 $2 $3" in
  -c*) exit ;;
  "-m venv"*) mkdir -p "$3/bin" && cp "$FAKES/python" "$3/bin" && exit ;;
  "-m pip install") cp "$FAKES/uv" "${0%/*}" && exit ;;
esac
printf '%s\\n' "$PWD" "$PYTHONPATH" "$@"
exit ${PYTHON_EXIT:-0}
"""

UV = """#!/usr/bin/env bash
echo "$*" >>"$FAKES/uv.log"
case $1 in
  venv) "$FAKES/python" -m venv "${@: -1}" ;;
  pip) sleep ${UV_SLEEP:-0} ;;
esac
[[ $1 != "${UV_FAILS:-}" ]]
"""


def write_program(path: pathlib.Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Place:
    """A copy of the front door in a folder with spaces, and a machine with nothing but TOOLS, uv and one Python."""

    def __init__(self, base: pathlib.Path):
        names = ("a repo", "bin", "fakes", "home", "some where")
        self.root, self.bin, self.fakes, self.home, self.here = (base / name for name in names)
        self.venv = self.root / ".venv"
        for folder in (self.root / "tests", self.bin, self.home, self.here):
            folder.mkdir(parents=True)
        for name in ("launch.sh", "pyproject.toml", "constraints.txt"):
            shutil.copy(ROOT / name, self.root)
        for tool in filter(shutil.which, TOOLS):
            (self.bin / tool).symlink_to(shutil.which(tool))
        for folder, uv, python in ((self.bin, "uv", "python3.12"), (self.fakes, "uv", "python")):
            write_program(folder / uv, UV)
            write_program(folder / python, PYTHON)

    def command(self, *arguments, program=None, **env):
        env = {"PATH": str(self.bin), "HOME": str(self.home), "FAKES": str(self.fakes)} | env
        return {"args": [program or self.root / "launch.sh", *arguments], "cwd": self.here, "env": env, "text": True}

    def launch(self, *arguments, **env):
        return subprocess.run(**self.command(*arguments, **env), capture_output=True)

    def uv_calls(self, first: str):
        return [call for call in (self.fakes / "uv.log").read_text().splitlines() if call.startswith(first)]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage_names_every_verb(place, arguments):
    done = place.launch(*arguments)
    assert done.returncode == 0
    assert not [verb for verb in VERBS if verb not in done.stdout]
    assert not place.venv.exists()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("tset", "test"),
        ("eval", "evaluate"),
        ("prepar", "prepare"),
        ("trian", "train"),
        ("benhc", "bench"),
        ("e x", ""),
    ],
)
def test_unknown_verb_names_the_nearest(place, typed, meant):
    done = place.launch(typed)
    assert done.returncode == 2
    assert f"'{typed}'; did you mean '{meant}" in done.stderr
    assert not place.venv.exists()


@pytest.mark.parametrize("verb", [*VERBS, "python", "--version"])
def test_a_verb_goes_to_the_command_in_the_callers_folder(place, verb):
    """Which does the rest, and is what `acrn` is: tests/cli/test_main.py."""
    done = place.launch(verb, "--workdir=my runs/1", "--config", "c.py", PYTHONPATH="/mine")
    expected = [str(place.here), f"{place.root}:/mine", "-P", "-m", "acrn_jax", verb]
    assert done.stdout.splitlines() == [*expected, "--workdir=my runs/1", "--config", "c.py"]
    assert place.launch(verb, PYTHON_EXIT="7").returncode == 7


def test_a_link_to_the_front_door_serves(place):
    (place.here / "acrn").symlink_to("../a repo/launch.sh")
    done = subprocess.run(**place.command("demo", program="./acrn"), capture_output=True)
    assert done.stdout.splitlines()[:2] == [str(place.here), str(place.root)]


def test_environment_is_made_once_and_renewed_when_its_requirements_change(place):
    assert "making the environment" in place.launch("demo").stderr
    (install,) = place.uv_calls("pip install")
    assert (
        f"--python {place.venv}/bin/python --requirements pyproject.toml --extra test --extra docs --constraints"
        in install
    )
    assert place.launch("demo").stderr == ""
    assert len(place.uv_calls("pip install")) == 1

    with open(place.root / "constraints.txt", "a") as file:
        file.write("# changed\n")
    assert "updating" in place.launch("demo").stderr
    assert place.launch("demo").stderr == ""
    assert (len(place.uv_calls("venv")), len(place.uv_calls("pip install"))) == (1, 2)

    for wish in ({"ACRN_ACCELERATOR": "tpu"}, {"ACRN_PYTHON": str(place.bin / "python3.12")}):
        before = len(place.uv_calls("venv"))
        (place.venv / "left over").touch()
        assert place.launch("demo", **wish).returncode == 0
        assert place.launch("demo", **wish).stderr == ""
        assert len(place.uv_calls("venv")) == before + (not (place.venv / "left over").exists())
    assert "--extra tpu" in place.uv_calls("pip install")[2]


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_a_broken_installation_is_not_taken_for_ready(place, step):
    done = place.launch("demo", UV_FAILS=step)
    assert (done.returncode, done.stdout) == (2, "")
    assert "could not" in done.stderr
    (place.venv / "half a package").touch()
    assert place.launch("demo").returncode == 0
    assert not (place.venv / "half a package").exists()
    assert len(place.uv_calls(step)) == 2


def test_two_first_launches_at_once_install_once(place):
    if not shutil.which("flock"):
        pytest.skip("launches are kept apart by flock, which is not here")
    both = [subprocess.Popen(**place.command("demo", UV_SLEEP="0.5"), stdout=subprocess.PIPE) for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    assert outputs[0] == outputs[1] != ""
    assert len(place.uv_calls("pip install")) == 1


def test_a_folder_that_is_not_ours_stays_as_it_is(place):
    (place.here / "letters").mkdir()
    (place.here / "letters" / "one").touch()
    done = place.launch("demo", ACRN_VENV="letters")
    assert done.returncode == 2
    assert str(place.here / "letters") in done.stderr
    assert [path.name for path in (place.here / "letters").iterdir()] == ["one"]
    assert place.launch("demo", ACRN_VENV="new/env/").returncode == 0
    assert (place.here / "new" / "env" / "bin" / "python").exists()
    assert not place.venv.exists()


@pytest.mark.parametrize(
    ("driver", "capability", "extra"),
    [
        ("580.65.06", "9.0", "cuda13"),
        ("580.65.06", "7.0", "cuda12"),
        ("535.104", "8.6", "cuda12"),
        ("470.1", "8.6", None),
    ],
)
def test_accelerator_follows_the_driver(place, driver, capability, extra):
    write_program(
        place.bin / "nvidia-smi",
        f'#!/usr/bin/env bash\n[[ $1 == *driver_version ]] && echo {driver} || printf "12.0\\n{capability}\\n"\n',
    )
    assert place.launch("demo").returncode == 0
    (install,) = place.uv_calls("pip install")
    assert f"--extra test --extra docs{f' --extra {extra}' if extra else ''} --constraints" in install


def test_wrong_wishes_get_a_sentence(place):
    for wish, told in [
        ({"ACRN_ACCELERATOR": "gpu"}, "cpu, cuda12, cuda13 or tpu"),
        ({"ACRN_PYTHON": "no-such-python"}, "3.11 or newer"),
    ]:
        done = place.launch("demo", **wish)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert told in done.stderr
    (place.bin / "uv").unlink()
    (place.bin / "python3.12").unlink()
    done = place.launch("demo")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "found no Python" in done.stderr


def test_a_name_on_the_path_that_does_not_run_is_passed_over(place):
    shim = "#!/usr/bin/env bash\necho 'command not found' >&2\nexit 127\n"
    for name in ("python3.13", "python3.12", "python3", "uv"):
        write_program(place.bin / name, shim)
    working = place.home / ".pyenv" / "versions" / "3.12.1" / "bin" / "python3"
    write_program(working, PYTHON)
    done = place.launch("demo")
    assert f"with {working}, jax" in done.stderr
    assert "acrn_jax\ndemo" in done.stdout
    assert (place.venv / "bin" / "uv").exists()  # brought by pip, for the one on the PATH does not run either
    assert len(place.uv_calls("pip install")) == 1


def test_packages_are_compiled_where_python_may_not_do_it_later(place):
    place.launch("demo", PYTHONDONTWRITEBYTECODE="1")
    (install,) = place.uv_calls("pip install")
    assert "--extra test --extra docs --compile-bytecode --constraints" in install
