"""Tables of addresses: where a block of output positions reads, tap by tap, and where it writes."""

from __future__ import annotations

from numbanet.cpu.compile import device
from numbanet.cpu.simd import integers
from numbanet.cpu.tile import address


@device
def out_addresses(table, first, count, padded, height, width, y, base, step_n, step_i, step_j):
    """Write the addresses of `count` grid positions from `first` on; repeat the last up to `padded`."""
    size = address(y, 1) - address(y, 0)
    n, rest = first // (height * width), first % (height * width)
    i, j = rest // width, rest % width
    at = 0
    while at < count:
        run = min(width - j, count - at)
        here = address(y, base + n * step_n + i * step_i + j * step_j)
        for m in range(run):
            table[at + m] = here + m * step_j * size
        at += run
        j = 0
        i += 1
        if i == height:
            i = 0
            n += 1
    for m in range(count, padded):
        table[m] = table[count - 1]


@device
def source_addresses(table, first, count, padded, height, width, x, geometry, dh, dw, zero):
    """Write the address of the source pixel of each position for one tap; that of zeros where it is padding."""
    h, w, c, stride_h, stride_w = integers(geometry, 5)
    size = address(x, 1) - address(x, 0)
    # Positions j with 0 <= j * stride_w + dw < w.
    left = (-dw + stride_w - 1) // stride_w if dw < 0 else 0
    right = (w - dw + stride_w - 1) // stride_w if dw < w else 0
    n, rest = first // (height * width), first % (height * width)
    i, j = rest // width, rest % width
    at = 0
    while at < count:
        run = min(width - j, count - at)
        row = i * stride_h + dh
        low = min(max(left - j, 0), run)
        high = min(max(right - j, low), run)
        if row < 0 or row >= h:
            low = run
            high = run
        for m in range(low):
            table[at + m] = zero
        here = address(x, ((n * h + row) * w + j * stride_w + dw) * c)
        for m in range(low, high):
            table[at + m] = here + m * stride_w * c * size
        for m in range(high, run):
            table[at + m] = zero
        at += run
        j = 0
        i += 1
        if i == height:
            i = 0
            n += 1
    for m in range(count, padded):
        table[m] = table[count - 1]
