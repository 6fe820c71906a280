"""The only decorators that compile CPU code: ``kernel`` (an entry point) and ``device`` (a function kernels call).

A kernel is what a C source of an extension would hold: a flat function over typed pointers, with no Python objects and
no allocation. Its first two parameters are the index of the task it shall do and a pointer to the integers of the
problem; the others are annotated pointers, where ``T`` stands for the floating dtype that the kernel is compiled for::

    @kernel
    def relu(task: Index, ints: I64, x: T, y: T):
        ...

Nothing is compiled before the first launch; then one machine-code version a dtype is built, serves every shape, and is
kept on disk. `numbanet.cpu.parallel.launch` runs it.
"""

from __future__ import annotations

import gc
import inspect
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numba
import numpy as np
from numba import types
from numba.core.ccallback import CFunc
from numba.core.compiler_lock import global_compiler_lock

from numbanet import fingerprint, settings
from numbanet.cpu.cache import KernelCache
from numbanet.cpu.compiler import KernelCompiler, TileCompiler
from numbanet.cpu.inlined import InlinedCompiler

__all__ = ["F32", "F64", "I32", "I64", "Index", "Kernel", "T", "U8", "U64", "device", "kernel"]

# Annotations of kernel parameters: they stand for the keys of _POINTEES.
if TYPE_CHECKING:
    Index = T = I32 = I64 = U8 = U64 = F32 = F64 = Any
else:
    Index, T, I32, I64, U8, U64, F32, F64 = "Index", "T", "I32", "I64", "U8", "U64", "F32", "F64"
_POINTEES = {
    "I32": types.int32, "I64": types.int64, "U8": types.uint8, "U64": types.uint64,
    "F32": types.float32, "F64": types.float64,
}  # fmt: skip
_FLOATS = {"float32": types.float32, "float64": types.float64}

# nogil: the launcher runs without Python; numpy's error model: a division by zero gives inf or nan, never an exception.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}


def device(function: Callable) -> Callable:
    """Compile a function that kernels call; it is inlined into them."""
    # Nobody else calls it: it needs no wrappers for Python and C, and no machine code of its own.
    options = {**_OPTIONS, "forceinline": True, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
    return numba.njit(pipeline_class=InlinedCompiler, **options)(function)


class Spent:
    """What this process spent compiling; the user hears of it once, when it begins to look like a pause.

    Attributes
    ----------
    seconds : float
    until : float
        When the last kernel was done, by `time.perf_counter`.
    """

    seconds = until = 0.0
    said = False
    patience = 1.0

    @classmethod
    def add(cls, seconds: float) -> None:
        """Count a compilation."""
        cls.seconds, cls.until = cls.seconds + seconds, time.perf_counter()
        if cls.seconds > cls.patience and not cls.said:
            from numbanet import ahead  # with tensors and tapes

            cls.said = True
            ahead.begin()
            settings.notice(
                "compiling kernels for this machine, once: half a minute to a few minutes for a whole network; "
                "`numbanet warmup` compiles all of them ahead"
            )


# One thread at a time compiles: others that need the same kernel shall wait for it, not compile it too.
_building = threading.RLock()


def _before_fork() -> None:
    """Wait until nobody compiles: a child would find Numba's lock taken, and its compiler in the middle of its work."""
    _building.acquire()
    global_compiler_lock.acquire()


def _after_fork() -> None:
    global_compiler_lock.release()
    _building.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let nobody look for cycles: the compiler makes so many objects that Python would search all of them often."""
    enabled = gc.isenabled()
    try:
        gc.disable()
        yield
    finally:
        if enabled:
            gc.enable()


class Kernel:
    """A CPU entry point, compiled on first use, once for each floating dtype.

    Attributes
    ----------
    name : str
        ``module.function``, as ``NUMBANET_VERBOSE`` and profiles show it.
    pointers : tuple of str
        Annotation of each pointer parameter.
    """

    def __init__(self, function: Callable, compiler: type[KernelCompiler] = KernelCompiler):
        self._compiler = compiler
        self.function, self._text = function, fingerprint.text_hash(function)
        self.name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        annotations = [str(p.annotation) for p in inspect.signature(function).parameters.values()]
        if annotations[:2] != ["Index", "I64"]:
            raise TypeError(f"kernel {self.name}: the first parameters must be (task: Index, ints: I64)")
        self.pointers = tuple(annotations[2:])
        unknown = [a for a in self.pointers if a != "T" and a not in _POINTEES]
        if unknown:
            raise TypeError(f"kernel {self.name}: unknown pointer annotation {unknown}")
        self._compiled: dict[str, CFunc] = {}
        self._entries: dict[str, tuple[int, np.ndarray, int]] = {}

    def signature(self, dtype: str) -> Any:
        """Return the Numba signature for one floating dtype (``"float32"`` or ``"float64"``)."""
        pointees = [_FLOATS[dtype] if a == "T" else _POINTEES[a] for a in self.pointers]
        return types.void(types.int64, types.CPointer(types.int64), *map(types.CPointer, pointees))

    @property
    def compiled(self) -> tuple[str, ...]:
        """The dtypes that have machine code in this process."""
        return tuple(self._compiled)

    def _function(self, dtype: str) -> CFunc:
        signature = self.signature(dtype).args, types.void
        return CFunc(self.function, signature, locals={}, options=dict(_OPTIONS), pipeline_class=self._compiler)

    def build(self, dtype: str) -> CFunc:
        """Compile for one floating dtype, or load the machine code from the disk cache."""
        found = self._compiled.get(dtype)
        if found is not None:
            return found
        with _building, _uncollected():
            found = self._compiled.get(dtype)
            if found is None:
                start = time.perf_counter()
                found = self._function(dtype)
                found._cache = cache = KernelCache(self.function, self._text)
                try:
                    found.compile()
                finally:
                    cache.release()
                self._compiled[dtype] = found
                seconds = time.perf_counter() - start
                settings.log(f"{'loaded' if found.cache_hits else 'compiled'} {self.name}[{dtype}] in {seconds:.2f} s")
                if not found.cache_hits:
                    Spent.add(seconds)
        return found

    def dtypes(self, dtype: str) -> list[np.dtype]:
        """Return the dtype of each pointer, for one floating dtype."""
        return [np.dtype(str(argument.dtype)) for argument in self.signature(dtype).args[2:]]

    def entry(self, dtype: str) -> tuple[int, np.ndarray, int]:
        """Return, for one floating dtype, what the driver needs.

        Returns
        -------
        address : int
            Of the machine code.
        expected : numpy.ndarray
            The identities of the array type and of each pointer's dtype (one object a dtype in NumPy).
        count : int
            The number of pointers.
        """
        found = self._entries.get(dtype)
        if found is None:
            identities = [id(np.ndarray), *map(id, self.dtypes(dtype))]
            address = self.build(dtype).address
            found = self._entries[dtype] = (address, np.array(identities, np.int64), len(self.pointers))
        return found

    def inspect_asm(self, dtype: str = "float32") -> str:
        """Return the assembly of the kernel for one floating dtype (compiled anew: the disk cache holds no text)."""
        fresh = self._function(dtype)
        fresh.compile()
        return fresh._library.get_asm_str()

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"


_kernels: list[Kernel] = []


def kernel(function: Callable) -> Kernel:
    """Make a CPU entry point of a module-level function (see the module's text for the form)."""
    _kernels.append(Kernel(function))
    return _kernels[-1]


def tile_kernel(function: Callable) -> Kernel:
    """Make one whose time goes into register tiles of many sizes: it takes about a quarter less time to compile."""
    _kernels.append(Kernel(function, TileCompiler))
    return _kernels[-1]


def kernels(package: str = "numbanet.cpu") -> tuple[Kernel, ...]:
    """Return all kernels of a package that was imported, in the order in which they were made."""
    return tuple(k for k in _kernels if f"{k.function.__module__}.".startswith(f"{package}."))
