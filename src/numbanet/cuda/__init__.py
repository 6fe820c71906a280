"""The CUDA side of the engine: no kernel yet, so no device can be used, and this says why."""

from __future__ import annotations


def unavailable_reason() -> str | None:
    """Return why no GPU can be used, or None if one can."""
    return "this version of numbanet has no CUDA kernels"
