"""The parameters and buffers of a model, to a file and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from numbanet.io.checkpoint import load_with_metadata, save
from numbanet.io.state import is_state, unpack_state


def save_model(model: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write `model.state_dict()` as a safetensors file, atomically; PyTorch's safetensors reader takes it too."""
    save(path, _checked(model).state_dict(), metadata)


def load_model(model: Any, path: str | os.PathLike[str], strict: bool = True) -> None:
    """Load parameters and buffers into a model.

    Parameters
    ----------
    model : numbanet.nn.Module
    path : path
        A file of `save_model`, a checkpoint of `numbanet.train.fit`, or any safetensors file with the model's keys.
    strict : bool
        Whether missing and unexpected keys are errors.

    Raises
    ------
    FileNotFoundError, ValueError
        If the file is missing or damaged; see `load`.
    RuntimeError
        If keys or shapes do not fit the model; see `Module.load_state_dict`.
    """
    _checked(model)
    tensors, metadata = load_with_metadata(path)
    state: Any = tensors
    reader = f"numbanet.io.load({os.fspath(path)!r})"
    if is_state(metadata):
        state = unpack_state(path, tensors, metadata).get("model")
        if not isinstance(state, dict):
            raise ValueError(f"{os.fspath(path)}: holds no state_dict under 'model': numbanet.io.load_state reads it")
        reader = f"numbanet.io.load_state({os.fspath(path)!r})['model']"
    try:
        model.load_state_dict(state, strict=strict)
    except (ValueError, RuntimeError) as error:
        # What the error may tell to load instead is written in terms of a state_dict.
        remedy = f"\n  with state_dict = {reader}" if ": load " in str(error) else ""
        raise type(error)(f"{os.fspath(path)}: {error}{remedy}") from None


def _checked(model: Any) -> Any:
    if not hasattr(model, "state_dict") or not hasattr(model, "load_state_dict"):
        raise TypeError(f"model must be a Module, got {type(model).__name__}")
    return model
