"""Runs that were never trained: narrow nets with every value drawn, so that no layer does nothing."""

import jax
import numpy as np
import optax
import pytest

from acrn_jax import build, files, settings
from acrn_jax.configs import common
from acrn_jax.models import initialize
from acrn_jax.runs import workdir
from acrn_jax.train import checkpoint
from acrn_jax.train import state as states

NAMES = ["hat", "male", "jeans", "skirt", "logo"]


def config_of(phase, data_dir, **changes):
    c = common.get_config()
    c.phases, c.model.name = (phase,), "mva" if phase == "mva" else "acrn"
    c.data.dir, c.data.name = str(data_dir), "nowhere"
    c.model.width, c.model.feature_dim, c.model.feature_norm = 0.05, 8, "batch_norm"
    c.data.height, c.data.width = (33, 18) if phase == "mva" else (40, 16)
    c.update_from_flattened_dict(changes)
    return settings.read(c)


def drawn_variables(module, height, width, seed=0):
    """Variables of a net, none of them at the value that makes its layer trivial."""
    fresh = initialize.variables(module, height=height, width=width, seed=seed)

    def draw(path, leaf):
        rng = np.random.default_rng((seed, len(path), leaf.size, ord(path[-1].key[0])))
        spread = {"scale": (0.5, 1.5), "var": (0.5, 2.0), "bias": (-0.3, 0.3), "mean": (-0.3, 0.3)}
        spread["power"] = (1.5, 2.5)
        low, high = spread.get(path[-1].key, (0, 0))
        return leaf if low == high else rng.uniform(low, high, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, fresh)


def write_run(folder, config, *, scales=(1.7, 0.2)):
    """A workdir at step 0 as training leaves it."""
    phase = config.last_phase
    workdir.store_config(folder, config)
    module = build.net(config, attributes=len(NAMES))
    variables = drawn_variables(module, config.data.height, config.data.width)
    weights = None
    if phase == "mva":
        files.write_json(folder / "attributes.json", {"attribute_names": NAMES, "dataset": "none", "fingerprint": "0"})
    elif config.loss.kind == "acrn":
        weights = np.array([1.5, 0.3, -0.7, 1.0, 0.0], np.float32)
    state = states.create(variables, optax.identity(), attribute_weights=weights)
    state = state.replace(scales=dict(zip(("feature", "attribute"), map(np.float32, scales), strict=True)))
    saved = checkpoint.Checkpoints(folder / phase / "checkpoints")
    saved.save(jax.tree.map(jax.numpy.asarray, state))
    saved.close()
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """(workdir of an ACRN run, workdir of its attribute net)."""
    base = tmp_path_factory.mktemp("runs")
    net = write_run(base / "net", config_of("mva", base))
    return write_run(base / "acrn", config_of("reid", base, **{"attributes.from": str(net)})), net
