"""Ranking a gallery for queries, and everything around it; numpy and scipy are enough, JAX is not imported.

Names below come from their modules when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acrn_jax.evaluation.arrays import Evaluation as Evaluation
    from acrn_jax.evaluation.arrays import bootstrap as bootstrap
    from acrn_jax.evaluation.arrays import compare as compare
    from acrn_jax.evaluation.arrays import evaluate as evaluate
    from acrn_jax.evaluation.arrays import rerank as rerank
    from acrn_jax.evaluation.arrays import roc as roc
    from acrn_jax.evaluation.fusion import DISTANCES as DISTANCES
    from acrn_jax.evaluation.metrics import METRICS as METRICS
    from acrn_jax.evaluation.metrics import Metric as Metric
    from acrn_jax.evaluation.protocols import PROTOCOLS as PROTOCOLS
    from acrn_jax.evaluation.protocols import Protocol as Protocol

_MODULES = {
    "arrays": "evaluate rerank roc bootstrap compare Evaluation",
    "protocols": "PROTOCOLS Protocol",
    "metrics": "METRICS Metric",
    "fusion": "DISTANCES",
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = list(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
