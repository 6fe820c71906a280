"""The operators and methods of Tensor that are functions of numbanet.functional under another roof."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from numbanet.device_array import DeviceArray
from numbanet.names import OMITTED, numpy_names

if TYPE_CHECKING:
    from numbanet.tensor import Tensor


@cache
def functional() -> Any:
    from numbanet import functional as module  # which stands above this module

    return module


def _comparable(value: Any) -> bool:
    return isinstance(value, (Methods, np.ndarray, DeviceArray, np.generic, bool, int, float))


def _wrapped(value: Any) -> Any:
    if isinstance(value, Methods):
        return value
    from numbanet.tensor import Tensor  # which imports this module

    return Tensor(value) if isinstance(value, (np.ndarray, DeviceArray)) else value  # type: ignore[arg-type]


def _sizes(name: str, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Return numbers that were handed over one by one, or as one sequence, also by its name."""
    if named:
        if given or list(named) != [name]:
            given_too = ["numbers without a name"] * bool(given) + [word for word in named if word != name]
            raise TypeError(f"{name} must be given once and alone, got also {', '.join(given_too)}")
        given = (named[name],)
    if not given:
        raise TypeError(f"{name} must be given: integers, or a sequence of them")
    return given[0] if isinstance(given[0], (tuple, list)) and len(given) == 1 else given


class Methods:
    """What `numbanet.tensor.Tensor` inherits: each method calls the function of its name."""

    __slots__ = ()
    data: np.ndarray

    # ------------------------------------------------------------------------------------------------ arithmetic

    def __add__(self, other: Any) -> Tensor:
        return functional().add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return functional().add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return functional().sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return functional().sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return functional().mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return functional().mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return functional().div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return functional().div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return functional().pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return functional().pow(other, self)

    def __abs__(self) -> Tensor:
        return functional().abs(self)

    def __neg__(self) -> Tensor:
        return functional().neg(self)

    def __matmul__(self, other: Any) -> Tensor:
        return functional().matmul(self, other if isinstance(other, Methods) else _wrapped(other))

    def __rmatmul__(self, other: Any) -> Tensor:
        return functional().matmul(_wrapped(other), self)

    def __invert__(self) -> Tensor:
        return functional().bitwise_not(self)

    def __and__(self, other: Any) -> Tensor:
        return functional().bitwise_and(self, other)

    def __rand__(self, other: Any) -> Tensor:
        return functional().bitwise_and(other, self)

    def __or__(self, other: Any) -> Tensor:
        return functional().bitwise_or(self, other)

    def __ror__(self, other: Any) -> Tensor:
        return functional().bitwise_or(other, self)

    def __xor__(self, other: Any) -> Tensor:
        return functional().bitwise_xor(self, other)

    def __rxor__(self, other: Any) -> Tensor:
        return functional().bitwise_xor(other, self)

    # Comparisons give booleans, element by element, so tensors are told apart by identity where they are keys.
    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return functional().eq(self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return functional().ne(self, other) if _comparable(other) else NotImplemented

    def __lt__(self, other: Any) -> Tensor:
        return functional().lt(self, other) if _comparable(other) else NotImplemented

    def __le__(self, other: Any) -> Tensor:
        return functional().le(self, other) if _comparable(other) else NotImplemented

    def __gt__(self, other: Any) -> Tensor:
        return functional().gt(self, other) if _comparable(other) else NotImplemented

    def __ge__(self, other: Any) -> Tensor:
        return functional().ge(self, other) if _comparable(other) else NotImplemented

    def sub(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """Return self - alpha * other."""
        return functional().sub(self, other, alpha=alpha)

    def add(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """Return self + alpha * other."""
        return functional().add(self, other, alpha=alpha)

    def mul(self, other: Any) -> Tensor:
        """Return self * other."""
        return functional().mul(self, other)

    def div(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Return self / other, with "trunc" or "floor" rounded."""
        return functional().div(self, other, rounding_mode=rounding_mode)

    def eq(self, other: Any) -> Tensor:
        """Return where self == other, as booleans."""
        return functional().eq(self, other)

    def ne(self, other: Any) -> Tensor:
        """Return where self != other, as booleans."""
        return functional().ne(self, other)

    def lt(self, other: Any) -> Tensor:
        """Return where self < other, as booleans."""
        return functional().lt(self, other)

    def le(self, other: Any) -> Tensor:
        """Return where self <= other, as booleans."""
        return functional().le(self, other)

    def gt(self, other: Any) -> Tensor:
        """Return where self > other, as booleans."""
        return functional().gt(self, other)

    def ge(self, other: Any) -> Tensor:
        """Return where self >= other, as booleans."""
        return functional().ge(self, other)

    def maximum(self, other: Any) -> Tensor:
        """Return the larger of each pair."""
        return functional().maximum(self, other)

    def minimum(self, other: Any) -> Tensor:
        """Return the smaller of each pair."""
        return functional().minimum(self, other)

    def neg(self) -> Tensor:
        """Return the negative values."""
        return functional().neg(self)

    def relu(self) -> Tensor:
        """Return max(self, 0)."""
        return functional().relu(self)

    def sigmoid(self) -> Tensor:
        """Return 1 / (1 + exp(-self))."""
        return functional().sigmoid(self)

    def tanh(self) -> Tensor:
        """Return the hyperbolic tangent."""
        return functional().tanh(self)

    @numpy_names()
    def softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return exp(self) divided by its sum along a dimension."""
        return functional().softmax(self, dim, dtype=dtype)

    @numpy_names()
    def log_softmax(self, dim: int, dtype: Any = None) -> Tensor:
        """Return the logarithm of `softmax`."""
        return functional().log_softmax(self, dim, dtype=dtype)

    def matmul(self, other: Any) -> Tensor:
        """Return the matrix product; see `numbanet.functional.matmul`."""
        return functional().matmul(self, other if isinstance(other, Methods) else _wrapped(other))

    @numpy_names("keepdim")
    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the sum over all elements, or over some dimensions."""
        return functional().sum(self, dim, keepdim, dtype=dtype)

    @numpy_names("keepdim")
    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the mean over all elements, or over some dimensions."""
        return functional().mean(self, dim, keepdim, dtype=dtype)

    @numpy_names("keepdim")
    def prod(self, dim: int = OMITTED, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
        """Return the product of all elements, or along a dimension."""
        return functional().prod(self, dim, keepdim, dtype=dtype)

    @numpy_names()
    def any(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Return whether any element is not zero, of all or over some dimensions."""
        return functional().any(self, dim, keepdim)

    @numpy_names()
    def all(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Return whether no element is zero, of all or over some dimensions."""
        return functional().all(self, dim, keepdim)

    def where(self, condition: Any, other: Any) -> Tensor:
        """Return self where the condition holds, else other."""
        return functional().where(condition, self, other)

    def exp(self) -> Tensor:
        """Return e to the power of the values."""
        return functional().exp(self)

    def log(self) -> Tensor:
        """Return the natural logarithm."""
        return functional().log(self)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return functional().sqrt(self)

    def abs(self) -> Tensor:
        """Return the absolute value."""
        return functional().abs(self)

    def pow(self, exponent: Any) -> Tensor:
        """Return the values to the power `exponent`."""
        return functional().pow(self, exponent)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Return the values, moved to the nearest bound where they lie beyond it."""
        return functional().clamp(self, min, max)

    @numpy_names()
    def argmax(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the largest element (the first of equals), over all elements or along a dimension."""
        return functional().argmax(self, dim, keepdim)

    @numpy_names()
    def argmin(self, dim: int | None = None, keepdim: bool = False) -> Tensor:
        """Return the index of the smallest element (the first of equals), over all elements or along a dimension."""
        return functional().argmin(self, dim, keepdim)

    @numpy_names("keepdim")
    def max(self, dim: Any = OMITTED, keepdim: bool = False, *, other: Any = None) -> Any:
        """Return the largest element, or along a dimension (values, indices), or the larger of pairs."""
        return functional().max(self, dim, keepdim, other=other)

    @numpy_names("keepdim")
    def min(self, dim: Any = OMITTED, keepdim: bool = False, *, other: Any = None) -> Any:
        """Return the smallest element, or along a dimension (values, indices), or the smaller of pairs."""
        return functional().min(self, dim, keepdim, other=other)

    @numpy_names()
    def amax(self, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
        """Return the largest elements over some dimensions."""
        return functional().amax(self, dim, keepdim)

    @numpy_names()
    def amin(self, dim: int | Sequence[int] = (), keepdim: bool = False) -> Tensor:
        """Return the smallest elements over some dimensions."""
        return functional().amin(self, dim, keepdim)

    @numpy_names("unbiased", "keepdim")
    def var(
        self, dim: Any = None, unbiased: bool = OMITTED, keepdim: bool = False, *, correction: Any = None
    ) -> Tensor:
        """Return the variance over all elements, or over some dimensions."""
        return functional().var(self, dim, unbiased, keepdim, correction=correction)

    @numpy_names("unbiased", "keepdim")
    def std(
        self, dim: Any = None, unbiased: bool = OMITTED, keepdim: bool = False, *, correction: Any = None
    ) -> Tensor:
        """Return the standard deviation over all elements, or over some dimensions."""
        return functional().std(self, dim, unbiased, keepdim, correction=correction)

    # ------------------------------------------------------------------------------------------------ in place

    def __iadd__(self, other: Any) -> Tensor:
        return functional().inplace.apply(self, functional().add, other)

    def __isub__(self, other: Any) -> Tensor:
        return functional().inplace.apply(self, functional().sub, other)

    def __imul__(self, other: Any) -> Tensor:
        return functional().inplace.apply(self, functional().mul, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return functional().inplace.apply(self, functional().div, other)

    def __setitem__(self, index: Any, value: Any) -> None:
        functional().inplace.assign(self, index, value)

    def add_(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """Add alpha * other in place; see `numbanet.functional.inplace.apply`."""
        return functional().inplace.apply(self, functional().add, other, alpha=alpha)

    def sub_(self, other: Any, *, alpha: Any = 1) -> Tensor:
        """Subtract alpha * other in place; see `numbanet.functional.inplace.apply`."""
        return functional().inplace.apply(self, functional().sub, other, alpha=alpha)

    def mul_(self, other: Any) -> Tensor:
        """Multiply in place; see `numbanet.functional.inplace.apply`."""
        return functional().inplace.apply(self, functional().mul, other)

    def div_(self, other: Any, *, rounding_mode: str | None = None) -> Tensor:
        """Divide in place; see `numbanet.functional.inplace.apply`."""
        return functional().inplace.apply(self, functional().div, other, rounding_mode=rounding_mode)

    def zero_(self) -> Tensor:
        """Set every element to zero; see `numbanet.functional.inplace.assign`."""
        return functional().inplace.assign(self, ..., 0)

    def fill_(self, value: Any) -> Tensor:
        """Set every element to a number; see `numbanet.functional.inplace.assign`.

        Raises
        ------
        ValueError
            If `value` is a tensor with dimensions.
        """
        if np.ndim(getattr(value, "data", value)):
            raise ValueError(f"value must be a number or a tensor of no dimensions, got {value!r}")
        return functional().inplace.assign(self, ..., value)

    def copy_(self, src: Tensor, non_blocking: bool = False) -> Tensor:
        """Take over the values of a tensor, broadcast and converted; see `numbanet.functional.inplace.assign`.

        Raises
        ------
        TypeError, ValueError
            If `src` is no Tensor of real numbers, or its shape does not fit.
        """
        if not isinstance(src, Methods):
            raise TypeError(f"src must be a Tensor, got {type(src).__name__}")
        if src.dtype.kind not in "biuf":
            raise TypeError(f"src must hold real numbers, got {src.dtype}")
        if src.data.ndim > self.data.ndim:
            raise ValueError(f"src must broadcast to the shape {self.data.shape}, got {src.data.shape}")
        return functional().inplace.assign(self, ..., src)

    # ------------------------------------------------------------------------------------------------ shape

    def reshape(self, *shape: Any, **named: Any) -> Tensor:
        """Return the same elements, in row-major order of the shape, with another shape (one size may be -1)."""
        return functional().reshape(self, _sizes("shape", shape, named))

    def view(self, *size: Any, **named: Any) -> Tensor:
        """Return what `reshape` returns."""
        return functional().reshape(self, _sizes("size", size, named))

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Return the tensor with a run of dimensions made one."""
        return functional().flatten(self, start_dim, end_dim)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Return the tensor with two dimensions swapped."""
        return functional().transpose(self, dim0, dim1)

    def permute(self, *dims: Any, **named: Any) -> Tensor:
        """Return the tensor with its dimensions in another order."""
        return functional().permute(self, _sizes("dims", dims, named))

    @numpy_names()
    def squeeze(self, dim: int | Sequence[int] | None = None) -> Tensor:
        """Return the tensor without the dimensions of size 1, or without those of `dim` that have size 1."""
        return functional().squeeze(self, dim)

    @numpy_names()
    def unsqueeze(self, dim: int) -> Tensor:
        """Return the tensor with a new dimension of size 1 at `dim`."""
        return functional().unsqueeze(self, dim)

    def unflatten(self, dim: int, sizes: Sequence[int]) -> Tensor:
        """Return the tensor with a dimension split into several."""
        return functional().unflatten(self, dim, sizes)

    def expand(self, *size: Any, **named: Any) -> Tensor:
        """Return a read-only view with dimensions of size 1 repeated."""
        return functional().expand(self, _sizes("size", size, named))

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
        """Return views of consecutive parts along a dimension; see `numbanet.functional.split`."""
        return functional().split(self, split_size, dim)

    def chunk(self, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
        """Return views of at most `chunks` parts along a dimension."""
        return functional().chunk(self, chunks, dim)

    def contiguous(self) -> Tensor:
        """Return the tensor in row-major order, itself where it is."""
        return functional().contiguous(self)

    def t(self) -> Tensor:
        """Return the transpose of a matrix; a vector or a number as it is.

        Raises
        ------
        ValueError
            If it has more than two dimensions.
        """
        if self.data.ndim > 2:
            raise ValueError(f"t() needs a tensor with at most 2 dimensions, got {self.data.ndim}")
        return functional().transpose(self, 0, 1) if self.data.ndim == 2 else self  # type: ignore[return-value]

    @property
    def T(self) -> Tensor:  # noqa: N802 - torch's name
        """The transpose of a matrix."""
        return functional().permute(self, tuple(reversed(range(self.data.ndim))))

    def __getitem__(self, index: Any) -> Tensor:
        return functional().getitem(self, index)
