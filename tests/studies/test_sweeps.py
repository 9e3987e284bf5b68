"""Settings scored all at once, against ranking.evaluate one by one and against what finished runs say."""

import dataclasses
import itertools
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from acrn_jax import settings
from acrn_jax.configs import demo
from acrn_jax.evaluation import fusion, many, methods, protocols, ranking
from acrn_jax.results import Results
from acrn_jax.runs import AcrnRun
from acrn_jax.schema import Labels
from acrn_jax.studies import finished, sweeps, weight_training
from acrn_jax.train import checkpoint

Q, G, D, A = 23, 60, 5, 6


def drawn(seed=0, *, protocol="market1501", no_match="skip", distance="squared_euclidean"):
    """A run out of random numbers: distractors, junk, repeated images, queries without a match."""
    rng = np.random.default_rng(seed)
    config = settings.read(demo.get_config()).changed({"loss.distance": distance, "attributes.from": "nowhere"})
    query = Labels(np.r_[9, rng.integers(1, 8, Q - 1)], rng.integers(1, 3, Q))
    gallery = Labels(rng.integers(-1, 8, G), rng.integers(1, 3, G))
    f, b, a = ([rng.normal(size=(n, d)).astype(np.float32) for n in (Q, G)] for d in (D, D, A))
    for arrays in (f, b, a):
        arrays[1][[*range(40, 50), G - 1]] = arrays[1][3]  # ties, also at the end of a row
    about = Results.of(protocol=protocol, no_match=no_match, dataset="d/0", fingerprint=f"f{seed}", methods={})
    train = rng.random((40, A)).astype(np.float32)
    labels = Labels(np.repeat(np.arange(1, 11), 4), np.tile([1, 2], 20))
    return finished.FinishedRun(
        AcrnRun(Path("here"), config),
        about,
        query,
        gallery,
        tuple("abcdef"),
        rng.normal(size=A).astype(np.float32),
        methods.Features(*f, 2.0),
        methods.Features(*b, 3.0),
        methods.Attributes(*a, 1.5, train, labels),
        None,
    )


def changed(run, folder=None, **changes):
    """A run of another config, e.g. loss__gamma=2.0, or folder."""
    config = run.config.changed({key.replace("__", "."): value for key, value in changes.items()})
    return run._replace(run=dataclasses.replace(run.run, config=config, workdir=Path(folder or run.folder)))


@pytest.mark.parametrize("name", sorted(set(sweeps.SWEEPS) - {"attribute_margin", "recognition", "held_out"}))
@pytest.mark.parametrize("distance", ["squared_euclidean", "cosine"])
def test_all_at_once_equals_one_by_one(name, distance, monkeypatch):
    # Several blocks, the last not full; or memory for less than one query, which then goes alone.
    monkeypatch.setattr(many, "_BLOCK_BYTES", 1 if name == "gamma" else 4 * G * 50)
    run = drawn(distance=distance)
    sweep = sweeps.SWEEPS[name](run, None)
    found = sweeps.score(run, sweep)
    assert sweep.reference in found and len(found) > 2
    for arm, method in itertools.islice(((a, m) for a, of in sweep.settings.items() for m in of), 0, None, 7):
        parts = [(f, t) for f, t in zip(sweep.settings[arm][method].tolist(), sweep.terms, strict=True) if f]
        one = ranking.evaluate(
            fusion.weighted_sum(*parts), run.query, run.gallery, protocol=protocols.MARKET1501, no_match="skip"
        )
        assert not one.counted.all()
        for metric, values in one.per_query.items():
            np.testing.assert_allclose(found[arm].each[method, metric], values[one.counted], atol=1e-9)
            assert found[arm].metrics[method, metric] == pytest.approx(one.metrics[metric])


def test_influences_reach_from_none_to_ten_times_the_features():
    values = sorted(float(arm) for arm in sweeps.gamma(drawn(), None).settings)
    assert values[:2] == [0, 0.01] and values[-1] == 10 and len(values) == 42
    steps = [value for value in values if value not in (0, 0.5)]  # 0.5 is the run's own
    for i, value in enumerate(steps):
        assert value == pytest.approx(0.01 * 1000 ** (i / 39), rel=0.005)  # names have three digits


def squared(x, y):
    return ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(-1)


def test_settings_are_the_distances_that_their_names_say():
    """From the definitions in docs/method.md, with plain matrices."""
    run = drawn(no_match="count_as_miss")

    def expected(matrix):
        return ranking.evaluate(
            matrix, run.query, run.gallery, protocol=protocols.MARKET1501, no_match="count_as_miss"
        ).metrics["mAP_precision"]

    def check(study, arm, method, matrix):
        found = sweeps.score(run, sweeps.SWEEPS[study](run, None))[arm].metrics[method, "mAP_precision"]
        assert found == pytest.approx(expected(matrix), abs=0.01)

    (qf, gf, _), (qb, gb, _), (qa, ga, *_) = run.own, run.base, run.attributes
    w = run.weights
    check("gamma", "0", "ACRN", squared(qf, gf))
    check("gamma", "0.5", "ACRN", squared(qf, gf) / 2 + 0.5 * squared(w * qa, w * ga) / 1.5)
    check("gamma", "0.5", "ReIdCNN+Attributes", squared(qb, gb) / 3 + 0.5 * squared(qa, ga) / 1.5)
    check("attribute_weights", "uniform", "Attributes-weighted", squared(qa, ga))
    loud = np.mean(w**2) * squared(qa, ga)  # as if each weight were the root of the mean square
    check("attribute_weights", "uniform_as_loud", "ACRN", squared(qf, gf) / 2 + 0.5 * loud / 1.5)
    v = np.where(np.arange(A) == 2, 0, w)
    whole = squared(qb, gb) / 3 + 0.5 * squared(v * qa, v * ga) / 1.5
    check("leave_one_out", "without_c", "ReIdCNN+Attributes-weighted", whole)


def test_recognition_puts_truth_in_place_of_answers(monkeypatch, capsys):
    rng = np.random.default_rng(7)
    run = drawn()
    shown = run.attributes._replace(query=np.abs(run.attributes.query) % 1, gallery=np.abs(run.attributes.gallery) % 1)
    of_person = rng.integers(0, 2, (12, A)).astype(np.int8)  # truth tells people apart, answers do not
    people = (run.query.person_id, run.gallery.person_id, run.attributes.train_labels.person_id)
    truth = tuple(of_person[person] for person in people)
    quiet = run.base._replace(query=0.1 * run.base.query, gallery=0.1 * run.base.gallery)  # attributes decide
    run = run._replace(attributes=shown, truth=truth, base=quiet)
    run.truth[0][0] = -1  # unknown: the answer stays
    run.truth[2][:, 4] = -1
    w = rng.normal(size=A).astype(np.float32)
    seen = []

    def train_weights(run, margins, attributes):
        seen.extend(attributes)
        return [w] * 3

    monkeypatch.setattr(weight_training, "train_weights", train_weights)
    sweep = sweeps.recognition(run, [0.5, 1.0])
    found = sweeps.score(run, sweep)
    said = capsys.readouterr().out
    assert set(found) == {"ReIdCNN", "0", "0.5", "1"} and "100% true answers, balanced accuracy 100.0%" in said

    (qa, ga, _, train, _), (tq, tg, tt) = run.attributes, run.truth
    known = np.where(tt >= 0, tt, train)
    np.testing.assert_array_equal(seen[0], train)
    np.testing.assert_array_equal(seen[2], known)
    true = np.mean((seen[1] == tt)[:, :4])
    assert 0.4 < true < 0.6 and np.all((seen[1] == train) | (seen[1] == tt))
    asked = np.where(tq >= 0, tq, qa).astype(np.float32)
    scale = 1.5 * squared(known, known).mean() / squared(train, train).mean()
    for arm, of in (("0", 1.5), ("1", scale)):
        factors = sweep.settings[arm]["ReIdCNN+Attributes"]
        np.testing.assert_allclose(factors[factors > 0], [1 / 3, 0.5 / of], rtol=1e-4)
    base, reached = squared(run.base.query, run.base.gallery) / 3, []
    for arm, method, matrix in (
        ("ReIdCNN", "ReIdCNN+Attributes", base),
        ("0", "ReIdCNN+Attributes", base + 0.5 * squared(qa, ga) / 1.5),
        ("1", "ReIdCNN+Attributes", base + 0.5 * squared(asked, tg.astype(np.float32)) / scale),
        ("1", "ReIdCNN+Attributes-weighted", base + 0.5 * squared(w * asked, w * tg.astype(np.float32)) / scale),
    ):
        one = ranking.evaluate(matrix, run.query, run.gallery, protocol=protocols.MARKET1501, no_match="skip")
        assert found[arm].metrics[method, "mAP_precision"] == pytest.approx(one.metrics["mAP_precision"], abs=0.01)
        reached.append(one.metrics["mAP_precision"])
    assert np.abs(np.diff(reached[1:])).min() > 0.03  # so that no row can stand for another

    with pytest.raises(ValueError, match="between 0 and 1, got"):
        sweeps.recognition(run, [1.5])
    with pytest.raises(ValueError, match="d/0 has no attribute labels"):
        sweeps.recognition(run._replace(truth=tuple(np.full_like(labels, -1) for labels in run.truth)), None)
    with pytest.raises(ValueError, match="without its ReIdCNN"):
        sweeps.recognition(run._replace(base=None), None)
    with pytest.raises(ValueError, match="logits, which truth has none of"):
        sweeps.recognition(changed(run, attributes__representation="logits"), None)


def test_a_protocol_that_draws_goes_one_by_one():
    run = drawn(protocol="cuhk03_open_reid")
    sweep = sweeps.gamma(run, [0.3])
    found = sweeps.score(run, sweep)["0.3"]
    parts = [(f, t) for f, t in zip(sweep.settings["0.3"]["ACRN"].tolist(), sweep.terms, strict=True) if f]
    protocol = protocols.named("cuhk03_open_reid", repeats=10, seed=0, probe_view="both")
    one = ranking.evaluate(fusion.weighted_sum(*parts), run.query, run.gallery, protocol=protocol, no_match="skip")
    np.testing.assert_array_equal(found.each["ACRN", "rank1"], one.per_query["rank1"][one.counted])


def test_study_over_runs_makes_one_table(monkeypatch):
    made = {f"r{i}": changed(drawn(i), f"r{i}", seed=i) for i in range(3)}
    monkeypatch.setattr(finished, "load", lambda folder, out=None: made[str(folder)])
    found = sweeps.study("gamma", list(made), [0.0, 1.0])
    assert found.reference == "0.5" and found.replicates["1"] == tuple(f"target_0/seed_{i}" for i in range(3))
    row = next(r for r in found.rows if (r.arm, r.method, r.metric) == ("0", "ACRN", "rank1"))
    assert row.seeds == 3 and row.low <= row.difference <= row.high
    other = dataclasses.replace(made["r1"].results, no_match="count_as_miss")
    made["r1"] = made["r1"]._replace(results=other)
    with pytest.raises(ValueError, match="different no_match"):
        sweeps.study("gamma", list(made))
    made["r1"] = changed(made["r1"], loss__gamma=2.0)
    with pytest.raises(ValueError, match="r1 was trained with gamma 2, the runs before it"):
        sweeps.study("gamma", list(made))
    with pytest.raises(ValueError, match="no study on features 'gama'; did you mean 'gamma'"):
        sweeps.study("gama", list(made))


def test_finished_runs_say_the_same(study):
    _, jobs, _ = study
    folder = jobs[1].folder  # gamma 2
    run = finished.load(folder)
    results = json.loads((folder / "results.json").read_text())["methods"]
    ridge = f"{run.config.evaluate.kissme_ridge:.3g}"
    for name, arm, of in (
        ("gamma", "2", ("ACRN", "ReIdCNN+Attributes-weighted")),
        ("gamma", "0.5", ("ReIdCNN+Attributes",)),
        ("leave_one_out", "all", ("ACRN", "Attributes-weighted")),
        ("kissme_ridge", ridge, ("Attributes-KISSME",)),
        ("metric", "squared_euclidean", ("ReIdCNN", "Attributes")),
        ("recognition", "0", ("ReIdCNN+Attributes", "ReIdCNN+Attributes-weighted")),
    ):
        found = sweeps.score(run, sweeps.SWEEPS[name](run, [0.5] if name in ("gamma", "recognition") else None))[arm]
        for method in of:
            for metric, value in results[method].items():
                # A rank moves by a whole query where rounding orders two almost equal distances the other way round.
                near = 2e-3 if metric == "mAP" else 1.01 / len(run.own.query)
                assert found.metrics[method, metric] == pytest.approx(value, abs=near), (name, method, metric)
    kept = [folder / "features" / f"{split}.npz" for split in ("query", "gallery")]
    stamps = [file.stat().st_mtime_ns for file in kept]
    np.testing.assert_array_equal(finished.load(folder).own.query, run.own.query)
    assert [file.stat().st_mtime_ns for file in kept] == stamps


def test_a_run_is_only_read_where_an_output_elsewhere_is_named(study, tmp_path):
    _, jobs, _ = study
    run = shutil.copytree(jobs[1].folder, jobs[1].folder.with_name("shared_run"))
    for file in [*run.glob("features/*"), *(run / "predictions").iterdir()]:
        file.unlink()
    above = run.parents[1]
    before = {path: path.stat().st_mtime_ns for path in above.rglob("*")}
    found = finished.load(run, out=tmp_path)
    assert {path: path.stat().st_mtime_ns for path in above.rglob("*")} == before
    kept = tmp_path / "kept" / "shared_run"
    assert {path.name for path in (kept / "predictions").iterdir()} == {"query.npz", "gallery.npz", "train.npz"}
    assert {path.name for path in (kept / "features").iterdir()} == {"query.npz", "gallery.npz"} and found.kept == kept
    shutil.rmtree(run)


def test_weights_trained_alone_are_those_of_the_run(study):
    _, jobs, _ = study
    run = finished.load(jobs[0].folder)
    margins = [0.02, run.config.loss.attribute_margin, 0.5]
    found, other = weight_training.train_weights(run, margins, seeds=[run.config.seed, 5])
    raw = checkpoint.load_any(run.folder / "reid" / "checkpoints")["params"]["attribute_weights"]["raw"]
    assert np.ptp(raw) > 0.01
    np.testing.assert_allclose(found[1], raw, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 1e-3 and np.abs(found[2] - found[1]).max() > 1e-3
    assert np.abs(other[1] - raw).max() > 1e-4
    a, margin = run.attributes.train, margins[1]
    each = weight_training.train_weights(run, [margin] * 2, attributes=[a, 1 - a**2])
    alone = weight_training.train_weights(run._replace(attributes=run.attributes._replace(train=1 - a**2)), [margin])
    np.testing.assert_allclose(each, [raw, alone[0]], atol=1e-4)
    assert np.abs(alone[0] - raw).max() > 1e-3


class People(NamedTuple):
    """Who is on the training images, as a split says it."""

    person_id: np.ndarray
    camera_id: np.ndarray

    def __len__(self):
        return len(self.person_id)


def test_weights_trained_alone_are_averaged_as_the_runs_are():
    run = drawn()
    run = run._replace(split=People(*run.attributes.train_labels))
    group = {"kind": "sgd", "rate": 0.5, "schedule": "constant"}
    run = changed(run, reid={"people": 10, "images": 4, "attribute_weights": group})  # all 40 images: one step an epoch

    def trained(epochs, ema, **changes):
        of = changed(run, reid__epochs=epochs, ema=ema, **changes)
        return weight_training.train_weights(of, [of.config.loss.attribute_margin])[0].astype(np.float64)

    raw, average = [trained(epochs, 0.0) for epochs in (1, 2, 3)], np.ones(A)
    for count, w in enumerate(raw):
        decay = min(0.5, (1 + count) / (10 + count))
        average = decay * average + (1 - decay) * w
    np.testing.assert_allclose(trained(3, 0.5), average, rtol=1e-5)
    assert np.abs(average - raw[-1]).max() > 1e-3
    with pytest.raises(ValueError, match=r"here was trained with loss\.attribute_gradient=flow"):
        trained(3, 0.5, loss__attribute_gradient="flow")


def test_a_workdir_without_results_is_named(study, attribute_net, tmp_path):
    workdir, jobs, _ = study
    with pytest.raises(FileNotFoundError, match="holds no run"):
        finished.load(tmp_path)
    shutil.copyfile(jobs[0].folder / "config.json", tmp_path / "config.json")
    with pytest.raises(FileNotFoundError, match=r"no results\.json; run"):
        finished.load(tmp_path)
    identity = next(p for p in (workdir / "shared").iterdir() if p.name.startswith("identity_") and p.is_dir())
    for other in (identity, attribute_net):
        with pytest.raises(ValueError, match=f"{other} is no ACRN run; studies on features want one"):
            finished.load(other)
