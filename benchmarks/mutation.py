"""Mutation testing: breaks the program in one place at a time and sees whether the tests of that module notice.

./launch.sh bench mutation [--number=300] [--seed=0] [--modules=losses,train] [--out=FOLDER] [--show] [--list]

Draws places from the modules in proportion to their size, never two on one line before every line had its turn: a
comparison, operator or constant changed, a `not`, a term or a keyword left out, a minimum for a maximum, another axis.
A mutant's tests are the file that mirrors its own (tests/losses/test_triplet.py for acrn_jax/losses/triplet.py) and
what TESTS adds; with --again, which takes the survivors anew, all of that folder that run the broken line. The first
failure kills it, and so does --limit. No file is touched: each mutant is a fork of one process that has imported the
libraries, in which the broken module is compiled from memory. Results are lines of FOLDER/results.jsonl; the same
command goes on after a kill. --old and --new break a line of one's own choice:

./launch.sh bench mutation --file=acrn_jax/models/inception.py --old="x + self.scale" --new="self.scale"

What survives either changes no result (listed with the reason in benchmarks/equivalent.json) or wants a test.
"""

import ast
import collections
import copy
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import math
import os
import pathlib
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import app, flags

ROOT = pathlib.Path(__file__).parents[1]
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent.json")  # key -> why no result changes
# The last: files right in acrn_jax.
MODULES = ("losses", "models", "train", "data", "evaluation", "runs", "studies", "")
TOP = ("build.py", "rules.py", "settings.py")
TESTS = {  # of those that are not tested by the file of their name, or not by that alone
    "losses/attribute": "losses/test_attribute",
    "models/acrn": "models/test_nets",
    "models/inception": "models/test_nets models/test_pretrained",
    "models/initialize": "models/test_nets",
    "models/mva": "models/test_nets",
    "models/torch_file": "models/test_pretrained",
    "train/checkpoint": "train/test_loop",
    "train/journal": "train/test_loop",
    "train/logs": "train/test_loop",
    "train/state": "train/test_step",
    "evaluation/embed": "test_chain",
    "build": "test_configs test_chain test_rules",
    "settings": "test_rules test_configs",
    "runs": "test_runs test_chain test_configs test_rules test_beside",  # those without an entry of their own
    "runs/bundles": "export/test_bundle export/test_bundles",
    "runs/extraction": "test_extraction",
    "runs/phases": "test_phases",
    "runs/search": "test_search",
    "runs/search_table": "test_search",
    "studies/finished": "studies/test_sweeps",
    "studies/job": "studies/test_scheduler studies/test_ablate",
    "studies/table": "studies/test_table studies/test_ablate",
    "studies/weight_training": "studies/test_sweeps",
}
_NUMBER = flags.DEFINE_integer("number", 300, "How many mutants.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draw.")
_LIMIT = flags.DEFINE_integer("limit", 300, "Seconds that a mutant's tests may take.")
_MODULES = flags.DEFINE_list(
    "modules", [name or "top" for name in MODULES], "Of acrn_jax; top: build.py, settings.py and the like."
)
_OUT = flags.DEFINE_string("out", str(ROOT / ".cache" / "mutation"), "Folder of results.jsonl.")
_SHOW = flags.DEFINE_bool("show", False, "Print the table of what is there, and run nothing.")
_LIST = flags.DEFINE_bool("list", False, "Print what would be drawn, in its order, and run nothing.")
_AGAIN = flags.DEFINE_bool("again", False, "Run the survivors anew.")
_FILE = flags.DEFINE_string("file", None, "Source file to break by --old and --new.")
_OLD = flags.DEFINE_string("old", None, "Text that stands in --file once.")
_NEW = flags.DEFINE_string("new", None, "What takes its place.")

PRELOAD = (
    "jax jax.numpy flax.linen optax orbax.checkpoint grain.python tensorflow_datasets numba scipy.stats "
    "scipy.spatial.distance scipy.io h5py matplotlib.pyplot ml_collections PIL.Image simplejpeg safetensors.numpy "
    "jinja2 tensorboardX pytest jax.experimental.multihost_utils"
).split()

# The mutants

COMPARE = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATOR = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.LShift: ast.RShift,
}  # fmt: skip
NAMES = dict(
    pair
    for both in ("min max", "minimum maximum", "argmin argmax", "sum mean", "any all", "floor ceil", "zeros ones")
    for a, b in [both.split()]
    for pair in ((a, b), (b, a))
)
NAMES |= {"zeros_like": "ones_like", "ones_like": "zeros_like", "std": "var", "concatenate": "stack"}
THROUGH = {
    "sqrt",
    "rsqrt",
    "square",
    "exp",
    "log",
    "abs",
    "sorted",
    "unique",
    "stop_gradient",
    "clip",
    "softplus",
    "round",
}
UNSEEN = {  # keywords that no result depends on
    "strict", "flush", "name", "encoding", "exist_ok", "parents", "missing_ok", "indent", "allow_pickle", "end", "sep",
}  # fmt: skip


class Mutant(NamedTuple):
    """One broken place; the key names it whatever the line numbers are."""

    key: str
    file: str  # acrn_jax/losses/triplet.py
    lines: tuple[int, int]  # of the statement
    change: str  # "a + b -> a - b"
    build: Callable[[], ast.AST]  # the module's broken tree


def options(node: ast.AST) -> Iterator[ast.AST]:
    """What may stand in a node's place."""

    def other(**fields):
        new = copy.copy(node)
        for name, value in fields.items():
            setattr(new, name, value)
        return new

    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARE:
            yield other(ops=[COMPARE[type(op)]()])
        case ast.BinOp(op=op) if type(op) in OPERATOR:
            yield other(op=OPERATOR[type(op)]())
            yield node.left
            if isinstance(op, ast.Mult | ast.Add):
                yield node.right
        case ast.AugAssign(op=op) if type(op) in OPERATOR:
            yield other(op=OPERATOR[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.BoolOp(op=op):
            yield other(op=ast.And() if isinstance(op, ast.Or) else ast.Or())
        case ast.IfExp():
            yield node.body
            yield node.orelse
        case ast.If(test=test) | ast.While(test=test) if not isinstance(test, ast.Compare | ast.UnaryOp | ast.BoolOp):
            yield other(test=ast.UnaryOp(ast.Not(), test))
        case ast.Constant(value=bool() as value):
            yield other(value=not value)
        case ast.Constant(value=int() | float() as value):
            yield from (other(value=new) for new in ({value + 1, 2 * value} if value else {1}))
        case ast.Attribute(attr=name) if name in NAMES:
            yield other(attr=NAMES[name])
        case ast.Name(id=name) if name in ("min", "max", "any", "all"):
            yield other(id=NAMES[name])
        case ast.Call(func=func, args=args, keywords=keywords):
            called = getattr(func, "attr", getattr(func, "id", ""))
            if called in THROUGH and args:
                yield args[0]
            for place, keyword in enumerate(keywords):
                if keyword.arg == "axis" and isinstance(keyword.value, ast.Constant):
                    new = ast.keyword("axis", ast.Constant(0 if keyword.value.value else 1))
                    yield other(keywords=[*keywords[:place], new, *keywords[place + 1 :]])
                elif keyword.arg and keyword.arg not in UNSEEN:
                    yield other(keywords=keywords[:place] + keywords[place + 1 :])
        case ast.Slice(lower=lower, upper=upper):
            for name, end in (("lower", lower), ("upper", upper)):
                if end is not None and not isinstance(end, ast.Constant):
                    yield other(**{name: ast.BinOp(end, ast.Add(), ast.Constant(1))})
        case ast.Expr(value=ast.Call()):
            yield ast.Pass()


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, ast.stmt]]:
    """(node, qualified name of its function, statement) of all that may be broken; messages and types are left out."""

    def walk(node, scope, statement):
        if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert):
            return
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print":
            return
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Call)
            and getattr(node.value.func, "id", "") == "print"
        ):
            return
        if isinstance(node, ast.keyword) and node.arg in UNSEEN:
            return
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            scope = f"{scope}.{node.name}".lstrip(".")
        if isinstance(node, ast.stmt):
            statement = node
        yield node, scope, statement
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, scope, statement)

    for child in tree.body:
        yield from walk(child, "", child)


class Replace(ast.NodeTransformer):
    """Puts one node in another's place."""

    def __init__(self, old: ast.AST, new: ast.AST):
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """As NodeTransformer."""
        return ast.copy_location(self.new, node) if node is self.old else self.generic_visit(node)


def mutants(file: pathlib.Path) -> list[Mutant]:
    """All mutants of a source file, in its order."""
    source, name = file.read_text(), str(file.relative_to(ROOT))
    tree, seen, found = ast.parse(source), collections.Counter(), []
    for number, (node, scope, statement) in enumerate(places(tree)):
        head = statement.body[0].lineno - 1 if getattr(statement, "body", None) else statement.end_lineno
        for choice, new in enumerate(options(node)):
            change = " -> ".join(_short(part) for part in (node, new))
            seen[scope, change] += 1
            key = f"{name}:{scope}:{seen[scope, change]}: {change}"

            def build(number=number, choice=choice):
                again = ast.parse(source)
                old = next(place for i, (place, *_) in enumerate(places(again)) if i == number)
                replacement = next(option for i, option in enumerate(options(old)) if i == choice)
                return ast.fix_missing_locations(Replace(old, replacement).visit(again))

            first = getattr(node, "lineno", statement.lineno)
            found.append(Mutant(key, name, (min(first, statement.lineno), max(head, first)), change, build))
    return found


def _short(node: ast.AST) -> str:
    if isinstance(node, ast.If | ast.While):
        return f"if {ast.unparse(node.test)}"
    text = " ".join(ast.unparse(node).split())
    return text if len(text) < 90 else f"{text[:60]}...{hashlib.sha256(text.encode()).hexdigest()[:6]}...{text[-20:]}"


def draw(number: int, seed: int, modules: list[str]) -> list[Mutant]:
    """A share of each file by the number of its mutants; within a file line by line, then anew."""
    every = {file: mutants(file) for module in modules for file in sources(module)}
    total, chosen = sum(map(len, every.values())), []
    for file, found in every.items():
        rng, turns = random.Random(f"{seed} {file.relative_to(ROOT)}"), collections.Counter()
        rng.shuffle(found)
        order = []
        for mutant in found:
            order.append((turns[mutant.lines], len(order), mutant))
            turns[mutant.lines] += 1
        chosen += [mutant for *_, mutant in sorted(order)[: round(number * len(found) / total)]]
    random.Random(seed).shuffle(chosen)
    return chosen


def sources(module: str) -> list[pathlib.Path]:
    """Files of acrn_jax/`module`."""
    if module == "top":
        return [ROOT / "acrn_jax" / name for name in TOP]
    return [file for file in sorted((ROOT / "acrn_jax" / module).glob("*.py")) if file.stem != "__init__"]


def test_files(file: str, *, all_of_folder: bool) -> list[str]:
    """Test files of a source file, or of its whole folder."""
    place = pathlib.Path(file).relative_to("acrn_jax").with_suffix("")
    named = TESTS.get(str(place)) or TESTS.get(str(place.parent)) or str(place.with_name(f"test_{place.name}"))
    known = named.split()
    own = [f"tests/{name}.py" for name in known]
    folder = (ROOT / "tests" / place.parent).glob("test_*.py") if all_of_folder else ()
    rest = sorted({str(path.relative_to(ROOT)) for path in folder} - set(own))
    return [name for name in own + rest if (ROOT / name).is_file()]


# Running tests in forks


class Broken(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds one module, and compiles it from a tree."""

    def __init__(self, file: str, tree: ast.AST):
        super().__init__(file.removesuffix(".py").replace("/", "."), str(ROOT / file))
        self.tree = tree

    def find_spec(self, fullname, path=None, target=None):
        """As MetaPathFinder."""
        return importlib.util.spec_from_loader(self.name, self) if fullname == self.name else None

    def get_code(self, fullname):
        """As SourceLoader."""
        return compile(self.tree, self.path, "exec")


def in_fork(work: Callable[[], int], seconds: float, output: pathlib.Path) -> tuple[int | None, float]:
    """(exit code, None: time was up; seconds) of work in a child, which writes to `output`."""
    began = time.monotonic()
    child = os.fork()
    if not child:
        code = 70
        try:
            os.setsid()
            for number in (1, 2):
                os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            code = work()
        finally:
            sys.stdout.flush()
            os._exit(code)
    pause = 0.02
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() - began > seconds:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None, time.monotonic() - began
        time.sleep(pause)
        pause = min(1.5 * pause, 0.3)
    return os.waitstatus_to_exitcode(ended[1]), time.monotonic() - began


def run_tests(files: list[str], scratch: str, *more: str) -> int:
    """Exit code of pytest."""
    import pytest

    os.environ["NUMBA_CACHE_DIR"] = f"{scratch}/numba"  # its key would not see another constant
    quiet = ("-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-n0", "-o", "addopts=")
    quiet += ("-W", "ignore::pytest.PytestConfigWarning")  # cache_dir, which nobody knows without the plugin of caches
    choice = ("--import-mode=importlib", "-m", "not slow", f"--basetemp={scratch}/pytest")
    return int(pytest.main([*quiet, *choice, *more, *files]))


def lines_of(file: str, folder: pathlib.Path) -> dict:
    """{"seconds": of an undisturbed run, "lines": source file -> lines that a test file runs, "fail": [test]}."""
    kept = folder / "lines" / f"{file.replace('/', '.')}.json"
    if kept.exists():
        return json.loads(kept.read_text())
    kept.parent.mkdir(parents=True, exist_ok=True)
    prefix = f"{ROOT}/acrn_jax/"

    def work():
        seen = set()

        def note(code, line):
            if code.co_filename.startswith(prefix):
                seen.add((code.co_filename.removeprefix(f"{ROOT}/"), line))
            return sys.monitoring.DISABLE

        tool = sys.monitoring.COVERAGE_ID
        sys.monitoring.use_tool_id(tool, "mutation")
        sys.monitoring.register_callback(tool, sys.monitoring.events.LINE, note)
        sys.monitoring.set_events(tool, sys.monitoring.events.LINE)
        with tempfile.TemporaryDirectory() as scratch:
            began = time.process_time()
            code = run_tests([file], scratch)
            spent = time.process_time() - began
        sys.monitoring.set_events(tool, 0)
        of = collections.defaultdict(list)
        for name, line in sorted(seen):
            of[name].append(line)
        kept.write_text(json.dumps({"seconds": round(spent, 2), "lines": of}))
        return code

    code, _ = in_fork(work, 1800, folder / f"output.{os.getpid()}")
    said = (folder / f"output.{os.getpid()}").read_text(errors="replace")
    if code not in (0, 1):
        kept.unlink(missing_ok=True)
        raise SystemExit(f"{said[-3000:]}\n{file} cannot be run before anything is broken; mend that first.")
    found = json.loads(kept.read_text()) | {"fail": [line.split()[1] for line in said.splitlines() if _failed(line)]}
    kept.write_text(json.dumps(found))
    return found


def _failed(line: str) -> bool:
    return line.startswith(("FAILED tests/", "ERROR tests/"))


def judge(mutant: Mutant, folder: pathlib.Path) -> dict:
    """What the tests say about a mutant."""
    first, last = mutant.lines
    files = test_files(mutant.file, all_of_folder=_AGAIN.value)
    known = {file: lines_of(file, folder) for file in files}
    compiled = mutant.file.endswith("pixels.py")  # lines of compiled code are not seen
    ran = {file: of["lines"].get(mutant.file, ()) for file, of in known.items()}
    files = [file for file in files if any(first <= line <= last for line in ran[file]) or (compiled and ran[file])]
    files.sort(key=lambda file: known[file]["seconds"])
    about = {"key": mutant.key, "file": mutant.file, "line": first, "change": mutant.change}
    if not files:
        return about | {"result": "survived", "by": "no test runs the line", "seconds": 0.0}

    excluded = [f"--deselect={test}" for file in files for test in known[file]["fail"]]  # they fail as it is

    def work():
        sys.meta_path.insert(0, Broken(mutant.file, mutant.build()))
        if compiled:
            sys.modules["numba"].config.CACHE_DIR = f"{scratch}/numba"  # the usual one would not see another constant
        return run_tests(files, scratch, "-x", *excluded)

    limit = _LIMIT.value + 2 * sum(known[file]["seconds"] for file in files)
    with tempfile.TemporaryDirectory() as scratch:
        code, seconds = in_fork(work, limit, folder / f"output.{os.getpid()}")
    said = (folder / f"output.{os.getpid()}").read_text(errors="replace").splitlines()
    by = next((line for line in reversed(said) if _failed(line)), "")[:200]
    result = "killed" if code else ("timeout" if code is None else "survived")
    return about | {"result": result, "by": by or ", ".join(files)[:400], "seconds": round(seconds, 1)}


# What came out


def table(results: dict[str, dict]) -> str:
    """Killed, survived and equivalent mutants of each module."""
    equivalent = json.loads(EQUIVALENT.read_text())
    counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    for key, entry in results.items():
        module = (
            pathlib.Path(entry["file"]).parent.name if entry["file"].count("/") > 1 else entry["file"].split("/")[1]
        )
        what = "equivalent" if key in equivalent and entry["result"] == "survived" else entry["result"]
        for row in (module, "all"):
            counts[row][what] += 1
    lines = [f"{'':14}{'mutants':>8}{'killed':>8}{'equivalent':>12}{'survived':>10}{'killed of the rest':>20}"]
    for module in sorted(counts, key=lambda name: (name == "all", name)):
        of = counts[module]
        killed, total = of["killed"] + of["timeout"], sum(of.values())
        share = 100 * killed / max(total - of["equivalent"], 1)
        lines.append(f"{module:14}{total:8}{killed:8}{of['equivalent']:12}{of['survived']:10}{share:18.1f} %")
    for key, entry in sorted(results.items()):
        if entry["result"] == "survived" and key not in equivalent:
            lines.append(f"survived: {entry['file']}:{entry['line']} {key.split(':', 2)[2]}  [{entry['by'][:60]}]")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    del argv
    if _LIST.value:
        for mutant in draw(_NUMBER.value, _SEED.value, _MODULES.value):
            print(f"{mutant.file}:{mutant.lines[0]} {mutant.key.split(':', 2)[2]}")
        return
    folder = pathlib.Path(_OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "results.jsonl"
    entries = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    results = {entry["key"]: entry for entry in entries}  # the last word counts
    if _SHOW.value:
        print(table(results))
        return
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "jax")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    os.chdir(ROOT)
    for name in PRELOAD:
        importlib.import_module(name)
    if _FILE.value:
        source = (ROOT / _FILE.value).read_text()
        if source.count(_OLD.value) != 1:
            raise SystemExit(
                f"--old stands {source.count(_OLD.value)} times in {_FILE.value}; give a text that is there once."
            )
        first = source[: source.index(_OLD.value)].count("\n") + 1
        tree = lambda: ast.parse(source.replace(_OLD.value, _NEW.value))
        lines = (first, first + _OLD.value.count("\n"))
        print(judge(Mutant("by hand", _FILE.value, lines, f"{_OLD.value} -> {_NEW.value}", tree), folder))
        return
    if _AGAIN.value:
        survived = {key for key, entry in results.items() if entry["result"] == "survived"}
        every = [mutant for module in _MODULES.value for file in sources(module) for mutant in mutants(file)]
        left = [mutant for mutant in every if mutant.key in survived]
    else:
        left = [mutant for mutant in draw(_NUMBER.value, _SEED.value, _MODULES.value) if mutant.key not in results]
    print(f"{len(left)} mutants to run; results go to {log}", flush=True)
    began = time.monotonic()
    with log.open("a") as lines:
        for count, mutant in enumerate(left, start=1):
            entry = judge(mutant, folder)
            results[mutant.key] = entry
            print(json.dumps(entry), file=lines, flush=True)
            each = (time.monotonic() - began) / count
            rest = math.ceil(each * (len(left) - count) / 60)
            print(
                f"{count}/{len(left)} {each:.1f} s each, {rest} min left; {entry['result']}: {mutant.key}", flush=True
            )
    print(table(results))


if __name__ == "__main__":
    app.run(main)
