"""Interrupts and signal handlers in the middle of calls that are watched because they come again."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.memory import planner
from numbanet.ops import activation
from numbanet.ops.steady import steady
from numbanet.watch import recorder, watcher
from tests.interrupts import Interrupt
from tests.processes import run_python

WATCHING = ("steady.py", "program.py", "memory.py", "watch.py", "parallel.py", "recall.py")


def interrupted(number: int, at: int) -> int:
    """Make a call a few times, the last one with an interrupt before an instruction of Python's.

    Return how many instructions were met; with 0 for `at` there is no interrupt.
    """
    relu = steady(1)(activation._forward.__wrapped__)  # type: ignore[attr-defined]
    x = np.arange(-7, 8, dtype=np.float32)
    for _ in range(number):
        relu(x, "relu")
    interrupt = Interrupt(WATCHING, at)
    try:
        with interrupt:
            y = relu(x, "relu")
    except KeyboardInterrupt:
        assert at
    else:
        np.testing.assert_array_equal(y, np.maximum(x, 0))
    np.testing.assert_array_equal(relu(x, "relu"), np.maximum(x, 0))
    return interrupt.met


@pytest.mark.parametrize("number", [1, 2, 3])  # watched; watched, and tried on copies; remembered
def test_nobody_watches_after_an_interrupt(number: int) -> None:
    instructions = interrupted(number, 0)
    assert instructions > 300
    for at in range(1, instructions + 1):
        interrupted(number, at)
        assert planner() is watcher() is recorder() is None, at


def test_what_watches_calls_is_there_after_the_first_launch() -> None:
    code = """
    import sys
    import numpy as np
    import numbanet as nnet

    assert "numbanet.cpu.program" not in sys.modules
    nnet.ops.relu(np.ones(3, np.float32))
    print("numbanet.cpu.program" in sys.modules)
    """
    assert run_python(code) == "True"
