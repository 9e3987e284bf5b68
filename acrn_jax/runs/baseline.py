"""The ReIdCNN runs beside an ACRN run: whether they belong in one table with it."""

from pathlib import Path
from typing import Any

from acrn_jax import COMMAND, settings
from acrn_jax.runs import phases, workdir
from acrn_jax.runs.run import AcrnRun, Run

# Exact keys, besides workdir.MAY_CHANGE, in which an ACRN run and the ReIdCNN beside it may differ: they speak of
# attributes, of the attribute net, or of how fast it went. In all others rows of one table would differ in more than
# the method.
OF_ATTRIBUTES = frozenset((
    "attributes.representation", "attributes.allow_overlap", "data.cache_mib", "data.exclude_attributes",
    "data.exclude_subsets", "loss.kind", "loss.gamma", "loss.mine_on", "loss.attribute_gradient",
    "loss.attribute_margin", "loss.attribute_miner", "loss.attribute_weights", "loss.attribute_weights_file",
    "loss.weight_form", "model.branch_kernel", "model.dropout", "model.layout", "model.views", "mva", "phases",
    "reid.attribute_weights",
))  # fmt: skip


def check(run: Run, baseline: Path | None, tune: Path | None) -> None:
    """ValueError unless the runs beside a run are there for it, and are its own."""
    if baseline and not isinstance(run, AcrnRun):
        raise ValueError(f"{run.workdir} is no ACRN run, and only such a run takes --baseline; leave it out.")
    if tune and not baseline:
        raise ValueError("--tune goes with --baseline, whose fusion with attributes it tunes; give both.")
    if baseline:
        _check_one(run, baseline, f"--baseline={baseline}", tunes=False)
    if tune:
        _check_one(run, tune, f"--tune={tune}", tunes=True)


def _check_one(run: Run, folder: Path, what: str, *, tunes: bool) -> None:
    """ValueError unless the run in `folder` is the ReIdCNN of `run`; both are named, and what differs.

    `tunes`: it is the one on whose held-out people the fusion factor is chosen, and may hold others out.
    """
    other = workdir.read_config(folder)
    if other.of_attributes or other.loss.kind != "classic":
        kind = "an attribute net" if other.of_attributes else f"of loss.kind={other.loss.kind!r}"
        raise ValueError(f"{what} is {kind}; a ReIdCNN, with loss.kind='classic', is wanted.")
    if tunes and not other.data.validation_identities:
        raise ValueError(f"{what} holds nobody out (config.data.validation_identities) to choose the factor on.")
    may = workdir.MAY_CHANGE | OF_ATTRIBUTES | ({"data.validation_identities"} if tunes else set())
    keys = settings.differing(run.config.flat, other.flat, may)
    found = [f"{key} is {other.flat.get(key)!r} there, {run.config.flat.get(key)!r} here" for key in keys]
    began = ["identity" in c.phases or bool(c.init_from) for c in (other, run.config)]
    if began[0] != began[1]:
        found.append(f"it was trained {'after' if began[0] else 'without'} an identity phase, this run not so")
    alone = tunes or ("identity" in other.phases and "identity" in run.config.phases)  # each began for itself
    kinds = ("data", *(() if tunes else ("records",)), *(() if alone else ("start",)))
    stored, current = (phases.read(place / "reid") or {} for place in (Path(folder), run.workdir))
    found += _other_inputs(stored, current, kinds)
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise ValueError(
            f"{what} does not belong in one table with {run.workdir}: {'; '.join(found[:5])}{more}. Train it as this "
            f"run but for --config.loss.kind=classic ({COMMAND} reproduce does), or evaluate each for itself and put "
            f"them beside each other with {COMMAND} report --workdir={run.workdir},{folder}."
        )


def _other_inputs(stored: dict[str, Any], current: dict[str, Any], kinds: tuple[str, ...]) -> list[str]:
    """What two phases were made of, where that differs."""
    found = []
    for kind in kinds:
        there, here = stored.get(kind), current.get(kind)
        if there and here and there["fingerprint"] != here["fingerprint"]:
            marks = [f"{entry['name']} (fingerprint {entry['fingerprint'][:12]})" for entry in (there, here)]
            found.append(f"it {phases.KINDS[kind][0]} {marks[0]}, this run {marks[1]}")
    return found
