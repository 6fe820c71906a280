"""Device, precision, logging and the cache folder."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import numbanet as nnet
from numbanet import settings
from tests.processes import run_python


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBANET_DEVICE", raising=False)
    monkeypatch.setattr(settings, "_device", None)
    assert nnet.get_device() == "auto" and settings.resolve_device() == "cpu"
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used: .+"):
        nnet.set_device("cuda")
    assert nnet.get_device() == "auto", "a device that can't be used is not chosen"
    with pytest.raises(ValueError, match="device must be one of 'auto', 'cpu', 'cuda' or .*, got 'tpu'"):
        nnet.set_device("tpu")
    monkeypatch.setenv("NUMBANET_DEVICE", "cpu")
    assert nnet.get_device() == "cpu"
    nnet.set_device("auto")
    assert nnet.get_device() == "auto", "the program's choice counts more than the environment's"


def test_device_of_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_DEVICE", "gpu")
    with pytest.raises(ValueError, match="NUMBANET_DEVICE must be one of 'auto', 'cpu', 'cuda' or .*, got 'gpu'"):
        nnet.tensor([1.0])
    monkeypatch.setenv("NUMBANET_DEVICE", "cuda")
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used"):
        nnet.tensor([1.0])


def test_precision() -> None:
    assert nnet.get_precision() == "float32"
    with nnet.precision("strict"):
        assert nnet.get_precision() == "strict"
        with pytest.raises(KeyError), nnet.precision("tf32"):
            raise KeyError
        assert nnet.get_precision() == "strict"
    assert nnet.get_precision() == "float32"
    with pytest.raises(ValueError, match="precision must be one of .*'strict'.*, got 'double'"):
        nnet.set_precision("double")
    with pytest.raises(ValueError, match="precision must be one of"), nnet.precision("double"):
        pass


def test_precision_belongs_to_its_thread() -> None:
    seen: list[str] = []
    with nnet.precision("strict"):
        thread = threading.Thread(target=lambda: seen.append(nnet.get_precision()))
        thread.start()
        thread.join()
    assert seen == ["float32"]


def test_what_the_program_sets_holds_in_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_precision", "float32")
    nnet.set_precision("strict")
    seen: list[str] = []
    thread = threading.Thread(target=lambda: seen.append(nnet.get_precision()))
    thread.start()
    thread.join()
    assert seen == ["strict"]


def test_verbose_goes_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for value, expected in ((None, ""), ("", ""), ("0", ""), ("1", "numbanet: hello\n")):
        if value is None:
            monkeypatch.delenv("NUMBANET_VERBOSE", raising=False)
        else:
            monkeypatch.setenv("NUMBANET_VERBOSE", value)
        settings.log("hello")
        assert capsys.readouterr() == ("", expected)


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("NUMBANET_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert settings.cache_root() == tmp_path / "xdg" / "numbanet"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert settings.cache_root() == tmp_path / "home" / ".cache" / "numbanet"
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path / "chosen"))
    assert settings.cache_root() == tmp_path / "chosen"


def test_cache_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBANET_CACHE", "0")
    assert not settings.cache_enabled()
    monkeypatch.setenv("NUMBANET_CACHE", "1")
    assert settings.cache_enabled()

    def nowhere() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("NUMBANET_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(nowhere))
    assert not settings.cache_enabled(), "no home, no cache"


def test_environment_at_start() -> None:
    code = "import numbanet; print(numbanet.get_device())"
    assert run_python(code, NUMBANET_DEVICE="cpu") == "cpu"


def test_a_choice_of_device_can_be_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "_device", None)
    monkeypatch.setenv("NUMBANET_DEVICE", "cpu")
    settings.set_device("auto")
    assert settings.get_device() == "auto"
    settings.set_device(None)
    assert settings.get_device() == "cpu"
