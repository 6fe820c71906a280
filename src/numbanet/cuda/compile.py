"""The decorators that compile CUDA code: ``kernel`` (an entry point) and ``device`` (a function that kernels call).

A kernel is a flat function over scalars and typed pointers, as on the CPU::

    @kernel(threads=256)
    def relu(size: Int, x: T, y: T):
        ...

``T`` stands for the floating dtype that the kernel is compiled for, as a pointer; ``Number`` is one number of it.
Python source becomes PTX (numba-cuda and NVVM), and PTX becomes a cubin (nvJitLink); neither step needs a GPU or a
driver. `numbanet.cuda.launch` runs the result.

How numba-cuda is called stands in this file, and the instructions that it lacks in `numbanet.cuda.ptx` and
`numbanet.cuda.ptx_sm90a`; kernels are written in its language, and import its types and thread indices.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from numba import cuda
from numba.cuda import compiler, dispatcher, types

import numbanet
from numbanet import code_cache, fingerprint, sources
from numbanet.cuda.probe import INSTALL

__all__ = [
    "BF16", "F32", "F64", "FLOATS", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "Double", "Int", "Kernel",
    "Long", "Number", "Real", "T", "device", "kernel",
]  # fmt: skip

# Annotations of kernel parameters: they stand for the keys of SCALARS and _POINTEES.
if TYPE_CHECKING:
    Int = Long = Real = Double = Number = T = U8 = I32 = I64 = F32 = F64 = BF16 = I8 = I16 = U16 = U32 = U64 = Any
else:
    Int, Long, Real, Double, Number, T, U8, I32, I64, F32, F64, BF16, I8, I16, U16, U32, U64 = (
        "Int", "Long", "Real", "Double", "Number", "T", "U8", "I32", "I64", "F32", "F64", "BF16", "I8", "I16", "U16",
        "U32", "U64",
    )  # fmt: skip
# Sizes and offsets are 32 bits wide where they may (the GPU's integer units are), 64 where a tensor may be huge.
SCALARS = {"Int": types.int32, "Long": types.int64, "Real": types.float32, "Double": types.float64}
_POINTEES = {
    "I8": types.int8, "I16": types.int16, "I32": types.int32, "I64": types.int64,
    "U8": types.uint8, "U16": types.uint16, "U32": types.uint32, "U64": types.uint64,
    "F32": types.float32, "F64": types.float64, "BF16": types.uint16,
}  # fmt: skip
# What T, and a scalar Number of that dtype, stand for.
FLOATS = {"float32": types.float32, "float64": types.float64, "bfloat16": types.uint16, "float16": types.uint16}

Capability = tuple[Any, ...]
"""Compute capability, such as (9, 0); (9, 0, "a") adds the instructions that only that chip has (wgmma, TMA)."""

_building = threading.RLock()


def device(function: Callable) -> Any:
    """Compile a function that kernels call; it is inlined into them."""
    return cuda.jit(function, device=True, forceinline=True)


@contextmanager
def _capability(capability: Capability) -> Iterator[None]:
    """Compile device functions for a capability: numba-cuda asks the current GPU for it, and there may be none."""
    former = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = former


_COMPILERS = (
    "numba-cuda", "numba", "llvmlite", "cuda-core", "cuda-bindings",
    "nvidia-nvvm", "nvidia-nvjitlink",  # of CUDA 13
    "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12",
)  # fmt: skip


def _versions() -> list[str]:
    found = [".".join(map(str, sys.version_info[:2])), f"numbanet {numbanet.__version__}"]
    for package in _COMPILERS:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{package} absent")
    return found


STORE = code_cache.Store("cuda-", sources.CUDA, _versions)


class Kernel:
    """A CUDA entry point, compiled on first use, once for each floating dtype and compute capability.

    Attributes
    ----------
    name : str
        ``module.function``, with the configuration of a kernel that comes from a factory.
    parameters : tuple of str
        Annotation of each parameter.
    threads : int
        Threads a block.
    blocks : int
        Blocks that shall fit on a multiprocessor at once: this bounds the registers a thread may use.
    shared_bytes : int
        Dynamic shared memory of a block.
    """

    def __init__(self, function: Callable, threads: int, blocks: int, shared_bytes: int, config: str):
        self.function, self._text = function, fingerprint.text_hash(function)
        stem = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        self.name = f"{stem}[{config}]" if config else stem
        self.parameters = tuple(str(p.annotation) for p in inspect.signature(function).parameters.values())
        unknown = [a for a in self.parameters if a not in ("T", "Number") and a not in SCALARS and a not in _POINTEES]
        if unknown:
            raise TypeError(f"kernel {self.name}: unknown parameter annotation {unknown}")
        self.threads, self.blocks, self.shared_bytes = threads, blocks, shared_bytes
        self._libraries: dict[str, Any] = {}
        self._ptx: dict[tuple[str, Capability], str] = {}
        self._cubin: dict[tuple[str, Capability], bytes] = {}

    @property
    def entry(self) -> str:
        """The name of the entry point in PTX and cubin."""
        return "numbanet_" + re.sub(r"\W+", "_", self.name).strip("_")

    def signature(self, dtype: str) -> Any:
        """Return the Numba signature for one floating dtype."""
        found = []
        for annotation in self.parameters:
            if annotation in SCALARS:
                found.append(SCALARS[annotation])
            elif annotation == "Number":
                found.append(FLOATS[dtype])
            else:
                found.append(types.CPointer(FLOATS[dtype] if annotation == "T" else _POINTEES[annotation]))
        return types.void(*found)

    def ptx(self, dtype: str = "float32", capability: Capability = (8, 0)) -> str:
        """Return the PTX of the kernel for one floating dtype and compute capability; it is kept on disk."""
        key = dtype, capability
        with _building:
            if key not in self._ptx:
                name = self._file("ptx", *key)
                stored = STORE.read(name)
                self._ptx[key] = self._translated(*key) if stored is None else stored.decode()
                if stored is None:
                    STORE.write(name, self._ptx[key].encode())
            return self._ptx[key]

    def _translated(self, dtype: str, capability: Capability) -> str:
        text = self._library(dtype, capability).get_asm_str(cc=capability)
        mangled = re.search(r"\.entry (\w+)", text)
        if mangled is None:
            raise RuntimeError(f"kernel {self.name}: the compiler returned no entry point")
        return text.replace(mangled[1], self.entry)

    def _library(self, dtype: str, capability: Capability) -> Any:
        """Return the kernel in LLVM's language, which takes most of the time; it is the same for all capabilities."""
        if dtype not in self._libraries:
            with _capability(capability):
                self._libraries[dtype], _ = compiler._compile_pyfunc_with_fixup(
                    self.function, self.signature(dtype), debug=False, lineinfo=False, device=False, fastmath=False,
                    cc=capability, opt=True, abi="numba", abi_info=None, forceinline=False,
                    launch_bounds=(self.threads, self.blocks), lto=False,
                )  # fmt: skip
        return self._libraries[dtype]

    def cubin(self, dtype: str, capability: Capability) -> bytes:
        """Return the machine code, from the disk cache where it has been compiled before."""
        key = dtype, capability
        with _building:
            if key not in self._cubin:
                name = self._file("cubin", *key)
                stored = STORE.read(name)
                self._cubin[key] = self._linked(*key) if stored is None else stored
                if stored is None:
                    STORE.write(name, self._cubin[key])
            return self._cubin[key]

    def _file(self, kind: str, dtype: str, capability: Capability) -> str:
        code = fingerprint.hash_of(self.function, self._text)  # without the annotations, which are the signature
        key = (self.name, code, dtype, str(self.signature(dtype)), capability, self.threads, self.blocks)
        return code_cache.file_name(self.entry[:100], kind, *key)

    def _linked(self, dtype: str, capability: Capability) -> bytes:
        from cuda.core import Linker, LinkerOptions, ObjectCode

        arch = "sm_" + "".join(map(str, capability))
        linked = ObjectCode.from_ptx(self.ptx(dtype, capability).encode())
        try:
            return bytes(Linker(linked, options=LinkerOptions(arch=arch)).link("cubin").code)
        except Exception as error:  # cuda.core has a kind for each linker, whose words differ from version to version
            if "gpu-name" not in str(error) and "UNRECOGNIZED_ARCH" not in str(error):
                raise
            number = ".".join(map(str, capability[:2]))
            raise RuntimeError(
                f"the installed CUDA compiler does not know GPUs of compute capability {number}: {INSTALL}"
            ) from error

    def __repr__(self) -> str:
        return f"<CUDA kernel {self.name}>"


def kernel(*, threads: int, blocks: int = 1, shared_bytes: int = 0, config: str = "") -> Callable[[Callable], Kernel]:
    """Make a CUDA entry point of a function (see the module's text for the form).

    Parameters
    ----------
    threads : int
        Threads a block.
    blocks : int
        Blocks that shall fit on a multiprocessor at once.
    shared_bytes : int
        Dynamic shared memory of a block.
    config : str
        What tells this kernel from others that the same factory makes.
    """
    return lambda function: Kernel(function, threads, blocks, shared_bytes, config)
