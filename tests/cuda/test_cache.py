"""PTX and cubins on disk: found again by another process, never those of another kernel, never damaged ones."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest

import numbanet
from numbanet import fingerprint
from numbanet.cuda import compile as compiling
from numbanet.cuda.compile import F32, Kernel, device, kernel
from numbanet.cuda.ptx import compiler, cuda, types
from tests.cuda import kernels, products


def constant_kernel(value: float, helper: Any = None) -> Kernel:
    """Return a kernel whose configuration does not say what it closes over."""

    @kernel(threads=32)
    def fill(y: F32):
        y[types.int32(cuda.threadIdx.x)] = types.float32(value)

    @kernel(threads=32)
    def fill_by(y: F32):
        y[types.int32(cuda.threadIdx.x)] = helper()

    return fill if helper is None else fill_by


@device
def one():
    return types.float32(1)


@device
def two():
    return types.float32(2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBANET_CACHE_DIR", str(tmp_path))
    return tmp_path


def refuse(*_: Any) -> Any:
    raise AssertionError("compiled again")


def test_what_was_compiled_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = constant_kernel(1)
    ptx, cubin = first.ptx(), first.cubin("float32", (8, 0))
    assert sorted(path.suffix for path in folder.rglob("*.*")) == [".cubin", ".ptx"]
    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "_library", refuse)
        patch.setattr(compiler, "linked", refuse)
        again = constant_kernel(1)
        assert again.ptx() == ptx and again.cubin("float32", (8, 0)) == cubin
        for other in (constant_kernel(2), constant_kernel(0, one), constant_kernel(0, two)):
            with pytest.raises(AssertionError, match="compiled again"):
                other.ptx()
        with pytest.raises(AssertionError, match="compiled again"):
            again.ptx(capability=(9, 0))
    (stored,) = folder.rglob("*.ptx")
    stored.write_bytes(stored.read_bytes()[:-1])
    assert first.entry in constant_kernel(1).ptx()
    monkeypatch.setattr(Kernel, "_library", refuse)
    assert first.entry in constant_kernel(1).ptx(), "stored anew"


def test_device_functions_that_a_kernel_is_given_are_part_of_its_key() -> None:
    found = {constant_kernel(0, helper)._file("ptx", "float32", (8, 0)) for helper in (one, two, one)}
    assert len(found) == 2


def test_annotations_are_part_of_a_kernels_key() -> None:
    """Functions that differ in their annotations alone have the same code, and other widths of their arguments."""
    found = set()
    for kind in ("I32", "I64"):
        space: dict[str, Any] = {"__name__": "__main__", "kernel": kernel}
        text = f"@kernel(threads=32)\ndef f(x: {kind}):\n    x[0] = 1\n"
        exec(compile(text, "<prompt>", "exec"), space)
        found.add(space["f"]._file("ptx", "float32", (8, 0)))
    assert len(found) == 2


def test_keys_are_of_one_kernel_and_hold_no_address() -> None:
    chosen = [
        *kernels.streaming("float32"), *kernels.summing("float32"), *kernels.others("float32"), *products.GEMM,
        *products.WINOGRAD, *products.OTHERS, *products.PACKING, *products.TENSOR, *products.WARPGROUPS,
        *products.NAIVE,
    ]  # fmt: skip
    assert len({one._file("ptx", "float32", (8, 0)) for one in chosen}) == len(chosen) > 100
    assert not any(" at 0x" in repr(fingerprint._Walk().of(one.function)) for one in chosen)


def test_overloads_of_the_compiler_are_part_of_a_key() -> None:
    """What a name means in a kernel, they decide, and nothing refers to them."""
    from numba.cuda.extending import overload

    def key() -> str:
        return constant_kernel(1)._file("ptx", "float32", (8, 0))

    def nobody_calls_this() -> int:
        return 0

    before = key()
    assert key() == before
    overload(nobody_calls_this)(lambda: lambda: 1)
    assert key() != before


def test_everybody_who_compiles_is_part_of_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.metadata.version
    keys = {repr(compiling._versions())}
    for package in (
        "numba-cuda", "numba", "llvmlite", "cuda-core", "cuda-bindings", "nvidia-nvvm", "nvidia-nvjitlink",
        "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12",
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(importlib.metadata, "version", lambda name, new=package: "0" if name == new else real(name))
            keys.add(repr(compiling._versions()))
    monkeypatch.setattr(numbanet, "__version__", "0")
    assert len(keys | {repr(compiling._versions())}) == 11


@pytest.mark.parametrize(("extra", "level", "linker"), [
    ("cuda12", "12.4", "nvidia-nvjitlink-cu12"), ("cuda13", "13.0", "nvidia-nvjitlink"),
])  # fmt: skip
def test_each_extra_takes_its_toolkit_from_one_level(extra: str, level: str, linker: str) -> None:
    """A compiler above the driver's level writes what the driver cannot read."""
    text = Path(__file__).parents[2].joinpath("pyproject.toml").read_text()
    found = re.search(rf"^{extra} = \[(.*?)\]$", text, re.M | re.S)
    assert found is not None
    assert f'"cuda-toolkit=={level}.*"' in found[1] and f'"{linker}=={level}.*"' in found[1]


def test_a_gpu_that_the_compiler_does_not_know_is_named(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"does not know GPUs of compute capability 19\.9: pip install .numbanet"):
        constant_kernel(1).cubin("float32", (19, 9))
