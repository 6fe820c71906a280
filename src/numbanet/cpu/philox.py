"""Philox4x32-10, a counter-based random generator, on vectors of counters.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. The 32-bit words stand in 64-bit
lanes, so that one multiplication gives both halves of a product.
"""

from __future__ import annotations

from numbanet.cpu.compile import device
from numbanet.cpu.simd import shift_right, splat_as

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)  # what the key grows by: the golden ratio and sqrt(3) - 1
_ROUNDS = 10
_WORD = 0xFFFFFFFF


@device
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four random words of each counter (c0, c1, c2, c3) under the key (k0, k1).

    The counters are vectors of 64-bit integers that hold 32-bit words, the key two such integers.
    """
    word = splat_as(c0, _WORD)
    first, second = splat_as(c0, _MULTIPLIERS[0]), splat_as(c0, _MULTIPLIERS[1])
    for _ in range(_ROUNDS):
        # Only the low halves of the lanes count, which is what the cheap 32-bit multiplication takes: to cut the others
        # off here costs no instruction, and until the end they may hold anything.
        p, q = (c0 & word) * first, (c2 & word) * second
        c0, c1 = shift_right(q, 32) ^ c1 ^ splat_as(c0, k0), q
        c2, c3 = shift_right(p, 32) ^ c3 ^ splat_as(c0, k1), p
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0 & word, c1 & word, c2 & word, c3 & word
