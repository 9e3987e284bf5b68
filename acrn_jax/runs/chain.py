"""The chain of `reproduce`: ACRN with its identity phase, the ReIdCNN that shares it, the table of methods."""

from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np

from acrn_jax import COMMAND, build, settings
from acrn_jax.data import source
from acrn_jax.evaluation import protocols, ranking
from acrn_jax.results import Results
from acrn_jax.runs import evaluation, overlap, training, workdir
from acrn_jax.runs.run import AcrnRun
from acrn_jax.settings import Settings

Shared = Callable[[str, Settings], Path]  # trains what other runs may need too


def begin(config: Settings, *, attributes: Path | None, shared: Shared | None = None) -> Settings:
    """The settings of `reproduce`'s ACRN run: with the attribute net, from the shared identity phase if there is one.

    Everything that would be refused after hours of training is refused here.
    """
    if attributes:
        config = config.changed({"attributes.from": str(attributes)})
    # Before an identity phase is trained for it:
    build.check(config)
    split, _ = build.reid_splits(config)
    build.check_images(config, split)
    if config.loss.kind == "acrn":
        _check_tuning(config)
        overlap.check_attribute_net(config, [split])
    tested = _check_test(config, split)
    if config.loss.kind == "acrn":
        overlap.check_attribute_net(config, tested)
    if shared and "identity" in config.phases:
        first = shared("identity", config.changed({"phases": ("identity",)}))
        return config.changed({"phases": ("reid",), "init_from": str(first / "identity")})
    return config


def reproduce(config: Settings, *, attributes: Path | None, workdir: Path, shared: Shared | None = None) -> Results:
    """One seed of docs/method.md's chain: ACRN, its identity phase, the ReIdCNN that shares it, the table of methods.

    Args:
      config: of ACRN, with its seed; of a ReIdCNN, which then comes alone.
      attributes: workdir of a trained attribute net; a ReIdCNN needs none.
      workdir: ACRN's workdir; the ReIdCNN goes to workdir/baseline.
      shared: trains what other runs may need too, ("identity" | "baseline" | "tune", its config) -> its workdir;
        default: all of it lies in `workdir`.
    """
    if config.of_attributes:
        raise ValueError(f"reproduce is of re-id nets; an attribute net is trained with {COMMAND} train.")
    whole = config
    config = begin(config, attributes=attributes, shared=shared)
    training.train(config, workdir)
    if config.loss.kind == "classic":
        return cast(Results, evaluation.evaluate(workdir))

    def beside(name, config):
        training.train(config, workdir / name)
        return workdir / name

    start = str(workdir / "identity") if "identity" in config.phases else config.init_from
    classic = config.changed({"phases": ("reid",), "loss.kind": "classic", "init_from": start})
    baseline = (shared or beside)("baseline", classic)
    tune = None
    if tunes(config):
        held = {"data.validation_identities": config.evaluate.tune_identities}
        held |= {"phases": whole.phases, "init_from": whole.init_from}
        tune = (shared or beside)("tune", classic.changed(held))
    return cast(Results, evaluation.evaluate(workdir, baseline=baseline, tune=tune))


def check_seeds(folder: Path, config: Settings, count: int) -> None:
    """ValueError if `folder` holds another seed's run (seed_N) of another config than `config`, or attribute net.

    What `reproduce` leaves there is shown as one method, mean and deviation. The last of `count` seeds must be one.
    """
    settings.check_values({"seed": config.seed + count - 1})
    for place in sorted(folder.glob("seed_*")):
        if not (place / "config.json").is_file():
            continue
        stored = workdir.read_config(place)
        if keys := settings.differing(config.flat, stored.flat, workdir.MAY_CHANGE | {"seed"}):
            raise ValueError(
                f"{place} is of another config: {settings.told(keys, stored.flat, config.flat)}. Use another "
                "--workdir, or the same config."
            )
        if config.of_acrn:
            AcrnRun(place, config).check_attributes()


def tunes(config: Settings) -> bool:
    """Whether `reproduce` trains a ReIdCNN more, without people on whom the fusion factor is then chosen."""
    return bool(config.evaluate.tune_identities and not config.data.validation_identities)


def _check_test(config: Settings, split: source.Split) -> tuple[source.Split, source.Split]:
    """Query and gallery, of which evaluation has nothing to refuse after training on `split`.

    Raises:
      ValueError: the labels do not fit the protocol, queries have no match, images of `split` are among them.
      FileNotFoundError: there are no such splits.
    """
    query, gallery, protocol = evaluation.tested(config, config)
    ranking.check(query.labels, gallery.labels, protocol=protocol, no_match=config.evaluate.no_match)
    if protocol.name == "market1501_multi_query":
        boxes = build.open_split(config, "multi_query")
        protocols.multi_query(np.zeros((len(boxes), 1)), boxes.labels, query.labels)
    for tested in (query, gallery):
        if not config.attributes.allow_overlap and (shared := overlap.shared_images(split, tested)):
            raise ValueError(
                f"{len(shared)} images of {tested.name} would be trained on too, e.g. {shared[0]}; score on other "
                "images, or pass --config.attributes.allow_overlap=True."
            )
    return query, gallery


def _check_tuning(config: Settings) -> None:
    """ValueError where too few people would be left for that ReIdCNN."""
    if not tunes(config):
        return
    held = config.changed({"data.validation_identities": config.evaluate.tune_identities})
    try:
        build.check_images(held, build.reid_splits(held)[0])
    except ValueError as error:
        raise ValueError(
            f"config.evaluate.tune_identities={config.evaluate.tune_identities} holds people out of an extra run, for "
            f"which {error} Set it to 0 to go without ReIdCNN+Attributes-tuned."
        ) from error
