"""One step under jit and pmap on 1, 2, 4 and 8 devices gives one and the same state; frozen things stay.

On a small net with batch normalisation: the step does not know which net it trains, and this one compiles in a second.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acrn_jax.losses import memory, objectives
from acrn_jax.models import acrn, initialize, mva
from acrn_jax.schema import Outputs
from acrn_jax.train import checkpoint, optimizer, state, step
from tests.losses import test_objectives

B, A, PEOPLE = 16, 5, 4
REID = test_objectives.SETTINGS | {"distance_scale": "unit_mean", "margin": 0.3, "attribute_margin": 0.1}
GROUPS = acrn.GROUPS | mva.GROUPS  # the nets here have parts of both
FAR = [("jit", 8), ("pmap", 8)]
EVERYWHERE = [*(("jit", n) for n in (2, 4, 8)), *(("pmap", n) for n in (1, 2, 4, 8))]  # beside jit on 1
KINDS = {  # the step is the same for all: what differs is the objective, which sees the gathered batch
    "acrn batch_hard": EVERYWHERE,
    "identity": FAR,
    "attributes": FAR,
    "classic batch_hard": FAR,
    "acrn batch_all": FAR,
    "acrn semi_hard": FAR,
    "acrn batch_hard memory": FAR,
    "acrn offline": FAR,
}


class Net(nn.Module):
    """Convolution, batch normalisation, dense feature with batch normalisation, and the two heads."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train):
        normalise = functools.partial(nn.BatchNorm, use_running_average=not train, axis_name=self.axis_name)
        x = nn.relu(normalise(name="stem_norm")(nn.Conv(6, (3, 3), strides=2, name="stem")(images)))
        feature = normalise(name="feature_norm")(nn.Dense(8, name="feature")(jnp.mean(x, axis=(1, 2))))
        identity, attributes = nn.Dense(PEOPLE, name="classifier")(feature), nn.Dense(A, name="attributes")(feature)
        return Outputs(feature, feature, identity, attributes)


def batch(kind):
    rng = np.random.default_rng(0)
    if kind.endswith("offline"):  # anchors, positives, negatives
        anchor = rng.integers(0, PEOPLE, 8)
        person = np.concatenate([anchor, anchor, (anchor + 1) % PEOPLE])
    else:
        person = np.repeat(np.arange(PEOPLE), B // PEOPLE)
    colour = rng.integers(0, 255, (PEOPLE, 1, 1, 3))
    images = np.clip(colour[person] + rng.integers(-60, 60, (len(person), 12, 8, 3)), 0, 255).astype(np.uint8)
    attributes = rng.integers(-1, 2, (len(person), A)).astype(np.int8)
    probabilities = rng.random((len(person), A)).astype(np.float32)
    return {
        "image": images,
        "person": person.astype(np.int32),
        "attributes": attributes,
        "probabilities": probabilities,
    }


def objective_of(name):
    if name == "identity":
        return objectives.IdentityLoss(smoothing=0.1)
    if name == "attributes":
        weight = np.linspace(0.5, 2, A, dtype=np.float32)
        return objectives.AttributeLoss(positive_weight=weight, negative_weight=weight[::-1], reduction="sum")
    kind, miner = name.split()[:2]
    attribute_miner = "offline" if miner == "offline" else "batch_all"
    return test_objectives.reid_loss(**REID | {"kind": kind, "miner": miner, "attribute_miner": attribute_miner})


def trained(name, wrapper, devices, steps=3, net=Net, start=None):
    variables = initialize.variables(net(), height=12, width=8, seed=0)
    groups = {"scratch": {"kind": "sgd", "rate": 0.01}}
    if "trunk" in variables["params"]:
        groups["trunk"] = groups["scratch"]
    weights = None
    if name.startswith("acrn"):
        groups["attribute_weights"] = {"kind": "sgd", "rate": 0.1}
        weights = np.ones(A)
    tx = optimizer.make(groups, GROUPS)
    kept = memory.empty(40, dimensions=8, attributes=A) if name.endswith("memory") else None
    runner = step.WRAPPERS[wrapper](
        functools.partial(
            step.train_step,
            apply=net("data" if wrapper == "pmap" else None).apply,
            objective=objective_of(name),
            tx=tx,
            mean=np.full(3, 0.5, np.float32),
            deviation=np.full(3, 0.25, np.float32),
            seed=0,
        ),
        jax.devices()[:devices],
    )
    first = state.create(variables, tx, attribute_weights=weights, memory=kept) if start is None else start
    found, scalars = runner.place(first), None
    for _ in range(steps):
        found, scalars = runner.run(found, runner.put(batch(name)))
    return jax.device_get(found), jax.device_get(scalars)


def same(a, b, tolerance=1e-5):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), a, b)


reference = functools.cache(lambda name: trained(name, "jit", 1))


@pytest.mark.parametrize("name, wrapper, devices", [(name, *case) for name in KINDS for case in KINDS[name]])
def test_devices_and_wrappers_agree(name, wrapper, devices):
    wanted, losses = reference(name)
    found, scalars = trained(name, wrapper, devices)
    same(losses, scalars)
    same((wanted.params, wanted.batch_stats, wanted.scales), (found.params, found.batch_stats, found.scales))
    same(wanted.opt, found.opt)  # momentum: a weighted sum of the three gradients
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(wanted.opt) if leaf.dtype == np.float32) > 1e-3


def test_steps_with_a_memory_go_on_from_a_checkpoint_bit_for_bit(tmp_path):
    name = "acrn batch_hard memory"
    straight, after = reference(name)[0], trained(name, "jit", 1, steps=2)[0]
    assert straight.scales["memory"]["count"] == 3 * B
    saved = checkpoint.Checkpoints(tmp_path)
    saved.save(jax.tree.map(jnp.asarray, after))
    found = saved.restore(jax.tree.map(jnp.zeros_like, after))
    saved.close()
    jax.tree.map(np.testing.assert_array_equal, straight, trained(name, "jit", 1, steps=1, start=found)[0])


class Trunk(nn.Module):
    """In place of MVA's, which takes long to compile."""

    axis_name: str | None

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Conv(8, (3, 3), strides=2, name="conv")(images)
        return x, nn.relu(nn.BatchNorm(not train, momentum=0.9, axis_name=self.axis_name, name="norm")(x))


@pytest.fixture
def dropping(monkeypatch):
    """Axis name -> an MVA that drops half of what its last layer sees."""
    monkeypatch.setattr(mva, "GoogLeNet", lambda width, kernel, axis, *_, name: Trunk(axis, name=name))
    return lambda axis_name=None: mva.MVA(A, width=0.03, views=(), dropout=0.5, axis_name=axis_name)


def test_dropout_is_one_on_all_devices(dropping):
    wanted, losses = trained("attributes", "jit", 1, 2, dropping)
    for wrapper, devices in FAR:
        found, scalars = trained("attributes", wrapper, devices, 2, dropping)
        same(losses, scalars, 1e-4)
        same((wanted.params, wanted.batch_stats), (found.params, found.batch_stats), 1e-4)


def test_what_a_row_draws_follows_from_seed_step_and_place():
    def apply(variables, images, **_):  # brings the keys out as moving statistics
        logits = jnp.zeros((len(images), A)) * variables["params"]["trunk"]
        return Outputs(attribute_logits=logits), {"batch_stats": jax.random.key_data(variables["random"]["rows"])}

    tx = optimizer.make({"trunk": {"kind": "sgd", "rate": 0.01}}, GROUPS)
    run = functools.partial(
        step.train_step, apply=apply, objective=objective_of("attributes"), tx=tx, mean=np.zeros(3),
        deviation=np.ones(3), seed=7,
    )  # fmt: skip
    start = state.create({"params": {"trunk": np.ones(())}}, tx).replace(step=jnp.int32(5))
    rows = jax.jit(run)(start, batch("attributes"))[0].batch_stats
    keys = [jax.random.fold_in(jax.random.fold_in(jax.random.key(7), 5), row) for row in range(B)]
    np.testing.assert_array_equal(rows, [jax.random.key_data(key) for key in keys])
    found = mva.dropout(np.ones((B, 50), np.float32), jnp.stack(keys), 0.25)
    each = [np.where(jax.random.bernoulli(key, 0.75, (50,)), np.float32(1 / 0.75), 0) for key in keys]
    np.testing.assert_allclose(found, each)
    assert 0.15 < np.mean(found == 0) < 0.35


def test_steps_repeat_bit_for_bit():
    first, second = reference("acrn batch_hard")[0], trained("acrn batch_hard", "jit", 1)[0]
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_a_step_compiles_once():
    traced = []

    def counted(found, data):
        traced.append(data)
        return found.replace(step=found.step + 1), {"loss": found.step}

    runner = step.jitted(counted, jax.devices())
    tx = optimizer.make({"scratch": {"kind": "adam", "rate": 0.1}}, GROUPS)
    found = runner.place(state.create(initialize.variables(Net(), height=12, width=8, seed=0), tx))
    for _ in range(3):
        found, _ = runner.run(found, runner.put({"person": np.arange(8)}))
    assert len(traced) == 1


def test_a_step_changes_the_net_the_weights_and_the_scales():
    found, scalars = reference("acrn batch_hard")
    fresh = initialize.variables(Net(), height=12, width=8, seed=0)
    assert not np.array_equal(found.params["net"]["stem"]["kernel"], fresh["params"]["stem"]["kernel"])
    assert not np.array_equal(found.batch_stats["stem_norm"]["mean"], fresh["batch_stats"]["stem_norm"]["mean"])
    assert not np.array_equal(found.params["attribute_weights"]["raw"], np.ones(A))
    assert found.scales["feature"] != 1 and found.scales["attribute"] != 1
    assert found.step == 3 and scalars["gradient_norm"] > 0


def test_gradient_norm_by_another_way():
    _, scalars = trained("identity", "jit", 1, steps=1)
    variables, data = initialize.variables(Net(), height=12, width=8, seed=0), batch("identity")
    images = step.normalise(data["image"], mean=np.full(3, 0.5), deviation=np.full(3, 0.25))

    def loss(params):
        moving = {"params": params, "batch_stats": variables["batch_stats"]}
        out, _ = Net().apply(moving, images, train=True, mutable=["batch_stats"])
        return objective_of("identity")({}, out, data, {})[0]

    squares = [float((g**2).sum()) for g in jax.tree.leaves(jax.grad(loss)(variables["params"]))]
    np.testing.assert_allclose(scalars["gradient_norm"], sum(squares) ** 0.5, rtol=1e-4)


def test_normalise_by_hand():
    x = np.array([0, 51, 255], np.uint8).reshape(1, 1, 1, 3)
    found = step.normalise(x, mean=np.array([0.0, 0.2, 0.5]), deviation=np.array([1.0, 0.5, 0.25]))
    np.testing.assert_allclose(np.ravel(found), [0.0, 0.0, 2.0], atol=1e-6)
