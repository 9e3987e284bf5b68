"""Studies that train no net: settings of finished runs' distances, all of them scored in one compiled program.

Every such setting is a sum of given distances ("terms"), factor by term: gamma and the fusion factor are factors; with
squared distances so are attribute weights, since d_w = sum_k w_k^2 (q_k - g_k)^2, and leaving an attribute out is a
factor of 0. evaluation/many.py ranks all of them at once.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from acrn_jax import results, runs
from acrn_jax.evaluation import attributes as attribute_metrics
from acrn_jax.evaluation import fusion, kissme, many, methods, protocols, ranking
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import Labels
from acrn_jax.studies import choosing, finished, table, weight_training
from acrn_jax.studies.finished import FinishedRun
from acrn_jax.studies.plan import find

Setting = dict[str, np.ndarray]  # method -> factors [T]


class Sweep(NamedTuple):
    """Settings over terms."""

    terms: list[DistanceFn]  # [T]
    settings: dict[str, Setting]  # arm -> method -> factors
    reference: str
    numbers: Mapping[tuple[str, str], Mapping[str, float]] = {}  # (arm, method) -> what else its row says


# Settings


def gamma(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """Influence of the attributes at test: of weighted ones on ACRN and ReIdCNN, of plain ones on ReIdCNN."""
    own = float(run.config.loss.gamma)
    tried = np.unique(np.r_[own, 0, np.geomspace(0.01, 10, 40)] if values is None else np.r_[own, values])
    terms, rows = _feature_terms(run)
    for name, weights in (("weighted", run.weights), ("plain", np.ones_like(run.weights))):
        rows[name] = len(terms)
        terms.append(_attribute_rows(run, weights))
    settings = {}
    for value in tried:
        factor = value / run.attributes.scale
        settings[f"{value:.3g}"] = {
            method: _factors(len(terms), {rows[feature]: 1 / scale, rows[kind]: factor})
            for method, feature, kind, scale in _fusions(run)
        }
    return Sweep(terms, settings, f"{own:.3g}")


def attribute_weights(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """Learned weights against uniform ones, their powers, the largest alone, shuffled ones, rates on the source.

    `values`: powers of |w|. All but "uniform" have the mean square of the learned ones: what differs is the shape.
    """
    w = np.asarray(run.weights, np.float64)

    def as_loud(weights):
        return weights * np.sqrt(np.mean(w**2) / max(np.mean(np.square(weights)), 1e-30))

    chosen = {"learned": w, "uniform": np.ones_like(w), "uniform_as_loud": as_loud(np.ones_like(w))}
    for power in (0.5, 2.0, 4.0) if values is None else values:
        chosen[f"power_{power:g}"] = as_loud(np.abs(w) ** power)
    order = np.argsort(-np.abs(w))
    for count in (5, 10, 20):
        if count < len(w):
            chosen[f"largest_{count}"] = as_loud(np.where(np.isin(np.arange(len(w)), order[:count]), w, 0))
    for seed in range(3):
        chosen[f"shuffled_{seed}"] = np.random.default_rng(seed).permutation(w)
    scored = runs.recognition_of(Path(str(run.config.attributes.from_)))
    rates = scored.rates() if scored else {}
    if all(name in rates for name in run.names):
        chosen["recognition"] = as_loud(np.array([max(rates[name] - 0.5, 0) for name in run.names]))
    return _of_weights(run, chosen, "learned")


def leave_one_out(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """All attributes against all but one."""
    keep = ~np.eye(len(run.names), dtype=bool)
    without = {f"without_{name}": run.weights * keep[i] for i, name in enumerate(run.names)}
    return _of_weights(run, {"all": run.weights, **without}, "all")


def kissme_ridge(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """The ridge of Attributes-KISSME, projected and not."""
    settings = run.config.evaluate
    options = {"pca": settings.kissme_pca or None}
    tried = np.geomspace(1e-5, 1, 11) if values is None else np.asarray(values)
    chosen = {f"{r:.3g}": (float(r), settings.kissme_project) for r in np.unique(np.r_[settings.kissme_ridge, tried])}
    reference = f"{settings.kissme_ridge:.3g}"
    chosen |= {f"{r:.3g}_not_projected": (float(r), False) for r in tried if settings.kissme_project}
    a, terms = run.attributes, []
    labels = cast(Labels, a.train_labels)  # a run has them
    cameras = protocols.telling_cameras(labels)
    for ridge, project in chosen.values():
        metric = kissme.fit(a.train, labels.person_id, cameras, ridge=ridge, project=project, **options)
        terms.append(kissme.rows(metric, a.query, a.gallery))
    rows = np.eye(len(terms), dtype=np.float32)
    return Sweep(terms, {arm: {"Attributes-KISSME": rows[i]} for i, arm in enumerate(chosen)}, reference)


def metric(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """The distance at test, for features and for attributes, each by itself; also of vectors of length 1."""
    reference, arms_of, terms = run.config.loss.distance, {}, []
    for kind in (*fusion.DISTANCES, "unit_length"):
        of = {
            "ACRN, feature alone": run.own[:2],
            "Attributes": run.attributes[:2],
            "Attributes-weighted": tuple(run.weights * values for values in run.attributes[:2]),
        } | ({"ReIdCNN": run.base[:2]} if run.base else {})
        for method, pair in of.items():
            if kind == "unit_length":
                pair = [v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-12) for v in pair]
            arms_of.setdefault(kind, {})[method] = len(terms)
            terms.append(fusion.distance_rows("squared_euclidean" if kind == "unit_length" else kind, *pair))
    return Sweep(
        terms,
        {kind: {m: _factors(len(terms), {row: 1}) for m, row in of.items()} for kind, of in arms_of.items()},
        reference,
    )


def attribute_margin(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """Margin of L_att: w trained anew and alone for each, on the run's own batches."""
    own = float(run.config.loss.attribute_margin)
    tried = np.unique(np.r_[own, np.geomspace(0.02, 1, 9) if values is None else values])
    trained = weight_training.train_weights(run, tried.tolist())
    return _of_weights(run, {f"{v:.3g}": w for v, w in zip(tried, trained, strict=True)}, f"{own:.3g}")


def recognition(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """An attribute net that knows the target better: shares of its answers are the truth instead.

    Which ones is drawn for each image and attribute, the same and more at a larger share. w is trained anew by L_att on
    the run's own batches for each. What all are compared with is ReIdCNN alone.
    """
    if run.base is None:
        raise ValueError(f"{run.folder} was evaluated without its ReIdCNN, whose rows this study is about.")
    if run.config.attributes.representation == "logits":
        raise ValueError(f"{run.folder} was trained with logits, which truth has none of; use probabilities or binary.")
    if not run.truth or max(labels.max(initial=-1) for labels in run.truth) < 0:
        raise ValueError(f"{run.results.dataset} has no attribute labels to recognise; PETA and built-in data have.")
    shares = np.unique(np.r_[0, np.linspace(0, 1, 11) if values is None else values])
    if shares[0] < 0 or shares[-1] > 1:
        raise ValueError(f"Shares of true answers lie between 0 and 1, got {shares.tolist()}.")
    rng = np.random.default_rng(run.config.seed)
    draws = [rng.random(labels.shape) for labels in run.truth]
    kind, margin = run.config.loss.distance, run.config.loss.attribute_margin
    people = np.r_[run.query.person_id, run.gallery.person_id] > 0
    better = []
    for share in shares:
        query, gallery, train = (
            np.where((draw < share) & (labels >= 0), labels, predictions).astype(np.float32)
            for draw, labels, predictions in zip(
                draws, run.truth, (*run.attributes[:2], cast(np.ndarray, run.attributes.train)), strict=True
            )
        )
        scale = run.attributes.scale
        if run.config.loss.distance_scale == "unit_mean":
            scale *= _mean_distance(kind, train) / _mean_distance(kind, run.attributes.train)
        better.append(run.attributes._replace(query=query, gallery=gallery, train=train, scale=scale))
        found = attribute_metrics.evaluate(np.r_[query, gallery][people], np.concatenate(run.truth[:2])[people])
        print(f"{run.name}: {share:.0%} true answers, balanced accuracy {found.mA:.1%}", flush=True)
    learned = weight_training.train_weights(run, [margin] * len(shares), attributes=[of.train for of in better])
    terms = [fusion.distance_rows(kind, run.base.query, run.base.gallery)]
    alone = {0: 1 / run.base.scale}
    made = {"ReIdCNN": {"ReIdCNN+Attributes": alone, "ReIdCNN+Attributes-weighted": alone}}
    for share, of, w in zip(shares, better, learned, strict=True):
        for method, weights, factor in (
            ("ReIdCNN+Attributes", np.ones_like(w), methods.FUSION_FACTOR),
            ("ReIdCNN+Attributes-weighted", w, run.config.loss.gamma),
        ):
            made.setdefault(f"{share:.3g}", {})[method] = alone | {len(terms): factor / of.scale}
            terms.append(_attribute_rows(run._replace(attributes=of), weights))
    settings = {arm: {method: _factors(len(terms), of) for method, of in rows.items()} for arm, rows in made.items()}
    return Sweep(terms, settings, "ReIdCNN")


def held_out(run: FinishedRun, values: Sequence[float] | None) -> Sweep:
    """Attributes as loud as people say whom the run held out of training, against none; see choosing.py.

    `values`: gammas to choose from.
    """
    found = choosing.choose(run, finished.held_out(run), values)
    terms, places = _feature_terms(run)
    settings: dict[str, Setting] = {}
    for arm, of in found.items():
        settings[arm] = {}
        for method, choice in of.items():
            name, feature = ("own", run.own) if method == "ACRN" else ("base", cast(methods.Features, run.base))
            settings[arm][method] = {places[name]: 1 / feature.scale}
            if choice.rows is not None and choice.factor:
                settings[arm][method][len(terms)] = choice.factor
                terms.append(choice.rows)
    return Sweep(
        terms,
        {arm: {method: _factors(len(terms), parts) for method, parts in of.items()} for arm, of in settings.items()},
        choosing.NONE,
        {
            (arm, method): {"gamma": choice.gamma, "weights": choice.weights}
            for arm, of in found.items()
            for method, choice in of.items()
        },
    )


def _mean_distance(kind, values) -> float:
    """Over all pairs of images."""
    rows, blocks = fusion.distance_rows(kind, values, values), range(0, len(values), 1024)
    return sum(rows(slice(at, at + 1024)).sum(dtype=np.float64) for at in blocks) / len(values) ** 2


SWEEPS: dict[str, Callable[[FinishedRun, Sequence[float] | None], Sweep]] = {
    "gamma": gamma,
    "attribute_weights": attribute_weights,
    "leave_one_out": leave_one_out,
    "kissme_ridge": kissme_ridge,
    "metric": metric,
    "attribute_margin": attribute_margin,
    "recognition": recognition,
    "held_out": held_out,
}


def _feature_terms(run):
    kind, terms, rows = run.config.loss.distance, [], {}
    for name, of in (("own", run.own), ("base", run.base)):
        if of is not None:
            rows[name] = len(terms)
            terms.append(fusion.distance_rows(kind, of.query, of.gallery))
    return terms, rows


def _fusions(run):
    """(method, whose features, which attributes, scale of the features)."""
    yield "ACRN", "own", "weighted", run.own.scale
    if run.base is not None:
        yield "ReIdCNN+Attributes-weighted", "base", "weighted", run.base.scale
        yield "ReIdCNN+Attributes", "base", "plain", run.base.scale


def _attribute_rows(run, weights):
    return fusion.distance_rows(
        run.config.loss.distance, *(np.asarray(weights, np.float32) * values for values in run.attributes[:2])
    )


def _of_weights(run: FinishedRun, weights: dict[str, np.ndarray], reference: str) -> Sweep:
    """Settings that differ in the attribute weights: ACRN, ReIdCNN+Attributes-weighted, Attributes-weighted."""
    terms, rows = _feature_terms(run)
    first, squares = len(terms), None
    if run.config.loss.distance == "squared_euclidean":  # additive: one term an attribute serves all weights
        squares = {arm: np.square(w, dtype=np.float64) for arm, w in weights.items()}
        terms += [_attribute_rows(run, one) for one in np.eye(len(run.names))]
    else:
        terms += [_attribute_rows(run, w) for w in weights.values()]
    settings = {}
    for number, arm in enumerate(weights):
        part = np.zeros(len(terms))
        part[first:] = squares[arm] if squares else np.eye(len(weights))[number]
        settings[arm] = {"Attributes-weighted": part.astype(np.float32)}
        for method, feature, kind, scale in _fusions(run):
            if kind == "weighted":
                whole = part * run.config.loss.gamma / run.attributes.scale
                whole[rows[feature]] = 1 / scale
                settings[arm][method] = whole.astype(np.float32)
    return Sweep(terms, settings, reference)


def _factors(count, values):
    factors = np.zeros(count, np.float32)
    for row, value in values.items():
        factors[row] = value
    return factors


# Scores


def study(
    name: str, workdirs: Sequence[Path], values: Sequence[float] | None = None, *, out: Path | None = None
) -> results.StudyTable:
    """The table of one of SWEEPS over finished runs, its seeds (or splits x seeds); `out` as of `finished.load`."""
    sweep_of, scores, reference = find(SWEEPS, name, "study on features"), {}, ""
    abouts: list[tuple[Path, results.Results]] = []
    for workdir in workdirs:
        run = finished.load(Path(workdir), out=out)
        table.check_setting(abouts := [*abouts, (run.folder, run.results)])
        replicate = run.name if all(run.name not in of for of in scores.values()) else f"{run.name} {run.folder}"
        began, sweep = time.monotonic(), sweep_of(run, values)
        if reference and sweep.reference != reference:
            raise ValueError(
                f"{run.folder} was trained with {name} {sweep.reference}, the runs before it with {reference}; "
                "they are not seeds of one setting."
            )
        reference = sweep.reference
        for arm, found in score(run, sweep).items():
            scores.setdefault(arm, {})[replicate] = found
        count = sum(map(len, sweep.settings.values()))
        print(f"{run.folder}: {count} settings in {time.monotonic() - began:.1f} s", flush=True)
    return table.build_table(name, scores, reference=reference, resamples=2000)


def score(run: FinishedRun, sweep: Sweep) -> dict[str, table.Scores]:
    """The scores of all settings of a sweep, as `ranking.evaluate` gives them one by one."""
    labels = [(arm, method) for arm, of in sweep.settings.items() for method in of]
    factors = np.stack([sweep.settings[arm][method] for arm, method in labels])
    evaluation = run.config.evaluate
    protocol = protocols.named(
        run.results.protocol,
        repeats=evaluation.draws,
        seed=evaluation.draw_seed,
        probe_view=str(evaluation.probe_view),
    )
    if run.keys:
        protocol = protocols.without_itself(protocol, *run.keys)

    no_match = cast(ranking.NoMatch, run.results.no_match or "error")

    def alone(row):
        parts = [(float(f), sweep.terms[t]) for t, f in enumerate(row) if f]
        rows = fusion.weighted_sum(*(parts or [(0.0, sweep.terms[0])]))
        return ranking.evaluate(rows, run.query, run.gallery, protocol=protocol, no_match=no_match)

    first = alone(factors[0])  # raises what is to be raised, and tells which queries count
    if protocol.draw:
        found = [first.per_query, *(alone(row).per_query for row in factors[1:])]
        each = {metric: np.stack([one[metric] for one in found]) for metric in first.per_query}
    else:
        each = many.per_query(sweep.terms, factors, run.query, run.gallery, protocol=protocol)
    result: dict[str, table.Scores] = {}
    groups = run.query.person_id[first.counted]
    for place, (arm, method) in enumerate(labels):
        empty = table.Scores(run.results, {}, {}, groups, {})
        metrics, of = result.setdefault(arm, empty)[1:3]
        for metric, values in each.items():
            of[method, metric] = values[place][first.counted]
            metrics[method, metric] = float(of[method, metric].mean())
        for name, value in sweep.numbers.get((arm, method), {}).items():
            metrics[method, name] = float(value)
    return result
