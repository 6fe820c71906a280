"""Run a kernel's tasks on all threads: the one parallel function of the package.

`launch` calls a single ``@njit(parallel=True)`` driver, which checks the buffers and hands each task to the kernel's
machine code. So a kernel compiles as serial code (a parallel one costs ten times as much), and denormal handling, the
thread-safety rules of Numba's layers and the fork rules have one place.

The driver takes nothing but integers, among them the addresses of Python objects whose first fields it reads: the tuple
of buffers, and the arrays in it. Doing that in Python took longer than a small kernel runs.

The tasks of a launch are cut from the problem alone, never from the number of threads: any number of threads gives the
same bits.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.core import cgutils
from numba.extending import intrinsic

from numbanet.cpu.cache import KernelCache
from numbanet.cpu.compile import Kernel
from numbanet.cpu.limits import cgroup_quota as cgroup_quota
from numbanet.cpu.limits import default_threads as default_threads
from numbanet.memory import pinned
from numbanet.problem.base import integer

MAX_POINTERS = 10
_I64 = ir.IntType(64)
_FLUSH_DENORMALS = 0x8040  # MXCSR: flush results to zero (bit 15), read denormals as zero (bit 6)
# Where objects keep what the driver reads, in bytes from their address: a tuple its items; an array its data, the
# descriptor of its dtype and its flags (NumPy's C interface, after the object's head).
_ITEMS = tuple.__basicsize__
_DATA, _DTYPE, _FLAGS = (object.__basicsize__ + field for field in (0, 40, 48))
_TYPE = object.__basicsize__ - ir.IntType(64).width // 8
_CONTIGUOUS = 1


def _field(builder, base, distance):
    """Load the 64-bit number that lies `distance` bytes after an address."""
    spot = builder.add(base, ir.Constant(_I64, distance))
    return builder.load(builder.inttoptr(spot, _I64.as_pointer()))


@intrinsic
def _word(typingctx, base, distance):
    """Return the 64-bit number that lies `distance` bytes after an address."""

    def codegen(context, builder, sig, args):
        return builder.load(builder.inttoptr(builder.add(*args), _I64.as_pointer()))

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def _call_task(typingctx, address, count, items, integers, task):
    """Call kernel machine code: ``kernel(task, integers, data of the first array, ..., data of the last)``.

    `items` is the address of the first of `count` references to arrays, `integers` that of the first integer.
    """

    def codegen(context, builder, sig, args):
        address, count, items, integers, task = args
        done = builder.append_basic_block("done")
        unknown = builder.append_basic_block("unknown")
        cases = builder.switch(count, unknown)
        for number in range(MAX_POINTERS + 1):
            here = builder.append_basic_block(f"pointers{number}")
            cases.add_case(ir.Constant(_I64, number), here)
            builder.position_at_end(here)
            pointers = [_field(builder, _field(builder, items, 8 * j), _DATA) for j in range(number)]
            kind = ir.FunctionType(ir.VoidType(), [_I64] * (2 + number))
            builder.call(builder.inttoptr(address, kind.as_pointer()), [task, integers, *pointers])
            builder.branch(done)
        builder.position_at_end(unknown)
        builder.unreachable()
        builder.position_at_end(done)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, types.int64), codegen


def _x86(context: Any) -> bool:
    return context.codegen().magic_tuple()[0].startswith(("x86_64", "i686"))


@intrinsic
def _threads(typingctx):
    """Return how many threads a parallel loop takes.

    It calls the function that the loop itself calls; ``numba.get_num_threads`` would put its address of this process in
    the machine code, which could not be kept on disk then.
    """

    def codegen(context, builder, sig, args):
        kind = ir.FunctionType(ir.IntType(types.intp.bitwidth), [])
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, "get_num_threads"), [])

    return types.intp(), codegen


@intrinsic
def _flush_denormals(typingctx):
    """Make this thread treat denormals as zero; return the former state of its control register."""

    def codegen(context, builder, sig, args):
        if not _x86(context):
            return ir.Constant(ir.IntType(32), 0)
        slot = cgutils.alloca_once(builder, ir.IntType(32))
        raw = builder.bitcast(slot, ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [raw.type])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr"), [raw])
        former = builder.load(slot)
        builder.store(builder.or_(former, ir.Constant(ir.IntType(32), _FLUSH_DENORMALS)), slot)
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr"), [raw])
        return former

    return types.uint32(), codegen


@intrinsic
def _restore_denormals(typingctx, former):
    """Put the control register back."""

    def codegen(context, builder, sig, args):
        if _x86(context):
            slot = cgutils.alloca_once_value(builder, args[0])
            raw = builder.bitcast(slot, ir.IntType(8).as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [raw.type])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.ldmxcsr"), [raw])
        return context.get_dummy_value()

    return types.void(types.uint32), codegen


@numba.njit(nogil=True, error_model="numpy")
def _run_task(address, count, items, integers, task):
    former = _flush_denormals()
    _call_task(address, count, items, integers, task)
    _restore_denormals(former)


@numba.njit(nogil=True, error_model="numpy")
def _fits(expected, count, items):
    """Return whether every buffer is a C-contiguous array of its pointer's dtype."""
    kind = _word(expected, 0)
    for j in range(count):
        array = _word(items, 8 * j)
        if _word(array, _TYPE) != kind or _word(array, _DTYPE) != _word(expected, 8 * (j + 1)):
            return False
        if not _word(array, _FLAGS) & _CONTIGUOUS:
            return False
    return True


def _drive_serial(address, expected, count, arrays, integers, tasks):
    items, expected, integers = arrays + _ITEMS, _word(expected, _DATA), _word(integers, _DATA)
    if not _fits(expected, count, items):
        return False
    for task in range(tasks):
        _run_task(address, count, items, integers, task)
    return True


def _drive_parallel(address, expected, count, arrays, integers, tasks):
    items, expected, integers = arrays + _ITEMS, _word(expected, _DATA), _word(integers, _DATA)
    if not _fits(expected, count, items):
        return False
    if _threads() == 1:  # ten times cheaper than a parallel loop of one thread
        for task in range(tasks):
            _run_task(address, count, items, integers, task)
    else:
        for task in prange(tasks):
            _run_task(address, count, items, integers, task)
    return True


_SIGNATURE = types.boolean(*[types.int64] * 6)


def _load_tbb() -> None:
    """Make pip's TBB visible: it lies outside the loader's path, but a library that is loaded already is found."""
    if sys.platform != "linux":
        return
    try:
        files = importlib.metadata.files("tbb") or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == "libtbb.so.12":
            try:
                ctypes.CDLL(str(file.locate()), mode=ctypes.RTLD_GLOBAL)
            except OSError:
                return  # Numba then takes its next threading layer, and numbanet.info() shows which


class _State:
    """What the first launch sets up: the drivers, the lock that the workqueue layer needs, and the forked mark."""

    # Which Python threads have been given the default number of kernel threads: Numba keeps a number for each.
    seen = threading.local()

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.ready = False
        self.guard: Any = None
        self.serial: Any = None
        self.parallel: Any = None
        self.serial_only = False
        self.launchers: set[int] = set()  # the Python threads that have launched kernels


_state = _State()


def _driver(function: Any, **options: Any) -> Any:
    dispatcher = numba.njit(nogil=True, error_model="numpy", **options)(function)
    dispatcher._cache = KernelCache(function)
    dispatcher.compile(_SIGNATURE)
    dispatcher.disable_compile()
    return dispatcher


def _prepare() -> None:
    with _state.lock:
        if _state.ready:
            return
        if numba.config.DISABLE_JIT:
            raise RuntimeError("NUMBA_DISABLE_JIT is set, and the kernels exist as machine code only: unset it")
        _load_tbb()
        _state.serial = _driver(_drive_serial)
        _state.parallel = _driver(_drive_parallel, parallel=True)
        # The first parallel call picks Numba's threading layer.
        nothing = np.zeros(1, np.int64)
        _state.parallel(0, id(nothing), 0, id(()), id(nothing), 0)
        layer = numba.threading_layer()
        if layer == "workqueue":
            _state.guard = threading.RLock()  # two Python threads in it at once would abort the process
        _state.ready = True


def _after_fork() -> None:
    # The parent's locks may have been held by a thread that the child does not have.
    _state.lock = threading.Lock()
    if not _state.ready:
        return
    layer = numba.threading_layer()
    if layer == "workqueue":
        _state.guard = threading.RLock()
    if layer == "omp":
        _state.serial_only = True  # GNU OpenMP ends a forked child at its first parallel region
    if layer == "tbb" and _state.launchers - {threading.get_ident()}:
        # TBB ends its workers before a fork only if one thread alone has used it; the child would wait for lost ones.
        _state.serial_only = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _take_default() -> None:
    """Give this Python thread its number of kernel threads; Numba's default does not know the cgroup quota."""
    _state.launchers.add(threading.get_ident())
    _state.seen.default = default_threads()
    untouched = numba.get_num_threads() == numba.config.NUMBA_NUM_THREADS
    if "NUMBA_NUM_THREADS" not in os.environ and untouched and numba.get_num_threads() > _state.seen.default:
        numba.set_num_threads(_state.seen.default)


def set_num_threads(count: int) -> None:
    """Set how many threads the kernels that this Python thread starts use: the same as ``numba.set_num_threads``.

    Parameters
    ----------
    count : int
        Between 1 and the number of threads that Numba started with (``NUMBA_NUM_THREADS``).

    Raises
    ------
    TypeError
        If `count` is not an integer.
    ValueError
        If `count` is out of that range.
    """
    get_num_threads()
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= integer("count", count) <= most:
        raise ValueError(f"count must be between 1 and {most}, got {count}")
    numba.set_num_threads(int(count))


def get_num_threads() -> int:
    """Return how many threads the kernels that this Python thread starts use."""
    _prepare()
    if not hasattr(_state.seen, "default"):
        _take_default()
    return numba.get_num_threads()


@lru_cache(maxsize=1)
def threading_layer() -> str:
    """Return the name of Numba's threading layer: ``"tbb"``, ``"omp"`` or ``"workqueue"``."""
    _prepare()
    return numba.threading_layer()


def launch(kernel: Kernel, tasks: int, arrays: Sequence[np.ndarray], integers: Sequence[int], dtype: str) -> None:
    """Run ``kernel(task, integers, *arrays)`` for every task in ``range(tasks)``, on all threads.

    Parameters
    ----------
    kernel : Kernel
    tasks : int
        Number of independent tasks; cut from the problem, never from the number of threads.
    arrays : sequence of numpy.ndarray
        Buffers, one for each pointer of the kernel, in its order: C-contiguous, of the pointer's dtype.
    integers : sequence of int
        The integers of the problem.
    dtype : {"float32", "float64"}
        What the kernel's ``T`` stands for.

    Raises
    ------
    TypeError
        If a buffer does not fit its pointer. (Kernels see raw memory, so this is checked at every launch.)
    """
    if not _state.ready:
        _prepare()
    address, expected, count = kernel.entry(dtype)
    arrays = tuple(arrays)
    if len(arrays) != count:
        raise TypeError(f"kernel {kernel.name} takes {count} buffers, got {len(arrays)}")
    numbers = _block(tuple(integers))
    call = (address, id(expected), count, id(arrays), id(numbers), tasks)
    if not start(call):
        arrays = _plain(kernel, arrays, dtype)
        call = (*call[:3], id(arrays), *call[4:])
        start(call)
    record = _record.get()
    if record is not None:
        fixed = tuple(map(pinned, arrays))
        record.append(Launch((*call[:3], id(fixed), *call[4:]), (expected, fixed, numbers)))


class Launch(NamedTuple):
    """A launch that can be repeated with `start`."""

    call: tuple[int, ...]
    operands: Any
    """What the addresses in the call belong to."""


_record: ContextVar[list[Launch | None] | None] = ContextVar("numbanet_record", default=None)


def unrepeatable() -> None:
    """Say that the next launch can't be repeated, as it names arrays that a recording would not keep."""
    record = _record.get()
    if record is not None:
        record.append(None)


@contextmanager
def recording(launches: list[Launch | None]) -> Iterator[None]:
    """Within a ``with`` block, append all launches to a list, and None for what can't be repeated.

    See `numbanet.memory.arena` for their memory.
    """
    token = _record.set(launches)
    try:
        yield
    finally:
        _record.reset(token)


def start(call: tuple[int, ...]) -> bool:
    """Run the driver; return False, and nothing has run, if a buffer does not fit its pointer."""
    if call[5] <= 1 or _state.serial_only:
        return _state.serial(*call)
    if not hasattr(_state.seen, "default"):
        _take_default()
    if _state.guard is None:
        return _state.parallel(*call)
    with _state.guard:
        return _state.parallel(*call)


@lru_cache(maxsize=8192)
def _block(integers: tuple[int, ...]) -> np.ndarray:
    """Return the integers of a problem as the memory that kernels read."""
    block = np.array((*integers, 0), np.int64)  # never empty
    block.flags.writeable = False
    return block


def _plain(kernel: Kernel, arrays: tuple[Any, ...], dtype: str) -> tuple[np.ndarray, ...]:
    """Return buffers that the driver refused as plain arrays; TypeError if they hold something else.

    Equal dtypes are usually one object, but an equal one that is not (unpickled, say) is fine, and so is a subclass.
    """
    plain = []
    for array, wanted in zip(arrays, kernel.dtypes(dtype)):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"kernel {kernel.name} takes arrays, got {type(array).__name__}")
        if array.dtype != wanted or not array.flags.c_contiguous:
            raise TypeError(
                f"kernel {kernel.name}: a buffer must be C-contiguous {wanted}, "
                f"got {array.dtype} with shape {array.shape} and strides {array.strides}"
            )
        plain.append(np.ndarray(array.shape, wanted, array))
    return tuple(plain)
