"""The decorators that compile CUDA code: ``kernel`` (an entry point) and ``device`` (a function that kernels call).

A kernel is a flat function over scalars and typed pointers, as on the CPU::

    @kernel(threads=256)
    def relu(size: Int, x: T, y: T):
        ...

``T`` stands for the floating dtype that the kernel is compiled for, as a pointer; ``Number`` is one number of it.
Python source becomes PTX, and PTX becomes a cubin; `numbanet.cuda.launch` runs the result. How the compiler is called
stands in `numbanet.cuda.ptx`: here, what it is called with, and what is kept of what it makes.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import re
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numbanet
from numbanet import code_cache, fingerprint, sources
from numbanet.cuda.ptx import compiler
from numbanet.cuda.ptx.compiler import Capability, device

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
SCALARS = {"Int": "int32", "Long": "int64", "Real": "float32", "Double": "float64"}
_POINTEES = {
    "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F32": "float32", "F64": "float64", "BF16": "uint16",
}  # fmt: skip
# What T, and a scalar Number of that dtype, stand for.
FLOATS = {"float32": "float32", "float64": "float64", "bfloat16": "uint16", "float16": "uint16"}

_building = threading.RLock()


def _versions() -> list[str]:
    found = [".".join(map(str, sys.version_info[:2])), f"numbanet {numbanet.__version__}"]
    for package in compiler.PACKAGES:
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

    def kinds(self, dtype: str) -> tuple[str, ...]:
        """Return the type of each parameter for one floating dtype, such as "int32", or of a pointer "float32*"."""
        own = {"Number": FLOATS[dtype], "T": f"{FLOATS[dtype]}*"}
        return tuple(own.get(a) or SCALARS.get(a) or f"{_POINTEES[a]}*" for a in self.parameters)

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
        text = compiler.translated(self._library(dtype, capability), capability)
        mangled = re.search(r"\.entry (\w+)", text)
        if mangled is None:
            raise RuntimeError(f"kernel {self.name}: the compiler returned no entry point")
        return text.replace(mangled[1], self.entry)

    def _library(self, dtype: str, capability: Capability) -> Any:
        if dtype not in self._libraries:
            kinds = self.kinds(dtype)
            self._libraries[dtype] = compiler.library(self.function, kinds, capability, self.threads, self.blocks)
        return self._libraries[dtype]

    def cubin(self, dtype: str, capability: Capability) -> bytes:
        """Return the machine code, from the disk cache where it has been compiled before."""
        key = dtype, capability
        with _building:
            if key not in self._cubin:
                name = self._file("cubin", *key)
                stored = STORE.read(name)
                self._cubin[key] = compiler.linked(self.ptx(*key), capability) if stored is None else stored
                if stored is None:
                    STORE.write(name, self._cubin[key])
            return self._cubin[key]

    def _file(self, kind: str, dtype: str, capability: Capability) -> str:
        code = fingerprint.hash_of(self.function, self._text)  # without the annotations, which are the kinds
        key = (self.name, code, dtype, self.kinds(dtype), capability, self.threads, self.blocks)
        return code_cache.file_name(self.entry[:100], kind, *key)

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
