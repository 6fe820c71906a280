"""Activation functions and their derivatives: one pass over memory each.

Each function is a formula on vectors; `_map` and `_map2` are the loops that apply it. A formula's last argument is the
function's parameter (the slope of leaky_relu) in every lane.
"""

from __future__ import annotations

from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cpu import vmath
from numbanet.cpu.compile import F64, I64, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import fma, integers, lanes, load_pair, load_tail, select, splat, splat_as, store_tail
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.cpu.vmath import pick
from numbanet.problem.base import doubles

_CHUNK = 1 << 14  # elements a task: large enough to hide the launch, small enough to share evenly
_CHEAP = ("relu", "leaky_relu")  # functions that take no longer than moving their operands:
_SERIAL = 1 << 16  # up to so many elements one task does all, as waking threads would cost more
_GELU_A = 1.5957691216057308  # 2 sqrt(2 / pi)
_GELU_B = 0.044715 * _GELU_A


@device
def _map(formula, task, ints, x, y, parameter):
    """Compute y = formula(x) on one task's elements."""
    size, chunk, large = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    past = large != 0 and aligned(y)
    while i + 2 * lanes(x) <= end:
        v = load_pair(x, i)
        put(y, i, formula(v, splat_as(v, parameter[0])), past)
        i += 2 * lanes(x)
    while i < end:
        store_tail(y, i, formula(load_tail(x, i, end - i), splat(x, parameter[0])), end - i)
        i += lanes(x)
    if past:
        drain()


@device
def _map2(formula, task, ints, grad, saved, dx, parameter):
    """Compute dx = formula(grad, saved) on one task's elements."""
    size, chunk, large = integers(ints, 3)
    i, end = task * chunk, min(size, (task + 1) * chunk)
    past = large != 0 and aligned(dx)
    while i + 2 * lanes(grad) <= end:
        v = load_pair(grad, i)
        put(dx, i, formula(v, load_pair(saved, i), splat_as(v, parameter[0])), past)
        i += 2 * lanes(grad)
    while i < end:
        n = end - i
        store_tail(dx, i, formula(load_tail(grad, i, n), load_tail(saved, i, n), splat(grad, parameter[0])), n)
        i += lanes(grad)
    if past:
        drain()


# ---------------------------------------------------------------------------------------------------------------------
# Formulas


@device
def _relu(x, a):
    zero = pick(x, 0.0, 0.0)
    return select(zero > x, zero, x)  # a comparison with NaN is false: NaN stays


@device
def _relu_backward(grad, y, a):
    zero = pick(y, 0.0, 0.0)
    return select(y <= zero, zero, grad)


@device
def _leaky_relu(x, slope):
    return select(x > pick(x, 0.0, 0.0), x, slope * x)


@device
def _leaky_relu_backward(grad, x, slope):
    return select(x > pick(x, 0.0, 0.0), grad, slope * grad)


@device
def _sigmoid(x, a):
    return vmath.sigmoid(x)


@device
def _sigmoid_backward(grad, y, a):
    return grad * (y * (pick(y, 1.0, 1.0) - y))


@device
def _tanh(x, a):
    return vmath.tanh(x)


@device
def _tanh_backward(grad, y, a):
    return grad * fma(-y, y, pick(y, 1.0, 1.0))


@device
def _bounded(x):
    """Return x cut off far beyond where any derivative here has reached its limit, so that infinity times 0 is 0."""
    limit = pick(x, 1e3, 1e3)
    x = select(x > limit, limit, x)
    return select(x < -limit, -limit, x)


@device
def _gelu(x, a):
    cdf, _ = vmath.normal(x)
    return x * cdf


@device
def _gelu_backward(grad, x, a):
    return grad * vmath.normal_slope(x)


@device
def _gelu_inner(x):
    # 2 u: (1 + tanh(u)) / 2 = sigmoid(2 u), which keeps its relative accuracy where tanh(u) is near -1.
    return x * fma(pick(x, _GELU_B, _GELU_B), x * x, pick(x, _GELU_A, _GELU_A))


@device
def _gelu_tanh(x, a):
    return x * vmath.sigmoid(_gelu_inner(x))


@device
def _gelu_tanh_backward(grad, x, a):
    s, derivative = vmath.logistic(_gelu_inner(x))
    bounded = _bounded(x)
    slope = fma(pick(x, 3 * _GELU_B, 3 * _GELU_B), bounded * bounded, pick(x, _GELU_A, _GELU_A))
    return grad * fma(bounded * derivative, slope, s)


@device
def _silu(x, a):
    return x * vmath.sigmoid(x)


@device
def _silu_backward(grad, x, a):
    s, derivative = vmath.logistic(x)
    return grad * fma(_bounded(x), derivative, s)


# ---------------------------------------------------------------------------------------------------------------------
# Kernels


@kernel
def relu(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_relu, task, ints, x, y, parameter)


@kernel
def relu_backward(task: Index, ints: I64, grad: T, y: T, dx: T, parameter: F64):
    _map2(_relu_backward, task, ints, grad, y, dx, parameter)


@kernel
def leaky_relu(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_leaky_relu, task, ints, x, y, parameter)


@kernel
def leaky_relu_backward(task: Index, ints: I64, grad: T, x: T, dx: T, parameter: F64):
    _map2(_leaky_relu_backward, task, ints, grad, x, dx, parameter)


@kernel
def sigmoid(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_sigmoid, task, ints, x, y, parameter)


@kernel
def sigmoid_backward(task: Index, ints: I64, grad: T, y: T, dx: T, parameter: F64):
    _map2(_sigmoid_backward, task, ints, grad, y, dx, parameter)


@kernel
def tanh(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_tanh, task, ints, x, y, parameter)


@kernel
def tanh_backward(task: Index, ints: I64, grad: T, y: T, dx: T, parameter: F64):
    _map2(_tanh_backward, task, ints, grad, y, dx, parameter)


@kernel
def gelu(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_gelu, task, ints, x, y, parameter)


@kernel
def gelu_backward(task: Index, ints: I64, grad: T, x: T, dx: T, parameter: F64):
    _map2(_gelu_backward, task, ints, grad, x, dx, parameter)


@kernel
def gelu_tanh(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_gelu_tanh, task, ints, x, y, parameter)


@kernel
def gelu_tanh_backward(task: Index, ints: I64, grad: T, x: T, dx: T, parameter: F64):
    _map2(_gelu_tanh_backward, task, ints, grad, x, dx, parameter)


@kernel
def silu(task: Index, ints: I64, x: T, y: T, parameter: F64):
    _map(_silu, task, ints, x, y, parameter)


@kernel
def silu_backward(task: Index, ints: I64, grad: T, x: T, dx: T, parameter: F64):
    _map2(_silu_backward, task, ints, grad, x, dx, parameter)


_FORWARD = {
    "relu": relu, "leaky_relu": leaky_relu, "sigmoid": sigmoid, "tanh": tanh, "gelu": gelu, "gelu_tanh": gelu_tanh,
    "silu": silu,
}  # fmt: skip
_BACKWARD = {
    "relu": relu_backward, "leaky_relu": leaky_relu_backward, "sigmoid": sigmoid_backward, "tanh": tanh_backward,
    "gelu": gelu_backward, "gelu_tanh": gelu_tanh_backward, "silu": silu_backward,
}  # fmt: skip


def _run(kernels: dict[str, Any], problem: Any, inputs: Arrays, outputs: Arrays) -> None:
    chunk = _SERIAL if problem.function in _CHEAP and problem.size <= _SERIAL else _CHUNK
    arrays = (*inputs, *outputs, doubles(problem.parameter))
    numbers = (problem.size, chunk, streams(outputs[0].nbytes, sum(x.nbytes for x in inputs)))
    launch(kernels[problem.function], -(-problem.size // chunk), arrays, numbers, problem.dtype)


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(_FORWARD, problem, inputs, outputs)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    _run(_BACKWARD, problem, inputs, outputs)


CANDIDATES: CandidateLists = {
    ("activation", "forward"): [Candidate("cpu.vector", _forward)],
    ("activation", "backward_input"): [Candidate("cpu.vector", _backward)],
}
