"""MNIST, in the IDX format of its official files."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from numbanet.data.dataset import Dataset
from numbanet.data.download import MNIST_FILES, MNIST_FOLDERS, download_mnist
from numbanet.data.files import check_labels, find_folder, open_binary, read_exactly, require, shaped

UINT8 = 8  # the type code of IDX: the only one that the image sets use


def read_idx(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, gzip-compressed or not.

    The format: two zero bytes, a type code, the number of dimensions; each dimension as a big-endian 32-bit integer;
    then the values, last index fastest.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not IDX, holds another type than uint8, is truncated, corrupt or too long.
    """
    path = Path(path)
    with open_binary(path) as (stream, capacity):
        magic = read_exactly(stream, 4, path).tolist()
        if magic[:2] != [0, 0] or magic[3] == 0:
            raise ValueError(f"{path}: not an IDX file: it starts with the bytes {bytes(magic).hex(' ')}")
        if magic[2] != UINT8:
            raise ValueError(f"{path}: holds IDX type 0x{magic[2]:02x}, expected 0x08 (unsigned bytes)")
        header = read_exactly(stream, 4 * magic[3], path)
        shape = tuple(header.view(">u4").tolist())
        count = math.prod(shape)
        if 4 + header.size + count > capacity:
            raise ValueError(
                f"{path}: truncated: it declares an array of shape {shape}, {count} bytes, and has room for "
                f"{max(0, capacity - 4 - header.size)} at most"
            )
        values = read_exactly(stream, count, path)
        if stream.read(1):
            raise ValueError(f"{path}: too long: more bytes follow the declared array of shape {shape}")
    return shaped(values, shape, path)


def mnist(directory: str | os.PathLike[str], train: bool = True, download: bool = False) -> Dataset:
    """MNIST, or a set of the same form (Fashion-MNIST, KMNIST), from its four official files.

    Parameters
    ----------
    directory : path
        The folder of `train-images-idx3-ubyte.gz` and its siblings, compressed or not, or the folder above it when
        it is called `mnist` or `MNIST/raw`.
    train : bool
        The 60,000 training images, or else the 10,000 test images.
    download : bool
        Fetch the files that are missing, next to those that are there, else into `directory`/mnist, checked by
        SHA-256. Needs the extra `numbanet[data]`.

    Returns
    -------
    Dataset
        Images of shape (N, 1, 28, 28).

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is truncated, corrupt or too long, or the two do not belong together. The message names the file.
    """
    if download:
        download_mnist(Path(directory))
    prefix = "train" if train else "t10k"
    wanted = [name for name in MNIST_FILES if name.startswith(prefix)]
    folder = find_folder(directory, MNIST_FOLDERS, [*wanted, *(name[:-3] for name in wanted)])
    images_path = require(_plain_or_compressed(folder / f"{prefix}-images-idx3-ubyte"))
    labels_path = require(_plain_or_compressed(folder / f"{prefix}-labels-idx1-ubyte"))
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{images_path}: holds an array of shape {images.shape}, expected (N, 28, 28)")
    if labels.shape != images.shape[:1]:
        raise ValueError(
            f"{labels_path}: holds an array of shape {labels.shape}, expected one label for each of the "
            f"{len(images)} images of {images_path.name}"
        )
    check_labels(labels, 10, labels_path)
    return Dataset(images[:, None], labels.astype(np.int64), tuple("0123456789"))


def _plain_or_compressed(path: Path) -> Path:
    return path if path.is_file() else path.with_name(path.name + ".gz")
