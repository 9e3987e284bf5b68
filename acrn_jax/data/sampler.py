"""Epoch plans: which records make up the batches of one epoch, as pure functions of (seed, epoch).

A plan is int64 [batches, rows]; row r of batch b is a record's place in the split. Every epoch of a plan has the same
number of batches, and each epoch starts anew, so a run resumes at any step without a history. One epoch is N images in
every plan: N anchors (triplets), or N rows rounded up to whole batches (of each part, where batches are of one).
"""

import math
from collections.abc import Callable, Sequence

import numpy as np


def shuffle_plan(n: int, *, batch: int, seed: int, epoch: int) -> np.ndarray:
    """Each of n records once, in random order, [ceil(n / batch), batch].

    The last batch is filled up from the start of the same order: nothing is dropped and shapes stay fixed.
    """
    return _filled(_generator(seed, epoch).permutation(n), batch)


def capped_plan(person_ids: np.ndarray, *, per_person: int, batch: int, seed: int, epoch: int) -> np.ndarray:
    """At most `per_person` images of each person, in random order, int64 [ceil(M / batch), batch].

    Which ones is drawn anew each epoch; their number M is the same in each. Images of nobody (ids below 1) all count.
    The last batch is filled up from the start of the same order.
    """
    order = _generator(seed, epoch).permutation(len(person_ids))
    people = np.asarray(person_ids)[order]
    _, start, count, by_person = _by_person(people)  # stable: a person's images stay in the order drawn
    turn = np.empty(len(order), np.int64)
    turn[by_person] = np.arange(len(order)) - np.repeat(start, count)  # how many of the person come before
    return _filled(order[(turn < per_person) | (people < 1)], batch)


def draws(person_ids: np.ndarray, per_person: int) -> np.ndarray:
    """How often an epoch of `capped_plan` has each image, in the mean, float64 [N]; 0 `per_person`: each once."""
    people = np.asarray(person_ids)
    _, place, count = np.unique(people, return_inverse=True, return_counts=True)
    return np.where((people < 1) | (per_person == 0), 1.0, np.minimum(1.0, per_person / count[place]))


def identity_plan(person_ids: np.ndarray, *, p: int, k: int, seed: int, epoch: int) -> np.ndarray:
    """P people x K images a batch, [ceil(N / (P K)), P K]; the K images of one person lie side by side.

    People are drawn without replacement until all had a turn, then anew, and never twice into one batch. A person's
    images likewise; a turn repeats an image only where the person has fewer than K.

    Args:
      person_ids: [N] int, any numbers.
      p: people a batch.
      k: images of each, >= 2 (one image has no positive).
      seed: of the run.
      epoch: from 0.

    Raises:
      ValueError: k < 2, or fewer than p people.

    Source: Hermans et al., "In Defense of the Triplet Loss", 2017, section 2 (the P K batch).
    """
    people, start, count, order = _by_person(person_ids)
    if k < 2:
        raise ValueError(f"{k} images a person asked for; mining needs at least 2.")
    if not 1 <= p <= len(people):
        raise ValueError(f"{p} people a batch asked for, the split has {len(people)}; ask for 1 to {len(people)}.")
    rng = _generator(seed, epoch)
    turns = _turns(np.arange(len(people)), p, math.ceil(len(person_ids) / (p * k)), rng)  # [batches, P]
    plan = np.empty((*turns.shape, k), np.int64)
    for person in range(len(people)):
        where = np.nonzero(turns == person)
        images = order[start[person] : start[person] + count[person]]
        plan[where] = _turns(images, k, len(where[0]), rng)
    return plan.reshape(len(turns), p * k)


def triplet_plan(person_ids: np.ndarray, camera_ids: np.ndarray, *, batch: int, seed: int, epoch: int) -> np.ndarray:
    """Offline triplets, [ceil(anchors / batch), 3 batch], laid out as anchors, positives, negatives.

    Each image is the anchor once. Its positive is another image of the person, from another camera where there is
    one (unknown cameras, -1, count as one camera); its negative any image of any other person; both drawn uniformly.
    Images of people with a single image have no positive: they are no anchors, but serve as negatives. The last batch
    is filled up with the epoch's first triplets.

    Args:
      person_ids: [N] int.
      camera_ids: [N] int.
      batch: triplets a batch.
      seed: of the run.
      epoch: from 0.

    Raises:
      ValueError: a single person, or nobody with two images.
    """
    people, start, count, order = _by_person(person_ids, camera_ids)
    if len(people) < 2 or count.max() < 2:
        raise ValueError(
            f"Triplets need two people and a person with two images; the split has {len(people)} people with "
            f"{count.max()} images at most."
        )
    rng = _generator(seed, epoch)
    n = len(order)
    # From here on an image is its place in `order`: people, and cameras within a person, are runs there.
    first, images = np.repeat(start, count), np.repeat(count, count)  # [N] the person's run: start, length
    new_camera = np.diff(np.asarray(camera_ids)[order], prepend=0) != 0
    runs = np.flatnonzero(new_camera | (first == np.arange(n)))
    lengths = np.diff(runs, append=n)
    camera_first, camera_images = np.repeat(runs, lengths), np.repeat(lengths, lengths)  # [N]
    anchor = rng.permutation(np.flatnonzero(images > 1))  # [anchors]
    first, images = first[anchor], images[anchor]
    elsewhere = images > camera_images[anchor]
    # A positive skips the anchor's own camera, or else the anchor alone; a negative skips the anchor's person.
    skip = np.where(elsewhere, camera_first[anchor], anchor)
    width = np.where(elsewhere, camera_images[anchor], 1)
    positive = first + rng.integers(images - width)
    positive += np.where(positive >= skip, width, 0)
    negative = rng.integers(n - images)
    negative += np.where(negative >= first, images, 0)
    return np.concatenate([_filled(order[rows], batch) for rows in (anchor, positive, negative)], axis=1)


def one_set_plan(
    parts: Sequence[tuple[np.ndarray, Callable[[int], np.ndarray]]], *, seed: int, epoch: int
) -> np.ndarray:
    """Batches that each show one part of the records alone, in random order, [batches, rows].

    An epoch has the batches that each part's own plan has, so that parts have turns in proportion to their images.

    Args:
      parts: (places of its records in the split [M], its plan: epoch -> places among these) of each.
      seed: of the run.
      epoch: from 0.
    """
    batches = np.concatenate([records[plan(epoch)] for records, plan in parts])
    return batches[np.random.default_rng((seed, epoch, 5)).permutation(len(batches))]


def seed_of_part(seed: int, part: int) -> int:
    """The seed of one part's own plan, so that parts of one size are not drawn alike."""
    return int(np.random.SeedSequence((seed, part, 6)).generate_state(1)[0])


def validation_identities(person_ids: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """Mask of the records of `count` people held out of training for model selection, [N] bool.

    Raises:
      ValueError: not between 1 and one less than the number of people.
    """
    people = np.unique(person_ids)
    if not 1 <= count < len(people):
        raise ValueError(
            f"{count} validation people asked for, the split has {len(people)}; ask for 1 to {len(people) - 1}."
        )
    return np.isin(person_ids, np.random.default_rng((seed, 0, 2)).choice(people, count, replace=False))


def half_of_people(person_ids: np.ndarray, which: str) -> np.ndarray:
    """Mask of the records of one half of the people, "first_half" or "second_half", [N] bool.

    Images of nobody (ids below 1) are in neither.
    The halves are drawn by a seed of their own: whatever is trained on one has nobody in common with the other.
    """
    people = np.unique(person_ids[person_ids > 0])
    first = np.random.default_rng((0, 0, 4)).permutation(people)[: math.ceil(len(people) / 2)]
    chosen = first if which == "first_half" else np.setdiff1d(people, first)
    return np.isin(person_ids, chosen)


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, 1))  # the last number names the use: augmentation has its own


def _filled(order: np.ndarray, batch: int) -> np.ndarray:
    """Rows cut into batches, [M] -> [ceil(M / batch), batch], the last one filled up from the start."""
    return np.resize(order.astype(np.int64), (math.ceil(len(order) / batch), batch))


def _by_person(person_ids: np.ndarray, *then_by: np.ndarray) -> tuple[np.ndarray, ...]:
    """People [people], start and length of each one's run [people], and records sorted into these runs [N]."""
    order = np.lexsort((*then_by, person_ids))
    return *np.unique(np.asarray(person_ids)[order], return_index=True, return_counts=True), order


def _turns(items: np.ndarray, size: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """Items drawn without replacement until all had a turn, then anew, [count, size].

    No row holds an item twice, unless there are fewer items than `size`.
    """
    drawn = rng.permutation(items)
    while len(drawn) < count * size:
        anew = rng.permutation(items)
        if len(items) >= size:  # who is in the row that the last round left open comes later in this one
            unfinished = drawn[len(drawn) - len(drawn) % size :]
            first = np.flatnonzero(~np.isin(anew, unfinished))[: size - len(unfinished)]
            anew = np.concatenate([anew[first], np.delete(anew, first)])
        drawn = np.concatenate([drawn, anew])
    return drawn[: count * size].reshape(count, size)
