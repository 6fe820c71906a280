"""What the readers of data files share: finding the folder, and reading no more than a file may hold."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

# Deflate cannot shrink more than this: a file that declares more has lied, and nothing is allocated for it.
MAX_DEFLATE_RATIO = 1032
_PIECE = 1 << 20


def find_folder(directory: str | os.PathLike[str], subfolders: Sequence[str], names: Sequence[str]) -> Path:
    """The first of `directory` and its `subfolders` that holds one of the files `names`.

    Raises
    ------
    FileNotFoundError
        If none does; the message names the folders and the files.
    """
    folders = [Path(directory), *(Path(directory) / name for name in subfolders)]
    for folder in folders:
        if any((folder / name).is_file() for name in names):
            return folder
    raise FileNotFoundError(f"none of {', '.join(names)} is in {' or '.join(map(str, folders))}")


def require(path: Path) -> Path:
    """Return `path`; FileNotFoundError that names it if it is no file, though others of its set are in its folder."""
    if not path.is_file():
        raise FileNotFoundError(f"{path.name} is not in {path.parent}, where other files of the data set are")
    return path


@contextmanager
def open_binary(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file that may be gzip-compressed, and tell how many bytes it can hold at most.

    Raises
    ------
    ValueError
        If the compressed data turn out to be corrupt or truncated while they are read.
    """
    size = path.stat().st_size
    with path.open("rb") as raw:
        compressed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not compressed:
            yield raw, size
            return
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                yield cast(BinaryIO, stream), size * MAX_DEFLATE_RATIO
        except EOFError as error:
            raise ValueError(f"{path}: truncated: its gzip stream has no end") from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: corrupt gzip data: {error}") from error


def read_exactly(stream: BinaryIO, count: int, path: Path) -> NDArray[np.uint8]:
    """The next `count` bytes of `stream`; a ValueError that names `path` if there are fewer."""
    data = bytearray()
    while len(data) < count:  # piece by piece: a file that promises more than it holds costs no memory
        piece = stream.read(min(count - len(data), _PIECE))
        if not piece:
            raise ValueError(f"{path}: truncated: {count} bytes expected, and only {len(data)} are left")
        data += piece
    return np.frombuffer(data, np.uint8)


def shaped(values: NDArray[np.uint8], shape: tuple[int, ...], path: Path) -> NDArray[np.uint8]:
    """`values` in a shape that a file declares; a ValueError that names `path` if no array can have it."""
    try:
        return values.reshape(shape)
    except ValueError as error:  # too many dimensions, or huge ones beside a zero
        raise ValueError(f"{path}: declares an array of shape {shape}, which NumPy lacks: {error}") from None


def check_labels(labels: NDArray[np.uint8], classes: int, path: Path) -> None:
    """A ValueError that names `path` and the first label that is not below `classes`."""
    wrong = np.flatnonzero(labels >= classes)
    if wrong.size:
        raise ValueError(f"{path}: corrupt: label {labels[wrong[0]]} of record {wrong[0]} is not below {classes}")
