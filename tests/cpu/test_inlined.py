"""Functions that kernels call go into them as they were lowered, and get no machine code of their own."""

from __future__ import annotations

import numpy as np

from numbanet.cpu.compile import I64, Index, T, device, kernel
from numbanet.cpu.inlined import _Source
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import integers, lanes, load_tail, store_tail


@device
def _twice(v):
    return v + v


@device
def _four_times(v):
    return _twice(_twice(v))


@kernel
def quadruple(task: Index, ints: I64, x: T, y: T):
    (count,) = integers(ints, 1)
    for i in range(0, count, lanes(x)):
        store_tail(y, i, _four_times(load_tail(x, i, count - i)), count - i)


@device
def _power(v, n):
    y = v
    for _ in range(1, n):
        y = y * v
    return y


@kernel
def cube(task: Index, ints: I64, x: T, y: T):
    (count,) = integers(ints, 1)
    for i in range(0, count, lanes(x)):
        store_tail(y, i, _power(load_tail(x, i, count - i), 3), count - i)


def test_functions_with_loops_are_known() -> None:
    x = np.arange(37, dtype=np.float32)
    y = np.empty_like(x)
    cube._function("float32").compile()
    launch(cube, 1, (x, y), (x.size,), "float32")
    np.testing.assert_array_equal(y, x**3)
    (compiled,) = _power.overloads.values()
    assert compiled.library.loops


def test_only_the_kernel_becomes_machine_code() -> None:
    x = np.arange(37, dtype=np.float32)
    y = np.empty_like(x)
    launch(quadruple, 1, (x, y), (x.size,), "float32")
    np.testing.assert_array_equal(y, 4 * x)

    quadruple._function("float32").compile()  # the first may have come from the disk, with nothing else
    for function in (_twice, _four_times):
        (compiled,) = function.overloads.values()
        assert isinstance(compiled.library, _Source) and not compiled.library.loops
    called = [line for line in quadruple.inspect_asm().splitlines() if "call" in line.split("#")[0]]
    assert not [line for line in called if "twice" in line or "four_times" in line]
