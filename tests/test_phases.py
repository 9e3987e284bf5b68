"""What a phase says about itself: made of what, finished or not, with which values. States of two numbers each."""

import hashlib
import json

import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.runs import phases
from acrn_jax.train import checkpoint, optimizer
from acrn_jax.train import state as states

DATA = phases.entry("d/c/train", "1" * 64)
INPUTS = {
    "steps": 7,
    "data": DATA,
    "records": phases.entry("d/c/train", "2" * 64),
    "attributes": phases.entry("nets/M", "3" * 64, path="nets/M"),
    "start": phases.entry("old/identity", "4" * 64),
}


def save(phase, *, step=7, values=(1.0, 2.0), ema=0.0):
    tx = optimizer.make({"scratch": {"kind": "sgd", "rate": 0.1}}, {"stem": "scratch"})
    variables = {"params": {"stem": {"kernel": np.float32(values)}}, "batch_stats": {"stem": np.float32([9])}}
    state = states.create(variables, optimizer.averaged(tx, ema) if ema else tx)
    if ema:  # the average stays at `values`
        state = state.replace(params={"net": {"stem": {"kernel": jnp.float32([5, 5])}}})
    saved = checkpoint.Checkpoints(phase / "checkpoints")
    saved.save(state.replace(step=jnp.int32(step)))
    saved.close()


def test_a_phase_that_has_not_begun_is_of_what_it_was_told_last(tmp_path):
    for steps in (3, 7):
        phases.begin(tmp_path / "reid", {"steps": steps})
    assert phases.read(tmp_path / "reid") == {"steps": 7}
    assert phases.progress(tmp_path / "reid") == (0, 7) and not phases.progress(tmp_path / "reid").finished


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (
            "data",
            r"was trained on d/c/train \(fingerprint 111111111111\), not other as it is now \(abcabcabcabc\); bring",
        ),
        ("records", "a choice of images of d/c/train"),
        ("attributes", r"with the attribute net nets/M \(fingerprint 333333333333\), not other"),
        ("start", r"was started from old/identity \(fingerprint 444444444444\), not other"),
    ],
)
def test_another_input_is_refused_with_both_named_and_another_path_is_not(tmp_path, kind, told):
    phase = tmp_path / "run" / "reid"
    phases.begin(phase, INPUTS)
    before = phases.read(phase)
    save(phase, step=3)
    other = phases.entry("other", "abc" * 22)
    with pytest.raises(ValueError, match=told):
        phases.check(phase, {kind: other})
    with pytest.raises(ValueError, match=told):
        phases.begin(phase, INPUTS | {kind: other})
    with pytest.raises(ValueError, match="not nothing as it is now"):
        phases.begin(phase, {name: value for name, value in INPUTS.items() if name != kind})
    assert phases.read(phase) == before
    moved = phases.entry("other", INPUTS[kind]["fingerprint"], path=tmp_path / "there")
    phases.begin(phase, INPUTS | {kind: moved})
    assert phases.read(phase)[kind] == moved | {"path": "../there"}  # from the run's folder


def test_an_unfinished_phase_is_not_to_be_used(tmp_path):
    phases.begin(tmp_path / "reid", INPUTS)
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        phases.load(tmp_path / "reid")
    save(tmp_path / "reid", step=5)
    for use in (phases.load, phases.fingerprint, phases.about):
        with pytest.raises(ValueError, match="reid is not finished: it is at step 5 of 7; run the command again"):
            use(tmp_path / "reid")
        use(tmp_path / "reid", unfinished=True)
    assert phases.progress(tmp_path / "reid") == (5, 7)
    save(tmp_path / "reid", step=7)
    assert phases.progress(tmp_path / "reid").finished and int(phases.load(tmp_path / "reid")["step"]) == 7
    newest = tmp_path / "reid" / "checkpoints" / "7"  # damaged: the one before is not the finished one
    for file in (file for file in newest.rglob("*") if file.is_file()):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="at step 5 of 7"):
        phases.load(tmp_path / "reid")


def test_a_run_that_is_still_in_the_phase_before(tmp_path):
    phases.begin(tmp_path / "identity", {"steps": 7})
    save(tmp_path / "identity", step=5)
    told = "reid has not begun: identity, the phase before, is at step 5 of 7; run the command again"
    for unfinished in (False, True):
        with pytest.raises(FileNotFoundError, match=told):
            phases.load(tmp_path / "reid", unfinished=unfinished)


def test_fingerprint_is_of_the_values_that_are_used(tmp_path):
    def by_hand(*values):
        return hashlib.sha256(np.float32([*values, 9]).tobytes()).hexdigest()

    for name, settings in (("a", {}), ("later", {"step": 9}), ("average", {"ema": 0.9})):
        save(tmp_path / name, **settings)
        assert phases.fingerprint(tmp_path / name) == by_hand(1, 2), name
    save(tmp_path / "b", values=(1, 3))
    assert phases.fingerprint(tmp_path / "b") == by_hand(1, 3)
    phases.begin(tmp_path / "b", INPUTS)  # begun, of an older version: stays without
    assert phases.about(tmp_path / "b") == {"step": 7, "values": by_hand(1, 3)}


def test_a_phase_of_an_older_version_is_read_with_one_sentence(tmp_path, capsys):
    for name in ("identity", "reid"):
        save(tmp_path / name, step=5)
        phases.begin(tmp_path / name, INPUTS)
        phases.check(tmp_path / name, INPUTS)
        assert int(phases.load(tmp_path / name)["step"]) == 5 and phases.progress(tmp_path / name).finished
        assert not (tmp_path / name / "inputs.json").exists()
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and f"{tmp_path} was trained by an older version" in told
    assert json.dumps(phases.about(tmp_path / "reid"))
