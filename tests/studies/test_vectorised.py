"""Arms trained in one step, against the same arms trained one by one."""

import functools
import json
import shutil
import time

import jax
import numpy as np
import pytest

from acrn_jax import build
from acrn_jax.runs import phases
from acrn_jax.studies import plan, vectorised
from acrn_jax.studies.job import done, failure, work
from acrn_jax.train import step
from acrn_jax.train.state import create

STUDY = {
    "reference": {},
    "gamma_2": {"loss.gamma": 2.0},
    "margins": {"loss.margin": 0.7, "loss.attribute_margin": 0.3},
    "other_miner": {"reid.miner": "semi_hard"},
}


@pytest.fixture(scope="module")
def begun(config_of, data_dir, attribute_net, small_nets, tmp_path_factory):
    """(jobs, what the first four of them train, the folder that they share).

    Three arms of seed 0 and one of seed 1, from one identity phase a seed; SGD, as Adam blows up rounding of 0.
    """
    group = {"kind": "sgd", "rate": 0.02, "schedule": "constant"}
    changes = {"data.validation_identities": 0, "evaluate.tune_identities": 0, "identity.epochs": 1}
    changes |= {"log_every": 2, "save_every": 5, "reid.scratch": group, "reid.attribute_weights": group}
    config = config_of("acrn", data_dir, **changes)
    folder = tmp_path_factory.mktemp("together")
    jobs = plan.jobs(config, {name: STUDY[name] for name in ("reference", "gamma_2", "margins")}, folder, seeds=2)
    with small_nets():
        parts = [task for job in jobs[:4] for task in vectorised.tasks(job, attribute_net, folder / "shared")]
        return jobs, parts, folder / "shared"


@pytest.fixture(scope="module")
def parts(begun):
    return begun[1]


def one_by_one(part, count):
    """Scalars and state of `count` steps, by the objective and the step that runs.train takes."""
    config = part.config
    objective, weights = build.reid_objective(config, part.attribute_names)
    per_epoch = len(build.epoch_plan(config, part.split, "reid")(0))
    total, tx, _ = build.optimisation(config, "reid", per_epoch, ("scratch", "attribute_weights"))
    run = functools.partial(
        step.train_step, apply=part.module(None).apply, objective=objective, tx=tx, seed=config.seed,
        mean=np.asarray(config.data.mean), deviation=np.asarray(config.data.deviation),
    )  # fmt: skip
    run, state, said = jax.jit(run), create(part.variables, tx, attribute_weights=weights), []
    batches = part.batches(total)(0)
    for _ in range(count):
        state, scalars = run(state, next(batches))
        said.append(jax.device_get(scalars))
    return said, state


@pytest.fixture(scope="module")
def alone(parts, small_nets):
    """What two of the parts give by themselves: other margins, another seed."""
    with small_nets():
        return {i: one_by_one(parts[i], 10) for i in (2, 3)}


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_ten_steps_together_equal_ten_steps_alone(parts, alone, how):
    made = vectorised.program(parts, how)
    assert made.phase.batch == len(parts) * parts[0].config.reid.people * parts[0].config.reid.images
    state, source, said = made.state, made.batches(0), []
    for _ in range(10):
        state, scalars = made.run(state, next(source))
        said.append(jax.device_get(scalars))
    for i, (expected, last) in alone.items():
        for mine, theirs in zip(said, expected, strict=True):
            for name in ("loss", "active", "switched_on", "weight_rms", "scale_feature", "attribute_loss"):
                np.testing.assert_allclose(mine[name][i], theirs[name], atol=1e-4, rtol=1e-4, err_msg=name)
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4, rtol=1e-3),
            (vectorised.unstack(state, i).params, vectorised.unstack(state, i).batch_stats),
            (last.params, last.batch_stats),
        )
    weights = np.asarray(state.params["attribute_weights"]["raw"])
    losses = np.array([s["loss"] for s in said])
    assert np.ptp(losses[-1]) > 1e-2 and np.abs(weights[2] - weights[0]).max() > 1e-4  # arms differ


def test_a_group_goes_on_where_it_was_and_its_logs_are_whole(begun, attribute_net, capsys):
    jobs, shared = begun[0][:2], begun[2]

    def train():
        """Seconds that it took, and each arm's log."""
        began = time.monotonic()
        vectorised.train(jobs, attributes=attribute_net, shared=shared)
        took = time.monotonic() - began
        logs = [(job.folder / "reid" / "scalars.jsonl").read_text().splitlines() for job in jobs]
        return took, [[json.loads(line) for line in lines] for lines in logs]

    took, first = train()
    steps = phases.read(jobs[0].folder / "reid")["steps"]
    told = [[line["step"] for line in lines] for lines in first]
    assert told == 2 * [sorted({*range(2, steps, 2), steps})] and steps > 10
    # An arm's images a second are those of both arms, which share the time that training took.
    rows = jobs[0].config.reid.people * jobs[0].config.reid.images
    spent = sum(2 * np.diff([0, *told[0]]) * rows / [line["images_per_second"] for line in first[0]])
    assert 0.001 * took < spent < took
    states = [phases.load(job.folder / "reid") for job in jobs]
    assert [int(state["step"]) for state in states] == [steps, steps]
    capsys.readouterr()
    _, again = train()
    assert again == first and "go on" not in capsys.readouterr().out  # nothing is left to do

    for job in jobs:
        shutil.rmtree(job.folder / "reid" / "checkpoints" / str(steps))
    _, again = train()
    before = (steps - 1) // 5 * 5
    assert f"they go on from step {before} of {steps}" in capsys.readouterr().out
    assert [[line["step"] for line in lines] for lines in again] == told
    for job, state in zip(jobs, states, strict=True):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
            phases.load(job.folder / "reid")["params"],
            state["params"],
        )


def test_groups_hold_what_differs_in_constants_and_seeds_alone(config_of, data_dir, tmp_path):
    jobs = plan.jobs(config_of("acrn", data_dir), STUDY, tmp_path, seeds=2)
    names = [[job.name for job in group] for group in vectorised.groups(jobs)]
    same = ["reference", "gamma_2", "margins"]
    assert names == [[f"{arm}/seed_{s}" for s in (0, 1) for arm in same], [f"other_miner/seed_{s}" for s in (0, 1)]]
    assert [len(group) for group in vectorised.groups(jobs, most=4)] == [4, 2, 2]


@pytest.mark.slow
def test_a_group_leaves_finished_runs_and_stays_out_of_a_failing_ones_way(
    config_of, data_dir, attribute_net, study, tmp_path, capsys
):
    config = config_of("acrn", data_dir)  # of the study, whose identity phase and baseline serve here too
    jobs = plan.jobs(
        config, {name: STUDY[name] for name in ("reference", "gamma_2")} | {"wild": {"loss.margin": 1e38}}, tmp_path
    )
    (group,) = vectorised.groups(jobs)
    vectorised.train(group, attributes=attribute_net, shared=study[0] / "shared")
    assert "the loss is inf" in failure(jobs[2]) or "the loss is nan" in failure(jobs[2])
    for job in jobs[:2]:
        lines = [json.loads(line) for line in (job.folder / "reid" / "scalars.jsonl").read_text().splitlines()]
        assert lines[-1]["images_per_second"] > 0 and any(name.startswith("weight/") for name in lines[-1])
        capsys.readouterr()
        assert work(job, attributes=attribute_net, shared=study[0] / "shared") and done(job)
        assert "reid: nothing to do" in capsys.readouterr().out
    assert vectorised.groups(jobs) == []
