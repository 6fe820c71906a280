"""Arithmetic, comparison and simple functions on arrays, element by element, with broadcasting.

Operands are arrays of any strides, or Python numbers; mixed dtypes follow `numbanet.problem.promotion`. The result has
the memory order of the first operand of its shape. Integers and booleans are computed by their definition in NumPy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.host import by_numpy
from numbanet.ops.shape import converted, device_of, to_device
from numbanet.ops.steady import steady
from numbanet.problem.base import float_array, float_name, optional_choice
from numbanet.problem.elementwise import broadcast_shape, elementwise_plan
from numbanet.problem.promotion import Operand, operand, result_dtype
from numbanet.watch import constant, doubt

_BOOL = np.dtype(bool)
_FLOAT32 = np.dtype(np.float32)
_LARGE = 3e38  # less than the largest float32
_MAX_DIMS = 4  # strided dimensions that one launch walks


def _run(
    function: str, dtype: np.dtype, operands: tuple[np.ndarray, ...], result: np.dtype | None = None
) -> np.ndarray:
    """Compute in `dtype`; the operands have it already (the condition of "where" is of bytes)."""
    name, like = float_name(dtype) or dtype.name, None
    for x in operands:
        if type(x) is DeviceArray:
            like = x
    if like is not None:  # numbers, and arrays of no dimension, may come from the CPU, as in PyTorch
        operands = tuple([memory.number(x, like) for x in operands])
    plan = elementwise_plan(function, name, *[(x.shape, x.strides, x.itemsize) for x in operands])
    out = memory.empty(plan.memory_shape, result or dtype, like).transpose(plan.axes)
    if plan.uneven or len(plan.problem.sizes) > _MAX_DIMS:
        # Copies in the result's own layout have a single dimension to walk.
        operands = tuple(memory.like_layout(np.broadcast_to(x, plan.shape), out) for x in operands)
        plan = elementwise_plan(function, name, *[(x.shape, x.strides, x.itemsize) for x in operands])
    dispatch.run(plan.problem, operands, (out,))
    return out


def _as(value: Operand, dtype: np.dtype) -> np.ndarray:
    if isinstance(value, (np.ndarray, DeviceArray)):
        return value if value.dtype == dtype else converted(value, dtype)  # type: ignore[return-value]
    if dtype.kind == "f" and -_LARGE < value < _LARGE:
        return constant(np.array(value, dtype))
    with np.errstate(over="ignore"):  # as in C: beyond float32 is infinity, and integers wrap around
        return constant(np.array(value).astype(dtype))


def _by_definition(function: str, operands: tuple[np.ndarray, ...]) -> np.ndarray:
    like = next((x for x in operands if type(x) is DeviceArray), None)
    if like is not None:
        from numbanet.cuda.whole import elementwise

        return elementwise(function, tuple([memory.number(x, like) for x in operands]))
    from numbanet.reference.elementwise import FUNCTIONS

    broadcast_shape(*[np.shape(x) for x in operands])  # refuses by name what NumPy would stumble over
    return by_numpy(FUNCTIONS[function], *operands)


def _arithmetic(
    function: str, a: Any, b: Any, *, floating: bool = False, result: np.dtype | None = None, name: str = "other"
) -> np.ndarray:
    """Compute a function of two operands in their common dtype (`floating`: in float32 if that has no fractions)."""
    if type(a) is np.ndarray and type(b) is np.ndarray and a.dtype == b.dtype and float_name(a.dtype):
        return _run(function, a.dtype, (a, b), result)
    a, b = operand("input", a), operand(name, b)
    dtype = result_dtype(a, b)
    if function == "sub" and any(getattr(x, "dtype", type(x)) == _BOOL for x in (a, b)):
        raise TypeError("input and other must not be booleans in a difference: ^ tells where they differ, ~ inverts")
    if function == "pow" and dtype == _BOOL and isinstance(b, np.ndarray):
        raise TypeError("input and exponent must not both hold booleans")
    if floating and dtype.kind != "f":
        dtype = _FLOAT32
    operands = (_as(a, dtype), _as(b, dtype))
    return _run(function, dtype, operands, result) if dtype.kind == "f" else _by_definition(function, operands)


def _unary(function: str, x: Any, *, floating: bool = True) -> np.ndarray:
    x = operand("input", x)
    dtype = result_dtype(x)
    if dtype == _BOOL and not floating:
        raise TypeError(f"input must hold numbers, got booleans: there is no {function} of them")
    if floating and dtype.kind != "f":
        dtype = _FLOAT32
    x = _as(x, dtype)
    return _run(function, dtype, (x,)) if dtype.kind == "f" else _by_definition(function, (x,))


@steady(2)
def add(input: Any, other: Any) -> np.ndarray:
    """Return input + other.

    Parameters
    ----------
    input, other : numpy.ndarray or number
        Shapes must broadcast.

    Returns
    -------
    numpy.ndarray
        The broadcast shape, the common dtype.

    Raises
    ------
    ValueError
        If the shapes do not broadcast.
    TypeError
        If an operand holds no real numbers.
    """
    return _arithmetic("add", input, other)


@steady(2)
def sub(input: Any, other: Any) -> np.ndarray:
    """Return input - other; operands, result and errors as for `add`."""
    return _arithmetic("sub", input, other)


@steady(2)
def mul(input: Any, other: Any) -> np.ndarray:
    """Return input * other; operands, result and errors as for `add`."""
    return _arithmetic("mul", input, other)


@steady(2)
def div(input: Any, other: Any, rounding_mode: str | None = None) -> np.ndarray:
    """Return input / other (integers give float32); operands, result and errors as for `add`.

    Parameters
    ----------
    input, other : numpy.ndarray or number
    rounding_mode : {None, "trunc", "floor"}
        Round the quotients towards zero, or down: integers then stay integers. It is computed by NumPy, also for
        arrays on a GPU: they are fetched and sent back.

    Raises
    ------
    ValueError
        If integers are divided by 0 and rounded, or there is no such mode.
    """
    if optional_choice("rounding_mode", rounding_mode, ("trunc", "floor")) is None:
        return _arithmetic("div", input, other, floating=True)
    a, b = operand("input", input), operand("other", other)
    dtype = result_dtype(a, b)
    broadcast_shape(np.shape(a), np.shape(b), names="input and other")
    like: Any = next((x for x in (a, b) if type(x) is DeviceArray), None)
    if like is None:
        return np.asarray(_rounded_quotient(_as(a, dtype), _as(b, dtype), rounding_mode == "floor"))
    doubt("quotients were rounded")
    x, y = (np.asarray(memory.on_host(_as(operand_, dtype))) for operand_ in (a, b))
    return to_device(np.asarray(_rounded_quotient(x, y, rounding_mode == "floor")), device_of(like))


def _rounded_quotient(a: np.ndarray, b: np.ndarray, down: bool) -> np.ndarray:
    if a.dtype.kind == "f":
        with np.errstate(all="ignore"):
            return np.floor_divide(a, b) if down else np.trunc(np.true_divide(a, b))
    if a.dtype == _BOOL:
        raise TypeError("input and other must not both hold booleans in a quotient that is rounded")
    if a.size and b.size and not np.all(b):
        raise ValueError(f"other must not hold 0, as {b.dtype}, where integers are divided and rounded")
    found = np.floor_divide(a, b)
    if down or a.dtype.kind == "u":
        return found
    return found + ((found < 0) & (found * b != a)).astype(a.dtype)


def _integers(operand: Any) -> bool:
    """Return whether an operand that is no array, but a number or nested ones, holds no floats."""
    return not isinstance(operand, (np.ndarray, DeviceArray, float)) and np.asarray(operand).dtype.kind in "biu"


def pow(input: Any, exponent: Any) -> np.ndarray:
    """Return input to the power exponent; operands, result and errors as for `add`.

    Integers to the negative powers of an integer array lose their fraction: 0, or for 1 and -1 themselves or 1. A
    negative Python number as the exponent of integers is a ValueError, as in PyTorch.
    """
    whole = isinstance(input, (np.ndarray, DeviceArray)) and input.dtype.kind in "biu"
    if isinstance(exponent, int) and exponent < 0 and (whole or _integers(input)):
        raise ValueError(f"exponent must not be negative for an input of integers, got {exponent}")
    if isinstance(exponent, (int, float)) and isinstance(input, (np.ndarray, DeviceArray)) and input.dtype.kind == "f":
        if exponent == 2:
            return mul(input, input)
        if exponent == 0.5:
            return sqrt(input)
        if exponent == -0.5:
            return div(1.0, sqrt(input))
    y = _arithmetic("pow", input, exponent, name="exponent")
    return y.astype(_BOOL) if whole and isinstance(exponent, bool) and input.dtype == _BOOL else y


@steady(2)
def maximum(input: Any, other: Any) -> np.ndarray:
    """Return the larger of each pair, NaN where either is NaN; operands, result and errors as for `add`."""
    return _arithmetic("maximum", input, other)


@steady(2)
def minimum(input: Any, other: Any) -> np.ndarray:
    """Return the smaller of each pair, NaN where either is NaN; operands, result and errors as for `add`."""
    return _arithmetic("minimum", input, other)


def eq(input: Any, other: Any) -> np.ndarray:
    """Return where input == other, as booleans; operands and errors as for `add`."""
    return _arithmetic("eq", input, other, result=_BOOL)


def ne(input: Any, other: Any) -> np.ndarray:
    """Return where input != other, as booleans; operands and errors as for `add`."""
    return _arithmetic("ne", input, other, result=_BOOL)


def lt(input: Any, other: Any) -> np.ndarray:
    """Return where input < other, as booleans; operands and errors as for `add`."""
    return _arithmetic("lt", input, other, result=_BOOL)


def le(input: Any, other: Any) -> np.ndarray:
    """Return where input <= other, as booleans; operands and errors as for `add`."""
    return _arithmetic("le", input, other, result=_BOOL)


def gt(input: Any, other: Any) -> np.ndarray:
    """Return where input > other, as booleans; operands and errors as for `add`."""
    return _arithmetic("gt", input, other, result=_BOOL)


def ge(input: Any, other: Any) -> np.ndarray:
    """Return where input >= other, as booleans; operands and errors as for `add`."""
    return _arithmetic("ge", input, other, result=_BOOL)


def neg(input: Any) -> np.ndarray:
    """Return -input, in its dtype and memory order."""
    return _unary("neg", input, floating=False)


def abs(input: Any) -> np.ndarray:
    """Return the absolute values, in the input's dtype and memory order."""
    return _unary("abs", input, floating=False)


def exp(input: Any) -> np.ndarray:
    """Return e to the power input (integers give float32)."""
    return _unary("exp", input)


def log(input: Any) -> np.ndarray:
    """Return the natural logarithm: -inf of 0, NaN of negative numbers (integers give float32)."""
    return _unary("log", input)


def sqrt(input: Any) -> np.ndarray:
    """Return the square root, NaN of negative numbers (integers give float32)."""
    return _unary("sqrt", input)


def clamp(input: Any, min: Any = None, max: Any = None) -> np.ndarray:
    """Return min(max(input, `min`), `max`) for numbers as bounds; NaN stays NaN.

    Raises
    ------
    ValueError
        If neither bound is given.
    """
    if min is None and max is None:
        raise ValueError("min and max are both None: at least one must be a number")
    if min is None:
        return _arithmetic("minimum", input, max, name="max")
    if max is None:
        return _arithmetic("maximum", input, min, name="min")
    values, low, high = operand("input", input), operand("min", min), operand("max", max)
    dtype = result_dtype(values, low, high)
    operands = (_as(values, dtype), _as(low, dtype), _as(high, dtype))
    return _run("clamp", dtype, operands) if dtype.kind == "f" else _by_definition("clamp", operands)


def where(condition: Any, input: Any, other: Any) -> np.ndarray:
    """Return input where the condition holds, else other; all three broadcast.

    Raises
    ------
    TypeError
        If the condition does not hold booleans, or an operand holds no real numbers.
    ValueError
        If the shapes do not broadcast.
    """
    condition = condition if type(condition) is DeviceArray else np.asarray(condition)
    if condition.dtype != _BOOL:
        raise TypeError(f"condition must hold booleans, got {condition.dtype}")
    a, b = operand("input", input), operand("other", other)
    dtype = result_dtype(a, b)
    operands = (_as(a, dtype), _as(b, dtype), condition)
    return _run("where", dtype, operands) if dtype.kind == "f" else _by_definition("where", operands)


def prelu(input: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return input where it is positive, else slope * input; the shapes broadcast, the dtypes are equal floats."""
    input, slope = float_array("input", input), float_array("slope", slope)
    return _run("prelu", input.dtype, (input, slope))


def elementwise_backward(function: str, *operands: np.ndarray | float) -> np.ndarray:
    """Return a derivative times a gradient, such as ``"maximum_backward"`` (see `numbanet.reference.elementwise`).

    Parameters
    ----------
    function : str
    *operands : numpy.ndarray or number
        The gradient first; all are taken to its dtype and broadcast.
    """
    grad = operands[0]
    if not isinstance(grad, (np.ndarray, DeviceArray)):
        raise TypeError(f"operands[0] must be the gradient as an array, got {type(grad).__name__}")
    return _run(function, grad.dtype, tuple(_as(x, grad.dtype) for x in operands))
