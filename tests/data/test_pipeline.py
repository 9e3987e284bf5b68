import functools
import itertools

import numpy as np
import pytest

from acrn_jax.data import pipeline, sampler, source, transforms

HEIGHT, WIDTH = 20, 10
EVERYTHING = transforms.Augment(erase=0.5, brightness=0.2, contrast=0.2, saturation=0.2)


def identity_plan(split):
    """Epoch -> five batches of 2 people x 2 images."""
    plan = functools.partial(sampler.identity_plan, split.person_id, p=2, k=2, seed=0)
    return lambda epoch: plan(epoch=epoch)


def train_batches(split, **options):
    plan = options.pop("plan", identity_plan(split))
    return pipeline.train_batches(split, plan, **{"height": HEIGHT, "width": WIDTH, "seed": 3} | options)


def assert_equal(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            np.testing.assert_array_equal(batch[name], other[name])


@pytest.fixture(scope="module")
def straight(train):
    """12 batches, 2.4 epochs, read by one thread."""
    columns = {"person": train.person_id - 1, "attributes": train.attributes}
    return list(train_batches(train, augment=EVERYTHING, columns=columns, steps=12, threads=1, prefetch=1))


def test_batches_hold_what_the_contract_says(train, straight):
    plan = identity_plan(train)
    assert len(straight) == 12
    for step, batch in enumerate(straight):
        rows = plan(step // 5)[step % 5]
        assert batch["image"].shape == (4, HEIGHT, WIDTH, 3) and batch["image"].dtype == np.uint8
        np.testing.assert_array_equal(batch["person"], train.person_id[rows] - 1)
        np.testing.assert_array_equal(batch["attributes"], train.attributes[rows])
        assert batch["person"].dtype == np.int32 and batch["attributes"].dtype == np.int8
    assert not np.array_equal(straight[0]["image"], straight[5]["image"])


@pytest.mark.parametrize("first_step", [0, 3, 5, 11])
@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_a_batch_depends_on_its_step_alone(train, straight, first_step, threads, cache_bytes):
    columns = {"person": train.person_id - 1, "attributes": train.attributes}
    how = {"first_step": first_step, "threads": threads, "prefetch": 2 * threads, "cache_bytes": cache_bytes}
    read = list(train_batches(train, augment=EVERYTHING, columns=columns, steps=12, **how))
    if cache_bytes:  # cut out of a rounded enlarged image: a level apart before the jitter
        for batch, other in zip(read, straight[first_step:], strict=True):
            difference = np.abs(batch.pop("image").astype(int) - other["image"])
            assert difference.max() <= 3 and difference.mean() < 0.3
        straight = [{name: batch[name] for name in columns} for batch in straight]
    assert_equal(read, straight[first_step:])


def test_cached_batches_do_not_depend_on_what_was_read_before(train):
    read = functools.partial(train_batches, train, augment=EVERYTHING, steps=12, cache_bytes=2**20)
    assert_equal(list(read())[7:], read(first_step=7))


def test_shares_make_up_the_global_batch(train, straight):
    shares = [train_batches(train, augment=EVERYTHING, steps=12, share=slice(i, i + 1)) for i in range(4)]
    for step, parts in enumerate(zip(*shares, strict=True)):
        whole = np.concatenate([part["image"] for part in parts])
        np.testing.assert_array_equal(whole, straight[step]["image"])


def test_without_augmentation_training_sees_what_evaluation_sees(train):
    plan = identity_plan(train)
    for cache_bytes in (0, 2**20):
        batch = next(train_batches(train, cache_bytes=cache_bytes))
        for row, image in zip(plan(0)[0], batch["image"], strict=True):
            np.testing.assert_array_equal(image, transforms.prepare(train.image_bytes(row), HEIGHT, WIDTH))


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
def test_crops_and_flips_are_the_drawn_ones(train, cache_bytes):
    augment = transforms.Augment(enlarge=1.5, flip=0.5)  # windows of 20 x 10 in 30 x 15
    flips = []
    for step, batch in enumerate(train_batches(train, augment=augment, steps=5, cache_bytes=cache_bytes)):
        drawn = transforms.draw(augment, 4, HEIGHT, WIDTH, seed=3, step=step)
        flips += drawn["flip"].tolist()
        for i, row in enumerate(identity_plan(train)(0)[step]):
            top, left = drawn["top"][i], drawn["left"][i]
            wanted = transforms.resize(transforms.decode(train.image_bytes(row)), 30, 15)[top:, left:][:20, :10]
            wanted = wanted[:, ::-1] if drawn["flip"][i] else wanted
            assert np.abs(batch["image"][i].astype(int) - wanted).max() <= 1
    assert 0 < sum(flips) < len(flips)


@pytest.mark.parametrize("cache_bytes", [0, 2**20])
@pytest.mark.parametrize("enlarge", [1.0, 1.5])
def test_the_border_is_black_and_the_rest_the_drawn_window(train, cache_bytes, enlarge):
    plan, pad = identity_plan(train), 4
    augment = transforms.Augment(enlarge=enlarge, flip=0.5, pad=pad)
    whole, borders = augment.enlarged(HEIGHT, WIDTH), 0
    for step, batch in enumerate(train_batches(train, augment=augment, steps=10, cache_bytes=cache_bytes)):
        drawn = transforms.draw(augment, 4, HEIGHT, WIDTH, seed=3, step=step)
        for i, row in enumerate(plan(step // 5)[step % 5]):
            image = transforms.prepare(train.image_bytes(row), *whole).astype(int)
            canvas = np.pad(image + 1, ((pad, pad), (pad, pad), (0, 0)))  # 0 is the border alone
            window = canvas[drawn["top"][i] : drawn["top"][i] + HEIGHT, drawn["left"][i] : drawn["left"][i] + WIDTH]
            window = window[:, ::-1] if drawn["flip"][i] else window
            assert not batch["image"][i][window[..., 0] == 0].any()
            difference = np.abs(batch["image"][i] - (window - 1))[window[..., 0] > 0]
            # Without the cache the part alone is resized: ties of its two roundings fall differently.
            assert not difference.any() if cache_bytes else (difference.max() <= 2 and difference.mean() < 0.2)
            borders += (window == 0).any()
    assert borders > 20


def test_training_goes_on_over_epochs_without_end(train):
    assert len(list(itertools.islice(train_batches(train), 23))) == 23
    assert list(train_batches(train, first_step=5, steps=5)) == []
    assert next(train_batches(train, first_step=1_000_000))["image"].shape == (4, HEIGHT, WIDTH, 3)


def test_small_cache_limit_means_no_cache(train, straight):
    columns = {"person": train.person_id - 1, "attributes": train.attributes}
    size = 20 * 22 * 11 * 3  # enlarged: 22.5 rounds to even
    read = functools.partial(train_batches, train, augment=EVERYTHING, columns=columns, steps=3)
    assert_equal(read(cache_bytes=size - 1), straight[:3])
    assert any(
        not np.array_equal(a["image"], b["image"]) for a, b in zip(read(cache_bytes=size), straight, strict=False)
    )


@pytest.mark.parametrize("batch", [8, 20, 32])
def test_evaluation_is_in_order_and_padded(train, batch):
    batches = list(
        pipeline.eval_batches(train, batch=batch, height=HEIGHT, width=WIDTH, columns={"person_id": train.person_id})
    )
    assert all(b["image"].shape == (batch, HEIGHT, WIDTH, 3) and b["valid"].shape == (batch,) for b in batches)
    valid = np.concatenate([b["valid"] for b in batches])
    assert valid.dtype == bool and valid.sum() == 20 and valid[:20].all()
    np.testing.assert_array_equal(np.concatenate([b["person_id"] for b in batches])[valid], train.person_id)
    images = np.concatenate([b["image"] for b in batches])[valid]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(image, transforms.prepare(train.image_bytes(i), HEIGHT, WIDTH))


def test_column_of_another_split_is_refused(train):
    with pytest.raises(ValueError, match=r"'person' has 7 rows, tiny/plain/train has 20"):
        train_batches(train, columns={"person": np.zeros(7)})
    with pytest.raises(ValueError, match=r"'person' has 7 rows"):
        pipeline.eval_batches(train, batch=4, height=HEIGHT, width=WIDTH, columns={"person": np.zeros(7)})


def test_broken_image_is_named(data_dir):
    broken = source.open_split(data_dir, "tiny", "plain", "broken")
    for batches in (
        train_batches(broken, plan=lambda epoch: np.zeros((1, 2), int), augment=EVERYTHING),
        pipeline.eval_batches(broken, batch=2, height=HEIGHT, width=WIDTH),
    ):
        with pytest.raises(ValueError, match=r"'tiny/plain/bad\.jpg'.*cannot be decoded"):
            next(batches)


def test_waiting_is_measured():
    slept = iter([{"a": 1}, {"a": 2}])
    pairs = list(pipeline.timed(slept))
    assert [batch["a"] for batch, _ in pairs] == [1, 2] and all(seconds >= 0 for _, seconds in pairs)
