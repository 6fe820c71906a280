"""Dropout: the mask is computed, never stored; its random bits are those of every other device.

A thread takes the counters of some neighbouring elements. The four words of a counter decide on elements 16 apart (see
`numbanet.problem.dropout`), so that each word's elements are one access.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.candidate import Arrays, Candidate, CandidateLists
from numbanet.cuda.compile import Int, Kernel, Long, Number, T, kernel
from numbanet.cuda.launch import aligned, each, launch
from numbanet.cuda.philox import philox
from numbanet.cuda.ptx import cuda, types
from numbanet.cuda.vector import THREADS, blocks, i32, lanes, partial_accesses, real, too_large
from numbanet.problem.dropout import BLOCK, COUNTERS

_WORDS = 4
u32, i64 = types.uint32, types.int64


@lru_cache(maxsize=8)
def _kernel(dtype: str, wide: int) -> Kernel:
    number = real(dtype)
    zero = number(0)
    get, put = partial_accesses(wide)

    @kernel(threads=THREADS, blocks=4, config=f"{dtype},{wide}")
    def dropout(size: Int, threshold: Long, scale: Number, seed: Long, draw: Long, x: T, y: T):
        words = cuda.local.array((_WORDS, wide), u32)
        values = cuda.local.array(wide, number)
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
                        factor = zero if i64(words[word, lane]) < threshold else scale
                        values[lane] *= factor  # infinity and NaN times zero are NaN
                    put(y, i, left, values)

    return dropout


def _forward(problem: Any, inputs: Arrays, outputs: Arrays, workspace: Any) -> None:
    x, key = inputs
    wide = lanes(problem.dtype) if aligned(x, *outputs) else 1
    counters = -(-problem.size // BLOCK) * COUNTERS
    numbers = (problem.size, problem.threshold, problem.scale, *each(key.view("int64")))
    launch(_kernel(problem.dtype, wide), (blocks(counters // wide),), (*numbers, x, *outputs), problem.dtype)


def _supports(problem: Any) -> str | None:
    return too_large(-(-problem.size // BLOCK) * BLOCK)


CANDIDATES: CandidateLists = {("dropout", "forward"): [Candidate("cuda.philox", _forward, _supports)]}
