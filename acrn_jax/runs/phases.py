"""A phase of a run as it lies on disk: what it was made of, how far it has come, the fingerprint of its values.

PHASE/inputs.json is written when a phase begins:

    steps        how many the phase is to take
    data         the prepared training split
    records      those of its images that are trained on: without people held out and sub-sets left out
    attributes   the attribute net of an ACRN's phase reid
    start        what the phase starts from: another phase (init_from, or the one before) or a file of weights

Each but `steps` has a name for messages, a fingerprint and, where it lies in a folder, `path`: relative to the run.
Phases made before this file was written have none: they can be read, and what cannot be checked is said once a run.
Of a net that ships (nets.py), its card holds the same, and its weights stand for the last checkpoint.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from acrn_jax import files
from acrn_jax.runs import nets
from acrn_jax.train import checkpoint, optimizer, parallel

# Kind of input -> (what was done with it, what to do about another one).
KINDS = {
    "data": ("was trained on", "bring back the data as it was (--config.data.dir, --data_dir)"),
    "records": ("was trained on a choice of images of", "choose the same ones (config.data)"),
    "attributes": (
        "was trained with the attribute net",
        "name the net that it was trained with (--config.attributes.from, --attributes)",
    ),
    "start": ("was started from", "name what it was started from (--config.init_from)"),
}


class Progress(NamedTuple):
    """How far a phase has come."""

    step: int
    steps: int | None  # planned; None for phases that do not say

    @property
    def finished(self) -> bool:
        """Whether all planned steps are done; a phase that does not say how many they are counts as finished."""
        return self.steps is None or self.step >= self.steps


# What a phase was made of


def entry(name: str | Path, fingerprint: str, *, path: str | Path | None = None) -> dict[str, str]:
    """One input of a phase: what it is called, its fingerprint, and the folder or file where it lies."""
    return {"name": str(name), "fingerprint": fingerprint} | ({} if path is None else {"path": str(path)})


def read(phase: Path) -> dict[str, Any] | None:
    """inputs.json of a phase; None for one made before there was such a file."""
    if nets.is_net(Path(phase).parent):
        return nets.card(Path(phase).parent)["made_of"]
    file = Path(phase) / "inputs.json"
    return files.read_json(file, "steps") if file.is_file() else None


def begin(phase: Path, inputs: Mapping[str, Any]) -> None:
    """Stores what a phase is made of; of one that has begun, checks it, as its paths alone may change.

    Raises:
      ValueError: the phase has begun with other inputs; both are named.
    """
    check(phase, dict.fromkeys(KINDS) | dict(inputs))
    if begun(phase) and read(phase) is None:
        return
    run, kept = os.path.realpath(Path(phase).parent), dict(inputs)
    for kind in kept.keys() & KINDS.keys():
        if kept[kind] and "path" in kept[kind]:
            kept[kind] = kept[kind] | {"path": os.path.relpath(os.path.realpath(kept[kind]["path"]), run)}
    files.write_json(Path(phase) / "inputs.json", kept)


def check(phase: Path, now: Mapping[str, Any]) -> None:
    """ValueError if a phase that has begun was made of others than those of `now`; names both.

    `now` need not hold all kinds of inputs. A phase that does not say what it was made of passes, with a sentence.
    """
    if not begun(phase):
        return
    before = read(phase)
    if before is None:
        tell_old(Path(phase).parent)
        return
    compare(phase, before, now)


def compare(place: Path, before: Mapping[str, Any], now: Mapping[str, Any], kinds: Any = None) -> None:
    """ValueError if what `place` was made of differs from `now` in one of the kinds that `now` holds; names both."""
    for kind, (done, remedy) in (kinds or KINDS).items():
        if kind not in now:
            continue
        nothing = entry("nothing", "none")
        old, new = (inputs.get(kind) or nothing for inputs in (before, now))
        if old["fingerprint"] != new["fingerprint"]:
            raise ValueError(
                f"{place} {done} {old['name']} (fingerprint {old['fingerprint'][:12]}), not {new['name']} as it is "
                f"now ({new['fingerprint'][:12]}); {remedy}, or give another --workdir."
            )


def locate(run: Path, given: str | Path, kept: str | None, there: Callable[[Path], bool]) -> Path:
    """Where something that a run was made of lies now, should the run have been moved or be used from elsewhere.

    Looked up relative to the run, then within it under the last parts of the path as it was given, then as given.

    Args:
      run: its workdir.
      given: the path as it was given in training.
      kept: the same relative to the run, where that is known.
      there: whether a place holds it.
    """
    parts = [part for part in Path(given).parts if part not in (os.sep, os.pardir)]
    inside = [Path(run, *parts[first:]) for first in range(len(parts))]
    places = [*([Path(run, kept)] if kept else []), *inside]
    found, given = next((place for place in places if there(place)), None), Path(given)
    return given if found is None or (there(given) and given.samefile(found)) else found


_told: set[Path] = set()


def tell_old(run: Path) -> None:
    """Says of a run of an older version what cannot be checked: once, and for those that lie within it too."""
    known = not _told.isdisjoint((run, *run.parents))
    _told.add(run)
    if parallel.is_primary() and not known:
        print(
            f"{run} was trained by an older version, which stored neither fingerprints of what a phase is made of nor "
            "its number of steps: whether data set, attribute net and start are the same, and training has ended, "
            "cannot be checked.",
            flush=True,
        )


# How far it has come


def begun(phase: Path) -> bool:
    """Whether a phase has a checkpoint."""
    return bool(_saved(phase))


def progress(phase: Path) -> Progress:
    """The newest checkpoint's step (0 if there is none), and the planned number of steps."""
    return Progress(max(_saved(phase), default=0), (read(phase) or {}).get("steps"))


def load(phase: Path, *, unfinished: bool = False) -> dict[str, Any]:
    """The newest readable state of a finished phase, nested dicts of numpy arrays; see checkpoint.load_any.

    Every use of a trained phase goes through here.

    Args:
      phase: its folder.
      unfinished: take it before all its steps are done, too.

    Raises:
      FileNotFoundError: there is no readable checkpoint, perhaps as the run is still in the phase before.
      ValueError: the phase is not finished.
    """
    if nets.is_net(Path(phase).parent):
        return nets.state(Path(phase).parent)
    if not begun(phase):
        for before in (folder.parent for folder in Path(phase).parent.glob("*/checkpoints") if begun(folder.parent)):
            step, steps = progress(before)
            raise FileNotFoundError(
                f"{phase} has not begun: {before.name}, the phase before, is at step {step}"
                f"{f' of {steps}' if steps else ''}; run the command again that trained it, to go on."
            )
    state, inputs = checkpoint.load_any(Path(phase) / "checkpoints"), read(phase)
    if inputs is None:
        tell_old(Path(phase).parent)
    elif int(state["step"]) < inputs["steps"] and not unfinished:
        raise ValueError(
            f"{phase} is not finished: it is at step {int(state['step'])} of {inputs['steps']}; run the command again "
            "that trained it, to go on (evaluate takes it as it is with --unfinished)."
        )
    return state


# Its values


def fingerprint(phase: Path, *, unfinished: bool = False) -> str:
    """Of a phase's trained values, those that it is used with: their average where one was kept (config.ema)."""
    return fingerprint_of(load(phase, unfinished=unfinished))


def fingerprint_of(state: Mapping[str, Any]) -> str:
    """Of the values in a stored state: parameters and statistics, not the optimiser's."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves((optimizer.final_params(state), state["batch_stats"])):
        digest.update(np.ascontiguousarray(leaf).tobytes())
    return digest.hexdigest()


def about(phase: Path, *, unfinished: bool = False) -> dict[str, Any]:
    """For result files: step, fingerprint of the values ("values"), and inputs.json of a phase."""
    state = load(phase, unfinished=unfinished)
    return {"step": int(state["step"]), "values": fingerprint_of(state)} | (read(phase) or {})


def _saved(phase):
    if nets.is_net(Path(phase).parent):
        return [int(nets.card(Path(phase).parent)["step"])]
    return [int(path.name) for path in (Path(phase) / "checkpoints").glob("*") if path.name.isdigit()]
