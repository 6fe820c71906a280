"""Tables of addresses: where a block of output positions reads, tap by tap, and where it writes.

Where few channels are added up, a table takes as long as a part of the products: a number of it is an addition, no
multiplication, which 64-bit integers have no vectors of.
"""

from __future__ import annotations

from numbanet.cpu.compile import device
from numbanet.cpu.simd import integers, lane_numbers, lanes, load, select, splat, store
from numbanet.cpu.tile import address


@device
def write_steps(table, at, start, step, count):
    """Write `count` numbers from `start` on, each `step` more than the one before."""
    size = lanes(table)
    numbers, more = splat(table, start) + lane_numbers(table) * splat(table, step), splat(table, size * step)
    whole = count // size * size
    for m in range(0, whole, size):
        store(table, at + m, numbers)
        numbers = numbers + more
    for m in range(whole, count):
        table[at + m] = start + m * step


@device
def write_positions(
    outs, sources, rows, columns, first, count, padded, images, height, width, across, inside,
    y, base, step_n, step_i, step_j, x, geometry,
):  # fmt: skip
    """Write, for `count` grid positions from `first` on, the address of the result, and the address, row and column
    of the source pixel of a tap that shifts nothing; repeat the last position up to `padded`.

    The positions go image by image, or, with `across`, row by row across the images. Where all taps lie `inside` the
    image, nobody asks for rows and columns.
    """
    h, w, c, stride_h, stride_w = integers(geometry, 5)
    size = address(y, 1) - address(y, 0)
    line, j = first // width, first % width
    at = 0
    while at < count:
        n, i = (line % images, line // images) if across else (line // height, line % height)
        run = min(width - j, count - at)
        out = address(y, base + n * step_n + i * step_i + j * step_j)
        row, column = i * stride_h, j * stride_w
        source = address(x, ((n * h + row) * w + column) * c)
        write_steps(outs, at, out, step_j * size, run)
        write_steps(sources, at, source, stride_w * c * size, run)
        if not inside:
            write_steps(rows, at, row, 0, run)
            write_steps(columns, at, column, stride_w, run)
        at += run
        j = 0
        line += 1
    for m in range(count, padded):
        outs[m] = outs[count - 1]
        sources[m] = sources[count - 1]
        if not inside:
            rows[m], columns[m] = rows[count - 1], columns[count - 1]


@device
def source_addresses(table, padded, sources, rows, columns, inside, x, geometry, dh, dw, zero):
    """Write the address of the source pixel of each position for one tap; that of zeros where it is padding.

    Whole vectors are written, up to one less than a vector's lanes beyond `padded`.
    """
    h, w, c, _, _ = integers(geometry, 5)
    size = address(x, 1) - address(x, 0)
    shift = splat(table, (dh * w + dw) * c * size)
    if inside:
        for m in range(0, padded, lanes(table)):
            store(table, m, load(sources, m) + shift)
        return
    none = splat(table, zero)
    for m in range(0, padded, lanes(table)):
        row, column = load(rows, m) + splat(table, dh), load(columns, m) + splat(table, dw)
        vertical = (row >= splat(table, 0)) & (row < splat(table, h))
        horizontal = (column >= splat(table, 0)) & (column < splat(table, w))
        store(table, m, select(vertical & horizontal, load(sources, m) + shift, none))
