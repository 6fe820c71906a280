"""Run a kernel's tasks on all threads.

`launch` calls one driver, which checks the buffers and hands each task to the kernel's machine code, on this thread and
on the helpers of the `Crew`. So a kernel compiles as serial code, and denormal handling and the rules of threads and
forks have one place.

The driver takes nothing but integers, among them the addresses of Python objects whose first fields it reads: the tuple
of buffers, and the arrays in it. Doing that in Python took longer than a small kernel runs.

The tasks of a launch are cut from the problem alone, never from the number of threads: any number of threads gives the
same bits.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numba
import numpy as np
from numba import types

from numbanet.cpu import crew
from numbanet.cpu.cache import KernelCache
from numbanet.cpu.compile import Kernel
from numbanet.cpu.compiler import KernelCompiler
from numbanet.cpu.crew import DONE, REFUSED, Crew, serve
from numbanet.cpu.limits import cgroup_quota as cgroup_quota
from numbanet.cpu.limits import default_threads as default_threads
from numbanet.cpu.limits import threads
from numbanet.cpu.objects import address_of, reference
from numbanet.cpu.task import DATA, ITEMS, buffers, fits, run_both, run_task, word
from numbanet.locks import new_lock
from numbanet.memory import pinned
from numbanet.problem.base import integer
from numbanet.watch import RECORD, recorder


def _drive_alone(address, expected, count, arrays, integers, tasks, then):
    items, integers = arrays + ITEMS, word(integers, DATA)
    if expected != 0 and not fits(word(expected, DATA), buffers(count, then), items):
        return REFUSED
    for task in range(tasks):
        run_both(address, count, items, integers, task, then)
    return DONE


def _drive_known(launch, arrays):
    launch, items = word(address_of(launch), DATA), address_of(arrays) + ITEMS
    for task in range(word(launch, 24)):
        run_task(word(launch, 0), word(launch, 8), items, word(launch, 16), task)


def _drive_together(board, threads, now, address, expected, count, arrays, integers, tasks, then):
    items, integers = arrays + ITEMS, word(integers, DATA)
    if expected != 0 and not fits(word(expected, DATA), buffers(count, then), items):
        return REFUSED
    workers = crew.crowd(board, threads, tasks)
    wanted = 0 if now else crew.missing(board, workers)
    if wanted > 0:
        return wanted
    job = crew.claim(board) if workers > 1 else 0
    if job != 0:
        crew.share_launch(job, address, count, items, integers, tasks, then, workers)
    else:
        for task in range(tasks):
            run_both(address, count, items, integers, task, then)
    return DONE


class _State:
    """What the first launch sets up: the drivers and the crew."""

    def __init__(self) -> None:
        self.lock = new_lock()
        self.crew: Any = None
        self.alone: Any = None
        self.known: Any = None
        self.together: Any = None
        self.over = False


_state = _State()


_drivers: list[Any] = []  # the dispatchers of Numba that hold their machine code


def driver(
    function: Any, arguments: int, result: Any = types.int64, kind: Any = types.int64, nogil: bool = True
) -> Any:
    """Compile a function of integers, or objects; it is called without a look at the types of what it is given."""
    options = {"nogil": nogil, "error_model": "numpy", "no_cfunc_wrapper": True}
    dispatcher = numba.njit(pipeline_class=KernelCompiler, **options)(function)
    dispatcher._cache = cache = KernelCache(function)
    _drivers.append(dispatcher)
    try:
        return dispatcher.compile(result(*[kind] * arguments))
    finally:
        cache.release()


def prepare() -> None:
    """Compile what launches kernels, and make the crew, if that was not done yet."""
    with _state.lock:
        if _state.crew is not None:
            return
        if numba.config.DISABLE_JIT:
            raise RuntimeError("NUMBA_DISABLE_JIT is set, and the kernels exist as machine code only: unset it")
        import numbanet.cpu.program  # noqa: F401  now: a signal handler that computes must not meet half of it
        from numbanet.cpu import recall

        recall.prepare()
        _state.alone = driver(_drive_alone, 7)
        _state.known = driver(_drive_known, 2, types.void, reference)
        _state.together = driver(_drive_together, 10)
        _state.crew = Crew(driver(serve, 1, types.void), 0 if _state.over else numba.config.NUMBA_NUM_THREADS - 1)


def launch_nothing() -> None:
    """Have all launches of this process compile their kernels, and run nothing."""
    _state.alone = _state.together = lambda *call: DONE
    _state.crew, threads.count = _state, 1


def _after_fork() -> None:
    if _state.crew is not None:
        _state.crew.renew()


@atexit.register
def _end() -> None:
    _state.over = True
    if _state.crew is not None:
        _state.crew.stop()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def helper() -> Callable[[], None]:
    """Return what a helper thread, which prepares work for this one, shall call first.

    The kernels that it starts run on it alone: the other cores are for those who compute.
    """
    prepare()  # here, not in the helper
    return partial(setattr, threads, "count", 1)


def set_num_threads(count: int) -> None:
    """Set how many threads the kernels that this Python thread starts use.

    Parameters
    ----------
    count : int
        Between 1 and the number of CPUs, or what the environment variable ``NUMBA_NUM_THREADS`` said instead when Numba
        was imported.

    Raises
    ------
    TypeError
        If `count` is not an integer.
    ValueError
        If `count` is out of that range.
    """
    most = numba.config.NUMBA_NUM_THREADS
    if not 1 <= integer("count", count) <= most:
        raise ValueError(f"count must be between 1 and {most}, got {count}")
    threads.count = int(count)


def get_num_threads() -> int:
    """Return how many threads the kernels that this Python thread starts use."""
    if threads.count == 0:
        most = numba.config.NUMBA_NUM_THREADS
        threads.count = most if "NUMBA_NUM_THREADS" in os.environ else min(most, default_threads())
    return threads.count


class Then(NamedTuple):
    """A kernel that follows each task of a launch, with the task's number."""

    kernel: Kernel
    arrays: tuple[np.ndarray, ...]
    integers: Sequence[int] | np.ndarray


def launch(
    kernel: Kernel,
    tasks: int,
    arrays: Sequence[np.ndarray],
    integers: Sequence[int] | np.ndarray,
    dtype: str,
    then: Then | None = None,
) -> None:
    """Run ``kernel(task, integers, *arrays)`` for every task in ``range(tasks)``, on all threads.

    Parameters
    ----------
    kernel : Kernel
    tasks : int
        Number of independent tasks; cut from the problem, never from the number of threads.
    arrays : sequence of numpy.ndarray
        Buffers, one for each pointer of the kernel, in its order: C-contiguous, of the pointer's dtype.
    integers : sequence of int, or numpy.ndarray
        The integers of the problem, or what `block_of` made of them.
    dtype : {"float32", "float64"}
        What the kernel's ``T`` stands for.
    then : Then, optional
        Runs after each task, on the same thread: what the task has stored is still in its cache.

    Raises
    ------
    TypeError
        If a buffer does not fit its pointer. (Kernels see raw memory, so this is checked at every launch.)
    """
    if _state.crew is None:
        prepare()
    address, expected, count = kernel.entry(dtype)
    arrays = tuple(arrays)
    if len(arrays) != count:
        raise TypeError(f"kernel {kernel.name} takes {count} buffers, got {len(arrays)}")
    numbers = integers if type(integers) is np.ndarray else block_of(tuple(integers))
    words, kept_also = 0, None
    if then is not None:
        arrays, expected, words, kept_also = _followed(then, arrays, expected, dtype)
    call = (address, id(expected), count, id(arrays), id(numbers), tasks, words)
    if not start(call):
        wanted = kernel.dtypes(dtype) if then is None else kernel.dtypes(dtype) + then.kernel.dtypes(dtype)
        arrays = _plain(kernel, arrays, wanted)
        call = (*call[:3], id(arrays), *call[4:])
        start(call)
    record = recorder()
    if record is not None:
        record.add(call, (expected, kept_also), arrays, numbers)


def _followed(then: Then, arrays: Any, expected: np.ndarray, dtype: str) -> tuple[Any, np.ndarray, int, Any]:
    """Return the buffers of both kernels, what they shall be, the address of what `run_both` reads, what holds it."""
    address, others, count = then.kernel.entry(dtype)
    if len(then.arrays) != count:
        raise TypeError(f"kernel {then.kernel.name} takes {count} buffers, got {len(then.arrays)}")
    numbers = then.integers if type(then.integers) is np.ndarray else block_of(tuple(then.integers))
    words = np.array([address, count, place(numbers)], np.int64)
    return (*arrays, *then.arrays), np.append(expected, others[1:]), place(words), (words, numbers)


class Launch(NamedTuple):
    """A launch that can be repeated with `start`."""

    call: tuple[int, ...]
    operands: Any
    """What the addresses in the call belong to."""


class Between(NamedTuple):
    """What Python does between launches, and does again in a recording."""

    function: Callable[..., object]
    operands: tuple[Any, ...]


class Launches:
    """Launches in their order, and what they read that a recording must keep.

    Attributes
    ----------
    calls : list of Launch and Between
    kept : list of numpy.ndarray
        The arrays whose addresses they read from tables.
    foreign : dict of int to numpy.ndarray
        By their addresses, the buffers, and the arrays of tables, that lie in no arena.
    """

    def __init__(self) -> None:
        self.calls: list[Launch | Between] = []
        self.kept: list[np.ndarray] = []
        self.foreign: dict[int, np.ndarray] = {}

    def add(self, call: tuple[int, ...], expected: Any, arrays: tuple[np.ndarray, ...], numbers: np.ndarray) -> None:
        """Take a launch that was made, and what the addresses in it belong to."""
        fixed = self.keep(arrays)
        self.calls.append(Launch((*call[:3], id(fixed), *call[4:]), (expected, fixed, numbers)))

    def add_between(self, function: Callable[..., object], operands: tuple[Any, ...]) -> None:
        """Take what Python did with arrays, and with other operands, which stay as they are."""
        kept = iter(self.keep([x for x in operands if isinstance(x, np.ndarray)]))
        fixed = tuple([next(kept) if isinstance(x, np.ndarray) else x for x in operands])
        self.calls.append(Between(function, fixed))

    def keep(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return arrays that a recording keeps, on the memory of those given."""
        fixed = tuple(map(pinned, arrays))
        for array, found in zip(arrays, fixed):
            if found is array:
                self.foreign[place(array)] = array
        return fixed

    def keep_of_table(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Return arrays that a recording keeps, whose addresses stand in a table that a kernel reads."""
        fixed = self.keep(arrays)
        self.kept += fixed
        return fixed


class Places(Launches):
    """Where the buffers of launches lie; nothing is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[int] = set()

    def add(self, call: tuple[int, ...], expected: Any, arrays: tuple[np.ndarray, ...], numbers: np.ndarray) -> None:
        """Note where the buffers lie."""
        self.keep(arrays)

    def add_between(self, function: Callable[..., object], operands: tuple[Any, ...]) -> None:
        """Note where the arrays lie."""
        self.keep([x for x in operands if isinstance(x, np.ndarray)])

    def keep(self, arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Note where the arrays lie."""
        self.seen.update(map(place, arrays))
        return tuple(arrays)

    keep_of_table = keep


def place(array: np.ndarray) -> int:
    """Return the address of an array's first element."""
    return array.__array_interface__["data"][0]


def kept(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Return the arrays whose addresses a kernel finds in a table: a recording keeps those that are returned."""
    record = recorder()
    return arrays if record is None else record.keep_of_table(arrays)


def between(function: Callable[..., object], operands: tuple[Any, ...]) -> None:
    """Report what Python did between launches: a recording does it again."""
    record = recorder()
    if record is not None:
        record.add_between(function, operands)


@contextmanager
def recording(launches: Launches) -> Iterator[None]:
    """Within a ``with`` block, take all launches. See `numbanet.memory.arena` for their memory."""
    token = RECORD.set(launches)
    try:
        yield
    finally:
        RECORD.reset(token)


def start(call: tuple[int, ...]) -> bool:
    """Run the driver; return False, and nothing has run, if a buffer does not fit its pointer.

    Where the second number of the call, the address of what the buffers shall be, is 0, nobody looks.
    """
    if call[5] <= 1:
        return _state.alone(*call) == DONE
    return in_parallel(_state.together, _state.alone, call) == DONE


def in_parallel(together: Any, alone: Any, call: tuple[int, ...]) -> int:
    """Run a driver that shares its work with the crew, or its twin where no other thread shall be used."""
    workers = threads.count or get_num_threads()
    if workers == 1:
        return alone(*call)
    found = together(_state.crew.board, workers, 0, *call)
    if found > DONE:
        _state.crew.call(found)
        found = together(_state.crew.board, workers, 1, *call)
    return found


@lru_cache(maxsize=8192)
def block_of(integers: tuple[int, ...]) -> np.ndarray:
    """Return the integers of a problem as the memory that kernels read; a plan that is kept had better keep this."""
    block = np.array((*integers, 0), np.int64)  # never empty
    block.flags.writeable = False
    return block


def _plain(kernel: Kernel, arrays: tuple[Any, ...], dtypes: list[np.dtype]) -> tuple[np.ndarray, ...]:
    """Return buffers that the driver refused as plain arrays; TypeError if they hold something else.

    Equal dtypes are usually one object, but an equal one that is not (unpickled, say) is fine, and so is a subclass.
    """
    plain = []
    for array, wanted in zip(arrays, dtypes):
        if not isinstance(array, np.ndarray):
            raise TypeError(f"kernel {kernel.name} takes arrays, got {type(array).__name__}")
        if array.dtype != wanted or not array.flags.c_contiguous:
            raise TypeError(
                f"kernel {kernel.name}: a buffer must be C-contiguous {wanted}, "
                f"got {array.dtype} with shape {array.shape} and strides {array.strides}"
            )
        plain.append(np.ndarray(array.shape, wanted, array))
    return tuple(plain)
