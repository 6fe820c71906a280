"""Files that are there whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

from numbanet.io.paths import as_path

_PART = ".part"
_NAME = re.compile(r"\..+-\d+-[0-9a-f]{8}\.part")  # of a temporary file: that of its target, the process, chance
# What systems say that can't make a folder's entries reach the disk on demand, and of a folder that can't be read.
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file so that a crash at any moment leaves the old content or the new, never a part.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name in one step. Folders that
    are missing are made. A process that is killed meanwhile leaves its temporary file, which `remove_parts` removes.

    Raises
    ------
    OSError
        If the file can't be written; the message names it. What was there before is still there, and nothing else.
    """
    target = as_path("path", path)
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise TypeError(f"content must be bytes, got {type(content).__name__}")
    # Not a Path: those intern their names, which some versions of Python keep for ever.
    part = os.path.join(target.parent, f".{target.name}-{os.getpid()}-{secrets.token_hex(4)}{_PART}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, target)
    except BaseException as error:
        with suppress(OSError):  # it was not made, or the folder is gone
            os.unlink(part)
        if not isinstance(error, OSError):
            raise
        raise OSError(error.errno, f"not saved: {error.strerror or error}", str(target)) from error
    _sync_folder(target.parent)


def remove_parts(folder: str | os.PathLike[str]) -> None:
    """Remove what processes left in a folder that were killed while they wrote there; nobody may be writing to it."""
    for part in Path(folder).glob(f"*{_PART}"):
        if _NAME.fullmatch(part.name):
            with suppress(OSError):
                part.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power failure, where the system has a way to."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
