"""From a release's archive to its metric; a release with one thing wrong: right counts, or a fault that names it."""

import io
import pathlib
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from acrn_jax import schema
from acrn_jax.data_prep import pictures, prepare
from acrn_jax.data_prep.cuhk03_np import cuhk03_np_dataset_builder as cuhk03_np
from acrn_jax.data_prep.dukemtmc_reid import dukemtmc_reid_dataset_builder as duke
from acrn_jax.data_prep.market1501 import market1501_dataset_builder as market
from acrn_jax.data_prep.msmt17 import msmt17_dataset_builder as msmt17
from acrn_jax.evaluation import protocols, ranking
from tests.fixtures import cuhk01 as cuhk01_fixture
from tests.fixtures import cuhk03 as cuhk03_fixture
from tests.fixtures import dukemtmc_reid as duke_fixture
from tests.fixtures import market1501 as market_fixture
from tests.fixtures import msmt17 as msmt17_fixture
from tests.fixtures import trivial

RELEASES = {
    "market1501": (market_fixture, None, "market1501"),
    "dukemtmc_reid": (duke_fixture, None, "market1501"),
    "msmt17": (msmt17_fixture, None, "market1501"),
    "cuhk01": (cuhk01_fixture, "485_single_0", "single_shot"),
    "cuhk03_np": (cuhk03_fixture, "labeled", "cuhk03_new"),
}
BUILDERS = {"market1501": market, "dukemtmc_reid": duke, "msmt17": msmt17, "cuhk03_np": cuhk03_np}


@pytest.mark.parametrize("name", RELEASES)
def test_from_archive_to_metric(name, tmp_path):
    fixture, config, protocol = RELEASES[name]
    fixture.write(tmp_path / "raw")
    archive = shutil.make_archive(tmp_path / name, "zip" if name != "msmt17" else "gztar", tmp_path / "raw")
    shutil.rmtree(tmp_path / "raw")
    with pytest.raises(ValueError, match=r"Not the official release \(.*--allow_partial"):
        prepare.prepare(name, config, data_dir=tmp_path / "data", raw_dir=archive)
    folder = prepare.prepare(name, config, data_dir=tmp_path / "data", raw_dir=archive, allow_partial=True)
    builder = tfds.builder_from_directory(folder)
    assert builder.info.metadata["protocol"] == protocol and builder.info.metadata["partial"]
    measured, loops, chance = trivial.rank(builder, protocols.named(protocol))
    assert measured == pytest.approx(loops, abs=1e-12)
    assert measured["mAP_trapezoid"] > 2 * chance["mAP_trapezoid"] and measured["rank1"] > chance["rank1"]


def test_cuhk03s_splits_from_file_to_metric(tmp_path):
    """Of the draws a loop cannot say what they are; with colours of their own, people are found in any."""
    facts = cuhk03_fixture.write(tmp_path / "raw")
    folder = prepare.prepare("cuhk03", "detected_3", data_dir=tmp_path / "d", raw_dir=facts.mat, allow_partial=True)
    parts = [trivial.records(tfds.builder_from_directory(folder), part) for part in ("query", "gallery")]
    assert {record["key"] for record in parts[0]} == {record["key"] for record in parts[1]}  # the draws part them
    x, y = (np.stack([trivial.feature(record["image"]) for record in part]) for part in parts)
    labels = [
        schema.Labels(*(np.array([int(record[key]) for record in part]) for key in ("person_id", "camera_id")))
        for part in parts
    ]
    assert len(set(labels[0].person_id.tolist())) == cuhk03_fixture.TESTED
    distances = np.linalg.norm(x[:, None] - y[None], axis=2)
    random = np.random.default_rng(0).random(distances.shape)
    protocol = protocols.named("cuhk03_single_shot", repeats=20)
    found, chance = (ranking.evaluate(d, *labels, protocol=protocol, no_match="skip") for d in (distances, random))
    assert found.metrics["rank1"] > 0.8 > chance.metrics["rank1"] + 0.3
    assert found.deviation["rank1"] <= chance.deviation["rank1"]
    assert found.metrics["mAP_precision"] >= found.metrics["rank1"]  # one right image: AP is 1 / rank


def mutate(files: list[pathlib.Path], root: pathlib.Path, generator: np.random.Generator) -> tuple[str, pathlib.Path]:
    """Spoils one file; gives what was done and where."""
    path = files[generator.integers(len(files))]
    kind = ("delete", "empty", "text", "truncate", "flip", "rename", "wide", "stray")[generator.integers(8)]
    content = path.read_bytes()
    if kind == "delete":
        path.unlink()
    elif kind == "rename":
        path = path.rename(path.with_name(f"{''.join(map(chr, generator.integers(97, 123, 8)))}.jpg"))
    elif kind == "stray":
        path = path.with_name("notes.txt")
        path.write_text("passed over")
    elif kind == "wide":
        data = io.BytesIO()
        PIL.Image.new("1", (40_000, 1)).save(data, "png")
        path.write_bytes(data.getvalue())
    else:
        flipped = bytearray(content)
        for at in generator.integers(0, len(content), 3):
            flipped[at] ^= 1 << generator.integers(8)
        path.write_bytes(
            {"empty": b"", "text": b"no image", "truncate": content[: len(content) // 2]}.get(kind, flipped)
        )
    return kind, path


@pytest.mark.parametrize("name", ["market1501", "dukemtmc_reid", "msmt17"])
def test_a_thousand_mutations(name, tmp_path):
    """Every mutation of one file of the release; what differs is named, by its path, or is harmless and counted."""
    RELEASES[name][0].write(tmp_path / "raw")
    root = next(path for path in (tmp_path / "raw").iterdir() if path.is_dir())
    read, generator = BUILDERS[name].read, np.random.default_rng(0)
    whole = read(raw_dir=root)
    files = sorted(root.rglob("*.jpg"))
    used = {pathlib.Path(e.image) for examples in whole.splits.values() for e in examples}
    before = {split: count.images for split, count in whole.counts().items()}
    assert not whole.faults
    for _ in range(350):
        kept = {path: path.read_bytes() for path in files}
        kind, path = mutate(files, root, generator)
        found = read(raw_dir=root)
        images = {split: count.images for split, count in found.counts().items()}
        missing = sum(before.values()) - sum(images.values())
        unreadable = path in used and path.exists() and pictures.look(path).fault
        if kind == "delete":
            assert (path in used) <= (missing >= 1) or any(path.name in fault for fault in found.faults)
        elif kind == "rename":
            assert any(str(path.name) in fault for fault in found.faults) or (name == "msmt17" and found.faults)
        elif kind == "stray":
            assert images == before and not found.faults
            path.unlink()
        elif kind in ("empty", "text", "truncate", "wide"):
            assert images == before and not found.faults
            assert path not in used or unreadable
        if path not in kept:
            path.unlink(missing_ok=True)
        for place, content in kept.items():
            if not place.exists() or place.read_bytes() != content:
                place.write_bytes(content)
    assert read(raw_dir=root).counts() == whole.counts()
