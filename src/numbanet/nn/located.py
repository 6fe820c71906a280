"""Which layer of a model an error comes from."""

from __future__ import annotations

from typing import Any

# Exactly these: of others nobody knows what their arguments mean.
_KINDS = (TypeError, ValueError, RuntimeError)


def locate(error: Exception, module: Any) -> None:
    """Tell in the text of an error, on its way out of a call of `module`, which layer below that raised it.

    Every module does so, the innermost first: each finds the name of the one before among its own, and puts it in front
    of the path. An error of a layer that was called by itself stays as it is.
    """
    if type(error) not in _KINDS or len(error.args) != 1 or not isinstance(error.args[0], str):
        return
    text, inner, path, layer = error.__dict__.get("_numbanet_layer", (error.args[0], None, "", _described(module)))
    if inner is not None and inner is not module:
        path = f"{_name(module, inner)}.{path}".rstrip(".")
        error.args = (f"{text} (layer {path!r}: {layer})",)
    error.__dict__["_numbanet_layer"] = text, module, path, layer


def _described(module: Any) -> str:
    return type(module).__name__ if module._modules else repr(module)


def _name(module: Any, inner: Any) -> str:
    """Return the dotted name of a module below another, or its class if nobody registered it."""
    return next((name for name, found in module.named_modules() if found is inner), f"<{type(inner).__name__}>")
