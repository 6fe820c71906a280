"""Tensor: a NumPy array that remembers how it was computed, with the methods of torch.Tensor."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from numbanet import memory, ops, settings
from numbanet.changes import changed
from numbanet.device_array import DeviceArray
from numbanet.locks import new_lock
from numbanet.ops.shape import device_of
from numbanet.prepared import PreparedWeight
from numbanet.problem.base import integer
from numbanet.tape import Node, Version, needs_grad, run_backward
from numbanet.tensor_methods import Methods, functional
from numbanet.watch import doubt, grade, peek, take, watcher, write

_ADDING = new_lock()  # to gradients: several threads may differentiate by the same leaves


class Tensor(Methods):
    """An array with a gradient.

    Made by `numbanet.tensor`, and by every function of `numbanet.functional`.

    Attributes
    ----------
    data : numpy.ndarray or DeviceArray
        The values; a `numbanet.device_array.DeviceArray` on a GPU. Changing them in place is for code that knows that
        no recorded operation needs the old ones; call `bump_version` afterwards.
    requires_grad : bool
        Whether gradients flow to this tensor.
    grad : Tensor or None
        The accumulated gradient of a leaf. What is assigned must be None (else TypeError), or a Tensor of the same
        dtype (else TypeError) and shape (else ValueError).
    """

    __slots__ = ("__weakref__", "_grad", "_memory", "_node", "data", "requires_grad")
    __array_priority__ = 1000  # ndarray + Tensor is Tensor.__radd__

    def __init__(self, data: np.ndarray, requires_grad: bool = False):
        self.data = data
        self.requires_grad = requires_grad
        self._grad: Tensor | None = None
        self._node: Node | None = None
        self._memory = Version()

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the dimensions."""
        return array_of(self).shape

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return array_of(self).ndim

    def dim(self) -> int:
        """Return the number of dimensions."""
        return array_of(self).ndim

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype of the values."""
        return array_of(self).dtype

    @property
    def device(self) -> str:
        """``"cpu"``, ``"cuda"`` (the first GPU), or ``"cuda:1"`` and so on."""
        array = array_of(self)
        return array.device if type(array) is DeviceArray else "cpu"

    @property
    def is_leaf(self) -> bool:
        """Whether the user made it, rather than a recorded operation."""
        return self._node is None

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size of one dimension (IndexError if there is none such)."""
        if dim is None:
            return self.shape
        if not -self.ndim <= integer("dim", dim) < self.ndim:
            raise IndexError(f"dim must be between {-self.ndim} and {self.ndim - 1}, got {dim}")
        return self.shape[dim]

    def numel(self) -> int:
        """Return the number of elements."""
        return array_of(self).size

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-dimensional tensor")
        return len(self.data)

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-dimensional tensor")
        return (self[index] for index in range(len(self.data)))

    def __repr__(self) -> str:
        doubt("values were shown")
        text = np.array2string(memory.on_host(self.data), prefix="tensor(", separator=", ", precision=4)
        extra = f", device='{self.device}'" if self.device != "cpu" else ""
        extra += ", requires_grad=True" if self.requires_grad else ""
        return f"tensor({text}, dtype={self.dtype}{extra})"

    def __bool__(self) -> bool:
        return bool(self._only("bool"))

    def __float__(self) -> float:
        return float(self._only("float"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __index__(self) -> int:
        if self.dtype.kind not in "biu" or self.data.size != 1:
            raise TypeError(f"an integer must be a tensor of one integer, got {self.dtype} of shape {self.shape}")
        return int(self._only("index"))

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, (Tensor, np.generic, bool, int, float)):
            raise TypeError(f"element must be a Tensor or a number, got {type(element).__name__}")
        doubt("values were read")
        return bool(memory.on_host((self == element).data).any())

    def __format__(self, spec: str) -> str:
        if self.ndim == 0 or (spec and self.data.size == 1):
            return format(self.item(), spec)
        if spec:
            raise TypeError(f"format {spec!r} needs a tensor with one element, got shape {self.shape}")
        return str(self)

    def item(self) -> Any:
        """Return the value of a one-element tensor as a Python number.

        Raises
        ------
        ValueError
            If it has more or fewer elements than one.
        """
        return self._only("item")

    def _only(self, caller: str) -> Any:
        doubt("a value was read")
        if self.data.size != 1:
            raise ValueError(f"{caller}() needs a tensor with one element, got shape {self.shape}")
        return self.data.item()

    def numpy(self) -> np.ndarray:
        """Return the values as a read-only view.

        Raises
        ------
        RuntimeError
            If the tensor requires a gradient: use ``t.detach().numpy()``.
        TypeError
            If it lives on a GPU: use ``t.cpu().numpy()``.
        """
        if self.requires_grad:
            raise RuntimeError("numpy() of a tensor that requires a gradient: call detach().numpy()")
        doubt("values were read")
        view = self.data.view()
        if type(view) is DeviceArray:
            raise TypeError(f"numpy() of a tensor on {self.device!r}: call cpu().numpy()")
        view.flags.writeable = False
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(
        self, *, stream: int | None = None, max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None, copy: bool | None = None,
    ) -> Any:  # fmt: skip
        """Return the memory as a DLPack capsule, for ``from_dlpack`` of other libraries; nothing is copied.

        Parameters
        ----------
        stream : int, optional
            On a GPU, the stream that shall wait for the values: its handle, 1 (as None does) for the default stream, 2
            for the thread's, or -1 for none. None on the CPU.
        max_version : tuple of int, optional
            The newest version that the caller reads. Read-only memory needs (1, 0).
        dl_device : tuple of int, optional
            Where the caller wants the values: where they are, or the CPU, (1, 0), which copies them from a GPU.
        copy : bool, optional
            True: copy. False: don't.

        Raises
        ------
        BufferError
            If the tensor requires a gradient, is not in this machine's byte order, has strides that are no multiple of
            an element's size, is read-only and `max_version` does not allow that, or should be copied to another device
            than the CPU, or against `copy`.
        TypeError, ValueError
            If `stream` is none.
        """
        from numbanet import interchange

        return interchange.export(self, stream, max_version, dl_device, copy)

    def __dlpack_device__(self) -> tuple[int, int]:
        from numbanet import interchange

        return interchange.device_of(self)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """The memory on a GPU as other libraries take it, without a copy; tensors on the CPU have no such attribute."""
        if self.device == "cpu":
            raise AttributeError("a tensor on the CPU has no __cuda_array_interface__: call cuda() first")
        if self.requires_grad:
            raise RuntimeError("__cuda_array_interface__ of a tensor that requires a gradient: call detach() first")
        doubt("values were read")
        return self.data.__cuda_array_interface__  # type: ignore[attr-defined]

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        doubt("values were read")
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
            if watcher() is not None and type(seed) is np.ndarray:  # a replay makes it again
                seed = memory.empty_like(seed)
                ops.fill_(seed, 1.0)
        else:
            seed, result = grad.data if isinstance(grad, Tensor) else grad, self.data
            if not (type(seed) is type(result) is np.ndarray and seed.dtype == result.dtype):
                dtype = result.dtype
                seed = seed.astype(dtype, copy=False) if type(seed) is DeviceArray else np.asarray(seed, dtype)
                if device_of(seed) != self.device:
                    raise ValueError(f"grad must be on the tensor's device {self.device!r}")
            if seed.shape != result.shape:
                raise ValueError(f"grad must have the tensor's shape {self.shape}, got {seed.shape}")
        run_backward(self, seed, retain_graph)

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient."""
        peek(self)
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(f"grad must be a Tensor or None, got {type(value).__name__}")
            if value.shape != self.shape:
                raise ValueError(f"grad must have the tensor's shape {self.shape}, got {value.shape}")
            if value.dtype != self.dtype:
                raise TypeError(f"grad must have the tensor's dtype {self.dtype}, got {value.dtype}")
        grade(self)
        self._grad = value

    def _accumulate(self, gradients: list[Any], position: int) -> None:
        """Add one of a list of gradients; one that nobody else refers to may become the first without a copy."""
        ours = memory.alone_in(gradients, position)
        gradient, data = gradients[position], array_of(self)
        if gradient.shape != data.shape:
            raise RuntimeError(f"a backward function gave a gradient of shape {gradient.shape} for shape {data.shape}")
        peek(self)
        while True:  # until no other thread added meanwhile; the lock is not held while kernels run
            former = self._grad
            if former is not None:
                known = former.data
                total = ops.add(known, gradient)
                with _ADDING:
                    if self._grad is former and former.data is known:
                        former.data = total
                        former.bump_version()
                        return
                continue
            if not (ours and gradient.dtype == data.dtype and memory.same_order(gradient, data)):
                # A copy: a gradient may be shared between parents, or be a broadcast or read-only view.
                gradient, ours = memory.empty_like(data), True
                memory.fill(gradient, gradients[position])
            with _ADDING:
                if self._grad is None:
                    self._grad = Tensor(gradient)
                    return

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
        self._memory.settle()  # what waits for these values was called when the flag was another
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
        return functional().clone(self)

    @property
    def _version(self) -> int:
        """How often the memory was changed in place, through this tensor or another that views it."""
        return self._memory.changes

    def bump_version(self) -> None:
        """Say that the values were changed in place: a backward that needs the old ones then raises."""
        write(self)
        self._memory.changes += 1
        changed()

    def expose(self) -> None:
        """Take notice that someone gets the memory, and may write to it without a word; see `nn.Parameter`."""

    def planned(self) -> bool:
        """Return whether the values are yet to be computed, or lie in an arena; see `numbanet.memory.arena`."""
        return memory.planned(array_of(self))

    def stamp(self) -> tuple[int, int]:
        """Return what differs after each change of the values that was noticed."""
        return id(array_of(self)), self._memory.changes

    def prepared(self) -> PreparedWeight | None:
        """Return the prepared forms of a weight that nobody can change unnoticed, else None; see `nn.Parameter`."""
        return None

    def to(
        self,
        *args: Any,
        dtype: Any = None,
        device: str | int | None = None,
        non_blocking: bool = False,
        copy: bool = False,
    ) -> Tensor:
        """Return the tensor on another device or in another dtype; itself where nothing changes.

        Parameters
        ----------
        *args : str, int, dtype or Tensor
            A device (``"cpu"``, ``"cuda"``, ``"cuda:1"``, or the number of a GPU), a dtype, both, or a tensor that has
            both.
        dtype : dtype, optional
        device : str or int, optional
        non_blocking : bool
            Changes nothing, as in PyTorch on the CPU; `data.DataLoader` copies batches to a GPU beside the work there.
        copy : bool
            Return a copy also where nothing changes.

        Raises
        ------
        RuntimeError
            If the device can't be used.
        TypeError
            If there is no such dtype, or if there are two devices or dtypes.
        """
        device, dtype, copied = settings.destination(args, device, dtype)
        result = self if dtype is None else functional().to_dtype(self, dtype)
        target = None if device is None else settings.resolve_device(device)
        if target is not None and target != self.device:
            return functional().to_device(result, target)
        return result.clone() if (copy or copied) and result is self else result

    def cpu(self) -> Tensor:
        """Return the tensor on the CPU, itself where it is."""
        return self.to("cpu")

    def cuda(self, device: int | str | None = None) -> Tensor:
        """Return the tensor on a GPU, the first or that of a number; itself where it is.

        Raises
        ------
        RuntimeError
            If the GPU can't be used.
        """
        return self.to(settings.gpu_word(device))

    def float(self) -> Tensor:
        """Return the tensor in float32."""
        return self.to(np.float32)

    def long(self) -> Tensor:
        """Return the tensor in int64."""
        return self.to(np.int64)

    def double(self) -> Tensor:
        """Return the tensor in float64."""
        return self.to(np.float64)


array_of: Callable[[Tensor], np.ndarray] = Tensor.__dict__["data"].__get__
"""Return a tensor's array to read it: parameters take notice where ``.data`` is asked for, which may be to write."""


def values(name: str, operand: Any, whole: bool = False) -> np.ndarray:
    """Return the array of a function's operand; `whole` as for `numbanet.watch.take`.

    Raises
    ------
    TypeError
        If it is no Tensor; the message has the argument's name.
    """
    if isinstance(operand, Tensor):
        try:
            array = array_of(operand)
        except AttributeError:  # a result that waits: see numbanet.deferred
            return operand.data
        if watcher() is not None:
            take(operand, whole)
        return array
    if operand is None and name == "input":
        raise TypeError(f"{name} must be a Tensor, got None: does a forward return nothing?")
    kind = type(operand)
    package = f"{kind.__module__.split('.')[0]}." if kind.__name__ == "Tensor" else ""  # PyTorch's has the same name
    raise TypeError(f"{name} must be a Tensor, got {package}{kind.__name__}: numbanet.tensor makes one")


def constant(name: str, operand: Any) -> np.ndarray:
    """Return the array of an operand to which no gradient flows, such as the weights of a loss.

    Raises
    ------
    TypeError
        If it is no Tensor.
    RuntimeError
        If it requires a gradient, and operations are recorded.
    """
    array = values(name, operand)
    if needs_grad(operand):
        raise RuntimeError(f"{name} must not require a gradient, it would get none: hand over {name}.detach()")
    return array
