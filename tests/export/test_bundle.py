"""A bundle of a whole ACRN run: equal to the nets, readable without us, and refused where it is damaged."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import export
from PIL import Image

import acrn_jax
from acrn_jax import runs
from acrn_jax.export import bundle, stablehlo
from acrn_jax.runs import bundles

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "bundle.md"
HAS_ONNX = importlib.util.find_spec("onnx") is not None and importlib.util.find_spec("onnxruntime") is not None
FORMATS = [kind for kind in bundle.FILES if kind != "onnx" or HAS_ONNX]
NEEDS_ONNX = pytest.mark.skipif(not HAS_ONNX, reason="the extra 'export' is not installed")


@pytest.fixture(scope="module")
def made(run, tmp_path_factory):
    """(folder, manifest, sample)."""
    folder = tmp_path_factory.mktemp("out") / "bundle"
    manifest = bundles.export(run[0], folder, formats=FORMATS)
    with np.load(folder / "sample.npz") as sample:
        return folder, manifest, dict(sample)


@pytest.fixture
def copy(made, tmp_path):
    return pathlib.Path(shutil.copytree(made[0], tmp_path / "bundle"))


def test_manifest_says_what_is_there(made, run):
    folder, manifest, sample = made
    assert manifest == bundle.read(folder)
    assert {p.name for p in folder.iterdir()} == {*manifest["files"], "manifest.json"}
    assert {bundle.FILES[kind] for kind in FORMATS} | {"sample.npz"} == set(manifest["files"])
    assert manifest["format"] == "acrn_jax bundle 1" and manifest["refused"] == {}
    for name, entry in manifest["outputs"].items():
        assert entry["shape"][1:] == list(sample[name].shape[1:])
    sizes = {
        name: tuple(net["preprocessing"][k] for k in ("height", "width")) for name, net in manifest["nets"].items()
    }
    assert sizes == {"reid": (40, 16), "attributes": (33, 18)}
    assert list(manifest["weights"]) == list(manifest["attribute_names"]) and manifest["gamma"] == 0.5
    assert all(
        path.stat().st_mode & 0o777 == (folder / "manifest.json").stat().st_mode & 0o777 for path in folder.iterdir()
    )  # the umask's
    assert manifest["probabilities"]["kind"] == "raw" and "not calibrated" in manifest["probabilities"]["note"]
    assert manifest["config"]["attributes"]["from"] == str(run[1]) and manifest["versions"]["jax"]


def test_programs_equal_the_nets(made):
    _, manifest, sample = made
    for kind in set(FORMATS) & {"stablehlo", "onnx"}:
        for name in ("feature", "attributes", "embedding"):
            found = manifest["parity"][kind][name]
            assert found["relative"] < 2e-5 and found["same_nearest"] == 1, (kind, name)
    for name in ("feature", "attributes"):
        assert sample[name].std(axis=0).min() > 1e-3, "images that differ must give outputs that do"


def test_distances_of_z_are_those_of_the_run(made):
    _, manifest, sample = made
    scales, w = manifest["scales"], np.array(list(manifest["weights"].values()))
    assert w.min() < 0 and scales["feature"] != 1 != scales["attribute"]
    for i, j in ((0, 1), (2, 7)):
        f, a, z = (sample[name][i].astype(float) - sample[name][j] for name in ("feature", "attributes", "embedding"))
        wanted = sum(f**2) / scales["feature"] + manifest["gamma"] * sum((w * a) ** 2) / scales["attribute"]
        assert np.isclose(sum(z**2), wanted, rtol=1e-4)


def test_weight_files_hold_the_checkpoints_values(made, run):
    folder, _, _ = made
    from safetensors.numpy import load_file

    with np.load(folder / "weights.npz") as first:
        second = load_file(folder / "weights.safetensors")
        assert set(first) == set(second)
        kernel = runs.load(run[1]).variables["params"]["trunk"]["conv1"]["conv"]["kernel"]
        for values in (first, second):
            np.testing.assert_array_equal(values["attribute_net/params/trunk/conv1/conv/kernel"], kernel)
            assert values["reid_net/batch_stats/feature_norm/var"].shape == (8,)


@pytest.mark.parametrize("package", ["jax", pytest.param("onnxruntime", marks=NEEDS_ONNX)])
def test_examples_of_the_docs_run_without_us(made, package):
    (code,) = [c for c in re.findall("```python\n(.*?)```", DOCS.read_text(), re.DOTALL) if f"import {package}\n" in c]
    assert len([line for line in code.splitlines() if line and not line.startswith("import")]) <= 20
    code += "\nimport sys; assert not {'acrn_jax', 'flax'} & set(sys.modules)"
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=made[0].parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} == {"feature", "attributes", "embedding"}


@NEEDS_ONNX
def test_other_sizes_and_batches(made):
    """Images that are smaller and larger than the nets' own, one and several at a time."""
    folder = made[0]
    from acrn_jax.export import onnx_graph

    program = onnx_graph.load(folder / "model.onnx")
    images = np.random.default_rng(0).integers(0, 256, (3, 70, 25, 3), dtype=np.uint8)
    together = program(images)
    for i, image in enumerate(images):
        for name, value in program(image[None]).items():
            np.testing.assert_allclose(value[0], together[name][i], rtol=1e-3, atol=1e-4)


def test_float_images_are_those_that_pillow_and_the_manifest_make(run, made, tmp_path):
    formats = [kind for kind in ("stablehlo", "onnx") if kind in FORMATS]
    manifest = bundles.export(run[0], tmp_path / "float", formats=formats, outputs=["feature"], input="float_nchw")
    taken = manifest["input"]
    assert taken["dtype"] == "float32" and taken["shape"] == ["batch", 3, 40, 16]
    image = np.random.default_rng(0).integers(0, 256, (70, 25, 3), dtype=np.uint8)
    narrow = Image.fromarray(image).resize((16, 70), Image.Resampling.BILINEAR)  # columns first: docs/bundle.md
    small = np.asarray(narrow.resize((16, 40), Image.Resampling.BILINEAR))
    images = np.empty((1, 3, 40, 16), np.float32)
    for c in range(3):
        images[0, c] = (small[:, :, c] / 255 - taken["mean"][c]) / taken["deviation"][c]
    wanted = bundle.program("stablehlo").load(made[0] / "model.stablehlo")(image[None])["feature"]
    for kind in formats:
        found = bundle.program(kind).load(tmp_path / "float" / bundle.FILES[kind])(images)["feature"]
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert list(bundle.check(tmp_path / "float")) == formats
    np.testing.assert_allclose(acrn_jax.load(tmp_path / "float").embed(image), wanted, rtol=1e-3, atol=1e-4)


def test_float_images_of_two_sizes_are_refused(run, tmp_path):
    message = "takes images of 40 x 16, the attribute net of 33 x 18, .*--output=feature"
    with pytest.raises(ValueError, match=message):
        bundles.export(run[0], tmp_path / "out", formats=["npz"], input="float_nchw")
    with pytest.raises(ValueError, match="no input 'nchw'; known: uint8_nhwc, float_nchw"):
        bundles.export(run[0], tmp_path / "out", formats=["npz"], input="nchw")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_it_differs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(stablehlo, "write", lambda model, file: file.write_bytes(b""))
    monkeypatch.setattr(stablehlo, "load", lambda file: lambda images: {"attributes": np.zeros((8, 5), np.float32)})
    with pytest.raises(ValueError, match=r"stablehlo: attributes differs .* tolerance of 0\.0001"):
        bundles.export(run[1], tmp_path / "out", formats=["stablehlo"])
    assert list(tmp_path.iterdir()) == []


def test_compare_counts_by_hand():
    wanted = {"feature": np.array([[0.0], [1.0], [3.0], [-2.0]])}  # nearest: 1, 0, 1, 0
    found = {"feature": np.array([[0.0], [1.0], [3.5], [-2.0]])}
    assert bundle.compare(wanted, found)["feature"] == {
        "largest_difference": 0.5,
        "relative": 0.5 / np.sqrt(14 / 4),
        "same_nearest": 1.0,
    }
    found["feature"][1] = 2.9  # now nearest: 3, 2, 1, 0
    assert bundle.compare(wanted, found)["feature"]["same_nearest"] == 0.5
    found["feature"][1] = np.nan
    assert bundle.compare(wanted, found)["feature"]["relative"] == np.inf


def test_damaged_bundles_are_refused(copy):
    def rewrite(**changes):
        file = copy / "manifest.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    (copy / "weights.npz").write_bytes((copy / "weights.npz").read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="npz is not what was exported"):
        bundle.check(copy)
    (copy / "weights.npz").unlink()
    with pytest.raises(FileNotFoundError, match="npz is missing"):
        bundle.check(copy)
    rewrite(files={"../secret": {"sha256": "0"}})
    with pytest.raises(ValueError, match="outside the bundle"):
        bundle.check(copy)
    rewrite(format="acrn_jax bundle 2")
    with pytest.raises(ValueError, match="'acrn_jax bundle 2', this program reads up to 'acrn_jax bundle 1'; update"):
        bundle.check(copy)
    for text in ("{", "[]", "{}", '{"format": "bundle"}', '{"format": "a b c"}', '{"format": 3}'):
        (copy / "manifest.json").write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            bundle.read(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(FileNotFoundError, match="is no bundle"):
        bundle.read(copy)


def test_programs_of_newer_versions_are_refused(tmp_path):
    program = export.export(jax.jit(lambda x: {"feature": x + 1}))(jax.ShapeDtypeStruct((3,), np.float32))
    file = tmp_path / "model.stablehlo"
    file.write_bytes(program.serialize())
    assert list(stablehlo.load(file)(np.zeros(3, np.float32))["feature"]) == [1, 1, 1]
    module = re.sub(rb"StableHLO_v\d", b"StableHLO_v9", program.mlir_module_serialized)
    newer = [
        dataclasses.replace(program, calling_convention_version=99),
        dataclasses.replace(program, mlir_module_serialized=module),
    ]
    contents = [b"", b"not a program", program.serialize()[:200], *(bytes(p.serialize()) for p in newer)]
    for content in contents:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot be read by jax \d.*use the jax that its manifest names"):
            stablehlo.load(file)


@NEEDS_ONNX
@pytest.mark.parametrize("what", ["opset", "ir_version", "damaged"])
def test_newer_onnx_is_refused(made, tmp_path, what):
    import onnx

    from acrn_jax.export import onnx_graph

    proto, file = onnx.load(made[0] / "model.onnx"), tmp_path / "model.onnx"
    if what == "opset":
        proto.opset_import[0].version = 99
    elif what == "ir_version":
        proto.ir_version = 99
    file.write_bytes(proto.SerializeToString()[: 500 if what == "damaged" else None])
    with pytest.raises(ValueError, match="cannot be read by onnxruntime"):
        onnx_graph.load(file)


def test_wrong_wishes(run, made, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="no format 'onx'"):
        bundles.export(run[0], tmp_path / "a", formats=["onx"])
    with pytest.raises(FileExistsError, match="exists; name another --out"):
        bundles.export(run[1], made[0], formats=["npz"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"onnx wants onnx and onnxruntime, the extra 'export'.*--format=stablehlo,"):
        bundle.check_formats(["onnx"])
    assert bundle.installed() == ["stablehlo", "safetensors", "npz"]


def test_a_bundle_is_checked_without_what_is_not_installed(copy, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    graph, manifest = copy / "model.onnx", json.loads((copy / "manifest.json").read_text())
    graph.write_bytes(b"a graph")
    manifest["files"]["model.onnx"] = {"sha256": hashlib.sha256(b"a graph").hexdigest(), "bytes": 7}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"onnx wants .*; or check without it: --format=stablehlo,safetensors,npz"):
        bundle.check(copy)
    assert list(bundle.check(copy, ["stablehlo"])) == ["stablehlo"] and bundle.check(copy, ["npz"]) == {}
    with pytest.raises(ValueError, match="holds no 'onx'; it has stablehlo, onnx, safetensors, npz"):
        bundle.check(copy, ["onx"])


def test_export_says_what_it_leaves_out(tmp_path):
    """As the verb, without the packages; nothing is exported here."""
    code = "import importlib.util as util, runpy; find = util.find_spec; from acrn_jax.runs import bundles; "
    code += "util.find_spec = lambda name, *more: None if name.startswith('onnx') else find(name, *more); "
    code += "bundles.export = lambda *paths, formats, **more: {'parity': {}, 'files': formats}; "
    code += "runpy.run_module('acrn_jax.cli.export', run_name='__main__', alter_sys=True)"
    command = [sys.executable, "-c", code, f"--workdir={tmp_path}", "--out=out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "left out: onnx wants onnx and onnxruntime, the extra 'export': uv pip install" in done.stdout, done.stderr
    assert done.stdout.endswith("out: stablehlo, safetensors, npz\n")
