"""Which jobs a study consists of, and in which order tasks of an array take them."""

import pytest

from acrn_jax import settings
from acrn_jax.configs import demo
from acrn_jax.studies import plan

GAMMA = {"0.5": {}, "0": {"loss.gamma": 0.0}, "batch/hard": {"reid.miner": "batch_hard"}}


def config(**changes):
    return settings.read(demo.get_config()).changed({"data.dir": "data"} | changes)


def test_the_last_seed_is_looked_at_before_the_first_is_trained(tmp_path):
    late = config(seed=2**31 - 1)
    assert len(plan.jobs(late, GAMMA, tmp_path, only=("0",), seeds=1)) == 2
    with pytest.raises(ValueError, match=r"config\.seed is 2147483648; it must be a whole number"):
        plan.jobs(late, GAMMA, tmp_path, only=("0",), seeds=2)


def test_jobs_come_seed_by_seed_with_their_overrides(tmp_path):
    jobs = plan.jobs(config(), GAMMA, tmp_path, seeds=2, splits=("target_0", "target_1"))
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
    assert [job.arm for job in plan.jobs(config(), GAMMA, tmp_path, only=("0",))] == ["0.5", "0"]
    jobs = plan.jobs(config(seed=5), GAMMA, tmp_path, only=("0",), seeds=2)
    assert [(job.name, job.config.seed) for job in jobs][::2] == [("0.5/seed_5", 5), ("0.5/seed_6", 6)]
    twice = {"same": {"loss.gamma": 0.5}, "reference": {}, "other": {"loss.gamma": 1.0}, "again": {"loss.gamma": 1.0}}
    assert [job.arm for job in plan.jobs(config(), twice, tmp_path)] == ["reference", "other"]
    assert plan.reference(GAMMA) == "0.5" and plan.reference({"a": {}, "reference": {}}) == "reference"


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
        plan.find({"gamma": 1, "margin": 2}, "gama", "study")
    with pytest.raises(ValueError, match=r"no arm '0\.7'; did you mean '0\.5'"):
        plan.jobs(config(), GAMMA, tmp_path, only=("0.7",))


def test_tasks_of_an_array_begin_with_their_own_share():
    environment = {"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_STEP": "2"}
    environment |= {"SLURM_ARRAY_TASK_COUNT": "3"}
    assert plan.array_order(range(7), environment) == [2, 5, 0, 3, 6, 1, 4]
    assert plan.array_order(range(3), {}) == [0, 1, 2]
