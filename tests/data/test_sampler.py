import collections
import math

import numpy as np
import pytest

from acrn_jax.data import sampler


def split_of(counts, *, cameras=3, seed=0):
    """Shuffled person and camera ids; counts[i] images of the i-th person, whose ids have gaps."""
    rng = np.random.default_rng(seed)
    people = rng.permutation(np.repeat(7 * np.arange(len(counts)) + 3, counts))
    return people, rng.integers(1, cameras + 1, len(people))


def assert_rounds(drawn, items):
    """Without replacement until all had a turn, then anew: every full round is a permutation."""
    for start in range(0, len(drawn), len(items)):
        once = drawn[start : start + len(items)]
        assert len(set(once)) == len(once) and set(once) <= set(items)


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (8, 4), (3, 8), (1, 1)])
def test_shuffle_has_each_once_and_fills_up_from_the_start(n, batch):
    plan = sampler.shuffle_plan(n, batch=batch, seed=0, epoch=0)
    assert plan.shape == (math.ceil(n / batch), batch) and plan.dtype == np.int64
    order = plan.ravel().tolist()
    assert sorted(order[:n]) == list(range(n))
    assert order[n:] == (order[:n] * batch)[: len(order) - n]


@pytest.mark.parametrize("cap", [1, 3, 100])
def test_capped_plan_draws_so_many_images_of_each_person(cap):
    person_ids, _ = split_of([1, 2, 3, 4, 5, 40])
    person_ids[person_ids == 10] = 0  # nobody: two images
    person_ids[person_ids == 17] = -1  # likewise: three
    wanted = {3: min(1, cap), 0: 2, -1: 3, 24: min(4, cap), 31: min(5, cap), 38: min(40, cap)}
    total, drawn = sum(wanted.values()), collections.Counter()
    for epoch in range(400):
        plan = sampler.capped_plan(person_ids, per_person=cap, batch=4, seed=0, epoch=epoch)
        assert plan.shape == (math.ceil(total / 4), 4) and plan.dtype == np.int64
        order = plan.ravel().tolist()
        assert len(set(order[:total])) == total and order[total:] == order[: len(order) - total]
        assert collections.Counter(person_ids[order[:total]].tolist()) == wanted
        drawn.update(order[:total])
    share = np.array([drawn[i] for i in range(len(person_ids))]) / 400
    expected = [wanted[p] / np.sum(person_ids == p) for p in person_ids.tolist()]
    np.testing.assert_allclose(share, expected, atol=0.13)  # each image as often as another of the same person
    np.testing.assert_allclose(sampler.draws(person_ids, cap), expected)
    np.testing.assert_array_equal(sampler.draws(person_ids, 0), 1)
    if cap == 100:  # all images, in the order of the plan without a cap
        np.testing.assert_array_equal(plan, sampler.shuffle_plan(len(person_ids), batch=4, seed=0, epoch=399))


def test_capped_plan_mixes_people():
    person_ids = np.repeat(np.arange(1, 9), 10)
    plan = sampler.capped_plan(person_ids, per_person=5, batch=8, seed=0, epoch=0)
    assert np.mean(np.diff(person_ids[plan.ravel()]) == 0) < 0.4  # one after the other would give 0.8


SPLITS = {
    "even": [4] * 10,
    "uneven": [1, 2, 3, 5, 8, 13, 4, 4, 1, 2, 9],
    "just P people": [5, 6, 7, 2],
    "one more than P": [3, 3, 3, 3, 12],
    "two images each": [2] * 31,
    "many": list(np.random.default_rng(1).integers(1, 30, 60)),
}


@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("counts", SPLITS.values(), ids=SPLITS.keys())
def test_identity_plan_is_method_section_5(counts, k):
    person_ids, _ = split_of(counts)
    p = 4
    for epoch in range(3):
        plan = sampler.identity_plan(person_ids, p=p, k=k, seed=5, epoch=epoch)
        assert plan.shape == (math.ceil(len(person_ids) / (p * k)), p * k) and plan.dtype == np.int64
        turns = plan.reshape(len(plan), p, k)
        who = person_ids[turns]
        assert (who == who[..., :1]).all()  # a person's images lie side by side
        assert all(len(set(batch)) == p for batch in who[..., 0])  # nobody twice in a batch
        assert_rounds(who[..., 0].ravel(), np.unique(person_ids))
        used = collections.defaultdict(list)
        for turn in turns.reshape(-1, k):
            person = person_ids[turn[0]]
            if np.sum(person_ids == person) >= k:
                assert len(set(turn)) == k
            used[person] += turn.tolist()
        for person, images in used.items():
            assert_rounds(images, np.flatnonzero(person_ids == person))


def test_identity_plan_draws_people_and_images_evenly():
    person_ids, _ = split_of([2, 3, 4, 5, 6, 7])
    turns, images = collections.Counter(), collections.Counter()
    for epoch in range(400):
        plan = sampler.identity_plan(person_ids, p=5, k=2, seed=0, epoch=epoch)
        turns.update(person_ids[plan[:, ::2]].ravel().tolist())
        images.update(plan.ravel().tolist())
    assert max(turns.values()) < 1.1 * min(turns.values()), turns  # 15 turns an epoch among 6 people
    assert len(images) == len(person_ids)


@pytest.mark.parametrize("counts", [[4, 4, 4], [2, 5, 3, 6], [1, 2, 1, 7], [1, 1, 1, 2]])
@pytest.mark.parametrize("cameras", [1, 2, 4])
def test_triplets_are_method_section_5(counts, cameras):
    person_ids, camera_ids = split_of(counts, cameras=cameras)
    n, batch = len(person_ids), 4
    anchors = [i for i in range(n) if np.sum(person_ids == person_ids[i]) > 1]
    positives, negatives = collections.defaultdict(set), collections.defaultdict(set)
    for epoch in range(300):
        plan = sampler.triplet_plan(person_ids, camera_ids, batch=batch, seed=2, epoch=epoch)
        assert plan.shape == (math.ceil(len(anchors) / batch), 3 * batch) and plan.dtype == np.int64
        a, p, q = (part.ravel() for part in np.split(plan, 3, axis=1))
        assert sorted(a[: len(anchors)]) == anchors
        triplets = list(zip(a.tolist(), p.tolist(), q.tolist(), strict=True))
        assert triplets[len(anchors) :] == (triplets[: len(anchors)] * batch)[: len(triplets) - len(anchors)]
        for anchor, positive, negative in triplets:
            positives[anchor].add(positive)
            negatives[anchor].add(negative)
    for i in anchors:
        others = {j for j in range(n) if person_ids[j] == person_ids[i] and j != i}
        elsewhere = {j for j in others if camera_ids[j] != camera_ids[i]}
        assert positives[i] == (elsewhere or others)  # all of them in 300 epochs, and no other
        assert negatives[i] == {j for j in range(n) if person_ids[j] != person_ids[i]}


def test_negatives_are_uniform_over_images():
    person_ids, camera_ids = split_of([2, 2, 12])
    anchor = np.flatnonzero(person_ids == 3)[0]
    drawn = collections.Counter()
    for epoch in range(2000):
        a, _, q = np.split(sampler.triplet_plan(person_ids, camera_ids, batch=16, seed=0, epoch=epoch), 3, axis=1)
        drawn[person_ids[q[a == anchor][0]]] += 1
    assert abs(drawn[17] / 2000 - 12 / 14) < 0.03


def test_a_batch_of_one_set_shows_no_other():
    """Against loops: which part each row is of, and which records each part's own plan draws."""
    person_ids, _ = split_of([4, 4, 4, 3, 5, 6, 9, 2])
    part = np.select([person_ids <= 17, person_ids <= 31], [0, 1], 2)  # 3, 2 and 3 people
    own = [np.flatnonzero(part == i) for i in range(3)]

    def plan_of(i):
        def plan(epoch):
            return sampler.identity_plan(person_ids[own[i]], p=2, k=2, seed=sampler.seed_of_part(3, i), epoch=epoch)

        return plan

    parts = [(own[i], plan_of(i)) for i in range(3)]
    for epoch in range(4):
        plan = sampler.one_set_plan(parts, seed=3, epoch=epoch)
        assert plan.shape == (3 + 2 + 5, 4) and plan.dtype == np.int64  # 12, 8 and 17 images, by 4
        turns, drawn = collections.Counter(), collections.defaultdict(list)
        for batch in plan.tolist():
            numbers = {int(part[row]) for row in batch}
            assert len(numbers) == 1
            turns[numbers.pop()] += 1
            drawn[int(part[batch[0]])].append(batch)
        assert turns == {0: 3, 1: 2, 2: 5}
        for i, batches in drawn.items():
            wanted = [[int(own[i][place]) for place in row] for row in plan_of(i)(epoch).tolist()]
            assert sorted(batches) == sorted(wanted)


def test_parts_have_turns_in_any_order():
    parts = [
        (np.arange(10), lambda epoch: np.arange(10)[:, None]),
        (np.arange(10, 20), lambda epoch: np.arange(10)[:, None]),
    ]
    firsts = np.mean([sampler.one_set_plan(parts, seed=0, epoch=epoch)[:10] < 10 for epoch in range(200)])
    assert 0.45 < firsts < 0.55  # of the first half of an epoch; one part after the other would give 1
    assert len({sampler.seed_of_part(seed, part) for seed in range(10) for part in range(10)}) == 100


def plans():
    def of_two(**at):
        parts = [
            (np.arange(4), lambda epoch: np.arange(4)[:, None]),
            (np.arange(4, 18), lambda epoch: np.arange(14)[:, None]),
        ]
        return sampler.one_set_plan(parts, **at)

    person_ids, camera_ids = split_of([3, 4, 5, 6])
    yield lambda **at: sampler.shuffle_plan(18, batch=4, **at)
    yield lambda **at: sampler.capped_plan(person_ids, per_person=4, batch=4, **at)
    yield lambda **at: sampler.identity_plan(person_ids, p=2, k=2, **at)
    yield lambda **at: sampler.triplet_plan(person_ids, camera_ids, batch=4, **at)
    yield of_two


@pytest.mark.parametrize("plan", list(plans()))
def test_plans_depend_on_seed_and_epoch_alone(plan):
    first = plan(seed=0, epoch=0)
    np.testing.assert_array_equal(first, plan(seed=0, epoch=0))
    assert not np.array_equal(first, plan(seed=0, epoch=1))
    assert not np.array_equal(first, plan(seed=1, epoch=0))
    assert not np.array_equal(plan(seed=0, epoch=1), plan(seed=1, epoch=0))
    assert len({len(plan(seed=0, epoch=epoch)) for epoch in range(5)}) == 1


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sampler.identity_plan(np.arange(3), p=4, k=2, seed=0, epoch=0), "4 people.*has 3"),
        (lambda: sampler.identity_plan(np.arange(3), p=2, k=1, seed=0, epoch=0), "at least 2"),
        (lambda: sampler.triplet_plan(np.arange(3), np.ones(3), batch=2, seed=0, epoch=0), "3 people with 1 images"),
        (lambda: sampler.triplet_plan(np.ones(3), np.ones(3), batch=2, seed=0, epoch=0), "1 people"),
        (lambda: sampler.validation_identities(np.arange(3), count=3, seed=0), "3 validation people.*has 3"),
    ],
)
def test_impossible_plans_are_refused(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()


def test_halves_are_whole_people_of_whom_each_is_in_one():
    person_ids, _ = split_of([3, 1, 4, 6, 2, 5, 2])
    person_ids[person_ids == 3] = 0
    person_ids[np.flatnonzero(person_ids == 24)[:2]] = -1
    first, second = (sampler.half_of_people(person_ids, f"{name}_half") for name in ("first", "second"))
    assert first.dtype == bool and not (first & second).any()
    np.testing.assert_array_equal(first | second, person_ids > 0)
    people = [set(person_ids[mask].tolist()) for mask in (first, second)]
    assert [len(half) for half in people] == [3, 3] and not people[0] & people[1]
    np.testing.assert_array_equal(sampler.half_of_people(person_ids[::-1], "first_half"), first[::-1])
    large = np.arange(1, 1001)  # drawn, not cut: numbers often follow the order of recording
    assert 400 < large[sampler.half_of_people(large, "first_half")].mean() < 600


def test_validation_identities_are_whole_people():
    person_ids, _ = split_of([3, 1, 4, 6, 2])
    held = sampler.validation_identities(person_ids, count=2, seed=0)
    assert held.dtype == bool and held.shape == person_ids.shape
    assert len(set(person_ids[held])) == 2 and not set(person_ids[held]) & set(person_ids[~held])
    chosen = {tuple(set(person_ids[sampler.validation_identities(person_ids, count=2, seed=s)])) for s in range(9)}
    assert len(chosen) > 1
    people = np.arange(1, 11)  # these stay as they are: a run that goes on holds the same people out
    assert people[sampler.validation_identities(people, count=3, seed=0)].tolist() == [2, 4, 6]
