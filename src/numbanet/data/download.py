"""Fetching the official data sets: only when asked, and only what is missing."""

from __future__ import annotations

import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The original host of MNIST refuses most requests: this mirror holds the same bytes.
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FOLDERS = ("mnist", "MNIST/raw")  # below the directory that a user names
MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


@dataclass(frozen=True)
class Archive:
    """A tar archive on the net, and the files of it that are wanted, all in one folder."""

    url: str
    sha256: str
    folder: str
    files: tuple[str, ...]


CIFAR10 = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    files=(*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin", "batches.meta.txt"),
)
CIFAR100 = Archive(
    url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    files=("train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"),
)


def _retrieve(url: str, sha256: str, path: Path) -> None:
    try:
        import pooch
    except ImportError as error:
        raise ImportError('download=True needs pooch: pip install "numbanet[data]"') from error
    retriever: Any = pooch.retrieve
    retriever(url, known_hash=f"sha256:{sha256}", fname=path.name, path=path.parent)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; after an error, remove those of them that are empty."""
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        for path in new:
            if not any(path.iterdir()):
                path.rmdir()
        raise


def download_mnist(directory: Path) -> None:
    """Fetch those of MNIST's four files that are missing: next to those that are there, else into `directory`/mnist.

    The images and the labels of a set belong into one folder; the two sets may lie apart.
    """
    folders = [directory, *(directory / name for name in MNIST_FOLDERS)]
    for prefix in ("train", "t10k"):
        pair = [name for name in MNIST_FILES if name.startswith(prefix)]
        holding = [folder for names in (pair, MNIST_FILES) for folder in folders if any(_there(folder, names))]
        folder = holding[0] if holding else directory / "mnist"
        for name, there in zip(pair, list(_there(folder, pair)), strict=True):
            if not there:
                with _made(folder):
                    _retrieve(MNIST_URL + name, MNIST_FILES[name], folder / name)


def _there(folder: Path, names: Iterable[str]) -> Iterator[bool]:
    """For each file, whether it is in the folder, compressed or not."""
    return ((folder / name).is_file() or (folder / name).with_suffix("").is_file() for name in names)


def download_archive(archive: Archive, directory: Path) -> None:
    """Fetch `archive` if some of its files are missing, and unpack those: next to the others, else into its folder."""
    wanted = [name for name in archive.files if name.endswith(".bin")]
    folders = [directory, directory / archive.folder]
    folder = next((f for f in folders if any((f / name).is_file() for name in wanted)), folders[-1])
    if all((folder / name).is_file() for name in wanted):
        return
    with _made(folder), tempfile.TemporaryDirectory(dir=folder) as scratch:
        packed = Path(scratch) / Path(archive.url).name
        _retrieve(archive.url, archive.sha256, packed)
        _unpack(packed, [name for name in archive.files if not (folder / name).is_file()], folder)


def _unpack(packed: Path, names: Iterable[str], folder: Path) -> None:
    with tarfile.open(packed, "r:gz") as tar:
        for member in tar:
            name = Path(member.name).name
            source = tar.extractfile(member) if name in names else None
            if source is None:
                continue
            part = folder / (name + ".part")
            with source, part.open("wb") as target:
                shutil.copyfileobj(source, target)
            os.replace(part, folder / name)  # a run that is cut short leaves no half file under the true name
