"""What a table of scores cannot say by itself: that its distances look like no distances. Hints, never errors."""

import numpy as np

from acrn_jax.evaluation.ranking import DistanceFn, Result

_LOOKED_AT = 16  # queries
_EQUAL = 1e-6  # of a distance, float32's rounding


def hints(result: Result, distances: np.ndarray | DistanceFn, *, of: str = "features") -> list[str]:
    """Sentences about one method, none where nothing is odd.

    Args:
      result: of `ranking.evaluate`.
      distances: what it ranked.
      of: "distances" where these came as they are, which may be similarities.
    """
    found, chance = [], f"random ones give an mAP of {100 * result.chance:.1f} % under this protocol and these labels"
    sample = np.flatnonzero(result.counted)
    sample = sample[:: -(-len(sample) // _LOOKED_AT)]
    rows = np.asarray(distances(sample) if callable(distances) else distances[sample])
    if rows.shape[1] > 1 and np.all(np.ptp(rows, axis=1) <= _EQUAL * np.abs(rows).max(axis=1)):
        found.append(
            f"A query is equally far from all gallery images, at least in the {len(sample)} queries looked at, so the "
            f"order is that of the files; {chance}. Are the features the same for all images?"
        )
        return found
    precision = result.per_query["mAP_precision"][result.counted]
    error = np.std(precision) / np.sqrt(len(precision))
    if result.metrics["mAP_precision"] + 3 * error < result.chance:
        if of == "distances":
            reason = "Are these similarities? Distances are wanted, small for what is alike: save 1 - similarity."
        else:
            reason = "Features that tell apart cameras rather than people, or the wrong distance, give such scores."
        found.append(
            f"The mAP of {100 * result.metrics['mAP_precision']:.1f} % is far below chance: {chance}. {reason}"
        )
    return found
