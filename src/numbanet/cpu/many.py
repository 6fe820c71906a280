"""Kernels over many arrays at once, such as all parameters of a network: one launch instead of one an array.

The arrays stand in a table of references. Their elements are cut into pieces, and each task takes pieces of one or
several arrays that make up about equal work: a network has hundreds of arrays with a few numbers each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from numbanet.cpu.parallel import kept
from numbanet.watch import constant

PIECE = 1 << 14  # elements of a piece at most
_TASK = 1 << 15  # elements of a task, about
_I64 = ir.IntType(64)
# NumPy's array object starts with the head of every object, then the pointer to its data.
_DATA_OFFSET = object.__basicsize__


@intrinsic(prefer_literal=True)
def many(typingctx, like, table, first, count):
    """Return the pointers to the data of `count` (a literal) arrays from number `first` of the table on.

    They have the type of `like`.
    """
    if not isinstance(count, types.IntegerLiteral):
        return None
    number = count.literal_value
    result = types.UniTuple(like, number)

    def codegen(context, builder, sig, args):
        pointers = []
        for j in range(number):
            position = builder.add(args[2], ir.Constant(_I64, j))
            reference = builder.load(builder.gep(args[1], [position]))
            field = builder.inttoptr(builder.add(reference, ir.Constant(_I64, _DATA_OFFSET)), _I64.as_pointer())
            pointers.append(builder.inttoptr(builder.load(field), context.get_value_type(like)))
        return context.make_tuple(builder, result, pointers)

    return result(like, table, types.int64, count), codegen


def references(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return the table of the arrays, which the caller keeps alive and whose elements fill memory without gaps."""
    return constant(np.array([*map(id, kept(arrays))], np.int64))


@lru_cache(maxsize=1024)
def pieces(sizes: tuple[int, ...]) -> tuple[int, int, np.ndarray]:
    """Cut arrays of some sizes: return the numbers of tasks and of pieces, and the plan that kernels read.

    The plan holds for each task the number of its first piece (and, at the end, that of all pieces), then for each
    piece the number of its array, its first element and the element after its last.
    """
    cuts: list[tuple[int, int, int]] = []
    for number, size in enumerate(sizes):
        cuts += ((number, start, min(size, start + PIECE)) for start in range(0, size, PIECE))
    bounds, work = [0], 0
    for number, (_, start, end) in enumerate(cuts):
        work += end - start
        if work >= _TASK or number == len(cuts) - 1:
            bounds.append(number + 1)
            work = 0
    plan = np.array([*bounds, *(value for cut in cuts for value in cut)], np.int64)
    plan.flags.writeable = False
    return len(bounds) - 1, len(cuts), plan


@lru_cache(maxsize=8)
def typed(dtype: str) -> np.ndarray:
    """Return an empty array, which tells a kernel the dtype of the arrays of a table."""
    return np.empty(0, dtype)
