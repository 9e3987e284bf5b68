"""Which code and which libraries made a result. Knows the standard library alone."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path


def commit() -> str:
    """Commit of the code, with "+" if files differ from it; "unknown" outside a checkout."""
    here = Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def versions(packages: Sequence[str]) -> dict[str, str]:
    """Versions of Python and of installed packages."""
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in packages}
