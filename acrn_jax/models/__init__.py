"""The nets, each with what the rest of the package must know of it: one table, MODELS."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.linen as nn

from acrn_jax.models import acrn, mva


class Model(NamedTuple):
    """A net that config.model.name can name.

    Its fields that carry a rule (`width: Annotated[float, number(1 / 64)]`, see acrn_jax/rules.py) are keys of
    config.model, each with a default in configs/common.py.
    """

    module: type[nn.Module]
    phases: tuple[str, ...]  # that it is trained in
    groups: Mapping[str, str]  # beginning of a top-level module's name -> optimiser group
    # Writes the layers as ONNX: (graph of export/onnx_graph.py, its map of pixels 0 to 255 [B, 3, H, W], the module,
    # its values, mean and standard deviation [1, 3, 1, 1] of pixels in [0, 1]) -> name of the feature or the logits.
    onnx: Callable[..., str] | None = None


MODELS = {
    "acrn": Model(acrn.ACRN, ("identity", "reid"), acrn.GROUPS, acrn.onnx_layers),
    "mva": Model(mva.MVA, ("mva",), mva.GROUPS, mva.onnx_layers),
}
