"""Machine code on disk: keyed by every kernel source, so that an edit anywhere in the package can't leave stale code.

The folder's name is a hash of all kernel sources and of the compiler's versions, each file's name is a hash of its
whole key, files are written to the side and renamed, and their bytes are checked against a digest before they are used.
A folder that can't be written means no cache, never an error. The digest finds damage, not malice: whoever can write to
the folder can run code, so one that others can write to is not used at all (see `numbanet.trusted`).

Every version of the package, and every edit of a kernel, has a folder of its own. Whoever begins one removes those that
no process has used for a month, and all but the last used few. A process that loses its folder that way compiles anew
what it needs: it reads and writes whole files only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from numbanet import settings, trusted
from numbanet.sources import Sources

_DIGEST_BYTES = 32
_UNUSED_SECONDS = 30 * 24 * 3600
_FOLDERS = 24  # as many at most
_PART = ".part"
_claimed: set[Path] = set()  # the locks that this process holds
_WRITING_SECONDS = 3600  # nobody takes longer to write a file
_WAITING_SECONDS = 10.0  # hardly any kernel takes longer to compile


class Store:
    """The machine code of one version of some sources.

    Parameters
    ----------
    prefix : str
        What the names of its folders begin with.
    sources : Sources
        The files that the code follows from.
    versions : callable
        Returns what else the code follows from: the versions of those that compile it.
    """

    def __init__(self, prefix: str, sources: Sources, versions: Callable[[], Any]):
        self.prefix, self._sources, self._versions = prefix, sources, versions

    @cached_property
    def version(self) -> str:
        """The hash of every source, and of the versions."""
        return hashlib.sha256(repr((self._versions(), self._sources.hash)).encode()).hexdigest()[:16]

    def _serves(self) -> bool:
        """Return whether what is in the folder is what this process would compile, and the other way round."""
        if not settings.cache_enabled():
            return False
        unchanged = self._sources.unchanged()
        if not unchanged:
            edited = "kernels were edited since numbanet was imported"
            settings.log(f"kernel cache: not used, as {edited if self._sources.seen else 'they have no files'}")
        return unchanged

    def folder(self) -> Path:
        """Return the folder: below ``NUMBANET_CACHE_DIR`` or the user's cache folder."""
        return settings.cache_root() / f"{self.prefix}{self.version}"

    def read(self, name: str) -> bytes | None:
        """Return what was stored under a name; None where there is nothing, or nothing that can be trusted."""
        if not self._serves():
            return None
        path = self.folder() / name
        try:
            content = trusted.read(path)
        except OSError:
            return None
        _note_use(path.parent)
        digest, payload = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != digest:
            settings.log(f"kernel cache: {path} is damaged; compiling anew")
            return None
        return payload

    def write(self, name: str, payload: bytes) -> None:
        """Store bytes under a name; where the folder can't be written, say so in the log and go on without."""
        if not self._serves():
            return
        path = self.folder() / name
        try:
            self.begin()
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

    def stamp(self, name: str) -> tuple[int, int] | None:
        """Return what differs between a file and another one of its name; None where there is none."""
        return _identity(self.folder() / name)

    @contextmanager
    def claim(self, name: str) -> Iterator[None]:
        """Within a ``with`` block, be the process that makes a file: others wait for it, ten seconds at most.

        They do the same work then, and where there are no locks of files; it is a matter of time only. A process waits
        for none of its own claims: who asks a second time is a signal handler, in the middle of the work.
        """
        path = self.folder() / f"{name}.lock"
        handle = None if path in _claimed or not self._serves() else self._lock(path)
        if handle is None:
            yield
            return
        _claimed.add(path)
        try:
            yield
        finally:
            _claimed.discard(path)
            with suppress(OSError):
                path.unlink()
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # which ends it in forked processes, too
            os.close(handle)

    def _lock(self, path: Path) -> int | None:
        """Return a file that is locked, and bears its name; None if that can't be had."""
        end = time.monotonic() + _WAITING_SECONDS
        while fcntl is not None and time.monotonic() < end:
            try:
                self.begin()
                handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            except OSError:
                return None
            locked = False
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = os.fstat(handle)
                locked = (found.st_ino, found.st_mtime_ns) == _identity(path)  # else its holder has removed it
            except BlockingIOError:
                time.sleep(0.01)
            except OSError:  # of file systems without locks
                return None
            finally:
                if not locked:
                    os.close(handle)
            if locked:
                return handle
        return None

    def count(self, suffix: str) -> int:
        """Return how many files there are whose names end so."""
        return sum(path.suffix == suffix for path in self.folder().glob("*"))

    def begin(self) -> None:
        """Make the folder; where it is new, remove those of versions that are out of use."""
        folder = self.folder()
        known = folder.is_dir()
        trusted.make(folder)
        if known:
            return
        # The folder above may be anybody's: what bears another name than ours stays.
        name = re.compile(re.escape(self.prefix) + "[0-9a-f]{16}")
        others = [(_last_use(p), p) for p in folder.parent.iterdir() if name.fullmatch(p.name) and p != folder]
        latest = sorted(others, reverse=True)
        for position, (used, path) in enumerate(latest, 1):
            if position >= _FOLDERS or used < time.time() - _UNUSED_SECONDS:
                settings.log(f"kernel cache: removing {path}, which was last used {time.ctime(used)}")
                shutil.rmtree(path, ignore_errors=True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_claimed.clear)


@cache
def _note_use(folder: Path) -> None:
    """Set the time of a folder's last use, once a process: reading its files does not; remove what killed ones left."""
    with suppress(OSError):  # of another user, or gone: it is removed sooner, and compiled again
        os.utime(folder)
    for left in (*folder.glob(f"*{_PART}"), *folder.glob("*.lock")):
        if _last_use(left) < time.time() - _WRITING_SECONDS:
            with suppress(OSError):
                left.unlink()


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _last_use(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:  # another process was faster to remove it
        return 0.0


def file_name(stem: str, kind: str, *parts: Any) -> str:
    """Return the name of a file: readable, and with a hash of the whole key."""
    return f"{stem}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}.{kind}"
