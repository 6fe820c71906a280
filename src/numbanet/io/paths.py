"""Names of files, as callers give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def as_path(name: str, value: Any) -> Path:
    """Return `value` as a path; TypeError that calls it `name` if it is none."""
    try:
        return Path(value)
    except TypeError:
        raise TypeError(f"{name} must be a path, got {value!r}") from None
