"""Finds the pictures of a folder that look most alike, by image, by attributes, or both.

| given | distance |
| --- | --- |
| an image | the run's own: d_f / s_f + gamma d_w / s_a |
| attributes | sum over the wished ones of -log(probability of what is wished): `attribute_query.RULES["product"]` |
| both | as for an image, which has the wishes (1, or 0) instead of its own attributes, each with the largest weight |

So gamma slides from the image alone (0) to attributes alone. With an attribute run there is no feature: d_f is 0.
Nobody is identified: the nearest picture is the one that looks most alike, whoever it shows.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acrn_jax import files
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import attribute_query, calibration, explain, fusion
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.report import search_page, sheet
from acrn_jax.runs import attribute_calibration, nets, pair_calibration, picture_cache, search_table
from acrn_jax.runs.run import AcrnRun, AttributeRun, ReidCnnRun, Run, attribute_net, load
from acrn_jax.runs.workdir import write_json


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
    max_false_alarms: float | None = None,
    pairs: Path | None = None,
) -> dict[str, Any]:
    """The pictures below a folder that look most alike; writes results.json, search.html and grid.jpg.

    Args:
      workdir: an ACRN, ReIdCNN or attribute run.
      gallery: a folder of pictures.
      query: a picture; left out of the gallery where it lies in it.
      want: attributes that should show.
      avoid: attributes that should not.
      top: how many pictures.
      gamma: influence of attributes beside the image; default: the run's.
      out: the folder to write to; default: see `place_of_results`.
      data_dir: where prepared data is, for the calibration; default: where the attribute net was trained.
      attributes: where the attribute net is now; default: see `phases.locate`.
      explained: with the share of the feature and of each attribute in each distance.
      max_false_alarms: share of searches for people who are not there in which anything may pass (docs/verdict.md).
      pairs: a file of `calibrate`; default: what the run has.

    Raises:
      ValueError: nothing to search for, an unknown attribute, or what does not go together.
      FileNotFoundError: no run, no gallery or no query.
    """
    run = load(workdir, attributes=attributes)
    out = place_of_results(run.workdir, out)
    if data_dir and Path(data_dir, str(run.config.data.name)).is_dir():
        run = type(run)(run.workdir, run.config.changed({"data.dir": data_dir}))
    wishes = _wishes(want, avoid, run)
    _check(run, query, wishes, gamma, explained)
    calibrated = _calibrated(run, query, wishes, pairs)
    _check_verdict(calibrated, query, max_false_alarms)
    pictures = picture_cache.open_folder(gallery)
    found = Search(
        run,
        pictures,
        _open_query(query) if query else None,
        wishes,
        run.config.loss.gamma if gamma is None else gamma,
        out,
    )
    ranked = _without(query, gallery, pictures)
    files.check(found.out)
    terms, about = found.terms(data_dir)
    if not isinstance(calibrated, str):
        asked = pair_calibration.described(run, terms.formula)
        calibrated = pair_calibration.differing(calibrated.record.metric, asked) or calibrated
        _check_verdict(calibrated, query, max_false_alarms)
    distances = terms.distances()
    order = np.flatnonzero(ranked)[np.argsort(distances[ranked], kind="stable")][:top]
    entries = terms.entries(distances, order, pictures.file_name, wishes)
    if terms.distance == explain.ADDITIVE:
        terms.explain(entries, order, ranked if explained else None)
    told = found.tell_attributes(entries, order, terms.logits, data_dir)
    if query is not None:
        rules = {"max_false_alarms": max_false_alarms, "gallery": int(ranked.sum())}
        verdict = pair_calibration.tell(entries, distances[order], calibrated, **rules)
    else:
        verdict = None
    paths = {"workdir": str(workdir), "gallery": str(gallery), "query": str(query) if query else None}
    results = _results(found, paths, terms, about, int(ranked.sum()), entries) | {
        "attributes": told,
        "same_person": verdict,
    }
    write_json(found.out / "results.json", results)
    _write_pictures(found, order, results)
    return results


def place_of_results(workdir: Path, out: Path | None) -> Path:
    """`out`, else the folder search in a workdir, or of a net that ships where the user is; refuses a net's folder."""
    workdir = nets.place(workdir)
    out = out or (Path("search") if nets.is_net(workdir) else workdir / "search")
    nets.refuse_to_write(out)
    return out


def _results(
    found: "Search",
    paths: dict[str, str | None],
    terms: "Terms",
    about: dict[str, Any] | None,
    pictures: int,
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """The content of results.json."""
    return {
        "schema": 1,
        **paths,
        "want": [name for name, wish in found.wishes.items() if wish],
        "not": [name for name, wish in found.wishes.items() if not wish],
        "gamma": found.influence,
        "distance": terms.distance,
        "probabilities": about,
        "pictures": pictures,
        **{name: found.pictures.metadata[name] for name in ("unreadable", "passed_over", "notes")},
        "fingerprint": found.pictures.fingerprint,
        "note": search_table.NO_IDENTITY,
        "unknown": list(calibration.UNKNOWN_BAND),
        "results": entries,
    }


def _write_pictures(found: "Search", order: np.ndarray, results: dict[str, Any]) -> None:
    """grid.jpg and search.html: the query, if there is one, and the pictures that were found."""
    split, query = found.pictures, None
    pixels = [transforms.decode(split.image_bytes(int(i)), key=str(split.key[i])) for i in order]
    captions = [
        [
            f"{entry['rank']}  d {entry['distance']:.3g}{search_table.same_person(entry)}",
            entry["file"],
            *search_table.percentages(entry),
        ]
        for entry in results["results"]
    ]
    about = results["probabilities"]
    note = f"{calibration.told(about)} {search_table.rates(about, found.wishes)}" if about else ""
    if found.query is not None:
        query = transforms.decode(found.query.image_bytes(0), key=results["query"])
    title, notes = search_table.page_title(results), search_table.page_notes(results)
    page = search_page.render(results, pixels, query, title=title, notes=notes)
    files.write_text(found.out / "search.html", page)
    if query is not None and found.query is not None:
        pixels, captions = [query, *pixels], [["query", str(found.query.file_name[0])], *captions]
    sheet.write(found.out / "grid.jpg", pixels, captions, marked=int(found.query is not None), note=note)


@dataclasses.dataclass(frozen=True)
class Terms:
    """What the distances of one search are made of: G pictures, A attributes."""

    distance: str  # key of fusion.DISTANCES
    feature: list[np.ndarray] | None  # of the query [1, D] and of the pictures [G, D]
    names: tuple[str, ...]  # [A]
    row: np.ndarray | None  # [1, A] attributes of the query, wishes in their places
    columns: np.ndarray | None  # [G, A] of the pictures
    probabilities: np.ndarray  # [G, A] calibrated, where attributes are wished for
    formula: explain.Formula
    logits: np.ndarray | None = None  # [G, A] of the attribute net, where it was asked

    def distances(self) -> np.ndarray:
        """[G]"""
        terms = []
        if self.feature is not None:
            terms.append((1 / self.formula.feature_scale, fusion.distance_rows(self.distance, *self.feature)))
        if self.row is not None and self.columns is not None:
            weights = self.formula.weights
            rows = fusion.distance_rows(self.distance, weights * self.row, weights * self.columns)
            terms.append((self.formula.gamma / self.formula.attribute_scale, rows))
        return fusion.weighted_sum(*terms)(slice(0, 1))[0]

    def entries(
        self, distances: np.ndarray, order: np.ndarray, file_names: Sequence[str], wishes: Iterable[str]
    ) -> list[dict[str, Any]]:
        """What results.json tells of each picture in `order`."""
        column = {name: self.names.index(name) for name in wishes}
        return [
            {
                "rank": place + 1,
                "file": str(file_names[i]),
                "distance": float(distances[i]),
                "probabilities": {name: float(self.probabilities[i, a]) for name, a in column.items()},
            }
            for place, i in enumerate(order)
        ]

    def explain(self, entries: list[dict[str, Any]], order: np.ndarray, ranked: np.ndarray | None) -> None:
        """Adds "shares", which sum to the distance, to each entry, and with `ranked` [G] bool "rank_without"."""
        nothing = np.zeros((len(self.probabilities), 0), np.float32)
        of_query, of_gallery = self.feature or (nothing[:1], nothing)
        row = nothing[:1] if self.row is None else self.row
        columns = nothing if self.columns is None else self.columns
        parts = explain.shares(of_query, of_gallery, row, columns, self.formula)
        shown = [i for i in range(len(self.names)) if self.formula.weights[i]]
        for entry, i in zip(entries, order, strict=True):
            own = {"feature": float(parts.feature[i])} if self.feature else {}
            entry["shares"] = own | {self.names[a]: float(parts.attributes[i, a]) for a in shown}
        if ranked is None:
            return
        ranks = explain.ranks(parts, order, ranked=ranked)
        for place, entry in enumerate(entries):
            own = {"feature": int(ranks.without_feature[place])} if self.feature else {}
            entry["rank_without"] = own | {self.names[a]: int(ranks.without[place, a]) for a in shown}


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched for, and by which run."""

    run: AttributeRun | ReidCnnRun
    pictures: source.Split
    query: source.Split | None
    wishes: dict[str, int]  # attribute -> 1 wanted, 0 not wanted
    gamma: float
    out: Path

    @property
    def of_attributes(self) -> bool:
        return isinstance(self.run, AttributeRun)

    @property
    def influence(self) -> float | None:
        """Gamma, 0 where no attribute is compared; None where it weighs nothing, as there are attributes alone."""
        if self.query is None or self.of_attributes:
            return None
        return self.gamma if isinstance(self.run, AcrnRun) or self.wishes else 0.0

    def terms(self, data_dir: str | None) -> tuple[Terms, dict[str, Any] | None]:
        """What distances are made of, and what is known of the probabilities (None without wishes)."""
        run, config, feature = self.run, self.run.config, None
        acrn = isinstance(run, AcrnRun) and self.query is not None and self.gamma > 0
        net = net_of(run) if self.of_attributes or self.wishes or acrn else None
        if net:
            run.check_attributes()  # before the pictures are looked at
        if self.query is not None and not self.of_attributes:
            feature = self._outputs(run, "feature")
        distance = config.loss.distance if self.query is not None else explain.ADDITIVE
        nothing = np.zeros((len(self.pictures), 0), np.float32)
        if net is None:
            formula = explain.Formula(np.zeros(0, np.float32), 0.0, *self._scales())
            return Terms(distance, feature, (), None, None, nothing, formula), None
        logits = self._outputs(net, "attribute_logits")
        probabilities, about = nothing, None
        if self.wishes:
            curve, about = attribute_calibration.calibrated(net, data_dir)
            probabilities = curve.probabilities(logits[-1])
        shown = [REPRESENTATIONS[config.attributes.representation](values) for values in logits]
        row = shown[0].copy() if self.query is not None else np.zeros((1, len(net.names)), np.float32)
        columns = shown[-1].copy()
        wished = [net.names.index(name) for name in self.wishes]
        if wished and self.query is not None:
            columns[:, wished], row[:, wished] = probabilities[:, wished], list(self.wishes.values())
        elif wished:  # squared distances from 0 are the costs, which so add up as all distances do
            wanted = np.array(list(self.wishes.values()))
            columns[:, wished] = np.sqrt(attribute_query.RULES["product"](probabilities[:, wished], wanted))
        return Terms(
            distance, feature, net.names, row, columns, probabilities, self._formula(net, wished), logits[-1]
        ), about

    def tell_attributes(
        self, entries: list[dict[str, Any]], order: np.ndarray, logits: np.ndarray | None, data_dir: str | None
    ) -> dict[str, Any]:
        """Adds "attributes", name -> calibrated probability, to each entry; gives what is known of them.

        Where no attribute net is at hand they are empty, and "kind" is "none" with the reason as "why".
        """
        try:
            net = net_of(self.run)
            self.run.check_attributes()
        except (ValueError, FileNotFoundError) as error:  # a search by image alone needs none
            for entry in entries:
                entry["attributes"] = {}
            return {"kind": "none", "why": str(error)}
        curve, about = attribute_calibration.calibrated(net, data_dir)
        if logits is None:
            batch, shown = self.run.config.evaluate.batch, self.pictures.take(order)
            found = picture_cache.outputs(net, shown, "attribute_logits", batch=batch)
        else:
            found = logits[order]
        for entry, row in zip(entries, curve.probabilities(found), strict=True):
            entry["attributes"] = {name: float(p) for name, p in zip(net.names, row, strict=True)}
        return about

    def _outputs(self, net, name):
        """What a net says about the query, if there is one, and about the pictures, which often have it among them."""
        splits = [self.pictures] if self.query is None else [self.pictures, self.query]
        batch = self.run.config.evaluate.batch
        return [picture_cache.outputs(net, split, name, batch=batch) for split in splits][::-1]

    def _formula(self, net, wished):
        weights, gamma, scales = np.zeros(len(net.names), np.float32), self.gamma, (1.0, 1.0)
        if self.query is None:
            gamma = 1.0
        elif self.of_attributes:
            weights, gamma = np.ones(len(net.names), np.float32), 1.0
        else:
            scales = self._scales()
            if isinstance(self.run, AcrnRun):
                weights = np.array(self.run.weights(self.run.training_attributes(out=picture_cache.place_of(self.run))))
        weights[wished] = np.abs(weights).max() or 1.0
        return explain.Formula(weights, gamma, *scales)

    def _scales(self):
        if not isinstance(self.run, ReidCnnRun):
            return 1.0, 1.0
        return self.run.scales["feature"], self.run.scales["attribute"]


def net_of(run: Run) -> AttributeRun:
    """The attribute net that a run is, or names.

    Raises:
      ValueError: it names none.
      FileNotFoundError: there is none where it says.
    """
    if not isinstance(run, AttributeRun) and not run.config.attributes.from_:
        raise ValueError(
            "The run has no attribute net (config.attributes.from is not set), so nothing is known of any attribute."
        )
    return attribute_net(run.workdir if isinstance(run, AttributeRun) else str(run.config.attributes.from_))


def _wishes(want, avoid, run) -> dict[str, int]:
    """{attribute: 1 wanted, 0 not wanted}, in the order of the flags."""
    if not (want or avoid):
        return {}
    check_names(net_of(run).names, (*want, *avoid))
    if both := set(want) & set(avoid):
        raise ValueError(f"{', '.join(sorted(both))} cannot be wanted and not wanted; drop one.")
    return dict.fromkeys(want, 1) | dict.fromkeys(avoid, 0)


def check_names(known: Sequence[str], asked: Iterable[str]) -> None:
    """ValueError, with the nearest ones, where an attribute is asked for that the net does not know."""
    for name in asked:
        if name not in known:
            near = [other for other in known if name.lower() in other.lower()]
            near = near[:3] or difflib.get_close_matches(name, known, n=3, cutoff=0.4)
            hint = f"did you mean {' or '.join(map(repr, near))}? It knows" if near else "it knows"
            raise ValueError(f"The attribute net knows no {name!r}; {hint} {', '.join(known)}.")


def _check(run, query, wishes, gamma, explained) -> None:
    alone = isinstance(run, AttributeRun)
    if not query and not wishes:
        raise ValueError("There is nothing to search for; give --query=IMAGE, --want=ATTRIBUTE, --not=ATTRIBUTE.")
    if gamma is not None and (not query or alone):
        lacks = "an attribute run has no feature" if query else "there is no --query"
        raise ValueError(f"--gamma weighs attributes against an image, but {lacks}; leave it out.")
    if gamma is not None and not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"--gamma is {gamma}; give 0 for the image alone, more for more of the attributes.")
    if gamma and not alone and not isinstance(run, AcrnRun) and not wishes:
        raise ValueError("A ReIdCNN has learned no attribute weights, so --gamma wants --want or --not too.")
    if query and explained:
        explain.check_additive(run.config.loss.distance)


def _calibrated(
    run: Run, query: Path | None, wishes: dict[str, int], file: Path | None
) -> pair_calibration.PairCurve | str:
    """What tells one person from two by a distance, before it is known which one; else why there is none."""
    if file is not None and query is None:
        raise ValueError("--pairs tells whether pictures show the query's person, but there is no --query.")
    if query is None:
        return "there is no query"
    if wishes:
        return "the wished attributes make the distance another one than that which was calibrated"
    found, why = pair_calibration.find(run, file)
    return found or why


def _check_verdict(found: pair_calibration.PairCurve | str, query: Path | None, max_false_alarms: float | None) -> None:
    """ValueError where a share of false alarms is asked for that cannot be told."""
    if max_false_alarms is None:
        return
    if query is None:
        raise ValueError("--max_false_alarms says which pictures may be the query's person, but there is no --query.")
    if isinstance(found, str):
        raise ValueError(f"--max_false_alarms cannot be kept: {found}.")
    found.threshold(max_false_alarms, 1)  # refuses what was not measured


def _without(query: Path | None, gallery: Path, pictures: source.Split) -> np.ndarray:
    """[G] which pictures are ranked: all but the query, where it lies among them."""
    ranked = np.array([query is None or (gallery / n).resolve() != query.resolve() for n in pictures.file_name])
    if not ranked.any():
        raise ValueError(f"{gallery} holds no picture beside the query; name a folder with more.")
    return ranked


def _open_query(query: Path) -> source.Split:
    if not query.is_file():
        raise FileNotFoundError(f"There is no picture {query}; --query takes an image file.")
    return source.open_files([query], [query.name], name=str(query))
