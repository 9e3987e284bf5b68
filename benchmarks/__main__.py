"""./launch.sh bench [NAME [flags]]: runs one benchmark; without a name, those that measure speed, one after the other.

Each is a script of its own beside this file, prints its claim as a ratio measured in that run, and lists its flags with
--help.
"""

import ast
import difflib
import importlib.util
import os
import pathlib
import platform
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
SPEED = ("train", "input", "batch_hard", "ranking", "rerank", "export", "startup")
NEEDS = {"export": "onnxruntime"}  # left out of a run of all where that is not installed


def names() -> dict[str, str]:
    """Name of each benchmark and the first sentence of what it says of itself."""
    scripts = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("_"))
    about = {path.stem: ast.get_docstring(ast.parse(path.read_text())) or "" for path in scripts}
    return {name: text.split("\n")[0].split(": ./launch")[0].rstrip(".") for name, text in about.items()}


def main(arguments: list[str]) -> int:
    """Exit code of the first that fails."""
    known = names()
    if arguments and arguments[0] in ("-h", "--help", "--list"):
        print(__doc__)
        for name, text in known.items():
            print(f"  {name:20}{text}{' (by default)' if name in SPEED else ''}")
        return 0
    if arguments and arguments[0] not in known:
        near = difflib.get_close_matches(arguments[0], known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
        print(f"acrn_jax: no benchmark {arguments[0]!r}; {hint}", file=sys.stderr)
        return 2
    print(f"{platform.machine()}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}", flush=True)
    for name in arguments[:1] or SPEED:
        print(f"\n== {name}: {known[name]}", flush=True)
        if not arguments and name in NEEDS and not importlib.util.find_spec(NEEDS[name]):
            print(f"left out, as {NEEDS[name]} is not installed")
            continue
        code = subprocess.run(
            [sys.executable, "-P", "-m", f"benchmarks.{name}", *arguments[1:]], check=False
        ).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
