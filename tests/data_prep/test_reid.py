import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from data_prep import reid

SKIP = {"image": tfds.decode.SkipDecoding()}


class Toy(reid.ContentsBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    name = "toy"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small")]  # noqa: RUF012

    def read(self, *, examples, names):
        return reid.Contents({"train": examples}, {"attribute_names": names, "protocol": "market1501"})


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
    records = {r["file_name"].decode(): r for r in again.as_data_source("train", decoders=SKIP)}
    assert {name: record["image"] for name, record in records.items()} == content
    assert {name: record["key"].decode() for name, record in records.items()} == {
        name: f"toy/small/{name}" for name in content
    }
    found = {name: (int(r["person_id"]), int(r["camera_id"]), r["attributes"].tolist()) for name, r in records.items()}
    assert found == {"a.jpg": (3, 2, values), "b/c.bmp": (-1, -1, values)}
    assert records["a.jpg"]["attributes"].dtype == np.int8
    metadata = json.loads((builder.data_path / "metadata.json").read_text())
    assert metadata == {"attribute_names": names, "protocol": "market1501", "partial": False}


def test_metadata_refuses_what_no_reader_knows():
    with pytest.raises(ValueError, match="No protocol 'market'; there are market1501"):
        reid.metadata(attribute_names=[], protocol="market")
    with pytest.raises(ValueError, match="comes twice"):
        reid.metadata(attribute_names=["hat", "hat"], protocol="attributes")


def test_35_names():
    assert len(set(reid.PETA_ATTRIBUTES)) == 35
    assert reid.PETA_ATTRIBUTES[10] == "accessoryHat" and reid.PETA_ATTRIBUTES[34] == "upperBodyVNeck"
