"""What a search found, as one self-contained HTML file: no network, no JavaScript, no paths of the machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from acrn_jax.report import cells, page

THUMBNAIL = (144, 288)  # largest width and height of a picture, pixels
SHARES = 3  # attributes whose shares are named


def render(
    results: Mapping[str, Any],
    pictures: Sequence[np.ndarray],
    query: np.ndarray | None,
    *,
    title: str,
    notes: Sequence[str],
) -> str:
    """The page as text.

    Args:
      results: of a search, as in results.json.
      pictures: of its results, each uint8 [h, w, 3].
      query: the picture that was searched for, likewise; None where there was none.
      title: what was searched for.
      notes: sentences below it.
    """
    entries = [_entry(entry, results, image) for entry, image in zip(results["results"], pictures, strict=True)]
    return page.template("search.html").render(
        title=title,
        query=None if query is None else _thumbnail(query),
        wanted=[cells.attribute(name) for name in results["want"]],
        unwanted=[cells.attribute(name) for name in results["not"]],
        gamma=results["gamma"],
        unknown=[100 * edge for edge in results["unknown"]],
        notes=notes,
        entries=entries,
        recognised=bool(_rates(results)),
        verdict=((results.get("same_person") or {}).get("threshold") or {}),
    )


def _entry(entry: Mapping[str, Any], results: Mapping[str, Any], image: np.ndarray) -> dict[str, Any]:
    low, high = results["unknown"]
    attributes = sorted(entry["attributes"].items(), key=lambda item: -item[1])
    rates = _rates(results)
    told = [
        (
            cells.attribute(name),
            _percent(p),
            "yes" if p > high else "no" if p < low else "unknown",
            _percent(rates.get(name)),
        )
        for name, p in attributes
    ]
    return {
        "uri": _thumbnail(image),
        "rank": entry["rank"],
        "file": entry["file"],
        "distance": f"{entry['distance']:.3g}",
        "same_person": _percent(entry["same_person"]) if entry.get("same_person") is not None else "",
        "passes": entry.get("passes"),
        "shares": _shares(entry),
        "attributes": told,
        "shown": [(name, p) for name, p, answer, _ in told if answer == "yes"],
    }


def _rates(results: Mapping[str, Any]) -> Mapping[str, float | None]:
    """Name -> how often the net is right about an attribute, where that was measured."""
    return (results["attributes"].get("recognition") or {}).get("mA", {})


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}\N{NO-BREAK SPACE}%"


def _shares(entry: Mapping[str, Any]) -> list[tuple[str, int]]:
    """(what, per cent of the distance): the feature, the attributes with the largest shares, and all others."""
    shares, whole = entry.get("shares") or {}, entry["distance"]
    if whole <= 0:
        return []
    of_attributes = sorted(((name, s) for name, s in shares.items() if name != "feature"), key=lambda item: -item[1])
    named = [("feature", shares["feature"])] if "feature" in shares else []
    named += [(cells.attribute(name), share) for name, share in of_attributes[:SHARES]]
    if rest := of_attributes[SHARES:]:
        named.append((f"{len(rest)} others", sum(share for _, share in rest)))
    return [(name, round(100 * share / whole)) for name, share in named]


def _thumbnail(pixels: np.ndarray) -> str:
    return page.thumbnail(Image.fromarray(pixels), THUMBNAIL)
