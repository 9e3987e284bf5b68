"""The nets, each with what the rest of the house must know of it: one table, MODELS."""

from collections.abc import Mapping
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


MODELS = {
    "acrn": Model(acrn.ACRN, ("identity", "reid"), acrn.GROUPS),
    "mva": Model(mva.MVA, ("mva",), mva.GROUPS),
}
