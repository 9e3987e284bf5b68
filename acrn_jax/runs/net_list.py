"""The nets that are there, as a table: what each is, how large, how good, and whether it is whole."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import COMMAND
from acrn_jax.export import net_file
from acrn_jax.report.table import Table
from acrn_jax.runs import bundles, face, nets
from acrn_jax.runs.run import AttributeRun, load

KINDS = {"attributes": "attribute net", "reid": "ReIdCNN", "acrn": "ACRN"}


@dataclasses.dataclass(frozen=True)
class Listed:
    """One net."""

    name: str
    folder: Path
    card: Mapping[str, Any]  # empty where it cannot be read
    fault: str  # why it cannot be used; empty where nothing was found


def listed(*, verify: bool = False) -> list[Listed]:
    """All nets by name, their weights held against their cards; with `verify` each is also asked about pictures."""
    found = []
    for name, folder in sorted(nets.known().items()):
        card: Mapping[str, Any] = {}
        fault = ""
        try:
            card = nets.card(folder)
            net_file.check(folder, card)
            if verify:
                _run(folder)
        except (ValueError, OSError) as error:
            fault = str(error)
        found.append(Listed(name, folder, card, fault))
    return found


def _run(folder: Path) -> None:
    """ValueError unless a net says something about drawn pictures, and has its attribute net."""
    run = load(folder)
    run.check_attributes()
    name = "attribute_logits" if isinstance(run, AttributeRun) else "feature"
    if not np.isfinite(run.outputs(face.pictures(bundles.draw(*bundles.SIZE)), quiet=True)[name]).all():
        raise ValueError(f"{folder} says nothing finite about pictures; its weights and its config do not fit.")


def table(found: list[Listed], *, verify: bool = False) -> Table:
    """A row a net."""
    whole = "runs" if verify else "whole"
    columns = ("net", "kind", "parameters", "MiB", "weights", "scores")
    rows = [
        (
            one.name,
            KINDS.get(str(one.card.get("kind")), "-"),
            f"{one.card['parameters']:,}" if "parameters" in one.card else "-",
            f"{one.card['bytes'] / 2**20:.1f}" if "bytes" in one.card else "-",
            "REFUSED" if one.fault else whole,
            "; ".join(list(_scores(one.card))[:1]) or "-",
        )
        for one in found
    ]
    notes = [one.fault for one in found if one.fault]
    places = sorted({str(one.folder.parent) for one in found})
    return Table(f"Nets in {' and '.join(places)}", columns, rows, "\n".join(notes))


def none_there() -> str:
    """What to say where there is no net."""
    places = " nor in ".join(str(home) for home in nets.homes())
    return (
        f"There is no net in {places}; name a folder of nets in the variable {nets.VARIABLE}, or make one: "
        f"{COMMAND} export --workdir=R --out=FOLDER/NAME --format=net."
    )


def _scores(card: Mapping[str, Any]) -> Iterator[str]:
    """The scores of a card in short: of the best method mAP and rank-1, or mA."""
    for entry in card.get("scores") or ():
        where = entry.get("dataset", "")
        methods = entry.get("methods") or {}
        main = methods.get("ACRN") or next(iter(methods.values()), entry)
        told = [
            f"{title} {100 * main[key]:.1f}"
            for key, title in (("mAP_precision", "mAP"), ("rank1", "r1"), ("mA", "mA"))
            if isinstance(main.get(key), int | float)
        ]
        if told:
            yield f"{where} {' '.join(told)}".strip()
