import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from acrn_jax import runs, settings
from acrn_jax.configs import demo
from acrn_jax.evaluation import attributes
from acrn_jax.studies import arms
from tests import oracles

GAMMA = {"0.5": {}, "0": {"loss.gamma": 0.0}, "batch/hard": {"reid.miner": "batch_hard"}}


def config(**changes):
    return settings.read(demo.get_config()).changed({"data.dir": "data"} | changes)


def test_the_last_seed_is_looked_at_before_the_first_is_trained(tmp_path):
    late = config(seed=2**31 - 1)
    assert len(arms.jobs(late, GAMMA, tmp_path, only=("0",), seeds=1)) == 2
    with pytest.raises(ValueError, match=r"config\.seed is 2147483648; it must be a whole number"):
        arms.jobs(late, GAMMA, tmp_path, only=("0",), seeds=2)


def test_jobs_come_seed_by_seed_with_their_overrides(tmp_path):
    jobs = arms.jobs(config(), GAMMA, tmp_path, seeds=2, splits=("target_0", "target_1"))
    assert [job.name for job in jobs][:4] == [
        "0.5/target_0/seed_0",
        "0/target_0/seed_0",
        "batch/hard/target_0/seed_0",
        "0.5/target_1/seed_0",
    ]
    assert len(jobs) == 12 and len({job.folder for job in jobs}) == 12
    last = jobs[-1]
    assert last.folder == tmp_path / "batch_hard" / "target_1" / "seed_1"
    assert (last.config.reid.miner, last.config.seed, last.config.data.config) == ("batch_hard", 1, "target_1")
    assert (last.base.reid.miner, last.base.seed) == ("batch_all", 1)
    assert [job.arm for job in arms.jobs(config(), GAMMA, tmp_path, only=("0",))] == ["0.5", "0"]
    jobs = arms.jobs(config(seed=5), GAMMA, tmp_path, only=("0",), seeds=2)
    assert [(job.name, job.config.seed) for job in jobs][::2] == [("0.5/seed_5", 5), ("0.5/seed_6", 6)]
    twice = {"same": {"loss.gamma": 0.5}, "reference": {}, "other": {"loss.gamma": 1.0}, "again": {"loss.gamma": 1.0}}
    assert [job.arm for job in arms.jobs(config(), twice, tmp_path)] == ["reference", "other"]
    assert arms.reference(GAMMA) == "0.5" and arms.reference({"a": {}, "reference": {}}) == "reference"


def test_overrides_of_every_kind():
    changed = config().changed({"loss.margin": 1, "phases": ["reid"], "reid.scratch": {"rate": 0.5}, "init_from": "x"})
    assert (changed.loss.margin, changed.phases, changed.reid.scratch.rate) == (1.0, ("reid",), 0.5)
    assert changed.reid.scratch.kind == "adamw" and config().loss.margin == 0.3
    assert type(changed.loss.margin) is float  # as 1.0 is written, so that files know equal settings by their text


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        ({"loss.gama": 1.0}, "no config key 'loss.gama'; did you mean 'loss.gamma'"),
        ({"loss.gamma": "much"}, "config.loss.gamma is 'much'; it must be a number"),
    ],
)
def test_wrong_overrides_are_named(overrides, told):
    with pytest.raises(ValueError, match=told):
        config().changed(overrides)


def test_unknown_names_are_told_the_nearest(tmp_path):
    with pytest.raises(ValueError, match=r"no study 'gama'; did you mean 'gamma'\? Known: gamma, margin"):
        arms.find({"gamma": 1, "margin": 2}, "gama", "study")
    with pytest.raises(ValueError, match=r"no arm '0\.7'; did you mean '0\.5'"):
        arms.jobs(config(), GAMMA, tmp_path, only=("0.7",))


def test_tasks_of_an_array_begin_with_their_own_share():
    environment = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}
    environment |= {"SLURM_ARRAY_TASK_COUNT": "3"}
    assert arms.mine_first(range(7), environment) == [2, 5, 0, 3, 6, 1, 4]
    assert arms.mine_first(range(3), {}) == [0, 1, 2]


def test_a_lock_is_free_for_one_and_let_go_when_its_process_dies(tmp_path):
    file = tmp_path / "x" / "seed_0.lock"
    with arms.locked(file) as free:
        assert free
    code = "import fcntl, sys, time\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
    code += "print(True, flush=True)\ntime.sleep(60)"
    other = subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "True\n"
    with arms.locked(file) as free:
        assert not free
    other.kill()
    other.wait()
    with arms.locked(file) as free:
        assert free


class Study:
    """Jobs whose commands are one-liners that finish, fail, or wait."""

    def __init__(self, folder, **scripts):
        self.scripts = scripts
        self.jobs = arms.jobs(config(), {name: {"loss.gamma": float(i)} for i, name in enumerate(scripts)}, folder)
        self.said = []

    def command(self, job):
        finish = f"""
import json, pathlib, signal, sys, time
folder = pathlib.Path({str(job.folder)!r})
def finish():
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text("{{}}")
    (folder / "job.json").write_text({json.dumps({"config": arms.wanted(job.config)})!r})
def fail(why):
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.with_name(folder.name + ".failed").write_text(why)
    sys.exit(2)
"""
        return [sys.executable, "-c", finish + self.scripts[job.arm]]

    def run(self, **options):
        return arms.run(self.jobs, self.command, say=self.said.append, **options)


def test_a_failing_arm_leaves_the_others_alone(tmp_path):
    study = Study(tmp_path, bad="fail('the loss is nan')", killed="import os; os.kill(os.getpid(), 9)", good="finish()")
    study.run()
    bad, killed, good = study.jobs
    assert arms.done(good) and not arms.done(bad)
    assert arms.failure(bad) == "the loss is nan" and "memory" in arms.failure(killed)
    told = "\n".join(study.said)
    assert "bad/seed_0: failed" in told and "good/seed_0: done" in told and "0 left" in told
    study.said.clear()
    study.scripts |= {"bad": "finish()", "killed": "finish()"}
    study.run(parallel=2)  # again: only what is missing
    assert all(map(arms.done, study.jobs)) and sum("started" in line for line in study.said) == 2
    assert (tmp_path / "bad" / "seed_0.log").exists()


def test_arms_that_are_still_at_work_count_as_left(tmp_path):
    """The slow arm ends only after the quick one's end was told."""
    heard, said = tmp_path / "heard", []
    wait = f"while not pathlib.Path({str(heard)!r}).exists(): time.sleep(0.02)\n"
    study = Study(tmp_path, slow=wait + "finish()", quick="finish()")

    def say(line):
        said.append(line)
        if "quick/seed_0: done" in line:
            heard.touch()

    arms.run(study.jobs, study.command, parallel=2, say=say)
    ends = [line for line in said if "done" in line]
    assert ends[0].startswith("quick/seed_0: done") and "; 1 left" in ends[0]
    assert ends[1].startswith("slow/seed_0: done") and "; 0 left" in ends[1]


def test_a_job_at_work_elsewhere_is_left_out(tmp_path):
    study = Study(tmp_path, one="finish()")
    with arms.locked(tmp_path / "one" / "seed_0.lock"):
        study.run()
    assert study.said == ["one/seed_0: another process is at it."] and not arms.done(study.jobs[0])


def test_other_config_is_not_done(tmp_path):
    study = Study(tmp_path, one="finish()")
    study.run()
    (job,) = study.jobs
    assert arms.done(job)
    assert not arms.done(job._replace(config=job.config.changed({"evaluate.kissme_ridge": 0.1})))
    assert arms.done(job._replace(config=job.config.changed({"log_every": 7})))


def test_signals_reach_the_arms_which_may_save(tmp_path):
    wait = "signal.signal(signal.SIGTERM, lambda *_: (finish(), sys.exit(0)))\n"
    wait += "(folder.parent / 'up').touch()\ntime.sleep(60)"
    study = Study(tmp_path, one="folder.parent.mkdir(parents=True, exist_ok=True)\n" + wait, two="finish()")

    def interrupt():
        while not (tmp_path / "one" / "up").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        study.run()
    thread.join()
    assert arms.done(study.jobs[0]) and not arms.done(study.jobs[1])


def test_sigterm_is_passed_on_and_leaves_with_its_code(tmp_path):
    wait = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\nfolder.mkdir(parents=True)\n"
    study = Study(tmp_path, one=wait + "time.sleep(60)", two="finish()")

    def terminate():
        while not study.jobs[0].folder.exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=terminate)
    thread.start()
    with pytest.raises(SystemExit) as left:
        study.run()
    thread.join()
    assert left.value.code == 75
    assert "one/seed_0: stopped" in study.said[-1] and not arms.done(study.jobs[1])


def test_an_arm_that_is_told_to_stop_has_not_failed(tmp_path):
    kill = "import os; os.kill(os.getpid(), signal.SIGTERM)"
    study = Study(tmp_path, saved="sys.exit(75)", killed=kill, good="finish()")
    arms.write_failure(study.jobs[0], "of an earlier try")
    assert study.run() == 2
    told = [line.split(" after")[0] for line in study.said if "started" not in line]
    assert told == ["saved/seed_0: stopped", "killed/seed_0: stopped", "good/seed_0: done"]
    assert arms.failure(study.jobs[1]) is None
    assert study.run() == 2  # the same again, but for the one that is done


def test_graphics_cards_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    cards = arms._cards()
    seen = [arms._environment(slot, 4, cards) for slot in range(4)]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in seen] == ["4", "7", "4", "7"]
    assert {s["XLA_PYTHON_CLIENT_MEM_FRACTION"] for s in seen} == {"0.45"}
    assert arms._environment(0, 1, cards) == arms._environment(0, 2, []) == {}


@pytest.mark.parametrize("share", [(0.34, 0.33, 0.33), (0.5, 0.4, 0.1)], ids=["many positive", "many images without"])
def test_recognition_scores_average_to_the_metrics_and_follow_resamples(share):
    rng = np.random.default_rng(0)
    labels = rng.choice((-1, 0, 1), (400, 6), p=share).astype(np.int8)
    labels[:, 5] = np.where(labels[:, :5].max(axis=1) == 1, 1, -1)  # no negatives: mA leaves it out
    labels[:9] = -1  # nothing is known of these
    probabilities = np.clip(0.35 * rng.random((400, 6)) + 0.4 * (labels == 1) + 0.15, 0, 1)
    probabilities[9:40] = 0  # nothing is said of these
    scores = arms.recognition_scores(probabilities > 0.5, labels)
    whole = attributes.evaluate(probabilities, labels)
    by_loops = oracles.attributes(probabilities, labels, np.full(6, 0.5))[1]
    for name, value in zip(("accuracy", "precision", "recall", "f1"), by_loops, strict=True):
        assert scores[name].mean() == pytest.approx(value), name
    for name, values in scores.items():
        assert values.mean() == pytest.approx(getattr(whole, name)), name
    resampled = []
    for _ in range(40):
        rows = rng.integers(0, 400, 400)
        again = attributes.evaluate(probabilities[rows], labels[rows])
        resampled.append([(values[rows].mean(), getattr(again, name)) for name, values in scores.items()])
    for approximate, exact in np.moveaxis(resampled, 0, 2):
        assert np.abs(approximate - exact).max() < 0.15 * np.ptp(exact) + 1e-9


def test_recognition_scores_of_one_image_and_of_none_that_counts():
    scores = arms.recognition_scores(np.array([[True, False]]), np.array([[1, 0]], np.int8))
    assert all(scores[name].tolist() == [1.0] for name in ("accuracy", "precision", "recall", "f1"))
    assert np.isnan(scores["mA"]).all()  # neither attribute has both kinds
    nobody = arms.recognition_scores(np.array([[True], [False]]), np.array([[0], [-1]], np.int8))
    assert np.isnan([values.mean() for values in nobody.values()]).all()  # as the metrics


def test_an_attribute_net_that_saw_the_target_is_refused_before_training(config_of, data_dir, attribute_net, tmp_path):
    begun = []

    def shared(name, _):
        begun.append(name)
        return tmp_path / name

    def begin(**changes):
        values = {key.replace("__", "."): value for key, value in changes.items()}
        return runs.begin(config_of("acrn", data_dir, **values), attributes=attribute_net, shared=shared)

    assert begin().init_from and begun == ["identity"]
    with pytest.raises(ValueError, match=r"was trained on \d+ images of synthetic_pedestrians/source_mini/train"):
        begin(data__config="source_mini")
    with pytest.raises((ValueError, FileNotFoundError), match="query"):  # overlap is fine, but nobody could be ranked
        begin(data__config="source_mini", attributes__allow_overlap=True)
    shutil.copytree(data_dir / "synthetic_pedestrians" / "target_mini", tmp_path / "synthetic_pedestrians/target_mini")
    begin(data__dir=str(tmp_path))  # the net's images are looked at where it was trained
    assert begun == ["identity"] * 2
