"""How well an attribute net ranks pictures for wish lists: attribute_query.json; docs/attribute_query.md."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import build, files
from acrn_jax.data import sampler, source
from acrn_jax.evaluation import attribute_query, calibration
from acrn_jax.report import wish_lists
from acrn_jax.report.table import render
from acrn_jax.results import AttributeQueries
from acrn_jax.runs import attribute_calibration, nets, origin, overlap, workdir
from acrn_jax.runs.evaluation import target_of
from acrn_jax.runs.run import AttributeRun, load
from acrn_jax.train import parallel

HALVES = ("first_half", "second_half")


def score(
    folder: Path,
    *,
    data_dir: str | None = None,
    dataset: str | None = None,
    split: str | None = None,
    subsets: Sequence[str] = (),
    half: str | None = None,
    stored: Path | None = None,
    each: int = 20,
    seed: int = 0,
    unfinished: bool = False,
    allow_overlap: bool = False,
    out: Path | None = None,
) -> AttributeQueries:
    """Scores an attribute net on wish lists; writes attribute_query.json and .md.

    Args:
      folder: workdir of an attribute run, or a net that ships.
      data_dir: where the prepared data is now; default: where the run was trained.
      dataset: another data set "name/config".
      split: of it; default: see `build.recognition_split`.
      subsets: only images in these folders of the data set, e.g. PETA's sub-sets.
      half: of HALVES, the people who are scored; curves and learned weights are then fitted on the other half's.
      stored: a file of `AttributeQueries` whose lists are taken; default: they are drawn.
      each: lists to draw for a number of attributes and a band.
      seed: of the drawing.
      unfinished: score a net whose training has not come to its end.
      allow_overlap: the net may have been trained on images that it is scored on.
      out: the folder to write to; default: see `workdir.folder_on`. A net that ships wants it.

    Raises:
      ValueError: no attribute net, nothing to draw lists from, images that were trained on.
      FileNotFoundError: no run, no data, no stored lists.
    """
    run = load(folder, data_dir=data_dir, unfinished=unfinished)
    if not isinstance(run, AttributeRun):
        raise ValueError(f"{folder} is no attribute net, whose probabilities answer wish lists; give one as --workdir.")
    config = run.config.changed({"attributes.allow_overlap": True} if allow_overlap else {})
    run, target = AttributeRun(run.workdir, config, unfinished), target_of(config, dataset) if dataset else None
    out = out or workdir.folder_on(run.workdir, dataset)
    nets.refuse_to_write(out)
    files.check(out)
    run.check_data()
    shown = _only(build.recognition_split(target or config, split), subsets)
    names = [name for name in run.names if name in shown.attribute_names]
    if not names:
        raise ValueError(f"{shown.name} labels none of the net's {len(run.names)} attributes; name another data set.")
    overlap.check_scored_on(run, target or config, [shown])
    labels, person = shown.attributes_of(names), attribute_query.people(shown.person_id)
    scored = sampler.half_of_people(person, half) if half else np.ones(len(shown), bool)
    given = files.read_json(stored, "wish_lists")["wish_lists"] if stored else None
    lists = (
        attribute_query.draw(labels[scored], each=each, seed=seed)
        if given is None
        else attribute_query.of_json(given, names, labels[scored])
    )
    logits = run.outputs(shown)["attribute_logits"]
    known, weights, about = [run.names.index(name) for name in names], None, {}
    if half:
        curve = calibration.platt(logits[~scored][:, known], labels[~scored])
        probabilities = curve.probabilities(logits[:, known])
        others = attribute_query.draw(labels[~scored], each=each, seed=seed)
        rules = ("product", "log_odds")
        weights = {r: attribute_query.learn(probabilities[~scored], labels[~scored], others, r) for r in rules}
    else:
        curve, about = attribute_calibration.calibrated(run, data_dir)
        probabilities = curve.probabilities(logits)[:, known]
    content: dict[str, Any] = {
        **attribute_query.evaluate(
            probabilities[scored], labels[scored], person[scored], names, lists, weights=weights
        ),
        "dataset": shown.name.rsplit("/", 1)[0],
        "split": " ".join([shown.name.rsplit("/", 1)[-1], *subsets]),
        "trained_on": f"{config.data.name}/{config.data.config}",
        "dev": shown.metadata.get("dev"),
        "half": half,
        "seed": None if stored else seed,
        "probabilities": {name: value for name, value in about.items() if name != "recognition"} or None,
        "fingerprint": shown.fingerprint,
        **origin.of_nets({"run": run.phase}, unfinished=unfinished),
        **origin.of_code(config),
    }
    found = AttributeQueries.of(content)
    workdir.write_json(out / "attribute_query.json", found.to_json())
    if parallel.is_primary():
        files.write_text(out / "attribute_query.md", "\n".join(render(t, "markdown") for t in wish_lists.tables(found)))
    return found


def _only(split: source.Split, subsets: Sequence[str]) -> source.Split:
    """The images in some of the folders that a data set's file names begin with."""
    if not subsets:
        return split
    folders = np.array([name.split("/")[0] for name in split.file_name])
    if unknown := set(subsets) - set(folders):
        there = ", ".join(sorted(set(folders))[:12])
        raise ValueError(
            f"--subsets names {', '.join(sorted(unknown))}, which {split.name} does not hold; it has {there}."
        )
    return split.take(np.isin(folders, list(subsets)))
