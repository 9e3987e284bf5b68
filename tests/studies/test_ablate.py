"""A whole study: what is shared, what is missing, what the table says."""

import json
import re
import shutil

import numpy as np
import pytest

from acrn_jax import build, runs, settings
from acrn_jax.configs import ablations, demo, mva_peta
from acrn_jax.studies import plan, table
from acrn_jax.studies.job import done, failure, prepare, with_inputs, work


def results(job):
    return json.loads((job.folder / "results.json").read_text())


@pytest.mark.slow
def test_arms_share_the_identity_phase_the_baseline_and_the_predictions(study):
    workdir, jobs, _ = study
    parts = sorted(p.name.rsplit("_", 1)[0] for p in (workdir / "shared").iterdir() if p.is_dir())
    assert parts == ["attributes", "baseline", "identity"]
    reference, gamma, _, given = jobs
    assert not (gamma.folder / "identity").exists()
    starts = [json.loads((job.folder / "reid" / "init.json").read_text())["from"] for job in (reference, gamma, given)]
    assert len(set(starts)) == 1
    rows = [results(job)["methods"] for job in (reference, gamma)]
    assert rows[0]["ReIdCNN"] == rows[1]["ReIdCNN"] and rows[0]["ACRN"] != rows[1]["ACRN"]
    assert results(gamma)["gamma"] == 2.0


def test_a_moved_study_keeps_the_seconds_of_its_identity_phases(study, tmp_path):
    workdir, jobs, _ = study
    shutil.copytree(workdir, tmp_path / "moved")
    hidden = workdir.with_name("hidden")
    spent = table.cost(jobs[0])["seconds"]
    workdir.rename(hidden)
    try:
        moved = jobs[0]._replace(folder=tmp_path / "moved" / jobs[0].folder.relative_to(workdir))
        assert table.cost(moved)["seconds"] == spent > table._spent(moved.folder, "reid")[0]
    finally:
        hidden.rename(workdir)


def test_the_attribute_net_is_asked_once_for_all_arms(study, attribute_net, tmp_path, capsys):
    jobs = plan.jobs(study[1][0].config, {"reference": {}, "gamma_2": {"loss.gamma": 2.0}}, tmp_path / "arms")
    kept = [job.folder / "predictions" / f"{split}.npz" for job in jobs for split in ("train", "query", "gallery")]
    for job in jobs:
        prepare(job, attribute_net, tmp_path / "shared")
    moments = [file.stat().st_mtime_ns for file in kept]
    for job in jobs:  # again: each arm has its own by now
        prepare(job, attribute_net, tmp_path / "shared")
    assert moments == [file.stat().st_mtime_ns for file in kept]
    asked = re.findall(r"^mva net of (\S+): .* of .*/(\w+)$", capsys.readouterr().out, re.MULTILINE)
    assert asked == [(str(attribute_net), split) for split in ("train", "query", "gallery")]


def test_given_weights_are_the_attribute_nets_own_rates(study, attribute_net):
    known = json.loads((attribute_net / "recognition.json").read_text())["attributes"]
    weights = {entry["name"]: entry["weight"] for entry in results(study[1][3])["weights"]}
    assert weights == pytest.approx({entry["name"]: entry["mA"] for entry in known})


def test_table_of_the_study_names_the_failing_arm(study):
    _, jobs, sentence = study
    assert "config.reid.people is 99" in sentence
    found = table.of_jobs("mini", jobs, "reference")
    assert found.failed == {"broken/seed_0": sentence} and found.missing == ()
    (row,) = [r for r in found.rows if (r.arm, r.method, r.metric) == ("gamma_2", "ACRN", "rank1")]
    a, b = (results(job)["methods"]["ACRN"]["rank1"] for job in jobs[:2])
    assert (row.mean, row.difference) == (b, pytest.approx(b - a)) and row.low <= row.difference <= row.high
    assert row.seconds > 0 and row.images_per_second > 0 and row.peak_memory_mib > 50
    (own,) = [r for r in found.rows if (r.arm, r.method, r.metric) == ("gamma_2", "ReIdCNN", "rank1")]
    assert (own.low, own.high) == (0, 0)  # the same net


def test_again_nothing_is_missing(study):
    jobs = study[1]
    good = [job for job in jobs if job.arm != "broken"]
    assert all(map(done, good)) and failure(jobs[2])
    assert not any(done(job._replace(config=job.config.changed({"loss.margin": 0.7}))) for job in good)


@pytest.fixture
def other_net(config_of, data_dir, tmp_path):
    runs.train(config_of("attributes", data_dir, seed=1), tmp_path / "other_net")
    return tmp_path / "other_net"


def test_a_study_goes_on_with_its_attribute_net_alone(study, attribute_net, other_net):
    good = [job for job in study[1] if job.arm != "broken"]
    assert all(map(done, with_inputs(good, attribute_net)))
    others = with_inputs(good, other_net)
    for ask in (lambda: done(others[0]), lambda: table.of_jobs("mini", others, "reference")):
        with pytest.raises(ValueError) as told:
            ask()
        for part in (good[0].folder, attribute_net, other_net, "--attributes", "another --workdir"):
            assert str(part) in str(told.value)
    note = good[0].folder / "job.json"
    kept = note.read_text()
    note.write_text(json.dumps({key: value for key, value in json.loads(kept).items() if key != "made_of"}))
    with pytest.raises(ValueError, match="was trained with the attribute net"):  # the run itself tells
        done(others[0])
    note.write_text(kept)
    with pytest.raises(FileNotFoundError, match="gone holds no finished attribute net"):
        with_inputs(good, attribute_net.parent / "gone")


def test_a_study_goes_on_with_its_data_alone(study, attribute_net, tmp_path):
    job = study[1][0]
    shutil.copytree(job.config.data.dir, tmp_path / "data")
    moved = job._replace(config=job.config.changed({"data.dir": str(tmp_path / "data")}))
    assert done(*with_inputs([moved], attribute_net))  # the same, elsewhere
    (folder,) = (tmp_path / "data").glob("*/target_mini/*")
    splits = ("train", "query", "gallery")
    known = {split: {"sha256": build.open_split(moved.config, split).fingerprint} for split in splits}
    for split, what in (("train", "was trained on"), ("gallery", "was scored on")):
        (folder / "fingerprint.json").write_text(json.dumps(known | {split: {**known[split], "sha256": "0" * 64}}))
        with pytest.raises(ValueError, match=f"{job.folder} {what} .*synthetic_pedestrians/target_mini"):
            done(*with_inputs([moved], attribute_net))


def test_a_study_goes_on_from_its_start_alone(study, attribute_net):
    reference = study[1][0]
    (identity,) = study[0].glob("shared/identity_*/identity")
    begun = reference._replace(config=reference.config.changed({"init_from": str(identity)}))
    with pytest.raises(ValueError, match=f"was started from nothing .*, not {identity}"):
        done(*with_inputs([begun], attribute_net))


def test_a_study_of_reidcnns_needs_no_attribute_net(config_of, data_dir, tmp_path):
    config = config_of("acrn", data_dir)
    with pytest.raises(ValueError, match="--attributes must be given"):
        with_inputs(plan.jobs(config, {"reference": {}}, tmp_path), None)
    config = config.changed({"loss.kind": "classic"})
    (job,) = plan.jobs(config, {"reference": {}}, tmp_path)
    work(job, attributes=None, shared=tmp_path / "shared")
    assert done(*with_inputs([job], None)) and list(results(job)["methods"]) == ["ReIdCNN"]
    assert json.loads((job.folder / "config.json").read_text())["attributes"]["from"] == config.attributes.from_


def test_attribute_nets_are_studied_too(config_of, data_dir, tmp_path, attribute_net):
    config = config_of("attributes", data_dir)
    (job,) = plan.jobs(config, {"reference": {}}, tmp_path)
    job.folder.parent.mkdir(parents=True)
    job.folder.symlink_to(attribute_net)  # trained already: what is left is scoring
    work(job, attributes=None, shared=tmp_path)
    found = table.of_jobs("views", [job], "reference")
    whole = json.loads((attribute_net / "recognition.json").read_text())
    assert {r.metric: r.mean for r in found.rows} == {
        name: whole[name] for name in ("mA", "accuracy", "precision", "recall", "f1")
    }
    with np.load(job.folder / "per_image.npz") as kept:
        assert kept["mA"].mean() == pytest.approx(whole["mA"])


@pytest.mark.parametrize("study", ablations.STUDIES)
def test_every_study_of_the_repository_fits_a_config(study, tmp_path):
    config = mva_peta.get_config("small") if study in ("attribute_loss", "views") else demo.get_config()
    config.data.dir = str(tmp_path)
    jobs = plan.jobs(settings.read(config), ablations.STUDIES[study], tmp_path)
    assert len(jobs) > 1
    for job in jobs:
        c = job.config.changed({"attributes.from": "x", "loss.attribute_weights_file": "y", "devices": 1})
        build.check(c)


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
