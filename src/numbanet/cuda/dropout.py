"""Dropout: its random bits are those of every other device; the backward pass finds in a byte what was dropped.

A thread takes the counters of some neighbouring elements. The four words of a counter decide on elements 16 apart (see
`numbanet.problem.dropout`), so that each word's elements are one access, and so are their bytes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import U8, Int, Kernel, Long, Number, T, kernel
from numbanet.cuda.launch import aligned, each, launch
from numbanet.cuda.philox import philox
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real, too_large
from numbanet.problem.dropout import BLOCK, COUNTERS

_WORDS = 4
u8, u32, i64 = types.uint8, types.uint32, types.int64


@lru_cache(maxsize=8)
def _forward_kernel(dtype: str, wide: int, keeps: bool) -> Kernel:
    """Return the kernel that drops, and with `keeps` writes where."""
    number = real(dtype)
    zero = number(0)
    get, put = partial_accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=",".join([dtype, str(wide), *["flags"] * keeps]))
    def dropout(size: Int, threshold: Long, scale: Number, seed: Long, draw: Long, x: T, y: T, flags: U8):
        words = cuda.local.array((_WORDS, wide), u32)
        values, dropped = cuda.local.array(wide, number), cuda.local.array(wide, u8)
        counter = i32((i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x)) * wide)
        block = i32(counter // COUNTERS)
        at = i32(block * BLOCK + (counter - block * COUNTERS))
        if at < size:
            k0, k1 = u32(seed), u32(seed >> 32)
            c2, c3 = u32(draw), u32(draw >> 32)
            for lane in range(wide):
                words[0, lane], words[1, lane], words[2, lane], words[3, lane] = philox(
                    u32(counter + lane), u32(0), c2, c3, k0, k1
                )
            for word in range(_WORDS):
                i = i32(at + word * COUNTERS)
                left = i32(size - i)
                if left > 0:
                    get(x, i, left, values)
                    for lane in range(wide):
                        dropped[lane] = u8(1) if i64(words[word, lane]) < threshold else u8(0)
                        values[lane] *= zero if dropped[lane] else scale  # infinity and NaN times zero are NaN
                    put(y, i, left, values)
                    if keeps:
                        put(flags, i, left, dropped)

    return dropout


@lru_cache(maxsize=8)
def _backward_kernel(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = partial_accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide}")
    def send_back(size: Int, scale: Number, grad: T, flags: U8, dx: T):
        values, dropped = cuda.local.array(wide, number), cuda.local.array(wide, u8)
        i = i32((i32(cuda.blockIdx.x) * THREADS + i32(cuda.threadIdx.x)) * wide)
        left = i32(size - i)
        if left > 0:
            get(grad, i, left, values)
            get(flags, i, left, dropped)
            for lane in range(wide):
                values[lane] *= zero if dropped[lane] else scale
            put(dx, i, left, values)

    return send_back


def _width(problem: Any, flags: Any, *arrays: Any) -> int:
    """Return how many elements an access takes, and as many flags, which are bytes."""
    wide = lanes(problem.dtype)
    return wide if aligned(*arrays) and aligned(flags, size=wide) else 1


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, key = inputs
    y, flags = outputs if len(outputs) == 2 else (*outputs, None)
    wide = _width(problem, flags, x, y)
    counters = -(-problem.size // BLOCK) * COUNTERS
    numbers = (problem.size, problem.threshold, problem.scale, *each(key.view("int64")))
    chosen = _forward_kernel(problem.dtype, wide, flags is not None)
    launch(chosen, (blocks(counters // wide),), (*numbers, x, y, flags), problem.dtype)


def _backward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    (grad, flags), (dx,) = inputs, outputs
    wide = _width(problem, flags, grad, dx)
    arguments = (problem.size, problem.scale, grad, flags, dx)
    launch(_backward_kernel(problem.dtype, wide), (blocks(-(-problem.size // wide)),), arguments, problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large(-(-problem.size // BLOCK) * BLOCK)


CANDIDATES: CandidateLists = {
    ("dropout", "forward"): [Candidate("cuda.philox", _forward, _supports)],
    ("dropout", "backward_input"): [Candidate("cuda.flat", _backward, _supports)],
}
