"""Images that a net was trained on must not be those that it is scored on, nor show the people of a declared table."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from acrn_jax.data import source
from acrn_jax.runs import nets
from acrn_jax.runs.run import Run, attribute_net, load
from acrn_jax.settings import Settings
from acrn_jax.train import parallel

# Data sets, or NAME/SUBSET (the first folder of their file names), which show the same people, or may do so. Images of
# one data set are compared besides, whatever its configs; with itself a sub-set stands here whose other images show its
# people: an attribute net that knows these knows the people.
SAME_PEOPLE = (
    ("peta/CUHK", "cuhk01"),  # one campus; the sub-set has no identities that could tell
    ("peta/CUHK", "cuhk03"),
    ("peta/CUHK", "cuhk03_np"),
    ("cuhk03", "cuhk03_np"),  # two ways to split one release
    ("peta/GRID", "peta/GRID"),
    ("peta/VIPeR", "peta/VIPeR"),
    ("peta/PRID", "peta/PRID"),
    ("peta/3DPeS", "peta/3DPeS"),
    ("peta/i-LID", "peta/i-LID"),
    ("peta/CAVIAR4REID", "peta/CAVIAR4REID"),
    ("peta/SARC3D", "peta/SARC3D"),
)

Remedy = Callable[[tuple[str, ...]], str]  # sub-sets that an attribute net leaves out -> what to do


def check_attribute_net(config: Settings, splits: Sequence[source.Split]) -> None:
    """ValueError where the attribute net was trained on images or people of `splits`, which the paper rules out.

    `config` has the attribute net and, as config.data, the data set that the splits are of.
    """
    net = attribute_net(str(config.attributes.from_))
    if not config.attributes.allow_overlap:
        allow = "or pass --config.attributes.allow_overlap=True (evaluate: --allow_overlap)."
        _check_unseen(net, config, splits, "attribute net", lambda left_out: f"train one{_without(left_out)}, {allow}")


def check_scored_on(run: Run, target: Settings, splits: Sequence[source.Split]) -> None:
    """ValueError where the run or its attribute net was trained on images or people of `splits`, unless allowed.

    Where training images are not at hand, a sentence says so.

    Args:
      run: to be scored.
      target: settings with the data set that the splits are of.
      splits: to score it on.
    """
    if run.config.attributes.allow_overlap:
        return
    other, allow = "score it on other images", "or pass --allow_overlap."
    nets: list[tuple[Path, str, Remedy]] = [(run.workdir, "run", lambda left_out: f"{other}, {allow}")]
    if run.config.of_acrn:
        anew = "train it anew with an attribute net trained"
        nets.append(
            (
                Path(str(run.config.attributes.from_)),
                "attribute net",
                lambda left_out: f"{other}, {anew}{_without(left_out)}, {allow}",
            )
        )
    for folder, what, remedy in nets:
        try:
            _check_unseen(load(folder), target, splits, what, remedy)
        except FileNotFoundError as error:
            if parallel.is_primary():
                unknown = f"Whether the {what} {folder} was trained on images that it is scored on is not known"
                print(f"{unknown}: {error}", flush=True)


def _without(left_out: tuple[str, ...]) -> str:
    return f' with --config.data.exclude_subsets="{left_out}"' if left_out else " on other images"


def _check_unseen(run: Run, target: Settings, splits: Sequence[source.Split], what: str, remedy: Remedy) -> None:
    """ValueError where a run was trained on images or people of `splits`, which are of the data set of `target`."""
    if nets.is_net(run.workdir):
        seen, parts = nets.trained_on(run.workdir), set(nets.card(run.workdir)["training"]["parts"])
        _check_known(run, seen, parts, target, splits, what, remedy)
        return
    own = load(run.workdir).config.data
    images = functools.cache(lambda: run.training_images(target.data.dir))
    if own.name == source.MIXTURE:
        seen, parts = nets.digests(images()), parts_of(own.name, images())
        _check_known(run, seen, parts, target, splits, what, remedy)
        return
    for split in _of(own.name, target.data.name, splits):
        if shared := shared_images(images(), split):
            subset = (shared[0].split("/")[0],) if "/" in shared[0] else ()
            raise ValueError(
                f"The {what} {run.workdir} was trained on {len(shared)} images of {split.name}, e.g. {shared[0]}; "
                + remedy((*own.exclude_subsets, *subset) if subset else ())
            )
    if own.name == target.data.name and what == "run":  # which trains on some people of a sub-set, others are scored
        return
    shown = set[str]().union(*(parts_of(target.data.name, split) for split in splits))
    related = {
        part: other
        for pair in SAME_PEOPLE
        for part, other in (pair, pair[::-1])
        if part.split("/")[0] == own.name and part.partition("/")[2] not in own.exclude_subsets and other in shown
    }
    if not related:
        return
    # Where the images are not at hand, or others by now: its settings do not leave them out.
    with contextlib.suppress(FileNotFoundError, ValueError):
        seen = parts_of(own.name, images())
        related = {part: other for part, other in related.items() if part in seen}
    _refuse_related(related, run, target, what, own.exclude_subsets, remedy)


def _of(name: str, target: str, splits: Sequence[source.Split]) -> list[source.Split]:
    """What of splits of the data set `target`, which may be a mixture, is of the data set `name`."""
    if target != source.MIXTURE:
        return list(splits) if name == target else []
    return [part for split in splits for dataset, part in source.parts(split) if dataset == name]


def _refuse_related(related, run, target, what, left_out, remedy) -> None:
    """ValueError for data sets trained on -> others that show their people, if there are any."""
    if not related:
        return
    part, other = min(related.items())
    of = f"{target.data.name}/{target.data.config}"
    whose = f"whose people {of} shows" if part == other else f"which may show people of {other}"
    subsets = tuple(part.partition("/")[2] for part in sorted(related) if "/" in part)
    raise ValueError(
        f"The {what} {run.workdir} was trained on images of {part}, {whose}; "
        + remedy((*left_out, *subsets) if subsets else ())
    )


def _check_known(
    run: Run,
    seen: np.ndarray,
    parts: set[str],
    target: Settings,
    splits: Sequence[source.Split],
    what: str,
    remedy: Remedy,
) -> None:
    """As `_check_unseen`, where what was trained on is known by content: digests `seen` of images, and `parts_of`."""
    for split in splits:
        if (shared := np.flatnonzero(np.isin(nets.digests(split), seen))).size:
            raise ValueError(
                f"The {what} {run.workdir} was trained on {shared.size} images of {split.name}, e.g. "
                f"{split.file_name[shared[0]]}; " + remedy(())
            )
    shown = set[str]().union(*(parts_of(target.data.name, split) for split in splits))
    related = {
        part: other
        for pair in SAME_PEOPLE
        for part, other in (pair, pair[::-1])
        if part in parts and other in shown and not (what == "run" and part == other)  # as of other runs
    }
    _refuse_related(related, run, target, what, (), remedy)


def parts_of(name: str, split: source.Split) -> set[str]:
    """What a split of that data set holds, as SAME_PEOPLE names it; of a mixture, what its parts hold."""
    if name == source.MIXTURE:  # whose files are called NAME/CONFIG/FILE
        files = {tuple(str(file).split("/")[:3]) for file in split.file_name}
        return {part for dataset, _, folder in files for part in (dataset, f"{dataset}/{folder}")}
    return {name, *(f"{name}/{folder}" for folder in {str(file).split("/")[0] for file in split.file_name})}


def shared_images(trained: source.Split, split: source.Split) -> list[str]:
    """File names of images that are in both splits."""
    place = {name: i for i, name in enumerate(trained.file_name)}
    named = [(i, place[name]) for i, name in enumerate(split.file_name) if name in place]
    return [str(split.file_name[i]) for i, other in named if split.image_bytes(i) == trained.image_bytes(other)]
