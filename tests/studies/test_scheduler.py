"""Jobs whose commands are one-liners: what is run, told, passed on, and left out."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from acrn_jax.studies import plan, scheduler
from acrn_jax.studies.job import done, failure, locked, write_failure
from tests.studies.test_plan import config


def test_a_lock_is_free_for_one_and_let_go_when_its_process_dies(tmp_path):
    file = tmp_path / "x" / "seed_0.lock"
    with locked(file) as free:
        assert free
    code = "import fcntl, sys, time\nfile = open(sys.argv[1], 'a')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
    code += "print(True, flush=True)\ntime.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, file], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True\n"
        with locked(file) as free:
            assert not free
        other.kill()
    with locked(file) as free:
        assert free


class Study:
    """Jobs whose commands are one-liners that finish, fail, or wait."""

    def __init__(self, folder, **scripts):
        self.scripts = scripts
        self.jobs = plan.jobs(config(), {name: {"loss.gamma": float(i)} for i, name in enumerate(scripts)}, folder)
        self.said = []

    def command(self, job):
        finish = f"""
import json, pathlib, signal, sys, time
folder = pathlib.Path({str(job.folder)!r})
def finish():
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text("{{}}")
    (folder / "job.json").write_text({json.dumps({"config": plan.result_settings(job.config)})!r})
def fail(why):
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.with_name(folder.name + ".failed").write_text(why)
    sys.exit(2)
"""
        return [sys.executable, "-c", finish + self.scripts[job.arm]]

    def run(self, **options):
        return scheduler.run(self.jobs, self.command, report=self.said.append, **options)


def test_a_failing_arm_leaves_the_others_alone(tmp_path):
    study = Study(tmp_path, bad="fail('the loss is nan')", killed="import os; os.kill(os.getpid(), 9)", good="finish()")
    study.run()
    bad, killed, good = study.jobs
    assert done(good) and not done(bad)
    assert failure(bad) == "the loss is nan" and "memory" in failure(killed)
    told = "\n".join(study.said)
    assert "bad/seed_0: failed" in told and "good/seed_0: done" in told and "0 left" in told
    study.said.clear()
    study.scripts |= {"bad": "finish()", "killed": "finish()"}
    study.run(parallel=2)  # again: only what is missing
    assert all(map(done, study.jobs)) and sum("started" in line for line in study.said) == 2
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

    scheduler.run(study.jobs, study.command, parallel=2, report=say)
    ends = [line for line in said if "done" in line]
    assert ends[0].startswith("quick/seed_0: done") and "; 1 left" in ends[0]
    assert ends[1].startswith("slow/seed_0: done") and "; 0 left" in ends[1]


def test_a_job_at_work_elsewhere_is_left_out(tmp_path):
    study = Study(tmp_path, one="finish()")
    with locked(tmp_path / "one" / "seed_0.lock"):
        study.run()
    assert study.said == ["one/seed_0: another process is at it."] and not done(study.jobs[0])


def test_other_config_is_not_done(tmp_path):
    study = Study(tmp_path, one="finish()")
    study.run()
    (job,) = study.jobs
    assert done(job)
    assert not done(job._replace(config=job.config.changed({"evaluate.kissme_ridge": 0.1})))
    assert done(job._replace(config=job.config.changed({"log_every": 7})))


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
    assert done(study.jobs[0]) and not done(study.jobs[1])


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
    assert "one/seed_0: stopped" in study.said[-1] and not done(study.jobs[1])


def test_an_arm_that_is_told_to_stop_has_not_failed(tmp_path):
    kill = "import os; os.kill(os.getpid(), signal.SIGTERM)"
    study = Study(tmp_path, saved="sys.exit(75)", killed=kill, good="finish()")
    write_failure(study.jobs[0], "of an earlier try")
    assert study.run() == 2
    told = [line.split(" after")[0] for line in study.said if "started" not in line]
    assert told == ["saved/seed_0: stopped", "killed/seed_0: stopped", "good/seed_0: done"]
    assert failure(study.jobs[1]) is None
    assert study.run() == 2  # the same again, but for the one that is done


def test_graphics_cards_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    cards = scheduler._cards()
    seen = [scheduler._environment(slot, 4, cards) for slot in range(4)]
    assert [s["CUDA_VISIBLE_DEVICES"] for s in seen] == ["4", "7", "4", "7"]
    assert {s["XLA_PYTHON_CLIENT_MEM_FRACTION"] for s in seen} == {"0.45"}
    assert scheduler._environment(0, 1, cards) == scheduler._environment(0, 2, []) == {}
