"""Results of several seeds as one, and whether results belong together at all."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from acrn_jax import results, schema
from acrn_jax.evaluation.metrics import METRICS
from acrn_jax.report import cells
from acrn_jax.results import Estimate, Results, Value, Weight

SAME = (  # in all runs that share a table
    "dataset", "split", "protocol", "protocol_options", "no_match", "fingerprint", "queries", "gallery", "partial",
    "dev", "unfinished",
)  # fmt: skip


class OverSeeds(Results):
    """The first seed's results, with scores, weights and the weights' correlation as `Estimate`s over all seeds."""

    runs_aggregated: int = 1
    excluded: tuple[str, ...] = ()  # methods that some seed lacks


def aggregate(seeds: Sequence[Results]) -> OverSeeds:
    """Results of several seeds as one; of a single seed they are its own.

    Args:
      seeds: results of one seed each, all on the same data and protocol.

    Raises:
      ValueError: no run, or runs of different data sets, protocols or fingerprints; names the difference.
    """
    if not seeds:
        raise ValueError("There are no results to aggregate; give at least one run.")
    check_same(seeds, [f"run {i + 1}" for i in range(len(seeds))])
    entries = dict(vars(seeds[0]))
    if len(seeds) == 1:
        return OverSeeds(**entries)
    names = method_names(seeds[0])
    common = [name for name in names if all(name in seed.methods for seed in seeds)]
    entries |= {
        "methods": {
            name: {metric: estimate(seed.methods[name].get(metric) for seed in seeds) for metric in METRICS}
            for name in common
        },
        "weights": tuple(_weights_over(seeds)),
        "spearman_weight_reliability": estimate(seed.spearman_weight_reliability for seed in seeds),
        "runs_aggregated": len(seeds),
        "excluded": tuple(dict.fromkeys(m for seed in seeds for m in method_names(seed) if m not in common)),
    }
    return OverSeeds(**entries)


def _weights_over(seeds: Sequence[Results]) -> Iterable[Weight]:
    """The weights of attributes that all seeds have."""
    by_name = [{weight.name: weight for weight in seed.weights or ()} for seed in seeds]
    for name, first in by_name[0].items():
        if all(name in weights for weights in by_name):
            yield Weight(
                name=name,
                weight=estimate(weights[name].weight for weights in by_name),
                reliability=first.reliability,  # a property of the data, not of a seed
                accuracy=estimate(weights[name].accuracy for weights in by_name),
                between_within=estimate(weights[name].between_within for weights in by_name),
            )


def method_names(of: Results) -> list[str]:
    """The methods that results hold, the known ones first and in schema.METHODS' order."""
    known = [name for name in schema.METHODS if name in of.methods]
    return known + [name for name in of.methods if name not in schema.METHODS]


def check_same(runs: Sequence[Results], names: Sequence[str]) -> None:
    """Raises ValueError unless all runs were measured on the same images by the same rules; names the difference."""
    for name, run in zip(names, runs, strict=True):
        for key in SAME:
            first, other = (getattr(one, key) for one in (runs[0], run))
            if first != other:
                raise ValueError(
                    f"Results of different {key} do not belong in one table: {names[0]} has {first!r}, "
                    f"{name} has {other!r}; evaluate them on the same prepared data with the same protocol."
                )


def check_inputs(runs: Sequence[Results], names: Sequence[str]) -> None:
    """Raises ValueError unless all runs were made with one attribute net and of one training set; names both.

    Results of older versions do not tell, and pass.
    """
    for kind, what in (("attributes", "attribute nets"), ("data", "training images")):
        sources = [(name, results.source(run.made_of, kind)) for name, run in zip(names, runs, strict=True)]
        known = [(name, source) for name, source in sources if source]
        for name, source in known[1:]:
            first_name, first = known[0]
            if source.fingerprint != first.fingerprint:
                raise ValueError(
                    f"Seeds of different {what} have no common mean: {first_name} has {first.name} (fingerprint "
                    f"{first.fingerprint[:12]}), {name} has {source.name} ({source.fingerprint[:12]}); keep each "
                    "in a --workdir of its own."
                )


def estimate(values: Iterable[Value]) -> Estimate | None:
    """Mean, standard deviation and 95 % t-interval; None if a run has no value, the latter two NaN for a single run."""
    numbers = [cells.mean(value) for value in values]
    if not numbers or not all(cells.finite(number) for number in numbers):
        return None
    array = np.array(numbers, np.float64)
    if len(array) == 1:
        return Estimate(float(array[0]), math.nan, math.nan)
    std = float(np.std(array, ddof=1))
    return Estimate(float(np.mean(array)), std, t_quantile(len(array) - 1) * std / math.sqrt(len(array)))


def t_quantile(degrees: int, coverage: float = 0.95) -> float:
    """Half-width in standard errors that covers `coverage` of Student's t with `degrees` >= 1 degrees of freedom.

    With t = sqrt(degrees) tan(angle) the density becomes cos(angle)^(degrees - 1) on [0, pi / 2): no tail to cut off.
    """
    angle = np.linspace(0.0, math.pi / 2, 100_001)
    density = np.cos(angle) ** (degrees - 1)
    share = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(degrees) * math.tan(float(np.interp(coverage, share / share[-1], angle)))
