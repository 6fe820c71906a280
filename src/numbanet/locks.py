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


def _after_fork() -> None:
    for lock in _locks:
        if not lock._is_owned():
            lock._at_fork_reinit()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
