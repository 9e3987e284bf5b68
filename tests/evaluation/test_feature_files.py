"""Every kind of file gives back the arrays it was made from; damaged and wrong ones end in a sentence."""

import csv
import functools
import os
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
import scipy.io

from acrn_jax.evaluation import feature_files
from acrn_jax.evaluation.feature_files import Features
from acrn_jax.schema import Labels

ROOT = pathlib.Path(__file__).parents[2]
RNG = np.random.default_rng(0)
QUERY = Features(
    RNG.normal(size=(5, 3)).astype(np.float32), Labels(np.array([1, 2, 2, 9, 3]), np.array([1, 1, 2, 3, 1]))
)
GALLERY = Features(
    RNG.normal(size=(7, 3)).astype(np.float32),
    Labels(np.array([2, 1, 9, 3, 0, -1, 2]), np.array([3, 2, 1, 2, 1, 1, 1])),
)
BOXES = Features(np.tile(QUERY.values, (2, 1)), Labels(*(np.tile(values, 2) for values in QUERY.labels)))
DISTANCES = RNG.random((5, 7))
LAYUMI = {
    f"{who}_{name}": value
    for who, part in (("query", QUERY), ("gallery", GALLERY))
    for name, value in zip(("f", "label", "cam"), (part.values, *part.labels), strict=True)
}
OURS = {
    f"{who}_{name}": value
    for who, part in (("query", QUERY), ("gallery", GALLERY))
    for name, value in zip(("features", "person_id", "camera_id"), (part.values, *part.labels), strict=True)
}


def mquery(names):
    return {f"mquery_{n}": value for n, value in zip(names, (BOXES.values, *BOXES.labels), strict=True)}


def write_csv(path, labels, header=("camera_id", "file_name", "person_id")):
    columns = labels._asdict() | {"file_name": [f"a,{i} é.jpg" for i in range(len(labels.person_id))]}
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *zip(*(columns[name] for name in header), strict=True)])
    return path


def write_arrays(folder, suffix):
    paths = [folder / f"{who}{suffix}" for who in ("query", "gallery")]
    for path, part in zip(paths, (QUERY, GALLERY), strict=True):
        if suffix == ".npy":
            np.save(path, part.values)
        elif suffix == ".npz":
            np.savez(path, feature=part.values, key=["k"], fingerprint="f", **part.labels._asdict())
        else:
            with h5py.File(path, "w") as file:
                file["emb"] = part.values
    return paths


def same(found, wanted):
    for one, other in zip((found.values, *found.labels), (wanted.values, *wanted.labels), strict=True):
        np.testing.assert_array_equal(one, other)


def same_search(found, query=QUERY, gallery=GALLERY):
    same(Features(found.query, found.query_labels), query)
    same(Features(found.gallery, found.gallery_labels), gallery)


@pytest.mark.parametrize("suffix", [".npz", ".h5", ".npy"])
def test_pairs_and_single_sets(tmp_path, suffix):
    paths = write_arrays(tmp_path, suffix)
    parts = (("q.csv", QUERY), ("g.csv", GALLERY))
    labels = [] if suffix == ".npz" else [write_csv(tmp_path / name, part.labels) for name, part in parts]
    same_search(feature_files.read(paths, labels))
    same_search(feature_files.read(paths[1:], labels[1:]), GALLERY)
    if suffix == ".npz":
        same(feature_files.read_set(paths[0]), QUERY)
    else:
        with pytest.raises(ValueError, match=r"1 label files for 2 files of features"):
            feature_files.read(paths, labels[:1])


def test_one_npz_or_mat(tmp_path):
    np.savez(tmp_path / "a.npz", **OURS, query_file_name=["x"] * 5)
    same_search(feature_files.read([tmp_path / "a.npz"]))
    np.savez_compressed(tmp_path / "a.npz", **OURS, **mquery(("features", "person_id", "camera_id")))
    found = feature_files.read([tmp_path / "a.npz"])
    same_search(found)
    same(found.boxes, BOXES)
    for compressed in (False, True):
        scipy.io.savemat(
            tmp_path / "a.mat", LAYUMI, do_compression=compressed, oned_as="column" if compressed else "row"
        )
        same_search(feature_files.read([tmp_path / "a.mat"]))
    scipy.io.savemat(tmp_path / "b.mat", mquery(("f", "label", "cam")))
    found = feature_files.read([tmp_path / "a.mat", tmp_path / "b.mat"])
    same_search(found)
    same(found.boxes, BOXES)
    with pytest.raises(ValueError, match=r"a\.mat holds query_f, which an earlier file holds too"):
        feature_files.read([tmp_path / "a.mat", tmp_path / "a.mat"])


def test_checksums_count_even_where_numpy_stops_early(tmp_path):
    np.savez(tmp_path / "a.npz", **OURS)
    content = (tmp_path / "a.npz").read_bytes()
    narrower = content.replace(b"(5, 3)", b"(5, 2)").replace(b"(7, 3)", b"(7, 2)")
    assert narrower != content
    (tmp_path / "a.npz").write_bytes(narrower)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read .*query_features.npy is damaged"):
        feature_files.read([tmp_path / "a.npz"])


def test_distances(tmp_path):
    np.save(tmp_path / "d.npy", DISTANCES)
    labels = [write_csv(tmp_path / f"{i}.csv", part.labels) for i, part in enumerate((QUERY, GALLERY))]
    np.savez(tmp_path / "d.npz", distances=DISTANCES, **{k: v for k, v in OURS.items() if "features" not in k})
    for found in (feature_files.read([tmp_path / "d.npy"], labels), feature_files.read([tmp_path / "d.npz"])):
        np.testing.assert_array_equal(found.distances, DISTANCES)
        assert found.query is None and found.query_labels.person_id.tolist() == QUERY.labels.person_id.tolist()
    with pytest.raises(ValueError, match=r"is \[5, 7\], but there are 7 query and 5 gallery labels"):
        feature_files.read([tmp_path / "d.npy"], labels[::-1])


@pytest.mark.parametrize(
    "spelled",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int8)[:, None],
        lambda x: x.astype(str),
        lambda x: np.char.zfill(x.astype("S"), 4),
    ],
)
def test_labels_that_spell_integers(tmp_path, spelled):
    np.savez(tmp_path / "a.npz", **{k: v if "features" in k else spelled(v) for k, v in OURS.items()})
    same_search(feature_files.read([tmp_path / "a.npz"]))
    cells = {k: v if k.endswith("_f") else v.astype(str).astype(object) for k, v in LAYUMI.items()}
    scipy.io.savemat(tmp_path / "a.mat", cells)
    same_search(feature_files.read([tmp_path / "a.mat"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"gallery_person_id": np.arange(7) + 0.5}, "gallery_person_id row 0 is '0.5'; labels are integers"),
        ({"gallery_person_id": np.array([1, 2, np.nan, 4, 5, 6, 7])}, "gallery_person_id row 2 is 'nan'"),
        ({"gallery_person_id": np.array([1, 2, 1e300, 4, 5, 6, 7])}, "gallery_person_id row 2 is '1e\\+300'"),
        ({"query_camera_id": ["1", "2", "c3", "1", ""]}, "query_camera_id row 2 is 'c3'"),
        ({"query_camera_id": np.ones(5, bool)}, "query_camera_id is of type bool"),
        ({"query_camera_id": np.ones((5, 2))}, r"query_camera_id is \[5, 2\]; give one label"),
        ({"query_camera_id": None}, "holds camera ids of gallery alone; give those of all images, or none"),
        ({"query_camera_id": [1, 2]}, "query has 5 person ids and 2 camera ids"),
        ({"gallery_person_id": np.zeros(0, int)}, "gallery_person_id is empty"),
        ({"gallery_features": np.zeros((0, 3))}, r"gallery_features is empty, \[0, 3\]"),
        ({"gallery_features": np.zeros((6, 3))}, "gallery_features has 6 rows, but gallery_person_id has 7 labels"),
        ({"gallery_features": np.zeros((7, 4))}, "query has 3 values an image, .*gallery has 4"),
        ({"gallery_features": np.zeros(7)}, r"gallery_features is float64 \[7\]; real numbers \[N, D\]"),
        ({"gallery_features": np.zeros((7, 3), complex)}, r"gallery_features is complex128 \[7, 3\]"),
        ({"query_features": np.where(np.eye(5, 3), [1, 2, np.nan], 0)}, "query_features row 2 holds NaN, an infinity"),
        ({"query_features": np.full((5, 3), 1e151)}, r"query_features row 0 .* a number beyond 1e\+150"),
        ({"query_camera": [1] * 5}, "holds query_camera, which nothing here reads; it holds .*gallery_features"),
        (
            {"distances": np.zeros((5, 7))},
            "holds gallery_features, query_features, which .*; it holds .*; leave it out",
        ),
        ({"query_features": None}, "lacks query_features; it holds gallery_camera_id, "),
        (
            {"query_features": np.array([None] * 5)},
            "query_features is an array of Python objects.*; save it as a plain array of numbers",
        ),
    ],
)
def test_wrong_arrays(tmp_path, change, told):
    arrays = {name: value for name, value in (OURS | change).items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz.*{told}") as caught:
        feature_files.read([tmp_path / "a.npz"])
    assert "\n" not in str(caught.value)


def test_names_in_a_mat_are_those_of_the_file(tmp_path):
    def read(**change):
        scipy.io.savemat(tmp_path / "a.mat", {k: v for k, v in (LAYUMI | change).items() if v is not None})
        return feature_files.read([tmp_path / "a.mat"])

    with pytest.raises(ValueError, match=r"lacks query_f; it holds gallery_cam, gallery_f, .*query_feat"):
        read(query_f=None, query_feat=QUERY.values)
    with pytest.raises(
        ValueError, match=r"holds extra, which nothing here reads; .* could hold mquery_f, mquery_label"
    ):
        read(extra=1)
    with pytest.raises(ValueError, match=r"gallery_label row 6 is '0\.5'"):
        read(gallery_label=[1, 2, 3, 4, 5, 6, 0.5])
    with pytest.raises(ValueError, match=r"lacks mquery_label"):
        read(mquery_f=BOXES.values)
    assert read(query_cam=None, gallery_cam=None).query_labels.camera_id.tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("names", "content", "told"),
    [
        (["none.npz"], None, "There is no file .*none.npz"),
        (["a.txt"], b"x", "Files of features are one .npz, .mat, .h5 or .npy"),
        (["a.npz", "a.mat"], b"x", "Files of features are"),
        (["a.npz"], b"no zip", "a.npz cannot be read as an .npz file .*not a zip file"),
        (["a.mat"], b"no table", "a.mat cannot be read as a MATLAB 5 file .*no such header"),
        (["a.h5"], b"no table", "a.h5 cannot be read as an HDF5 file"),
        (["a.npy"], b"no table", "a.npy cannot be read as an .npy file"),
    ],
)
def test_files_that_are_none(tmp_path, names, content, told):
    paths = [tmp_path / name for name in names]
    for path in paths if content else ():
        path.write_bytes(content)
    labels = [write_csv(tmp_path / "l.csv", QUERY.labels)] if names[0] in ("a.h5", "a.npy") else []
    with pytest.raises((ValueError, FileNotFoundError), match=told):
        feature_files.read(paths, labels)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1,a.jpg\n2,b.jpg\n", "header person_id,camera_id: its first line is '1,a.jpg'"),
        ("", "its first line is ''"),
        ("person_id,camera_id\n1,1\n2\n", "row 1 has 1 fields, the header 2"),
        ("person_id,camera_id\n1,1\n2,b\n", "camera_id row 1 is 'b'"),
        ("person_id,camera_id\n", "person_id is empty"),
        ('person_id,camera_id\n1,1\n"2,1\n', "unexpected end of data"),
        ("person_id,camera_id\n1,1\n2,\x00\n", "camera_id row 1|NUL"),
        (b"person_id,camera_id\n1,\xff\n", "codec can't decode"),
    ],
)
def test_wrong_csv(tmp_path, text, told):
    path = tmp_path / "l.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    np.save(tmp_path / "a.npy", QUERY.values[:2])
    with pytest.raises(ValueError, match=rf"l\.csv.*({told})"):
        feature_files.read([tmp_path / "a.npy"], [path])
    path.write_text("﻿person_id, camera_id\n\n 7,-1\n0008,2\n  \n", encoding="utf-8")
    assert feature_files.read([tmp_path / "a.npy"], [path]).query_labels.person_id.tolist() == [7, 8]


def test_hdf5_that_promises_too_much_or_something_else(tmp_path):
    labels = write_csv(tmp_path / "l.csv", QUERY.labels)

    def read(fill):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            fill(file)
        return feature_files.read([tmp_path / "a.h5"], [labels])

    with pytest.raises(ValueError, match="more than a file of its size can hold"):
        read(lambda file: file.create_dataset("emb", (10**12, 3), "f4", chunks=(4, 3)))
    with pytest.raises(ValueError, match=r"data set emb \[N, D\]: it holds features"):
        read(lambda file: file.create_dataset("features", data=QUERY.values))
    with pytest.raises(ValueError, match="emb is of type object"):
        read(lambda file: file.create_dataset("emb", data=["a"] * 5))


def test_what_is_written_is_read(tmp_path):
    feature_files.write_mat(tmp_path / "new" / "a.mat", QUERY, GALLERY)
    same_search(feature_files.read([tmp_path / "new" / "a.mat"]))
    theirs = scipy.io.loadmat(tmp_path / "new" / "a.mat")
    assert theirs["query_label"].shape == (1, 5) and theirs["gallery_f"].shape == (7, 3)
    names = ["ü,1.jpg", *"bcde"]
    feature_files.write_h5(tmp_path / "q.h5", QUERY, names)
    feature_files.write_h5(tmp_path / "g.h5", GALLERY, ["x"] * 7)
    feature_files.write_h5(tmp_path / "more.h5", QUERY, names, more={"names": ["hüte", "b"], "numbers": [3, 4]})
    with h5py.File(tmp_path / "more.h5") as kept:
        assert kept["names"].asstr()[:].tolist() == ["hüte", "b"] and kept["numbers"][:].tolist() == [3, 4]
    labels = [tmp_path / "q.csv", tmp_path / "g.csv"]
    same_search(feature_files.read([tmp_path / "q.h5", tmp_path / "g.h5"], labels))
    with labels[0].open(newline="", encoding="utf-8") as file:
        assert [line["file_name"] for line in csv.DictReader(file)] == names
    assert not list(tmp_path.rglob("*.tmp"))


def test_faiss_index(tmp_path):
    faiss = pytest.importorskip("faiss")
    feature_files.write_faiss(tmp_path / "g.faiss", GALLERY, ["x"] * 7)
    distance, order = faiss.read_index(str(tmp_path / "g.faiss")).search(QUERY.values, 7)
    wanted = ((QUERY.values[:, None] - GALLERY.values[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(order, np.argsort(wanted, axis=1))
    np.testing.assert_allclose(distance, np.sort(wanted, axis=1), rtol=1e-5)


def test_faiss_that_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ValueError, match=r"FAISS is not installed .* the extra 'faiss'"):
        feature_files.write_faiss(tmp_path / "g.faiss", GALLERY, ["x"] * 7)


MUTATE = """
import collections, pathlib, sys
import numpy as np
from acrn_jax.evaluation import feature_files

folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
KINDS = {  # files, labels, what is changed; do checksums cover it? None: one byte may mean much, such as a type
    "npz": (["a.npz"], [], "a.npz", True),
    "small npz": (["c.npz"], [], "c.npz", True),
    "mat": (["a.mat"], [], "a.mat", None),
    "packed mat": (["c.mat"], [], "c.mat", True),
    "npy": (["a.npy"], ["a.csv"], "a.npy", None),
    "csv": (["a.npy"], ["a.csv"], "a.csv", False),
    "h5": (["a.h5"], ["a.csv"], "a.h5", None),
    "h5 with checksums": (["c.h5"], ["a.csv"], "c.h5", True),
}

def arrays(found):
    parts = [found.query, found.gallery, *found.query_labels, *found.gallery_labels]
    return [np.array(part) for part in parts]

for kind, (files, labels, changed, checked) in KINDS.items():
    paths = [[folder / name for name in names] for names in (files, labels)]
    target, generator = folder / changed, np.random.default_rng(len(kind))
    content, original = target.read_bytes(), arrays(feature_files.read(*paths))
    answers = 0
    for i in range(count):
        print(kind, i, flush=True)
        mutated = bytearray(content[: generator.integers(len(content)) if generator.random() < 0.1 else None])
        places = generator.integers(max(len(mutated), 1), size=generator.integers(1, 4))
        for place in places[: len(mutated)]:
            mutated[place] = generator.integers(256)
        target.unlink()  # not overwritten: the old one may be memory-mapped
        target.write_bytes(mutated)
        try:
            found = arrays(feature_files.read(*paths))
        except ValueError as error:
            assert str(folder) in str(error) and chr(10) not in str(error), error
            continue
        answers += 1
        if checked is None:
            continue
        assert [part.shape for part in found] == [part.shape for part in original], kind
        differing = sum(np.sum(a != b) for a, b in zip(found, original))
        assert differing <= (0 if checked else 2 * len(places)), (kind, differing)  # query and gallery may be one set
    assert 0 < answers < count, (kind, answers)
    target.write_bytes(content)
print("done")
"""


def test_thousands_of_damaged_files_end_in_the_right_answer_or_a_named_error(tmp_path):
    np.savez(tmp_path / "a.npz", **OURS)
    np.savez_compressed(tmp_path / "c.npz", feature=QUERY.values, person_id=QUERY.labels.person_id)
    scipy.io.savemat(tmp_path / "a.mat", LAYUMI)
    scipy.io.savemat(tmp_path / "c.mat", LAYUMI, do_compression=True)
    np.save(tmp_path / "a.npy", QUERY.values)
    write_csv(tmp_path / "a.csv", QUERY.labels)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["emb"] = QUERY.values
    with h5py.File(tmp_path / "c.h5", "w", libver="latest") as file:
        file.create_dataset("emb", data=QUERY.values, chunks=(5, 3), fletcher32=True)
    command = [sys.executable, "-P", "-c", MUTATE, str(tmp_path), "500"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout.splitlines()[-1:]} {done.returncode} {done.stderr[-2000:]}"
    assert done.stdout.splitlines()[-1] == "done"


def spelled_mat(path, variables):
    """A MATLAB 7.3 file as MATLAB writes it: axes in the other order, texts as codes, cells as references."""
    with h5py.File(path, "w", userblock_size=512) as file:

        def put(name, value):
            value = np.asarray(value)
            if value.dtype == object:
                cells = [put(f"#refs#/{name}{i}", cell).ref for i, cell in enumerate(value.ravel())]
                place = file.create_dataset(name, data=np.array(cells, h5py.ref_dtype).reshape(1, -1))
                place.attrs["MATLAB_class"] = np.bytes_("cell")
            elif value.dtype.kind == "U":
                lines = np.atleast_1d(value)
                place = file.create_dataset(name, data=np.array([[ord(c) for c in line] for line in lines], "u2").T)
                place.attrs["MATLAB_class"] = np.bytes_("char")
            else:
                place = file.create_dataset(name, data=np.atleast_2d(value).T)
                place.attrs["MATLAB_class"] = np.bytes_("double")
            return place

        for name, value in variables.items():
            put(name, value)
        file["struct/field"] = 1.0
    content = bytearray(path.read_bytes())
    content[:128] = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(content)


@pytest.mark.parametrize("write", [scipy.io.savemat, spelled_mat], ids=["MATLAB 5", "MATLAB 7.3"])
def test_mat_with_texts_beside_the_features_and_as_labels(tmp_path, write):
    def objects(values):
        cells = np.empty(len(values), object)
        cells[:] = values
        return cells

    names = [f"{i}_é.jpg" for i in range(7)]
    write(tmp_path / "a.mat", LAYUMI)
    same_search(feature_files.read([tmp_path / "a.mat"]))
    write(tmp_path / "a.mat", LAYUMI | {"gallery_img": np.array(names), "paths": objects(names), "note": "mine"})
    same_search(feature_files.read([tmp_path / "a.mat"]))
    lines = {k: np.array([f"{n:4d}" for n in v]) for k, v in LAYUMI.items() if "_f" not in k}
    write(tmp_path / "a.mat", LAYUMI | lines)
    same_search(feature_files.read([tmp_path / "a.mat"]))
    for spell in (str, float):
        cells = {k: objects([spell(n) for n in v]) for k, v in LAYUMI.items() if "_f" not in k}
        write(tmp_path / "a.mat", LAYUMI | cells)
        same_search(feature_files.read([tmp_path / "a.mat"]))
    write(tmp_path / "a.mat", LAYUMI | {"query_lable": np.array(["0001", "0002"])})  # could be what was meant
    with pytest.raises(ValueError, match="holds query_lable, which nothing here reads"):
        feature_files.read([tmp_path / "a.mat"])
    write(tmp_path / "a.mat", LAYUMI | {"query_label": np.array([f"a{n}" for n in QUERY.labels.person_id])})
    with pytest.raises(ValueError, match="query_label row 0 is 'a1'; labels are integers"):
        feature_files.read([tmp_path / "a.mat"])


@pytest.mark.parametrize("write", [scipy.io.savemat, spelled_mat], ids=["MATLAB 5", "MATLAB 7.3"])
def test_the_label_of_one_query_as_text(tmp_path, write):
    one = {"query_f": QUERY.values[:1], "query_label": "0007", "query_cam": "2"}
    write(tmp_path / "a.mat", LAYUMI | one)
    labels = feature_files.read([tmp_path / "a.mat"]).query_labels
    assert labels.person_id.tolist() == [7] and labels.camera_id.tolist() == [2]


def test_hdf5_that_matlab_did_not_write_has_its_axes_in_order(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.update(LAYUMI)
    same_search(feature_files.read([tmp_path / "a.mat"]))


def test_what_is_beside_the_features_does_not_matter(tmp_path):
    sparse = scipy.sparse.eye(3).tocsc()
    scipy.io.savemat(tmp_path / "a.mat", LAYUMI | {"options": {"width": 1}, "links": sparse, "waves": np.array([1j])})
    same_search(feature_files.read([tmp_path / "a.mat"]))
    scipy.io.savemat(tmp_path / "a.mat", LAYUMI | {"query_f": sparse})
    with pytest.raises(ValueError, match=r"a\.mat: query_f is a sparse matrix; save it as a plain array") as caught:
        feature_files.read([tmp_path / "a.mat"])
    assert "original" not in str(caught.value)
    np.savez(tmp_path / "a.npz", **OURS, query_path=np.array(["a.jpg"] * 5), gallery_path=np.array(["b"] * 7, object))
    same_search(feature_files.read([tmp_path / "a.npz"]))
    np.savez(tmp_path / "a.npz", **OURS | {"query_person_id": np.array(["0001"] * 5, object)})
    with pytest.raises(ValueError, match=r"query_person_id is an array of Python objects.*; save it as a plain array"):
        feature_files.read([tmp_path / "a.npz"])
    (tmp_path / "b.mat").write_bytes(b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + b"x" * 80)
    with pytest.raises(ValueError, match=r"b\.mat cannot be read as a MATLAB 5 file .*: save it anew with -v7"):
        feature_files.read([tmp_path / "b.mat"])


def test_an_entry_adds_a_format(tmp_path, monkeypatch):
    """One entry of the table, and files of it are written, read and named in messages."""

    def write_text(path, sets):
        np.savetxt(path, sets[0].features.values)
        feature_files.write_csv(path.with_suffix(".csv"), sets[0].features.labels, sets[0].file_name)

    read_text = functools.partial(feature_files.with_csv_labels, np.loadtxt)
    monkeypatch.setitem(feature_files.FORMATS, "txt", feature_files.Format((".txt",), read_text, write_text))
    assert feature_files.format_of(tmp_path / "q.txt", None) == "txt"
    with pytest.raises(ValueError, match=r"npz, csv, mat, h5, faiss or txt does; endings are .*, \.txt"):
        feature_files.format_of(tmp_path / "q.doc", None)
    paths = [tmp_path / "q.txt", tmp_path / "g.txt"]
    for path, part in zip(paths, (QUERY, GALLERY), strict=True):
        names = np.arange(len(part.values)).astype(str)
        one = feature_files.Content("feature", part, names, names, "print", {})
        feature_files.write(path, [one], "txt")
    found = feature_files.read(paths, [path.with_suffix(".csv") for path in paths])
    np.testing.assert_allclose(found.gallery, GALLERY.values)
    np.testing.assert_array_equal(found.query_labels, QUERY.labels)
    with pytest.raises(ValueError, match=r"one \.npz, \.mat, \.h5, \.npy or \.txt, or two"):
        feature_files.read(paths * 2)
    with pytest.raises(ValueError, match="format npy are read, not written; choose npz, csv"):
        feature_files.write(tmp_path / "a.npy", [], "npy")
