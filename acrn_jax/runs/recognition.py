"""How well an attribute net recognises: recognition.json."""

from pathlib import Path

import numpy as np

from acrn_jax import build
from acrn_jax.data import source
from acrn_jax.evaluation import attributes as metrics
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.report import tables
from acrn_jax.results import Recognition
from acrn_jax.runs import nets, origin, workdir
from acrn_jax.runs.origin import number
from acrn_jax.runs.run import AttributeRun, load
from acrn_jax.settings import Settings


def recognise(
    folder: Path,
    *,
    config: Settings | None = None,
    split_name: str | None = None,
    target: Settings | None = None,
    out: Path | None = None,
    unfinished: bool = False,
) -> Recognition:
    """Scores an attribute net on a split and writes recognition.json.

    Args:
      folder: workdir of a trained attribute run.
      config: its settings; default: as stored.
      split_name: of the data set to score; default: see build.recognition_split.
      target: settings with another data set, of which the attributes that the net knows are scored; default: its own.
      out: where recognition.json goes; default: the workdir.
      unfinished: score a net whose training has not come to its end.
    """
    stored = load(folder, unfinished=unfinished)
    nets.refuse_to_write(out or stored.workdir)
    config = config or stored.config
    run = AttributeRun(stored.workdir, config, unfinished)
    split = build.recognition_split(target or config, split_name)
    common = [name for name in run.names if name in split.attribute_names]
    if not common:
        raise ValueError(
            f"{split.name} labels none of the net's {len(run.names)} attributes ({', '.join(run.names[:5])} ...), but "
            f"{', '.join(split.attribute_names[:5]) or 'none at all'}; name a data set that shares some."
        )
    known, labels = [run.names.index(name) for name in common], split.attributes_of(common)
    trained_on = None if target else build.attribute_split(config)
    threshold, calibrated = _threshold(run, calibration_split(config, trained_on), known)
    found = _probabilities(run, split)[:, known]
    whole = metrics.evaluate(found, labels, threshold=threshold)
    content = {
        "dataset": split.name.rsplit("/", 1)[0],
        "trained_on": f"{config.data.name}/{config.data.config}",
        "split": split.name.rsplit("/", 1)[-1],
        "dev": split.metadata.get("dev"),
        "fingerprint": split.fingerprint,
        "partition_sha256": split.metadata.get("partition_sha256"),
        **origin.of_nets({"run": run.phase}, unfinished=unfinished),
        "threshold": threshold.tolist() if isinstance(threshold, np.ndarray) else threshold,
        **calibrated,
        "undefined": whole.undefined,
        **_summary(whole),
        "attributes": [
            {"name": n, "mA": number(m), "positives": int(p), "negatives": int(q)}
            for n, m, p, q in zip(common, whole.attribute_mA, whole.positives, whole.negatives, strict=True)
        ],
    }
    if trained_on:  # person ids of another data set are other people
        content["images_trained_on"] = int(np.isin(split.key, trained_on.key).sum()) or None
        seen = metrics.seen(trained_on.person_id, split.person_id)
        for name, mask in (("seen", seen), ("unseen", ~seen)):
            if mask.any():
                part = metrics.evaluate(found[mask], labels[mask], threshold=threshold)
                each = [{"name": n, "mA": number(m)} for n, m in zip(common, part.attribute_mA, strict=True)]
                content[name] = _summary(part) | {"attributes": each}
    result = Recognition.of(content, **origin.of_code(config))
    workdir.write_json((out or folder) / "recognition.json", result.to_json())
    print(tables.recognition_table(result), flush=True)
    return result


def calibration_split(config: Settings, trained_on: source.Split | None = None) -> source.Split | None:
    """Images that `mva.calibrate` chooses thresholds on, or None; ValueError where the net was trained on them."""
    if config.mva.calibrate == "none":
        return None
    held = build.open_split(config, "val")
    shared = np.intersect1d(held.key, (trained_on or build.attribute_split(config)).key)
    if shared.size:
        raise ValueError(
            f"config.mva.calibrate={config.mva.calibrate} chooses thresholds on {held.name}, but the net is trained on "
            f"{shared.size} of its images; set mva.calibrate=none, or train with --config.data.train_split=train."
        )
    return held


def _threshold(run, held, known):
    """(threshold, of each attribute in `known` where some are chosen on the split `held`; an entry about it)."""
    if held is None:
        return run.config.mva.threshold, {}
    goal = run.config.mva.calibrate
    threshold = metrics.calibrate(_probabilities(run, held), held.attributes_of(run.names), target=goal)[known]
    return threshold, {"calibrated": {"target": goal, "split": held.name, "fingerprint": held.fingerprint}}


def _probabilities(run, split):
    return REPRESENTATIONS["probabilities"](run.outputs(split)["attribute_logits"])


def _summary(part):
    return {name: number(getattr(part, name)) for name in ("mA", "accuracy", "precision", "recall", "f1", "images")}
