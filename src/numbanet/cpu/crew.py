"""The threads that help with launches: they wait in machine code, where they see new work within a microsecond.

A launch, or a recording of many, becomes a job on the crew's board. Whoever launches works on the job as well, and
waits for nobody but those who took part, so a helper that comes late, or never, costs time but no result. Several
Python threads may have jobs on the board at once.

Why not Numba's parallel loops: with oneTBB each of them makes an arena of its own, and launches of up to a millisecond
were often over before a worker came, though one ran on the other core; GNU OpenMP's threads do not survive a fork; and
Numba's own work queue aborts when two Python threads use it.
"""

from __future__ import annotations

import _thread
import math
import time
from contextlib import suppress
from typing import Any

import numpy as np

from numbanet.cpu.atomic import add, put, read
from numbanet.cpu.compile import device
from numbanet.cpu.task import run_both, word
from numbanet.cpu.wait import relax
from numbanet.locks import new_lock

LINE = 8  # words: what different threads write lies a cache line apart

# Of a launch: address of the kernel, count and addresses of its buffers, address of its integers, tasks, what follows.
FIELDS = 6

# Words of the board, and of each job on it; jobs follow each other behind the first three lines.
_LIMIT, _STOP, _SIZE = range(3)  # helpers there may be; whether they shall end; words of a job
_AWAKE, _BUSY = LINE, 2 * LINE  # helpers that do not rest; those of them who work on a job
_JOBS, _BOARD = 8, 3 * LINE
_OPEN = 0
_TICKETS, _INSIDE, _CLAIMED = range(LINE, LINE + 3)
_WORKERS, _TABLE, _LAUNCHES, _COUNTERS = range(2 * LINE, 2 * LINE + 4)
_ROW = 3 * LINE  # the table of a job that is one launch, and the counters of it
_SPARE = 4 * LINE

_PATIENCE = 6144  # turns that a helper looks for work, a millisecond or so, before it lets go of its core
_STACK = 1 << 22  # bytes: kernels have buffers on it, and programs with many threads may have asked for small ones
_AGAIN = 1.0  # seconds after which a thread is asked for again that could not be had
REFUSED, DONE = -1, 0
"""What a driver returns if buffers do not fit, and if all is done. More is how many helpers to call first."""


def counters(launches: int, workers: int) -> int:
    """Return how many words the counters of a job are: for each launch, the tasks each worker took, and those done."""
    return launches * (workers + 1) * LINE


@device
def work(table, launches, counters, workers, me):
    """Go through launches in order: take tasks of one's own share first, then of the others', then wait for the last.

    A task that was taken is being run, so nobody waits for a thread that never came. What a task computes does not
    depend on who runs it.
    """
    for number in range(launches):
        launch = table + number * 8 * FIELDS
        address, count, items = word(launch, 0), word(launch, 8), word(launch, 16)
        integers, tasks, then = word(launch, 24), word(launch, 32), word(launch, 40)
        taken = number * (workers + 1) * LINE
        done = taken + workers * LINE
        if read(counters, done) == tasks:  # before this thread came
            continue
        for step in range(workers):
            owner = (me + step) % workers
            first, end = owner * tasks // workers, (owner + 1) * tasks // workers
            task = first + add(counters, taken + owner * LINE, 1)
            while task < end:
                run_both(address, count, items, integers, task, then)
                add(counters, done, 1)
                task = first + add(counters, taken + owner * LINE, 1)
        turns = 0
        while read(counters, done) < tasks:
            relax(turns)
            turns += 1


@device
def claim(board):
    """Return the address of a job that nobody uses, for the caller, or 0."""
    for number in range(_JOBS):
        job = board + 8 * (_BOARD + number * read(board, _SIZE))
        if read(job, _CLAIMED) == 0:
            if add(job, _CLAIMED, 1) == 0:
                return job
            add(job, _CLAIMED, -1)
    return 0


@device
def share(job, table, launches, counters, workers):
    """Do a claimed job, with those who come to help; it is free afterwards."""
    put(job, _WORKERS, workers)
    put(job, _TABLE, table)
    put(job, _LAUNCHES, launches)
    put(job, _COUNTERS, counters)
    put(job, _TICKETS, 1)
    add(job, _OPEN, 1)
    work(table, launches, counters, workers, 0)
    add(job, _OPEN, -1)
    turns = 0
    while read(job, _INSIDE) > 0:  # they may still read what the job says
        relax(turns)
        turns += 1
    add(job, _CLAIMED, -1)


@device
def share_launch(job, address, count, items, integers, tasks, then, workers):
    """Do one launch as a claimed job."""
    row, counters = job + 8 * _ROW, job + 8 * _SPARE
    put(row, 0, address)
    put(row, 1, count)
    put(row, 2, items)
    put(row, 3, integers)
    put(row, 4, tasks)
    put(row, 5, then)
    for worker in range(workers + 1):
        put(counters, worker * LINE, 0)
    share(job, row, 1, counters, workers)


@device
def crowd(board, threads, tasks):
    """Return how many may work on a launch."""
    workers = read(board, _LIMIT) + 1
    if threads < workers:
        workers = threads
    return tasks if tasks < workers else workers


@device
def missing(board, workers):
    """Return how many helpers to call, for as many workers: those who lack, as far as there may be more; less: none."""
    awake = read(board, _AWAKE)
    wanted, allowed = workers - 1 - (awake - read(board, _BUSY)), read(board, _LIMIT) - awake
    return wanted if wanted < allowed else allowed


@device
def _help(board, job):
    """Work on a job if it is open and wants more workers; return whether it did."""
    if read(job, _OPEN) == 0 or read(job, _TICKETS) >= read(job, _WORKERS):
        return False
    helped = False
    add(job, _INSIDE, 1)
    if read(job, _OPEN) != 0:  # from here on it stays what it is until nobody is inside
        workers = read(job, _WORKERS)
        me = add(job, _TICKETS, 1)
        if me < workers:
            add(board, _BUSY, 1)
            work(read(job, _TABLE), read(job, _LAUNCHES), read(job, _COUNTERS), workers, me)
            add(board, _BUSY, -1)
            helped = True
    add(job, _INSIDE, -1)
    return helped


def serve(board):
    """Help with jobs until there was none for a while."""
    add(board, _AWAKE, 1)
    turns = 0
    while turns < _PATIENCE and read(board, _STOP) == 0:
        helped = False
        for number in range(_JOBS):
            helped |= _help(board, board + 8 * (_BOARD + number * read(board, _SIZE)))
        turns = 0 if helped else turns + 1
        relax(turns)
    add(board, _AWAKE, -1)


class _Helper:
    """A thread of the crew. `threading` does not know of it: a program may wait for all threads that it lists."""

    def __init__(self) -> None:
        self.resting, self.rest, self.ended = False, _thread.allocate_lock(), _thread.allocate_lock()
        self.rest.acquire()
        self.ended.acquire()

    def wake(self) -> None:
        """End its rest."""
        self.resting = False
        with suppress(RuntimeError):  # a signal handler did, in the meantime
            self.rest.release()


class Crew:
    """The helpers of a process, and the board on which they find jobs.

    Helpers are started when they are first needed.

    Parameters
    ----------
    serve : callable
        The machine code of `serve`.
    most : int
        How many helpers there may be.

    Attributes
    ----------
    board : int
        Its address.
    """

    def __init__(self, serve: Any, most: int):
        job = _SPARE + counters(1, most + 1)
        memory = np.zeros(_BOARD + _JOBS * job + LINE, np.int64)
        self._words = memory[-memory.ctypes.data // 8 % LINE :]  # from the start of a cache line on
        self.board = self._words.ctypes.data
        self._words[_LIMIT], self._words[_SIZE] = most, job
        self._serve = serve
        self._lock = new_lock()
        self._helpers: list[_Helper] = []
        self._refused = -math.inf

    @property
    def awake(self) -> int:
        """How many helpers do not rest."""
        return int(self._words[_AWAKE])

    def call(self, helpers: int) -> None:
        """Wake as many helpers, or start them."""
        with self._lock:
            resting = [helper for helper in self._helpers if helper.resting][:helpers]
            for helper in resting:
                helper.wake()
            for _ in range(helpers - len(resting)):
                if len(self._helpers) < self._words[_LIMIT] and time.monotonic() > self._refused + _AGAIN:
                    self._start()

    def _start(self) -> None:
        helper = _Helper()
        self._helpers.append(helper)
        former = _thread.stack_size(_STACK)
        try:
            _thread.start_new_thread(self._run, (helper,))
        except RuntimeError:  # this process may have no more threads now
            self._helpers.remove(helper)
            self._refused = time.monotonic()
        finally:
            _thread.stack_size(former)

    def _run(self, helper: _Helper) -> None:
        while not self._words[_STOP]:
            self._serve(self.board)
            helper.resting = True
            helper.rest.acquire()
        helper.ended.release()

    def renew(self) -> None:
        """Make a forked child's crew, which has none of the threads, and nobody at work on the jobs."""
        limit, size = self._words[_LIMIT], self._words[_SIZE]
        self._words[:] = 0
        self._words[_LIMIT], self._words[_SIZE] = limit, size
        self._helpers.clear()

    def stop(self) -> None:
        """End the helpers, for good: Python must not end while one of its threads runs machine code."""
        with self._lock:
            self._words[_LIMIT], self._words[_STOP] = 0, 1
            for helper in self._helpers:
                helper.wake()
            for helper in self._helpers:
                with helper.ended:
                    pass
