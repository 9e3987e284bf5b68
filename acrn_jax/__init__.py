"""Person re-identification by attribute-complementary information, in JAX (Schumann and Stiefelhagen, 2017)."""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acrn_jax import evaluation as evaluation
    from acrn_jax import losses as losses
    from acrn_jax.evaluation import bootstrap as bootstrap
    from acrn_jax.evaluation import compare as compare
    from acrn_jax.evaluation import evaluate as evaluate
    from acrn_jax.evaluation import rerank as rerank
    from acrn_jax.evaluation import roc as roc
    from acrn_jax.runs.face import load as load

__version__ = "0.2.0"

# configs/ and data_prep/ lie beside this folder in a checkout, and in it where the package is installed. They are
# imported as acrn_jax.configs and acrn_jax.data_prep in both.
_here = os.path.dirname(os.path.abspath(__file__))
CHECKOUT = None if os.path.isdir(os.path.join(_here, "configs")) else os.path.dirname(_here)
if CHECKOUT:
    __path__.append(CHECKOUT)
COMMAND = "./launch.sh" if CHECKOUT else "acrn"  # what users type before a verb

# What users call, imported when it is first asked for: evaluation then comes without jax.
_FROM = dict.fromkeys(("evaluate", "rerank", "roc", "bootstrap", "compare"), "acrn_jax.evaluation") | {
    "load": "acrn_jax.runs.face"
}
_MODULES = ("evaluation", "losses")
__all__ = ["__version__", *_FROM, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _FROM:
        return getattr(importlib.import_module(_FROM[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"acrn_jax.{name}")
    raise AttributeError(f"module 'acrn_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
