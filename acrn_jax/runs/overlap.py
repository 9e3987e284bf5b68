"""Images that a net was trained on must not be those that it is scored on."""

from collections.abc import Sequence
from pathlib import Path

from acrn_jax.data import source
from acrn_jax.runs.run import Run, attribute_net, load
from acrn_jax.settings import Settings
from acrn_jax.train import parallel


def check_attribute_net(config: Settings, splits: Sequence[source.Split]) -> None:
    """ValueError where the attribute net was trained on images of `splits`, which the paper rules out.

    `config` has the attribute net and, as config.data, the data set that the splits are of.
    """
    net = attribute_net(str(config.attributes.from_))
    if not config.attributes.allow_overlap:
        remedy = ", or pass --config.attributes.allow_overlap=True (evaluate: --allow_overlap)."
        _check_unseen(
            net, config, splits, "attribute net", 'train one with --config.data.exclude_subsets="({!r},)"' + remedy
        )


def check_scored_on(run: Run, target: Settings, splits: Sequence[source.Split]) -> None:
    """ValueError where the run or its attribute net was trained on images of `splits`, unless that is allowed.

    Where training images are not at hand, a sentence says so.

    Args:
      run: to be scored.
      target: settings with the data set that the splits are of.
      splits: to score it on.
    """
    if run.config.attributes.allow_overlap:
        return
    remedy = "score it on other images, or pass --allow_overlap."
    nets = [(run.workdir, "run")]
    if run.config.of_acrn:
        nets.append((Path(str(run.config.attributes.from_)), "attribute net"))
    for folder, what in nets:
        try:
            _check_unseen(load(folder), target, splits, what, remedy)
        except FileNotFoundError as error:
            if parallel.is_primary():
                unknown = f"Whether the {what} {folder} was trained on images that it is scored on is not known"
                print(f"{unknown}: {error}", flush=True)


def _check_unseen(run: Run, target: Settings, splits: Sequence[source.Split], what: str, remedy: str) -> None:
    """ValueError where a run was trained on images of `splits`, which are of the data set of `target`."""
    if load(run.workdir).config.data.name != target.data.name:
        return
    trained = run.training_images(target.data.dir)
    for split in splits:
        if shared := shared_images(trained, split):
            raise ValueError(
                f"The {what} {run.workdir} was trained on {len(shared)} images of {split.name}, e.g. {shared[0]}; "
                f"{remedy.format(shared[0].split('/')[0])}"
            )


def shared_images(trained: source.Split, split: source.Split) -> list[str]:
    """File names of images that are in both splits."""
    place = {name: i for i, name in enumerate(trained.file_name)}
    named = [(i, place[name]) for i, name in enumerate(split.file_name) if name in place]
    return [str(split.file_name[i]) for i, other in named if split.image_bytes(i) == trained.image_bytes(other)]
