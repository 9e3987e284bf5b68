"""Why two images are alike: what the feature and each attribute add to their distance, and what each one changes.

d(q, g) = d_f / s_f + gamma d_w / s_a is a sum over the feature and the attributes where distances are squared Euclidean
ones; roots and cosines of sums are not, so for those there are no shares.
"""

from typing import NamedTuple

import numpy as np

from acrn_jax.evaluation import protocols
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.schema import Labels

ADDITIVE = "squared_euclidean"
_CELLS = 1 << 22  # distances that are held at once


class Formula(NamedTuple):
    """How a run adds up d_f / s_f + gamma d_w / s_a."""

    weights: np.ndarray  # [A] w
    gamma: float
    feature_scale: float = 1.0  # s_f
    attribute_scale: float = 1.0  # s_a


class Shares(NamedTuple):
    """What adds up to n distances."""

    feature: np.ndarray  # [n] d_f / s_f
    attributes: np.ndarray  # [n, A] gamma w^2 (a_q - a_g)^2 / s_a

    @property
    def distance(self) -> np.ndarray:
        """[n]"""
        return self.feature + self.attributes.sum(axis=1)


class Ranks(NamedTuple):
    """Ranks, from 1, of n gallery images for one query."""

    now: np.ndarray  # [n] int
    without_feature: np.ndarray  # [n] int
    without: np.ndarray  # [n, A] int, without each attribute


class Confusions(NamedTuple):
    """n queries, each with the gallery image of another person that the feature takes for it; indices [n] int."""

    query: np.ndarray
    wrong: np.ndarray  # the nearest by d_f
    right: np.ndarray  # the right image that the whole distance finds before it


def check_additive(distance: str) -> None:
    """ValueError, with the reason, where a distance is not a sum over attributes."""
    if distance != ADDITIVE:
        raise ValueError(
            f"The run's distance is {distance}, which is no sum over attributes, so that none has a share in it; "
            f"shares are for runs with loss.distance={ADDITIVE}."
        )


def shares(
    query_feature: np.ndarray,
    feature: np.ndarray,
    query_attributes: np.ndarray,
    attributes: np.ndarray,
    formula: Formula,
    *,
    distance: str = ADDITIVE,
) -> Shares:
    """The exact share of the feature and of each attribute in the squared distances of n pairs.

    Args:
      query_feature: [n, D], or [1, D] for one query with n images.
      feature: [n, D] of the images.
      query_attributes: [n, A] or [1, A], as the distance sees them, without weights.
      attributes: [n, A].
      formula: of the run.
      distance: of the run; ValueError for one that does not add up.
    """
    check_additive(distance)
    differences = np.subtract(query_feature, feature, dtype=np.float64)
    of_feature = np.einsum("nd,nd->n", differences, differences) / formula.feature_scale
    weighted = formula.weights * np.subtract(query_attributes, attributes, dtype=np.float64)
    return Shares(of_feature, formula.gamma / formula.attribute_scale * weighted**2)


def ranks(found: Shares, images: np.ndarray, *, ranked: np.ndarray | None = None) -> Ranks:
    """Where a query's ranking puts some gallery images, and would put them without the feature or an attribute.

    Args:
      found: of the query and the whole gallery [G].
      images: [n] int, gallery indices.
      ranked: [G] bool, which gallery images are ranked at all; default: all.
    """
    whole = found.distance[:, None]
    settings = np.concatenate([whole, whole - found.feature[:, None], whole - found.attributes], axis=1)  # [G, 2 + A]
    place, rows = np.arange(len(settings))[:, None], []
    ranked = np.ones(len(settings), bool) if ranked is None else ranked
    for image in np.asarray(images):
        own = settings[image]
        before = (settings < own) | ((settings == own) & (place < image))
        rows.append(1 + before[ranked].sum(axis=0))
    table = np.array(rows).reshape(-1, settings.shape[1])
    return Ranks(table[:, 0], table[:, 1], table[:, 2:])


def confusions(
    feature: DistanceFn,
    combined: DistanceFn,
    query: Labels,
    gallery: Labels,
    *,
    protocol: protocols.Protocol,
    count: int,
) -> Confusions:
    """Different people whom the feature takes for one and the whole distance tells apart, nearest by feature first.

    The nearest image of another person by d_f lies before all right ones by d_f, and behind one by the whole distance.
    No two people are paired twice; distractors and junk are left out.

    Args:
      feature, combined: distances of queries [Q] and gallery [G].
      query, gallery: who is on them.
      protocol: what is left out.
      count: pairs at most.

    Source: Schumann and Stiefelhagen, CVPRW 2017, figure 1.
    """
    total, width = len(query.person_id), len(gallery.person_id)
    pairs, nobody, found = protocols.same_person(query, gallery), gallery.person_id < 1, []
    step = max(1, _CELLS // width)
    for block in (slice(start, min(start + step, total)) for start in range(0, total, step)):
        near, whole = (np.asarray(rows(block)) for rows in (feature, combined))  # [q, G]
        rows, columns = pairs(block)
        right = np.zeros(near.shape, bool)
        right[rows - block.start, columns] = True
        wrong_near = np.where(right | nobody, np.inf, near)
        excluded = protocol.excluded(query, gallery, rows, columns)
        right[rows[excluded] - block.start, columns[excluded]] = False
        wrong = wrong_near.argmin(axis=1)
        best = np.where(right, whole, np.inf).argmin(axis=1)
        row = np.arange(len(near))
        confused = wrong_near[row, wrong] < np.where(right, near, np.inf).min(axis=1)
        told_apart = right[row, best] & (whole[row, best] < whole[row, wrong])
        found += [
            (near[i, wrong[i]], block.start + i, wrong[i], best[i]) for i in np.flatnonzero(confused & told_apart)
        ]
    chosen, met = [], set()
    for _, i, wrong, best in sorted(found):
        people = frozenset((int(query.person_id[i]), int(gallery.person_id[wrong])))
        if people not in met and len(chosen) < count:
            met.add(people)
            chosen.append((i, wrong, best))
    return Confusions(*np.array(chosen, np.int64).reshape(-1, 3).T)
