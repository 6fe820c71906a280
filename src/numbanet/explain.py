"""Which kernel would run for an operation, which were refused, and why."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any

import numpy as np

from numbanet import dispatch, settings
from numbanet.cuda import launch
from numbanet.problem import Problem
from numbanet.problem.base import FLOATS, choice, flag, sizes

Shape = Sequence[int]
_FLAGS = {
    "bias", "residual", "ceil_mode", "return_indices", "count_include_pad", "training", "log", "probabilities", "mean",
}  # fmt: skip


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
            explain("cross_entropy", (128, 10))

        The operations without a counterpart in torch (``"optimizer_step"``, ``"copy"``, ...) take the fields of their
        problem, by name; leave them out, and the error lists them.
    which : str
        The pass: ``"forward"``, ``"backward_input"``, ``"backward_weight"``, ...
    dtype : {"float32", "float64"}
    device : {"auto", "cpu", "cuda", "cuda:1", ...}, optional
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
        If `device` is a GPU that can't be used.
    """
    choice("operation", operation, dispatch.operations())
    choice("which", which, dispatch.passes(operation))
    choice("dtype", dtype, FLOATS)
    ask = _QUESTIONS.get(operation) or _problem_class(operation)
    try:
        bound = inspect.signature(ask).bind(which, dtype, *args, **options)
    except TypeError as error:
        names = ", ".join(list(inspect.signature(ask).parameters)[2:])
        raise TypeError(f"explain({operation!r}): {error}; it takes {names}") from None
    for name, value in bound.arguments.items():
        if name.endswith("_shape"):
            bound.arguments[name] = sizes(name, value)
        elif name in _FLAGS:
            bound.arguments[name] = flag(name, value.item() if isinstance(value, np.bool_) else value)
        elif name == "others":
            bound.arguments[name] = tuple(sizes(name, shape) for shape in value)
    problems = ask(*bound.args, **bound.kwargs)
    place, _, number = settings.resolve_device(device).partition(":")
    steps = problems if isinstance(problems, tuple) else (problems,)
    with launch.executor(launch.numbered(int(number or 0))) if place == "cuda" else nullcontext():
        return "\n".join(dispatch.explain_problem(problem, place) for problem in steps)


def _problem_class(operation: str) -> type[Problem]:
    """Return the class of an operation's problems; its pass list, and with it the class, is loaded by then."""
    kinds = [Problem]
    for kind in kinds:
        if getattr(kind, "operation", None) == operation:
            return kind
        kinds += kind.__subclasses__()
    raise LookupError(f"no problem class has operation {operation!r}")


# Each function below takes the pass, the dtype and an operation's arguments, and returns the problem.


def _conv2d(
    which: str, dtype: str, x_shape: Shape, weight_shape: Shape, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1, bias: bool = False, residual: bool = False, activation: str | None = None,
) -> Any:  # fmt: skip
    from numbanet.problem.conv import conv2d_problem, epilogue

    options = stride, padding, dilation, groups, epilogue(bias, residual, activation)
    return conv2d_problem(which, _batched(x_shape), weight_shape, dtype, *options)


def _max_pool2d(
    which: str, dtype: str, x_shape: Shape, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Any:  # fmt: skip
    from numbanet.problem.pool import max_pool2d_problem

    options = kernel_size, stride, padding, dilation, ceil_mode, return_indices or which != "forward"
    return max_pool2d_problem(which, _batched(x_shape), dtype, *options)


def _avg_pool2d(
    which: str, dtype: str, x_shape: Shape, kernel_size: Any, stride: Any = None, padding: Any = 0,
    ceil_mode: bool = False, count_include_pad: bool | None = None, divisor_override: int | None = None,
) -> Any:  # fmt: skip
    from numbanet.problem.pool import avg_pool2d_problem

    options = kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    return avg_pool2d_problem(which, _batched(x_shape), dtype, *options)


def _adaptive_avg_pool2d(which: str, dtype: str, x_shape: Shape, output_size: Any) -> Any:
    from numbanet.problem.pool import adaptive_avg_pool2d_problem

    return adaptive_avg_pool2d_problem(which, _batched(x_shape), dtype, output_size)


def _matmul(
    which: str, dtype: str, a_shape: Shape, b_shape: Shape, bias: bool = False, residual: bool = False,
    activation: str | None = None,
) -> Any:  # fmt: skip
    from numbanet.problem.conv import epilogue
    from numbanet.problem.matmul import MatmulProblem

    if len(a_shape) != 2 or len(b_shape) != 2 or a_shape[1] != b_shape[0]:
        raise ValueError(f"shapes must be (M, K) and (K, N), got {tuple(a_shape)} and {tuple(b_shape)}")
    then = epilogue(bias, residual, activation)
    return MatmulProblem(which, dtype, a_shape[0], b_shape[1], a_shape[1], True, True, then)


def _batch_norm(which: str, dtype: str, x_shape: Shape, training: bool = True) -> Any:
    from numbanet.problem.norm import batch_norm_problem

    channels = tuple(x_shape[1:2])
    return batch_norm_problem(which, dtype, tuple(x_shape), training, channels, channels)


def _activation(which: str, dtype: str, function: str, x_shape: Shape, parameter: float = 0.0) -> Any:
    from numbanet.problem.activation import ActivationProblem
    from numbanet.reference.activation import FORWARD

    choice("function", function, tuple(FORWARD))
    return ActivationProblem(which, dtype, function, prod(x_shape), parameter)


def _softmax(which: str, dtype: str, x_shape: Shape, dim: int = -1, log: bool = False) -> Any:
    from numbanet.problem.softmax import SoftmaxProblem, softmax_dim

    order = _order(x_shape)
    sizes, place = [x_shape[axis] for axis in order], order.index(softmax_dim(dim, len(x_shape)))
    return SoftmaxProblem(which, dtype, log, prod(sizes[:place]), sizes[place], prod(sizes[place + 1 :]))


def _cross_entropy(
    which: str, dtype: str, x_shape: Shape, reduction: str = "mean", ignore_index: int = -100,
    label_smoothing: float = 0.0, probabilities: bool = False,
) -> Any:  # fmt: skip
    from numbanet.problem.loss import CrossEntropyProblem, reduction_word, row_shape

    rows, classes = row_shape(tuple(x_shape))
    options = probabilities, reduction_word(reduction), ignore_index, label_smoothing
    return CrossEntropyProblem(which, dtype, prod(rows), classes, *options)


def _nll_loss(which: str, dtype: str, x_shape: Shape, reduction: str = "mean", ignore_index: int = -100) -> Any:
    from numbanet.problem.loss import NLLProblem, reduction_word, row_shape

    rows, classes = row_shape(tuple(x_shape))
    return NLLProblem(which, dtype, prod(rows), classes, reduction_word(reduction), ignore_index)


def _mse_loss(which: str, dtype: str, x_shape: Shape, reduction: str = "mean") -> Any:
    from numbanet.problem.loss import MSEProblem, reduction_word

    return MSEProblem(which, dtype, prod(x_shape), reduction_word(reduction))


def _dropout(which: str, dtype: str, x_shape: Shape, p: float = 0.5) -> Any:
    from numbanet.problem.dropout import DropoutProblem, probability

    return DropoutProblem(which, dtype, prod(x_shape), probability(p))


def _elementwise(which: str, dtype: str, function: str, x_shape: Shape, *others: Shape) -> Any:
    from numbanet.problem.elementwise import elementwise_plan
    from numbanet.reference.elementwise import FUNCTIONS

    choice("function", function, tuple(FUNCTIONS))
    size = 4 if dtype == "float32" else 8
    layouts = [(tuple(shape), _strides(shape, size), size) for shape in (x_shape, *others)]
    return elementwise_plan(function, dtype, *layouts).problem


def _reduce(which: str, dtype: str, x_shape: Shape, dim: Any = None, mean: bool = False) -> Any:
    from numbanet.problem.reduce import reduce_plan, reduced_dims

    dims = reduced_dims(dim, len(x_shape))
    return reduce_plan(dtype, tuple(x_shape), _order(x_shape), dims, False, mean).steps


def _pad(which: str, dtype: str, x_shape: Shape, pad: Shape, mode: str = "constant") -> Any:
    from numbanet.problem.shape import pad_problem

    return pad_problem(which, x_shape, dtype, pad, mode)


_QUESTIONS: dict[str, Callable[..., Any]] = {
    "conv2d": _conv2d,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "matmul": _matmul,
    "batch_norm": _batch_norm,
    "activation": _activation,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "nll_loss": _nll_loss,
    "mse_loss": _mse_loss,
    "dropout": _dropout,
    "elementwise": _elementwise,
    "reduce": _reduce,
    "pad": _pad,
}


def _batched(shape: Shape) -> tuple[int, ...]:
    return (1, *shape) if len(shape) == 3 else tuple(shape)


def _order(shape: Shape) -> tuple[int, ...]:
    """Return the axes of a dense array, outermost in memory first: channels-last for images, else row by row."""
    return (0, 2, 3, 1) if len(shape) == 4 else tuple(range(len(shape)))


def _strides(shape: Shape, size: int) -> tuple[int, ...]:
    """Return the byte strides of a dense array with elements of `size` bytes."""
    strides = [0] * len(shape)
    for axis in reversed(_order(shape)):
        strides[axis] = size
        size *= shape[axis]
    return tuple(strides)
