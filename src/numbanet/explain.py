"""Which kernel would run for an operation, which were refused, and why."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from math import prod
from typing import Any

from numbanet import dispatch, settings
from numbanet.problem import Problem
from numbanet.problem.base import FLOATS, choice


def explain(
    operation: str,
    *args: Any,
    which: str = "forward",
    dtype: str = "float32",
    device: str | None = None,
    **options: Any,
) -> str:
    """Return the kernels for an operation as text: the chosen one, costs, expected errors, reasons of refusal.

    Parameters
    ----------
    operation : str
        ``"conv2d"``, ``"max_pool2d"``, ``"matmul"``, ...
    *args, **options
        The operation's own arguments, with shapes in place of arrays::

            explain("conv2d", (32, 64, 56, 56), (64, 64, 3, 3), padding=1)
            explain("max_pool2d", (32, 64, 56, 56), 2)
            explain("matmul", (128, 512), (512, 10))
            explain("activation", "relu", (32, 64, 56, 56))
            explain("elementwise", "add", (32, 64, 56, 56), (64, 1, 1))

        Other operations take the fields of their problem, by name; leave them out, and the error lists them.
    which : str
        The pass: ``"forward"``, ``"backward_input"``, ``"backward_weight"``, ...
    dtype : {"float32", "float64"}
    device : {"auto", "cpu", "cuda"}, optional
        The chosen device if None.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there is no such operation, pass or dtype, or the arguments make no sense.
    TypeError
        If arguments are missing or unknown.
    RuntimeError
        If `device` is ``"cuda"`` and no GPU can be used.
    """
    choice("operation", operation, dispatch.operations())
    choice("which", which, dispatch.passes(operation))
    choice("dtype", dtype, FLOATS)
    problem = _BUILDERS.get(operation, _from_fields)(operation, which, dtype, *args, **options)
    return dispatch.explain_problem(problem, settings.resolve_device(device))


def _conv2d(operation: str, which: str, dtype: str, x_shape: Any, weight_shape: Any, *args: Any, **options: Any) -> Any:
    from numbanet.problem.conv import Epilogue, conv2d_problem

    options["epilogue"] = Epilogue(bool(options.pop("bias", False)), bool(options.pop("relu", False)))
    return conv2d_problem(which, _batched(x_shape), weight_shape, dtype, *args, **options)


def _pool(operation: str, which: str, dtype: str, x_shape: Any, *args: Any, **options: Any) -> Any:
    from numbanet.problem import pool

    return getattr(pool, f"{operation}_problem")(which, _batched(x_shape), dtype, *args, **options)


def _matmul(operation: str, which: str, dtype: str, a_shape: Any, b_shape: Any, bias: bool = False) -> Any:
    from numbanet.problem.matmul import MatmulProblem

    if len(a_shape) != 2 or len(b_shape) != 2 or a_shape[1] != b_shape[0]:
        raise ValueError(f"shapes must be (M, K) and (K, N), got {tuple(a_shape)} and {tuple(b_shape)}")
    return MatmulProblem(which, dtype, a_shape[0], b_shape[1], a_shape[1], True, True, bias)


def _activation(operation: str, which: str, dtype: str, function: str, x_shape: Any, parameter: float = 0.0) -> Any:
    from numbanet.problem.activation import ActivationProblem

    return ActivationProblem(which, dtype, function, prod(x_shape), parameter)


def _elementwise(operation: str, which: str, dtype: str, function: str, *shapes: Sequence[int]) -> Any:
    from numbanet.problem.elementwise import elementwise_plan

    if not shapes:
        raise TypeError("explain('elementwise', function, shape, ...) needs the shape of each operand")
    size = 4 if dtype == "float32" else 8
    layouts = [(tuple(shape), _strides(shape, size), size) for shape in shapes]
    return elementwise_plan(function, dtype, *layouts).problem


def _from_fields(operation: str, which: str, dtype: str, *args: Any, **options: Any) -> Any:
    kind = _problem_class(operation)
    try:
        return kind(which, dtype, *args, **options)
    except TypeError:
        names = ", ".join(field.name for field in fields(kind)[2:])
        raise TypeError(f"explain({operation!r}) takes {names}; got {args} and {options}") from None


def _problem_class(operation: str) -> type[Problem]:
    # The operation's list is loaded, and with it the class.
    dispatch.passes(operation)
    kinds = [Problem]
    for kind in kinds:
        if getattr(kind, "operation", None) == operation:
            return kind
        kinds += kind.__subclasses__()
    raise LookupError(f"no problem class has operation {operation!r}")


def _batched(shape: Sequence[int]) -> tuple[int, ...]:
    return (1, *shape) if len(shape) == 3 else tuple(shape)


def _strides(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """Return the byte strides of a dense array: channels-last for images, else row by row."""
    order = (0, 2, 3, 1) if len(shape) == 4 else tuple(range(len(shape)))
    strides = [0] * len(shape)
    for axis in reversed(order):
        strides[axis] = size
        size *= shape[axis]
    return tuple(strides)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv2d,
    "max_pool2d": _pool,
    "avg_pool2d": _pool,
    "adaptive_avg_pool2d": _pool,
    "matmul": _matmul,
    "activation": _activation,
    "elementwise": _elementwise,
}
