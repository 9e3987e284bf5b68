"""The rows of the result table, each a distance; the fusion factor that validation chooses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from acrn_jax.evaluation import fusion, kissme, protocols, ranking
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import METHODS, Labels

FUSION_FACTOR = 0.5  # of the paper's ReIdCNN+Attributes
CANDIDATES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0)


class Features(NamedTuple):
    """What one run's net says about query and gallery."""

    query: np.ndarray  # [Q, D]
    gallery: np.ndarray  # [G, D]
    scale: float = 1.0  # s_f of that run; 1 for distance_scale raw


class Attributes(NamedTuple):
    """What the attribute net says about query, gallery and the re-id net's training images."""

    query: np.ndarray  # [Q, A] probabilities
    gallery: np.ndarray  # [G, A]
    scale: float = 1.0  # s_a of the ACRN run; 1 for distance_scale raw
    train: np.ndarray | None = None  # [N, A]; without it there is no Attributes-KISSME
    train_labels: Labels | None = None  # [N]


def rows(
    acrn: Features,
    attributes: Attributes,
    weights: np.ndarray,
    *,
    gamma: float,
    distance: str = "squared_euclidean",
    baseline: Features | None = None,
    tuned_factor: float | None = None,
    kissme_options: dict[str, Any] | None = None,
) -> dict[str, DistanceFn]:
    """The methods that the inputs allow, in the order of schema.METHODS, each a distance for `ranking.evaluate`.

    | name | distance |
    | --- | --- |
    | ReIdCNN | d_f of the baseline |
    | Attributes | d_a: unweighted, nothing learned on the target data |
    | Attributes-KISSME | Mahalanobis distance of the probabilities, fitted on the training images |
    | ReIdCNN+Attributes | d_f / s_f of the baseline + 0.5 d_a / s_a |
    | ACRN | d_f / s_f of ACRN + gamma d_w / s_a |
    | Attributes-weighted | d_w |
    | ReIdCNN+Attributes-tuned | as above with `tuned_factor` for 0.5 |
    | ReIdCNN+Attributes-weighted | d_f / s_f of the baseline + gamma d_w / s_a |

    d_w is the distance of w * a. s_a is the ACRN run's everywhere: all rows see the same attributes.

    Args:
      acrn: the ACRN run's features.
      attributes: the attribute net's probabilities.
      weights: [A] the learned w.
      gamma: influence of attributes in ACRN.
      distance: key of fusion.DISTANCES.
      baseline: the ReIdCNN run's features; None: the four rows with ReIdCNN are missing.
      tuned_factor: from `tune_factor`; None: ReIdCNN+Attributes-tuned is missing.
      kissme_options: keyword arguments of `kissme.fit`.

    Source: Schumann and Stiefelhagen, CVPRW 2017, section 3.3 and table 3; the last three rows are this project's.
    """
    weights = np.asarray(weights, np.float64)  # so that no product is rounded before distances are taken
    if weights.shape != attributes.query.shape[1:]:
        raise ValueError(f"{attributes.query.shape[1]} attributes want as many weights, got {list(weights.shape)}.")
    plain = fusion.distance_rows(distance, attributes.query, attributes.gallery)
    weighted = fusion.distance_rows(distance, weights * attributes.query, weights * attributes.gallery)

    def fused(feature: DistanceFn, scale: float, attribute: DistanceFn, factor: float) -> DistanceFn:
        return fusion.weighted_sum((1 / scale, feature), (factor / attributes.scale, attribute))

    own = fusion.distance_rows(distance, acrn.query, acrn.gallery)
    methods = {"Attributes": plain, "ACRN": fused(own, acrn.scale, weighted, gamma), "Attributes-weighted": weighted}
    if attributes.train is not None and attributes.train_labels is not None:
        people, cameras = attributes.train_labels.person_id, protocols.telling_cameras(attributes.train_labels)
        metric = kissme.fit(attributes.train, people, cameras, **(kissme_options or {}))
        methods["Attributes-KISSME"] = kissme.rows(metric, attributes.query, attributes.gallery)
    if baseline is not None:
        methods["ReIdCNN"] = base = fusion.distance_rows(distance, baseline.query, baseline.gallery)
        methods["ReIdCNN+Attributes"] = fused(base, baseline.scale, plain, FUSION_FACTOR)
        methods["ReIdCNN+Attributes-weighted"] = fused(base, baseline.scale, weighted, gamma)
        if tuned_factor is not None:
            methods["ReIdCNN+Attributes-tuned"] = fused(base, baseline.scale, plain, tuned_factor)
    return {name: methods[name] for name in METHODS if name in methods}


def tune_factor(
    feature: np.ndarray,
    attributes: np.ndarray,
    labels: Labels,
    *,
    distance: str = "squared_euclidean",
    feature_scale: float = 1.0,
    attribute_scale: float = 1.0,
    candidates: Sequence[float] = CANDIDATES,
) -> tuple[float, dict[float, float]]:
    """Factor in ReIdCNN+Attributes-tuned with the best mAP_precision on held-out people, never on query or gallery.

    Every validation image is a query, ranked against all others: of other cameras where cameras are known and somebody
    is seen by two (market1501), else of any (all_vs_all). People with nothing to find are skipped.

    Args:
      feature: [N, D] of the baseline, validation people alone.
      attributes: [N, A] probabilities.
      labels: [N].
      distance: key of fusion.DISTANCES.
      feature_scale: s_f of the baseline.
      attribute_scale: s_a.
      candidates: factors to try; of equally good ones the first wins.

    Returns:
      the factor, and the mAP_precision of each candidate.
    """
    shown = labels.person_id > 0
    labels = Labels(labels.person_id[shown], labels.camera_id[shown])
    feature, attributes = feature[shown], attributes[shown]
    protocol = protocols.ALL_VS_ALL if protocols.telling_cameras(labels) is None else protocols.MARKET1501
    base, plain = (fusion.distance_rows(distance, values, values) for values in (feature, attributes))
    scores = {}
    for factor in candidates:
        fused = fusion.weighted_sum((1 / feature_scale, base), (factor / attribute_scale, plain))
        result = ranking.evaluate(fused, labels, labels, protocol=protocol, no_match="skip")
        scores[factor] = result.metrics["mAP_precision"]
    return max(scores, key=scores.__getitem__), scores
