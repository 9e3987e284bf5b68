"""The memory of earlier batches: what it holds, and the losses over it by loops in float64."""

import collections

import jax
import numpy as np
import pytest

from acrn_jax.losses import memory
from acrn_jax.schema import Outputs
from tests.losses.test_objectives import SETTINGS, START, data, reid_loss

SIZE = 15
CLASSIC = SETTINGS | {"kind": "classic", "distance": "euclidean", "margin": 0.3}
ACRN = SETTINGS | {"attribute_weights": "uniform"}  # no L_att, which sees the batch alone


def batches(count):
    """Batches of 6 images of 3 people, of 5 in all: (features, attributes, persons)."""
    for seed in range(count):
        f, p, person, _ = data(seed)
        yield f, p, ((person + seed) % 5).astype(np.int32)


def start(attributes=0):
    return START | {"memory": memory.empty(SIZE, dimensions=3, attributes=attributes)}


def test_the_newest_images_are_kept_and_the_oldest_written_over():
    kept, wanted = memory.empty(SIZE, dimensions=3, attributes=4), collections.deque(maxlen=SIZE)
    for step, (f, p, person) in enumerate(batches(7)):
        kept = memory.stored(kept, f, person, p)
        wanted.extend(zip(f.tolist(), p.tolist(), person.tolist(), strict=True))
        columns = (kept[name].tolist() for name in ("feature", "attributes", "person"))
        rows = [row for row in zip(*columns, strict=True) if row[2] != memory.EMPTY]
        assert sorted(rows) == sorted(wanted) and len(rows) == min(6 * (step + 1), SIZE)
        assert kept["count"] == 6 * (step + 1)


def by_loops(f, p, person, before, *, kind, margin):
    """Batch-hard over the batch and (f, p, person) of `before`: the farthest of the same person, the nearest other."""
    rows = [*zip(f, p, person, strict=True), *before]

    def distance(a, b):
        square = ((a[0].astype(float) - b[0]) ** 2).sum()
        if kind == "classic":
            return np.sqrt(square)
        return square + 0.5 * ((a[1].astype(float) - b[1]) ** 2).sum()

    total = 0
    for i in range(len(f)):
        positive = max(distance(rows[i], r) for j, r in enumerate(rows) if r[2] == person[i] and j != i)
        negative = min(distance(rows[i], r) for r in rows if r[2] != person[i])
        total += max(0, margin + positive - negative)
    return total / len(f)


@pytest.mark.parametrize("kind, after", [("classic", 0), ("classic", 2), ("acrn", 0)])
def test_losses_over_batch_and_memory_by_loops(kind, after):
    settings = CLASSIC if kind == "classic" else ACRN
    objective = reid_loss(**settings, memory_after=after)
    scales, before, differing = start(4 if kind == "acrn" else 0), collections.deque(maxlen=SIZE), 0
    for step, (f, p, person) in enumerate(batches(6)):
        batch = {"person": person, "probabilities": p}
        loss = lambda f, batch=batch, scales=scales: objective({}, Outputs(f, f), batch, scales)
        (found, (_, moved)), gradient = jax.value_and_grad(loss, has_aux=True)(f)
        seen = before if step >= after else ()
        oracle = lambda f, seen=seen, p=p, person=person: by_loops(
            f, p, person, seen, kind=kind, margin=settings["margin"]
        )
        np.testing.assert_allclose(found, oracle(f), rtol=1e-5)
        differing += not np.isclose(oracle(f), oracle(f, seen=()))
        for place in np.ndindex(f.shape):  # no gradient through what is remembered
            ahead, back = f.astype(float), f.astype(float)
            ahead[place] += 1e-6
            back[place] -= 1e-6
            np.testing.assert_allclose(gradient[place], (oracle(ahead) - oracle(back)) / 2e-6, rtol=1e-3, atol=1e-4)
        scales, before = moved, collections.deque([*before, *zip(f, p, person, strict=True)], SIZE)
    assert differing >= 3 and moved["feature"].shape == ()


def test_scales_are_of_the_batch_and_an_unseen_memory_changes_no_bit():
    settings = CLASSIC | {"distance_scale": "unit_mean"}
    scales, plain = start(), START
    for f, _, person in batches(4):
        found, plain_found = (
            reid_loss(**settings, memory_after=9)({}, Outputs(f, f), {"person": person}, s) for s in (scales, plain)
        )
        (loss, (_, scales)), (wanted, (_, plain)) = found, plain_found
        assert loss == wanted and scales["feature"] == plain["feature"]
