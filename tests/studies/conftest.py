"""A study on a few drawn people with nets of one convolution, which compile in a second."""

import contextlib

import flax.linen as nn
import pytest

from acrn_jax import build, runs, settings
from acrn_jax.configs import demo
from acrn_jax.data_prep.synthetic_pedestrians import synthetic_pedestrians_dataset_builder as drawn
from acrn_jax.schema import Outputs
from acrn_jax.studies import plan
from acrn_jax.studies.job import work

STUDY = {
    "reference": {},
    "gamma_2": {"loss.gamma": 2.0},
    "broken": {"reid.people": 99},
    "given": {"loss.attribute_weights": "given"},
}


def mini(part, data_dir, **changes):
    c = demo.get_config(part)
    c.data.dir, c.devices, c.log_every = str(data_dir), 1, 5
    c.data.config = "source_mini" if part == "attributes" else "target_mini"
    c.data.height, c.data.width, c.model.width, c.model.feature_dim = 32, 16, 0.0625, 16
    c.data.validation_identities = 6
    c.mva.epochs, c.mva.batch = 4, 32
    c.identity.epochs, c.identity.batch = 4, 32
    c.reid.update({"epochs": 4, "people": 8, "images": 2})
    c.evaluate.rank_lists = 1
    return settings.read(c).changed(changes)


class Net(nn.Module):
    """Stands in for ACRN and for MVA; modules bear names that optimiser groups know."""

    attributes: int
    people: int | None
    width: int

    @nn.compact
    def __call__(self, images, *, train):
        name = "trunk" if self.attributes else "stem0"
        x = nn.relu(nn.Conv(8, (5, 5), strides=4, name=name)(images)).reshape(len(images), -1)
        if self.attributes:
            return Outputs(attribute_logits=nn.Dense(self.attributes, name="attributes")(x))
        x = nn.BatchNorm(not train, momentum=0.9, name="feature_norm")(nn.Dense(self.width, name="feature")(x))
        logits = None if self.people is None else nn.Dense(self.people, name="classifier")(x)
        return Outputs(feature=x, trained_feature=x, identity_logits=logits)


@contextlib.contextmanager
def nets():
    def net(config, *, attributes=0, people=None, axis_name=None):
        return Net(attributes, people, config.tree["model"]["feature_dim"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "net", net)
        yield


@pytest.fixture(scope="session")
def small_nets():
    """For fixtures that outlive a test: within it nets are small."""
    return nets


@pytest.fixture(autouse=True)
def always():
    with nets():
        yield


@pytest.fixture(scope="session")
def config_of():
    return mini


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    sizes = {"source_mini": {"train": 60, "val": 4, "test": 20}}
    sizes["target_mini"] = {"train": 24, "test": 16, "distractors": 20, "junk": 8}
    for name, people in sizes.items():
        config = drawn.Config(name=name, target=name.startswith("target"), seed=0, sizes=people)
        drawn.Builder(config=config, data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture(scope="session")
def attribute_net(data_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "attribute_net"
    with nets():
        runs.train(mini("attributes", data_dir), folder)
    return folder


@pytest.fixture(scope="session")
def study(data_dir, attribute_net, tmp_path_factory):
    """(workdir, jobs, sentence of the arm that fails) of STUDY, worked through in this process."""
    workdir = tmp_path_factory.mktemp("study")
    jobs, sentence = plan.jobs(mini("acrn", data_dir), STUDY, workdir / "mini"), None
    for job in jobs:
        try:
            with nets():
                assert work(job, attributes=attribute_net, shared=workdir / "shared")
        except ValueError as error:
            sentence = str(error)
    return workdir, jobs, sentence
