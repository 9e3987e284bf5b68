"""Attributes as loud as held-out people say: which distances are scored, and what a finished run gives."""

from pathlib import Path

import numpy as np
import pytest

from acrn_jax import build, settings
from acrn_jax.configs import demo
from acrn_jax.evaluation import calibration, held_out, methods, protocols, ranking
from acrn_jax.results import Results
from acrn_jax.runs import AcrnRun
from acrn_jax.schema import Labels
from acrn_jax.studies import choosing, finished, sweeps, table

A = 4  # attributes; the first two are the person's, the others noise
COUNTS = (24, 60, 96)  # images of query, gallery, held-out people


def drawn(seed=0):
    """A run and its held-out people, 24 who are seen four times."""
    rng, parts = np.random.default_rng(seed), []
    config = settings.read(demo.get_config()).changed({"attributes.from": "nowhere"})
    for count, people in zip(COUNTS, (12, 12, 24), strict=True):
        person = np.arange(count) % people + 1
        truth = rng.integers(0, 2, (people, A)).astype(np.int8)[person - 1]
        f, b = (rng.normal(size=(people, 6))[person - 1] + 1.2 * rng.normal(size=(count, 6)) for _ in range(2))
        logits = np.where(np.arange(A) < 2, 6 * truth - 3 + rng.normal(size=(count, A)), rng.normal(size=(count, A)))
        parts.append((Labels(person, np.arange(count) // people % 2), f, b, logits.astype(np.float32), truth))
    labels, own, base, logits, truth = zip(*parts, strict=True)
    # Query and gallery are the same people, as their features are.
    for values in (own, base, logits, truth):
        values[0][:] = values[1][: COUNTS[0]] + (0.3 * rng.normal(size=values[0].shape)).astype(values[0].dtype)
    truth[0][:] = truth[1][: COUNTS[0]]
    attributes = tuple(1 / (1 + np.exp(-values)) for values in logits)
    run = finished.FinishedRun(
        AcrnRun(Path("here"), config),
        Results.of(protocol="multi_shot", no_match="error", dataset="d/0", fingerprint="f", methods={}),
        *labels[:2],
        tuple("abcd"),
        np.array([1, 0, 2, 1], np.float32),
        methods.Features(*own[:2], 12.0),
        methods.Features(*base[:2], 10.0),
        methods.Attributes(*attributes[:2], 1.5),
        None,
    )
    labelled = np.where(np.arange(A) == 1, -1, truth[2]).astype(np.int8)  # the second has no labels
    return run, finished.HeldOut(labels[2], own[2], base[2], attributes, logits, labelled, truth)


def squared(x, y):
    return np.square(np.asarray(x, np.float64)[:, None] - np.asarray(y, np.float64)).sum(axis=-1)


def test_arms_are_the_distances_that_their_names_say(monkeypatch, capsys):
    run, held = drawn()
    monkeypatch.setattr(finished, "held_out", lambda of: held)
    sweep = sweeps.held_out(run, [0.5, 1.0])
    found, (aq, ag, ah), (lq, lg, lh) = sweeps.score(run, sweep), held.attributes, held.logits
    assert sweep.reference == "none" and found["none"].metrics["ReIdCNN", "gamma"] == 0
    c = held_out.agreement(ah, held.labels)
    assert (c[:2] > 1).all() and c[2:].max() < 0.05 * c[:2].min()
    curves = calibration.platt(lh, held.labelled)
    assert curves.fitted[0] and not curves.fitted[1]
    chosen = (1 / (1 + np.exp(-(curves.slope * x + curves.offset)[:, curves.fitted])) for x in (lq, lg, lh))
    said = {
        "agreement": tuple(np.sqrt(c) * x for x in (aq, ag, ah)),
        "calibrated": tuple(chosen),
        "standardised": tuple(x / lh.std(axis=0) for x in (lq, lg, lh)),
        "truth": held.truth,
    }
    w = run.weights
    for method, of in (("ACRN", run.own), ("ReIdCNN", run.base)):
        gamma = {arm: scores.metrics[method, "gamma"] for arm, scores in found.items()}
        assert gamma["trained"] == run.config.loss.gamma and gamma["agreement"] > 0 and gamma["truth"] > 0
        base = squared(of.query, of.gallery) / of.scale
        expected = {"none": base}
        for arm in ("trained", "tuned"):
            expected[arm] = base + gamma[arm] * squared(w * aq, w * ag) / 1.5
        for arm, (q, g, h) in said.items():
            expected[arm] = base + gamma[arm] * squared(q, g) / squared(h, h).mean()
        for arm, matrix in expected.items():
            one = ranking.evaluate(matrix, run.query, run.gallery, protocol=protocols.MULTI_SHOT)
            for metric, value in one.metrics.items():
                near = 0.01 if metric == "mAP_precision" else 1.01 / COUNTS[0]
                assert found[arm].metrics[method, metric] == pytest.approx(value, abs=near), (arm, method, metric)
        assert found["agreement"].metrics[method, "weights"] == np.count_nonzero(c)
        for arm in ("fitted", "agreement", "truth"):  # what helps is found to
            of_arm = found[arm].metrics[method, "mAP_precision"]
            assert of_arm > found["none"].metrics[method, "mAP_precision"] + 0.03, arm
    assert "ACRN, none: gamma 0, 0 attributes" in capsys.readouterr().out


def test_what_tells_nothing_gets_no_weight():
    run, held = drawn(1)
    rng = np.random.default_rng(5)
    noise = tuple(rng.normal(size=values.shape).astype(np.float32) for values in held.logits)
    blind = held._replace(
        attributes=tuple(1 / (1 + np.exp(-values)) for values in noise),
        logits=noise,
        labelled=np.full_like(held.labelled, -1),
        truth=tuple(np.full_like(labels, -1) for labels in held.truth),
    )
    found = choosing.choose(run._replace(base=None), blind, [0.3, 1.0])
    assert set(found) == {"none", "trained", "tuned", "fitted", "agreement", "standardised"}
    assert found["trained"]["ACRN"].gamma == run.config.loss.gamma
    for arm in set(found) - {"trained"}:
        assert set(found[arm]) == {"ACRN"} and found[arm]["ACRN"][:2] == (0, 0), arm


def test_unknown_labels_are_as_likely_as_they_are_for_others():
    truth = (np.array([[1, -1], [-1, 0]]), np.array([[0, 1]]), np.array([[1, -1], [0, -1], [1, -1], [1, -1]]))
    query, gallery, _ = choosing._filled(truth)
    assert query.tolist() == [[1, 0], [0.75, 0]] and gallery.tolist() == [[0, 0]]  # nothing to choose the second on


def test_a_finished_run_is_asked_once_about_its_held_out_people(study, tmp_path):
    _, jobs, _ = study
    folder = jobs[1].folder  # gamma 2
    made, run = sweeps.study("held_out", [folder], out=tmp_path), finished.load(folder, out=tmp_path)
    rows = {(row.arm, row.metric): row for row in made.rows if row.method == "ReIdCNN"}
    line = next(line.split() for line in reversed(table.show(made).splitlines()) if line.startswith("trained"))
    assert line[-2:] == ["2.000", str(np.count_nonzero(run.weights))]
    assert made.reference == "none" and rows["truth", "mAP_precision"].low is not None
    assert rows["tuned", "gamma"].low is None and 0 <= rows["tuned", "gamma"].mean <= max(held_out.GAMMAS)
    kept = tmp_path / "kept" / folder.name
    files = [place / "features" / "held_out.npz" for place in (kept, kept / "baseline")]
    moments = [file.stat().st_mtime_ns for file in files]
    found, (_, people) = finished.held_out(run), build.reid_splits(run.config)
    assert [file.stat().st_mtime_ns for file in files] == moments
    assert len(np.unique(found.labels.person_id)) == run.config.data.validation_identities == 6
    np.testing.assert_array_equal(found.labels.person_id, people.person_id)
    np.testing.assert_array_equal(found.attributes[0], run.attributes.query)
    np.testing.assert_allclose(found.own, run.run.outputs(people)["feature"], atol=1e-5)
    assert not np.allclose(found.own, found.base)
    logits = run.run.attribute_net.outputs(people)["attribute_logits"]
    np.testing.assert_allclose(found.logits[2], logits, atol=1e-5)
    config = run.config.changed({"data.validation_identities": 0})
    with pytest.raises(ValueError, match=r"held nobody out of training, to choose on; train it with"):
        finished.held_out(run._replace(run=AcrnRun(folder, config)))
