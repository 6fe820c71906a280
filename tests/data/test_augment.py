import numpy as np
import pytest

from numbanet.data import Cutout, Normalize, RandomCrop, RandomHorizontalFlip, RandomShift, augment

IMAGES = np.random.default_rng(1).integers(1, 256, (64, 3, 6, 5), np.uint8)
ALL = [RandomHorizontalFlip(), RandomShift(2), RandomShift(2, "reflect"), RandomCrop(4, 1), Cutout(3)]


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize("augmentation", [*ALL, Normalize((0.5,) * 3, (0.2,) * 3)], ids=repr)
@pytest.mark.parametrize("layout", ["planar", "channels-last"])
def test_leaves_its_input_alone_and_gives_channels_last(augmentation, layout):
    images = IMAGES if layout == "planar" else IMAGES.transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
    before = images.copy()
    result = augmentation(images, rng())
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(result, augmentation(IMAGES, rng()))
    assert not np.shares_memory(result, images)
    assert result.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_draws_only_from_the_given_generator(augmentation):
    assert not np.array_equal(augmentation(IMAGES, rng()), augmentation(IMAGES, np.random.default_rng(5)))
    with pytest.raises(ValueError, match="give the DataLoader a generator"):
        augmentation(IMAGES, None)


@pytest.mark.parametrize("augmentation", ALL, ids=repr)
def test_keeps_the_dtype_and_takes_an_empty_batch(augmentation):
    assert augmentation(IMAGES, rng()).dtype == np.uint8
    assert augmentation(IMAGES.astype(np.float32), rng()).dtype == np.float32
    assert len(augmentation(IMAGES[:0], rng())) == 0


def test_flip_mirrors_whole_images_and_about_half_of_them():
    result = RandomHorizontalFlip()(IMAGES, rng())
    mirrored = np.array([np.array_equal(new, old[:, :, ::-1]) for new, old in zip(result, IMAGES, strict=True)])
    kept = np.array([np.array_equal(new, old) for new, old in zip(result, IMAGES, strict=True)])
    assert np.all(mirrored ^ kept) and 16 < mirrored.sum() < 48
    np.testing.assert_array_equal(RandomHorizontalFlip(1)(IMAGES, rng()), IMAGES[:, :, :, ::-1])
    np.testing.assert_array_equal(RandomHorizontalFlip(0)(IMAGES, rng()), IMAGES)


def shifted(image, down, right, fill):
    padded = np.pad(image, ((0, 0), (2, 2), (2, 2)), mode={"zero": "constant", "reflect": "reflect"}[fill])
    return padded[:, 2 - down : 8 - down, 2 - right : 7 - right]


@pytest.mark.parametrize("fill", ["zero", "reflect"])
def test_shift_is_one_of_the_25_shifts_and_reaches_each(fill):
    images = np.repeat(IMAGES, 8, axis=0)
    seen = set()
    for new, old in zip(RandomShift(2, fill)(images, rng()), images, strict=True):
        found = [(d, r) for d in range(-2, 3) for r in range(-2, 3) if np.array_equal(new, shifted(old, d, r, fill))]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 25


def test_crop_without_freedom_is_the_image_and_size_may_be_a_pair():
    np.testing.assert_array_equal(RandomCrop((6, 5))(IMAGES, rng()), IMAGES)
    assert RandomCrop((2, 4))(IMAGES, rng()).shape == (64, 3, 2, 4)
    with pytest.raises(ValueError, match=r"size \(9, 9\) does not fit"):
        RandomCrop(9, padding=1)(IMAGES, rng())


def test_normalize():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    expected = (IMAGES / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    for images in (IMAGES, (IMAGES / 255).astype(np.float32)):
        result = Normalize(mean, std)(images, None)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, expected, atol=2e-6)
    with pytest.raises(ValueError, match="3 channels, the images have 1"):
        Normalize(mean, std)(IMAGES[:, :1], None)


def test_cutout_blanks_one_clipped_square_in_all_channels():
    areas = set()
    for new, old in zip(Cutout(3)(IMAGES, rng()), IMAGES, strict=True):
        blank = (new == 0).all(0)  # the images hold no zero
        rows, columns = np.flatnonzero(blank.any(1)), np.flatnonzero(blank.any(0))
        square = np.zeros_like(blank)
        square[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        np.testing.assert_array_equal(blank, square)
        np.testing.assert_array_equal(new, np.where(square, 0, old))
        assert 2 <= len(rows) <= 3 and 2 <= len(columns) <= 3
        areas.add(blank.sum())
    assert areas == {4, 6, 9}


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomHorizontalFlip(1.5), "p must lie in"),
        (lambda: RandomShift(-1), "pixels must be at least 0, got -1"),
        (lambda: RandomShift(1, "wrap"), "fill must be one of 'zero', 'reflect', got 'wrap'"),
        (lambda: RandomCrop(0), "size must be at least 1, got 0"),
        (lambda: RandomCrop(4, -1), "padding must be at least 0, got -1"),
        (lambda: RandomCrop(4, fill="edge"), "fill must be"),
        (lambda: Normalize((0.5,), (0.0,)), "std must be positive"),
        (lambda: Normalize((0.5,), (1.0, 1.0)), "as many, got 1 and 2"),
        (lambda: Cutout(0), "size must be at least 1, got 0"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_nothing_and_too_much():
    images, rng = np.ones((2, 1, 0, 4), np.uint8), np.random.default_rng(0)
    assert Cutout(3)(images, rng).shape == images.shape
    for pixels, count in ((2**62, 2), (2**62, 0), (2**40, 0), (2**40, 2)):
        with pytest.raises(MemoryError, match="pixels on each side have no place in memory"):
            RandomShift(pixels)(np.ones((count, 1, 3, 4), np.uint8), rng)


class Noting:
    """A function of a batch, and no augmentation of ours: what stands before it is done by then."""

    def __repr__(self):
        return "Noting()"

    def __call__(self, images, rng):
        return images.copy()


NORMALIZE = Normalize((0.5, 0.4, 0.3), (0.2, 0.3, 0.1))
PIPELINES = [
    [RandomShift(2), RandomHorizontalFlip(), NORMALIZE, Cutout(3)],
    [RandomHorizontalFlip(), RandomCrop((4, 5), 3, "reflect"), NORMALIZE],
    [RandomHorizontalFlip(), RandomHorizontalFlip(0.7), RandomCrop((5, 3)), RandomHorizontalFlip(), Cutout(2)],
    [Cutout(3), RandomHorizontalFlip(), Cutout(2), RandomShift(1, "reflect"), NORMALIZE, RandomHorizontalFlip()],
    [RandomCrop(4), RandomShift(2), NORMALIZE, RandomShift(1), NORMALIZE, Cutout(1), NORMALIZE],
    [RandomShift(3), Noting(), Cutout(3)],
]


@pytest.mark.parametrize("steps", PIPELINES, ids=str)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int16"])
def test_several_in_one_pass_are_the_same_as_one_after_the_other(steps, dtype, monkeypatch):
    images, generator = IMAGES.astype(dtype), rng()
    chosen = np.array([3, 3, 60, 0, 17])
    found = augment.augmented(augment.Batch(images, chosen), steps, generator)
    monkeypatch.setattr("numbanet.cpu.augment.supports", lambda *_: False)  # the definitions
    expected, other = images[chosen], rng()
    for step in steps:
        expected = step(expected, other)
    assert found.dtype == expected.dtype and generator.bit_generator.state == other.bit_generator.state
    np.testing.assert_array_equal(found, expected)
    assert found.transpose(0, 2, 3, 1).flags.c_contiguous


def test_a_pipeline_takes_one_pass(monkeypatch):
    passes = []
    monkeypatch.setattr("numbanet.cpu.augment.changed", lambda images, changes, chosen: passes.append(changes))
    for steps in PIPELINES[:3]:
        augment.augmented(augment.Batch(IMAGES), steps, rng())
    assert len(passes) == 3


def test_a_step_that_is_called_in_another_way_is_called():
    class Twice(RandomShift):
        def __call__(self, images, rng):
            return super().__call__(super().__call__(images, rng), rng)

    expected = RandomShift(1)(RandomShift(1)(IMAGES, other := rng()), other)
    np.testing.assert_array_equal(augment.augmented(augment.Batch(IMAGES), [Twice(1)], rng()), expected)
