"""SciPy writes what is read here, and reads it as well where it is sound."""

import os
import pathlib

import numpy as np
import pytest
import scipy.io

from acrn_jax.data_prep import matlab

TREE = {
    "numbers": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "fractions": np.array([[0.5, -1e300, np.inf]]),
    "cube": np.arange(24, dtype=np.int8).reshape(2, 3, 4),
    "single": np.array([[1.25]], np.float32),
    "flags": np.array([[True, False]]),
    "text": "Ärger_c1 of 5 €",
    "inner": {"deep": {"deeper": np.array([[7]])}, "nothing": np.zeros((0, 0))},
}


def cells(*values):
    """[N, 1]."""
    table = np.empty((len(values), 1), object)
    table[:, 0] = values
    return table


def same(found, wanted):
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        for name, value in wanted.items():
            same(found[name], value)
    elif isinstance(wanted, np.ndarray) and wanted.dtype == object:
        assert found.shape == wanted.shape and found.dtype == object
        for a, b in zip(found.ravel(), wanted.ravel(), strict=True):
            same(a, b)
    elif isinstance(wanted, np.ndarray):
        np.testing.assert_array_equal(found, wanted)
        assert found.dtype == (np.uint8 if wanted.dtype == bool else wanted.dtype)
    else:
        assert found == wanted


@pytest.mark.parametrize("compressed", [False, True])
def test_reads_what_scipy_writes(tmp_path, compressed):
    tree = TREE | {"cells": cells("one", np.array([[1, 2]]), cells("in", "cells"), {"a": "b"}), "empty": cells()}
    scipy.io.savemat(tmp_path / "a.mat", {"other": np.ones(3), "tree": tree}, do_compression=compressed)
    same(matlab.read(tmp_path / "a.mat", "tree"), tree)
    several = np.array([[("x", 1.0), ("y", 2.0)]], [("name", object), ("value", object)])
    scipy.io.savemat(tmp_path / "b.mat", {"several": several}, do_compression=compressed)
    found = matlab.read(tmp_path / "b.mat", "several")
    assert found.shape == (1, 2) and [cell["name"] for cell in found[0]] == ["x", "y"]
    everything = matlab.read_all(tmp_path / "a.mat")
    assert list(everything) == ["other", "tree"] and everything["other"].tolist() == [[1, 1, 1]]
    same(everything["tree"], tree)


def test_reads_big_endian(tmp_path):
    """By hand: uint16 [1, 3] stored as bytes in the tag, with the other order of bytes."""
    words = [(6, 8), (9 + 2, 0), (5, 8), (1, 3)]
    content = b"".join(a.to_bytes(4, "big") + b.to_bytes(4, "big") for a, b in words)
    content += b"\x00\x01\x00\x01x\0\0\0" + b"\x00\x03\x00\x02\x07\x08\x09\x00"  # the name x; three of type 2
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + (14).to_bytes(4, "big") + len(content).to_bytes(4, "big") + content)
    found = matlab.read(tmp_path / "a.mat", "x")
    assert found.dtype == np.uint16 and found.tolist() == [[7, 8, 9]]
    assert scipy.io.loadmat(tmp_path / "a.mat")["x"].tolist() == [[7, 8, 9]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([[1j]]), "complex"),
        (scipy.sparse.eye(3).tocsc(), "a sparse matrix"),
    ],
)
def test_what_is_not_read(tmp_path, value, message):
    scipy.io.savemat(tmp_path / "a.mat", {"x": value})
    with pytest.raises(ValueError, match=rf"a\.mat cannot be read as a MATLAB 5 file \(.*{message}"):
        matlab.read(tmp_path / "a.mat", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no such header"),
        (b"no table" * 40, "no such header"),
        (b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF", "HDF5"),
        (b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM", "no variable 'x'"),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.mat cannot be read .*{message}.*take the original file again"):
        matlab.read(tmp_path / "a.mat", "x")
    with pytest.raises(FileNotFoundError, match=r"none\.mat.*variable 'x'"):
        matlab.read(tmp_path / "none.mat", "x")


def test_unpacked_size_is_bounded(tmp_path, monkeypatch):
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.zeros((1000, 100))}, do_compression=True)
    assert matlab.read(tmp_path / "a.mat", "x").shape == (1000, 100)
    monkeypatch.setattr(matlab, "_MAX_BYTES", 100_000)
    with pytest.raises(ValueError, match="too large"):
        matlab.read(tmp_path / "a.mat", "x")
    assert matlab.read_all(tmp_path / "a.mat", max_bytes=1 << 20)["x"].shape == (1000, 100)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_files_end_in_an_answer_or_a_named_error(tmp_path, compressed):
    mat = tmp_path / "a.mat"
    scipy.io.savemat(mat, {"tree": TREE | {"cells": cells("one", {"a": "b"})}}, do_compression=compressed)
    content, generator, answers = mat.read_bytes(), np.random.default_rng(0), 0
    for _ in range(400):
        changed = bytearray(content[: generator.integers(len(content)) if generator.random() < 0.1 else None])
        for _ in range(generator.integers(1, 4)):
            if changed:
                changed[generator.integers(len(changed))] = generator.integers(256)
        mat.write_bytes(changed)
        try:
            matlab.read(mat, "tree")
            answers += 1
        except ValueError as error:
            assert str(mat) in str(error)
    assert 0 < answers < 400


@pytest.mark.skipif("ACRN_ANNOTATIONS_DIR" not in os.environ, reason="ACRN_ANNOTATIONS_DIR names no folder with them")
@pytest.mark.parametrize("name", ["market_attribute", "duke_attribute"])
def test_the_real_annotations_as_scipy_reads_them(name):
    path = pathlib.Path(os.environ["ACRN_ANNOTATIONS_DIR"]) / f"{name}.mat"
    tables, found = scipy.io.loadmat(path)[name][0, 0], matlab.read(path, name)
    assert tuple(found) == tables.dtype.names
    for part, fields in found.items():
        assert tuple(fields) == tables[part][0, 0].dtype.names
        for field, values in fields.items():
            wanted = tables[part][0, 0][field]
            wanted = np.vectorize(lambda cell: cell[0])(wanted) if field == "image_index" else wanted
            np.testing.assert_array_equal(values, wanted)


@pytest.mark.parametrize("compressed", [False, True])
def test_texts_of_several_lines_and_what_is_not_read(tmp_path, compressed):
    lines = ["one", "zwölf", ""]
    content = {"lines": np.array(lines), "wave": np.array([[1j]]), "net": scipy.sparse.eye(2).tocsc(), "x": 1.0}
    scipy.io.savemat(tmp_path / "a.mat", content, do_compression=compressed)
    found = matlab.read_all(tmp_path / "a.mat")
    assert found["lines"].tolist() == lines == matlab.read(tmp_path / "a.mat", "lines").tolist()
    assert found["wave"] == matlab.Unreadable("an array of complex numbers") and found["x"].tolist() == [[1]]
    assert found["net"] == matlab.Unreadable("a sparse matrix")
