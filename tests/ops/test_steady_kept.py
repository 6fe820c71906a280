"""What is kept of calls that come again: by kind, for each number of threads, nothing large, and nothing shared."""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
import pytest

import numbanet as nnet
from numbanet import ops
from numbanet.cpu import program
from numbanet.cpu.program import traced
from tests.ops.steadiness import CONV, RNG, images, matrix, same, settle, vector, weight


@pytest.mark.parametrize("channels", [8, 32], ids=["direct", "by Winograd"])
def test_threads(channels: int) -> None:
    args = images(channels, 16), weight(channels, channels), vector(channels), *CONV
    expected, found = ops.conv2d.__wrapped__(*args), []
    settle(ops.conv2d, lambda: args)

    def call() -> None:
        for _ in range(50):
            found.append((ops.conv2d(*args) == expected).all())

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 150 and all(found)


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one CPU")
def test_as_many_work_buffers_as_threads(asked: list[Any]) -> None:
    args = images(32, 16), weight(32, 32), vector(32), *CONV
    before, found = nnet.get_num_threads(), []
    try:
        for count in (1, 2, 1, 2):
            nnet.set_num_threads(count)
            settle(ops.conv2d, lambda: args)
            asked.clear()
            found.append(ops.conv2d(*args))
            assert not asked
    finally:
        nnet.set_num_threads(before)
    for y in found:
        same(y, ops.conv2d.__wrapped__(*args))


def test_what_is_made_for_kernels_is_made_anew() -> None:
    """A work buffer that another call has marked as taken would be waited for, without end in a forked process."""
    _, program = traced(ops.conv2d.__wrapped__, (images(32, 16), weight(32, 32), None, *CONV))
    assert [set(a.tolist()) for a in program._templates.values()] == [{0}]
    (number,) = program._templates
    assert program.text.count(f"a{number}") == program.text.count(f"a{number}.copy()") == 1


def test_nothing_large_is_kept() -> None:
    """Of an operand that was converted, and will be again."""
    x = np.ones((300, 300), ">f4")
    for _ in range(4):
        same(ops.sum(x), np.float32(90000))
    programs = [kind.program for kind in ops.sum.__globals__["_meet"].__self__.known.values() if kind.program]
    assert all(constant.nbytes < x.nbytes / 10 for program in programs for constant in program._constants)


@pytest.mark.parametrize("shapes", [((9, 9), (9, 18)), ((18, 2), (2, 18))], ids=["operands", "result"])
def test_nothing_large_is_copied(shapes: Any, monkeypatch: pytest.MonkeyPatch, asked: list[Any]) -> None:
    monkeypatch.setattr("numbanet.ops.steady._LARGE", 900)
    a, b = (matrix(*shape) for shape in shapes)
    for _ in range(8):
        ops.matmul(a, b)
    assert len(asked) == 8


def test_kinds_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numbanet.ops.steady._KINDS", 3)
    for _ in range(6):
        for rows in range(1, 7):
            a, b = matrix(rows), matrix()
            same(ops.matmul(a, b), ops.matmul.__wrapped__(a, b))


def test_two_threads_meet_a_kind_and_neither_computes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The statistics of a batch norm would be updated once more."""
    x, real, first = RNG.standard_normal((4, 5, 7, 6), dtype=np.float32), program.traced, [True]

    def call(mean: np.ndarray) -> np.ndarray:
        ops.batch_norm(x, mean, np.ones(5, np.float32), training=True, momentum=0.5)
        return mean

    def traced(*args: Any) -> Any:
        found = real(*args)
        if first:
            first.clear()
            other = threading.Thread(target=call, args=(np.zeros(5, np.float32),))
            other.start()
            other.join()
        return found

    expected = call(np.zeros(5, np.float32))  # the kind is known now
    monkeypatch.setattr(program, "traced", traced)
    for _ in range(4):
        np.testing.assert_array_equal(call(np.zeros(5, np.float32)), expected)
    assert not first
