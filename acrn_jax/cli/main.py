"""The command `acrn`, which launch.sh calls too: VERB [flags] -> a new program, in the environment that all verbs want.

The environment is decided here alone. It must be there before a process starts, as the C library reads its part then,
so this process turns into the verb's (exec) in place of importing it.
"""

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from acrn_jax import CHECKOUT, COMMAND, __version__

VERBS = {  # as in launch.sh, which must know them before there is a Python
    "demo": "the whole method on built-in people: prints the table of methods, writes report.html",
    "prepare": "turns raw images into a prepared data set, or looks at them with --check",
    "reproduce": "trains all phases of a config, evaluates them and writes the report",
    "train": "trains one phase of a config",
    "adapt": "measures an attribute net's batch statistics anew on unlabelled images of a target",
    "extract": "writes the features of a trained run",
    "evaluate": "ranks gallery against query and writes results.json; or scores anyone's features",
    "calibrate": "fits and judges the probability that two pictures show one person, on people of your choice",
    "ablate": "trains the arms of a study, or scores settings of finished runs, and compares them",
    "ledger": "sets attributes' weights beside all that they might follow, with error bars",
    "report": "writes report.html from the result files of a run",
    "search": "finds the pictures of a folder that look most alike, by image, by attributes or both",
    "describe": "says which attributes pictures show: yes, no or unknown, with probabilities",
    "models": "lists the nets that are known by name, with sizes, scores and whether they are whole",
    "export": "writes a trained run as a bundle for other programs, or as a net that is known by name",
    "bench": "measures speed and memory as ratios; --list names the benchmarks",
    "test": "runs the tests; its arguments go to pytest",
    "python": "runs the environment's Python, e.g. on a script of yours that imports acrn_jax",
}
OF_CHECKOUT = ("bench", "test")  # what they run is not in the installed package
MODULES = {"prepare": "acrn_jax.data_prep.prepare", "bench": "benchmarks", "test": "pytest"}  # else acrn_jax.cli.VERB

USAGE = """usage: {command} VERB [flags]

{verbs}

{command} VERB --help lists the flags of a verb and the keys of its config, --help=TEXT searches them; with --debug an
error shows its traceback. {command} --version names the code. What a page shows as ./launch.sh VERB is acrn VERB where
acrn_jax is installed."""


def main() -> None:
    """Becomes the program of the verb on the command line; leaves with a sentence and exit code 2 if there is none."""
    verb, *arguments = sys.argv[1:] or ["help"]
    if verb in ("help", "-h", "-help", "--help"):
        verbs = [f"  {name:10} {text}" for name, text in VERBS.items() if CHECKOUT or name not in OF_CHECKOUT]
        print(USAGE.format(command=COMMAND, verbs="\n".join(verbs)))
        sys.exit()
    if verb == "--version":
        from acrn_jax import provenance  # here, as no verb need wait for it

        print(f"acrn_jax {__version__}, {provenance.commit()}")
        sys.exit()
    if verb not in VERBS:
        import difflib

        near = next((name for name in VERBS if verb and name.startswith(verb)), None)
        near = near or difflib.get_close_matches(verb, VERBS, n=1, cutoff=0)[0]
        _leave(f"there is no verb {verb!r}; did you mean {near!r}? {COMMAND} --help lists them all.")
    if verb in OF_CHECKOUT and not CHECKOUT:
        _leave(f"{verb} needs files that are not installed; clone the repository of acrn_jax, then ./launch.sh {verb}.")
    os.environ.update(environment(os.environ))
    os.execv(sys.executable, [sys.executable, "-P", *program(verb, arguments)])


def program(verb: str, arguments: Sequence[str]) -> list[str]:
    """Arguments of the Python that does what a verb says; the tests want to run in the checkout's folder."""
    if verb == "python":
        return [*arguments]
    if verb == "test" and CHECKOUT:  # a path counts from the caller's folder, or else from the checkout
        arguments = [os.path.abspath(a) if _is_path(a) else a for a in arguments]
        os.chdir(CHECKOUT)
    return ["-m", MODULES.get(verb, f"acrn_jax.cli.{verb}"), *arguments]


def _is_path(argument: str) -> bool:
    return not argument.startswith("-") and os.path.exists(argument.partition("::")[0])


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that verbs want beside those given, which stay as they are."""
    wanted = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    # glibc gives large buffers back to the system after each step and takes them anew, a fifth of a training step on
    # CPUs.
    wanted |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1"}
    wanted |= {"MALLOC_TRIM_THRESHOLD_": "8589934592", "MALLOC_TOP_PAD_": "268435456"}
    wanted["GLIBC_TUNABLES"] = "glibc.malloc.hugetlb=1"  # large pages, a twentieth of a step; older glibc ignores it
    if not any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu")):  # jax has the CPU alone
        wanted["XLA_FLAGS"] = "--xla_backend_optimization_level=1"  # compiles in 3/4 of the time, runs as fast
    if cache := _cache(given):
        wanted["JAX_COMPILATION_CACHE_DIR"] = cache
    found = {name: value for name, value in wanted.items() if not given.get(name)}
    paths = [path for path in given.get("PYTHONPATH", "").split(os.pathsep) if path]
    if CHECKOUT and CHECKOUT not in paths:
        found["PYTHONPATH"] = os.pathsep.join([CHECKOUT, *paths])
    return found


def _cache(given: Mapping[str, str]) -> str | None:
    """The folder where programs compiled once serve the next run, if it can be written."""
    home = given.get("HOME") or CHECKOUT
    above = given.get("XDG_CACHE_HOME") or (home and f"{home}/.cache")
    if not above:
        return None
    folder = os.path.join(above, "acrn_jax", "jax")
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _leave(sentence: str) -> None:
    print(f"acrn_jax: {sentence}", file=sys.stderr)
    sys.exit(2)
