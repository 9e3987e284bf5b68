"""Every key of configs/common.py has a rule, and a wrong value is refused, by name, before anything is read or made."""

import dataclasses
import functools
import re
from typing import Annotated

import flax.linen as nn
import jax
import numpy as np
import pytest

from acrn_jax import build, rules, runs, settings
from acrn_jax.configs import common
from acrn_jax.data_prep import prepare
from acrn_jax.losses import triplet
from acrn_jax.models import MODELS, Model, acrn
from acrn_jax.ops.representations import REPRESENTATIONS
from acrn_jax.runs import outputs, phases, training
from acrn_jax.train import optimizer, step
from tests.fixtures import small_net

DEFAULTS = settings.read(common.get_config()).flat
OPTIMISERS = ("mva.trunk", "mva.scratch", "identity.scratch", "reid.scratch", "reid.attribute_weights")
# Beside a value of another type, and -1 for each number: what lies just outside.
OUTSIDE = {
    "seed": [2**31],
    "phases": [(), ("sleep",), ("reid", "identity"), ("reid", "reid"), "reid", 3],
    "accumulate": [0],
    "ema": [1.0],
    "log_every": [0],
    "save_every": [0],
    "data.name": ["", 7],
    "data.config": ["", 7],
    "data.train_split": [""],
    "data.exclude_subsets": [("GRID", 3), "GRID"],
    "data.exclude_attributes": [("hat", 3), "hat"],
    "data.height": [0],
    "data.width": [0],
    "data.mean": [(0.5, 0.5), (0.5, 0.5, 1.5), 0.5],
    "data.deviation": [(0.5, 0.5, 0.0), (1, 1), 1.0],
    "data.threads": [0],
    "data.augment.enlarge": [0.99],
    "model.width": [0.0, 0.015],
    "model.feature_dim": [0],
    "model.views": [("top", "left"), ("top", 3), "top"],
    "model.branch_kernel": [0],
    "model.dropout": [1.0],
    "mva.batch": [1],
    "mva.threshold": [1.5],
    "identity.batch": [1],
    "identity.epochs": [0],
    "reid.epochs": [0],
    "reid.triplets": [0],
    "reid.people": [1],
    "reid.images": [1],
    "loss.temperature": [0.0],
    "evaluate.draws": [0],
    "evaluate.probe_view": ["3"],
    "evaluate.batch": [0],
    **{f"data.augment.{name}": [1.01] for name in ("flip", "erase", "brightness", "contrast", "saturation")},
    **{f"{phase}.smoothing": [1.5] for phase in ("identity", "loss")},
    **{f"{group}.momentum": [1.0] for group in OPTIMISERS},
    **{f"{group}.factor": [0.0] for group in OPTIMISERS},
}


def wrong(key):
    """Values that the key must not hold."""
    default = DEFAULTS[key]
    if isinstance(default, bool):
        return ["yes", 1]
    if isinstance(default, float):
        return [-1.0, float("nan"), float("inf"), "much", *OUTSIDE.get(key, [])]
    if isinstance(default, int):
        return [-1, float("nan"), "many", *([1.5] if "epochs" not in key else []), *OUTSIDE.get(key, [])]
    free = default is None or key in ("data.config", "data.train_split")
    return OUTSIDE.get(key) or ([7, ""] if free and key != "evaluate.protocol" else ["no such thing", 7])


def changed(key, value):
    """A config with one value, as a config file may hold it, whatever its type."""
    c = small_net.config_dict("mva" if key.startswith("mva.") else "reid", "nowhere", "nothing")
    *path, last = key.split(".")
    place = functools.reduce(lambda tree, part: tree[part], path, c)
    with c.ignore_type():
        place[last] = value
    return c


@pytest.mark.parametrize("key", DEFAULTS)
def test_a_wrong_value_is_refused_by_name_before_any_work(key, tmp_path):
    assert wrong(key), key
    for value in wrong(key):
        with pytest.raises(ValueError, match=rf"^config\.{re.escape(key)} is ") as told:
            runs.train(settings.read(changed(key, value)), tmp_path / "run")
        assert repr(list(value) if isinstance(value, tuple) else value) in str(told.value)
        with pytest.raises(ValueError, match=rf"^config\.{re.escape(key)} is "):
            settings.read(common.get_config()).changed({key: value})
    assert not list(tmp_path.iterdir())


def test_every_key_has_a_rule_and_no_rule_is_left_over():
    assert set(settings.all_rules()) == set(DEFAULTS)
    settings.check_values(DEFAULTS)


def test_a_key_that_nothing_takes_is_refused_and_one_that_is_missing(tmp_path):
    c = common.get_config()
    c.loss.gama = 0.5
    with pytest.raises(ValueError, match=r"no config key 'loss\.gama'; did you mean 'loss\.gamma'\?$"):
        settings.read(c)
    tree = common.get_config().to_dict()
    del tree["reid"]["scratch"]["decay"]
    with pytest.raises(ValueError, match=r"config\.reid\.scratch\.decay is missing; configs/common\.py has it"):
        settings.read(tree)
    tree = common.get_config().to_dict()
    del tree["model"]["name"]
    with pytest.raises(ValueError, match=r"config\.model\.name is missing"):
        settings.read(tree)


def test_keys_of_nets_that_are_missing_take_the_nets_defaults():
    tree = common.get_config().to_dict()
    tree["model"] = {"name": "acrn", "feature_dim": 7}
    config = settings.read(tree)
    assert config.flat == DEFAULTS | {"model.feature_dim": 7}  # common.py's are the nets' own
    assert settings.read(config.tree) == config
    assert config.changed({"model.views": ["top"]}).flat["model.views"] == ["top"]
    c = common.get_config()
    del c.model["head_pooling"], c.model["views"]
    assert settings.read(c).flat == DEFAULTS


def test_a_net_may_have_fewer_groups_than_a_phase(with_another_net):
    tree = common.get_config().to_dict()
    tree["model"] = {"name": "narrow", "needed": 1}
    _, tx, rates = build.optimisation(settings.read(tree), "mva", 10, ("trunk", "scratch"))
    params = {"net": {"dense": {"kernel": np.ones((2, 2), np.float32)}}}
    updates, _ = tx.update(params, tx.init(params), params)
    assert list(rates) == ["scratch"] and np.all(updates["net"]["dense"]["kernel"] < 0)


class Narrow(nn.Module):
    """A net of somebody else, which has a key of its own, and one that others have with other limits."""

    needed: rules.Count
    width: Annotated[float, rules.number(0.5)] = 2.0
    depth: rules.Count = 3
    blocks: Annotated[tuple[int, ...], rules.several(rules.whole(1))] = (1, 2)
    num_people: int | None = None


@pytest.fixture
def with_another_net(monkeypatch):
    monkeypatch.setitem(MODELS, "narrow", Model(Narrow, ("identity", "reid"), {"dense": "scratch"}))
    monkeypatch.setattr(settings, "MODEL_NAME", {"model.name": rules.one_of(*MODELS)})
    caches = (settings.all_rules, settings.model_defaults)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_a_new_net_brings_its_own_keys(with_another_net):
    tree = common.get_config().to_dict()
    tree["model"] = {"name": "narrow", "needed": 1}
    config = settings.read(tree)
    assert config.flat == DEFAULTS | {
        "model.name": "narrow", "model.needed": 1, "model.width": 2.0, "model.depth": 3, "model.blocks": [1, 2]
    }  # fmt: skip
    assert config.model == Narrow(1, 2.0, 3, (1, 2))
    with pytest.raises(ValueError, match=r"config\.model\.width is 0\.25; it must be a number of at least 0\.5"):
        config.changed({"model.width": 0.25})
    assert config.changed({"model": {"name": "acrn", "width": 0.25}}).model.width == 0.25
    del tree["model"]["needed"]
    with pytest.raises(ValueError, match=r"config\.model\.needed is missing"):
        settings.read(tree)
    with pytest.raises(ValueError, match="the phases of each model are acrn: identity and reid; mva: mva; narrow: id"):
        settings.check(config.changed({"phases": ["mva"], "data.dir": "D", "data.name": "N"}))


def test_records_hold_what_the_config_holds():
    """Each key of the config, found again in the records by its path, and nothing can be set there."""
    config = settings.read(common.get_config())
    for key, value in DEFAULTS.items():
        if key == "model.name" or (key.startswith("model.") and not hasattr(config.model, key.removeprefix("model."))):
            continue  # of the other net
        found = functools.reduce(lambda r, part: getattr(r, {"from": "from_"}.get(part, part)), key.split("."), config)
        assert found == (tuple(value) if isinstance(value, list) else value), key
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.loss.gamma = 1.0


def test_what_a_rule_names_is_there():
    """Each choice of the table is one for whoever takes it, and the other way round."""

    def choices(key):
        return set(settings.all_rules()[key].wanted.removeprefix("known: ").split(", "))

    assert choices("attributes.representation") == set(REPRESENTATIONS)
    assert choices("dtype") == set(build.DTYPES) and choices("parallel") == set(step.WRAPPERS)
    for kind in choices("reid.scratch.kind"):
        optimizer.make({"scratch": {"kind": kind, "rate": 0.1}}, acrn.GROUPS)
    for kind in choices("reid.scratch.schedule"):
        optimizer.schedule(kind, rate=0.1, steps=3)
    for reduction in choices("loss.reduction"):
        triplet.hinge(np.ones(2), np.ones(2, bool), margin=1.0, reduction=reduction)
    assert choices("model.feature_norm") == set(acrn.FEATURE_NORMS)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"loss.soft": True, "loss.reduction": "active_only"}, "config.loss.soft leaves every triplet active"),
        ({"loss.weight_form": "unit_mean", "loss.distance": "cosine"}, "config.loss.weight_form=unit_mean"),
        ({"reid.miner": "offline"}, "either both are offline or none"),
    ],
)
def test_keys_that_do_not_go_together(change, message, tmp_path):
    c = small_net.config("reid", "nowhere", "nothing").changed({"attributes.from": "a net"} | change)
    with pytest.raises(ValueError, match=re.escape(message)):
        runs.train(c, tmp_path / "run")
    c = small_net.config("mva", "nowhere", "nothing", steps=0)
    with pytest.raises(ValueError, match=r"config\.mva\.steps and config\.mva\.epochs are both 0"):
        runs.train(c, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Six people to train on with six images each, prepared; in "single" one of them has one image."""
    raw, folder = tmp_path_factory.mktemp("raw"), tmp_path_factory.mktemp("data")
    small_net.prepare(raw, folder, "mini")
    lines = (raw / "images.csv").read_text().splitlines()
    (raw / "single.csv").write_text("\n".join(line for line in lines if not re.match("1_[1-5]", line)) + "\n")
    prepare.prepare("image_folder", "single", data_dir=folder, raw_dir=raw, csv=raw / "single.csv")
    return folder


@pytest.mark.parametrize(
    "change, message",
    [
        ({"reid.people": 7}, "config.reid.people is 7, but there are 6 people to train on in image_folder/mini/train;"),
        (
            {"data.validation_identities": 3, "reid.people": 4},
            "are 3 people to train on in image_folder/mini/train (3 more people are held out",
        ),
        (
            {"data.validation_identities": 5},
            "config.data.validation_identities is 5, and image_folder/mini/train has 6",
        ),
        (
            {"data.validation_identities": 4},  # two people are left, as few as may be
            "config.identity.batch is 16, but there are 12 images to train on in image_folder/mini/train (4 more",
        ),
        (
            {"data.config": "single", "identity.batch": 31, "reid.miner": "offline", "reid.triplets": 31},
            "config.reid.triplets is 31, but there are 30 images to train on in image_folder/single/train",
        ),
        ({"identity.batch": 37}, "config.identity.batch is 37, but there are 36 images to train on"),
        ({"reid.miner": "offline", "reid.triplets": 37}, "config.reid.triplets is 37, but there are 36 images"),
        (
            {"evaluate.tune_identities": 4},
            "config.evaluate.tune_identities=4 holds people out of an extra run, for which",
        ),
        (
            {"evaluate.tune_identities": 7},
            "config.evaluate.tune_identities=7 holds people out of an extra run, for which",
        ),
    ],
)
def test_what_the_labels_decide_is_said_before_training(change, message, data_dir, tmp_path):
    change = {"devices": 1, "loss.attribute_miner": change.get("reid.miner", "batch_all"), **change}
    c = small_net.config("reid", data_dir, "mini").changed(change)
    with pytest.raises(ValueError, match=re.escape(message)):
        runs.reproduce(c, attributes=tmp_path / "nothing", workdir=tmp_path / "run")
    if not c.evaluate.tune_identities:
        c = c.changed({"loss.kind": "classic"})
        with pytest.raises(ValueError, match=re.escape(message)):
            runs.train(c, tmp_path / "run")
    c = small_net.config("mva", data_dir, "mini").changed({"mva.batch": 37, "devices": 1})
    with pytest.raises(ValueError, match=r"config\.mva\.batch is 37, but there are 36 images"):
        runs.train(c, tmp_path / "run")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text, message",
    [
        ("red: 1", "must be JSON {attribute name: weight}"),
        ("[1, 2]", "each weight a finite number"),
        ('{"red": "much"}', "each weight a finite number"),
        ('{"red": NaN}', "each weight a finite number"),
        ('{"red": 1}', "gives no weight for hat"),
    ],
)
def test_given_weights_are_read_before_training(text, message, tmp_path):
    given = {"attribute_weights": "given", "attribute_weights_file": str(tmp_path / "weights.json")}
    c = small_net.config("reid", "nowhere", "nothing").changed({"loss": given})
    (tmp_path / "weights.json").write_text(text)
    with pytest.raises(ValueError, match=re.escape(message)):
        build.reid_objective(c, ("red", "hat"))


def test_reid_goes_on_with_the_classifier_of_the_same_people(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "net", build.net)  # put back after
    small_net.stand_in()
    begun = {}

    def train_phase(task):
        begun[task.folder.parent.name, task.phase] = task.variables["params"]["classifier"]
        return build.train_phase(task)

    def train(name, **changes):
        c = small_net.config("reid", data_dir, "mini").changed(
            {
                "loss": {"kind": "classic", "identity_weight": 1.0},
                "identity.epochs": 1,
                "reid.epochs": 1,
                "data.validation_identities": 2,
                "devices": 1,
                **changes,
            }
        )
        runs.train(c, tmp_path / name, train_phase=train_phase)

    train("first")
    first = phases.load(tmp_path / "first" / "identity")["params"]["net"]["classifier"]
    identity = str(tmp_path / "first" / "identity")
    train("second", phases=("reid",), init_from=identity)
    train("others", phases=("reid",), init_from=identity, seed=1)  # as many people, but not the same ones
    for name in ("first", "second"):
        jax.tree.map(np.testing.assert_array_equal, begun[name, "reid"], first)
    assert not np.array_equal(begun["others", "reid"]["kernel"], first["kernel"])
    assert np.ptp(first["bias"]) > 0 and np.ptp(begun["first", "identity"]["bias"]) == 0


@pytest.mark.parametrize(("shown", "told"), [("binary", True), ("probabilities", False)])
def test_attributes_that_are_the_same_for_all_are_told_before_training(shown, told, data_dir, monkeypatch):
    net = {"from": "M", "representation": shown}
    c = small_net.config("reid", data_dir, "mini").changed({"attributes": net})
    split, _ = build.reid_splits(c)
    logits = np.random.default_rng(0).uniform(-3, -1, (len(split), 4)).astype(np.float32)  # never above one half
    predictions = outputs.Predictions(split.key, logits, tuple("abcd"))
    monkeypatch.setattr(runs.AcrnRun, "predictions", lambda *_: predictions)
    if told:
        with pytest.raises(ValueError, match=r"net M says the same of all 36 images .* take another representation"):
            training._predictions(c, None, split)
    else:
        assert training._predictions(c, None, split) is predictions
