"""Bits of numbers that are turned over and, later, back: other values for a while, without a copy of those before."""

from __future__ import annotations

import numpy as np

from numbanet import memory
from numbanet.cpu.compile import I32, I64, Index, kernel
from numbanet.cpu.parallel import block_of, place, start
from numbanet.cpu.simd import integers

_BIT = 1 << 17  # of a float32's mantissa: turned over in all numbers, and some below it in each
_GOLDEN = 0x9E3779B1  # its multiples, as words of 32 bits, lie apart: equal numbers do not stay equal
_STRIDE = 0x85EBCA6B  # from one pattern to the next
# By the size of a number: how many words it has, of which the last is changed; by how much less its bits are shifted.
_WORDS = {4: (1, 0), 8: (2, 3)}


@kernel
def turn(task: Index, ints: I64, words: I32, count: I64):
    """Turn bits over with the next pattern, or the last one back, and count it: all that in a single task."""
    size, step, shift, seed, back = integers(ints, 5)
    number = count[0] - back
    first = (seed + number) * _STRIDE
    for i in range(size):
        bits = _BIT | (((first + i) * _GOLDEN & 0xFFFFFFFF) >> 15)
        words[(i + 1) * step - 1] ^= bits >> shift
    count[0] = number + 1 - back


class Turn:
    """What turns over bits of an array, and knows in any case how often it did.

    Change and count are one call of machine code: a signal handler, which runs between steps of Python, may raise an
    error before or after both of them. No memory is taken for it.

    Parameters
    ----------
    array : numpy.ndarray
        As `fits` wants it.
    seed : int
        Small; other bits are chosen for another one.
    """

    def __init__(self, array: np.ndarray, seed: int):
        words = np.asarray(memory.flat(array)).view(np.int32)
        self._count = np.zeros(1, np.int64)
        address, _, pointers = turn.entry("float32")
        blocks = [block_of((array.size, *_WORDS[array.itemsize], seed, back)) for back in (0, 1)]
        self._operands = (words, self._count), blocks
        # Nobody looks at the buffers at each call: they are as the kernel wants them.
        self._over, self._back = ((address, 0, pointers, id(self._operands[0]), id(b), 1, 0) for b in blocks)

    @staticmethod
    def fits(array: np.ndarray) -> bool:
        """Return whether an array's floating-point numbers fill memory without gaps, as kernels find them."""
        plain = array.dtype.kind == "f" and array.itemsize in _WORDS and array.dtype.isnative and array.flags.aligned
        return plain and memory.dense(array) is array and place(memory.flat(array)) == place(array)

    def over(self) -> None:
        """Turn over bits, others each time."""
        start(self._over)

    def back(self) -> None:
        """Turn all of them back."""
        while self._count[0]:
            start(self._back)
