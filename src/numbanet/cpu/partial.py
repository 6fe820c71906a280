"""Vectors of which only some lanes exist, for loops whose last turn is cut short."""

from __future__ import annotations

from numbanet.cpu.compile import device
from numbanet.cpu.simd import lanes, load, load_tail, store, store_tail


@device
def get(x, i, n):
    """Return the vector from element i on, of which `n` lanes exist, or more than all; the others are zero."""
    return load(x, i) if n >= lanes(x) else load_tail(x, i, n)


@device
def put(x, i, v, n):
    """Write the first `n` lanes of a vector, or all."""
    if n >= lanes(x):
        store(x, i, v)
    else:
        store_tail(x, i, v, n)
