"""The commands that the documentation shows, and whether the verbs take them, asked before anything is done.

As a script it reads commands, [verb, flag, ...] as one JSON list, and writes what became of each, {code, said, config}:
imported once, the process forks for each of them, so that every verb parses with flags of its own.
"""

import ast
import importlib
import itertools
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[1]
VERBS = (
    "demo prepare reproduce train extract evaluate calibrate ablate ledger report search describe models export".split()
)
WORK = (  # what verbs take seconds to import; none of it defines flags
    *(f"acrn_jax.runs.{name}" for name in ("bundles", "extraction", "search", "describing")),
    *("acrn_jax.report.html", "acrn_jax.evaluation.score"),
    *("acrn_jax.studies.attribute_ledger", "acrn_jax.studies.vectorised", "acrn_jax.data_prep.prepare"),
)
STANDS_FOR = {  # what a reader is to put something in place of, where the flag would refuse the words themselves
    "--config=...": "--config=configs/acrn_peta.py",
    "--seed=N": "--seed=1",
    "--expand=K": "--expand=5",
    "--process_id=$i": "--process_id=0",
}


def documents():
    """Name and text of everything that tells users what to type: pages, docstrings of configs and of the packages."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "data_prep").rglob("*.md")]
    pages = [page for page in pages if page.parent.name != "extending"]  # test_docs.py carries these out
    code = [path for folder in ("configs", "acrn_jax", "data_prep") for path in (ROOT / folder).rglob("*.py")]
    texts = [(path, path.read_text()) for path in pages]
    texts += [(path, ast.get_docstring(ast.parse(path.read_text())) or "") for path in code]
    return [(str(path.relative_to(ROOT)), text) for path, text in sorted(texts)]


def shown(text):
    """The commands of a text, each [verb, flag, ...]: lines with ./launch.sh or acrn; `verb --flag ...` in prose."""
    text = text.replace("\\\n", " ")
    fenced, prose = (re.compile(p, re.M | re.S) for p in (r"^```.*?^```", r"`[^`]*`"))
    lines = [*fenced.findall(text), prose.sub("", fenced.sub("", text))]
    found = [command for part in lines for command in re.findall(r"(?:\./launch\.sh|\bacrn) +(.*)", part)]
    found += [re.sub(r"^(\./launch\.sh|acrn)\s+", "", code.strip("`")) for code in prose.findall(fenced.sub("", text))]
    return [words for words in map(_words, found) if len(words) > 1]


def _words(command):
    """[verb, flag, ...] up to where the command ends, with all that [brackets] say may be added; else []."""
    if command.split(maxsplit=1)[:1] not in [[verb] for verb in VERBS]:
        return []
    command = re.sub(r"\[(--.*?)\](?=[\s.;,]|$)", r"\1", " ".join(command.split()))
    command = re.sub(r"\[,[^\]]*\]", "", command)
    if command.count('"') % 2:  # ssh host "... ./launch.sh ..."
        command = command.rpartition('"')[0]
    lexer = shlex.shlex(command, posix=True, punctuation_chars="&;")
    lexer.whitespace_split = True
    verb, *rest = lexer
    flags = itertools.takewhile(lambda word: word.startswith("--"), rest)
    ends = [flag if flag.endswith("...") else flag.rstrip(".,:") for flag in flags if flag != "--help"]
    ends = [flag.removesuffix(")") if ")" in flag and "(" not in flag else flag for flag in ends]
    return [verb, *(STANDS_FOR.get(flag, flag) for flag in ends)]


def settings():
    """Every --config.KEY=VALUE that the documents show, wherever they do."""
    found = [re.findall(r"--config\.[\w.]+=(?:\"[^\"]+\"|[^\s`;,)\"\\]+)", text) for _, text in documents()]
    return sorted({shlex.split(flag)[0].rstrip(".") for flags in found for flag in flags if "..." not in flag})


def ask(commands, *, package=ROOT, folder=ROOT):
    """What becomes of each of the commands, in a process of their own, with the acrn_jax that lies in `package`."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tests.commands"],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _answer(command):
    """In a forked process: parses the command as its verb does, then tells the config instead of doing the work."""
    import runpy

    from absl import app, flags

    def told(main, argv=None, flags_parser=None):
        flags_parser(argv or sys.argv)
        config = flags.FLAGS["config"].value if "config" in flags.FLAGS else None
        print("\n" + json.dumps(config and json.loads(config.to_json_best_effort())))
        sys.exit(0)

    app.run = told
    verb, *sys.argv[1:] = command
    module = "acrn_jax.data_prep.prepare" if verb == "prepare" else f"acrn_jax.cli.{verb}"
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main():
    for module in WORK:
        importlib.import_module(module)
    answers = []
    for command in json.load(sys.stdin):
        with tempfile.TemporaryFile() as said:
            child = os.fork()
            if not child:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                try:
                    _answer(command)
                except SystemExit as done:
                    sys.stdout.flush()
                    os._exit(done.code or 0)  # at once: an interpreter with all of jax takes its time to leave in order
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            said.seek(0)
            *lines, last = said.read().decode().strip().splitlines() or [""]
        answers.append({"code": code, "said": "\n".join([*lines, "" if code == 0 else last]), "config": None})
        if code == 0 and last.startswith("{"):
            answers[-1]["config"] = json.loads(last)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
