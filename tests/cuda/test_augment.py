"""Augmentations of batches on a GPU, against those of the same batches on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from numbanet.cuda.launch import download, executor, upload
from numbanet.data import Cutout, Normalize, RandomCrop, RandomHorizontalFlip, RandomShift
from tests.cuda.fake import FakeDriver
from tests.cuda.ptx.executor import HostDevice

IMAGES = np.random.default_rng(1).integers(1, 256, (17, 3, 6, 5), np.uint8)
ALL = [RandomHorizontalFlip(), RandomShift(2), RandomShift(4, "reflect"), RandomCrop((4, 7), 1), Cutout(3)]


def on_device(augmentation: Any, images: np.ndarray) -> np.ndarray:
    with executor(HostDevice()):
        moved = upload(images)
        found = augmentation(moved, np.random.default_rng(0))
        np.testing.assert_array_equal(download(moved), images)  # it stays as it is
        assert found.transpose(0, 2, 3, 1).flags.c_contiguous
        return download(found)


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_pixels_move_as_on_the_cpu(augmentation: Any, dtype: str) -> None:
    images = IMAGES.astype(dtype)
    last = images.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    expected = augmentation(images, np.random.default_rng(0))
    for given in (images, last) if dtype == "uint8" else (last,):
        found = on_device(augmentation, given)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    assert on_device(augmentation, images[:0]).shape == augmentation(images[:0], np.random.default_rng(0)).shape


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_normalize(dtype: str) -> None:
    augmentation = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
    expected = augmentation(IMAGES.astype(dtype), None)
    found = on_device(augmentation, IMAGES.astype(dtype))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(TypeError, match="int64"):
        on_device(augmentation, IMAGES.astype(np.int64))


def test_reflection_beyond_one_mirror() -> None:
    images = IMAGES[:, :, :2, :1]
    shift = RandomShift(3, "reflect")
    np.testing.assert_array_equal(on_device(shift, images), shift(images, np.random.default_rng(0)))


def test_numbers_of_images_come_in_one_copy(driver: FakeDriver) -> None:
    images = upload(IMAGES)
    for augmentation in (RandomCrop((4, 7), 1), Cutout(3)):
        augmentation(images, np.random.default_rng(1))  # brings tables of shapes, which stay
        driver.calls.clear()
        found = augmentation(images, np.random.default_rng(0))
        assert sum(call.startswith("upload") for call in driver.calls) == 1
        np.testing.assert_array_equal(download(found), augmentation(IMAGES, np.random.default_rng(0)))
