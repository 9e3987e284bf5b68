"""What the verb search does: finds the pictures of a folder that look most alike, by image, by attributes, or both.

| given | distance |
| --- | --- |
| an image | the run's own: d_f / s_f + gamma d_w / s_a |
| attributes | sum over the wished ones of (wish - probability)^2, a wish being 1, or 0 for what is not wanted |
| both | as for an image, which now has the wished attributes instead of its own, each with the largest learned weight |

So gamma slides from the image alone (0) to attributes alone. With an attribute run there is no feature: d_f is 0.
Nobody is identified: the nearest picture is the one that looks most alike, whoever it shows.
"""

import difflib
import hashlib
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import build, files, runs
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import calibration, explain, fusion
from acrn_jax.report import cells, sheet, tables
from acrn_jax.report.table import Table, page_width, render

NO_IDENTITY = "The order says which pictures look most alike, not who is on them."
TOLD = 3  # attributes that an explanation names


def search(
    workdir: Path,
    gallery: Path,
    *,
    query: Path | None = None,
    want: Sequence[str] = (),
    avoid: Sequence[str] = (),
    top: int = 20,
    gamma: float | None = None,
    out: Path | None = None,
    data_dir: str | None = None,
    attributes: Path | None = None,
    explained: bool = False,
) -> dict[str, Any]:
    """The pictures below a folder that look most alike; writes results.json and grid.jpg.

    Args:
      workdir: an ACRN, ReIdCNN or attribute run.
      gallery: a folder of pictures.
      query: a picture; left out of the gallery where it lies in it.
      want: attributes that should show.
      avoid: attributes that should not.
      top: how many pictures.
      gamma: influence of attributes beside the image; default: the run's.
      out: the folder to write to, in which what the nets say about pictures is kept too; default: workdir/search.
      data_dir: where prepared data is, for the calibration; default: where the attribute net was trained.
      attributes: where the attribute net is now; default: see `phases.locate`.
      explained: with the share of the feature and of each attribute in each distance.

    Raises:
      ValueError: nothing to search for, an unknown attribute, or what does not go together.
      FileNotFoundError: no run, no gallery or no query.
    """
    config = runs.read_config(workdir, attributes=attributes)
    if data_dir and config.data.name and Path(data_dir, config.data.name).is_dir():
        config.data.dir = data_dir
    alone = "mva" in config.phases  # an attribute run
    net = str(workdir) if alone else config.attributes["from"]
    wishes = _wishes(want, avoid, net)
    _check(config, query, wishes, gamma, explained, net)
    gamma = config.loss.gamma if gamma is None else gamma
    asked = _open_query(query) if query else None
    pictures = source.open_folder(gallery)
    ranked = np.array([query is None or (gallery / n).resolve() != query.resolve() for n in pictures.file_name])
    if not ranked.any():
        raise ValueError(f"{gallery} holds no picture beside the query; name a folder with more.")

    places = [out or workdir / "search", workdir / "search"]  # the second to look in alone
    files.check(places[0])
    batch = config.evaluate.batch
    told = alone or wishes or (asked is not None and config.loss.kind == "acrn" and gamma > 0)
    if told:
        runs.check_attributes(config, workdir)  # before the pictures are looked at
    feature = None
    if asked is not None and not alone:
        feature = [
            runs.kept_outputs(workdir, split, f"{_name(split)}_feature.npz", places, batch=batch)["feature"]
            for split in (asked, pictures)
        ]
    shown, names, probabilities, about = None, (), None, None
    if told:
        names = tuple(runs.attribute_names(Path(net)))
        logits = [
            runs.kept_outputs(Path(net), split, f"{_name(split)}_attributes.npz", places, batch=batch)[
                "attribute_logits"
            ]
            for split in (asked, pictures)
            if split is not None
        ]
        if wishes:
            curve, about = _calibration(Path(net), places, data_dir)
            probabilities = curve.probabilities(logits[-1])
        shown = [build.REPRESENTATIONS[config.attributes.representation](values) for values in logits]
    formula, query_row, columns = _formula(
        config, workdir, places[0], names, wishes, gamma, shown, probabilities, asked
    )
    distance = config.loss.distance if asked is not None else explain.ADDITIVE
    distances = _distances(distance, feature, query_row, columns, formula)
    order = np.flatnonzero(ranked)[np.argsort(distances[ranked], kind="stable")][:top]

    found = [
        {
            "rank": place + 1,
            "file": str(pictures.file_name[i]),
            "distance": float(distances[i]),
            "probabilities": {name: float(probabilities[i, names.index(name)]) for name in wishes},
        }
        for place, i in enumerate(order)
    ]
    if explained:
        _explain(found, order, ranked, names, feature, query_row, columns, formula)
    results = {
        "schema": 1,
        "workdir": str(workdir),
        "gallery": str(gallery),
        "query": str(query) if query else None,
        "want": [name for name, wish in wishes.items() if wish],
        "not": [name for name, wish in wishes.items() if not wish],
        "gamma": gamma if asked is not None and not alone else None,
        "distance": distance,
        "probabilities": about,
        "pictures": int(ranked.sum()),
        "unreadable": pictures.metadata["unreadable"],
        "passed_over": pictures.metadata["passed_over"],
        "notes": pictures.metadata["notes"],
        "fingerprint": pictures.fingerprint,
        "note": NO_IDENTITY,
        "results": found,
    }
    out = places[0]
    runs.write_json(out / "results.json", results)
    pixels = [transforms.decode(pictures.image_bytes(int(i)), key=str(pictures.key[i])) for i in order]
    captions = [[f"{entry['rank']}  d {entry['distance']:.3g}", entry["file"], *_percentages(entry)] for entry in found]
    note = f"{calibration.told(about)} {_rates(about, wishes)}" if about else ""
    if asked is not None:
        pixels = [transforms.decode(asked.image_bytes(0), key=str(query)), *pixels]
        captions = [["query", str(asked.file_name[0])], *captions]
    sheet.write(out / "grid.jpg", pixels, captions, marked=1 if asked is not None else 0, note=note)
    return results


def table(results: dict[str, Any]) -> str:
    """What `search` found, as text."""
    wished = [*results["want"], *results["not"]]
    asked = [f"look most alike to {results['query']}"] if results["query"] else []
    if results["want"]:
        asked.append(f"seem to show {', '.join(results['want'])}")
    if results["not"]:
        asked.append(f"seem not to show {', '.join(results['not'])}")
    rows = [
        (
            str(entry["rank"]),
            entry["file"],
            f"{entry['distance']:.4g}",
            *(f"{100 * entry['probabilities'][n]:.0f} %" for n in wished),
        )
        for entry in results["results"]
    ]
    if about := results["probabilities"]:
        rows.insert(0, ("", "recognition rate", "", *(_rate(about, name) for name in wished)))
    notes = [NO_IDENTITY, _measured(results)]
    if results["gamma"] is not None:
        notes.append(f"gamma {results['gamma']:g}.")
    if about:
        notes.append(calibration.told(about))
    caption = f"Of {results['pictures']:,} pictures in {results['gallery']} those that {' and '.join(asked)}"
    text = render(Table(caption, ("rank", "file", "distance", *wished), rows, " ".join(notes)))
    for entry in results["results"]:
        if "shares" in entry:
            reason = f"{entry['rank']:>4}  {_reason(entry)}"
            text += textwrap.fill(reason, page_width(), subsequent_indent=" " * 6) + "\n"
    return text + source.told_of_folder(results)


def _measured(results):
    """What the distances are, in one sentence."""
    if not results["query"]:
        return "distance: (wish - probability)^2, summed over the wished attributes."
    kind = tables.DISTANCES[results["distance"]]
    made = (
        "of attributes"
        if results["gamma"] is None
        else "of features and weighted attributes, d_f / s_f + gamma d_w / s_a"
    )
    return f"distance: {kind}, {made}."


def _reason(entry):
    """Shares in per cent, the largest first, and the rank without each."""
    whole = max(entry["distance"], 1e-12)
    largest = sorted(entry["shares"], key=lambda n: -entry["shares"][n])
    told = [n for n in largest if n == "feature"] + [n for n in largest if n != "feature"][:TOLD]
    return "; ".join(
        f"{n} {100 * entry['shares'][n] / whole:.0f} % (rank {entry['rank_without'][n]} without)" for n in told
    )


def _percentages(entry):
    return [f"{cells.attribute(name)} {100 * p:.0f} %" for name, p in entry["probabilities"].items()]


def _rate(about, name) -> str:
    """An attribute's recognition rate in per cent."""
    rate = (about["recognition"] or {"mA": {}})["mA"].get(name)
    return "-" if rate is None else f"{100 * rate:.0f} %"


def _rates(about, names) -> str:
    return ", ".join(f"{cells.attribute(name)} {_rate(about, name)}" for name in names)


def _wishes(want, avoid, net) -> dict[str, int]:
    """{attribute: 1 wanted, 0 not wanted}, in the order of the flags."""
    if not (want or avoid):
        return {}
    if not net:
        raise ValueError(
            "The run has no attribute net (config.attributes.from is not set), so it cannot search by any."
        )
    names = runs.attribute_names(Path(net))
    for name in (*want, *avoid):
        if name not in names:
            near = [known for known in names if name.lower() in known.lower()]
            near = near or difflib.get_close_matches(name, names, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? It knows" if near else "it knows"
            raise ValueError(f"The attribute net knows no {name!r}; {hint} {', '.join(names)}.")
    if both := set(want) & set(avoid):
        raise ValueError(f"{', '.join(sorted(both))} cannot be wanted and not wanted; drop one.")
    return dict.fromkeys(want, 1) | dict.fromkeys(avoid, 0)


def _check(config, query, wishes, gamma, explained, net) -> None:
    if not query and not wishes:
        raise ValueError("There is nothing to search for; give --query=IMAGE, --want=ATTRIBUTE, --not=ATTRIBUTE.")
    if gamma is not None and (not query or "mva" in config.phases):
        lacks = "an attribute run has no feature" if query else "there is no --query"
        raise ValueError(f"--gamma weighs attributes against an image, but {lacks}; leave it out.")
    if gamma is not None and not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"--gamma is {gamma}; give 0 for the image alone, more for more of the attributes.")
    if gamma and config.loss.kind == "classic" and "mva" not in config.phases and not wishes:
        raise ValueError("A ReIdCNN has learned no attribute weights, so --gamma wants --want or --not too.")
    if query and explained:
        explain.check_additive(config.loss.distance)


def _open_query(query: Path) -> source.Split:
    if not query.is_file():
        raise FileNotFoundError(f"There is no picture {query}; --query takes an image file.")
    split = source.open_files([query], [query.name], name=str(query))
    transforms.decode(split.image_bytes(0), key=str(query))
    return split


def _name(split: source.Split) -> str:
    """Of the file that keeps what a net says about pictures: by content alone, wherever they lie."""
    return hashlib.sha256(split.fingerprint.encode()).hexdigest()[:16]


def _calibration(net: Path, places: Sequence[Path], data_dir: str | None) -> tuple[calibration.Platt, dict[str, Any]]:
    """Platt's correction, fitted on the attribute run's val split once, and what `calibration.told` tells of it.

    It is kept in the first of `places`. Whether it holds for the gallery's pictures nobody knows: they have no labels.
    """
    names, _, fingerprint = runs.attribute_net(net)
    about = {"recognition": runs.recognition_rates(net)}
    for file in (place / "calibration.json" for place in places):
        stored = files.read_json(file) if file.exists() else {}
        if stored.get("net") == fingerprint and "fitted_on" in stored.get("about", {}):
            curve = calibration.Platt(*(np.array(stored[key]) for key in calibration.Platt._fields))
            return curve, stored["about"] | about
    config = runs.read_config(net, data_dir=data_dir)
    raw = calibration.Platt(np.ones(len(names)), np.zeros(len(names)), np.zeros(len(names), bool))
    try:
        runs.check_data(config, net)
        held, trained = build.open_split(config, "val"), build.attribute_split(config)
    except (ValueError, FileNotFoundError) as error:
        return raw, {"kind": "raw", "why": str(error).rstrip(".")} | about
    if shared := len(np.intersect1d(held.key, trained.key)):
        return raw, {"kind": "raw", "why": f"the net was trained on {shared:,} images of {held.name}"} | about
    curve = calibration.platt(
        runs.outputs(net, held, batch=config.evaluate.batch)["attribute_logits"], held.attributes_of(names)
    )
    left = [name for name, fitted in zip(names, curve.fitted, strict=True) if not fitted]
    fitted = {"kind": "fitted", "fitted_on": held.name, "images": len(held), "raw": left}
    content = {"net": fingerprint, "about": fitted, **{key: value.tolist() for key, value in curve._asdict().items()}}
    runs.write_json(places[0] / "calibration.json", content)
    return curve, fitted | about


def _formula(config, workdir, out, names, wishes, gamma, attributes, probabilities, asked):
    """(formula, query's row [1, A], gallery's columns [G, A]) with the wishes in their places."""
    if attributes is None:
        return explain.Formula(np.zeros(0, np.float32), 0.0, *_scales(config, workdir)), None, None
    columns = attributes[-1].copy()
    row = attributes[0].copy() if asked is not None else np.zeros((1, len(names)), np.float32)
    wished = [names.index(name) for name in wishes]
    if wishes:
        columns[:, wished], row[:, wished] = probabilities[:, wished], list(wishes.values())
    weights, scales = np.zeros(len(names), np.float32), (1.0, 1.0)
    if asked is None:
        gamma = 1.0
    elif "mva" in config.phases:
        weights, gamma = np.ones(len(names), np.float32), 1.0
    else:
        scales = _scales(config, workdir)
        if config.loss.kind == "acrn":
            train = runs.training_attributes(config, workdir, out=out)
            weights = np.array(runs.learned_weights(config, workdir, names, train))
    weights[wished] = np.abs(weights).max() or 1.0
    return explain.Formula(weights, gamma, *scales), row, columns


def _scales(config, workdir):
    if "mva" in config.phases:
        return 1.0, 1.0
    scales = runs.scales_of(workdir)
    return scales["feature"], scales["attribute"]


def _distances(distance, feature, row, columns, formula) -> np.ndarray:
    """[G]"""
    terms = []
    if feature is not None:
        terms.append((1 / formula.feature_scale, fusion.distance_rows(distance, *feature)))
    if row is not None:
        rows = fusion.distance_rows(distance, formula.weights * row, formula.weights * columns)
        terms.append((formula.gamma / formula.attribute_scale, rows))
    return fusion.weighted_sum(*terms)(slice(0, 1))[0]


def _explain(found, order, ranked, names, feature, row, columns, formula) -> None:
    """Adds "shares", which sum to the distance, and "rank_without" to each entry."""
    nothing = np.zeros((len(ranked), 0), np.float32)
    of_query, of_gallery = feature or (nothing[:1], nothing)
    parts = explain.shares(
        of_query, of_gallery, nothing[:1] if row is None else row, nothing if columns is None else columns, formula
    )
    ranks = explain.ranks(parts, order, ranked=ranked)
    shown = [i for i in range(len(names)) if formula.weights[i]]
    for place, (entry, i) in enumerate(zip(found, order, strict=True)):
        own = {"feature": float(parts.feature[i])} if feature else {}
        entry["shares"] = own | {names[a]: float(parts.attributes[i, a]) for a in shown}
        own = {"feature": int(ranks.without_feature[place])} if feature else {}
        entry["rank_without"] = own | {names[a]: int(ranks.without[place, a]) for a in shown}
