"""Clipping of gradients, as in torch.nn.utils."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np

from numbanet import ops
from numbanet.device_array import DeviceArray
from numbanet.ops.clip import is_clipped
from numbanet.problem.pointwise import number
from numbanet.tensor import Tensor
from numbanet.watch import watched


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Tensor]:
    tensors = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in tensors if p.grad is not None]


def _changed(gradients: list[Tensor]) -> None:
    for gradient in gradients:
        gradient.bump_version()


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale the gradients in place so that the norm of all of them together is at most `max_norm`.

    The norm is added up in float64 in a fixed order: it does not depend on the number of threads. Where all gradients
    are on one GPU, Python waits for nothing, unless `error_if_nonfinite`.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    max_norm : float
    norm_type : float
        The p of the p-norm; may be inf.
    error_if_nonfinite : bool
        Raise if the norm is NaN or inf, and scale nothing; else the gradients are scaled by it all the same.

    Returns
    -------
    Tensor
        The norm before clipping, without dimensions.

    Raises
    ------
    RuntimeError
        If the norm is not finite and `error_if_nonfinite`.
    """
    gradients = _gradients(parameters)
    if not gradients:
        return Tensor(np.zeros((), np.float32))
    max_norm = number("max_norm", max_norm)
    norm = ops.clip_norm_([g.data for g in gradients], max_norm, norm_type, error_if_nonfinite)
    # On a GPU, and in a recording, what is small enough is scaled by 1, and Python does not know.
    if type(norm) is DeviceArray or watched() or is_clipped(float(norm), max_norm):
        _changed(gradients)
    dtype = np.result_type(*(g.dtype for g in gradients))
    return Tensor(norm.astype(dtype) if type(norm) is DeviceArray else ops.to_dtype(norm, dtype))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit every element of the gradients to [-clip_value, clip_value], in place.

    Parameters
    ----------
    parameters : Tensor or iterable of Tensor
        Those without a gradient are left out.
    clip_value : float
    """
    clip_value = number("clip_value", clip_value)
    beyond = list(_beyond(_gradients(parameters), clip_value))
    ops.clamp_([g.data for g in beyond], -clip_value, clip_value)
    _changed(beyond)


def _beyond(gradients: list[Tensor], most: float) -> Iterator[Tensor]:
    """Yield the gradients that have elements beyond `most`, or NaN; all where nobody waits for that."""
    if watched():
        yield from gradients
        return
    here = [g.data for g in gradients if g.device == "cpu"]
    largest = iter(ops.vector_norms(here, math.inf))
    yield from (g for g in gradients if g.device != "cpu" or not next(largest) <= most)
