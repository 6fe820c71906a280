"""Which layer of a model an error comes from."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from types import FrameType
from typing import Any

# Exactly these: of others nobody knows what their arguments mean.
_KINDS = (TypeError, ValueError, RuntimeError)
_KEY = "_numbanet_layer"


def locate(error: Exception, module: Any) -> None:
    """Tell in the text of an error, on its way out of a call of `module`, which layer below that raised it.

    Every module does so, the innermost first: each finds the name of the one before among its own, and puts it in front
    of the path. An error of a layer that was called by itself stays as it is. What others write into the error on its
    way stays too: the path begins anew behind it. The error holds texts and numbers, no module: it can be pickled.

    Parameters
    ----------
    error : Exception
    module : Module
        The one whose ``__call__`` calls this.
    """
    if type(error) not in _KINDS or len(error.args) != 1 or not isinstance(error.args[0], str):
        return
    with suppress(Exception):  # of a module that can't be asked for its layers: the error at hand is the one to show
        _extend(error, module, _is_outermost(sys._getframe(1)))


def _extend(error: Exception, module: Any, outermost: bool) -> None:
    """Put the name of the module before into the text, and keep what the next module needs to do so."""
    told = error.args[0]
    text, written, inner, ended, path, layer = error.__dict__.get(_KEY, (told, told, None, False, "", ""))
    # The module is alive as long as the error is in one of its calls.
    own = os.getpid(), threading.get_ident(), id(module), type(module).__name__
    if told != written or (inner is not None and inner[0] != own[0]):  # others wrote, or another process
        text, inner = told, None
    if inner is not None and ended and (inner[1] == own[1] or not _is_below(inner, module)):
        inner = None  # somebody raises the error once more
    if inner is None:
        written, path, layer = text, "", _described(module)
    elif inner != own:
        path = f"{_name(module, inner)}.{path}".rstrip(".")
        written = f"{text} (layer {path!r}: {layer})"
    error.args = (written,)
    # An outermost call ends the way, unless it is that of a thread for a module that called it.
    error.__dict__[_KEY] = text, written, own, outermost, path, layer


def _is_outermost(call: FrameType) -> bool:
    """Return whether a frame of ``Module.__call__`` is in no other call of a module."""
    code, frame = call.f_code, call.f_back
    while frame is not None and frame.f_code is not code:
        frame = frame.f_back
    return frame is None


def _described(module: Any) -> str:
    try:
        return type(module).__name__ if module._modules else repr(module)
    except Exception:  # of somebody's extra_repr
        return type(module).__name__


def _is(module: Any, other: tuple[int, int, int, str]) -> bool:
    return (id(module), type(module).__name__) == other[2:]


def _is_below(inner: tuple[int, int, int, str], module: Any) -> bool:
    return any(name for name, found in module.named_modules() if _is(found, inner))


def _name(module: Any, inner: tuple[int, int, int, str]) -> str:
    """Return the dotted name of a module below another, or its class if nobody registered it."""
    return next((name for name, found in module.named_modules() if _is(found, inner)), f"<{inner[3]}>")
