"""Who may know whom, read from the source: each module imports only what its row names, and the standard library."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PLAIN = "acrn_jax.schema acrn_jax.files acrn_jax.extras"  # of the standard library and numpy
ANYONE = ("acrn_jax.COMMAND",)  # the word in messages for what users type
MODULES = " ".join(
    f"acrn_jax.{n}"
    for n in "schema rules files results provenance ops losses models data train evaluation report".split()
)

MAY = {  # an entry allows what begins with it: "flax.struct" does not allow flax.linen
    "acrn_jax/schema.py": "numpy",
    "acrn_jax/files.py": "numpy",
    "acrn_jax/results": "numpy acrn_jax.files",
    "acrn_jax/ops": "numpy jax",
    "acrn_jax/losses": "numpy jax optax acrn_jax.schema acrn_jax.ops acrn_jax.rules",
    "acrn_jax/models": "numpy jax flax.linen safetensors acrn_jax.schema acrn_jax.ops acrn_jax.rules",
    # Workers never touch jax; how a picture becomes pixels is said once, in data_prep.
    "acrn_jax/data": "numpy grain tensorflow_datasets numba acrn_jax.schema acrn_jax.data_prep.pictures acrn_jax.rules",
    "acrn_jax/train": f"numpy jax optax flax.struct orbax grain tensorboardX absl {PLAIN} acrn_jax.rules acrn_jax.ops",
    "acrn_jax/evaluation": f"numpy jax scipy h5py PIL simplejpeg {PLAIN} acrn_jax.ops acrn_jax.provenance "
    "acrn_jax.data_prep.matlab",
    # Reads result files, never a model.
    "acrn_jax/report": f"numpy matplotlib PIL jinja2 acrn_jax.results acrn_jax.evaluation.metrics {PLAIN}",
    "acrn_jax/export": f"numpy jax onnx onnxruntime safetensors {PLAIN} acrn_jax.ops acrn_jax.losses "
    "acrn_jax.models acrn_jax.evaluation",
    "acrn_jax/rules.py": "",
    # The one reader of a ConfigDict, which it knows by its methods; all above it sees frozen records.
    "acrn_jax/settings.py": f"flax.traverse_util {MODULES}",
    "acrn_jax/build.py": f"numpy jax acrn_jax.settings {MODULES}",
    "acrn_jax/runs": f"numpy jax flax.traverse_util PIL acrn_jax.settings acrn_jax.build acrn_jax.export {MODULES} "
    "acrn_jax.data_prep.pictures",
    "acrn_jax/provenance.py": "acrn_jax.CHECKOUT acrn_jax.__version__",
    "acrn_jax/extras.py": "acrn_jax.CHECKOUT",
    "acrn_jax/__main__.py": "acrn_jax.cli.main",
    "acrn_jax/studies": f"numpy jax acrn_jax.settings acrn_jax.build acrn_jax.runs {MODULES}",
    "acrn_jax/cli": "absl ml_collections numpy jax acrn_jax.CHECKOUT acrn_jax.__version__ "
    "acrn_jax.provenance acrn_jax.configs acrn_jax.data_prep acrn_jax.runs acrn_jax.settings "
    f"{PLAIN} acrn_jax.studies acrn_jax.export "
    "acrn_jax.report acrn_jax.results acrn_jax.data acrn_jax.evaluation acrn_jax.train.logs acrn_jax.train.parallel",
    "configs": "ml_collections",
    "data_prep": "numpy PIL simplejpeg scipy h5py etils tensorflow_datasets absl",  # never others of acrn_jax, nor jax
}


def imports(source: str):
    """Dotted names that a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def strays(source: str, own: str, may: str):
    """Imports that are neither the module's own, nor named, nor of the standard library."""
    allowed = (own, *ANYONE, *may.split())
    return sorted(
        name
        for name in imports(source)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)
    )


def files(place: str):
    path = ROOT / place
    return [path] if path.is_file() else sorted(path.rglob("*.py"))


@pytest.mark.parametrize("place", MAY)
def test_a_module_imports_what_its_row_names(place):
    own = place.removesuffix(".py").replace("/", ".")
    own = own if own.startswith("acrn_jax") else f"acrn_jax.{own}"
    for file in files(place):
        found = strays(file.read_text(), own, MAY[place])
        assert not found, f"{file.relative_to(ROOT)} imports {found}; {place} may import {MAY[place]}"


def test_nothing_is_imported_under_two_names():
    """Those beside the package are acrn_jax.configs and acrn_jax.data_prep everywhere, as in an installed package."""
    tracked = (
        "acrn_jax",
        "benchmarks",
        "configs",
        "data_prep",
        "tests",
    )  # not an environment that lies there
    every = [file for folder in tracked for file in files(folder)]
    found = {str(file.relative_to(ROOT)): imports(file.read_text()) for file in every}
    assert len(found) > 200
    beside = {"configs", "data_prep"}
    assert [file for file, names in found.items() if beside & {name.split(".")[0] for name in names}] == []
    builders = [f"acrn_jax.data_prep.{file.parent.name}.{file.stem}" for file in ROOT.glob("data_prep/*/*_builder.py")]
    code = f"""
import collections, importlib, sys
for name in {["acrn_jax.cli.ablate", "acrn_jax.data_prep.prepare", *builders]}:
    importlib.import_module(name)
import tensorflow_datasets as tfds
assert {{"peta", "synthetic_pedestrians", "cuhk03_np"}} <= set(tfds.list_builders(with_community_datasets=False))
files = collections.Counter(getattr(module, "__file__", None) for name, module in list(sys.modules.items()))
ours = tuple({[f"{ROOT}/{folder}/" for folder in ("acrn_jax", "configs", "data_prep")]})
print([file for file, times in files.items() if file and file.startswith(ours) and times > 1])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_file_lies_in_a_row():
    modules = {file for place in MAY for file in files(place)} | {ROOT / "acrn_jax" / "__init__.py"}
    everything = {file for folder in ("acrn_jax", "configs", "data_prep") for file in files(folder)}
    assert sorted(str(file.relative_to(ROOT)) for file in everything - modules) == []


@pytest.mark.parametrize(
    ("source", "stray"),
    [
        ("import flax.linen as nn", "flax.linen"),
        ("from flax import linen", "flax.linen"),
        ("def late():\n    from acrn_jax.models import acrn", "acrn_jax.models.acrn"),
        ("import acrn_jax.models", "acrn_jax.models"),
        ("from acrn_jax import build", "acrn_jax.build"),
        ("from . import step", "..step"),
        ("import optaxx", "optaxx"),
        ("import tensorflow", "tensorflow"),
    ],
)
def test_a_stray_import_is_seen(source, stray):
    good = "import json, jax.numpy as jnp\nfrom flax import struct\nfrom acrn_jax.train.state import State\n"
    assert strays(good + source, "acrn_jax.train", MAY["acrn_jax/train"]) == [stray]


def test_data_module_touches_no_accelerator_and_no_tensorflow():
    modules = [f"acrn_jax.data.{file.stem}" for file in files("acrn_jax/data") if file.stem != "__init__"]
    code = f"import sys, {', '.join(modules)}; print({{'flax', 'tensorflow'}} & set(sys.modules) or 'clean')"
    # Grain imports jax where it finds it; with a platform that does not exist, jax fails as soon as it is used.
    env = os.environ | {"JAX_PLATFORMS": "none_such"}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == "clean", done.stderr


def test_a_config_dict_is_seen_by_the_command_line_and_settings_alone():
    """Above settings.read there are frozen records: no module of the package calls what a ConfigDict alone has."""
    of_config_dict = ("to_json_best_effort", "copy_and_resolve_references", "unlocked", "update_from_flattened_dict")
    found = {
        str(file.relative_to(ROOT))
        for file in files("acrn_jax")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in of_config_dict
    }
    assert found == {"acrn_jax/settings.py"}
