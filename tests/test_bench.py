"""./launch.sh bench: every script is listed with what it says of itself; what fails is passed on."""

import subprocess

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
    assert bench.main([]) == 3  # at the third; the fourth is not begun
    assert commands == [["benchmarks.input", "--images=8"]] + [[f"benchmarks.{n}"] for n in bench.SPEED[:3]]
    assert "== ranking: Ranking at the size of Market-1501" in capfd.readouterr().out
