"""How a block of threads shares the columns and rows of a matrix, and sums over its rows.

A block has 256 threads: `across` of them stand side by side and hold `width` columns each, so that a warp reads whole
lines of memory; the other threads hold the same columns of other rows. A block walks `span` rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from numbanet.cuda.compile import device
from numbanet.cuda.ptx import cuda, types

i32, f64 = types.int32, types.float64
THREADS = 256
_ROWS_A_THREAD = 32
_PARTS = 1024  # blocks that share one matrix, at most


@dataclass(frozen=True)
class Cut:
    """A matrix cut into blocks.

    Attributes
    ----------
    across : int
        Threads side by side, a power of two up to 32.
    strips : int
        Blocks that it takes to cover all columns.
    span : int
        Rows of a block.
    parts : int
        Blocks that it takes to cover all rows.
    """

    across: int
    strips: int
    span: int
    parts: int

    @property
    def down(self) -> int:
        """Threads one above the other."""
        return THREADS // self.across


def cut(rows: int, columns: int, width: int, most: int = 0) -> Cut:
    """Cut a matrix for kernels that sum over its rows.

    Parameters
    ----------
    rows, columns : int
    width : int
        Columns of a thread.
    most : int
        Rows of a thread at most; 0: as many as `_PARTS` blocks must take.
    """
    vectors = -(-columns // width)
    across = 1
    while across < min(vectors, 32):
        across *= 2
    down = THREADS // across
    strips = -(-vectors // across)
    each = min(_ROWS_A_THREAD, max(1, -(-rows // (down * 4))))
    each = max(each, -(-rows * strips // (down * _PARTS)))
    if most:
        each = min(each, most)
    span = down * each
    return Cut(across, strips, span, -(-rows // span) if rows else 0)


@device
def fold(scratch, t, across, width):
    """Add up what the threads of a column left in `scratch[width t + lane]`; the first row of threads has the sums."""
    cuda.syncthreads()
    half = i32(THREADS // 2)
    while half >= across:
        if t < half:
            for lane in range(width):
                scratch[i32(t * width + lane)] += scratch[i32((t + half) * width + lane)]
        cuda.syncthreads()
        half = i32(half >> 1)
