import tracemalloc

import numpy as np
import pytest

import numbanet as nnet
from numbanet.data import DataLoader, Dataset, Normalize, channel_statistics, load_digits


def small(**changes):
    fields = {"images": np.zeros((3, 1, 2, 2), np.uint8), "labels": np.array([0, 1, 1]), "classes": ("a", "b")}
    return Dataset(**(fields | changes))


def test_digits_are_for_training_or_not() -> None:
    with pytest.raises(TypeError, match="train must be True or False, got 'test'"):
        load_digits("test")  # type: ignore[arg-type]


def test_arrays_are_read_only_and_the_given_ones_are_not():
    images = np.zeros((3, 1, 2, 2), np.uint8)
    dataset = small(images=images)
    with pytest.raises(ValueError, match="read-only"):
        dataset.images[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        dataset.labels[0] = 1
    images[0] = 1


def test_labels_become_int64():
    assert small(labels=np.array([0, 1, 1], np.uint8)).labels.dtype == np.int64


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"images": np.zeros((3, 1, 2, 2))}, TypeError, r"got float64: .*np.asarray\(images, np.float32\)"),
        ({"images": np.zeros((3, 2, 2), np.uint8)}, ValueError, r"shape \(N, C, H, W\), .*: images\[:, None\] of grey"),
        ({"images": np.zeros((3, 4), np.uint8)}, ValueError, r"images must have shape \(N, C, H, W\), got \(3, 4\)$"),
        ({"labels": np.zeros(3)}, TypeError, "labels must be integers, got float64"),
        ({"labels": np.zeros(2, int)}, ValueError, r"labels must have shape \(3,\).*got \(2,\)"),
        ({"classes": 7}, TypeError, "classes must be a sequence of names, got 7"),
        ({"labels": np.array([0, 1, 2])}, ValueError, r"labels must lie in 0\.\.1.*got 0\.\.2"),
        ({"labels": np.array([0, -1, 1])}, ValueError, "labels must not be negative, got -1"),
        ({"labels": np.full(3, -1), "classes": ()}, ValueError, "labels must not be negative, got -1"),
        ({"labels": np.array([0, 2**60, 1]), "classes": ()}, ValueError, f"below {2**20} .* named, got {2**60}"),
    ],
)
def test_refusals(changes, error, message):
    with pytest.raises(error, match=message):
        small(**changes)


def test_classes_that_nobody_names_are_numbers():
    images, labels = np.zeros((4, 1, 2, 2), np.uint8), np.array([2, 0, 2, 1])
    assert Dataset(images, labels).classes == ("0", "1", "2")
    assert Dataset(images[:0], labels[:0]).classes == ()
    of_tensors = Dataset(nnet.tensor(images), nnet.tensor(labels))
    assert of_tensors.images.dtype == np.uint8 and of_tensors.labels.tolist() == labels.tolist()
    assert len(list(DataLoader(of_tensors, 3))) == 2


def test_a_loader_of_no_data_set_says_how_to_make_one():
    with pytest.raises(TypeError, match=r"got tuple: numbanet.data.Dataset\(images, labels\) makes one of arrays"):
        DataLoader((np.zeros((3, 1, 2, 2), np.uint8), np.zeros(3, int)))


def test_subset():
    part = small().subset(np.array([2, 0]))
    assert len(part) == 2 and part.labels.tolist() == [1, 0] and part.classes == ("a", "b")


def test_channel_statistics_are_those_of_numpy():
    images = np.random.default_rng(0).integers(0, 256, (1500, 3, 4, 5), np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(std, (images / 255).std((0, 2, 3)), rtol=1e-12)


def test_float32_images_are_taken_as_they_are():
    images = np.random.default_rng(0).normal(3, 2, (7, 2, 4, 5)).astype(np.float32)
    dataset = Dataset(images, np.zeros(7, int), ("a",))
    mean, std = channel_statistics(dataset)
    np.testing.assert_allclose(mean, images.mean((0, 2, 3), np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, images.std((0, 2, 3), np.float64), rtol=1e-12)
    (batch, _), *_ = DataLoader(dataset, 7)
    np.testing.assert_array_equal(batch, images)
    (batch, _), *_ = DataLoader(dataset, 7, augment=Normalize(mean, std))
    np.testing.assert_allclose(channel_statistics(batch), [(0, 0), (1, 1)], atol=1e-5)


def test_channel_statistics_of_floats_need_little_memory():
    one = np.random.default_rng(0).standard_normal((1, 2, 32, 32)).astype(np.float32) + 1000
    images = np.broadcast_to(one, (6000, *one.shape[1:]))  # 49 MB, which float64 makes 98
    tracemalloc.start()
    try:
        mean, std = channel_statistics(images)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 26
    np.testing.assert_allclose(mean, one[0].mean((1, 2), np.float64), rtol=1e-12)
    np.testing.assert_allclose(std, one[0].std((1, 2), np.float64), rtol=1e-9)


def test_channel_statistics_refuses_float64_and_nothing():
    with pytest.raises(TypeError, match="uint8"):
        channel_statistics(np.zeros((1, 1, 2, 2)))
    with pytest.raises(ValueError, match="at least one pixel"):
        channel_statistics(np.zeros((0, 1, 2, 2), np.uint8))


def test_digits_are_split_fixedly_and_evenly():
    train, test = load_digits(), load_digits(train=False)
    assert train.images.shape == (1442, 1, 8, 8) and test.images.shape == (355, 1, 8, 8)
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert np.all(np.abs(shares - 0.2) < 0.005)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_digits_are_the_uci_values():
    train = load_digits()
    # The first image of the original file, a zero: its first two rows of 0..16.
    first = np.rint(train.images[0, 0] / 255 * 16).astype(int)
    assert train.labels[0] == 0
    assert first[:2].tolist() == [[0, 0, 5, 13, 9, 1, 0, 0], [0, 0, 13, 15, 10, 15, 5, 0]]
    assert np.unique(train.images).tolist() == [(255 * value + 8) // 16 for value in range(17)]
