"""info() answers on any machine, also a broken one."""

from __future__ import annotations

import platform
import tempfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import numbanet as nnet
from numbanet import settings
from numbanet.cpu import cache
from numbanet.info import Info


def test_every_field_is_text_and_is_printed() -> None:
    found = nnet.info()
    text = str(found)
    for field in fields(Info):
        value = getattr(found, field.name)
        assert isinstance(value, str) and value
        assert "unknown" not in value, f"{field.name}: {value}"
        assert value in text
    assert found.numbanet == nnet.__version__
    assert found.numpy == np.__version__
    assert platform.python_version() in found.python
    assert len(text.splitlines()) == len(fields(Info))


def test_threads_and_their_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numbanet.cpu.parallel.cgroup_quota", lambda: 7)
    found = nnet.info()
    assert found.threads.startswith(f"{nnet.get_num_threads()} (")
    for word in ("affinity", "cgroup quota 7", "NUMBA_NUM_THREADS"):
        assert word in found.threads


def test_gpu_says_why_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numbanet.cuda.unavailable_reason", lambda *_: "the driver sleeps")
    assert nnet.info().gpu == "none: the driver sleeps"
    assert nnet.info().device.endswith("which is cpu")


def test_kernel_cache_states(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "new"))
    assert "(writable; 0 kernels, 0.0 MB)" in nnet.info().kernel_cache
    assert not (tmp_path / "new").exists()
    cache.cache_dir().mkdir(parents=True)
    (cache.cache_dir() / "a.bin").write_bytes(bytes(2**20))
    assert "(writable; 1 kernels, 1.0 MB)" in nnet.info().kernel_cache
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "file"))
    assert "is a file" in nnet.info().kernel_cache
    monkeypatch.setenv("NUMBANET_CACHE", "0")
    assert nnet.info().kernel_cache == "off (NUMBANET_CACHE=0)"


def test_an_unwritable_folder_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    assert "can't be written: Permission denied" in nnet.info().kernel_cache


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("NUMBANET_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "NUMBANET_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(settings.Path, "home", homeless)
    assert settings.cache_enabled() is False
    assert "no home" in nnet.info().kernel_cache
    # Kernels compile all the same.
    function = cache.KernelCache(test_no_home)
    assert function.load_overload("signature", _Target()) is None


class _Target:
    def refresh(self) -> None:
        """As Numba's target context."""


def test_broken_parts_are_shown_in_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> str:
        raise OSError("no such instruction")

    monkeypatch.setattr("numbanet.cpu.isa.target", broken)
    monkeypatch.setenv("NUMBANET_DEVICE", "abacus")
    found = nnet.info()
    assert found.cpu == "unknown (OSError: no such instruction)"
    assert "abacus" in found.device
    assert found.numbanet == nnet.__version__
