import json
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from acrn_jax.data_prep import reid
from acrn_jax.evaluation import protocols, ranking
from acrn_jax.schema import Labels

SKIP = {"image": tfds.decode.SkipDecoding()}


class Toy(reid.ContentsBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    name = "toy"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small")]  # noqa: RUF012

    def read(self, *, examples, names):
        return reid.Contents({"gallery": examples}, {"attribute_names": names, "protocol": "market1501"})


@pytest.mark.parametrize("names", [[], ["hat", "skirt", "bag"]])
def test_stores_paths_and_bytes_untouched(tmp_path, names):
    content = {"a.jpg": b"\xff\xd8 any bytes", "b/c.bmp": b"BM others"}
    (tmp_path / "a.jpg").write_bytes(content["a.jpg"])
    values = [1, 0, -1][: len(names)]
    examples = [
        reid.Example(tmp_path / "a.jpg", "a.jpg", 3, 2, values),
        reid.Example(content["b/c.bmp"], "b/c.bmp", reid.JUNK, attributes=values),
    ]
    builder = Toy(data_dir=tmp_path / "out", options={"examples": examples, "names": names})
    builder.download_and_prepare()
    again = tfds.builder_from_directory(builder.data_path)
    records = {r["file_name"].decode(): r for r in again.as_data_source("gallery", decoders=SKIP)}
    assert {name: record["image"] for name, record in records.items()} == content
    assert {name: record["key"].decode() for name, record in records.items()} == {
        name: f"toy/small/{name}" for name in content
    }
    found = {name: (int(r["person_id"]), int(r["camera_id"]), r["attributes"].tolist()) for name, r in records.items()}
    assert found == {"a.jpg": (3, 2, values), "b/c.bmp": (-1, -1, values)}
    assert records["a.jpg"]["attributes"].dtype == np.int8
    metadata = json.loads((builder.data_path / "metadata.json").read_text())
    assert metadata == {"attribute_names": names, "protocol": "market1501", "partial": False}


def contents(protocol="market1501", **splits):
    """Splits of (person, camera, name); the name is of the place where there is none."""
    return reid.Contents(
        {
            split: [
                reid.Example(b"", *(name or [f"{split}/{i}.jpg"]), person, camera)
                for i, (person, camera, *name) in enumerate(rows)
            ]
            for split, rows in splits.items()
        },
        {"protocol": protocol, "attribute_names": []},
    )


TRAIN, QUERY, GALLERY = [(1, 1), (2, 1)], [(7, 1), (8, 1)], [(7, 2), (8, 2), (0, 3), (-1, 1), (-1, 1)]


def test_a_good_set_has_no_fault_and_no_note():
    found = reid.examine(contents(train=TRAIN, query=QUERY, gallery=GALLERY))
    assert not found.faults and not found.notes
    assert reid.summary(found) == (
        "protocol market1501: 2 of 2 queries have a right gallery image; 5 gallery images, of them 1 distractors "
        "(person_id 0) and 2 junk (-1)"
    )
    assert reid.summary(contents("attributes", train=TRAIN)) == ""


@pytest.mark.parametrize(
    ("splits", "fault"),
    [
        (
            {"train": [(0, 1), (1, 1), (0, 2)]},
            r"train/0.jpg shows no person; .* train has 2 of person_id 0, .* add 1 to",
        ),
        ({"query": [(7, 1), (0, 1)]}, r"query/1.jpg shows no person; .* query has 1 of person_id 0"),
        ({"train": [(1, 1), (-1, 1)]}, r"train/1.jpg .* person_id -1, never counted: leave them out\."),
        ({"train": [(1, 1), (7, 1), (8, 1)]}, r"Person 7 is in train \(train/1.jpg\) and in test \(query/0.jpg\)"),
        ({"train": [(3, 1)], "gallery": [(3, 1), (4, 2)]}, "None of the 2 queries has its person in the gallery"),
    ],
)
def test_faults_that_every_set_can_have(splits, fault):
    wrong = contents(**{"train": TRAIN, "query": QUERY, "gallery": GALLERY} | splits)
    faults = reid.examine(wrong).faults
    assert re.match(fault, faults[-1 if "None" in fault else 0]), faults


def test_an_allowed_overlap_is_counted():
    both = contents(train=[*TRAIN, (7, 1), (8, 1)], query=QUERY, gallery=GALLERY)
    assert len(reid.examine(both).faults) == 2
    found = reid.examine(both, allow_overlap=True)
    assert not found.faults and found.notes[0].startswith("2 people of train are in query or gallery")
    assert found.metadata["people_seen_in_training"] == 2


def test_labels_of_attributes_may_know_nobody():
    assert not reid.examine(contents("attributes", train=[(0, -1)] * 3, val=[(0, -1)])).faults
    assert reid.examine(contents("attributes", train=[(0, -1), (1, -1)], val=[(2, -1)])).faults
    found = reid.examine(contents("attributes", train=[(1, -1), (2, -1)], val=[(2, -1)], test=[(3, -1)]))
    assert not found.faults and found.notes == [
        "1 people of train are in val too: its scores are of people seen in training."
    ]


def test_queries_without_a_match_are_noted_with_the_remedy():
    lonely = contents(train=TRAIN, query=[*QUERY, (9, 1), (10, 1)], gallery=[*GALLERY, (9, 1)])
    (note,) = reid.examine(lonely).notes
    assert note == (
        "2 of 4 queries have no right gallery image under market1501, the first is query/2.jpg (person 9, camera 1): "
        "evaluate with --no_match=skip, which leaves them out, or --no_match=count_as_miss; 1 of them have one of "
        "their own camera, which --protocol=multi_shot counts."
    )


@pytest.mark.parametrize("name", ["market1501", "cuhk03_new", "cuhk03_single_shot", "multi_shot"])
def test_matches_are_those_that_evaluation_finds(name):
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows = [(int(rng.integers(1, 6)), int(rng.integers(1, 3)), f"{i}.jpg") for i in range(12)]
        found = contents(name, query=rows[:6], gallery=[*rows[4:], (0, 1), (-1, 2)])  # two images are in both
        query, gallery = found.splits["query"], found.splits["gallery"]
        labels = [
            Labels(np.array([e.person_id for e in part]), np.array([e.camera_id for e in part]))
            for part in (query, gallery)
        ]
        keys = [np.array([e.file_name for e in part]) for part in (query, gallery)]
        protocol = protocols.without_itself(protocols.named(name), *keys)
        lonely = reid.without_match(query, gallery, name)
        by_loops = [q for q in query if not any(
            g.person_id == q.person_id and g.file_name != q.file_name
            and (name == "multi_shot" or g.camera_id != q.camera_id) for g in gallery
        )]  # fmt: skip
        assert lonely == by_loops
        if len(lonely) < len(query) and not protocol.draw:
            result = ranking.evaluate(np.zeros((6, 10)), *labels, protocol=protocol, no_match="skip")
            assert result.queries_without_match == len(lonely)


def test_metadata_refuses_what_no_reader_knows():
    with pytest.raises(ValueError, match="No protocol 'market'; there are market1501"):
        reid.metadata(attribute_names=[], protocol="market")
    with pytest.raises(ValueError, match="comes twice"):
        reid.metadata(attribute_names=["hat", "hat"], protocol="attributes")


def test_35_names():
    assert len(set(reid.PETA_ATTRIBUTES)) == 35
    assert reid.PETA_ATTRIBUTES[10] == "accessoryHat" and reid.PETA_ATTRIBUTES[34] == "upperBodyVNeck"
