"""./launch.sh bench: every script is listed with what it says of itself; what fails is passed on."""

import ast
import importlib.util
import subprocess

import jax
import jax.numpy as jnp
import pytest

from benchmarks import __main__ as bench


def test_every_benchmark_says_what_it_measures():
    known = bench.names()
    assert set(bench.SPEED) <= known.keys() and "crash" in known and not any(n.startswith("_") for n in known)
    assert all(len(text) > 20 for text in known.values())


@pytest.mark.parametrize(
    "typed, said",
    [("rankin", "no benchmark 'rankin'; did you mean ranking?"), ("xyz", "no benchmark 'xyz'; there are")],
)
def test_a_name_that_is_none(capsys, typed, said):
    assert bench.main([typed]) == 2
    assert said in capsys.readouterr().err


def test_runs_one_with_its_flags_and_gives_its_code(monkeypatch, capfd):
    commands = []

    def run(command, check):
        commands.append(command[3:])
        return subprocess.CompletedProcess(command, 3 if "ranking" in command[-1] else 0)

    monkeypatch.setattr(bench.subprocess, "run", run)
    assert bench.main(["input", "--images=8"]) == 0
    assert bench.main([]) == 3  # at the fourth; the fifth is not begun
    assert commands == [["benchmarks.input", "--images=8"]] + [[f"benchmarks.{n}"] for n in bench.SPEED[:4]]
    assert "== ranking: Ranking at the size of Market-1501" in capfd.readouterr().out


def test_what_is_not_installed_is_left_out_of_a_run_of_all(monkeypatch, capfd):
    monkeypatch.setattr(bench.subprocess, "run", lambda command, check: subprocess.CompletedProcess(command, 0))
    monkeypatch.setattr(bench, "NEEDS", {"export": "no_such_package"})
    assert bench.main([]) == 0
    said = capfd.readouterr().out
    assert said.count("left out, as no_such_package is not installed") == 1 and "== startup" in said


@pytest.mark.parametrize("name", [name for name in bench.names() if name not in bench.NEEDS])
def test_each_finds_what_it_imports(name):  # as run by -m, not from its own folder
    body = ast.parse((bench.HERE / f"{name}.py").read_text()).body
    modules = [alias.name for node in body if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in body if isinstance(node, ast.ImportFrom)]
    beside = [alias.name for node in body if getattr(node, "module", "") == "benchmarks" for alias in node.names]
    modules += [f"benchmarks.{name}" for name in beside]
    needed = [module for module in modules if module.partition(".")[0] not in ("torch", "safetensors")]  # extras
    assert needed
    assert not [module for module in needed if importlib.util.find_spec(module) is None]


def test_torchs_nets_have_our_sizes():
    pytest.importorskip("torch")
    from benchmarks import _torch_nets, train

    nets = {"acrn": _torch_nets.acrn_net(100, height=160, width=64), "inception": _torch_nets.inception_v1(100)}
    for name, net in nets.items():
        variables = jax.eval_shape(
            lambda images, name=name: train.module(name, jnp.float32).init(jax.random.key(0), images, train=True),
            jax.ShapeDtypeStruct((2, 160, 64, 3), jnp.float32),
        )
        ours = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        assert ours == sum(parameter.numel() for parameter in net.parameters()), name
