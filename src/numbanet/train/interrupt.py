"""Ctrl-C asks a training to stop after the step at hand, where its state is whole."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any

_NOTICE = "numbanet: stopping after this batch (a first one may be compiling its kernels); Ctrl-C once more: at once"


class Interrupted(KeyboardInterrupt):
    """Ctrl-C ended a training; the message tells where it stands and where it was saved."""


class StopRequest:
    """A context in which Ctrl-C sets `requested`; a second Ctrl-C interrupts at once.

    Outside the main thread, where Python delivers no signals, and where Ctrl-C is ignored, nothing is changed.

    Parameters
    ----------
    tell : callable
        Shows a line, which says what happens now.
    """

    def __init__(self, tell: Callable[[str], object]) -> None:
        self.requested = False
        self._tell = tell
        self._former: Any = None

    def __enter__(self) -> StopRequest:
        in_main_thread = threading.current_thread() is threading.main_thread()
        if in_main_thread and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            self._former = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()
        # A stream that is gone, or that the main program was just writing to, is no reason to lose the training.
        with suppress(OSError, ValueError, RuntimeError):
            self._tell(_NOTICE)

    def _restore(self) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)
            self._former = None
