"""Norms of arrays, and arrays that are scaled, limited or filled in place; many at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from numbanet import dispatch, memory
from numbanet.ops.many import Arrays, kind, listed
from numbanet.problem.base import dtype_name, float_array
from numbanet.problem.optim import ClipProblem, VectorNormProblem, check_in_place
from numbanet.problem.pointwise import number
from numbanet.watch import constant, doubt


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
    for key in dict.fromkeys(kind(x) for x in checked):
        places = [j for j, x in enumerate(checked) if kind(x) == key]
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
    given = [check_in_place("x", array) for array in listed("x", x)]
    places = {kind(array)[1] for array in given}
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
    given = listed("x", x)
    targets = [memory.dense(check_in_place("x", array)) for array in given]
    numbers = coefficients if isinstance(coefficients, np.ndarray) else constant(np.array(coefficients, np.float64))
    for key in dict.fromkeys(map(kind, targets)):
        chosen = [target for target in targets if kind(target) == key]
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
