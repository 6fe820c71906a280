"""Compile the kernels of a step's backward in a second process, while this one goes forward and compiles as well.

Compilers hold Python's lock, so a process compiles on one CPU only. A process that has compiled for a second, and then
records operations for a backward, starts another one and sends it the backward functions; that one calls them with
launches that compile, and run nothing. What it compiles gets into the kernel cache on disk, where this process finds
it; where files have locks, neither compiles what the other one is at (`numbanet.code_cache.Store.claim`).
"""

from __future__ import annotations

import atexit
import importlib
import io
import marshal
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import CellType, FunctionType
from typing import Any, BinaryIO

import numpy as np

from numbanet import fingerprint, memory, settings, tape
from numbanet.cpu.compile import Spent
from numbanet.cpu.limits import default_threads
from numbanet.deferred import Deferred
from numbanet.locks import new_lock
from numbanet.tensor import Tensor, array_of
from numbanet.watch import Watch, watching

__all__ = ["begin", "serve"]

_SMALL = 1 << 10  # bytes of arrays that are sent as they are: Python may look at what they hold
_QUIET = 5.0  # seconds without a compilation, after which there is nothing more to do ahead
_IDLE = 60.0  # seconds without a message, after which the other process ends
_PROGRAM = "import sys; sys.path[:] = {!r}; from numbanet.ahead import serve; serve(sys.stdin.buffer)"


class _Pickler(pickle.Pickler):
    """Describes functions that were made within others of this package, arrays by their layout, tensors without a tape.

    Nothing is computed for it: of values that wait, the shape is known.
    """

    def reducer_override(self, x: Any) -> Any:
        """Return how to make something like x; PicklingError if another package has to be imported for that."""
        owner = x if isinstance(x, (type, FunctionType)) else type(x)
        module = sys.modules.get(owner.__module__)
        if module is None or not fingerprint.is_known_module(module):  # one of a user may do anything
            raise pickle.PicklingError(f"{owner.__qualname__} is of {owner.__module__}")
        if type(x) is np.ndarray and x.nbytes > _SMALL:
            return memory.laid_out, (x.shape, x.strides, x.dtype)
        if type(x) is FunctionType and "<locals>" in x.__qualname__:
            cells = tuple(cell.cell_contents for cell in x.__closure__ or ())
            return _function, (x.__module__, marshal.dumps(x.__code__), x.__defaults__, x.__kwdefaults__, cells)
        if isinstance(x, Tensor):
            waits = type(x) is Deferred and x.pending
            return Tensor, (np.empty(x.shape, x.dtype) if waits else array_of(x), x.requires_grad)
        return NotImplemented


def _function(module: str, code: bytes, defaults: Any, by_name: Any, contents: tuple[Any, ...]) -> FunctionType:
    names = vars(importlib.import_module(module))
    function = FunctionType(marshal.loads(code), names, None, defaults, tuple(map(CellType, contents)))
    function.__kwdefaults__ = by_name
    return function


def describe(backward: Callable[..., Any], grad: np.ndarray) -> bytes | None:
    """Return what another process needs to call a backward function with a gradient like `grad`.

    None if that can't be told: of functions of other packages, and of those that hold open files, say.
    """
    stream = io.BytesIO()
    try:
        _Pickler(stream).dump((settings.get_precision(), backward, grad))
    except Exception as error:  # it may close over anything, and a step never fails for this
        settings.log(f"not compiled ahead: {backward} ({type(error).__name__}: {error})")
        return None
    return stream.getvalue()


def _flags() -> list[str]:
    """Return the options of this process that say where Python looks for modules."""
    options = {"I": sys.flags.isolated, "E": sys.flags.ignore_environment, "s": sys.flags.no_user_site,
               "S": sys.flags.no_site}  # fmt: skip
    return [f"-{letter}" for letter, given in options.items() if given]


class _Other:
    """The other process. A thread writes to it, as it may be at work, and nobody here shall wait."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *_flags(), "-c", _PROGRAM.format([*map(str, sys.path)])],
            env=os.environ | {"NUMBANET_AHEAD": "0"}, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=None if settings.verbose() else subprocess.DEVNULL,
            bufsize=0,  # a forked process has no part of a message, which it would write as well
            start_new_session=True,  # Ctrl-C is not meant for it
        )  # fmt: skip
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._sent: set[bytes] = set()
        self._id = os.getpid()
        atexit.register(self.end)
        try:
            threading.Thread(target=self._write, name="numbanet-ahead", daemon=True).start()
        except BaseException:  # this process may have no more threads; or Ctrl-C
            self.end()
            raise

    def _write(self) -> None:
        assert self._process.stdin is not None
        if hasattr(signal, "pthread_sigmask"):  # of a pipe without a reader this thread hears by an error alone
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with suppress(OSError), self._process.stdin as pipe:  # the other end may be closed
            while (message := self._messages.get()) is not None:
                rest = memoryview(len(message).to_bytes(8, "little") + message)
                while rest:
                    rest = rest[pipe.write(rest) :]

    def send(self, message: bytes) -> None:
        """Send a message, if it was not sent before."""
        if message not in self._sent:
            self._sent.add(message)
            self._messages.put(message)

    def end(self) -> None:
        """End it, at whatever it is; in a forked process, forget it."""
        atexit.unregister(self.end)
        self._messages.put(None)
        if os.getpid() != self._id:
            self._process.returncode = 0  # it is not this one's to wait for
            if self._process.stdin is not None:
                self._process.stdin.close()
            return
        self._process.kill()
        self._process.wait()


class _Ahead:
    """What this process compiles ahead.

    Attributes
    ----------
    other : _Other or None
    begun : bool
        Whether there was another process: there is one at most.
    """

    other: _Other | None = None
    begun = False
    lock = new_lock()


def begin() -> None:
    """Have the backward functions that are recorded from now on compiled ahead, for as long as kernels are compiled."""
    if not _Ahead.begun and settings.ahead() and default_threads() > 1 and _has_interpreter():
        _Ahead.begun = True
        tape.follow(_follow)


def _has_interpreter() -> bool:
    """Return whether Python can be started again: a program that holds it would start itself."""
    return Path(sys.executable or "").stem.lower().startswith("python") and not getattr(sys, "frozen", False)


def _follow(backward: Callable[..., Any], grad: Any) -> None:
    """Send a backward function of which the result has gradients like `grad`."""
    if type(grad) is not np.ndarray:
        return
    if time.perf_counter() > Spent.until + _QUIET:
        _stop()
        return
    message = describe(backward, grad)
    if message is None:
        return
    try:
        with _Ahead.lock:
            if _Ahead.other is None:
                _Ahead.other = _Other()
            _Ahead.other.send(message)
    except Exception as error:  # no process, or no thread, can be had
        settings.log(f"nothing is compiled ahead: {type(error).__name__}: {error}")
        _stop()


def _stop() -> None:
    tape.follow(None)
    with _Ahead.lock:
        other, _Ahead.other = _Ahead.other, None
    if other is not None:
        other.end()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_stop)


def serve(stream: BinaryIO) -> None:
    """Compile what the backward functions in a stream launch, and end the process with it, or when nothing comes."""
    from numbanet.cpu.parallel import launch_nothing

    launch_nothing()
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def read() -> None:
        while size := stream.read(8):
            messages.put(stream.read(int.from_bytes(size, "little")))
        os._exit(0)  # whatever is being compiled: nobody waits for it

    threading.Thread(target=read, daemon=True).start()
    with suppress(queue.Empty):
        while True:
            _compile(messages.get(timeout=_IDLE))
    os._exit(0)  # Python's own end would have to wait for the thread


def _compile(message: bytes) -> None:
    try:
        precision, backward, grad = pickle.loads(message)
        # Watched, since calls that come again would otherwise be done by what machine code remembers of them.
        with settings.precision(precision), watching(Watch()), np.errstate(all="ignore"):
            backward(grad)
    except Exception as error:  # what lies in its arrays is arbitrary
        settings.log(f"not compiled ahead: {type(error).__name__}: {error}")
