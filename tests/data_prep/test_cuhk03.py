import io
import os
import pathlib
import resource
import shutil
import subprocess
import sys

import h5py
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds

from acrn_jax import schema
from acrn_jax.data_prep.cuhk03 import cuhk03_dataset_builder as builder
from acrn_jax.data_prep.cuhk03 import release
from acrn_jax.evaluation import protocols, ranking
from tests.fixtures import cuhk03 as fixture
from tests.fixtures import trivial

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    return fixture.write(tmp_path_factory.mktemp("above") / "raw")


@pytest.fixture(scope="module")
def read(facts):
    return release.read(facts.mat)


@pytest.fixture
def mat(facts, tmp_path):
    """A copy to spoil."""
    return pathlib.Path(shutil.copy(facts.mat, tmp_path))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(PIL.Image.open(io.BytesIO(png)))


def test_every_image_is_where_it_was_planted(facts, read):
    assert read.people == facts.people and read.test_sets == facts.test_sets
    for kind in fixture.KINDS:
        assert list(read.images[kind]) == sorted(facts.images[kind])
        for place, png in read.images[kind].items():
            np.testing.assert_array_equal(pixels(png()), facts.images[kind][place])
            example = read.example(kind, place)
            assert example.file_name == f"{kind}/{fixture.name(place)}" == f"{kind}/{place.name}"
            assert example.person_id == facts.person_id(place) and example.camera_id == 1 + (place.number > 5)


def test_holes_at_the_beginning_and_in_the_middle(facts, read):
    first = [at.number for at in read.images["detected"] if at[:2] == (1, 1)]
    assert first == [2, 3, 4, 5, 6, 7, 9]  # whoever stops at a hole has none
    lonely = {kind: {at.view for at in read.images[kind] if at[:2] == fixture.ONE_VIEW} for kind in fixture.KINDS}
    assert lonely == {"labeled": {1}, "detected": {1, 2}}


def test_matlab_header(facts):
    content = facts.mat.read_bytes()
    assert content.startswith(b"MATLAB 7.3 MAT-file") and content[124:128] == b"\x00\x02IM"
    assert content[512:520] == b"\x89HDF\r\n\x1a\n"


@pytest.mark.parametrize("place", ["", "cuhk03_release", "cuhk03_release/cuhk-03.mat", ".."])
def test_raw_dir_may_be_above_or_the_file(facts, place):
    root = facts.mat.parents[1]
    assert release.find(root / place).resolve() == facts.mat


@pytest.mark.parametrize("config", ["labeled_0", "detected_0", "detected_19"])
def test_splits(facts, config):
    contents = builder.read(config, raw_dir=facts.mat.parent)
    kind, number = config.split("_")
    tested = set(facts.test_sets[int(number)])
    wanted = {(k, at) for k in fixture.KINDS for at in facts.images[k]}
    names = {split: sorted(e.file_name for e in examples) for split, examples in contents.splits.items()}
    assert names["train"] == sorted(f"{k}/{fixture.name(at)}" for k, at in wanted if at[:2] not in tested)
    assert names["query"] == sorted(f"{k}/{fixture.name(at)}" for k, at in wanted if at[:2] in tested and k == kind)
    assert contents.splits["query"] == contents.splits["gallery"]
    people = {split: {e.person_id for e in examples} for split, examples in contents.splits.items()}
    assert len(people["train"]) == 12 and len(people["query"]) == 5 and not people["train"] & people["query"]
    assert contents.metadata["protocol"] == "cuhk03_single_shot"
    assert (contents.metadata["kind"], contents.metadata["test_set"]) == (kind, int(number))


def test_configs():
    assert len(builder.Builder.builder_configs) == 50
    assert {"labeled_0", "labeled_19", "detected_0", "detected_19"} <= set(builder.Builder.builder_configs)


def test_prepared_records(facts, tmp_path):
    options = {"raw_dir": facts.mat.parents[1], "allow_partial": True}
    made = builder.Builder(options=options, data_dir=tmp_path, config="labeled_3")
    made.download_and_prepare(file_format="array_record")
    found = tfds.builder_from_directory(made.data_path)
    assert found.info.metadata["partial"] and found.info.metadata["protocol"] == "cuhk03_single_shot"
    for split in ("train", "query", "gallery"):
        records = trivial.records(found, split)
        assert len(records) == len(made.contents.splits[split])
        for record in records:
            kind, name = record["file_name"].decode().split("/")
            pair, person, view, number = (int(part) for part in name.removesuffix(".png").split("_"))
            np.testing.assert_array_equal(pixels(record["image"]), facts.images[kind][pair, person, number])
            assert record["camera_id"] == view and record["person_id"] == facts.person_id((pair, person, number))


def test_what_is_short(facts, read):
    with pytest.raises(
        ValueError, match=r"labeled: \d+ images, officially 14,096.*test sets of 5 people, officially 100"
    ):
        _ = builder.Builder(options={"raw_dir": facts.mat}, config="labeled_0").contents
    images = {kind: dict.fromkeys(range(release.IMAGES[kind])) for kind in release.KINDS}
    whole = read._replace(people=release.PEOPLE, images=images, test_sets=[[(1, 1)] * 100] * 20)
    assert sum(release.PEOPLE) == 1467 and whole.shortfall() == []
    assert whole._replace(test_sets=whole.test_sets[:19]).shortfall() == ["19 test sets, officially 20"]
    images["labeled"].pop(0)
    assert whole.shortfall() == ["labeled: 14,095 images, officially 14,096"]


def swap(file, name, value, **options):
    """Another dataset, or none, in place of a top-level one."""
    del file[name]
    if value is not None:
        file.create_dataset(name, data=value, **options)


def cell(file, kind="labeled", pair=1):
    return file[file[kind][0, pair - 1]]


def point(dataset, at, value):
    """Lets a cell of references point elsewhere."""
    dataset[at] = value.ref


def spoil_links(file, tmp_path, link):
    with h5py.File(tmp_path / "other.mat", "w") as other:
        other["labeled"] = np.zeros(3)
    del file["labeled"]
    file["labeled"] = link


SPOILT = {  # what is wrong: (how it is made so, what is said)
    "no kind": (lambda f, _: swap(f, "detected", None), "detected: there is nothing"),
    "no testsets": (lambda f, _: swap(f, "testsets", None), "testsets: there is nothing"),
    "a group": (lambda f, _: (swap(f, "labeled", None), f.create_group("labeled")), "labeled: a Group where"),
    "four pairs": (
        lambda f, _: swap(f, "labeled", f["labeled"][:, :4], dtype=h5py.ref_dtype),
        r"object \[1, 4\] where",
    ),
    "numbers": (lambda f, _: swap(f, "labeled", np.zeros((1, 5))), r"labeled: float64 \[1, 5\] where a reference"),
    "a null reference": (
        lambda f, _: swap(f, "labeled", np.full((1, 5), None), dtype=h5py.ref_dtype),
        "labeled, pair 1: ",
    ),
    "a region": (
        lambda f, _: swap(f, "labeled", np.full((1, 5), f["labeled"].regionref[:]), dtype=h5py.regionref_dtype),
        r"labeled: object \[1, 5\] where",
    ),
    "nothing in it": (lambda f, _: swap(f, "labeled", h5py.Empty("f8")), r"labeled: float64 \[\] where"),
    "a link to another file": (
        lambda f, tmp: spoil_links(f, tmp, h5py.ExternalLink("other.mat", "/labeled")),
        "labeled: it is a link elsewhere",
    ),
    "a soft link": (lambda f, tmp: spoil_links(f, tmp, h5py.SoftLink("/detected")), "labeled: it is a link elsewhere"),
    "a cycle": (lambda f, _: point(f["labeled"], (0, 1), f["labeled"]), r"labeled, pair 2: object \[1, 5\] where"),
    "a cycle below": (
        lambda f, _: point(cell(f), (3, 2), cell(f)),
        r"labeled, pair 1, person 3, image 4: object \[10, 6\] where an image",
    ),
    "nine columns": (
        lambda f, _: point(f["labeled"], (0, 4), f.create_dataset("x", (9, 2), h5py.ref_dtype)),
        r"labeled, pair 5: object \[9, 2\]",
    ),
    "a million people": (
        lambda f, _: point(f["labeled"], (0, 4), f.create_dataset("x", (10, 10**6), h5py.ref_dtype)),
        r"labeled, pair 5: object \[10, 1000000\]",
    ),
    "other people": (
        lambda f, _: point(f["labeled"], (0, 4), cell(f, pair=3)),
        "6, 4, 3, 2, 3 people are labeled .* and 6, 4, 3, 2, 2 detected",
    ),
    "40,000 pixels": (
        lambda f, _: point(cell(f), (0, 0), f.create_dataset("x", (3, 40_000, 60), "u1")),
        r"pair 1, person 1, image 1: uint8 \[3, 40000, 60\] where .* at most 4000",
    ),
    "a billion numbers": (
        lambda f, _: point(cell(f), (0, 0), f.create_dataset("x", (1, 10**9), "u1")),
        r"image 1: uint8 \[1, 1000000000\]",
    ),
    "a grey image": (lambda f, _: point(cell(f), (0, 0), f.create_dataset("x", (6, 12), "u1")), r"uint8 \[6, 12\]"),
    "floats": (
        lambda f, _: point(cell(f), (0, 0), f.create_dataset("x", (3, 6, 12), "f4")),
        r"image 1: float32 \[3, 6, 12\]",
    ),
    "four channels": (lambda f, _: point(cell(f), (0, 0), f.create_dataset("x", (4, 6, 12), "u1")), r"\[4, 6, 12\]"),
    "pixels elsewhere": (
        lambda f, tmp: point(
            cell(f), (0, 0), f.create_dataset("x", (3, 6, 12), "u1", external=[(str(tmp / "x.raw"), 0, 216)])
        ),
        "image 1: its values lie in another file",
    ),
    "virtual pixels": (
        lambda f, _: point(cell(f), (0, 0), f.create_virtual_dataset("x", virtual_layout())),
        "image 1: its values lie in another file",
    ),
    "half a person": (lambda f, _: test_set(f, [[1, 2.5]]), "testsets, set 7: row 1 is pair 1, person 2.5"),
    "no number": (lambda f, _: test_set(f, [[np.nan, 2]]), "testsets, set 7: row 1 is pair nan, person 2"),
    "infinity": (lambda f, _: test_set(f, [[1, 1], [1, np.inf]]), "testsets, set 7: row 2 is pair 1, person inf"),
    "pair 6": (lambda f, _: test_set(f, [[6, 1]]), "set 7: row 1 is pair 6"),
    "person 0": (lambda f, _: test_set(f, [[1, 0]]), "set 7: row 1 is pair 1, person 0, and there is nobody"),
    "person 7": (lambda f, _: test_set(f, [[1, 7]]), "set 7: row 1 is pair 1, person 7, and there is nobody"),
    "a person twice": (lambda f, _: test_set(f, [[1, 3], [1, 3]]), "set 7: somebody comes twice"),
    "rows for columns": (lambda f, _: test_set(f, np.ones((2, 5))), r"set 7: float64 \[5, 2\] where"),
}


def virtual_layout():
    layout = h5py.VirtualLayout((3, 6, 12), "u1")
    layout[:] = h5py.VirtualSource("other.mat", "labeled", (3, 6, 12))
    return layout


def test_set(file, rows):
    point(file["testsets"], (0, 6), file.create_dataset("set", data=np.array(rows, float).T))


test_set.__test__ = False


@pytest.mark.parametrize("what", SPOILT)
def test_what_is_not_the_release(mat, tmp_path, what):
    spoil, message = SPOILT[what]
    with h5py.File(mat, "r+") as file:
        spoil(file, tmp_path)
    with pytest.raises(ValueError, match=message) as caught:
        release.read(mat)
    assert str(mat) in str(caught.value) and "official release" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no HDF5", "half", "text"])
def test_no_hdf5(mat, content):
    whole = mat.read_bytes()
    mat.write_bytes({"half": whole[: len(whole) // 2], "text": b"MATLAB 5.0" + whole[512:600]}.get(content, content))
    with pytest.raises(ValueError, match=r"cuhk-03\.mat, opening it as HDF5"):
        release.read(mat)


def test_damaged_image_is_named_when_it_is_read(mat):
    with h5py.File(mat, "r") as file:
        images = [file[ref] for ref in cell(file, "detected")[:, 0] if file[ref].ndim == 3]
        packed = next(image for image in images if image.compression)
        start = packed.id.get_chunk_info(0).byte_offset
    content = bytearray(mat.read_bytes())
    content[start : start + 8] = b"\xff" * 8
    mat.write_bytes(content)
    wrong = []
    for png in release.read(mat).images["detected"].values():
        try:
            png()
        except ValueError as error:
            wrong.append(str(error))
    assert len(wrong) == 1 and f"{mat}, detected, pair 1, person 1, image" in wrong[0]


def test_missing_files(tmp_path, facts):
    with pytest.raises(FileNotFoundError, match=r"No .*nowhere; --raw_dir wants"):
        builder.read("labeled_0", raw_dir=tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"No cuhk-03\.mat in .*; unpack"):
        builder.read("labeled_0", raw_dir=tmp_path)
    with pytest.raises(ValueError, match="opening it as HDF5"):
        builder.read("labeled_0", raw_dir=facts.protocol["labeled"])


def test_test_sets_that_are_missing_or_leave_nobody(mat):
    with h5py.File(mat, "r+") as file:
        swap(file, "testsets", file["testsets"][:, :7], dtype=h5py.ref_dtype)
        everybody = [(k, p) for k, count in enumerate(fixture.PEOPLE, 1) for p in range(1, count + 1)]
        test_set(file, everybody)
    with pytest.raises(ValueError, match=r"cuhk-03\.mat has 7 test sets"):
        builder.read("detected_7", raw_dir=mat)
    with pytest.raises(ValueError, match=r"set 7: \d+ images to test, 0 to train"):
        builder.read("detected_6", raw_dir=mat)
    builder.read("detected_5", raw_dir=mat)


def survive(folder: str, count: int) -> None:
    """Reads `count` damaged copies: each ends in all images that there are, or in a ValueError that names the file."""
    facts = fixture.write(pathlib.Path(folder), people=(1,) * 5, test_sets=3)
    content = np.frombuffer(facts.mat.read_bytes(), np.uint8)
    filled = np.flatnonzero(content[:-64])
    mat, ends = pathlib.Path(folder) / "spoilt.mat", {"read": 0, "refused": 0}
    for seed in range(count):
        generator = np.random.default_rng(seed)
        spoilt = content.copy()
        for at in generator.choice(filled, generator.integers(1, 16)):
            part = spoilt[at : at + generator.choice([1, 1, 1, 8, 64])]  # of a text, a reference, or a header
            start = generator.choice(filled)
            part[:] = generator.choice(
                [content[start : start + len(part)], generator.integers(0, 256, len(part)), part * 0 + 255]
            )
        mat.write_bytes(spoilt.tobytes())
        print(seed, flush=True)
        try:
            found = release.read(mat)
            for images in found.images.values():
                for png in images.values():
                    assert png().startswith(b"\x89PNG")
        except ValueError as error:
            assert str(mat) in str(error), error
            ends["refused"] += 1
        else:
            assert found.people == facts.people and len(found.test_sets) == 3
            counts = {kind: len(images) for kind, images in found.images.items()}
            assert counts == {kind: len(images) for kind, images in facts.images.items()}
            ends["read"] += 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 1 << 20  # KiB
    print(ends)


def test_damaged_files_end_in_an_error_and_nothing_else(tmp_path):
    code = f"from tests.data_prep import test_cuhk03; test_cuhk03.survive({str(tmp_path)!r}, 120)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"after damage of seed {done.stdout.split()[-1:]}: {done.stderr[-2000:]}"
    assert "'read'" in done.stdout and "'read': 0" not in done.stdout and "'refused': 0" not in done.stdout


def test_from_release_to_metric(facts, tmp_path):
    found = {}
    for config in ("labeled_0", "detected_0"):
        options = {"raw_dir": facts.mat.parents[1], "allow_partial": True}
        made = builder.Builder(options=options, data_dir=tmp_path, config=config)
        made.download_and_prepare(file_format="array_record")
        prepared = tfds.builder_from_directory(made.data_path)
        records = trivial.records(prepared, "query")
        x = np.stack([trivial.feature(record["image"]) for record in records])
        labels = schema.Labels(*(np.array([int(r[key]) for r in records]) for key in ("person_id", "camera_id")))
        protocol = protocols.named(prepared.info.metadata["protocol"])
        distances = np.linalg.norm(x[:, None] - x[None], axis=2)
        random = np.random.default_rng(0).random(distances.shape)
        if config == "labeled_0":  # its person of one view finds nobody
            with pytest.raises(ValueError, match=r"no right gallery image"):
                ranking.evaluate(distances, labels, labels, protocol=protocol)
        found[config], chance = (
            ranking.evaluate(d, labels, labels, protocol=protocol, no_match="skip") for d in (distances, random)
        )
        assert found[config].metrics["rank1"] > chance.metrics["rank1"] + 0.3
        assert found[config].metrics["mAP_precision"] >= found[config].metrics["rank1"]
    assert found["detected_0"].queries_without_match == 0 < found["labeled_0"].queries_without_match
