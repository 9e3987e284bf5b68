"""Checkpoints of one phase: the only module that knows Orbax.

With several processes all of them must save and restore, in the same order: each writes its part.
"""

import contextlib
import functools
import logging
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

from acrn_jax import COMMAND, files
from acrn_jax.train import parallel
from acrn_jax.train.state import State

FIELDS = ("step", "params", "batch_stats", "scales", "opt")  # of State, in its order


class Checkpoints:
    """Saved states in `folder`, the newest `keep`. Each is written under another name first: a kill leaves the last."""

    def __init__(self, folder: Path, *, keep: int = 2):
        self.folder = Path(folder).resolve()
        self._keep = keep
        with files.naming(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._orbax = self._open()

    def _open(self):
        return ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.LatestN(self._keep),
            cleanup_tmp_directories=True,
        )

    def save(self, state: State) -> None:
        """Writes `state` under its step, unless that step is there already."""
        step = int(state.step)
        if step not in [c.step for c in self._orbax.checkpoints]:
            plain = _plain(state)
            try:
                with files.naming(self.folder / str(step), also=(ValueError, RuntimeError)), _muted():
                    self._orbax.save(step, plain, custom_metadata={"checksum": _checksum(plain)})
            except files.WriteError:
                for half in self.folder.glob("*.orbax-checkpoint-tmp"):  # it takes room
                    shutil.rmtree(half, ignore_errors=True)
                raise

    def restore(self, like: State) -> State | None:
        """The newest readable state with the shapes of `like`, or None if there is none.

        A damaged one is named, left out, and the one before it is taken. ValueError if all are damaged or the shapes
        are those of another net.
        """
        steps = sorted((c.step for c in self._orbax.checkpoints), reverse=True)
        wanted = _plain(like)
        for step in steps:
            found: Any = None
            reason = "another process could not"
            try:
                found = self._orbax.load(step, jax.tree.map(_abstract, wanted))
                _verify(found, self._orbax.metadata(step))
            except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged file
                found, reason = None, str(error)
            if not parallel.all_processes(found is not None) or found is None:
                _warn(self.folder, step, reason)
                continue
            damaged = [s for s in steps if s > step]
            if damaged:  # removed, or saving such a step anew would be skipped as already there
                self.close()
                parallel.on_primary(functools.partial(_remove, [self.folder / str(s) for s in damaged]))
                self._orbax = self._open()
            kept = cast(dict[str, Any], found)
            return State(*(kept[name] for name in FIELDS))
        if steps:
            raise ValueError(
                f"No checkpoint in {self.folder} can be read into this net (tried steps {steps}); "
                "is the workdir of another model, or damaged? Use another --workdir, or delete that folder."
            )
        return None

    def close(self) -> None:
        self._orbax.close()


def load_any(folder: Path) -> dict[str, Any]:
    """The newest readable state in `folder` as nested dicts of numpy arrays, whatever its shapes.

    FileNotFoundError if there is none.
    """
    folder = Path(folder).resolve()
    steps = sorted((int(p.name) for p in folder.glob("*") if p.name.isdigit()), reverse=True) if folder.is_dir() else []
    alone = ocp.Context()
    if jax.process_count() > 1:  # each process reads for itself, all of it
        alone.multiprocessing.primary_host = jax.process_index()
        alone.multiprocessing.active_processes = {jax.process_index()}
    for step in steps:
        try:
            with alone:  # as numpy: what devices it was saved on does not matter
                about = ocp.metadata(folder / str(step))
                found: Any = ocp.load(folder / str(step), jax.tree.map(_as_numpy, about.metadata))
                _verify(found, about)
                return found
        except Exception as error:
            _warn(folder, step, str(error))
    raise FileNotFoundError(f"There is no readable checkpoint in {folder}; train that run first ({COMMAND} train).")


def _plain(state):
    return {name: getattr(state, name) for name in FIELDS}


def _abstract(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _as_numpy(leaf):
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)  # a shape that says "numpy" and takes no memory


def _checksum(plain):
    """CRC-32 over all values, each behind its name, whatever tree of dicts, lists and tuples holds them."""
    named = {}
    for path, leaf in jax.tree.leaves_with_path(plain):
        keys = (getattr(entry, "key", getattr(entry, "name", getattr(entry, "idx", entry))) for entry in path)
        named["/".join(map(str, keys))] = leaf
    total = 0
    for name in sorted(named):
        total = zlib.crc32(np.ascontiguousarray(named[name]).tobytes(), zlib.crc32(name.encode(), total))
    return total


def _verify(plain, about):
    """ValueError if values are not those that were saved: Orbax's files have no checksum of their own."""
    wanted = (about.custom_metadata or {}).get("checksum")  # runs from before it was there have none
    if wanted is not None and wanted != _checksum(plain):
        raise ValueError("its values are not those that were saved")


def _remove(folders):
    for folder in folders:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _muted():
    """Orbax raises what goes wrong, and each of its threads tells the traceback, some of them after it was raised.

    So these stay muted when the block fails.
    """
    log, unraisable = logging.getLogger("absl"), sys.unraisablehook
    log.addFilter(_no_traceback)
    sys.unraisablehook = lambda event: None if _late(event) else unraisable(event)
    yield
    log.removeFilter(_no_traceback)
    sys.unraisablehook = unraisable


def _late(event):
    """Whether it is TensorStore's, which finds the event loop of a save that has failed closed."""
    return event.object is None and "Event loop is closed" in str(event.exc_value)


def _no_traceback(record):
    return record.exc_info is None


def _warn(folder, step, reason):
    first_line = (reason.splitlines() or [""])[0][:200]
    logging.warning("Checkpoint %d in %s cannot be read (%s); trying the one before.", step, folder, first_line)
