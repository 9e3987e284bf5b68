"""Attribute weights of a finished run trained anew by L_att alone, for many margins or attributes at once."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acrn_jax import COMMAND, build
from acrn_jax.losses.weights import effective_weights
from acrn_jax.schema import Outputs
from acrn_jax.settings import Settings
from acrn_jax.studies.finished import FinishedRun


def train_weights(
    run: FinishedRun,
    margins: Sequence[float],
    *,
    seeds: Sequence[int] | None = None,
    attributes: Sequence[np.ndarray] | None = None,
) -> np.ndarray:
    """Trains w by L_att alone, for all margins (and seeds of the batches) at once: [margins, A] or [seeds, margins, A].

    `attributes`: of each margin, what the attribute net says about the training images [N, A]; default the run's.

    The objective, batches and optimiser (an average of w, if it keeps one) are those of the run's phase reid, so that
    its own margin gives its own w: the features do not matter and are left out.

    Raises:
      ValueError: the run's w is not L_att's alone, or has no margin.
    """
    config = run.config.changed({"loss.identity_weight": 0.0})
    _check(run)
    a = jnp.asarray(run.attributes.train if attributes is None else np.stack(attributes))
    person = jnp.asarray(np.unique(run.split.person_id, return_inverse=True)[1], jnp.int32)
    plans, tx = _batches(run, config, [config.seed] if seeds is None else seeds)
    _, start = build.reid_objective(config, run.names)

    def one(rows_of_steps, margin, a):
        objective, _ = build.reid_objective(config, run.names, attribute_margin=margin)

        def step(carry, rows):
            params, opt, scales = carry
            nothing = jnp.zeros((len(rows), 1))  # equal features: a loss, but no gradient for w

            def loss_of(params):
                batch = {"person": person[rows], "probabilities": a[rows]}
                loss, (_, moved) = objective(params, Outputs(trained_feature=nothing), batch, scales)
                return loss, moved

            (_, scales), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, opt = tx.update(gradient, opt, params)
            return (jax.tree.map(jnp.add, params, updates), opt, scales), None

        params = {"attribute_weights": {"raw": jnp.asarray(start)}}
        scales = {"feature": jnp.zeros(()), "attribute": jnp.zeros(())}
        (params, opt, _), _ = jax.lax.scan(step, (params, tx.init(params), scales), rows_of_steps)
        raw = build.optimizer.final_params({"params": params, "opt": opt})["attribute_weights"]["raw"]
        return effective_weights(raw, form=config.loss.weight_form, attributes=a[:2000], distance=config.loss.distance)

    every = jax.jit(jax.vmap(jax.vmap(one, (None, 0, None if attributes is None else 0)), (0, None, None)))
    found = np.asarray(every(jnp.asarray(plans), jnp.asarray(np.asarray(margins, np.float32)), a))
    return found if seeds is not None else found[0]


def _check(run: FinishedRun) -> None:
    config = run.config
    if config.loss.attribute_weights != "learned" or config.loss.soft:
        raise ValueError(
            f"{run.folder} has attribute_weights {config.loss.attribute_weights!r} and soft {config.loss.soft}; a "
            "study of L_att's margin wants learned weights and a hinge."
        )
    if config.loss.attribute_gradient == "flow":
        raise ValueError(
            f"{run.folder} was trained with loss.attribute_gradient=flow: L_acrn trained its attribute weights, too, "
            "which needs the features. A study that trains them by L_att alone wants attribute_gradient=stop; "
            f"{COMMAND} ablate without --on trains whole nets."
        )


def _batches(run: FinishedRun, config: Settings, seeds: Sequence[int]) -> tuple[np.ndarray, Any]:
    """(record numbers of the batches of all steps [seeds, steps, B], the optimiser of w)."""
    plans, tx = [], None
    for seed in seeds:
        plan = build.epoch_plan(config.changed({"seed": seed}), run.split, "reid")
        per_epoch = len(plan(0))
        steps, tx, _ = build.optimisation(config, "reid", per_epoch, ("attribute_weights",))
        plans.append(np.concatenate([plan(epoch) for epoch in range(-(-steps // per_epoch))])[:steps])
    return np.stack(plans), tx
