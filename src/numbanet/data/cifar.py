"""CIFAR-10 and CIFAR-100, in the "binary version" of their official files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from numbanet.data.dataset import Dataset
from numbanet.data.download import CIFAR10, CIFAR100, download_archive
from numbanet.data.files import check_labels, find_folder, require

PIXELS = 3 * 32 * 32  # of a record: the red, the green and the blue plane, row by row

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CIFAR100_CLASSES = tuple(
    """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()
)
CIFAR100_SUPERCLASSES = tuple(
    """aquatic_mammals fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture insects large_carnivores large_man-made_outdoor_things large_natural_outdoor_scenes
    large_omnivores_and_herbivores medium_mammals non-insect_invertebrates people reptiles small_mammals trees
    vehicles_1 vehicles_2""".split()
)


def cifar10(directory: str | os.PathLike[str], train: bool = True, download: bool = False) -> Dataset:
    """CIFAR-10: colour images of 32 x 32 pixels in ten classes.

    Parameters
    ----------
    directory : path
        The folder of `data_batch_1.bin` .. `data_batch_5.bin` and `test_batch.bin`, or the folder above it when it
        is called `cifar-10-batches-bin`.
    train : bool
        The 50,000 training images, or else the 10,000 test images.
    download : bool
        If files are missing, fetch the archive, checked by SHA-256, and unpack them: next to those that are there,
        else into `directory`/cifar-10-batches-bin. Needs the extra `numbanet[data]`.

    Returns
    -------
    Dataset
        Images of shape (N, 3, 32, 32), channels-last in memory.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is truncated, too long or corrupt. The message names it.
    """
    if download:
        download_archive(CIFAR10, Path(directory))
    names = [f"data_batch_{i}.bin" for i in range(1, 6)] if train else ["test_batch.bin"]
    folder = find_folder(directory, (CIFAR10.folder,), names)
    paths = [require(folder / name) for name in names]
    return _read(paths, records=10_000, label_bytes=1, label=0, classes=CIFAR10_CLASSES)


def cifar100(
    directory: str | os.PathLike[str], train: bool = True, download: bool = False, coarse: bool = False
) -> Dataset:
    """CIFAR-100: colour images of 32 x 32 pixels in a hundred classes, which form twenty superclasses.

    Parameters
    ----------
    directory : path
        The folder of `train.bin` and `test.bin`, or the folder above it when it is called `cifar-100-binary`.
    train, download
        As those of `cifar10`.
    coarse : bool
        Label each image with its superclass.

    Returns
    -------
    Dataset
        Images of shape (N, 3, 32, 32), channels-last in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        As `cifar10` does.
    """
    if download:
        download_archive(CIFAR100, Path(directory))
    name = "train.bin" if train else "test.bin"
    path = find_folder(directory, (CIFAR100.folder,), [name]) / name
    classes = CIFAR100_SUPERCLASSES if coarse else CIFAR100_CLASSES
    return _read([path], records=50_000 if train else 10_000, label_bytes=2, label=0 if coarse else 1, classes=classes)


def _read(paths: list[Path], records: int, label_bytes: int, label: int, classes: tuple[str, ...]) -> Dataset:
    """Files of `records` records each: `label_bytes` labels, of which number `label` is wanted, then the pixels."""
    for path in paths:
        _check_size(path, records, label_bytes + PIXELS)
    images = np.empty((len(paths) * records, 32, 32, 3), np.uint8)
    labels = np.empty(len(paths) * records, np.int64)
    for i, path in enumerate(paths):
        table: NDArray[np.uint8] = np.fromfile(path, np.uint8).reshape(records, label_bytes + PIXELS)
        part = slice(i * records, (i + 1) * records)
        check_labels(table[:, label], len(classes), path)
        labels[part] = table[:, label]
        images[part] = table[:, label_bytes:].reshape(records, 3, 32, 32).transpose(0, 2, 3, 1)
    return Dataset(images.transpose(0, 3, 1, 2), labels, classes)


def _check_size(path: Path, records: int, record: int) -> None:
    size, expected = path.stat().st_size, records * record
    if size != expected:
        fault = "truncated" if size < expected else "too long"
        raise ValueError(f"{path}: {fault}: {size} bytes, expected {expected} ({records} records of {record} bytes)")
