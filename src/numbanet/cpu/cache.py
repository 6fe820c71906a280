"""Machine code on disk: keyed by every kernel source, so that an edit anywhere in the package can't leave stale code.

Numba's own cache looks at the file of the compiled function only and numbers its data files, so an edited helper goes
unnoticed and two processes that fill one index can cross their entries. Here the folder's name is a hash of all kernel
sources and of the compiler's versions, each file's name is a hash of its whole key, files are written to the side and
renamed, and their bytes are checked against a digest before they are used. A folder that can't be written means no
cache, never an error. The digest finds damage, not malice: whoever can write to the folder can run code, so one that
others can write to is not used at all (see `numbanet.trusted`).

Every version of the package, and every edit of a kernel, has a folder of its own. Whoever begins one removes those that
no process has used for a month, and all but the last used few. A process that loses its folder that way compiles anew
what it needs: it reads and writes whole files only.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import llvmlite
import numba
from numba.core.compiler import CompileResult

from numbanet import settings, trusted

_DIGEST_BYTES = 32
_UNUSED_SECONDS = 30 * 24 * 3600
_FOLDERS = 24  # as many at most
_PREFIX = "kernels-"
_PART = ".part"
_WRITING_SECONDS = 3600  # nobody takes longer to write a file


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
    return settings.cache_root() / f"{_PREFIX}{source_hash()}"


@cache
def _note_use(folder: Path) -> None:
    """Set the time of a folder's last use, once a process: reading its files does not; remove what killed ones left."""
    with suppress(OSError):  # of another user, or gone: it is removed sooner, and compiled again
        os.utime(folder)
    for part in folder.glob(f"*{_PART}"):
        if _last_use(part) < time.time() - _WRITING_SECONDS:
            with suppress(OSError):
                part.unlink()


def _begin(folder: Path) -> None:
    """Make the folder of this version; where it is new, remove those of versions that are out of use."""
    if folder.is_dir():
        trusted.make(folder)
        return
    trusted.make(folder)
    others = [(_last_use(path), path) for path in folder.parent.glob(f"{_PREFIX}*") if path != folder]
    latest = sorted(others, reverse=True)
    for position, (used, path) in enumerate(latest, 1):
        if position >= _FOLDERS or used < time.time() - _UNUSED_SECONDS:
            settings.log(f"kernel cache: removing {path}, which was last used {time.ctime(used)}")
            shutil.rmtree(path, ignore_errors=True)


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process was faster to remove it
        return 0.0


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
            content = trusted.read(path)
        except OSError:
            return None
        _note_use(path.parent)
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            settings.log(f"kernel cache: {path} is damaged; compiling anew")
            return None
        try:
            return CompileResult._rebuild(target_context, *pickle.loads(payload))
        except Exception as error:
            # Machine code belongs to the module of its kernel, and one that was executed from a file has no name. What
            # else may go wrong in Numba's hands is no reason to fail, either, where compiling will do.
            settings.log(f"kernel cache: {path} can't be loaded ({type(error).__name__}: {error}); compiling anew")
            return None

    def save_overload(self, signature: Any, result: CompileResult) -> None:
        """Store machine code; where the folder can't be written, say so in the log and go on without."""
        if not settings.cache_enabled() or result.library.has_dynamic_globals:
            return
        path = self._path(signature, result.target_context)
        payload = pickle.dumps(result._reduce())
        try:
            _begin(path.parent)
            handle, part = tempfile.mkstemp(dir=path.parent, suffix=_PART)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(hashlib.sha256(payload).digest() + payload)
                os.replace(part, path)
            except BaseException:
                with suppress(OSError):
                    os.unlink(part)
                raise
        except OSError as error:
            settings.log(f"kernel cache: {path.parent} can't be written ({error}); going on without")

    def enable(self) -> None:
        """Do nothing: `settings.cache_enabled` decides."""

    disable = flush = enable
