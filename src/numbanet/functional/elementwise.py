"""Differentiable arithmetic with broadcasting, named and behaving as in torch.

Operands are Tensors, arrays or numbers. A gradient is summed over the dimensions in which its operand was broadcast.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from numbanet import memory, ops
from numbanet.caller import stacklevel
from numbanet.deferred import Deferred, added
from numbanet.device_array import DeviceArray
from numbanet.ops.elementwise import elementwise_backward
from numbanet.ops.shape import device_of, to_device
from numbanet.problem.promotion import holds, operand, result_dtype
from numbanet.tape import Backward, record
from numbanet.tensor import Tensor, values
from numbanet.watch import doubt


def _data(value: Any) -> Any:
    if isinstance(value, Tensor):
        return values("input", value, whole=True)
    if isinstance(value, (np.ndarray, DeviceArray)):
        doubt("an array was an operand")
    elif not isinstance(value, (bool, int, float, np.generic)):
        raise TypeError(f"input and other must be Tensors, arrays or numbers, got {type(value).__name__}")
    return value


def _tensors(input: Any, other: Any) -> tuple[Any, Any]:
    """Return the arrays of two operands of which neither may be a number."""
    for name, value in (("input", input), ("other", other)):
        if not isinstance(value, (Tensor, np.ndarray, DeviceArray)):
            raise TypeError(f"{name} must be a Tensor, got {type(value).__name__}: clamp takes numbers")
    return _data(input), _data(other)


def _needs(value: Any) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def _fit(grad: np.ndarray, operand: Any) -> np.ndarray:
    """Return the gradient of a broadcast operand: summed to its shape, in its dtype."""
    shape, dtype = operand.data.shape, operand.data.dtype
    extra = grad.ndim - len(shape)
    if grad.shape != shape:
        dims = [d for d in range(grad.ndim) if d < extra or (shape[d - extra] == 1 and grad.shape[d] != 1)]
        grad = ops.sum(grad, dims, keepdim=True).reshape(shape) if dims else grad.reshape(shape)
    return grad if grad.dtype == dtype else grad.astype(dtype)


def _record(data: np.ndarray, a: Any, b: Any, to_a: Any, to_b: Any) -> Tensor:
    """Record a function of two operands; ``to_a(grad)`` gives the gradient of `a` before it is summed to its shape."""

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, np.ndarray | None]:
        return (
            _fit(to_a(grad), a) if _needs(a) else None,
            _fit(to_b(grad), b) if _needs(b) else None,
        )

    return record(data, (a if isinstance(a, Tensor) else None, b if isinstance(b, Tensor) else None), backward)


def _record_one(data: np.ndarray, x: Tensor, backward: Any) -> Tensor:
    one: Backward = lambda grad: (_fit(backward(grad), x),)  # noqa: E731
    return record(data, (x,), one)


def _same(grad: np.ndarray) -> np.ndarray:
    return grad


def _times(input: Any, other: Any, alpha: Any) -> Any:
    """Return alpha * other, in the dtype of a sum of the two where that has no fractions."""
    dtype = result_dtype(*(operand(name, _data(x)) for name, x in (("input", input), ("other", other))))
    if dtype.kind == "f":
        if isinstance(other, (int, float)) and isinstance(alpha, (int, float)):
            return other * alpha  # as precise as the tensor that it goes to
        return mul(other, alpha)
    if not isinstance(alpha, (int, np.integer)):
        raise ValueError(f"alpha must be an integer for operands of dtype {dtype}, got {alpha!r}")
    return Tensor(ops.to_dtype(np.asarray(ops.mul(_data(other), alpha)), dtype))


def add(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """Return input + alpha * other.

    Parameters
    ----------
    input, other : Tensor, numpy.ndarray or number
        Shapes must broadcast; mixed dtypes give the wider one, where Python numbers do not widen a Tensor's.
    alpha : float
        Factor of `other`: an integer where both hold integers.

    Returns
    -------
    Tensor
        The broadcast shape, in the memory order of the first operand of that shape.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand holds no real numbers.
    """
    if alpha != 1:
        other = _times(input, other, alpha)
    if type(input) is Deferred or type(other) is Deferred:
        later = added(input, other)
        if later is not None:
            return later
    return _record(ops.add(_data(input), _data(other)), input, other, _same, _same)


def sub(input: Any, other: Any, *, alpha: float = 1) -> Tensor:
    """Return input - alpha * other; operands, result and errors as for `add`."""
    if alpha != 1:
        if any(isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_ for x in (input, other)):
            raise TypeError("input and other must not be booleans in a difference")
        other = _times(input, other, alpha)
    return _record(ops.sub(_data(input), _data(other)), input, other, _same, ops.neg)


def mul(input: Any, other: Any) -> Tensor:
    """Return input * other; operands, result and errors as for `add`."""
    a, b = _data(input), _data(other)
    return _record(ops.mul(a, b), input, other, lambda grad: ops.mul(grad, b), lambda grad: ops.mul(grad, a))


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """Return input / other; integers give float32; operands, result and errors as for `add`.

    With `rounding_mode` "trunc" or "floor" the quotients are rounded towards zero, or down: integers then stay integers
    (0 is refused as a divisor of them, by a ValueError), and the gradients are 0.
    """
    a, b = _data(input), _data(other)
    if rounding_mode is not None:
        y = ops.div(a, b, rounding_mode)
        flat = lambda grad: memory.zeros(grad.shape, grad.dtype, grad)  # noqa: E731
        return _record(y, input, other, flat, flat) if y.dtype.kind == "f" else Tensor(y)
    return _record(
        ops.div(a, b),
        input,
        other,
        lambda grad: ops.div(grad, b),
        lambda grad: elementwise_backward("div_backward_divisor", grad, a, b),
    )


def pow(input: Any, exponent: Any) -> Tensor:
    """Return input to the power exponent; operands, result and errors as for `add`.

    The gradient of the base is 0 where the exponent is 0, that of the exponent is 0 where the base is 0 and the
    exponent is not negative.
    """
    a, b = _data(input), _data(exponent)
    if not isinstance(input, Tensor) and not isinstance(exponent, Tensor):
        raise TypeError(f"input or exponent must be a Tensor, got {type(input).__name__}, {type(exponent).__name__}")

    def to_base(grad: np.ndarray) -> np.ndarray:
        if isinstance(b, (int, float)):
            if b == 2:
                return ops.mul(grad, ops.mul(a, 2))
            if b in (0.5, 1.5):  # a square root, whose sign at -0 is not the power's
                return ops.mul(grad, ops.mul(ops.pow(a, b - 1), b))
        if isinstance(b, (np.ndarray, DeviceArray)) and b.dtype == np.bool_:
            raise TypeError("exponent must not hold booleans where the base has a gradient")
        return elementwise_backward("pow_backward_base", grad, a, b)

    def to_exponent(grad: np.ndarray) -> np.ndarray:
        return elementwise_backward("pow_backward_exponent", grad, a, b)

    return _record(ops.pow(a, b), input, exponent, to_base, to_exponent)


def maximum(input: Any, other: Any) -> Tensor:
    """Return the larger of each pair of two tensors, NaN where either is NaN; equal operands share the gradient."""
    a, b = _tensors(input, other)
    return _record(
        ops.maximum(a, b),
        input,
        other,
        lambda grad: elementwise_backward("maximum_backward", grad, a, b),
        lambda grad: elementwise_backward("maximum_backward", grad, b, a),
    )


def minimum(input: Any, other: Any) -> Tensor:
    """Return the smaller of each pair of two tensors, NaN where either is NaN; equal operands share the gradient."""
    a, b = _tensors(input, other)
    return _record(
        ops.minimum(a, b),
        input,
        other,
        lambda grad: elementwise_backward("minimum_backward", grad, a, b),
        lambda grad: elementwise_backward("minimum_backward", grad, b, a),
    )


def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """Return input where the condition holds, else other; all three broadcast.

    Parameters
    ----------
    condition : Tensor or numpy.ndarray
        Booleans; uint8 with a warning.
    input, other : Tensor, numpy.ndarray or number, optional
        If neither is given, the places are returned at which the condition, a Tensor of any dtype, is not zero: for
        each dimension a Tensor of indices.

    Raises
    ------
    TypeError, ValueError
        If only one of them is given, the condition has another dtype, or the shapes do not broadcast.
    """
    if input is None and other is None:
        return _places(condition)
    if input is None or other is None:
        raise TypeError("input and other must both be given, or neither")
    mask = _data(condition)
    if getattr(mask, "dtype", None) == np.uint8:
        warnings.warn("condition holds uint8: use bool, as in PyTorch", UserWarning, stacklevel())
        mask = ops.ne(mask, 0)
    return _record(
        ops.where(mask, _data(input), _data(other)),
        input,
        other,
        lambda grad: ops.where(mask, grad, 0),
        lambda grad: ops.where(mask, 0, grad),
    )


def _places(condition: Tensor) -> tuple[Tensor, ...]:
    x = values("condition", condition)
    doubt("places were looked for")
    found = np.nonzero(np.atleast_1d(memory.on_host(x)))
    return tuple([Tensor(to_device(places, device_of(x))) for places in found])


def neg(input: Tensor) -> Tensor:
    """Return -input."""
    return _record_one(ops.neg(values("input", input)), input, ops.neg)


def exp(input: Tensor) -> Tensor:
    """Return e to the power input."""
    y = ops.exp(values("input", input))
    return _record_one(y, input, lambda grad: ops.mul(grad, y))


def log(input: Tensor) -> Tensor:
    """Return the natural logarithm: -inf of 0, NaN of negative numbers."""
    x = values("input", input)
    return _record_one(ops.log(x), input, lambda grad: ops.div(grad, x))


def sqrt(input: Tensor) -> Tensor:
    """Return the square root, NaN of negative numbers."""
    y = ops.sqrt(values("input", input))
    return _record_one(y, input, lambda grad: elementwise_backward("sqrt_backward", grad, y))


def abs(input: Tensor) -> Tensor:
    """Return the absolute value; its gradient at 0 is 0."""
    x = values("input", input)
    return _record_one(ops.abs(x), input, lambda grad: elementwise_backward("abs_backward", grad, x))


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Return min(max(input, `min`), `max`).

    Parameters
    ----------
    input : Tensor
    min, max : number, Tensor or None
        The bounds, both of a kind; `max` wins where they cross. Gradients flow to the input where it lies within them,
        else to the bound that took its place.

    Raises
    ------
    TypeError
        If one bound is a number and the other a Tensor.
    ValueError
        If neither bound is given, or an integer does not fit in the dtype of integers.
    """
    x = values("input", input)
    if isinstance(min, Tensor) != isinstance(max, Tensor) and min is not None and max is not None:
        min, max = _number(min), _number(max)
    if isinstance(min, Tensor) or isinstance(max, Tensor):
        return _clamp_tensors(input, min, max)
    low: Any = None if min is None else operand("min", min)
    high: Any = None if max is None else operand("max", max)
    _refuse_overflow(x, low, high)

    def backward(grad: np.ndarray) -> np.ndarray:
        if low is not None:
            grad = elementwise_backward("at_least_backward", grad, x, low)
        if high is not None:
            grad = elementwise_backward("at_most_backward", grad, x, high)
        return grad

    return _record_one(ops.clamp(x, low, high), input, backward)


def _refuse_overflow(x: np.ndarray, low: Any, high: Any) -> None:
    """Raise where bounds of integers do not fit the dtype, or all are booleans, as PyTorch does."""
    bounds = {name: bound for name, bound in (("min", low), ("max", high)) if bound is not None}
    if x.dtype.kind == "f" or any(isinstance(bound, float) for bound in bounds.values()):
        return
    if x.dtype == np.bool_ and bounds and all(isinstance(bound, bool) for bound in bounds.values()):
        raise TypeError("input, min or max must hold numbers, got booleans only")
    for name, bound in bounds.items():
        if x.dtype.kind in "iu" and isinstance(bound, int) and not holds(x.dtype, bound):
            raise ValueError(f"{name} must fit in the input's dtype {x.dtype}, got {bound}")


def _number(bound: Any) -> Any:
    """Return a tensor of no dimension, to which no gradient flows, as a number."""
    return bound.item() if isinstance(bound, Tensor) and not bound.ndim and not bound.requires_grad else bound


def _clamp_tensors(input: Tensor, min: Any, max: Any) -> Tensor:
    bounds = {name: bound for name, bound in (("min", min), ("max", max)) if bound is not None}
    for name, bound in bounds.items():
        if not isinstance(bound, Tensor):
            raise TypeError(f"{name} must be a Tensor where the other bound is one, got {type(bound).__name__}")
    x = values("input", input)
    low, high = (None if bound is None else values(name, bound) for name, bound in (("min", min), ("max", max)))
    y = x if low is None else ops.maximum(x, low)
    y = y if high is None else ops.minimum(y, high)

    def backward(grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
        within = [*([] if low is None else [ops.ge(x, low)]), *([] if high is None else [ops.le(x, high)])]
        chosen: list[Any] = [within[0] if len(within) == 1 else ops.where(within[0], within[1], False), None, None]
        if low is not None:
            chosen[1] = ops.lt(x, low) if high is None else ops.where(ops.lt(low, high), ops.lt(x, low), False)
        if high is not None:
            chosen[2] = ops.gt(x, high) if low is None else ops.where(ops.lt(high, low), True, ops.gt(x, high))
        parents = zip((input, min, max), chosen)
        return tuple(_fit(ops.where(mask, grad, 0), t) if _needs(t) else None for t, mask in parents)

    return record(y, (input, min, max), backward)


def eq(input: Any, other: Any) -> Tensor:
    """Return where input == other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.eq(_data(input), _data(other)))


def ne(input: Any, other: Any) -> Tensor:
    """Return where input != other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.ne(_data(input), _data(other)))


def lt(input: Any, other: Any) -> Tensor:
    """Return where input < other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.lt(_data(input), _data(other)))


def le(input: Any, other: Any) -> Tensor:
    """Return where input <= other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.le(_data(input), _data(other)))


def gt(input: Any, other: Any) -> Tensor:
    """Return where input > other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.gt(_data(input), _data(other)))


def ge(input: Any, other: Any) -> Tensor:
    """Return where input >= other, as booleans without a gradient; operands and errors as for `add`."""
    return Tensor(ops.ge(_data(input), _data(other)))
