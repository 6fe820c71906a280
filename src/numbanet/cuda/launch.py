"""Run kernels on a device: the only place that knows how arguments reach a GPU.

`launch` hands a kernel, its grid and its arguments to the current executor. The GPU's executor loads the cubin and
launches through cuda.core with flat arguments; the tests' executor interprets the PTX on the CPU.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from numbanet import memory, settings
from numbanet.cuda.tensor_map import TensorMap
from numbanet.device_array import DeviceArray
from numbanet.locks import new_lock

if TYPE_CHECKING:
    from numbanet.cuda.compile import Kernel  # which imports the compiler

COMPILER = "numba_cuda"  # the package with which `numbanet.cuda.ptx` compiles
LIBRARIES = ("nvvm", "nvrtc", "nvJitLink")  # of the toolkit, with which it compiles
COMPILER_WHEELS = ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12", "nvidia-cuda-nvrtc-cu12")  # whose version is the compiler's
Grid = tuple[int, int, int]
MOST_YZ = 65535  # blocks of a grid along y, and along z
INDEX, LABEL = 1, 2  # kinds of what kernels report: see `numbanet.cuda.fault`
Launch = tuple[Any, Grid, tuple[Any, ...], str]
"""Kernel, grid, arguments, dtype."""


class Executor(Protocol):
    """What runs kernels and owns the memory that they see."""

    capability: tuple[Any, ...]
    """Compute capability that kernels are compiled for."""
    ordinal: int
    """Number of the device."""

    def run(self, kernel: Kernel, grid: Grid, arguments: Sequence[Any], dtype: str) -> None:
        """Run a kernel over a grid of blocks."""

    def empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        """Return a C-contiguous array of the device with arbitrary content."""

    def constant(self, table: np.ndarray) -> Any:
        """Return a read-only copy of a host array on the device, made once for as long as the host array lives."""

    def upload(self, values: np.ndarray) -> Any:
        """Return a copy of a host array on the device, its axes in the same order in memory."""

    def download(self, array: Any) -> np.ndarray:
        """Return a copy of a device array on the host, its axes in the same order in memory."""

    def sync(self) -> None:
        """Wait for all that was started, and raise what kernels have reported: see `raise_fault`."""

    def stream_handle(self) -> int:
        """Return the handle of the stream on which kernels run, as `__cuda_array_interface__` wants it."""

    def order(self, first: int, then: int) -> None:
        """Make a stream wait for what another was given until now; both by their handles."""

    def ordinal_of(self, address: int) -> int:
        """Return the number of the device on which an address lies."""

    def fault(self) -> Any:
        """Return an array of three int64 to which kernels write what is wrong: see `numbanet.cuda.fault`."""

    def staging(self) -> Any:
        """Return what brings host arrays here: ``start(values)`` returns what is on its way, for ``take()``."""

    def release(self) -> None:
        """Give idle memory back to the system."""

    def send(self, array: Any, other: Any) -> Any:
        """Return a copy of an array of this device on the device of another executor."""

    def address(self, array: Any) -> int:
        """Return where the first element of a device array lies in the device's memory."""

    def addresses(self, arrays: Sequence[Any]) -> Any:
        """Return a device array of int64 with the address of each of many device arrays."""

    def replay(self, launches: Sequence[Launch], graph: Any) -> Any:
        """Repeat launches; return what makes the next time faster, which is handed over then (None the first time)."""


def has_compiler() -> bool:
    """Return whether the package is installed with which kernels are compiled."""
    return importlib.util.find_spec(COMPILER) is not None


_gpus: dict[int, Executor] = {}  # the process's own, each from its first use on
_only: Executor | None = None  # the one in use, where there is just one: all arrays are its own
_opening = new_lock()
_recording: ContextVar[list[Launch] | None] = ContextVar("numbanet_cuda_recording", default=None)
_executor: ContextVar[Executor | None] = ContextVar("numbanet_cuda_executor", default=None)


@contextmanager
def executor(value: Executor) -> Iterator[None]:
    """Within a ``with`` block, run kernels by this executor."""
    token = _executor.set(value)
    try:
        yield
    finally:
        _executor.reset(token)


def chosen() -> Executor | None:
    """Return the executor of the ``with executor(...)`` block that this is in, if it is in one."""
    return _executor.get()


def current() -> Executor:
    """Return the executor that runs kernels now.

    Raises
    ------
    RuntimeError
        If no GPU can be used; the message says why.
    """
    return _executor.get() or _only or numbered(settings.chosen_gpu())


def numbered(ordinal: int) -> Executor:
    """Return the executor of a device by its number."""
    inside = _executor.get()
    if inside is not None and inside.ordinal == ordinal:
        return inside
    return _gpus.get(ordinal) or _open(ordinal)


def of(array: DeviceArray) -> Executor:
    """Return the executor of the device on which an array lies."""
    return numbered(array.memory.device)


def elsewhere(array: DeviceArray) -> bool:
    """Return whether an array lies on another device than the current one."""
    return (_only is None or _executor.get() is not None) and of(array) is not current()


def raise_fault(words: np.ndarray) -> None:
    """Raise what kernels have reported, once Python has waited for them; see `Executor.fault`."""
    if words[0]:
        kind, index, size = map(int, words)
        words[0] = 0
        if kind == LABEL:
            raise IndexError(
                f"target holds {index}, which is not one of the {size} classes of the input: in a loss on the GPU "
                "since Python last waited for it"
            )
        raise IndexError(
            f"index {index} is out of bounds for an axis of size {size}: in an indexing on the GPU since Python last "
            "waited for it"
        )


class _Stay:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: Any) -> None: ...


_STAY = _Stay()


def beside(array: DeviceArray) -> Any:
    """Return a context manager: within its ``with`` block, the device on which an array lies is the current one."""
    return executor(of(array)) if elsewhere(array) else _STAY


F = TypeVar("F", bound=Callable[..., Any])


def where_arrays_are(function: F) -> F:
    """Decorate a function of device arrays: it runs on the device of the first that it is given."""

    @wraps(function)
    def there(*args: Any, **kwargs: Any) -> Any:
        with beside(next(_arrays((*args, *kwargs.values())))):
            return function(*args, **kwargs)

    return there  # type: ignore[return-value]


def _arrays(values: Sequence[Any]) -> Iterator[DeviceArray]:
    for value in values:
        if type(value) is DeviceArray:
            yield value
        elif type(value) in (tuple, list):
            yield from _arrays(value)


def _open(ordinal: int) -> Executor:
    """Return the executor of one of the process's GPUs, which this initialises."""
    global _only
    with _opening:
        if ordinal not in _gpus:
            from numbanet.cuda import probe

            reason = probe.reason()
            if reason is not None:
                raise RuntimeError(f"no CUDA kernel can run: {reason}")
            _gpus[ordinal] = _make(ordinal)
            _only = _gpus[ordinal] if len(_gpus) == 1 else None
        return _gpus[ordinal]


def _make(ordinal: int) -> Executor:
    from cuda import core
    from cuda.bindings import driver

    from numbanet.cuda.gpu import Gpu

    return Gpu(ordinal, core, driver)


def _release() -> None:
    for gpu in [*_gpus.values()]:
        gpu.release()


memory.releases.append(_release)


def launch(kernel: Kernel, grid: Sequence[int], arguments: Sequence[Any], dtype: str = "float32") -> None:
    """Run a kernel over a grid of blocks.

    Parameters
    ----------
    kernel : Kernel
    grid : sequence of int
        Blocks along x, y and z (missing ones are 1). An empty grid runs nothing.
    arguments : sequence
        One for each parameter of the kernel, in its order: a number for a scalar (or one of `each`); for a pointer a
        device array (its first element), a small NumPy array (read-only parameters, such as tables of shapes, that are
        the same in many launches), a `TensorMap`, or None (a null pointer).
    dtype : {"float32", "float64", "bfloat16", "float16"}
        What the kernel's ``T`` stands for.
    """
    if len(arguments) != len(kernel.parameters):
        raise TypeError(f"kernel {kernel.name} takes {len(kernel.parameters)} arguments, got {len(arguments)}")
    x, y, z = (*grid, 1, 1)[:3]
    if not (x and y and z):
        return
    if y > MOST_YZ or z > MOST_YZ:
        raise ValueError(f"kernel {kernel.name}: a grid has at most {MOST_YZ} blocks along y and z, got {(x, y, z)}")
    recorded = _recording.get()
    if recorded is not None:
        recorded.append((kernel, (x, y, z), tuple(map(_kept, arguments)), dtype))
    current().run(kernel, (x, y, z), arguments, dtype)


def _kept(argument: Any) -> Any:
    """Return an argument that keeps its memory, but not from being used again by what follows in a recording."""
    if type(argument) is DeviceArray:
        return memory.pinned(argument)
    return TensorMap(memory.pinned(argument.array), argument.form) if type(argument) is TensorMap else argument


def each(values: np.ndarray) -> list[np.ndarray]:
    """Return the numbers of a host array as scalar arguments; of a `Live` array each replay reads them anew."""
    return [values[i, ...] for i in range(len(values))]  # arrays of no dimension, which view the numbers


def empty(shape: tuple[int, ...], dtype: str) -> Any:
    """Return a C-contiguous device array with arbitrary content; within `numbanet.memory.arena` from its blocks."""
    device = current()
    planned = memory.planned_on_device(shape, dtype, device.ordinal, device.empty)
    return device.empty(shape, dtype) if planned is None else planned


@contextmanager
def recording(launches: list[Launch]) -> Iterator[None]:
    """Within a ``with`` block, append each launch to a list, in its order."""
    token = _recording.set(launches)
    try:
        yield
    finally:
        _recording.reset(token)


def places(launches: Sequence[Launch]) -> set[int]:
    """Return the numbers of the devices on which launches find their arrays."""
    return {array.memory.device for array in _arrays([launch[2] for launch in launches])}


def wait(launches: Sequence[Launch]) -> None:
    """Wait for the devices of launches, and raise what kernels have reported there."""
    for ordinal in places(launches):
        numbered(ordinal).sync()


class Recording:
    """Launches to be repeated in their order: on a GPU as one graph.

    Parameters
    ----------
    launches : sequence of Launch
        Kept, with the arrays that they name.
    """

    def __init__(self, launches: Sequence[Launch]):
        self.launches = tuple(launches)
        first = next(_arrays([launch[2] for launch in self.launches]), None)
        self._executor = current() if first is None else of(first)
        self._graph: Any = None

    def run(self) -> None:
        """Repeat the launches."""
        self._graph = self._executor.replay(self.launches, self._graph)


def constant(table: np.ndarray) -> Any:
    """Return a read-only copy of a host array on the device, made once for as long as the host array lives."""
    return current().constant(table)


def upload(values: np.ndarray) -> Any:
    """Return a copy of a host array on the device, its axes in the same order in memory."""
    return current().upload(values)


def download(array: Any) -> np.ndarray:
    """Return a copy of a device array on the host, its axes in the same order in memory."""
    return current().download(array)


def number(value: np.ndarray) -> Any:
    """Return a number (a host array of no dimension) as an array on the device, made once for each number."""
    return constant(_number(value.tobytes(), value.dtype))


@lru_cache(maxsize=4096)
def _number(content: bytes, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(())


def aligned(*arrays: Any, size: int = 16) -> bool:
    """Return whether the first element of each device array lies at a multiple of `size` bytes; None does."""
    address = current().address
    return all(array is None or address(array) % size == 0 for array in arrays)


def capability() -> tuple[Any, ...]:
    """Return the compute capability that kernels are compiled for, such as (9, 0, "a"); () where none can run."""
    try:
        return current().capability
    except RuntimeError:
        return ()


def addresses(arrays: Sequence[Any]) -> Any:
    """Return a device array of int64 with the address of each of many device arrays: see `ptx.pointer_in`."""
    return current().addresses(arrays)
