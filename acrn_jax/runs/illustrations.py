"""Pictures for the report: rank lists (the paper's figure 3), and people taken for one another (figure 1)."""

import dataclasses
import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from acrn_jax import files
from acrn_jax.data import source, transforms
from acrn_jax.evaluation import explain, fusion, protocols, ranking
from acrn_jax.evaluation.ranking import DistanceFn
from acrn_jax.results import Confusions, RankLists
from acrn_jax.runs import workdir
from acrn_jax.runs.parts import DistanceParts
from acrn_jax.settings import Settings
from acrn_jax.train import parallel

RANK_LIST_LENGTH = 14  # gallery images of a rank list, as in the paper's figure 3
EXPLAINED = 3  # attributes that an image of a rank list, or a pair of people, is explained by
THUMBNAIL = 128  # pixels high


@dataclasses.dataclass(frozen=True)
class Shown:
    """One ranking of query and gallery, to be shown in the folder `out`."""

    out: Path
    config: Settings
    query: source.Split
    gallery: source.Split
    protocol: protocols.Protocol
    rows: DistanceFn
    made_of: DistanceParts | None

    def rank_lists(self, scored: ranking.Result) -> None:
        """rank_lists.json: the hardest queries and a random choice, with thumbnails and, where they add up, shares."""
        precision = np.where(scored.counted, scored.per_query["mAP_precision"], np.inf)
        count = min(self.config.evaluate.rank_lists, len(self.query))
        choices = {
            "hardest": np.argsort(precision, kind="stable")[:count],
            "random": np.random.default_rng(self.config.seed).permutation(len(self.query))[:count],
        }
        lists = {name: self._lists(chosen, scored) for name, chosen in choices.items()}
        workdir.write_json(self.out / "rank_lists.json", RankLists.parse({"query": lists}, strict=True).to_json())

    def _lists(self, chosen: np.ndarray, scored: ranking.Result) -> list[dict[str, Any]]:
        found = ranking.rank_list(
            self.rows,
            self.query.labels,
            self.gallery.labels,
            protocol=self.protocol,
            k=len(self.gallery),
            queries=chosen,
        )
        lists = []
        for q, order, distance, right in zip(chosen, found.order, found.distance, found.right, strict=True):
            places = shown_places(int(np.sum(order >= 0)), right)
            of_place = zip(
                places, *(x[places] for x in (order, distance, right)), self._shares(q, order[places]), strict=True
            )
            lists.append(
                {
                    **thumbnail(self.out, self.query, int(q)),
                    "average_precision": float(scored.per_query["mAP_precision"][q]),
                    "gallery": [
                        {
                            **thumbnail(self.out, self.gallery, int(g)),
                            "rank": int(place) + 1,
                            "distance": float(d),
                            "right": bool(r),
                            **more,
                        }
                        for place, g, d, r, more in of_place
                    ],
                }
            )
        return lists

    def _shares(self, query: int, gallery: np.ndarray) -> list[dict[str, Any]]:
        """Of the feature and of the attributes with the largest ones, an entry for each image."""
        made_of = self.made_of
        if not made_of or self.config.loss.distance != explain.ADDITIVE:
            return [{}] * len(gallery)
        parts = made_of.shares(np.full(len(gallery), query), gallery)
        return [
            {"shares": {"feature": float(f)} | {made_of.names[i]: float(a[i]) for i in np.argsort(-a)[:EXPLAINED]}}
            for f, a in zip(parts.feature, parts.attributes, strict=True)
        ]

    def confusions(self, recognition_rates: dict[str, Any] | None) -> None:
        """look_alikes.json: people whom the feature takes for one and attributes tell apart, as the paper's figure 1.

        `recognition_rates` are those of the attribute net, None where it was not scored.
        """
        made_of = self.made_of
        if made_of is None:
            raise ValueError("Without attributes nothing tells people apart whom the feature takes for one.")
        near = fusion.distance_rows(self.config.loss.distance, *made_of.own[:2])
        found = explain.confusions(
            near,
            self.rows,
            self.query.labels,
            self.gallery.labels,
            protocol=self.protocol,
            count=self.config.evaluate.rank_lists,
        )
        pairs = [self._pair(made_of, near, q, wrong, right) for q, wrong, right in zip(*found, strict=True)]
        about = {"representation": self.config.attributes.representation, "recognition": recognition_rates}
        workdir.write_json(self.out / "look_alikes.json", Confusions.of(about, pairs=pairs).to_json())

    def _pair(self, made_of: DistanceParts, near: DistanceFn, q: int, wrong: int, right: int) -> dict[str, Any]:
        """A query, the nearest wrong image by the feature, a right one, and the attributes that tell them apart."""
        query, gallery = made_of.attributes[:2]
        images, index = np.array([wrong, right]), np.array([q])
        by_feature, whole = (np.asarray(of(index))[0, images] for of in (near, self.rows))
        away, close = (made_of.weights * (gallery[images] - query[q])) ** 2
        explained = [int(i) for i in np.argsort(close - away, kind="stable")[:EXPLAINED]]
        entry: dict[str, Any] = {"query": thumbnail(self.out, self.query, int(q))}
        for place, name in enumerate(("wrong", "right")):
            distances = {
                "feature_distance": float(by_feature[place] / made_of.own.scale),
                "distance": float(whole[place]),
            }
            entry[name] = thumbnail(self.out, self.gallery, int(images[place])) | distances
        values = {"query": query[q], "wrong": gallery[wrong], "right": gallery[right]}
        entry["attributes"] = [
            {"name": made_of.names[i]} | {who: float(of[i]) for who, of in values.items()} for i in explained
        ]
        return entry


def shown_places(count: int, right: np.ndarray) -> np.ndarray:
    """Places of a ranking to show: the first ones, the last of which gives way to a first right one after it."""
    places = np.arange(min(RANK_LIST_LENGTH, count))
    first = np.flatnonzero(right[:count])[:1]
    if len(first) and first[0] >= RANK_LIST_LENGTH:
        places[-1] = first[0]
    return places


def thumbnail(out: Path, split: source.Split, i: int) -> dict[str, Any]:
    """Entry of the split's image i, whose small picture is written to out/thumbnails."""
    name = hashlib.sha256(split.key[i].encode()).hexdigest()[:16]
    file = out / "thumbnails" / f"{name}.jpg"
    if parallel.is_primary() and not file.exists():
        image = Image.fromarray(transforms.decode(split.image_bytes(i), key=split.key[i]))
        image = image.resize((max(1, round(image.width * THUMBNAIL / image.height)), THUMBNAIL))
        data = io.BytesIO()
        image.save(data, "jpeg", quality=90)
        files.write_bytes(file, data.getvalue())
    return {
        "image": f"thumbnails/{file.name}",
        "person_id": int(split.person_id[i]),
        "camera_id": int(split.camera_id[i]),
        "file_name": str(split.file_name[i]),
    }
