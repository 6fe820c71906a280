"""Repeat a recording of launches as one job of the crew: no Python, and no waking of threads, between kernels.

Where NumPy computed something between two launches (see `numbanet.host`), one job ends and another begins.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import groupby
from typing import Any

import numpy as np

from numbanet.cpu import crew, parallel
from numbanet.cpu.parallel import Between, Launch, Launches
from numbanet.cpu.task import ITEMS


def _replay_alone(table, launches, counters, workers):
    crew.work(table, launches, counters, 1, 0)
    return crew.DONE


def _replay_together(board, threads, now, table, launches, counters, workers):
    wanted = 0 if now else crew.missing(board, workers)
    if wanted > 0:
        return wanted
    job = crew.claim(board)
    if job == 0:
        crew.work(table, launches, counters, workers, 0)
    else:
        crew.share(job, table, launches, counters, workers)
    return crew.DONE


@lru_cache(maxsize=1)
def _drivers() -> tuple[Any, Any]:
    return parallel.driver(_replay_alone, 4), parallel.driver(_replay_together, 7)


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
        self._table = np.array(rows, np.int64).reshape(-1, crew.FIELDS)
        self._counters = np.zeros(crew.counters(len(rows), self._workers), np.int64)

    def run(self) -> None:
        """Repeat them."""
        self._counters.fill(0)
        call = self._table.ctypes.data, len(self._table), self._counters.ctypes.data, self._workers
        alone, together = _drivers()
        if self._workers == 1:
            alone(*call)
        else:
            parallel.in_parallel(together, alone, call)
