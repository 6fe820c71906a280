"""The CUDA side of the engine. Importing it imports no CUDA package, and touches no GPU."""

from __future__ import annotations


def unavailable_reason(ordinal: int = 0) -> str | None:
    """Return why a GPU, by its number, can't be used, or None if it can. This initialises no GPU."""
    from numbanet.cuda import launch, probe

    inside = launch.chosen()
    if inside is not None and inside.ordinal == ordinal:
        return None
    return probe.reason() or (probe.beyond(ordinal) if ordinal else None)
