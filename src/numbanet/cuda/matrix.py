"""Loaders of matrices for `numbanet.cuda.tile`."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from numbanet.cuda import ptx
from numbanet.cuda.compile import device
from numbanet.cuda.ptx import types
from numbanet.cuda.tile import DEPTH

i32, f32 = types.int32, types.float32


@lru_cache(maxsize=4)
def loader(vector: bool, across: bool) -> Any:
    """Make the loader of a matrix.

    Its operand is ``(matrix, start, line, step, depth, inside)``: the index (64 bits) of this thread's first element in
    slice 0, the number of that element within the reduction of `depth`, the distance of two elements of the reduction
    where the matrix lies `across` it, and how many of its places exist (along: whether the place does).
    """

    @device
    def load_along(operand, number, out):
        matrix, start, line, _, depth, inside = operand
        k = i32(number * DEPTH)
        left = i32(depth - line - k)
        if inside <= 0:
            left = i32(0)
        if vector:
            if left > 0:
                out[0], out[1], out[2], out[3] = ptx.load4(matrix, start + k)
            else:
                out[0], out[1], out[2], out[3] = f32(0), f32(0), f32(0), f32(0)
        else:
            for i in range(4):
                out[i] = matrix[start + k + i] if i < left else f32(0)

    @device
    def load_across(operand, number, out):
        matrix, start, line, step, depth, inside = operand
        k = i32(number * DEPTH)
        left = inside if line + k < depth else i32(0)
        at = start + types.int64(k) * step
        if vector:
            if left > 0:
                out[0], out[1], out[2], out[3] = ptx.load4(matrix, at)
            else:
                out[0], out[1], out[2], out[3] = f32(0), f32(0), f32(0), f32(0)
        else:
            for i in range(4):
                out[i] = matrix[at + i] if i < left else f32(0)

    return load_across if across else load_along
