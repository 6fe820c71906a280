"""The readers of official files, on tiny files of the same formats, whole and spoilt."""

import gzip
import struct

import numpy as np
import pytest

from numbanet import data
from numbanet.data import cifar, files

RNG = np.random.default_rng(0)


def idx_bytes(array, type_code=8):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, type_code, array.ndim, *array.shape)
    return header + array.tobytes()


IMAGES = RNG.integers(0, 256, (5, 28, 28), np.uint8)
LABELS = np.array([0, 9, 3, 3, 7], np.uint8)


def write_mnist(folder, prefix="train", images=IMAGES, labels=LABELS, pack=gzip.compress, suffix=".gz"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{prefix}-images-idx3-ubyte{suffix}").write_bytes(pack(idx_bytes(images)))
    (folder / f"{prefix}-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))


@pytest.mark.parametrize("subfolder", ["", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("pack, suffix", [(gzip.compress, ".gz"), (bytes, "")])
@pytest.mark.parametrize("train, prefix", [(True, "train"), (False, "t10k")])
def test_mnist(tmp_path, subfolder, pack, suffix, train, prefix):
    write_mnist(tmp_path / subfolder, prefix, pack=pack, suffix=suffix)
    dataset = data.mnist(tmp_path, train=train)
    np.testing.assert_array_equal(dataset.images, IMAGES[:, None])
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.classes == tuple("0123456789")


def test_mnist_names_the_files_it_misses(tmp_path):
    with pytest.raises(FileNotFoundError, match="train-images-idx3-ubyte.gz.* is in .*mnist"):
        data.mnist(tmp_path)
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FileNotFoundError, match="^train-labels-idx1-ubyte.gz is not in .*, where other files"):
        data.mnist(tmp_path)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"labels": LABELS[:4]}, r"train-labels.*shape \(4,\), expected one label for each of the 5 images"),
        ({"labels": np.array([0, 1, 10, 3, 3], np.uint8)}, r"train-labels.*label 10 of record 2 is not below 10"),
        ({"images": IMAGES[:, :27]}, r"train-images.*shape \(5, 27, 28\), expected \(N, 28, 28\)"),
        ({"images": IMAGES.reshape(5, -1)}, r"train-images.*shape \(5, 784\)"),
    ],
)
def test_mnist_files_that_do_not_fit(tmp_path, changes, message):
    write_mnist(tmp_path, **changes)
    with pytest.raises(ValueError, match=message):
        data.mnist(tmp_path)


WHOLE = idx_bytes(IMAGES)
PACKED = gzip.compress(WHOLE, mtime=0)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "truncated: 4 bytes expected, and only 0 are left"),
        (WHOLE[:3], "truncated: 4 bytes expected, and only 3 are left"),
        (WHOLE[:10], "truncated: 12 bytes expected, and only 6 are left"),
        (WHOLE[:-1], r"truncated: it declares an array of shape \(5, 28, 28\), 3920 bytes, and has room for 3919"),
        (WHOLE + b"x", "too long"),
        (b"PK\x03\x04" + WHOLE, "not an IDX file: it starts with the bytes 50 4b 03 04"),
        (b"\0\0\x08\0", "not an IDX file"),
        (idx_bytes(IMAGES, type_code=0x0D), "holds IDX type 0x0d, expected 0x08"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), "truncated: it declares"),
        (PACKED[:-1], "truncated: its gzip stream has no end"),
        (PACKED[:100], "truncated: its gzip stream has no end"),
        (PACKED[:2], "truncated: its gzip stream has no end"),
        (PACKED[:500] + bytes([PACKED[500] ^ 255]) + PACKED[501:], "corrupt gzip data"),
        (PACKED[:-8] + bytes(4) + PACKED[-4:], "corrupt gzip data"),  # a wrong checksum
        (PACKED + b"rubbish", "corrupt gzip data"),
        (gzip.compress(WHOLE[:-1], mtime=0), "truncated: 3920 bytes expected, and only 3919 are left"),
        (gzip.compress(WHOLE + b"x", mtime=0), "too long"),
        (gzip.compress(struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), mtime=0), "truncated: it declares"),
    ],
)
def test_spoilt_idx_files(tmp_path, content, message):
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        data.read_idx(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(idx_bytes(np.zeros((1, 2), np.uint8)) + bytes(64 << 20)))
    unpacked = 0
    read = gzip._GzipReader.read

    def counting_read(self, size=-1):
        nonlocal unpacked
        block = read(self, size)
        unpacked += len(block)
        return block

    monkeypatch.setattr(gzip._GzipReader, "read", counting_read)
    with pytest.raises(ValueError, match="too long"):
        data.read_idx(path)
    assert 0 < unpacked <= 1 << 20  # a read-ahead buffer or two, of 64 MiB


def test_missing_idx_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.gz"):
        data.read_idx(tmp_path / "nothing.gz")


@pytest.fixture
def few_records(monkeypatch):
    """CIFAR files of 3 records (train.bin of CIFAR-100: 6), else of their true form."""
    read = cifar._read

    def read_few(paths, records, **rest):
        return read(paths, records={10_000: 3, 50_000: 6}[records], **rest)

    monkeypatch.setattr(cifar, "_read", read_few)


def records(labels, seed):
    """Records with the given rows of label bytes, and their pixels as (N, 3, 32, 32)."""
    labels = np.atleast_2d(np.array(labels, np.uint8).T).T
    pixels = np.random.default_rng(seed).integers(0, 256, (len(labels), 3, 32, 32), np.uint8)
    return np.hstack([labels, pixels.reshape(len(labels), -1)]).tobytes(), pixels


def write_cifar10(folder):
    folder.mkdir(exist_ok=True)
    pixels = []
    for i in range(1, 6):
        content, part = records([i, 0, 9], i)
        (folder / f"data_batch_{i}.bin").write_bytes(content)
        pixels.append(part)
    content, test_pixels = records([4, 5, 6], 0)
    (folder / "test_batch.bin").write_bytes(content)
    return np.concatenate(pixels), test_pixels


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10(tmp_path, few_records, subfolder):
    train_pixels, test_pixels = write_cifar10(tmp_path / subfolder)
    train, test = data.cifar10(tmp_path), data.cifar10(tmp_path, train=False)
    np.testing.assert_array_equal(train.images, train_pixels)
    np.testing.assert_array_equal(test.images, test_pixels)
    assert train.labels.tolist() == [1, 0, 9, 2, 0, 9, 3, 0, 9, 4, 0, 9, 5, 0, 9]
    assert test.labels.tolist() == [4, 5, 6]
    assert [train.classes[i] for i in (0, 3, 9)] == ["airplane", "cat", "truck"]
    assert train.images.transpose(0, 2, 3, 1).flags.c_contiguous


@pytest.mark.parametrize("coarse, labels", [(False, [99, 0, 50]), (True, [19, 0, 7])])
def test_cifar100(tmp_path, few_records, coarse, labels):
    content, pixels = records([[19, 99], [0, 0], [7, 50]], 0)
    (tmp_path / "test.bin").write_bytes(content)
    dataset = data.cifar100(tmp_path, train=False, coarse=coarse)
    np.testing.assert_array_equal(dataset.images, pixels)
    assert dataset.labels.tolist() == labels
    assert len(dataset.classes) == (20 if coarse else 100)
    assert list(dataset.classes) == sorted(dataset.classes)
    assert (dataset.classes[0], dataset.classes[-1]) == (
        ("aquatic_mammals", "vehicles_2") if coarse else ("apple", "worm")
    )


@pytest.mark.parametrize(
    "spoil, error, message",
    [
        (lambda path: path.unlink(), FileNotFoundError, "^data_batch_3.bin is not in .*, where other files"),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            ValueError,
            r"data_batch_3.bin: truncated: 9218 bytes, expected 9219 \(3 records of 3073 bytes\)",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:3073]), ValueError, "data_batch_3.bin: truncated: 3073"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), ValueError, "data_batch_3.bin: too long: 9220"),
        (
            lambda path: path.write_bytes(b"\x0a" + path.read_bytes()[1:]),
            ValueError,
            "data_batch_3.bin: corrupt: label 10 of record 0 is not below 10",
        ),
    ],
)
def test_spoilt_cifar_files(tmp_path, few_records, spoil, error, message):
    write_cifar10(tmp_path)
    spoil(tmp_path / "data_batch_3.bin")
    with pytest.raises(error, match=message):
        data.cifar10(tmp_path)


def test_cifar_names_the_files_it_misses(tmp_path):
    with pytest.raises(FileNotFoundError, match="test_batch.bin is in .*cifar-10-batches-bin"):
        data.cifar10(tmp_path, train=False)


def test_true_sizes_are_demanded(tmp_path):
    write_cifar10(tmp_path)
    with pytest.raises(ValueError, match=r"expected 30730000 \(10000 records of 3073 bytes\)"):
        data.cifar10(tmp_path)


def test_read_exactly_goes_on_after_a_short_read():
    class Dripping:
        def read(self, count):
            return b"x"

    assert files.read_exactly(Dripping(), 3, "path").tobytes() == b"xxx"
