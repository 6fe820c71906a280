"""Products of two matrices in all four combinations of memory orders."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from numbanet.problem.base import Problem
from numbanet.problem.conv import Epilogue


@dataclass(frozen=True)
class MatmulProblem(Problem):
    """out (m, n) = a (m, k) times b (k, n), then the epilogue, whose bias is a row of n numbers.

    Attributes
    ----------
    m, n, k : int
    a_rows : bool
        Whether a lies in memory row by row, as (m, k), or column by column, as (k, m).
    b_rows : bool
        Whether b lies in memory row by row, as (k, n), or column by column, as (n, k).
    epilogue : Epilogue
    batch : int
        How many products. Above 1, a and b are stacks of matrices, there is no epilogue, and a fifth input of int64
        and shape (2, batch) tells which matrices of the stacks each product takes.
    """

    operation: ClassVar[str] = "matmul"
    host: ClassVar[tuple[int, ...]] = (4,)
    m: int
    n: int
    k: int
    a_rows: bool
    b_rows: bool
    epilogue: Epilogue = Epilogue()
    batch: int = 1

    @property
    def flops(self) -> int:
        """Floating-point operations."""
        return 2 * self.batch * self.m * self.n * self.k
