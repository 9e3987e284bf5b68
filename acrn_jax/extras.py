"""How to install what an extra of pyproject.toml brings, for the error that its absence is."""

import sys
from collections.abc import Sequence

from acrn_jax import CHECKOUT


def remedy(extra: str, packages: Sequence[str]) -> str:
    """The command that installs an extra: by its name, or by its packages in the environment of launch.sh."""
    if CHECKOUT is None:
        return f"pip install 'acrn_jax[{extra}]'"
    return f"uv pip install --python {sys.executable} -c {CHECKOUT}/constraints.txt {' '.join(packages)}"
