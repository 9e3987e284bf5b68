"""Gradients of one large batch, computed in parts that fit into memory, whatever the loss looks at.

Mining and batch-wide means see all rows, so gradients of parts cannot simply be added. Instead, parts are embedded
without a gradient, the loss of all embeddings is differentiated with respect to them, and these gradients are sent back
through the net part by part. Equal to the large batch, but for batch normalisation, whose statistics are those of a
part; costs one forward pass more.

Source: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021 (GradCache).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def value_and_grad(forward: Callable, objective: Callable, parts: int) -> Callable:
    """As jax.value_and_grad(..., has_aux=True) of `objective` behind `forward`, in `parts` parts.

    Args:
      forward: (params, inputs) -> (outputs, moving statistics).
      objective: (params, outputs) -> (loss, extra), of the whole batch.
      parts: how many; part i holds rows i, i + parts, ..., so that people, and the rows of a device, are spread evenly.

    Returns:
      (params, inputs) -> ((loss, (extra, statistics)), gradient); inputs are a tree of arrays [B, ...], statistics the
      mean over parts.
    """

    def whole(params, inputs):
        def embed(_, part):
            return None, forward(params, part)

        def back(total, part):
            part, cotangents = part
            _, pull, _ = jax.vjp(lambda p: forward(p, part), params, has_aux=True)
            return jax.tree.map(jnp.add, total, pull(cotangents)[0]), None

        inputs = split(inputs, parts)
        _, (outputs, statistics) = jax.lax.scan(embed, None, inputs)
        of_outputs = jax.value_and_grad(objective, argnums=(0, 1), has_aux=True)
        (loss, extra), (direct, cotangents) = of_outputs(params, join(outputs))
        gradient, _ = jax.lax.scan(back, direct, (inputs, split(cotangents, parts)))
        return (loss, (extra, jax.tree.map(lambda x: jnp.mean(x, 0), statistics))), gradient

    return whole


def split(tree: Any, parts: int) -> Any:
    """Every array [B, ...] -> [parts, B / parts, ...]."""
    return jax.tree.map(lambda x: jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0), tree)


def join(tree: Any) -> Any:
    """The inverse of `split`."""
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:]), tree)
