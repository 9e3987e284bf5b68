"""What evaluate writes beside the scores: rank lists with shares, look-alikes."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from acrn_jax import settings
from acrn_jax.configs import demo
from acrn_jax.data import source
from acrn_jax.evaluation import fusion, methods, protocols, ranking
from acrn_jax.runs.illustrations import Shown
from acrn_jax.runs.parts import DistanceParts

NAMES = ("a", "b", "c", "d", "e")


def split(name, person, camera):
    data = io.BytesIO()
    Image.new("RGB", (8, 16), (9, 80, 200)).save(data, "png")
    key = np.array([f"{name}/{i}" for i in range(len(person))])
    rows, nothing = np.arange(len(person)), np.zeros((len(person), 0), np.int8)
    return source.Split(name, key, key, person, camera, nothing, (), {}, "", rows, lambda i: data.getvalue())


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    query, gallery = (
        split(n, rng.integers(1, 9, size), rng.integers(1, 4, size)) for n, size in (("q", 20), ("g", 60))
    )
    own = methods.Features(*(rng.normal(size=(n, 4)).astype(np.float32) for n in (20, 60)), 7.0)
    attributes = methods.Attributes(*(rng.random((n, 5)).astype(np.float32) for n in (20, 60)), 0.4)
    for part, features in ((query, own.query), (gallery, own.gallery)):  # people differ by "a" alone, features hardly
        features += 0.5 * part.person_id[:, None]
    for part, values in ((query, attributes.query), (gallery, attributes.gallery)):
        values[:, 0] = part.person_id / 9
    weights = np.array([9.0, 1.0, 0.5, 0.0, -0.5], np.float32)
    made_of = DistanceParts(own, attributes, NAMES, weights, 0.5)
    d = [[np.sum((q.astype(float) - g) ** 2) / 7.0 for g in own.gallery] for q in own.query]
    d = d + np.array(
        [
            [0.5 / 0.4 * np.sum((weights * (q.astype(float) - g)) ** 2) for g in attributes.gallery]
            for q in attributes.query
        ]
    )
    return query, gallery, made_of, d.astype(np.float32)


def config(**loss):
    return settings.read(demo.get_config("acrn")).changed({"evaluate.rank_lists": 4, "loss": loss})


def test_rank_lists_tell_the_largest_shares(made, tmp_path):
    query, gallery, made_of, d = made
    scored = ranking.evaluate(d, query.labels, gallery.labels, protocol=protocols.MARKET1501, no_match="skip")
    what = (query, gallery, protocols.MARKET1501, lambda i: d[i])
    Shown(tmp_path, config(), *what, made_of).rank_lists(scored)
    place = {name: i for i, name in enumerate(gallery.file_name)}
    lists = json.loads((tmp_path / "rank_lists.json").read_text())["query"]
    for entry in lists["hardest"] + lists["random"]:
        q = list(query.file_name).index(entry["file_name"])
        for shown in entry["gallery"]:
            g = place[shown["file_name"]]
            assert shown["distance"] == pytest.approx(d[q, g])
            shares = shown["shares"]
            assert shares["feature"] == pytest.approx(
                np.sum((made_of.own.query[q] - made_of.own.gallery[g]).astype(float) ** 2) / 7.0, rel=1e-5
            )
            parts = (
                0.5
                / 0.4
                * (made_of.formula.weights * (made_of.attributes.query[q] - made_of.attributes.gallery[g])) ** 2
            )
            assert list(shares)[1:] == [NAMES[i] for i in np.argsort(-parts, kind="stable")[:3]]
            others = np.sort(parts)[:2].sum()
            assert sum(shares.values()) + others == pytest.approx(shown["distance"], rel=1e-4)
    for distance, known in (("euclidean", made_of), ("squared_euclidean", None)):
        Shown(tmp_path, config(distance=distance), *what, known).rank_lists(scored)
        assert "shares" not in (tmp_path / "rank_lists.json").read_text()


def test_rank_lists_show_where_the_first_right_picture_came(tmp_path):
    """Where it comes after the 14 shown it takes the place of the last one, with its rank."""
    person = np.array([*range(10, 40), 1, 1])  # the right ones lie at the end
    query, gallery = split("q", np.array([1, 2]), np.array([1, 1])), split("g", person, np.full(32, 2))
    d = np.arange(64.0).reshape(2, 32)
    d[1, 31] = -1.0  # of the second query, who has no right image at all
    for shift, ranks in ((0, [*range(1, 14), 31]), (-25, [*range(1, 15)])):
        d[0, 30] = 30 + shift + 0.5 * bool(shift)
        scored = ranking.evaluate(d, query.labels, gallery.labels, protocol=protocols.MARKET1501, no_match="skip")
        Shown(tmp_path, config(), query, gallery, protocols.MARKET1501, lambda i: d[i], None).rank_lists(scored)
        lists = json.loads((tmp_path / "rank_lists.json").read_text())["query"]["hardest"]
        shown = {entry["person_id"]: entry["gallery"] for entry in lists}
        assert [item["rank"] for item in shown[1]] == ranks
        assert [item["right"] for item in shown[1]].index(True) == (13 if not shift else 6)
        assert [item["distance"] for item in shown[1]] == sorted(item["distance"] for item in shown[1])
        assert [item["rank"] for item in shown[2]] == [*range(1, 15)] and shown[2][0]["file_name"] == "g/31"


def test_look_alikes_are_written_with_what_tells_them_apart(made, tmp_path):
    query, gallery, made_of, d = made
    Shown(tmp_path, config(), query, gallery, protocols.MARKET1501, lambda i: d[i], made_of).confusions(None)
    content = json.loads((tmp_path / "look_alikes.json").read_text())
    near = fusion.distance_rows("squared_euclidean", *made_of.own[:2])(slice(0, 20)) / 7.0
    assert content["representation"] == "probabilities" and len(content["pairs"]) == 4
    place, by_closeness = {name: i for i, name in enumerate(gallery.file_name)}, []
    for pair in content["pairs"]:
        q = list(query.file_name).index(pair["query"]["file_name"])
        wrong, right = (place[pair[who]["file_name"]] for who in ("wrong", "right"))
        assert pair["wrong"]["person_id"] != pair["query"]["person_id"] == pair["right"]["person_id"]
        assert pair["right"]["camera_id"] != pair["query"]["camera_id"]
        for g, who in ((wrong, "wrong"), (right, "right")):
            assert pair[who]["feature_distance"] == pytest.approx(near[q, g], rel=1e-4)
            assert pair[who]["distance"] == pytest.approx(d[q, g], rel=1e-4)
            assert (tmp_path / pair[who]["image"]).exists()
        assert pair["wrong"]["feature_distance"] < pair["right"]["feature_distance"]
        assert pair["right"]["distance"] < pair["wrong"]["distance"]
        assert pair["attributes"][0]["name"] == "a" and len(pair["attributes"]) == 3
        assert pair["attributes"][0]["query"] == pytest.approx(pair["query"]["person_id"] / 9)
        assert pair["attributes"][0]["wrong"] == pytest.approx(pair["wrong"]["person_id"] / 9)
        asked, known = made_of.attributes.query[q], made_of.attributes.gallery
        away, close = ((made_of.formula.weights * (known[g] - asked)) ** 2 for g in (wrong, right))
        told = [entry["name"] for entry in pair["attributes"]]
        assert told == sorted(NAMES, key=dict(zip(NAMES, away - close, strict=True)).get, reverse=True)[:3]
        by_closeness.append(told == sorted(NAMES, key=dict(zip(NAMES, close, strict=True)).get)[:3])
    assert not all(by_closeness)
