"""Faults at a chosen call to the file system: the disk is full, Ctrl-C is pressed, or the process is killed."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from numbanet.io import atomic

Fault = Callable[[], object]


def failure(number: int) -> Fault:
    """Return what raises the error of a system call."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def interrupt() -> None:
    """Press Ctrl-C where nobody listens for it."""
    raise KeyboardInterrupt


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


DISK_FULL, DENIED, VANISHED, BROKEN = map(failure, (errno.ENOSPC, errno.EACCES, errno.ENOENT, errno.EIO))


@contextmanager
def fault_at(call: int, fault: Fault, after: bool = False) -> Iterator[Callable[[], int]]:
    """Within a ``with`` block, let a fault happen at the `call`-th call (from 0) of what writes files atomically.

    `after` lets it happen when the call has done its work. What is yielded tells how many calls there were.
    """
    calls = 0

    def faulty(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            here, calls = calls == call, calls + 1
            if here and not after:
                fault()
            result = function(*args, **kwargs)
            if here and after:
                if hasattr(result, "close"):
                    result.close()
                fault()
            return result

        return called

    def opened(*args: Any, **kwargs: Any) -> Any:
        stream = open(*args, **kwargs)  # noqa: SIM115 - the caller closes it
        proxy = _Stream(stream)
        proxy.write, proxy.flush = faulty(_in_two(stream)), faulty(stream.flush)  # type: ignore[method-assign]
        return proxy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(atomic, "open", faulty(opened), raising=False)
        for name in ("fsync", "replace"):
            patch.setattr(os, name, faulty(getattr(os, name)))
        patch.setattr(Path, "mkdir", faulty(Path.mkdir))
        yield lambda: calls


class _Stream:
    """A file whose methods can be replaced."""

    def __init__(self, stream: Any):
        self.close, self.fileno = stream.close, stream.fileno
        self.write, self.flush = stream.write, stream.flush

    def __enter__(self) -> _Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _in_two(stream: Any) -> Callable[[bytes], int]:
    """Return what writes a half, which reaches the file, and then the other."""

    def write(content: bytes) -> int:
        stream.write(content[: len(content) // 2])
        stream.flush()
        return int(stream.write(content[len(content) // 2 :]))

    return write
