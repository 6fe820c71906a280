import json
import threading

import numpy as np
import pytest

from numbanet.data import Cutout, DataLoader, Dataset, Normalize, RandomHorizontalFlip, RandomShift

COUNT = 23
DATASET = Dataset(
    np.random.default_rng(0).integers(0, 256, (COUNT, 3, 6, 5), np.uint8),
    np.arange(COUNT),
    tuple(map(str, range(COUNT))),
)
AUGMENT = (RandomShift(2), RandomHorizontalFlip(), Normalize((0.5,) * 3, (0.2,) * 3), Cutout(2))


def loader(seed=0, **changes):
    options = {"batch_size": 4, "shuffle": True, "generator": np.random.default_rng(seed), "augment": AUGMENT}
    return DataLoader(DATASET, **(options | changes))


def epoch(iterable):
    return [(images.copy(), labels.copy()) for images, labels in iterable]


def assert_same(left, right):
    assert len(left) == len(right)
    for (images, labels), (other_images, other_labels) in zip(left, right, strict=True):
        np.testing.assert_array_equal(images, other_images)
        np.testing.assert_array_equal(labels, other_labels)


def data_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("numbanet-data")]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    assert data_threads() == []


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_plain_batches(workers):
    batches = epoch(loader(shuffle=False, generator=None, augment=(), workers=workers))
    assert [len(labels) for _, labels in batches] == [4, 4, 4, 4, 4, 3]
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), np.arange(COUNT))
    images = np.concatenate([images for images, _ in batches])
    assert images.dtype == np.float32
    np.testing.assert_array_equal(images, DATASET.images / np.float32(255))


@pytest.mark.parametrize("augment", [(), AUGMENT, lambda images, rng: images[:, :, ::-1, ::-1]])
def test_memory_is_channels_last(augment):
    images, labels = next(iter(loader(augment=augment)))
    assert images.dtype == np.float32 and labels.dtype == np.int64
    assert images.transpose(0, 2, 3, 1).flags.c_contiguous and images.flags.writeable


@pytest.mark.parametrize(
    "drop_last, size, batches", [(False, 4, 6), (True, 4, 5), (True, 23, 1), (False, 50, 1), (True, 50, 0)]
)
def test_length(drop_last, size, batches):
    made = loader(drop_last=drop_last, batch_size=size)
    assert len(made) == batches == len(epoch(made))


def test_shuffling_visits_every_image_once_in_another_order_each_epoch():
    made = loader()
    first, second = (np.concatenate([labels for _, labels in epoch(made)]) for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first.tolist() != second.tolist() != list(range(COUNT))


def test_the_same_seed_gives_the_same_bits_whatever_makes_the_batches():
    expected = [batch for made in [loader(workers=0)] for _ in range(2) for batch in epoch(made)]
    for workers, prefetch in ((1, 1), (1, 5), (3, 2), (8, 16)):
        made = loader(workers=workers, prefetch=prefetch)
        assert_same([batch for _ in range(2) for batch in epoch(made)], expected)
    assert not np.array_equal(epoch(loader(seed=1))[0][0], expected[0][0])


def test_each_batch_has_its_own_random_numbers():
    draws = []
    made = loader(augment=lambda images, rng: draws.append(rng.random()) or images, workers=0)
    epoch(made), epoch(made)
    assert len(set(draws)) == 12


def test_images_follow_their_labels():
    for images, labels in loader(augment=()):
        np.testing.assert_array_equal(images, DATASET.images[labels] / np.float32(255))


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
@pytest.mark.parametrize("done", [0, 1, 5, 6])
def test_resuming_yields_what_was_still_to_come(done, bits):
    made = loader(generator=np.random.Generator(bits(3)))
    epoch(made)
    iterator = iter(made)
    for _ in range(done):
        next(iterator)
    state = json.loads(json.dumps(made.state_dict()))
    rest, after = epoch(iterator), epoch(made)

    resumed = loader(generator=np.random.Generator(bits(99)), workers=3)
    resumed.load_state_dict(state)
    assert resumed.epoch == 1
    assert_same(epoch(resumed), rest)
    assert resumed.epoch == 2
    assert_same(epoch(resumed), after)


def test_resuming_between_epochs_starts_the_next_one():
    made = loader()
    epoch(made)
    state = made.state_dict()
    expected = epoch(made)
    resumed = loader(seed=9)
    resumed.load_state_dict(state)
    assert_same(epoch(resumed), expected)


def test_resuming_does_not_mind_other_users_of_the_generator():
    made = loader()
    iterator = iter(made)
    next(iterator)
    made.generator.random(7)
    state = made.state_dict()
    rest, after = epoch(iterator), epoch(made)
    resumed = loader(seed=9)
    resumed.load_state_dict(state)
    assert_same(epoch(resumed), rest)
    assert_same(epoch(resumed), after)


def test_an_epoch_left_early_is_followed_by_a_new_one():
    made = loader()
    for _ in made:
        break
    second = epoch(made)
    other = loader()
    epoch(other)
    assert_same(second, epoch(other))


def test_state_of_another_loader_is_refused():
    state = loader().state_dict()
    with pytest.raises(ValueError, match="batch_size 4, this one has 5"):
        loader(batch_size=5).load_state_dict(state)
    with pytest.raises(ValueError, match="generator"):
        loader(shuffle=False, generator=None).load_state_dict(state)


@pytest.mark.parametrize("leave", [0, 1, 3])
def test_leaving_early_leaves_no_thread(leave):
    for number, _ in enumerate(loader(workers=2)):
        assert data_threads()
        if number == leave:
            break
    assert data_threads() == []


def test_an_exception_in_the_loop_leaves_no_thread():
    with pytest.raises(KeyError, match="mine"):
        for _ in loader(workers=2):
            raise KeyError("mine")


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_exception_in_an_augmentation_reaches_the_caller(workers):
    def fails_at_label_12(images, rng):
        if (images == DATASET.images[12]).all((1, 2, 3)).any():
            raise RuntimeError("cannot do number 12")
        return images

    seen = []
    with pytest.raises(RuntimeError, match="cannot do number 12"):
        for _, labels in loader(shuffle=False, augment=fails_at_label_12, workers=workers):
            seen.extend(labels)
    assert seen == list(range(12))
    assert data_threads() == []


def test_batches_are_made_ahead_but_not_further_than_asked():
    made = threading.Semaphore(0)
    count = 0

    def counting(images, rng):
        nonlocal count
        count += 1
        made.release()
        return images

    iterator = iter(loader(batch_size=1, augment=counting, workers=1, prefetch=3))
    next(iterator)
    for _ in range(4):  # the one in use and three ahead
        assert made.acquire(timeout=10)
    assert not made.acquire(timeout=0.05)
    assert count == 4
    iterator.close()


def test_an_augmentation_that_loses_images_is_named():
    with pytest.raises(ValueError, match=r"gave shape \(3, 3, 6, 5\), expected \(4, C, H, W\)"):
        epoch(loader(augment=lambda images, rng: images[1:]))


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"batch_size": 2.5}, TypeError, "batch_size must be an integer, got 2.5"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"workers": -1}, ValueError, "workers must be at least 0, got -1"),
        ({"prefetch": 0}, ValueError, "prefetch must be at least 1, got 0"),
        ({"generator": None}, ValueError, "shuffle=True needs a generator"),
        ({"generator": 7}, TypeError, "generator must be a numpy.random.Generator, got int"),
    ],
)
def test_refusals(changes, error, message):
    with pytest.raises(error, match=message):
        loader(**changes)
    with pytest.raises(TypeError, match="dataset must be"):
        DataLoader(DATASET.images)


def test_random_augmentation_without_a_generator():
    with pytest.raises(ValueError, match=r"RandomShift.* give the DataLoader a generator"):
        epoch(loader(shuffle=False, generator=None))
