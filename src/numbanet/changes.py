"""A mark that is another one after every change of a module or of a tensor that says so.

Who has looked at many of them need not look again as long as the mark is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_mark = object()


def mark() -> object:
    """Return the mark of the last change."""
    return _mark


def changed() -> None:
    """Say that something has changed: to be called after the change."""
    global _mark
    _mark = object()  # one step, and nothing is counted: no change of another thread gets lost


class Table(dict[Any, Any]):
    """A dictionary whose changes are said."""


def _saying(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    def change(self: Table, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        finally:
            changed()

    change.__name__, change.__qualname__, change.__doc__ = name, f"Table.{name}", method.__doc__
    return change


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault", "update"):
    setattr(Table, _name, _saying(_name))
