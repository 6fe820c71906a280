"""Repeat a recording of launches within one parallel region: no Python, and no waking of threads, between kernels.

Where NumPy computed something between two launches (see `numbanet.host`), one region ends and another begins.

Each thread goes through the launches in order. Of each it takes its own share of the tasks first, then what is left of
the others', and waits until all tasks of the launch are done. A task that was taken is being run, so nobody waits for a
thread that never came: one alone would do everything. What a task computes does not depend on who runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

from numbanet.cpu import parallel
from numbanet.cpu.parallel import Between, Launch, Launches
from numbanet.cpu.task import ITEMS, run_both, word
from numbanet.cpu.wait import relax

# Of a launch: address of the kernel, count and addresses of its buffers, address of its integers, tasks, what follows.
_FIELDS = 6
_LINE = 8  # counters are a cache line apart
_I64 = ir.IntType(64)


@intrinsic
def _add(typingctx, counters, i, value):
    """Add to a counter in one atomic step; return what it was."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", builder.gep(pointer, [args[1]]), args[2], "acq_rel")

    return types.int64(types.int64, types.int64, types.int64), codegen


@intrinsic
def _read(typingctx, counters, i):
    """Read a counter that other threads change."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(builder.gep(pointer, [args[1]]), "acquire", 8)

    return types.int64(types.int64, types.int64), codegen


@njit(nogil=True, error_model="numpy")
def _work(table, launches, counters, workers, me):
    for number in range(launches):
        launch = table + number * 8 * _FIELDS
        address, count, items = word(launch, 0), word(launch, 8), word(launch, 16)
        integers, tasks, then = word(launch, 24), word(launch, 32), word(launch, 40)
        taken = number * (workers + 1) * _LINE
        done = taken + workers * _LINE
        for step in range(workers):
            owner = (me + step) % workers
            first, end = owner * tasks // workers, (owner + 1) * tasks // workers
            task = first + _add(counters, taken + owner * _LINE, 1)
            while task < end:
                run_both(address, count, items, integers, task, then)
                _add(counters, done, 1)
                task = first + _add(counters, taken + owner * _LINE, 1)
        turns = 0
        while _read(counters, done) < tasks:
            relax(turns)
            turns += 1


def _replay_serial(table, launches, counters, workers):
    _work(table, launches, counters, 1, 0)


def _replay_parallel(table, launches, counters, workers):
    for me in prange(workers):
        _work(table, launches, counters, workers, me)


@lru_cache(maxsize=1)
def _drivers() -> tuple[Any, Any]:
    signature = types.void(*[types.int64] * 4)
    return parallel.driver(_replay_serial, signature), parallel.driver(_replay_parallel, signature, parallel=True)


class Recording:
    """Launches to be repeated in their order, by as many threads as there were when it was made.

    Parameters
    ----------
    launches : Launches
        Kept, with the arrays that they name. Two threads must not repeat one recording at once.
    """

    def __init__(self, launches: Launches):
        self.launches = launches.calls
        self._all = launches
        self._parts: list[Callable[[], object]] = []
        for in_between, part in groupby(self.launches, key=lambda call: type(call) is Between):
            if in_between:
                self._parts += [partial(call.function, *call.operands) for call in part]  # type: ignore[union-attr]
            else:
                self._parts.append(_Part(list(part)).run)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.launches)

    def changed(self, instead: Callable[[Launch], Between | None]) -> Recording:
        """Return a recording that does something else instead of those launches for which there is something."""
        other = Launches()
        other.kept = self._all.kept
        other.calls = [(type(call) is Launch and instead(call)) or call for call in self.launches]
        return Recording(other)

    def run(self) -> None:
        """Repeat the launches, and what Python did between them."""
        for part in self._parts:
            part()


class _Part:
    """Launches that follow each other."""

    def __init__(self, launches: list[Launch]):
        self._workers = parallel.get_num_threads()
        rows = [
            (address, count, arrays + ITEMS, launch.operands[2].ctypes.data, tasks, then)
            for launch in launches
            for address, _, count, arrays, _, tasks, then in (launch.call,)
        ]
        self._table = np.array(rows, np.int64).reshape(-1, _FIELDS)
        self._counters = np.zeros(len(rows) * (self._workers + 1) * _LINE, np.int64)

    def run(self) -> None:
        """Repeat them."""
        self._counters.fill(0)
        call = self._table.ctypes.data, len(self._table), self._counters.ctypes.data, self._workers
        serial, shared = _drivers()
        if self._workers == 1:
            serial(*call)
        else:
            parallel.in_parallel(shared, serial, call)
