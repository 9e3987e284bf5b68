"""An attribute net with the statistics of a target's images: trained values, batch normalisation as the target has it.

Images of another data set have other brightness, colours and sharpness, so the means and variances that batch
normalisation learnt on PETA are not those of the target. They need no labels to be measured anew.

Source: Li et al., "Revisiting Batch Normalization for Practical Domain Adaptation", 2016.
"""

import os
from pathlib import Path

import numpy as np

from acrn_jax import build, files
from acrn_jax.data import pipeline, source
from acrn_jax.evaluation import embed
from acrn_jax.runs import phases, workdir
from acrn_jax.runs.run import AttributeRun, attribute_net
from acrn_jax.train import checkpoint
from acrn_jax.train.state import State


def adapt(net: Path, split: source.Split, out: Path, *, batch: int = 64) -> AttributeRun:
    """Writes to `out` the attribute net in `net` with the statistics of `split`, whose labels are not used.

    What comes out is an attribute net like any other, with a fingerprint of its own; its scores are not copied.

    Args:
      net: workdir of a finished attribute net, which stays as it is.
      split: unlabelled images of the target, in any order; not those that are tested, unless that is meant.
      out: a new folder.
      batch: images at a time, of which statistics are taken.

    Raises:
      FileNotFoundError: there is no attribute net.
      ValueError: it is not finished; the folder `out` is not new; `split` has fewer images than a batch.
    """
    run = attribute_net(net)
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty; give a new folder for the adapted net.")
    if len(split) < batch:
        raise ValueError(f"{split.name} has {len(split)} images; statistics want at least a batch of {batch}.")
    statistics = embed.batch_statistics(
        build.net(run.config.changed({"model.dropout": 0.0}), attributes=run.num_attributes),
        run.variables,
        _shuffled(run, split, batch),
        mean=run.config.data.mean,
        deviation=run.config.data.deviation,
    )
    workdir.store_config(out, run.config)
    inputs = dict(phases.read(run.phase) or {})
    for kind in inputs.keys() & phases.KINDS.keys():
        if inputs[kind] and "path" in inputs[kind]:
            inputs[kind] = inputs[kind] | {"path": os.path.join(os.path.realpath(net), inputs[kind]["path"])}
    inputs["statistics"] = phases.entry(split.name, split.fingerprint)
    phase = out / run.phase.name
    phases.begin(phase, inputs)
    saved = checkpoint.Checkpoints(phase / "checkpoints")
    saved.save(State(**(run.state | {"batch_stats": statistics})))
    saved.close()
    files.write_json(out / "attributes.json", run.description)
    return attribute_net(out)


def _shuffled(run, split, batch):
    """Full batches of mixed people: the images of one person in one batch would all look the same to a layer."""
    order = np.random.default_rng((0, 0, 5)).permutation(len(split))
    data = run.config.data
    mixed = split.take(order[: len(split) // batch * batch])
    return pipeline.eval_batches(mixed, batch=batch, threads=data.threads, height=data.height, width=data.width)
