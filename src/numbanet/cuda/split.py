"""Share a long reduction among blocks: how it is cut, and the kernel that adds the parts in a fixed order.

Where a result has too few tiles to occupy a GPU, its reduction is cut into parts of whole slices. The sums of each go
to scratch memory, and `add_parts` adds them, in order, and applies the epilogue: no atomics, so the bits are always the
same. How many parts there are follows from the problem alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numbanet.cuda import tile
from numbanet.cuda.compile import F32, Int, Kernel, kernel
from numbanet.cuda.launch import launch
from numbanet.cuda.ptx import cuda, types
from numbanet.problem.conv import Epilogue

_BLOCKS = 264  # two for each multiprocessor of an H100
_LEAST = 16  # slices of a part: less, and its sums cost as much as its products
_MOST_PARTS = 64
_MOST = 2**31 - 1
_THREADS = 256

i32, f32 = types.int32, types.float32


@dataclass(frozen=True)
class Cut:
    """How a reduction is cut.

    Attributes
    ----------
    parts : int
    share : int
        Slices of a part; the last one may have fewer.
    """

    parts: int
    share: int


def cut(tiles: int, slices: int, size: int, blocks: int = _BLOCKS, least: int = _LEAST) -> Cut:
    """Return how to cut a reduction.

    Parameters
    ----------
    tiles : int
        Blocks of the result.
    slices : int
        Of the reduction.
    size : int
        Elements of the result.
    blocks : int
        How many blocks a GPU shall get.
    least : int
        Slices of a part.
    """
    parts = min(blocks // max(tiles, 1), slices // least, _MOST_PARTS, _MOST // max(size, 1))
    if parts < 2:
        return Cut(1, max(slices, 1))
    share = -(-slices // parts)
    return Cut(-(-slices // share), share)


@lru_cache(maxsize=16)
def add_parts(epilogue: Epilogue) -> Kernel:
    """Return the kernel that adds parts and applies an epilogue."""
    finish = tile.finisher(epilogue)
    fetch_bias, fetch_addend = tile.fetcher(epilogue.bias, 1), tile.fetcher(epilogue.residual, 1)
    threads = _THREADS

    @kernel(threads=_THREADS, config=",".join(tile.words(epilogue)))
    def parts_sum(
        size: Int, columns: Int, parts: Int, part_size: Int, width: Int, filled: Int,
        sums: F32, bias: F32, residual: F32, y: F32,
    ):  # fmt: skip
        at = i32(cuda.blockIdx.x * threads + cuda.threadIdx.x)
        if at < size:
            source = i32(at // width * filled + at % width)
            value = sums[source]
            for part in range(1, parts):
                value += sums[i32(part * part_size + source)]
            y[at] = finish(value, fetch_bias(bias, i32(at % columns)), fetch_addend(residual, at))

    return parts_sum


def finish(
    parts: int, sums: Any, epilogue: Epilogue, bias: Any, residual: Any, y: Any, width: int = 1, filled: int = 1
) -> None:
    """Add parts in scratch memory, apply the epilogue to the sums, and write them to y.

    Parameters
    ----------
    parts : int
    sums : device array
        The parts, one after the other. Where y has rows of `width` numbers they may have rows of `filled`, of which the
        last ones are dropped.
    epilogue, bias, residual
    y : device array
    width, filled : int
    """
    part_size = y.size // width * filled
    arguments = y.size, y.shape[-1], parts, part_size, width, filled, sums, bias, residual, y
    launch(add_parts(epilogue), (-(-y.size // _THREADS),), arguments)
