"""Sums over dimensions on the GPU, and what a planted bug in one looks like."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from numbanet import dispatch
from numbanet.cuda.launch import executor
from numbanet.cuda.reduce import column_sums, row_sums
from numbanet.problem.group_norm import GroupNormProblem
from numbanet.problem.norm import BatchNormProblem
from numbanet.problem.reduce import ReduceProblem
from tests.cuda.ptx.executor import Interpreter, interpret
from tests.cuda.ptx.memory import Fault
from tests.cuda.twins import compare, poison

# (outer, reduced, inner): rows of a warp and of blocks, columns of one strip and of several, and tails of each.
SIZES = [
    (9, 33, 1), (3, 8, 1), (2, 5000, 1), (1, 70001, 1), (1, 40000, 1), (3, 0, 1), (0, 4, 1), (1, 1, 1),
    (2, 37, 3), (1, 700, 8), (3, 5, 132), (1, 0, 5), (1, 40, 1025),
]  # fmt: skip


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sums(sizes: tuple[int, int, int]) -> None:
    outer, reduced, inner = sizes
    for dtype in ("float32", "float64") if outer * reduced * inner < 5000 else ("float32",):
        rng = np.random.default_rng(0)
        x = rng.standard_normal(outer * reduced * inner).astype(dtype) + dtype_one(dtype)
        problem = ReduceProblem("forward", dtype, outer, reduced, inner, 1 / reduced if reduced else np.nan)
        compare(problem, (x,), (poison((outer * inner,), dtype),))


def dtype_one(dtype: str) -> np.generic:
    return np.dtype(dtype).type(1)


def test_ten_million_equal_numbers_keep_their_digits() -> None:
    """What a thread adds in float32 is four numbers; the same sum in float32 alone would be wrong by a thousandth."""
    x = np.full(1 << 17, 0.1, np.float32)
    compare(ReduceProblem("forward", "float32", 1, x.size, 1, 1.0), (x,), (poison((1,), "float32"),), factor=0.07)


class Recorder(Interpreter):
    """An executor that only remembers the grids."""

    def __init__(self) -> None:
        super().__init__()
        self.grids: list[tuple[int, ...]] = []

    def run(self, kernel: Any, grid: Any, arguments: Any, dtype: str) -> None:
        """Remember the grid."""
        self.grids.append(grid)

    def empty(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        """Return an array that takes no memory."""
        return np.broadcast_to(np.zeros(1, dtype), shape)


@pytest.mark.parametrize(
    "problem",
    [
        ReduceProblem("forward", "float32", 1, 2, 40_000_001, 1.0),
        ReduceProblem("forward", "float32", 10**8, 2, 3, 1.0),
        ReduceProblem("forward", "float32", 1, 10**9, 2, 1.0),
        ReduceProblem("forward", "float32", 1, 2 * 10**9, 1, 1.0),
        GroupNormProblem("backward", "float32", 3, 1, 5_000_001, 1),
        GroupNormProblem("backward", "float32", 10**7, 1, 8, 1),
        BatchNormProblem("forward", "float32", 10**8, 3, True),
        BatchNormProblem("backward", "float32", 10**8, 3, True),
    ],
    ids=str,
)  # fmt: skip
def test_grids_are_no_larger_than_a_gpu_takes(problem: Any) -> None:
    candidate = next(
        c for c in dispatch.candidates("cuda", problem.operation, problem.which) if c.supports(problem) is None
    )
    device = Recorder()
    x = np.broadcast_to(np.float32(1), (2 * 10**9,))
    with executor(device):
        if problem.operation == "reduce":
            candidate.run(problem, (x,), (x,), None)
        elif problem.operation == "group_norm":
            candidate.run(problem, (x, x, None, x, x), (x, x, x), None)
        elif problem.which == "forward":
            candidate.run(problem, (x, None, None, None, None, np.zeros(2), None), (x, x, x), None)
        else:
            candidate.run(problem, (x, x, None, x, x, None), (x, x, x, None), None)
    assert device.grids
    for width, height, depth in device.grids:
        assert width < 2**31 and max(height, depth) <= 65535


def column_program(change: tuple[str, str] | None = None) -> np.ndarray:
    """Run the kernel of column sums, with one change of its PTX."""
    kernel = column_sums("float32", 4)
    text = kernel.ptx("float32", (8, 0))
    if change is not None:
        changed = re.sub(change[0], change[1], text, count=1)
        assert changed != text
        text = changed
    x = np.ones((20, 12), np.float32)
    partial = poison((12,), "float64")
    interpret(text, (1, 1, 1), kernel.threads, (20, 12, 4, 1, 64, 1, x, partial))
    return partial


def test_planted_bugs_are_found() -> None:
    np.testing.assert_array_equal(column_program(), 20)
    with pytest.raises(Fault, match="race|before anybody wrote"):
        column_program((r"bar\.sync\s+0;", ""))
    with pytest.raises(Fault, match="outside"):  # a column too many
        column_program((r"setp\.ge\.s32(\s+%p\d+, %r\d+, %r\d+;)", r"setp.gt.s32\1"))
    kernel = row_sums("float32", 1)
    text = kernel.ptx("float32", (8, 0))
    x, y = np.arange(33, dtype=np.float32), poison((1,), "float32")
    interpret(text, (1, 1, 1), kernel.threads, (1, 33, 1.0, x, y))
    assert y[0] == x.sum()
    changed = re.sub(r"(mov\.u32\s+%r\d+), 16;", r"\1, 8;", text)  # the first step of the sum over a warp
    assert changed != text
    interpret(changed, (1, 1, 1), kernel.threads, (1, 33, 1.0, x, y))
    assert y[0] != x.sum()
