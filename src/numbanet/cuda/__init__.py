"""The CUDA side of the engine. Importing it imports no CUDA package, and touches no GPU."""

from __future__ import annotations


def unavailable_reason() -> str | None:
    """Return why no GPU can be used, or None if one can. This initialises no GPU."""
    from numbanet.cuda import launch, probe

    return None if launch.chosen() is not None else probe.reason()
