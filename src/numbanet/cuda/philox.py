"""Philox4x32-10, a counter-based random generator (Salmon, Moraes, Dror and Shaw, SC 2011), a counter a thread."""

from __future__ import annotations

from numbanet.cuda.compile import device
from numbanet.cuda.ptx import types

u32, u64 = types.uint32, types.uint64
_FIRST, _SECOND = u64(0xD2511F53), u64(0xCD9E8D57)
_WEYL = u32(0x9E3779B9), u32(0xBB67AE85)  # what the key grows by: the golden ratio and sqrt(3) - 1
_WEYL_0, _WEYL_1 = _WEYL
_HALF = u64(32)
_ROUNDS = 10


@device
def philox(c0, c1, c2, c3, k0, k1):
    """Return the four random words of a counter (c0, c1, c2, c3) under a key (k0, k1), all uint32."""
    for _ in range(_ROUNDS):
        p, q = u64(c0) * _FIRST, u64(c2) * _SECOND
        c0, c1 = u32(u32(q >> _HALF) ^ c1 ^ k0), u32(q)
        c2, c3 = u32(u32(p >> _HALF) ^ c3 ^ k1), u32(p)
        k0, k1 = u32(k0 + _WEYL_0), u32(k1 + _WEYL_1)
    return c0, c1, c2, c3
