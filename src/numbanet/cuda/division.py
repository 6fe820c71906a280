"""Division of a run-time number by one that the host knows: a product and a shift, where a division takes twenty steps.

Granlund and Montgomery, "Division by invariant integers using multiplication", PLDI 1994: for a divisor d and
l = ceil(log2 d), n // d = n * m >> 31 + l for all 0 <= n < 2**31, where m = ceil(2**(31 + l) / d) fits into 32 bits.
"""

from __future__ import annotations

from numbanet.cuda.compile import device
from numbanet.cuda.ptx import types

i32, u32, u64 = types.int32, types.uint32, types.uint64


def divisor(d: int) -> tuple[int, int]:
    """Return the (factor, shift) that `divide` takes for a divisor from 1 to 2**31 - 1; the factor as an int32."""
    length = (d - 1).bit_length()
    factor = -(-(1 << 31 + length) // d)
    return factor - (1 << 32) if factor >= 1 << 31 else factor, 31 + length


@device
def divide(n, by):
    """Return n // d for 0 <= n < 2**31 and ``by = divisor(d)``."""
    return i32((u64(u32(n)) * u64(u32(by[0]))) >> u64(by[1]))


@device
def located(number, image, row, height, width):
    """Return (image, line, column) of a pixel; `image` and `row` are divisors of height * width and width."""
    n = divide(number, image)
    within = i32(number - n * (height * width))
    i = divide(within, row)
    return n, i, i32(within - i * width)
