"""Locks that nobody waits for in vain: neither a signal handler nor a forked child."""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any

_locks: weakref.WeakSet[Any] = weakref.WeakSet()


def new_lock() -> Any:
    """Return a lock for ``with`` statements.

    Its holder may take it again: a signal handler runs in the middle of anything that the main thread does, and may
    compute as well. In a forked child it is free unless the thread that forked holds it: another holder is not there.
    """
    lock = threading.RLock()
    _locks.add(lock)
    return lock


class FreshLock:
    """The same for objects that are made by the thousand: it costs no entry in a list.

    It is made anew when it is first taken after a fork.
    """

    __slots__ = ("_forks", "_lock")

    def __init__(self) -> None:
        self._lock, self._forks = threading.RLock(), _Forks.count

    def __enter__(self) -> None:
        if self._forks != _Forks.count:
            with _renewing:
                if self._forks != _Forks.count and not self._lock._is_owned():  # type: ignore[attr-defined]
                    self._lock = threading.RLock()
                self._forks = _Forks.count
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


class _Forks:
    """How many times this process, and those before it, were forked."""

    count = 0


_renewing = new_lock()


def _after_fork() -> None:
    _Forks.count += 1
    for lock in _locks:
        if not lock._is_owned():
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
