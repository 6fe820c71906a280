"""Who called this package: the line that a warning is about."""

from __future__ import annotations

import sys
from types import FrameType


def stacklevel() -> int:
    """Return the ``stacklevel`` with which the caller's warning names the first line outside of this package."""
    frame: FrameType | None = sys._getframe(1)
    level = 1
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "numbanet":
        frame, level = frame.f_back, level + 1
    return level
