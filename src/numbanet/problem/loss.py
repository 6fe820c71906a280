"""Losses: cross_entropy, nll_loss, mse_loss; what their arguments must be."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from numbanet.device_array import DeviceArray
from numbanet.problem.base import Problem, as_array, choice, integer

REDUCTIONS = ("none", "mean", "sum")
_INT64 = np.dtype(np.int64)


@dataclass(frozen=True)
class CrossEntropyProblem(Problem):
    """Cross entropy of class scores, one row an element of the batch.

    Attributes
    ----------
    rows, classes : int
    probabilities : bool
        Whether the target holds probabilities of classes instead of indices.
    reduction : str
    ignore_index : int
        Rows with this index count nothing.
    label_smoothing : float
    """

    operation: ClassVar[str] = "cross_entropy"
    rows: int
    classes: int
    probabilities: bool
    reduction: str
    ignore_index: int
    label_smoothing: float


@dataclass(frozen=True)
class NLLProblem(Problem):
    """Negative log-likelihood: minus the element of each row that the target names; attributes as for cross entropy."""

    operation: ClassVar[str] = "nll_loss"
    rows: int
    classes: int
    reduction: str
    ignore_index: int


@dataclass(frozen=True)
class MSEProblem(Problem):
    """Squared differences of `size` pairs."""

    operation: ClassVar[str] = "mse_loss"
    size: int
    reduction: str


def reduction_word(reduction: Any, size_average: bool | None = None, reduce: bool | None = None) -> str:
    """Return ``"none"``, ``"mean"`` or ``"sum"``, from torch's older pair of flags where one is given.

    Raises
    ------
    ValueError
        If `reduction` is no such word.
    """
    if size_average is None and reduce is None:
        return choice("reduction", reduction, REDUCTIONS)
    warnings.warn("size_average and reduce are deprecated: use reduction", FutureWarning, stacklevel=3)
    if reduce is not None and not reduce:
        return "none"
    return "sum" if size_average is not None and not size_average else "mean"


def row_shape(shape: tuple[int, ...]) -> tuple[tuple[int, ...], int]:
    """Return the shape of one target an element, and the number of classes, of an input (C), (N, C) or (N, C, d...).

    Raises
    ------
    ValueError
        If the input has no dimension.
    """
    if not shape:
        raise ValueError("input must have shape (C), (N, C) or (N, C, d1, ...), got a scalar")
    return ((), shape[0]) if len(shape) == 1 else ((shape[0], *shape[2:]), shape[1])


def class_indices(target: Any, input_shape: tuple[int, ...], ignore_index: int) -> np.ndarray:
    """Return the target of class indices as contiguous int64, one number a row.

    Raises
    ------
    TypeError, ValueError
        If a dtype or shape does not fit; see `indices`.
    IndexError
        If an index other than `ignore_index` is no class. On a GPU the loss is NaN then, and the error comes when
        Python next waits for it, as where the loss is read.
    """
    labels = indices(target, input_shape)
    refuse_others(labels, row_shape(input_shape)[1], ignore_index)
    return labels


def indices(target: Any, input_shape: tuple[int, ...]) -> np.ndarray:
    """Return a target as contiguous int64, one number a row, which may be no class.

    Raises
    ------
    TypeError
        If its dtype is not int64, nor uint8 with an input of at most two dimensions (or with nothing in it).
    ValueError
        If its shape does not fit the input.
    """
    array: Any = as_array(target)
    rows, _ = row_shape(input_shape)
    if array.dtype != _INT64 and array.dtype.name not in ("int64", "uint8"):
        remedy = ": array.astype(np.int64), or tensor.long(), makes such ones" if array.dtype.kind in "iuf" else ""
        raise TypeError(f"target must hold class indices of dtype int64 or uint8, got {array.dtype}{remedy}")
    if len(input_shape) > 2 and array.dtype == np.uint8 and array.size:
        raise TypeError(f"target must have dtype int64 for input of shape {input_shape}, got uint8")
    if array.shape != rows and not (rows == () and array.shape == (1,)):
        raise ValueError(f"target must have shape {rows} for input of shape {input_shape}, got {array.shape}")
    if type(array) is DeviceArray:  # to look at its values, Python would have to wait for the GPU
        device_labels: Any = array.astype(np.int64, copy=False)
        return (device_labels if device_labels.flags.c_contiguous else device_labels.copy("C")).reshape(-1)
    if array.ndim == 1 and array.dtype == _INT64 and array.flags.c_contiguous:
        return array
    return np.ascontiguousarray(array, np.int64).reshape(-1)


def refuse_others(labels: np.ndarray, classes: int, ignore_index: int) -> None:
    """Raise IndexError if a label on the CPU is neither a class nor the index that is ignored."""
    if type(labels) is not DeviceArray and not are_classes(labels, classes, ignore_index):
        wrong = labels[((labels < 0) | (labels >= classes)) & (labels != ignore_index)]
        raise IndexError(f"target holds {wrong[0]}, which is not one of the {classes} classes of the input")


def are_classes(labels: np.ndarray, classes: int, ignore_index: int) -> bool:
    """Return whether each number of an array of int64 is the index of a class, or the one that is ignored."""
    # As unsigned numbers, negative indices are huge: one pass finds that all is well.
    if not labels.size or np.maximum.reduce(labels.view(np.uint64), axis=None) < classes:
        return True
    return bool((((labels >= 0) & (labels < classes)) | (labels == ignore_index)).all())


def class_probabilities(target: Any, input_shape: tuple[int, ...], ignore_index: int) -> np.ndarray:
    """Return the target of class probabilities, which must have the input's shape; the shape was compared before.

    Raises
    ------
    TypeError
        If it holds no floating-point numbers.
    ValueError
        If `ignore_index` names a class: there is nothing that it could mean.
    """
    array = as_array(target)
    if array.dtype.kind != "f":
        raise TypeError(f"target of the input's shape {input_shape} must hold class probabilities, got {array.dtype}")
    if ignore_index >= 0:
        raise ValueError(f"ignore_index must be negative where target holds probabilities, got {ignore_index}")
    return array


@lru_cache(maxsize=64)
def ones(shape: int | tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return weights that change nothing, read-only."""
    found = np.ones(shape, dtype)
    found.flags.writeable = False
    return found


def class_weight(weight: Any, classes: int, dtype: np.dtype, images: bool = False) -> np.ndarray:
    """Return the weights of the classes as a contiguous array; ones if None. For images any shape will do, as in torch.

    Raises
    ------
    TypeError, ValueError
        If the dtype is not the input's, or there is not one weight for each class.
    """
    if weight is None:
        return ones(classes, dtype)
    array: Any = as_array(weight)
    if array.dtype != dtype:
        raise TypeError(f"weight must have the dtype {dtype} of the input, got {array.dtype}")
    if array.shape != (classes,) and not (images and array.size == classes):
        raise ValueError(f"weight must have shape ({classes},), one for each class, got {array.shape}")
    return (array if array.flags.c_contiguous else array.copy("C")).reshape(classes)


def smoothing(label_smoothing: Any) -> float:
    """Return the label smoothing as a float; what is not above 0 smooths nothing, as in torch.

    Raises
    ------
    TypeError, ValueError
        If it is not a number, or above 1.
    """
    if isinstance(label_smoothing, bool) or not isinstance(label_smoothing, (int, float, np.floating)):
        raise TypeError(f"label_smoothing must be a number, got {label_smoothing!r}")
    if label_smoothing > 1:
        raise ValueError(f"label_smoothing must be at most 1, got {label_smoothing}")
    return float(label_smoothing) if label_smoothing > 0 else 0.0


def ignored(ignore_index: Any) -> int:
    """Return the index to ignore, or raise TypeError."""
    return integer("ignore_index", ignore_index)
