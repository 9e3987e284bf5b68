"""The examples in the docstrings of losses and evaluation, and the README's call, do what they show."""

import doctest
import importlib
import inspect
import pathlib
import re

import pytest

from acrn_jax import evaluation, losses

ROOT = pathlib.Path(__file__).parents[1]
MODULES = [
    f"acrn_jax.{room}.{file.stem}"
    for room in ("losses", "evaluation")
    for file in sorted((ROOT / "acrn_jax" / room).glob("*.py"))
    if ">>> " in file.read_text()
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    module = importlib.import_module(name)
    found = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("module", [losses, evaluation])
def test_every_public_function_has_an_example(module):
    functions = [getattr(module, name) for name in module.__all__ if inspect.isfunction(getattr(module, name))]
    assert len(functions) >= 4
    for function in functions:
        told = inspect.getdoc(function)
        assert ">>> " in told, f"{function.__name__} shows no example"
        assert "Source: " in told or function.__module__.endswith(("weights", "triplet")) or "| source |" in told


def test_readmes_call(capsys):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    (block,) = [block for block in blocks if "acrn_jax.evaluate" in block]
    exec(compile(block, "README.md", "exec"), {})
    assert "mAP prec.      75.0" in capsys.readouterr().out
