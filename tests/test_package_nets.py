"""The nets in acrn_jax/nets."""

import hashlib

import numpy as np

from acrn_jax.runs import face, nets


def test_the_package_has_its_nets(monkeypatch):
    """Whole, of their size, with terms, and able to say something about a picture."""
    monkeypatch.delenv(nets.VARIABLE, raising=False)
    assert {"acrn-small", "mva-small"} <= nets.known().keys()
    for name in ("acrn-small", "mva-small"):
        folder, card = nets.known()[name], nets.card(nets.known()[name])
        content = (folder / "weights.safetensors").read_bytes()
        assert len(content) <= 4 * 2**20 and card["sha256"] == hashlib.sha256(content).hexdigest()
        assert "research" in card["training"]["terms"] and card["command"] and card["scores"]
    net, rng = face.load("acrn-small"), np.random.default_rng(0)
    picture = rng.integers(0, 256, (128, 48, 3), np.uint8)
    features = net.embed([picture, picture[::-1], picture])
    assert features.shape == (3, 512) and np.array_equal(features[0], features[2])
    assert not np.allclose(features[0], features[1], atol=1e-2)
    said = net.attributes(picture)
    assert len(said.names) == 60 and {"personalMale", "upred"} <= set(said.names)
