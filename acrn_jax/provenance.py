"""Which code and which libraries made a result. Knows the standard library alone."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from acrn_jax import CHECKOUT, __version__

CODE = ("acrn_jax", "configs", "data_prep")  # folders of a checkout that results depend on


def commit() -> str:
    """The commit of our own checkout, with "+" if files differ from it; else the version and where the code is from.

    "acrn_jax 0.2.0 (wheel)", or "(commit 838f05b...)" where pip installed it from a repository and says so, or "(copy)"
    of a checkout without its history. A repository that merely contains the code says nothing of it.
    """
    return _own_commit() or f"acrn_jax {__version__} ({_origin()})"


def _own_commit() -> str | None:
    if CHECKOUT is None:
        return None
    # In a hook of somebody's repository these name that one.
    of_callers = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in of_callers}

    def git(*arguments: str) -> str:
        command = ["git", "-C", CHECKOUT, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.rstrip("\n")

    try:
        if not os.path.samefile(git("rev-parse", "--show-toplevel"), CHECKOUT):
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", *CODE) else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _origin() -> str:
    if CHECKOUT is not None:
        return "copy"
    here = Path(__file__)
    for distribution in importlib.metadata.distributions(name="acrn_jax"):
        place = Path(str(distribution.locate_file("acrn_jax/provenance.py")))
        if place.exists() and place.samefile(here):
            origin = json.loads(distribution.read_text("direct_url.json") or "{}")
            if found := origin.get("vcs_info", {}).get("commit_id"):
                return f"commit {found}"
    return "wheel"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
