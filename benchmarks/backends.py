"""The libraries that are compared, behind one set of names: both follow PyTorch's, so one source drives both."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

TORCH_FORMATS = ("torch", "torch:channels_last")
BACKENDS = ("numbanet", *TORCH_FORMATS)


@dataclass(frozen=True)
class Backend:
    """One library.

    Attributes
    ----------
    name : str
        One of `BACKENDS`; the format after the colon is that of PyTorch's images in memory.
    functional, nn, optim : module
    tensor : callable
        ``tensor(array, requires_grad=False)``: images come in the memory order that the backend's name says, numbanet's
        in its own.
    place : callable
        ``place(model)``: the model with its parameters in that memory order.
    cat : callable
        Joins tensors; PyTorch has it outside `functional`.
    no_grad : callable
        Context manager in which nothing is recorded.
    load : callable
        ``load(model, state)`` sets a model's parameters from a dict of NumPy arrays.
    synchronize : callable
        Wait until the device has done its work.
    """

    name: str
    functional: Any
    nn: Any
    optim: Any
    tensor: Callable[..., Any]
    place: Callable[[Any], Any]
    cat: Callable[..., Any]
    no_grad: Callable[[], AbstractContextManager[Any]]
    load: Callable[[Any, dict[str, np.ndarray]], Any]
    synchronize: Callable[[], None]


def available(name: str) -> bool:
    """Return whether a backend of `BACKENDS` (or any other package) is installed."""
    return importlib.util.find_spec(name.partition(":")[0]) is not None


def channels_last(array: np.ndarray) -> np.ndarray:
    """Return images or filters, of shape (N, C, H, W), in the memory order (N, H, W, C)."""
    return np.ascontiguousarray(array.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)


@cache
def get(name: str) -> Backend:
    """Return a backend by its name; the library is imported now.

    Raises
    ------
    ModuleNotFoundError
        If it is not installed.
    ValueError
        If `name` is none of `BACKENDS`.
    """
    if name not in BACKENDS:
        raise ValueError(f"name must be one of {', '.join(BACKENDS)}, got {name!r}")
    return _numbanet() if name == "numbanet" else _torch(name)


def _finished() -> None:
    """A CPU's work is done when the call returns."""


def _numbanet() -> Backend:
    import numbanet as nnet
    from numbanet import nn, optim

    def tensor(array: np.ndarray, requires_grad: bool = False) -> Any:
        moved = channels_last(array) if array.ndim == 4 else array
        return nnet.tensor(moved, requires_grad=requires_grad)

    return Backend(
        name="numbanet",
        functional=nnet.functional,
        nn=nn,
        optim=optim,
        tensor=tensor,
        place=lambda model: model,
        cat=nnet.functional.cat,
        no_grad=nnet.no_grad,
        load=lambda model, state: model.load_state_dict(state),
        synchronize=_finished,
    )


def _torch(name: str) -> Backend:
    import torch

    order = torch.channels_last if name.endswith("channels_last") else torch.contiguous_format

    def tensor(array: np.ndarray, requires_grad: bool = False) -> Any:
        made = torch.from_numpy(np.asarray(array, order="C"))
        if array.ndim == 4:
            made = made.contiguous(memory_format=order)
        return made.requires_grad_(requires_grad)

    return Backend(
        name=name,
        functional=torch.nn.functional,
        nn=torch.nn,
        optim=torch.optim,
        tensor=tensor,
        place=lambda model: model.to(memory_format=order),
        cat=torch.cat,
        no_grad=torch.inference_mode,
        load=lambda model, state: model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()}),
        synchronize=_finished,
    )


def set_num_threads(count: int) -> None:
    """Set how many threads every installed library uses."""
    for library in ("numbanet", "torch"):
        if available(library):
            set_threads_of(library, count)


def set_threads_of(name: str, count: int) -> None:
    """Set how many threads the library of a backend uses; no other one is imported."""
    if name == "numbanet":
        from numbanet.cpu import parallel

        parallel.set_num_threads(count)
    else:
        import torch

        torch.set_num_threads(count)


def to_numpy(value: Any) -> np.ndarray:
    """Return a result of either library as an array."""
    value = value.detach() if hasattr(value, "detach") else value
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)
