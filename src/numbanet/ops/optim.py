"""Steps of optimizers on arrays, in place; norms and clipping of gradients.

The state arrays have the parameter's shape and dtype. Every array may have any strides; one in the parameter's memory
order costs no copy. Where the arguments are lists, with an entry for each of many parameters, all of them are updated
at once, which is faster than one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.device_array import DeviceArray
from numbanet.problem.base import dtype_name, float_array, float_name
from numbanet.problem.optim import (
    ClipProblem,
    StepNumbers,
    VectorNormProblem,
    adadelta_numbers,
    adagrad_numbers,
    adam_numbers,
    check_in_place,
    check_match,
    optimizer_problem,
    rmsprop_numbers,
    sgd_numbers,
)
from numbanet.problem.pointwise import number
from numbanet.watch import constant, doubt

Arrays = np.ndarray | Sequence[np.ndarray]


def _listed(name: str, arrays: Arrays) -> Sequence[np.ndarray]:
    if isinstance(arrays, (np.ndarray, DeviceArray)):
        return [arrays]
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"{name} must be an array or a list of arrays, got {type(arrays).__name__}")
    return arrays


def _kind(x: np.ndarray) -> tuple[np.dtype, int]:
    """Return what arrays that are updated together have in common: dtype and device."""
    return x.dtype, x.memory.device if type(x) is DeviceArray else -1


_layout = attrgetter("__class__", "dtype", "shape", "strides", "flags.writeable")


@lru_cache(maxsize=64)
def _updatable(layouts: tuple[Any, ...]) -> tuple[str, tuple[int, ...]] | None:
    """Return the dtype and the sizes of arrays that kernels can update together as they are; None if they can't.

    They are told by what `_layout` says of each.
    """
    name = float_name(layouts[0][1])
    for kind, dtype, shape, strides, writeable in layouts:
        plain = kind is np.ndarray and dtype == layouts[0][1] and writeable
        if name is None or not (plain and memory.is_dense(shape, strides, dtype.itemsize)):
            return None
    return dtype_name(layouts[0][1]), tuple([math.prod(shape) for _, _, shape, _, _ in layouts])


def _dense(names: tuple[str, ...], row: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    """Check the arrays of one parameter; return them dense and in its order of memory, copied where they must be."""
    parameter = row[0]
    check_in_place(names[0], parameter)
    target = memory.dense(parameter)
    shape, strides, dtype, same = parameter.shape, parameter.strides, parameter.dtype, target is parameter
    found = [target]
    for name, array in zip(names[1:], row[1:]):
        if name != "grad":
            check_in_place(name, array)
        if type(array) is not type(parameter) or array.dtype != dtype or array.shape != shape:
            check_match(name, array, parameter)
        found.append(array if same and array.strides == strides else memory.like_layout(array, target))
    return tuple(found)


def optimizer_step(
    rule: str,
    parameter: Arrays,
    grad: Arrays,
    state: Mapping[str, Arrays | None],
    coefficients: np.ndarray,
    options: tuple[str, ...] = (),
) -> None:
    """Take one step of any optimizer, in place; the arguments are those of an `OptimizerProblem`.

    Parameters
    ----------
    rule : str
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    state : mapping
        Each of the rule's states: arrays, or None if the step does not use it.
    coefficients : numpy.ndarray
        float64.
    options : tuple of str

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    used = tuple(name for name, arrays in state.items() if arrays is not None)
    names = ("parameter", "grad", *used)
    operands = (parameter, grad, *(arrays for arrays in state.values() if arrays is not None))
    given = [_listed(name, arrays) for name, arrays in zip(names, operands)]
    for name, arrays in zip(names, given):
        if len(arrays) != len(given[0]):
            raise ValueError(f"{name} must have as many entries as parameter, {len(given[0])}, got {len(arrays)}")
    layouts = list(map(_layout, given[0])) if all(type(x) is np.ndarray for x in given[0]) else []
    if layouts and all(list(map(_layout, column)) == layouts for column in given[1:]):
        alike = _updatable(tuple(layouts))
        if alike is not None:  # nearly always: there is nothing to be said about any of them, and nothing to be copied
            problem = optimizer_problem(rule, alike[0], alike[1], used, options)
            plain = dict(zip(names, given))
            dispatch.run(problem, (plain["grad"], coefficients), (plain["parameter"], *map(plain.get, state)))
            return
    rows = list(zip(*given))
    ready = [_dense(names, row) for row in rows]
    for key in dict.fromkeys(_kind(row[0]) for row in ready):
        chosen = (row for row in ready if _kind(row[0]) == key)
        columns = dict(zip(names, zip(*chosen)))
        sizes = tuple([array.size for array in columns["parameter"]])
        problem = optimizer_problem(rule, dtype_name(key[0]), sizes, used, options)
        outputs = columns["parameter"], *map(columns.get, state)
        dispatch.run(problem, (columns["grad"], coefficients), outputs)
    for originals, results in zip(rows, ready):
        for name, original, result in zip(names, originals, results):
            if original is not result and name != "grad":
                memory.fill(original, result)


def _step(
    rule: str, parameter: Arrays, grad: Arrays, state: Mapping[str, Arrays | None], numbers: StepNumbers
) -> None:
    optimizer_step(rule, parameter, grad, state, np.array(numbers.coefficients, np.float64), numbers.options)


def sgd_step(
    parameter: Arrays,
    grad: Arrays,
    momentum_buffer: Arrays | None = None,
    *,
    lr: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    weight_decay: float = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
    first: bool = False,
) -> None:
    """Take one step of stochastic gradient descent, in place.

    Parameters
    ----------
    parameter : numpy.ndarray or list of numpy.ndarray
        Any shape; float32 or float64. Updated.
    grad : numpy.ndarray or list of numpy.ndarray
        Its gradient.
    momentum_buffer : numpy.ndarray or list of numpy.ndarray, optional
        The running direction. Updated.
    lr, momentum, dampening, weight_decay, nesterov, maximize
        As in `numbanet.optim.SGD`.
    first : bool
        Whether this step starts the momentum buffer: its content is then not read.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = sgd_numbers(
        lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov, maximize=maximize,
        first=first,
    )  # fmt: skip
    _step("sgd", parameter, grad, {"momentum_buffer": momentum_buffer}, numbers)


def adam_step(
    parameter: Arrays,
    grad: Arrays,
    exp_avg: Arrays,
    exp_avg_sq: Arrays,
    max_exp_avg_sq: Arrays | None = None,
    *,
    step: int,
    lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> None:
    """Take one step of Adam (AdamW with `decoupled_weight_decay`, AMSGrad with `max_exp_avg_sq`), in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    exp_avg, exp_avg_sq, max_exp_avg_sq : numpy.ndarray or list of numpy.ndarray
        The running means and the largest of the second; zeros before the first step. Updated.
    step : int
        The number of this step, from 1.
    lr, betas, eps, weight_decay, decoupled_weight_decay, maximize
        As in `numbanet.optim.Adam`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = adam_numbers(
        step=step, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay, maximize=maximize,
    )  # fmt: skip
    state = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "max_exp_avg_sq": max_exp_avg_sq}
    _step("adam", parameter, grad, state, numbers)


def rmsprop_step(
    parameter: Arrays,
    grad: Arrays,
    square_avg: Arrays,
    grad_avg: Arrays | None = None,
    momentum_buffer: Arrays | None = None,
    *,
    lr: float = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of RMSprop (centred with `grad_avg`, with momentum if there is a buffer for it), in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    square_avg, grad_avg, momentum_buffer : numpy.ndarray or list of numpy.ndarray
        The running means of g^2 and g, and the running direction; zeros before the first step. Updated.
    lr, alpha, eps, weight_decay, momentum, maximize
        As in `numbanet.optim.RMSprop`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = rmsprop_numbers(
        lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay, momentum=momentum, maximize=maximize
    )  # fmt: skip
    state = {"square_avg": square_avg, "grad_avg": grad_avg, "momentum_buffer": momentum_buffer}
    _step("rmsprop", parameter, grad, state, numbers)


def adagrad_step(
    parameter: Arrays,
    grad: Arrays,
    sum: Arrays,
    *,
    lr: float = 1e-2,
    eps: float = 1e-10,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adagrad, in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    sum : numpy.ndarray or list of numpy.ndarray
        The sum of g^2 over all steps. Updated.
    lr, eps, weight_decay, maximize
        As in `numbanet.optim.Adagrad`; a decay of the learning rate is the caller's.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = adagrad_numbers(lr=lr, eps=eps, weight_decay=weight_decay, maximize=maximize)
    _step("adagrad", parameter, grad, {"sum": sum}, numbers)


def adadelta_step(
    parameter: Arrays,
    grad: Arrays,
    square_avg: Arrays,
    acc_delta: Arrays,
    *,
    lr: float = 1.0,
    rho: float = 0.9,
    eps: float = 1e-6,
    weight_decay: float = 0.0,
    maximize: bool = False,
) -> None:
    """Take one step of Adadelta, in place.

    Parameters
    ----------
    parameter, grad : numpy.ndarray or list of numpy.ndarray
        As in `sgd_step`.
    square_avg, acc_delta : numpy.ndarray or list of numpy.ndarray
        The running means of the squares of gradients and of steps; zeros before the first step. Updated.
    lr, rho, eps, weight_decay, maximize
        As in `numbanet.optim.Adadelta`.

    Raises
    ------
    TypeError, ValueError
        If an array does not fit the parameter, or can't be updated in place.
    """
    numbers = adadelta_numbers(lr=lr, rho=rho, eps=eps, weight_decay=weight_decay, maximize=maximize)
    _step("adadelta", parameter, grad, {"square_avg": square_avg, "acc_delta": acc_delta}, numbers)


def vector_norms(arrays: Sequence[np.ndarray], ord: float = 2) -> np.ndarray:
    """Return (sum of |x|^ord)^(1/ord) of each of many arrays, in float64, added up in a fixed order.

    Parameters
    ----------
    arrays : sequence of numpy.ndarray
        Any shapes; float32 or float64.
    ord : float
        inf: the largest |x|; -inf: the least; 0: the number of elements that are not zero.

    Raises
    ------
    TypeError
        If an array has another dtype.
    """
    ord = number("ord", ord)
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"arrays must be a list of arrays, got {type(arrays).__name__}")
    checked = [memory.dense(float_array("x", x)) for x in arrays]
    doubt("norms were looked at")
    found = np.empty(len(checked))
    for key in dict.fromkeys(_kind(x) for x in checked):
        places = [j for j, x in enumerate(checked) if _kind(x) == key]
        chosen = [checked[j] for j in places]
        sums = memory.vector(len(chosen), np.float64, chosen[0])
        sizes = tuple([x.size for x in chosen])
        dispatch.run(VectorNormProblem("forward", dtype_name(key[0]), sizes, ord), (chosen,), (sums,))
        found[places] = memory.on_host(sums)
    if ord in (0, math.inf, -math.inf):
        return found
    empty = [x.size == 0 for x in checked]
    with np.errstate(divide="ignore"):
        return np.where(empty, math.inf if ord < 0 else 0.0, found ** (1 / ord))


def vector_norm(x: np.ndarray, ord: float = 2) -> float:
    """Return (sum of |x|^ord)^(1/ord) over all elements, added up in float64 in a fixed order.

    Parameters
    ----------
    x : numpy.ndarray
        Any shape; float32 or float64.
    ord : float
        inf: the largest |x|; -inf: the least; 0: the number of elements that are not zero.

    Raises
    ------
    TypeError
        If `x` has another dtype.
    """
    return float(vector_norms([x], ord)[0])


def clip_norm_(
    x: Sequence[np.ndarray], max_norm: float, ord: float = 2, error_if_nonfinite: bool = False
) -> np.ndarray:
    """Scale gradients in place so that the norm of all of them together is at most `max_norm`.

    Parameters
    ----------
    x : list of numpy.ndarray
        Any shapes; float32 or float64.
    max_norm : float
    ord : float
        As for `vector_norm`.
    error_if_nonfinite : bool
        Raise if the norm is NaN or inf, and scale nothing.

    Returns
    -------
    numpy.ndarray
        The norm before, float64 and of no dimension; on a GPU where all arrays are, without waiting for it unless
        `error_if_nonfinite`.

    Raises
    ------
    TypeError, ValueError
        If an array is no writeable one of float32 or float64, or an option is no number.
    RuntimeError
        If the norm is not finite and `error_if_nonfinite`.
    """
    ord, most = number("ord", ord), number("max_norm", max_norm)
    given = [check_in_place("x", array) for array in _listed("x", x)]
    places = {_kind(array)[1] for array in given}
    if len(places) != 1 or (places != {-1} and any(memory.dense(array) is not array for array in given)):
        return _clip_by_python(given, most, ord, error_if_nonfinite)
    sums, first = memory.vector(len(given), np.float64, given[0]), 0
    groups = [[memory.dense(x) for x in given if x.dtype == dtype] for dtype in dict.fromkeys(x.dtype for x in given)]
    for members in groups:
        problem = VectorNormProblem("forward", members[0].dtype.name, tuple([x.size for x in members]), ord)
        dispatch.run(problem, (members,), (sums[first : first + len(members)],))
        first += len(members)
    if places == {-1}:
        from numbanet.cpu.clip import norm_and_factor

        norm, scale = norm_and_factor(sums, most, ord)
        if error_if_nonfinite:
            doubt("a norm was looked at")
            _check_finite(float(norm), ord)
        _clip("scale", given, scale)
        return norm
    from numbanet.cuda import clip as gpu

    found: Any = gpu.norm_and_factor(sums, most, ord)  # type: ignore[arg-type]
    if error_if_nonfinite:
        _check_finite(float(memory.on_host(found)[0]), ord)
    gpu.scale_all(groups, found)  # type: ignore[arg-type]
    return found[0]


def _clip_by_python(arrays: list[Any], most: float, ord: float, error_if_nonfinite: bool) -> np.ndarray:
    """Clip arrays on several devices, or on a GPU with gaps between their elements."""
    total = vector_norm(vector_norms(arrays, ord), ord)
    if error_if_nonfinite:
        _check_finite(total, ord)
    if is_clipped(total, most):
        scale_(arrays, _clip_factor(total, most))
    return np.asarray(total)


def _clip_factor(norm: float, most: float) -> float:
    return most / (norm + 1e-6)


def is_clipped(norm: float, max_norm: float) -> bool:
    """Return whether `clip_norm_` scales arrays of this norm; one that is NaN scales, too."""
    return not _clip_factor(norm, max_norm) >= 1


def _check_finite(norm: float, ord: float) -> None:
    if not math.isfinite(norm):
        raise RuntimeError(
            f"the norm of order {ord} of the gradients is {norm}, so they can't be clipped; with "
            "error_if_nonfinite=False they are scaled by it all the same"
        )


def _clip(function: str, x: Arrays, coefficients: Any) -> None:
    given = _listed("x", x)
    targets = [memory.dense(check_in_place("x", array)) for array in given]
    numbers = coefficients if isinstance(coefficients, np.ndarray) else constant(np.array(coefficients, np.float64))
    for key in dict.fromkeys(map(_kind, targets)):
        chosen = [target for target in targets if _kind(target) == key]
        problem = ClipProblem("forward", dtype_name(key[0]), function, tuple([target.size for target in chosen]))
        dispatch.run(problem, (numbers,), (chosen,))
    for array, target in zip(given, targets):
        if target is not array:
            array[...] = target


def scale_(x: Arrays, factor: float) -> None:
    """Multiply an array, or each array of a list, by a number, in place.

    Raises
    ------
    TypeError, ValueError
        If `x` is no writeable array of float32 or float64.
    """
    _clip("scale", x, (number("factor", factor), 0.0))


def clamp_(x: Arrays, min: float, max: float) -> None:
    """Limit the elements of an array, or of each array of a list, to [min, max], in place; NaN stays NaN.

    Raises
    ------
    TypeError, ValueError
        If `x` is no writeable array of float32 or float64.
    """
    _clip("clamp", x, (number("min", min), number("max", max)))


def fill_(x: Arrays, value: float) -> None:
    """Set all elements of an array, or of each array of a list, to a number.

    Raises
    ------
    TypeError, ValueError
        If `x` is no writeable array of float32 or float64.
    """
    _clip("fill", x, (number("value", value), 0.0))
