"""Dropout, as in torch.nn.functional; the default generator of `numbanet.random` draws."""

from __future__ import annotations

import warnings

from numbanet import memory, ops
from numbanet.caller import stacklevel
from numbanet.functional.elementwise import mul
from numbanet.functional.inplace import replace
from numbanet.ops.dropout import dropout_backward, dropout_flags
from numbanet.problem.dropout import probability
from numbanet.random import default_generator
from numbanet.tape import needs_grad, record
from numbanet.tensor import Tensor, values
from numbanet.watch import constant


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set elements to zero with probability p, and divide the others by 1 - p (Srivastava et al., JMLR 15, 2014).

    For the backward pass a byte an element is kept. Elements are counted as they lie in memory: of two tensors with
    equal elements in another order of memory (such as channels last) others are dropped.

    Parameters
    ----------
    input : Tensor
        Any shape; float32 or float64.
    p : float
        Probability from 0 to 1.
    training : bool
        Return the input itself if False.
    inplace : bool
        Let the input take over the result.

    Raises
    ------
    TypeError, ValueError
        If the input has another dtype, or `p` is not a number from 0 to 1.
    """
    p = probability(p)
    if not training or p == 0:
        return input
    if inplace:
        return replace(input, lambda t: dropout(t, p))
    x, key = values("input", input), default_generator.key()
    if not needs_grad(input):
        return Tensor(ops.dropout(x, p, key))
    y, flags = dropout_flags(x, p, key)
    order = memory.memory_order(x)
    return record(y, (input,), lambda grad: (dropout_backward(grad, p, flags, order),))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Set whole channels to zero with probability p, and divide the others by 1 - p (Tompson et al., CVPR 2015).

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...); other than (N, C, H, W) with a warning, as in torch. Where nothing or everything is dropped,
        any shape.
    p, training, inplace
        As for `dropout`.

    Raises
    ------
    TypeError, ValueError
        As for `dropout`, and if there are no channels to choose from: the input has less than 2 dimensions.
    """
    p = probability(p)
    drops = training and p > 0 and values("input", input).size > 0
    if drops and p < 1 and input.ndim < 2:
        raise ValueError(f"input must have shape (N, C, ...), got {input.shape}")
    if values("input", input).ndim != 4:
        warnings.warn(f"dropout2d: input of shape {input.shape} is taken as (N, C, ...)", UserWarning, stacklevel())
    if not drops:
        return input
    if inplace:
        return replace(input, lambda t: dropout2d(t, p))
    ones = constant(memory.ones((*input.shape[:2], *(1,) * (input.ndim - 2)), input.dtype, input.data))
    return mul(input, Tensor(ops.dropout(ones, p, default_generator.key())))
