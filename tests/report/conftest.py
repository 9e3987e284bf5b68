"""A made-up but plausible run, for the tests of this folder."""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from acrn_jax import schema
from acrn_jax.evaluation.metrics import METRICS

NAMES = (
    "personalMale",
    "hairLong",
    "carryingBackpack",
    "upperBodyVNeck",
    "accessorySunglasses",
    "lowerBodyShortSkirt",
    "home_made & <b>$x$</b>",
)

LEDGER_RUN = {
    "workdir": "R", "dataset": "peta/reid_grid_0", "protocol": "market1501", "seed": 0, "mAP_precision": 0.5,
    "rank1": 0.4, "weights": {"personalMale": 1.0},
}  # fmt: skip


def make_results(*, seed=0, dataset="synthetic_pedestrians/target_0", fingerprint="f00d", **changes):
    random = np.random.default_rng(seed)
    methods = {}
    for i, name in enumerate(reversed(schema.METHODS)):  # another order than the table's
        rank1 = 0.7 - 0.06 * i + 0.02 * random.random()
        values = (rank1 - 0.1, rank1 - 0.13, rank1 / 2, rank1, rank1 + 0.1, rank1 + 0.15, rank1 + 0.2)
        methods[name] = dict(zip(METRICS, values, strict=True))
    weights = [
        {
            "name": name,
            "weight": 1.2 - 0.35 * i + 0.05 * random.random(),
            "reliability": 0.95 - 0.06 * i,
            "accuracy": 0.9 - 0.05 * i,
            "between_within": 2.0 - 0.2 * i,
        }
        for i, name in enumerate(NAMES)
    ]
    return {
        "schema": 1,
        "dataset": dataset,
        "split": "query/gallery",
        "protocol": "market1501",
        "no_match": "error",
        "methods": methods,
        "queries": 150,
        "gallery": 1234,
        "queries_without_match": 0,
        "seeds": {"train": seed},
        "config": {"loss": {"gamma": 0.5}, "note": "</pre><script>alert(1)</script>"},
        "commit": "abc123",
        "versions": {"jax": "0.12.0"},
        "fingerprint": fingerprint,
        "partial": False,
        "gamma": 0.5,
        "scales": {"feature": 1.5, "attribute": 0.25},
        "tuned_factor": 0.3,
        "attributes_from": {"dataset": "synthetic_pedestrians/source_0", "fingerprint": "beef", "mA": 0.87},
        "weights": weights,
        "spearman_weight_reliability": 0.89,
        **changes,
    }


def make_recognition(dataset="peta/random_0"):
    part = {"mA": 0.7712, "accuracy": 0.55, "precision": 0.66, "recall": 0.7, "f1": 0.6794}
    return {
        "dataset": dataset,
        "split": "test",
        "fingerprint": "cafe",
        "threshold": 0.5,
        **part,
        "undefined": 1,
        "attributes": [
            {"name": name, "mA": float("nan") if i == 2 else 0.6 + 0.04 * i, "positives": 10 * i, "negatives": 7600}
            for i, name in enumerate(NAMES)
        ],
        "seen": {**part, "mA": 0.8123},
        "unseen": {**part, "mA": 0.7021},
    }


def draw(path: pathlib.Path, colour, number):
    image = Image.new("RGB", (32, 64), (70, 80, 90))
    pen = ImageDraw.Draw(image)
    pen.ellipse((12, 4, 20, 14), fill=(220, 180, 150))
    pen.rectangle((9, 15, 23, 38), fill=colour)
    pen.rectangle((10, 39, 22, 60), fill=(40, 40, 90 + number % 100))
    image.save(path)


def make_workdir(folder: pathlib.Path, *, seed=0, **changes) -> pathlib.Path:
    """A run with results, rank lists, thumbnails and scalars; beside it the run of the attribute net."""
    random = np.random.default_rng(seed)
    (folder / "thumbnails").mkdir(parents=True)
    attributes = folder.parent / f"{folder.name}_mva"
    runs = {"attributes": f"../{attributes.name}", "baseline": "../gone"}
    (folder / "results.json").write_text(json.dumps({**make_results(seed=seed, **changes), "runs": runs}))

    def shown(person, number):
        name = f"thumbnails/{person}_{number}.jpg"
        draw(folder / name, tuple(int(c) for c in np.random.default_rng(person).integers(30, 255, 3)), number)
        return {
            "image": name,
            "person_id": person,
            "camera_id": 1 + number % 2,
            "file_name": f"{person}_<script>'\"&.jpg",
        }

    def ranking(person):
        right = [int(random.random() < 0.4) for _ in range(16)]
        return {
            **shown(person, 99),
            "average_precision": 0.1234,
            "gallery": [
                {**shown(person if hit else 100 + i, i), "distance": 0.1 * i + 0.05, "right": bool(hit)}
                for i, hit in enumerate(right)
            ],
        }

    lists = {"query": {"random": [ranking(1), ranking(2)], "hardest": [ranking(3)]}}
    lists["query"]["random"][0]["gallery"][0]["image"] = "../../outside.jpg"
    (folder / "rank_lists.json").write_text(json.dumps(lists))
    for run, phase in ((folder, "identity"), (folder, "reid"), (attributes, "mva")):
        (run / phase).mkdir(parents=True)
        with open(run / phase / "scalars.jsonl", "w", encoding="utf-8") as file:
            for step in range(0, 1000, 10):
                row = {
                    "step": step,
                    "loss": 2.0 * np.exp(-step / 300) + 0.1 * random.random(),
                    "learning_rate": 1e-2 * 0.8 ** (step // 200),
                    "images_per_second": 900 + 40 * random.random(),
                }
                if phase == "reid":
                    row |= {"active": 0.9 - step / 2000, "switched_on": 0.1 + step / 5000, "switched_off": 0.05}
                    row |= {"positive": 0.8, "negative": 1.0 + step / 1000, "weight_rms": 1.0, "attribute_loss": 0.1}
                file.write(json.dumps(row) + "\n")
            file.write('{"step": 10')  # a training that was stopped while it wrote
    (attributes / "recognition.json").write_text(json.dumps(make_recognition()))
    return folder


def make_bare_workdir(folder: pathlib.Path, **changes) -> pathlib.Path:
    """A run with results alone."""
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(make_results(**changes)))
    return folder


@pytest.fixture
def workdir(tmp_path):
    return make_workdir(tmp_path / "run")
