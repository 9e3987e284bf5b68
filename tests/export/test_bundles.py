"""What of a run goes into a bundle, and which runs are sent away."""

import pathlib
import shutil

import numpy as np
import pytest

from acrn_jax import runs
from acrn_jax.runs import bundles, workdir
from tests.export.conftest import config_of


def describe(folder, outputs=(), **changes):
    """Of the run, as if it had a config with these changes."""
    config = runs.read_config(folder).changed(changes)
    kind = runs.AttributeRun if config.of_attributes else runs.AcrnRun if config.of_acrn else runs.ReidCnnRun
    return bundles.describe(kind(folder, config), outputs)


def test_each_kind_of_run_gives_what_it_has(run):
    model, about = describe(run[0])
    assert model.outputs == ("feature", "attributes", "embedding") and model.reid and model.attributes
    assert np.isclose(model.feature_factor, 1.7**-0.5)
    np.testing.assert_allclose(
        model.attribute_factors, np.sqrt(0.5 / 0.2) * np.array([1.5, 0.3, -0.7, 1, 0]), rtol=1e-5
    )
    assert (model.reid.height, model.attributes.height) == (40, 33) and about["refused"] == {}

    model, about = describe(run[0], ["attributes"])
    assert model.outputs == ("attributes",) and model.reid is None and list(about["nets"]) == ["attributes"]

    model, about = describe(run[1])
    assert model.outputs == ("attributes",) and set(about["refused"]) == {"feature", "embedding"}

    model, about = describe(run[0], **{"loss.kind": "classic"})
    assert model.outputs == ("feature",) and model.attributes is None
    assert about["refused"]["attributes"] == "the run has no attribute net" and "weights" not in about


def test_z_is_refused_where_it_would_not_be_the_distance(run):
    changes, reason = {"loss.distance": "euclidean"}, "the run's distance is euclidean, and only squared"
    model, about = describe(run[0], **changes)
    assert model.outputs == ("feature", "attributes") and reason in about["refused"]["embedding"]
    with pytest.raises(ValueError, match=f"cannot give --output=embedding: {reason}"):
        describe(run[0], ["feature", "embedding"], **changes)


def test_runs_that_cannot_go_out(run, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        bundles.export(tmp_path, tmp_path / "out", formats=["npz"])
    with pytest.raises(ValueError, match="no output 'z'; known: feature, attributes, embedding"):
        describe(run[0], ["z"])
    with pytest.raises(ValueError, match="cannot give --output=feature: the run has no re-id net"):
        describe(run[1], ["feature"])
    bare = tmp_path / "bare"
    workdir.store_config(bare, config_of("reid", tmp_path, **{"loss.kind": "classic"}))
    with pytest.raises(FileNotFoundError, match="no readable checkpoint"):
        describe(bare)
    with pytest.raises(ValueError, match="at step 3 of 70000 of phase mva"):
        bundles._check_finished(runs.load(run[1]), np.zeros(100), 3)
    (pathlib.Path(shutil.copytree(run[1], tmp_path / "half")) / "attributes.json").unlink()
    with pytest.raises(ValueError, match="half is not finished: it is at step 0; run the command again"):
        describe(tmp_path / "half")


def test_drawn_images_differ_and_stay_the_same():
    images = bundles.draw(40, 18)
    assert images.shape == (8, 40, 18, 3) and images.dtype == np.uint8
    assert len({image.tobytes() for image in images}) == 8
    np.testing.assert_array_equal(images, bundles.draw(40, 18))
