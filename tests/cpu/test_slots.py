"""Work buffers shared by the tasks of a launch."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cpu import parallel
from numbanet.cpu.compile import I64, Index, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers
from numbanet.cpu.slots import give_slot, new_slots, take_slot


@kernel
def fill(task: Index, ints: I64, slots: I64, buffers: I64, taken: I64, foreign: I64):
    """Fill the task's buffer with its number, read it back, and count the numbers of other tasks, many times."""
    count, size = integers(ints, 2)
    slot = take_slot(slots, count)
    taken[task] = slot
    found = 0
    for _ in range(50):
        for i in range(size):
            buffers[slot * size + i] = task
        for i in range(size):
            found += buffers[slot * size + i] != task
    foreign[task] = found
    give_slot(slots, slot)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_buffer_belongs_to_one_task_at_a_time(count):
    tasks, size = 64, 1000
    slots, buffers = np.zeros(count, np.int64), np.zeros(count * size, np.int64)
    taken, foreign = np.full(tasks, -1), np.full(tasks, -1)
    launch(fill, tasks, (slots, buffers, taken, foreign), (count, size), "float32")
    assert not slots.any(), "all buffers are given back"
    assert not foreign.any()
    assert set(taken) <= set(range(count))


def test_as_many_buffers_as_threads():
    before = parallel.get_num_threads()
    try:
        for threads in {1, before}:
            parallel.set_num_threads(threads)
            assert new_slots(100).size == threads
            assert new_slots(1).size == new_slots(0).size == 1
    finally:
        parallel.set_num_threads(before)
