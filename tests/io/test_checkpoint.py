"""Safetensors files: round trips, atomicity, and errors that say what is wrong."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import io, nn
from numbanet.io import atomic


def raw_file(path: Path, header: object, body: bytes = b"") -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bool", "int64", "int8", "uint64", "uint8"])
def test_round_trip_keeps_values_shapes_and_dtypes(tmp_path: Path, dtype: str) -> None:
    tensors = {
        "matrix": np.arange(12).reshape(3, 4).astype(dtype),
        "empty": np.zeros((0, 5), dtype),
        "scalar": np.array(1, dtype),
    }
    io.save(tmp_path / "a.safetensors", tensors)
    loaded = io.load(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, value in tensors.items():
        assert loaded[name].dtype == value.dtype
        assert loaded[name].shape == value.shape
        assert loaded[name].flags.writeable
        np.testing.assert_array_equal(loaded[name], value)


def test_memory_order_and_byte_order_do_not_matter(tmp_path: Path, rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 4, 5)).astype(np.float32)
    views = {
        "nhwc": np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2),
        "fortran": np.asfortranarray(x),
        "reversed": x[::-1, :, ::-1][::-1, :, ::-1],
        "big": x.astype(">f4"),
    }
    io.save(tmp_path / "a.safetensors", views)
    for value in io.load(tmp_path / "a.safetensors").values():
        np.testing.assert_array_equal(value, x)


def test_tensors_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "a.safetensors"
    io.save(path, {"t": nnet.tensor([1.0, 2.0])}, {"made": "today"})
    tensors, metadata = io.load_with_metadata(path)
    np.testing.assert_array_equal(tensors["t"], np.array([1, 2], np.float32))
    assert metadata == {"made": "today"}
    io.save(path, {})
    assert io.load_with_metadata(path) == ({}, {})


def test_values_that_a_file_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(TypeError, match="'names' has dtype <U3"):
        io.save(path, {"names": np.array(["abc"])})
    with pytest.raises(TypeError, match="named by strings, got 3"):
        io.save(path, {3: np.zeros(2)})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="metadata must hold strings only, got 'epoch': 3"):
        io.save(path, {}, {"epoch": 3})  # type: ignore[dict-item]
    assert not path.exists()


def test_every_truncation_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    io.save(path, {"a": np.arange(6.0), "b": np.zeros((2, 2), np.float32)})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors: truncated: "):
            io.load(path)


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "other"
    for content in (b"PK\x03\x04" + bytes(100), pickle.dumps({"w": 1}, 2), pickle.dumps({"w": 1}, 4)):
        path.write_bytes(content)
        for read in (io.load, io.load_state, lambda path: io.load_model(nn.Linear(2, 2), path)):
            with pytest.raises(ValueError, match=r"other: not a safetensors file but a pickle.*torch.save_file\("):
                read(path)
    path.write_bytes(b"just text, nothing else")
    with pytest.raises(ValueError, match="other: not a safetensors file"):
        io.load(path)
    raw_file(path, ["a", "list"])
    with pytest.raises(ValueError, match="other: not a safetensors file"):
        io.load(path)
    raw_file(path, {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, b"12345")
    with pytest.raises(ValueError, match="other: damaged: 74 bytes, expected 73"):
        io.load(path)
    raw_file(path, {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, b"1234")
    with pytest.raises(ValueError, match="other: a safetensors file that can't be read"):
        io.load(path)
    raw_file(path, {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"1234")
    with pytest.raises(ValueError, match="other: tensor 'a' has dtype BF16, which NumPy lacks"):
        io.load(path)
    with pytest.raises(FileNotFoundError, match="nothing-here: no such file"):
        io.load(tmp_path / "nothing-here")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        io.load(tmp_path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    io.save(path, {"a": np.zeros(3)})
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        io.save(path, {"a": np.ones(3)})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_names_of_temporary_files_are_not_interned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.12 never forgets an interned string: a long training would grow with each checkpoint."""
    interned: list[str] = []
    intern = sys.intern
    monkeypatch.setattr(sys, "intern", lambda text: (interned.append(text), intern(text))[1])
    atomic.write_atomically(tmp_path / "seen", b"1")
    Path(f"{tmp_path}/also.part").name  # noqa: B018
    assert any(name.endswith("also.part") for name in interned) or sys.version_info >= (3, 14)
    assert not [name for name in interned if name.startswith(".seen")]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        io.write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(former)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("path", [None, 3, b"x"])
def test_what_is_no_path_is_refused_by_name(path: Any) -> None:
    with pytest.raises(TypeError, match="path must be a path, got"):
        io.save(path, {})
    with pytest.raises(TypeError, match="path must be a path, got"):
        io.load(path)


@pytest.mark.parametrize("value", [1, [1.0], "x"])
def test_what_is_no_mapping_is_refused_by_name(tmp_path: Path, value: Any) -> None:
    with pytest.raises(TypeError, match="tensors must be a mapping of names to arrays, got"):
        io.save(tmp_path / "a", value)
    with pytest.raises(TypeError, match="metadata must be a mapping of strings, got"):
        io.save(tmp_path / "a", {}, value)
    with pytest.raises(TypeError, match="content must be bytes, got"):
        io.write_atomically(tmp_path / "a", value)
    assert not list(tmp_path.iterdir())


def test_tensors_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    io.save(tmp_path / "a", {name: np.zeros(2, np.float32) for name in "hgfedcba"})
    assert all(list(io.load(tmp_path / "a")) == list("abcdefgh") for _ in range(9))
