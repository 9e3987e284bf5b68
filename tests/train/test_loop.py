"""Resume, kill, damage, refusal: the loop and its checkpoints, on a net of one matrix."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import textwrap
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acrn_jax import schema
from acrn_jax.train import checkpoint, journal, logs, loop, measure, state
from tests.losses import test_objectives

STEPS = 12


def start():
    return state.create({"params": {"dense": {"kernel": np.ones((3, 2), np.float32)}}}, optax.adam(0.1))


def run(current, batch):
    """A step whose result depends on the batch and on every number before."""

    def loss_of(params):
        return jnp.mean((batch["image"] @ params["net"]["dense"]["kernel"] - 1) ** 2)

    loss, grads = jax.value_and_grad(loss_of)(current.params)
    updates, opt = optax.adam(0.1).update(grads, current.opt)
    return current.replace(step=current.step + 1, params=optax.apply_updates(current.params, updates), opt=opt), {
        "loss": loss
    }


def batches(first):
    for i in range(first, STEPS):
        yield {"image": np.random.default_rng(i).normal(size=(4, 3)).astype(np.float32)}


def phase(folder, *, steps=STEPS, batch=4, **options):
    return loop.Phase("test", folder, steps=steps, batch=batch, rate=lambda s: 0.1, **options)


def fit(folder, *, steps=STEPS, run=run, batches=batches, save_every=5, log_every=2):
    return loop.fit(
        start(), phase(folder, steps=steps, log_every=log_every, save_every=save_every), run=run, put=jax.device_put,
        batches=batches,
    )  # fmt: skip


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def lines(folder):
    return [json.loads(line) for line in (folder / "scalars.jsonl").read_text().splitlines()]


def test_stopped_and_resumed_equals_straight(tmp_path):
    straight = fit(tmp_path / "straight")

    def interrupted(first):
        for i, batch in enumerate(batches(first)):
            if i == 7:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "resumed", batches=interrupted)
    assert int(checkpoint.load_any(tmp_path / "resumed" / "checkpoints")["step"]) == 8
    same(fit(tmp_path / "resumed"), straight)
    losses = [[(line["step"], line["loss"]) for line in lines(tmp_path / name)] for name in ("straight", "resumed")]
    assert losses[0] == losses[1] and [s for s, _ in losses[0]] == [2, 4, 6, 8, 10, 12]


def test_preemption_saves_and_leaves_with_a_code_of_its_own(tmp_path, capsys):
    def preempted(first):
        for i, batch in enumerate(batches(first)):
            if i == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with pytest.raises(SystemExit) as left:
        fit(tmp_path, batches=preempted)
    assert left.value.code == 75 and "saved" in capsys.readouterr().out
    assert int(checkpoint.load_any(tmp_path / "checkpoints")["step"]) == 4
    fit(tmp_path)
    assert f"goes on from step 4 of 12 ({tmp_path})" in capsys.readouterr().out


def test_finished_run_says_so(tmp_path, capsys):
    done = fit(tmp_path)
    same(fit(tmp_path), done)
    assert "nothing to do, step 12 of 12" in capsys.readouterr().out


def test_time_left_is_without_compiling(tmp_path, capsys, monkeypatch):
    now, compiled = [0.0], measure.compiled

    def slowly(*arguments, **options):
        now[0] += 900
        return compiled(*arguments, **options)

    def second_by_second(first):
        for batch in batches(first):
            now[0] += 1
            yield batch

    clock = types.SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0])
    monkeypatch.setattr(logs, "time", clock)
    monkeypatch.setattr(journal, "time", clock)
    monkeypatch.setattr(measure, "compiled", slowly)
    fit(tmp_path, batches=second_by_second, steps=STEPS, log_every=11)
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("test 11/12")]
    assert len(shown) == 1 and shown[0].endswith("0:00 left")  # ten seconds for eleven steps, so one for the last


def test_a_window_tells_the_speed_of_its_steps(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(journal, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def slow():
        for _ in range(4):
            now[0] += 0.5  # images take half a second
            yield {}

    window, source = journal.Window(best_seconds=1.0), slow()
    for step in range(4):
        window.fetch(source)
        now[0] += 1.5
        window.add({"loss": jnp.array([step, 10.0])})
    window.close()
    now[0] += 99
    assert window.means(0) == {"loss": 1.5} and window.means(1) == {"loss": 10.0}
    speed = {"images_per_second": 16.0, "step_seconds": 2.0, "waiting_share": 0.25, "mfu": 0.5}
    assert window.speed(32) == speed
    speed.pop("mfu")
    other = journal.Window()
    other.add({"loss": jnp.float32(1)})
    now[0] += 2
    other.close()
    assert other.means() == {"loss": 1.0} and other.speed(32) == speed | {"waiting_share": 0.0}


@pytest.mark.parametrize("damage", ["empty", "truncate", "flip"])
def test_damaged_newest_checkpoint_is_skipped(tmp_path, caplog, damage):
    done = fit(tmp_path)
    newest = tmp_path / "checkpoints" / "12"
    for file in [f for f in newest.rglob("*") if f.is_file()]:
        content = file.read_bytes()
        spoilt = {"empty": b"", "truncate": content[: len(content) // 2], "flip": bytes(255 - b for b in content)}
        file.write_bytes(spoilt[damage])
    assert int(checkpoint.load_any(tmp_path / "checkpoints")["step"]) == 10
    assert "Checkpoint 12" in caplog.text
    same(fit(tmp_path), done)  # steps 11 and 12 are done again and saved
    assert int(checkpoint.load_any(tmp_path / "checkpoints")["step"]) == 12


def test_a_single_flipped_bit_is_seen(tmp_path, caplog):
    kernel = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    begun = state.create({"params": {"dense": {"kernel": kernel}}}, optax.adam(0.1))
    saved = checkpoint.Checkpoints(tmp_path)
    for step in (1, 2):
        saved.save(begun.replace(step=jnp.int32(step)))
    saved.close()
    largest = max((f for f in (tmp_path / "2").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 16
    largest.write_bytes(content)
    assert int(checkpoint.load_any(tmp_path)["step"]) == 1
    restored = checkpoint.Checkpoints(tmp_path).restore(begun)
    assert int(restored.step) == 1
    np.testing.assert_array_equal(restored.params["net"]["dense"]["kernel"], kernel)
    assert caplog.text.count("Checkpoint 2") == 2 and "not those that were saved" in caplog.text


def test_checkpoint_of_another_net_is_refused(tmp_path):
    fit(tmp_path)
    other = state.create({"params": {"dense": {"kernel": np.ones((5, 2), np.float32)}}}, optax.adam(0.1))
    with pytest.raises(ValueError, match="another model, or damaged"):
        checkpoint.Checkpoints(tmp_path / "checkpoints").restore(other)


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match="train that run first"):
        checkpoint.load_any(tmp_path / "nothing")


def test_loss_that_is_not_finite_stops_the_run(tmp_path):
    def broken(current, batch):
        return run(current, {"image": batch["image"] * (np.nan if int(current.step) == 4 else 1)})

    with pytest.raises(ValueError, match="loss is nan between steps 5 and 6"):
        fit(tmp_path, run=broken)


def test_collapse_stops_the_run(tmp_path):
    def collapsed(current, batch):
        return run(current, batch)[0], {"loss": jnp.float32(0.3), "spread": jnp.float32(0), "active": jnp.float32(1)}

    with pytest.raises(ValueError, match="collapsed by step 2"):
        fit(tmp_path, run=collapsed)


PERSON = np.repeat(np.arange(4), 3)
LOSS = test_objectives.SETTINGS | {"margin": 0.3, "attribute_margin": 0.3}
SOFT = {"soft": True, "temperature": 0.3}


def watched(folder, capsys, sizes, weight=1.0, **settings):
    """What is said of a run whose features have `sizes[i]` in window i, or the last, and weights of w `weight`."""
    rng = np.random.default_rng(0)
    f, a = rng.normal(size=(12, 5)).astype(np.float32), rng.random((12, 4)).astype(np.float32)
    objective = jax.jit(test_objectives.reid_loss(**LOSS | settings))

    def step_of(current, batch):
        size = sizes[min(int(current.step) // 2, len(sizes) - 1)]
        outputs, of = schema.Outputs(size * f, size * f), {"person": PERSON, "probabilities": a}
        w = {"attribute_weights": {"raw": np.full(4, weight, np.float32)}}
        loss, (scalars, scales) = objective(w, outputs, of, current.scales)
        return current.replace(step=current.step + 1, scales=scales), {"loss": loss} | scalars

    of = phase(folder, log_every=2, save_every=99, epoch=3)
    loop.fit(start(), of, run=step_of, put=jax.device_put, batches=batches)
    return [line for line in capsys.readouterr().out.splitlines() if "warning" in line]


@pytest.mark.parametrize("settings", [{}, SOFT, {"distance": "euclidean"}, {"kind": "classic", "miner": "batch_all"}])
def test_a_loss_that_stays_at_its_margin_is_told_once(tmp_path, capsys, settings):
    told = watched(tmp_path / "collapsed", capsys, [0.2, 0.002], **settings)
    assert len(told) == 1 and "the feature has collapsed" in told[0] and "loss.soft" in told[0]
    at = lines(tmp_path / "collapsed")
    stays = next(line["step"] for line in at if line["undecided"] == 1) - 2
    assert f"From step {stays} to {stays + 6} the loss has stayed" in told[0]
    assert not watched(tmp_path / "healthy", capsys, [1.0], **settings)
    assert not watched(tmp_path / "slow", capsys, [1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2], **settings)  # it grows
    assert not watched(tmp_path / "shrinks", capsys, [3.0, 2.0, 1.0], **settings)


def test_features_that_shrink_to_nothing_under_unit_mean_are_told(capsys):
    means = {"loss": 0.7, "positive": 1.2, "negative": 0.8, "undecided": 0.1}  # as large as ever: they are scaled
    for spread, active, told in ((0.9, 1.0, 0), (9e-4, 0.5, 0), (9e-4, 1.0, 1)):
        watch = journal.Watch("test", 4)
        watch(means | {"spread": 1.0, "active": 1.0}, 2, 2)
        for step in range(4, 20, 2):
            watch(means | {"spread": spread, "active": active}, step, 2)
        said = capsys.readouterr().out
        assert said.count("the feature has collapsed") == told
        assert not told or ("From step 2 to 10 the loss has stayed" in said and "all images 0.0009 (1)" in said)


@pytest.mark.parametrize("settings", [{}, SOFT, {"distance_scale": "unit_mean"}])
def test_attribute_weights_that_vanish_are_told(tmp_path, capsys, settings):
    told = watched(tmp_path / "collapsed", capsys, [3.0], weight=0.01, **settings)
    assert len(told) == 1 and "weighted attributes tell nobody apart" in told[0]
    assert "loss.attribute_margin" in told[0]
    assert not watched(tmp_path / "healthy", capsys, [3.0], **settings)


@pytest.mark.parametrize("moment", [0.0, 0.4])
def test_kill_9_loses_at_most_the_steps_since_the_last_save(tmp_path, moment):
    script = textwrap.dedent(
        f"""
        import pathlib, sys, threading, os, signal, time
        sys.path.insert(0, {str(pathlib.Path(__file__).parents[2])!r})
        from tests.train import test_loop as t
        def dying(first):
            for i, batch in enumerate(t.batches(first)):
                if i == 10:
                    threading.Timer({moment}, os.kill, (os.getpid(), signal.SIGKILL)).start()
                    time.sleep(0 if {moment} else 5)
                yield batch
        t.fit(pathlib.Path(sys.argv[1]), batches=dying)
        time.sleep(5)
        """
    )
    process = subprocess.run([sys.executable, "-c", script, str(tmp_path / "killed")], capture_output=True)
    assert process.returncode == -signal.SIGKILL
    assert int(checkpoint.load_any(tmp_path / "killed" / "checkpoints")["step"]) in (10, 12)
    same(fit(tmp_path / "killed"), fit(tmp_path / "straight"))


@pytest.mark.parametrize("cut", ['{"step": 6, "lo', '{"step": 2, "loss": 3.0}', "\0\0\0\n"])
def test_half_a_line_of_scalars_is_dropped_on_resume(tmp_path, cut):
    (tmp_path / "scalars.jsonl").write_text('{"step": 2, "loss": 1.0}\n{"step": 4, "loss": 2.0}\n' + cut)
    log = logs.Scalars(tmp_path, first_step=2)
    log.write(4, {"loss": 3.0})
    log.close()
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(2, 1.0), (4, 3.0)]


FULL = """
import pathlib, resource, signal, sys
sys.path.append({folder!r})
from test_loop import checkpoint, fit, logs, run

out = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def fill(size):  # as if the disk were full: no file may grow beyond so many bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def fills(current, batch):
    calls.append(1)
    if len(calls) == 8:
        fill(100)
    return run(current, batch)


for log_every in (2, 100):
    calls = []
    try:
        fit(out / str(log_every), log_every=log_every, run=fills)
    except OSError as error:
        print(error)
    fill(resource.RLIM_INFINITY)
    print(checkpoint.load_any(out / str(log_every) / "checkpoints")["step"])
scalars = logs.Scalars(out / "scalars")
fill(2000)
try:
    for step in range(60):
        scalars.write(step, {{"a": 1.0}})
    scalars.close()
except OSError as error:
    print(error)
"""


def test_a_full_disk_ends_training_in_one_sentence(tmp_path):
    code = FULL.format(folder=os.path.dirname(__file__))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    told = [line for line in done.stdout.splitlines() if not line.startswith("test")]
    full = "cannot be written: File too large; make room there"
    assert told[0].startswith((f"{tmp_path}/2/scalars.jsonl {full}", f"{tmp_path}/2/events {full}")) and told[1] == "5"
    assert told[2].startswith(f"{tmp_path}/100/checkpoints/10 {full}") and told[3] == "5"
    assert told[4].startswith(f"{tmp_path}/scalars/events {full}") and len(told) == 5
    assert "Traceback" not in done.stderr and not list(tmp_path.rglob("*tmp*"))


@pytest.mark.parametrize("mask", [0o002, 0o077])
def test_all_that_training_writes_has_the_permissions_of_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        fit(tmp_path / "run")
    finally:
        os.umask(before)
    written = [tmp_path / "run", *(tmp_path / "run").rglob("*")]
    assert len(written) > 20
    for path in written:
        assert path.stat().st_mode & 0o777 == (0o777 if path.is_dir() else 0o666) & ~mask, path


def test_event_files_hold_the_scalars(tmp_path):
    log = logs.Scalars(tmp_path)
    log.write(7, {"loss": 0.5, "accuracy": 0.25})
    log.close()
    (file,) = (tmp_path / "events").iterdir()
    data, records = file.read_bytes(), []
    while data:  # TFRecord: length, its checksum, the record, its checksum
        size = int.from_bytes(data[:8], "little")
        records.append(data[12 : 12 + size])
        data = data[16 + size :]
    assert b"brain.Event:2" in records[0] and len(records) == 2
    # Protocol buffers: field 2 (step) 7; in the values field 1 (tag) and 2 (float32).
    assert b"\x10\x07" in records[1]
    assert b"\x0a\x04loss\x15" + np.float32(0.5).tobytes() in records[1]
    assert b"\x0a\x08accuracy\x15" + np.float32(0.25).tobytes() in records[1]


def test_clock():
    assert [logs.clock(s) for s in (5, 75, 3675)] == ["0:05", "1:15", "1:01:15"]


def test_every_word_of_the_line_is_explained_once(capsys):
    means = {"loss": 0.02, "active": 0.12, "switched_on": 0.02, "switched_off": 0.09, "spread": 1.0, "accuracy": 0.5}
    means |= {"step_seconds": 0.1, "images_per_second": 400.0, "waiting_share": 0.03, "learning_rate": 1e-3}
    progress = logs.Progress("reid", 2)
    for step in (1, 2, 2):  # the first comes too early to be shown
        progress.show(step, logs.line(means), logs.legend(means))
    explained, *lines = capsys.readouterr().err.splitlines()
    wanted = "loss 0.0200 accuracy 50% active 12% on 2% off 9% 100 ms/step 400 images/s waiting 3%"
    assert len(lines) == 2 and lines[0].startswith(f"reid 2/2 {wanted} ")
    for word in re.findall(r"(\w+) \d+%", lines[0]):
        assert f"{word}: " in explained
    assert "off: triplets that attributes take out of it" in explained
    assert "MFU" not in explained and "MFU 45%" in logs.line(means | {"mfu": 0.45})
