"""The CUDA side of the engine. Importing it imports no CUDA package, and touches no GPU."""

from __future__ import annotations


def unavailable_reason() -> str | None:
    """Return why no GPU can be used, or None if one can."""
    from numbanet.cuda import launch

    return None if launch.chosen() is not None else "this version of numbanet has no CUDA kernels"
