"""Machine code on disk: keyed by every kernel source, so that an edit anywhere in the package can't leave stale code.

Numba's own cache looks at the file of the compiled function only and numbers its data files, so an edited helper goes
unnoticed and two processes that fill one index can cross their entries. Here the folder's name is a hash of all kernel
sources and of the compiler's versions, each file's name is a hash of its whole key, files are written to the side and
renamed, and their bytes are checked against a digest before they are trusted. A folder that can't be written means no
cache, never an error.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core.compiler import CompileResult

from numbanet import settings

_DIGEST_BYTES = 32


def _package_version() -> str:
    from numbanet import __version__  # which imports this module

    return __version__


@lru_cache(maxsize=1)
def source_hash() -> str:
    """Return the hash of every Python file of the package's CPU side and of the versions that compile it."""
    versions = (*sys.version_info[:2], numba.__version__, llvmlite.__version__, _package_version())
    digest = hashlib.sha256(repr(versions).encode())
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def cache_dir() -> Path:
    """Return the folder of this version's machine code: below ``NUMBANET_CACHE_DIR`` or the user's cache folder."""
    return settings.cache_root() / f"kernels-{source_hash()}"


@cache
def _read_hash(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # typed at a prompt
        return ""


def _file_hash(function: Callable) -> str:
    """Return the hash of the file that defines a kernel: one outside the package may have helpers of its own."""
    return _read_hash(function.__code__.co_filename)


def _fingerprint(value: Any) -> Any:
    """Return what tells a function from others, or a value that it closes over, without addresses."""
    value = getattr(value, "py_func", value)
    code = value if isinstance(value, CodeType) else getattr(value, "__code__", None)
    if code is None:
        return repr(value)
    # The bytecode alone is the same for two kernels that differ in what they call.
    constants = [_fingerprint(constant) for constant in code.co_consts]
    cells = [_fingerprint(cell.cell_contents) for cell in getattr(value, "__closure__", None) or ()]
    return code.co_code.hex(), code.co_names, constants, getattr(value, "__qualname__", ""), cells


class KernelCache:
    """The disk cache of one kernel, with the interface that Numba's compilers call.

    Parameters
    ----------
    function : callable
        The Python function; its qualified name, its code, what it closes over, and its file are part of the key.
    """

    def __init__(self, function: Callable):
        self._name = f"{function.__module__}.{function.__qualname__}"
        self._code = hashlib.sha256(repr((_fingerprint(function), _file_hash(function))).encode()).hexdigest()

    def _path(self, signature: Any, target_context: Any) -> Path:
        key = repr((self._name, self._code, str(signature), target_context.codegen().magic_tuple()))
        return cache_dir() / f"{self._name.rpartition('.')[2]}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.bin"

    def load_overload(self, signature: Any, target_context: Any) -> CompileResult | None:
        """Return the stored machine code, or None where there is none, or none that can be trusted."""
        target_context.refresh()
        if not settings.cache_enabled():
            return None
        path = self._path(signature, target_context)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            settings.log(f"kernel cache: {path} is damaged; compiling anew")
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except ImportError as error:
            # Machine code belongs to the module of its kernel, and one that was executed from a file has no name.
            settings.log(f"kernel cache: {path} needs a module that can't be imported ({error}); compiling anew")
            return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        """Store machine code; where the folder can't be written, say so in the log and go on without."""
        if not settings.cache_enabled() or result.library.has_dynamic_globals:
            return
        path = self._path(signature, result.target_context)
        payload = pickle.dumps(result._reduce())
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(hashlib.sha256(payload).digest() + payload)
                os.replace(part, path)
            except BaseException:
                os.unlink(part)
                raise
        except OSError as error:
            settings.log(f"kernel cache: {path.parent} can't be written ({error}); going on without")

    def enable(self) -> None:
        """Do nothing: `settings.cache_enabled` decides."""

    disable = flush = enable
