"""Forward hooks: functions that a module calls before or after its forward, until their handle is removed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from numbanet.changes import Table

_numbers = itertools.count()


class Hooks(Table):
    """The hooks of one kind of one module, in the order of their calls: number -> (hook, with_kwargs)."""

    def add(self, hook: Callable[..., Any], prepend: bool, with_kwargs: bool) -> RemovableHandle:
        """Add a hook at the end, or at the beginning, and return its handle."""
        handle = RemovableHandle(self)
        later = {} if not prepend else dict(self)
        if prepend:
            self.clear()
        self[handle.number] = (hook, with_kwargs)
        self.update(later)
        return handle


class RemovableHandle:
    """Removes a hook: by `remove`, or at the end of a ``with`` block."""

    def __init__(self, hooks: Hooks):
        self.number = next(_numbers)
        self._hooks = hooks

    def remove(self) -> None:
        """Remove the hook; a second call does nothing."""
        self._hooks.pop(self.number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
