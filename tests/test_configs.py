"""Every config builds its net, objective and optimiser groups; wrong settings are refused before anything is read."""

import importlib
import pathlib

import jax
import numpy as np
import pytest

from acrn_jax import build, runs
from acrn_jax.train import optimizer, state

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("__init__", "ablations", "baseline", "common", "small")
CONFIGS = {path.stem: [None] for path in sorted((ROOT / "configs").glob("*.py")) if path.stem not in PARTS}
CONFIGS |= {"mva_peta": ["paper", "small"], "demo": ["acrn", "attributes"], "acrn_peta": ["grid", "3dpes_4", "ilid"]}
CASES = [(name, mode) for name, modes in CONFIGS.items() for mode in modes]
NAMES = tuple(f"attribute{i}" for i in range(5))


def load(name, mode=None):
    c = importlib.import_module(f"configs.{name}").get_config(*([mode] if mode else []))
    c.data.dir = "somewhere"
    c.attributes["from"] = "a net"
    c.devices = 1
    return c.lock()


@pytest.mark.parametrize("name, mode", CASES)
def test_config_builds(name, mode):
    config = load(name, mode)
    build.check(config)
    for phase in config.phases:
        settings = config[phase]
        attributes, people = (len(NAMES), None) if phase == "mva" else (0, 7)
        net = build.net(config, attributes=attributes, people=people)
        image = jax.ShapeDtypeStruct((2, config.data.height, config.data.width, 3), np.float32)
        variables = jax.eval_shape(lambda x, net=net: net.init(jax.random.key(0), x, train=False), image)
        params = {"net": variables["params"]}
        if phase == "reid":
            _, weights = build.reid_objective(config, NAMES)
            if weights is not None:
                params["attribute_weights"] = {"raw": weights}
        groups = jax.tree.leaves(jax.tree_util.tree_map_with_path(lambda path, _: optimizer.group_of(path), params))
        assert set(groups) <= set(settings)
        assert settings.get("steps", 0) or settings.epochs


def test_the_phases_are_the_papers():
    paper = load("acrn_market1501")
    assert (paper.identity.epochs, paper.identity.batch) == (10, 64)
    assert (paper.reid.epochs, build.batch_rows(paper, "reid")) == (20, 120)
    assert (paper.reid.scratch.rate, paper.reid.scratch.factor, paper.reid.scratch.every_epochs) == (1e-2, 0.8, 2)
    mva = load("mva_peta")
    assert (mva.mva.steps, mva.mva.batch, mva.mva.trunk.rate, mva.mva.scratch.rate) == (70_000, 64, 1e-3, 1e-2)
    assert (mva.mva.trunk.every_steps, mva.mva.trunk.factor, mva.mva.trunk.decay) == (30_000, 0.1, 2e-4)
    base = load("reidcnn_market1501")
    assert base.loss.kind == "classic" and tuple(base.phases) == ("reid",)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"data.dir": None}, "config.data.dir is not set"),
        ({"phases": ("reid", "sleep")}, "config.phases is 'sleep'; known: mva, identity, reid"),
        ({"model.name": "mva"}, "an attribute net has phases"),
        ({"dtype": "float16"}, "known: float32, bfloat16"),
        ({"loss.distance": "manhattan"}, "known: squared_euclidean"),
        ({"reid.miner": "hardest"}, "config.reid.miner is 'hardest'"),
        ({"reid.miner": "batch_hard"}, "either both are offline or none"),
        ({"attributes.from": None}, "--config.attributes.from=M"),
        ({"loss.attribute_weights": "given"}, "wants config.loss.attribute_weights_file"),
        ({"devices": 7}, "batches of 64 images, which 7 devices do not divide"),
        ({"devices": 99}, "this machine shows 8"),
    ],
)
def test_wrong_settings_are_refused(change, message):
    config = load("acrn_market1501")
    with config.unlocked():
        for key, value in change.items():
            *path, last = key.split(".")
            place = config
            for part in path:
                place = place[part]
            place[last] = value
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        build.check(config)


def test_workdir_of_another_config_is_refused(tmp_path):
    config = load("demo", "acrn")
    runs.claim(tmp_path / "w", config)
    runs.claim(tmp_path / "w", config)
    config.log_every += 1  # changes no result
    runs.claim(tmp_path / "w", config)
    config.loss.gamma = 0.25
    with pytest.raises(ValueError, match=r"loss\.gamma is 0\.5 there, 0\.25 here"):
        runs.claim(tmp_path / "w", config)


def test_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match="no run's folder"):
        runs.claim(tmp_path, load("demo", "acrn"))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_starting_from_another_run(tmp_path, capsys):
    config = load("demo", "acrn")
    with config.unlocked():
        config.model.width, config.model.feature_dim, config.data.height, config.data.width = 0.0625, 4, 32, 16
    tx = optimizer.make({"scratch": {"kind": "sgd", "rate": 0.1}})
    with_classifier = build.net(config, people=3)
    first = build.first_variables(config, with_classifier, None)
    saved = build.checkpoint.Checkpoints(tmp_path / "identity" / "checkpoints")
    saved.save(state.create(jax.tree.map(lambda x: x + 1, first), tx))
    saved.close()
    found = build.first_variables(config, build.net(config, people=9), tmp_path / "identity")
    np.testing.assert_array_equal(
        found["params"]["stem0"]["conv"]["kernel"], first["params"]["stem0"]["conv"]["kernel"] + 1
    )
    np.testing.assert_array_equal(found["batch_stats"]["v3"]["pool"]["conv0"]["norm"]["mean"], 1)
    assert found["params"]["classifier"]["kernel"].shape == (4, 9)
    assert "2 new (params/classifier/bias, params/classifier/kernel)" in capsys.readouterr().out
    with config.unlocked():
        config.model.width = 0.125
    with pytest.raises(ValueError, match="cannot start this net"):
        build.first_variables(config, build.net(config, people=3), tmp_path / "identity")


def test_given_weights_must_name_every_attribute(tmp_path):
    config = load("demo", "acrn")
    file = tmp_path / "weights.json"
    file.write_text('{"attribute0": 2, "attribute1": 1, "attribute2": 0, "attribute3": 3, "attribute4": -1, "more": 9}')
    with config.unlocked():
        config.loss.attribute_weights_file = str(file)
    np.testing.assert_array_equal(build.given_weights(config, NAMES), [2, 1, 0, 3, -1])
    with pytest.raises(ValueError, match="gives no weight for hat"):
        build.given_weights(config, (*NAMES, "hat"))
