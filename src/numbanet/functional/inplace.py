"""Changes in place: ``inplace=True``, ``+=``, assignment to elements.

Operators and assignments that are not recorded write to the memory, so that all its views see it. What is recorded, and
``inplace=True``, gives the tensor new memory: operations before that need the old values keep them, and gradients stay
right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from numbanet import memory, ops
from numbanet.deferred import Deferred, added
from numbanet.device_array import DeviceArray
from numbanet.functional.elementwise import _fit, add
from numbanet.functional.index import index_steps
from numbanet.functional.shape import to_dtype
from numbanet.ops.shape import copy_into
from numbanet.tape import Version, is_grad_enabled, needs_grad, record
from numbanet.tensor import Tensor, values
from numbanet.watch import doubt, watched

_KINDS = "buif"  # later kinds do not fit in earlier ones; integers of any sign and size count as one


def _refuse_leaf(input: Tensor) -> None:
    if input.is_leaf and input.requires_grad and is_grad_enabled():
        raise RuntimeError("a leaf that requires grad is being used in an in-place operation: use no_grad()")


def replace(input: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Make `input` the result of function(input), on the tape too, and return it.

    The result has memory of its own: what was computed from the input before, and views of it, keep the old values, and
    gradients through them stay right.

    Raises
    ------
    RuntimeError
        If `input` is a leaf that requires a gradient, and gradients are recorded.
    TypeError
        If it is no Tensor.
    """
    values("input", input)
    _refuse_leaf(input)
    before = Tensor(input.data, input.requires_grad)
    input._memory.settle()  # those that wait look for the old values in this tensor
    before._node, before._memory = input._node, input._memory
    result = function(before)
    input.data, input._memory = result.data, result._memory
    if result.requires_grad:
        input.requires_grad, input._node = True, result._node
    return input


def invertible(result: Tensor, name: str, value: float) -> Tensor:
    """Return what takes the place of an input in ``inplace=True``, refusing backward where a parameter is negative.

    PyTorch reads the slope from the result, which then does not tell on which side of zero the input was.
    """
    if value >= 0 or not needs_grad(result):
        return result

    def backward(grad: np.ndarray) -> tuple[np.ndarray]:
        raise RuntimeError(f"{name} must not be negative for gradients through inplace=True, got {value}")

    return record(result.data, (result,), backward)


def apply(input: Tensor, function: Callable[..., Tensor], other: Any, **options: Any) -> Tensor:
    """Make `input` the result of function(input, other), and return it.

    Parameters
    ----------
    input : Tensor
        A leaf that requires no gradient, or any tensor where nothing is recorded, is changed in its own memory; see
        `replace` for others.
    function : callable
        A function of two operands.
    other : Tensor, numpy.ndarray or number
        Must broadcast to the input's shape.
    **options
        For the function.

    Raises
    ------
    RuntimeError
        If `input` is a leaf that requires a gradient, and gradients are recorded.
    ValueError
        If the result has another shape.
    TypeError
        If the result's dtype does not fit in the input's: fractions in integers, or numbers in booleans.
    """

    def compute(before: Tensor) -> Tensor:
        result = function(before, before if other is input else other, **options)
        if result.shape != before.shape:
            raise ValueError(f"other must broadcast to the shape {before.shape}, got a result of shape {result.shape}")
        if _rank(result.dtype) > _rank(before.dtype):
            raise TypeError(f"the result's dtype {result.dtype} does not fit in the tensor's dtype {before.dtype}")
        return to_dtype(result, before.dtype)

    if function is add and type(input) is Deferred and not options:
        input.let_go()
        later = added(input, other, first_only=True)
        if later is not None:
            return input.become(later)
    values("input", input)
    _refuse_leaf(input)
    input._memory.settle()  # what waits may write to it as well: running averages
    if needs_grad(input, other if isinstance(other, Tensor) else None):
        return replace(input, compute)
    return _write(input, (), compute(input).data)


def _rank(dtype: np.dtype) -> int:
    return _KINDS.index(dtype.kind) if dtype.kind != "u" else _KINDS.index("i")


def assign(input: Tensor, index: Any, value: Any) -> Tensor:
    """Change the elements at an index to a value, converted to the tensor's dtype, and return the tensor.

    Parameters
    ----------
    input : Tensor
        Changed in its own memory where nothing is recorded, else as by `replace`.
    index : object
        As for `numbanet.functional.getitem`.
    value : Tensor, numpy.ndarray or number
        Must broadcast to the shape of ``input[index]``.

    Raises
    ------
    RuntimeError
        If `input` is a leaf that requires a gradient, and gradients are recorded.
    TypeError, ValueError
        If `value` is none of these, or its shape does not fit.
    IndexError
        If the index is out of range.
    """
    if not isinstance(value, (Tensor, np.ndarray, DeviceArray, np.generic, bool, int, float)):
        raise TypeError(f"value must be a Tensor, an array or a number, got {type(value).__name__}")
    for name, given in (("input", values("input", input)), ("value", value)):
        dtype = given.dtype if isinstance(given, (Tensor, np.ndarray, np.generic)) else input.dtype
        if dtype.kind not in _KINDS:
            raise TypeError(f"{name} must hold real numbers, got {dtype}")
    _refuse_leaf(input)
    steps = index_steps(index)
    source = value.data if isinstance(value, Tensor) else value
    if not needs_grad(input, value if isinstance(value, Tensor) else None):
        return _write(input, steps, source)

    def compute(before: Tensor) -> Tensor:
        y = ops.clone(before.data)
        _put(y, steps, source)

        def backward(grad: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            rest = ops.clone(grad)
            _put(rest, steps, 0)
            needed = isinstance(value, Tensor) and value.requires_grad
            return rest, _fit(_get(grad, steps), value) if needed else None

        return record(y, (before, value if isinstance(value, Tensor) else None), backward)

    return replace(input, compute)


def _without_leading_ones(source: Any) -> Any:
    """Return what shall be broadcast; leading dimensions of size 1 may be more than there is place for."""
    while np.ndim(source) and len(source) == 1:
        source = source[0]
    return source


def _write(input: Tensor, steps: tuple[Any, ...], value: Any) -> Tensor:
    input._memory.settle()
    node = input._node
    if node is not None and all(memory is not input._memory for memory, _ in node.watched):
        # The operation that made it may need its result in backward; a view's does not, and shall change what it views.
        input.data, input._memory = ops.clone(input.data), Version()
    _put(input.data, steps, value)
    input.bump_version()
    return input


def _get(x: np.ndarray, steps: tuple[Any, ...]) -> np.ndarray:
    for step in steps:
        x = x[step]
    return x


def _launched(target: Any, index: tuple[Any, ...], value: Any) -> bool:
    """Assign by a launch, which a replay repeats; False, and nothing is done, where it takes NumPy.

    It takes one array of the CPU, copied as it is to a view of another.
    """
    if type(target) is not np.ndarray or type(value) is not np.ndarray or target.dtype != value.dtype:
        return False
    if not all(part is None or part is Ellipsis or type(part) in (int, slice) for part in index):
        return False
    view = target[index if any(part is Ellipsis for part in index) else (*index, ...)]
    if value.shape != view.shape:
        value = _without_leading_ones(value)
        value = memory.restrided(value, view.shape, np.broadcast_to(value, view.shape).strides)
    if not view.size or np.may_share_memory(view, value):
        return False
    copy_into(view, value)
    return True


def _put(x: np.ndarray, steps: tuple[Any, ...], value: Any) -> None:
    """Write to the elements at an index: all its steps but the last give views."""
    if not x.flags.writeable:
        raise RuntimeError("the tensor's memory is read-only, or several elements share it: clone() it first")
    shape = x.shape
    if type(value) is int and x.dtype.kind in "iu":
        low, high = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
        if x.dtype.kind == "u" and -high <= value < 0:
            value &= high  # as in C, and in PyTorch
        if not low <= value <= high:  # NumPy 1 would take a part of it
            raise ValueError(f"value of shape () does not fit in tensor of shape {shape}: {x.dtype} can't hold {value}")
    try:
        target, index = _get(x, steps[:-1]), steps[-1] if steps else (...,)
        if not watched() or not _launched(target, index, value):
            target[index] = _without_leading_ones(value)
            if type(target) is np.ndarray:
                doubt("NumPy assigned elements")
    except IndexError as error:
        raise IndexError(f"index does not fit a tensor of shape {shape}: {error}") from None
    except (ValueError, OverflowError, TypeError) as error:  # the last where a mask shall take rows
        raise ValueError(f"value of shape {np.shape(value)} does not fit in tensor of shape {shape}: {error}") from None
