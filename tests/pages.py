"""Carries out what a page of docs/ tells its reader to do, in a copy of the checkout.

| a fenced block | what is done |
| --- | --- |
| python, title="PATH" | the file is new and is written |
| diff, title="PATH" | lines with + go where the lines around them, which are there already, say; lines with - go |
| python | runs in a folder beside the copy; one program with the Python before it, where nothing else is between |
| bash | each `./launch.sh VERB ...` runs, in that folder |
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```', re.M | re.S)


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(page: pathlib.Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def carry_out(page: pathlib.Path, folder: pathlib.Path, *, commands: bool = True) -> list[str]:
    """Does what the page says; the files that its reader edits, new ones included.

    Args:
      page: of docs/.
      folder: an empty one, for the copy and all that programs and commands write.
      commands: whether the commands run, too, or the Python alone.

    Raises:
      AssertionError: something of it does not work.
    """
    checkout, work, edited = folder / "checkout", folder / "work", []
    work.mkdir()
    for name in ("acrn_jax", "configs", "data_prep"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", checkout)  # makes it a checkout, see acrn_jax/__init__.py
    for block in _programs(blocks(page)):
        if block.title:
            edited.append(block.title)
            target = checkout / block.title
            if block.language == "diff":
                target.write_text(patched(target.read_text(), block.text))
            else:
                assert not target.exists(), f"{block.title} is there already"
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(block.text)
        elif block.language == "python":
            _run(["-c", block.text], checkout, work)
        elif block.language == "bash" and commands:
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    assert words[0] == "./launch.sh", line
                    _run(["-m", "acrn_jax", *words[1:]], checkout, work)
    return edited


def _programs(found: list[Block]) -> list[Block]:
    """The blocks, those of a program joined."""
    joined: list[Block] = []
    for block in found:
        if joined and block[:2] == joined[-1][:2] == ("python", ""):
            joined[-1] = block._replace(text=joined[-1].text + block.text)
        else:
            joined.append(block)
    return joined


def patched(text: str, diff: str) -> str:
    """The text with a diff applied whose hunks have no numbers: what it is to change stands in the text just once."""
    for hunk in re.split(r"^@@.*\n", diff, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[:1] in " -") if lines else ""
        after = "".join(line[1:] for line in lines if line[:1] in " +")
        if lines:
            assert text.count(before) == 1, f"{text.count(before)} places have these lines:\n{before}"
            text = text.replace(before, after)
    return text


def _run(arguments, checkout, work):
    env = os.environ | {"PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-P", *arguments], cwd=work, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(arguments)[:200]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
