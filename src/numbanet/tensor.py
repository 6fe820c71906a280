"""Tensor: a NumPy array that remembers how it was computed, with the methods of torch.Tensor."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from numbanet import memory, ops, settings
from numbanet.tape import Node, Version, run_backward


def _functional() -> Any:
    # The operators below are the functions of numbanet.functional, which stands above this module.
    from numbanet import functional

    return functional


def _comparable(value: Any) -> bool:
    return isinstance(value, (Tensor, np.ndarray, np.generic, bool, int, float))


class Tensor:
    """An array with a gradient.

    Made by `numbanet.tensor`, and by every function of `numbanet.functional`.

    Attributes
    ----------
    data : numpy.ndarray
        The values. Changing them in place is for code that knows that no recorded operation needs the old ones; call
        `bump_version` afterwards.
    requires_grad : bool
        Whether gradients flow to this tensor.
    grad : Tensor or None
        The accumulated gradient of a leaf.
    """

    __slots__ = ("__weakref__", "_memory", "_node", "data", "grad", "requires_grad")
    __array_priority__ = 1000  # ndarray + Tensor is Tensor.__radd__

    def __init__(self, data: np.ndarray, requires_grad: bool = False):
        self.data = data
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self._node: Node | None = None
        self._memory = Version()

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the values."""
        return self.data.dtype

    @property
    def device(self) -> str:
        """``"cpu"`` or ``"cuda"``."""
        return "cpu"

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it, rather than a recorded operation."""
        return self._node is None

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[dim]

    def numel(self) -> int:
        """Return the number of elements."""
        return self.data.size

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-dimensional tensor")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-dimensional tensor")
        return (self[index] for index in range(len(self.data)))

    def __repr__(self) -> str:
        text = np.array2string(self.data, prefix="tensor(", separator=", ", precision=4)
        extra = ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self.dtype}{extra})"

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def item(self) -> Any:
        """Return the value of a one-element tensor as a Python number.

        Raises
        ------
        ValueError
            If it has more or fewer elements than one.
        """
        if self.data.size != 1:
            raise ValueError(f"item() needs a tensor with one element, got shape {self.shape}")
        return self.data.reshape(()).item()

    def numpy(self) -> np.ndarray:
        """Return the values as a read-only view.

        Raises
        ------
        RuntimeError
            If the tensor requires a gradient: use ``t.detach().numpy()``.
        """
        if self.requires_grad:
            raise RuntimeError("numpy() of a tensor that requires a gradient: call detach().numpy()")
        view = self.data.view()
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self.data.tolist()

    # ------------------------------------------------------------------------------------------------ gradients

    def backward(self, grad: Tensor | np.ndarray | None = None, retain_graph: bool = False) -> None:
        """Accumulate the gradient of this tensor in the ``grad`` of every leaf that it was computed from.

        Parameters
        ----------
        grad : Tensor or array, optional
            The gradient of what shall be differentiated with respect to this tensor; 1 for a one-element tensor.
        retain_graph : bool
            Keep the tape for another backward.

        Raises
        ------
        RuntimeError
            If the tensor requires no gradient, `grad` is missing for a tensor of several elements, the tape was freed
            by an earlier backward, or an operand was changed in place.
        ValueError
            If `grad` has another shape.
        """
        if not self.requires_grad:
            raise RuntimeError("backward() of a tensor that does not require a gradient")
        if grad is None:
            if self.data.size != 1:
                raise RuntimeError(f"backward() without grad needs a tensor with one element, got shape {self.shape}")
            seed = np.ones_like(self.data)
        else:
            seed = np.asarray(grad.data if isinstance(grad, Tensor) else grad, self.dtype)
            if seed.shape != self.shape:
                raise ValueError(f"grad must have the tensor's shape {self.shape}, got {seed.shape}")
        run_backward(self, seed, retain_graph)

    def _accumulate(self, gradient: np.ndarray) -> None:
        if gradient.shape != self.shape:
            raise RuntimeError(f"a backward function gave a gradient of shape {gradient.shape} for shape {self.shape}")
        if self.grad is None:
            # A copy: a gradient may be shared between parents, or be a broadcast or read-only view.
            values = memory.empty_like(self.data)
            values[...] = gradient
            self.grad = Tensor(values)
        else:
            self.grad.data = ops.add(self.grad.data, gradient)
            self.grad.bump_version()

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set whether gradients flow to this leaf, and return it.

        Raises
        ------
        RuntimeError
            If its dtype has no gradients, or it is not a leaf and the flag shall be dropped (use `detach`).
        """
        if requires_grad and self.dtype.kind != "f":
            raise RuntimeError(f"only floating-point tensors can require a gradient, got dtype {self.dtype}")
        if not requires_grad and self._node is not None:
            raise RuntimeError("requires_grad can be dropped from leaves only: use detach()")
        self.requires_grad = requires_grad
        return self

    def retain_grad(self) -> None:
        """Keep the gradient of this non-leaf in ``grad`` during backward.

        Raises
        ------
        RuntimeError
            If it requires no gradient.
        """
        if not self.requires_grad:
            raise RuntimeError("retain_grad() of a tensor that does not require a gradient")
        if self._node is not None:
            self._node.retained = weakref.ref(self)

    def detach(self) -> Tensor:
        """Return a tensor with the same values (shared memory) and no history."""
        result = Tensor(self.data)
        result._memory = self._memory
        return result

    def clone(self) -> Tensor:
        """Return a copy; gradients flow through it."""
        return _functional().clone(self)

    @property
    def _version(self) -> int:
        """How often the memory was changed in place, through this tensor or another that views it."""
        return self._memory.changes

    def bump_version(self) -> None:
        """Say that the values were changed in place: a backward that needs the old ones then raises."""
        self._memory.changes += 1

    def to(self, target: Any) -> Tensor:
        """Return the tensor on another device or in another dtype; itself where nothing changes."""
        if isinstance(target, str) and target in settings.DEVICES:
            if settings.resolve_device(target) == self.device:
                return self
            raise RuntimeError(f"no way to move a tensor from {self.device!r} to {target!r}")
        return _functional().to_dtype(self, target)

    def cpu(self) -> Tensor:
        """Return the tensor on the CPU."""
        return self.to("cpu")

    def float(self) -> Tensor:
        """Return the tensor in float32."""
        return self.to(np.float32)

    def double(self) -> Tensor:
        """Return the tensor in float64."""
        return self.to(np.float64)

    # ------------------------------------------------------------------------------------------------ arithmetic

    def __add__(self, other: Any) -> Tensor:
        return _functional().add(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return _functional().add(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return _functional().sub(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return _functional().sub(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return _functional().mul(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return _functional().mul(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return _functional().div(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return _functional().div(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return _functional().pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return _functional().pow(other, self)

    def __abs__(self) -> Tensor:
        return _functional().abs(self)

    def __neg__(self) -> Tensor:
        return _functional().neg(self)

    def __matmul__(self, other: Any) -> Tensor:
        return _functional().matmul(self, other)

    # Comparisons give booleans, element by element, so tensors are told apart by identity where they are keys.
    __hash__ = object.__hash__

    def __eq__(self, other: Any) -> Any:
        return _functional().eq(self, other) if _comparable(other) else NotImplemented

    def __ne__(self, other: Any) -> Any:
        return _functional().ne(self, other) if _comparable(other) else NotImplemented

    def __lt__(self, other: Any) -> Tensor:
        return _functional().lt(self, other) if _comparable(other) else NotImplemented

    def __le__(self, other: Any) -> Tensor:
        return _functional().le(self, other) if _comparable(other) else NotImplemented

    def __gt__(self, other: Any) -> Tensor:
        return _functional().gt(self, other) if _comparable(other) else NotImplemented

    def __ge__(self, other: Any) -> Tensor:
        return _functional().ge(self, other) if _comparable(other) else NotImplemented

    def matmul(self, other: Any) -> Tensor:
        """Return the matrix product; see `numbanet.functional.matmul`."""
        return _functional().matmul(self, other)

    def sum(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Return the sum over all elements, or over some dimensions."""
        return _functional().sum(self, dim, keepdim)

    def mean(self, dim: int | Sequence[int] | None = None, keepdim: bool = False) -> Tensor:
        """Return the mean over all elements, or over some dimensions."""
        return _functional().mean(self, dim, keepdim)

    def exp(self) -> Tensor:
        """Return e to the power of the values."""
        return _functional().exp(self)

    def log(self) -> Tensor:
        """Return the natural logarithm."""
        return _functional().log(self)

    def sqrt(self) -> Tensor:
        """Return the square root."""
        return _functional().sqrt(self)

    def abs(self) -> Tensor:
        """Return the absolute value."""
        return _functional().abs(self)

    def pow(self, exponent: Any) -> Tensor:
        """Return the values to the power `exponent`."""
        return _functional().pow(self, exponent)

    def clamp(self, min: Any = None, max: Any = None) -> Tensor:
        """Return the values, moved to the nearest bound where they lie beyond it."""
        return _functional().clamp(self, min, max)

    def argmax(self, dim: int | None = None) -> Tensor:
        """Return the index of the largest element (the first of equals), over all elements or along a dimension."""
        return Tensor(np.asarray(np.argmax(self.data, axis=dim)))

    # ------------------------------------------------------------------------------------------------ shape

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same elements, in row-major order of the shape, with another shape (one size may be -1)."""
        return _functional().reshape(self, shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape)

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> Tensor:
        """Return the tensor with a run of dimensions made one."""
        return _functional().flatten(self, start_dim, end_dim)

    def transpose(self, dim0: int, dim1: int) -> Tensor:
        """Return the tensor with two dimensions swapped."""
        return _functional().transpose(self, dim0, dim1)

    def permute(self, *dims: Any) -> Tensor:
        """Return the tensor with its dimensions in another order."""
        return _functional().permute(self, dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims)

    @property
    def T(self) -> Tensor:  # noqa: N802 - torch's name
        """The transpose of a matrix."""
        return _functional().permute(self, tuple(reversed(range(self.ndim))))

    def __getitem__(self, index: Any) -> Tensor:
        return _functional().getitem(self, index)


def values(name: str, operand: Any) -> np.ndarray:
    """Return the array of a function's operand.

    Raises
    ------
    TypeError
        If it is no Tensor; the message has the argument's name.
    """
    if isinstance(operand, Tensor):
        return operand.data
    raise TypeError(f"{name} must be a Tensor, got {type(operand).__name__}: numbanet.tensor makes one")


def tensor(array: Any, requires_grad: bool = False, device: str | None = None, dtype: Any = None) -> Tensor:
    """Make a Tensor from an array, a number or nested sequences; the values are copied.

    Parameters
    ----------
    array : array_like
        NumPy arrays keep their dtype; Python floats become float32, integers int64, as in PyTorch.
    requires_grad : bool
        Whether gradients shall flow to it.
    device : {"auto", "cpu", "cuda"}, optional
        Where it lives; the chosen device (`numbanet.set_device`) if None.
    dtype : dtype, optional
        Convert to this dtype.

    Raises
    ------
    TypeError
        If the values are not numbers.
    RuntimeError
        If the device can't be used, or the dtype has no gradients.
    """
    settings.resolve_device(device)
    source = array.data if isinstance(array, Tensor) else array
    known = isinstance(source, (np.ndarray, np.generic))
    values = np.array(source, dtype, order="K")
    if values.dtype.kind not in "biuf":
        raise TypeError(f"array must hold real numbers, got dtype {values.dtype}")
    if not known and dtype is None and values.dtype == np.float64:
        values = values.astype(np.float32)
    return Tensor(values).requires_grad_(requires_grad) if requires_grad else Tensor(values)
