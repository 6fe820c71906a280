"""What ``inplace=True`` means: the tensor takes over the result of the operation."""

from __future__ import annotations

from collections.abc import Callable

from numbanet.tape import is_grad_enabled
from numbanet.tensor import Tensor


def replace(input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Make `input` the result of function(input), on the tape too, and return it.

    The result has memory of its own: views of the input that were taken before keep the old values, and a backward pass
    through operations that used them raises.

    Raises
    ------
    RuntimeError
        If `input` is a leaf that requires a gradient, and gradients are recorded.
    """
    if input.is_leaf and input.requires_grad and is_grad_enabled():
        raise RuntimeError("input is a leaf that requires a gradient: it can't be changed in place")
    before = Tensor(input.data, input.requires_grad)
    before._node = input._node
    result = function(before)
    input.data = result.data
    if result.requires_grad:
        input.requires_grad, input._node = True, result._node
    input.bump_version()
    return input
