"""The CPU's machine code on disk (see `numbanet.code_cache`), behind the interface that Numba's compilers call.

Numba's own cache looks at the file of the compiled function only and numbers its data files, so an edited helper goes
unnoticed and two processes that fill one index can cross their entries.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core.compiler import CompileResult
from numba.core.runtime import rtsys

from numbanet import code_cache, fingerprint, settings, sources
from numbanet.cpu.cache_sizes import caches


def _versions() -> tuple[Any, ...]:
    from numbanet import __version__  # which imports this module

    # Kernels hold sizes of blocks.
    return *sys.version_info[:2], numba.__version__, llvmlite.__version__, __version__, caches()


STORE = code_cache.Store("kernels-", sources.CPU, _versions)


def source_hash() -> str:
    """Return the hash of every Python file of the package's CPU side and of the versions that compile it."""
    return STORE.version


def cache_dir() -> Path:
    """Return the folder of this version's machine code: below ``NUMBANET_CACHE_DIR`` or the user's cache folder."""
    return STORE.folder()


class KernelCache:
    """The disk cache of one kernel, with the interface that Numba's compilers call.

    Parameters
    ----------
    function : callable
        The Python function; its qualified name, its code, and what it refers to are part of the key.
    text : str
        The hash of its file, where it has one of its own (see `fingerprint.text_hash`).
    """

    def __init__(self, function: Callable, text: str = ""):
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._code = fingerprint.hash_of(function, text)
        self._own = fingerprint.is_known(function)
        self._claim = ExitStack()

    def _file(self, signature: Any, target_context: Any) -> str:
        target = target_context.codegen().magic_tuple()
        stem = self._name.rpartition(".")[2]
        return code_cache.file_name(stem, "bin", self._name, self._code, str(signature), target)

    def load_overload(self, signature: Any, target_context: Any) -> CompileResult | None:
        """Return the stored machine code, or None where there is none, or none that can be trusted."""
        if not settings.cache_enabled():
            return None
        name = self._file(signature, target_context)
        before = STORE.stamp(name)
        payload = STORE.read(name)
        if payload is None:
            self._claim.enter_context(STORE.claim(name))
            if STORE.stamp(name) != before:  # another process has made it
                payload = STORE.read(name)
        if payload is None:
            return None
        # All that Numba and its extensions implement takes half a second to load. It is for compilers, but for symbols
        # that kernels of others may refer to; those of this package take them from Numba's runtime only.
        rtsys.initialize(target_context) if self._own else target_context.refresh()
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception as error:
            # Machine code belongs to the module of its kernel, and one that was executed from a file has no name. What
            # else may go wrong in Numba's hands is no reason to fail, either, where compiling will do.
            settings.log(f"kernel cache: {name} can't be loaded ({type(error).__name__}: {error}); compiling anew")
            return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        """Store machine code; where the folder can't be written, say so in the log and go on without."""
        if settings.cache_enabled() and not result.library.has_dynamic_globals:
            STORE.write(self._file(signature, result.target_context), pickle.dumps(result._reduce()))

    def release(self) -> None:
        """End the claim on what `load_overload` did not find: it is stored, or will not be."""
        self._claim.close()

    def enable(self) -> None:
        """Do nothing: `settings.cache_enabled` decides."""

    disable = flush = enable
