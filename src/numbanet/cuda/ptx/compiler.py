"""Calls of the compiler: Python becomes PTX (numba-cuda and NVVM), and PTX becomes a cubin (nvJitLink).

Neither step needs a GPU or a driver.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

from numba import cuda
from numba.cuda import compiler, dispatcher, types

from numbanet import fingerprint
from numbanet.cuda.probe import INSTALL

PACKAGES = (
    "numba-cuda", "numba", "llvmlite", "cuda-core", "cuda-bindings",
    "nvidia-nvvm", "nvidia-nvjitlink",  # of CUDA 13
    "nvidia-cuda-nvcc-cu12", "nvidia-nvjitlink-cu12",
)  # fmt: skip
"""Whose versions the machine code follows from."""

Capability = tuple[Any, ...]
"""Compute capability, such as (9, 0); (9, 0, "a") adds the instructions that only that chip has (wgmma, TMA)."""

fingerprint.compile_with("numba_cuda", "numba.cuda.typing.templates")


def device(function: Callable) -> Any:
    """Compile a function that kernels call; it is inlined into them."""
    return cuda.jit(function, device=True, forceinline=True)


def _type(kind: str) -> Any:
    return types.CPointer(getattr(types, kind[:-1])) if kind.endswith("*") else getattr(types, kind)


@contextmanager
def _capability(capability: Capability) -> Iterator[None]:
    """Compile device functions for a capability: numba-cuda asks the current GPU for it, and there may be none."""
    former = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: SimpleNamespace(compute_capability=capability)
    try:
        yield
    finally:
        dispatcher.get_current_device = former


def library(function: Callable, kinds: Sequence[str], capability: Capability, threads: int, blocks: int) -> Any:
    """Return an entry point in LLVM's language: it takes most of the time, and is the same for all capabilities.

    Parameters
    ----------
    function : callable
    kinds : sequence of str
        Type of each parameter, such as "int32", or of a pointer "float32*".
    capability : Capability
        One of those that it shall be translated for.
    threads, blocks : int
        Threads a block, and blocks that shall fit on a multiprocessor at once.
    """
    with _capability(capability):
        found, _ = compiler._compile_pyfunc_with_fixup(
            function, types.void(*map(_type, kinds)), debug=False, lineinfo=False, device=False, fastmath=False,
            cc=capability, opt=True, abi="numba", abi_info=None, forceinline=False, launch_bounds=(threads, blocks),
            lto=False,
        )  # fmt: skip
    return found


def translated(library: Any, capability: Capability) -> str:
    """Return the PTX of what `library` returned."""
    return library.get_asm_str(cc=capability)


def linked(text: str, capability: Capability) -> bytes:
    """Return the machine code of PTX.

    Raises
    ------
    RuntimeError
        If the linker is too old to know the capability.
    """
    from cuda.core import Linker, LinkerOptions, ObjectCode

    options = LinkerOptions(arch="sm_" + "".join(map(str, capability)))
    try:
        return bytes(Linker(ObjectCode.from_ptx(text.encode()), options=options).link("cubin").code)
    except Exception as error:  # cuda.core has a kind for each linker, whose words differ from version to version
        if not re.search("gpu-name|UNRECOGNIZED_ARCH", str(error)):
            raise
        number = ".".join(map(str, capability[:2]))
        raise RuntimeError(
            f"the installed CUDA compiler does not know GPUs of compute capability {number}: {INSTALL}"
        ) from error
