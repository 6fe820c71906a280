"""Folders that may hold machine code: whoever can write there can run code as the user who reads them.

So nothing is read from such a folder where somebody else could have put it, in the way of ssh: it must belong to this
user or to root, and neither its group nor others may write to it. The folder is opened once, looked at, and the file is
read through it: nobody can exchange it in between. Systems without such owners (Windows) are left to their own.
"""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path

from numbanet import settings

_OWNERS = hasattr(os, "geteuid") and os.open in os.supports_dir_fd


class UntrustedError(PermissionError):
    """A folder or file that somebody else could have written."""


def read(path: Path) -> bytes:
    """Return the content of a file in a folder that only this user and root can write.

    Raises
    ------
    UntrustedError
        If others can; a notice tells it once for each folder, and what to do.
    OSError
        If the file can't be read, or is no regular one.
    """
    if not _OWNERS:
        return path.read_bytes()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _check(path.parent, os.fstat(folder))
        # A pipe must not block, and a symbolic link leads out of the folder.
        handle = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    finally:
        os.close(folder)
    with os.fdopen(handle, "rb") as stream:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path}: is no regular file")
        _check(path, found)
        return stream.read()


def make(folder: Path) -> None:
    """Make a folder, and those above it, that only this user can write; one that is there must be trusted.

    Raises
    ------
    UntrustedError
        If others can write to it.
    OSError
        If it can't be made.
    """
    for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
        missing.mkdir(mode=0o755, exist_ok=True)
        if _OWNERS:
            missing.chmod(stat.S_IMODE(missing.stat().st_mode) & 0o755)  # a folder of a shared group hands on its bits
    if _OWNERS:
        _check(folder, folder.stat())


def fault(folder: Path) -> str | None:
    """Return why nothing is read from a folder, or None if it is trusted, or not there."""
    found = _fault(folder, folder.stat()) if _OWNERS and folder.is_dir() else None
    return None if found is None else found[0]


def _fault(path: Path, found: os.stat_result) -> tuple[str, str] | None:
    """Return what is wrong with a file or folder, and what to do about it."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to user {found.st_uid}", "name another folder by NUMBANET_CACHE_DIR"
    if found.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(found.st_mode):o})", f"chmod -R go-w {path}"
    return None


def _check(path: Path, found: os.stat_result) -> None:
    wrong = _fault(path, found)
    if wrong is not None:
        _tell(path, *wrong)
        raise UntrustedError(f"{path}: {wrong[0]}")


@lru_cache(maxsize=64)
def _tell(path: Path, fault: str, remedy: str) -> None:
    settings.notice(f"{path} {fault}: it is not used, as it could hold foreign machine code ({remedy})")
