"""What a run trains on, and what its numbers are made of, against plain arithmetic: nets of two layers, drawn colours.

The re-id phases have rate 0 and see all images at their one step: what went in can be told from what came out.
"""

import json
import pathlib
import shutil

import numpy as np
import pytest
from scipy import stats

from acrn_jax import build, files, runs
from acrn_jax.data_prep import prepare
from acrn_jax.evaluation import methods
from acrn_jax.runs import AcrnRun, extraction, phases, search, start, workdir
from acrn_jax.runs.run import Run
from tests import oracles
from tests.fixtures import small_net

PEOPLE, HELD, IMAGES = 16, 6, 6  # of training
WEIGHTS = {"red": -2.0, "green": 1.0, "blue": 0.5}


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """(config, attribute run, ACRN run, its results)."""
    folder = tmp_path_factory.mktemp("chain")
    (folder / "raw").mkdir()
    csv = small_net.write_images(folder / "raw", people=2 * PEOPLE, images=IMAGES)
    (folder / "weights.json").write_text(json.dumps(WEIGHTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "net", build.net)  # put back after
        small_net.stand_in()
        prepare.prepare("image_folder", "mini", data_dir=folder / "data", raw_dir=folder / "raw", csv=csv)
        changes = {
            "devices": 1,
            "save_every": 1,
            "data.validation_identities": HELD,
            "identity": {"epochs": 2, "batch": 20},
            "reid": {"epochs": 1, "people": PEOPLE - HELD, "images": IMAGES, "scratch": {"rate": 0.0}},
            "loss": {"attribute_weights": "given", "attribute_weights_file": str(folder / "weights.json")},
        }
        config = small_net.config("reid", folder / "data", "mini").changed(changes)
        runs.train(small_net.config("mva", folder / "data", "mini"), folder / "net")
        results = runs.reproduce(config, attributes=folder / "net", workdir=folder / "acrn")
        yield config, folder / "net", folder / "acrn", results


def squared(x, y):
    return ((x[:, None].astype(np.float64) - y[None]) ** 2).sum(-1)


def probabilities(net, split):
    return 1 / (1 + np.exp(-runs.load(net).outputs(split, batch=16)["attribute_logits"].astype(np.float64)))


def mean_over_pairs(x):
    return squared(x, x).sum() / (len(x) * (len(x) - 1))


def test_both_kinds_of_re_id_start_from_the_identity_phase(chain):
    _, _, run, _ = chain
    identity = phases.load(run / "identity")
    for folder in (run / "reid", run / "baseline" / "reid"):
        for part in ("stem", "feature", "stem_norm", "feature_norm"):
            for name, value in phases.load(folder)["params"]["net"][part].items():
                np.testing.assert_array_equal(value, identity["params"]["net"][part][name], err_msg=f"{folder} {part}")
    drawn, _ = start.first_variables(chain[0], build.net(chain[0], people=2), None)
    assert not np.allclose(drawn["params"]["stem"]["kernel"], identity["params"]["net"]["stem"]["kernel"])


def test_held_out_people_are_not_trained_on(chain):
    config, net, run, results = chain
    train, held = build.reid_splits(config)
    assert len(np.unique(held.person_id)) == HELD and len(train) == (PEOPLE - HELD) * IMAGES
    assert phases.load(run / "identity")["params"]["net"]["classifier"]["bias"].shape == (PEOPLE - HELD,)
    # The first step's scales are the mean distances of all that it saw: of the right attributes of the right images.
    whole = np.concatenate([probabilities(net, train), probabilities(net, held)])
    wanted = mean_over_pairs(whole[: len(train)])
    assert results.scales["attribute"] == pytest.approx(wanted, rel=1e-4)
    assert abs(mean_over_pairs(whole) / wanted - 1) > 1e-2
    by_position = probabilities(net, build.open_split(config, "train"))[: len(train)]
    assert abs(mean_over_pairs(by_position) / wanted - 1) > 1e-2


def test_attributes_are_joined_by_key(chain):
    _, net, run, _ = chain
    split = build.open_split(runs.read_config(run), "gallery")
    backwards = split.take(np.arange(len(split))[::-3])
    found = runs.load(run).predictions("gallery").of(backwards, "probabilities")
    np.testing.assert_allclose(found, probabilities(net, backwards), atol=1e-6)
    assert np.abs(found - probabilities(net, split)[: len(found)]).max() > 0.1


def test_the_tuned_factor_is_chosen_on_held_out_people_with_both_scales(chain):
    config, net, run, results = chain
    train, held = build.reid_splits(config)
    s_f, s_a = phases.load(run / "baseline" / "reid")["scales"]["feature"], results.scales["attribute"]

    def best(split, s_a):
        feature = runs.load(run / "baseline").outputs(split, batch=16)["feature"]
        d_f, d_a = squared(feature, feature), squared(*2 * [probabilities(net, split)])
        scores = [
            oracles.ranking(d_f / s_f + factor * d_a / s_a, split.labels, split.labels, "market1501", "skip")
            for factor in methods.CANDIDATES
        ]
        return methods.CANDIDATES[int(np.argmax([score["mAP_precision"] for score in scores]))]

    assert results.tuned_factor == best(held, s_a)
    assert best(held, s_a) not in (best(held, 1.0), best(train, s_a))


def test_names_are_those_of_a_finished_attribute_net_unless_another_will_do(chain, tmp_path):
    net = tmp_path / "net"
    shutil.copytree(chain[1], net)
    assert runs.attribute_net(net).names == tuple(WEIGHTS)
    (net / "attributes.json").unlink()  # what the end of training writes
    for names in (lambda: runs.attribute_net(net), lambda: runs.load(net).names):
        with pytest.raises(ValueError, match="is not finished"):
            names()
    assert runs.load(net, unfinished=True).names == tuple(WEIGHTS)


def test_scores_of_each_query_stand_with_its_key_and_its_person(chain):
    config, _, run, results = chain
    query = build.open_split(config, "query")
    with np.load(run / "per_query.npz") as kept:
        np.testing.assert_array_equal(kept["key"], query.key)
        np.testing.assert_array_equal(kept["person_id"], query.person_id)
        for method, metrics in results.methods.items():
            for metric, value in metrics.items():
                assert kept[f"{method}/{metric}"][kept["counted"]].mean() == pytest.approx(value)


def test_correlations_are_of_the_size_of_weights(chain):
    results = chain[-1]
    entries = results.weights
    assert {entry.name: entry.weight for entry in entries} == WEIGHTS
    for key in ("accuracy", "between_within"):
        values = [getattr(entry, key) for entry in entries]
        wanted = stats.spearmanr([abs(entry.weight) for entry in entries], values).statistic
        assert getattr(results, f"spearman_weight_{key}") == pytest.approx(wanted)
        assert abs(stats.spearmanr([entry.weight for entry in entries], values).statistic - wanted) > 0.1


def test_search_measures_with_the_runs_own_scales_and_weights(chain, tmp_path):
    config, net, run, results = chain
    split = build.open_split(config, "query").take(np.arange(4))
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(split.image_bytes(i))
    found = search.search(
        run, tmp_path / "pictures", query=tmp_path / "pictures" / "0.png", out=tmp_path / "found", explained=True
    )
    feature, weights = runs.load(run).outputs(split)["feature"], np.array(list(WEIGHTS.values()))
    attribute = weights * probabilities(net, split)
    of_feature, of_attributes = (
        part * squared(x, x)[0] / results.scales[name]
        for name, x, part in (("feature", feature, 1), ("attribute", attribute, config.loss.gamma))
    )
    for entry in found["results"]:
        place = int(entry["file"][0])
        assert entry["shares"]["feature"] == pytest.approx(of_feature[place], rel=1e-4)
        assert entry["distance"] == pytest.approx((of_feature + of_attributes)[place], rel=1e-4)


def test_a_run_is_only_read_where_an_output_elsewhere_is_named(chain, tmp_path, monkeypatch):
    """As runs that are shared read-only must be. Predictions are missing there, so they have to be made."""
    config, net, run, results = chain
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("predictions", "thumbnails", "*results*"))
    run = tmp_path / "run"

    def state():
        paths = (path for folder in (run, net, config.data.dir) for path in [folder, *pathlib.Path(folder).rglob("*")])
        return {str(path): pathlib.Path(path).stat().st_mtime_ns for path in paths}

    before, out = state(), tmp_path / "out"
    again = runs.evaluate(run, baseline=run / "baseline", tune=run / "baseline", out=out)
    assert again.methods == results.methods
    names = {"predictions", "thumbnails", "results.json", "rank_lists.json", "look_alikes.json", "per_query.npz"}
    assert {path.name for path in out.iterdir()} == names
    assert {path.stem for path in (out / "predictions").iterdir()} == {"query", "gallery", "train"}
    assert (out / again.runs["run"]).resolve() == run and (out / again.runs["baseline"]).resolve() == run / "baseline"
    assert runs.evaluate(net, out=tmp_path / "net_out").attributes

    pictures = tmp_path.parent / "pictures"
    split = build.open_split(config, "query")
    pictures.mkdir()
    for i in range(4):
        (pictures / f"{i}.png").write_bytes(split.image_bytes(i))
    # Weights whose form asks for the training images' attributes.
    learned = runs.read_config(run).changed({"loss.attribute_weights": "learned", "loss.weight_form": "unit_mean"})
    asked = []
    monkeypatch.setattr(AcrnRun, "weights", lambda self, train: asked.append(train) or np.ones(train.shape[1]))
    read = workdir.read_config
    monkeypatch.setattr(
        workdir, "read_config", lambda folder, **where: learned if folder == run else read(folder, **where)
    )
    found = search.search(run, pictures, query=pictures / "0.png", want=["red"], out=tmp_path / "found")
    assert len(asked) == 1 and len(found["results"]) == 3 and (tmp_path / "found" / "grid.jpg").is_file()
    extraction.extract(run, [split], tmp_path / "f.npz", format="npz")
    assert state() == before
    with pytest.raises(ValueError, match="is the folder of a run"):
        runs.evaluate(run, out=net)
    (tmp_path / "file").touch()
    for call in (
        lambda place: runs.evaluate(run, out=place),
        lambda place: search.search(run, pictures, want=["red"], out=place),
        lambda place: runs.train(read(net), place),
    ):
        monkeypatch.setattr(Run, "outputs", None)  # told before any work
        with pytest.raises(files.WriteError, match=r"file/sub cannot be written: Not a directory; .*--out"):
            call(tmp_path / "file" / "sub")
    assert state() == before
