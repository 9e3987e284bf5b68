"""What nets said about pictures, kept in a folder of the user's: neither in the gallery nor in the run.

One SQLite file there, pictures.sqlite, has two tables:

    outputs  (net's fingerprint, name of the output, sha256 of the picture's file) -> float32 values
    seen     (folder, name in it) -> size, times and sha256 of a file, and what its picture is like

So a gallery with ten new pictures asks the net about ten, wherever the others lie now, and files whose size and times
are as they were are not read again. A folder that cannot be written, or a file that is damaged, costs time alone:
then nothing is kept, which is said once.
"""

import contextlib
import json
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from acrn_jax.data import source
from acrn_jax.data_prep import pictures
from acrn_jax.runs.run import Run

CHUNK = 2048  # pictures that a net is asked about before they are kept: a run that is stopped goes on from there
BATCH = 64  # at most: a last, short batch is filled up, as another size would be compiled anew
_ASKED = 500  # rows asked for at once; SQLite takes no more than 999 in its older versions
_TABLES = """
create table if not exists outputs
  (net text, name text, picture text, value blob, primary key (net, name, picture));
create table if not exists seen
  (folder text, name text, stamp text, picture text, look text, primary key (folder, name));
"""


def folder() -> Path | None:
    """Where pictures.sqlite lies: $ACRN_CACHE, else acrn_jax in $XDG_CACHE_HOME or ~/.cache; None without a home."""
    if named := os.environ.get("ACRN_CACHE"):
        return Path(named).expanduser()
    above = os.environ.get("XDG_CACHE_HOME") or (f"{os.environ['HOME']}/.cache" if os.environ.get("HOME") else "")
    return Path(above, "acrn_jax") if above else None


def place_of(net: Run) -> Path | None:
    """The folder for other things that are kept of a net; None where nothing can be kept."""
    if (above := folder()) is None:
        return None
    place = above / "nets" / net.fingerprint[:32]
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _tell(error)
        return None
    return place


def open_folder(gallery: str | Path) -> source.Split:
    """`source.open_folder`, without reading files anew that are as they were; see there for errors."""
    where, known = os.path.realpath(gallery), {}
    with _database() as database:
        question = "select name, stamp, picture, look from seen where folder = ?"
        for name, stamp, digest, look in database.execute(question, (where,)) if database else ():
            known[name] = pictures.Seen(tuple(json.loads(stamp)), digest, pictures.Look(*json.loads(look)))
    split = source.open_folder(gallery, known)
    now = {name: seen for name, seen in split.metadata["seen"].items() if seen.stamp}
    if now != known:
        with _database() as database:
            if database:
                database.execute("delete from seen where folder = ?", (where,))
                database.executemany(
                    "insert into seen values (?, ?, ?, ?, ?)",
                    [(where, n, json.dumps(s.stamp), s.digest, json.dumps(s.look)) for n, s in now.items()],
                )
    return split


def outputs(net: Run, split: source.Split, name: str, *, batch: int = BATCH) -> np.ndarray:
    """What a net says about pictures, float32 [N, ...], from what is kept, else computed and kept.

    Args:
      net: a run.
      split: N pictures, of `source.open_folder` or `source.open_files`.
      name: of the output, "feature" or "attribute_logits".
      batch: pictures at a time.
    """
    seen = split.metadata["seen"]
    digests = [seen[key].digest for key in split.key.tolist()]
    wanted = {digest: place for place, digest in enumerate(digests)}  # pictures that are there twice are asked for once
    net_name = f"{net.fingerprint} {pictures.RULE.decode()}"  # pixels of another rule of decoding are others
    found = _read(net_name, name, list(wanted))
    missing = np.array([place for digest, place in wanted.items() if digest not in found], np.int64)
    if len(missing):
        count = f"{len(missing):,} of {len(split):,} pictures" if len(missing) < len(split) else _pictures(len(split))
        print(f"{net.config.last_phase} net of {net.workdir}: {count} of {split.name}", file=sys.stderr, flush=True)
    batch = min(batch, BATCH)
    for start in range(0, len(missing), CHUNK):
        part = missing[start : start + CHUNK]
        size = 1 if len(part) == 1 else -(-len(part) // batch) * batch
        filled = np.concatenate([part, np.full(size - len(part), part[-1])])
        values = net.outputs(split.take(filled), batch=batch, quiet=True)[name][: len(part)]
        new = {digests[place]: value for place, value in zip(part.tolist(), values, strict=True)}
        _keep(net_name, name, new)
        found |= new
    return np.stack([found[digest] for digest in digests])


def _pictures(count: int) -> str:
    return f"{count:,} picture{'s' * (count > 1)}"


def _read(net: str, name: str, digests: Sequence[str]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with _database() as database:
        if database is None:
            return found
        for start in range(0, len(digests), _ASKED):
            part = digests[start : start + _ASKED]
            places = ", ".join("?" * len(part))
            question = f"select picture, value from outputs where net = ? and name = ? and picture in ({places})"
            for digest, value in database.execute(question, (net, name, *part)):
                found[digest] = np.frombuffer(value, "<f4")
    return found


def _keep(net: str, name: str, found: dict[str, np.ndarray]) -> None:
    rows = [(net, name, digest, value.astype("<f4").tobytes()) for digest, value in found.items()]
    with _database() as database:
        if database:
            database.executemany("insert or replace into outputs values (?, ?, ?, ?)", rows)


_told: set[str] = set()


@contextlib.contextmanager
def _database() -> Iterator[sqlite3.Connection | None]:
    """The database in a transaction of its own; None, said once, where there is none.

    What goes wrong with it in the block is told in the same way and passed over: nothing but time depends on it.
    """
    database = _connect()
    try:
        if database is None:
            yield None
        else:
            with database:
                yield database
    except sqlite3.Error as error:
        _tell(error)
    finally:
        if database is not None:
            database.close()


def _connect() -> sqlite3.Connection | None:
    place, database = folder(), None
    if place is None:
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(place / "pictures.sqlite", timeout=20)
        database.executescript(_TABLES)
        return database
    except (sqlite3.Error, OSError) as error:
        _tell(error)
        if database is not None:
            database.close()
        return None


def _tell(error: Exception) -> None:
    if (place := str(folder())) not in _told:
        _told.add(place)
        remedy = "delete pictures.sqlite there if it is damaged, or name another folder in the variable ACRN_CACHE"
        print(f"What nets say about pictures is not kept in {place} ({error}); {remedy}.", file=sys.stderr, flush=True)
