"""Interrupts before a chosen instruction of Python's."""

from __future__ import annotations

import sys
from typing import Any


class Interrupt:
    """Within a ``with`` block, raise KeyboardInterrupt before instruction `at` of those in some files; never for 0.

    Attributes
    ----------
    met : int
        How many of their instructions were met.
    """

    def __init__(self, files: tuple[str, ...], at: int):
        self._files, self._at, self.met = files, at, 0

    def _follow(self, frame: Any, event: str, _: Any) -> Any:
        if frame.f_code.co_filename.endswith(self._files):
            frame.f_trace_opcodes = True
            if event == "opcode":
                self.met += 1
                if self.met == self._at:
                    sys.settrace(None)
                    raise KeyboardInterrupt
        return self._follow

    def __enter__(self) -> Interrupt:
        self._former = sys.gettrace()
        sys.settrace(self._follow)
        return self

    def __exit__(self, *exception: object) -> None:
        sys.settrace(self._former)
