"""What `numbanet.data.augment` does to batches, in one pass: windows, mirrored or not, scaled, with a blank square.

A task takes some lines of the results. Lines that follow each other in the images as they do in the results are read
where they lie; others are put together in a work buffer, of runs of pixels that go forwards or backwards, whatever the
numbers are. Then each number is scaled, or copied. Each step writes whole vectors: what lies beyond its end comes next.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from numbanet import memory
from numbanet.cpu.compile import F32, I64, U8, Index, T, device, kernel
from numbanet.cpu.parallel import launch
from numbanet.cpu.simd import (
    convert,
    lanes,
    load,
    load_as,
    load_as_tail,
    load_tail,
    named,
    numpy_lanes,
    offset,
    splat,
    store,
    store_tail,
)
from numbanet.cpu.sixteen import NOTHING, as_pointer, load_sixteen, shuffle, store_sixteen
from numbanet.cpu.slots import give_slot, new_slots, take_slot
from numbanet.cpu.stream import aligned, drain, put, streams
from numbanet.problem.augment import Changes

_CHUNK = 1 << 13  # numbers a task
_MARGIN = 320  # bytes around a row, so that whole vectors may be read and written: 16 of 16 bytes, and one more
_PERIOD = 256  # numbers of a scale, at least, before it begins again
_FIELDS = 6  # of a result: which image, its first row and column there, mirrored, first row and column of the square


class Cut(NamedTuple):
    """The integers of the kernels; a pixel's bytes follow each other unless the images are planar."""

    lines: int  # of all results
    chunk: int  # lines a task
    h: int  # of the images
    w: int
    channels: int
    item: int  # bytes of a number
    pixel: int  # bytes of its numbers
    rows: int  # of a result
    columns: int
    stride: int  # bytes that are mirrored at once: those of the whole pixels in 16, or of one
    reflects: int  # what lies outside is the mirrored image; else zero
    planar: int
    side: int  # of the square; or 0
    size: int  # bytes of all images
    room: int  # bytes of a work buffer: rows of an image, lines of a result from `block` on, and the list of its runs
    block: int
    list_: int
    slots: int
    large: int
    period: int  # of the scale


@device
def _interleave(x, i, plane, count, channels, item, size, tables, y, o):
    """Put `count` pixels together of numbers that lie in planes; up to 16 vectors of 16 bytes more are written."""
    done, some = 0, 16 // item
    last = size - (channels - 1) * plane - 16
    if channels == 3:
        t0, t1, t2 = load_sixteen(tables, 0), load_sixteen(tables, 16), load_sixteen(tables, 32)
        t3, t4, t5 = load_sixteen(tables, 48), load_sixteen(tables, 64), load_sixteen(tables, 80)
        t6, t7, t8 = load_sixteen(tables, 96), load_sixteen(tables, 112), load_sixteen(tables, 128)
        while done < count and i <= last:
            a, b, c = load_sixteen(x, i), load_sixteen(x, i + plane), load_sixteen(x, i + 2 * plane)
            store_sixteen(y, o, shuffle(a, t0) | shuffle(b, t1) | shuffle(c, t2))
            store_sixteen(y, o + 16, shuffle(a, t3) | shuffle(b, t4) | shuffle(c, t5))
            store_sixteen(y, o + 32, shuffle(a, t6) | shuffle(b, t7) | shuffle(c, t8))
            done, i, o = done + some, i + 16, o + 48
    while done < count and i <= last:
        for part in range(channels):
            table = part * channels * 16
            v = shuffle(load_sixteen(x, i), load_sixteen(tables, table))
            for channel in range(1, channels):
                found = load_sixteen(x, i + channel * plane)
                v = v | shuffle(found, load_sixteen(tables, table + channel * 16))
            store_sixteen(y, o + part * 16, v)
        done, i, o = done + some, i + 16, o + channels * 16
    for _ in range(done, count):
        for channel in range(channels):
            for b in range(item):
                y[o] = x[i + channel * plane + b]
                o += 1
        i += item


@device
def _row(at, cut):
    """Return which row of an image is seen at a position: one outside it if that is blank."""
    if cut.reflects and not 0 <= at < cut.h:
        period = max(2 * cut.h - 2, 1)
        at = at % period
        at = min(at, period - at) if cut.h > 1 else 0
    return at


@device
def _rows(x, image, first, count, cut, planes, work):
    """Return a pointer to the first of some rows of an image: in x, or put together in `work`."""
    row_bytes = cut.w * cut.pixel
    i, size = (image * cut.h + first) * row_bytes, count * row_bytes
    if cut.planar:
        plane = cut.h * cut.w * cut.item
        i = image * cut.h * row_bytes + first * cut.w * cut.item
        _interleave(x, i, plane, count * cut.w, cut.channels, cut.item, cut.size, planes, work, _MARGIN)
    elif i >= _MARGIN and i + size + _MARGIN <= cut.size:
        return offset(x, i)
    else:
        for b in range(size):
            work[_MARGIN + b] = x[i + b]
    return offset(work, _MARGIN)


@device
def _runs(left, flip, cut, runs):
    """List the runs of pixels that every line of a result is made of, and return three times their number.

    Each is the byte of the image's row that is read first, a direction, or 0 for zeros, and how many bytes it has.
    """
    at, way, rest, number, w = left, 1, cut.columns, 0, cut.w
    if flip:
        at, way = left + cut.columns - 1, -1
    period = max(2 * w - 2, 1)
    while rest > 0:
        first, direction = at, way
        if cut.reflects:
            first = at % period
            if first >= w:
                first, direction = period - first, -way
        count = w - first if direction > 0 else first + 1
        if first < 0:
            direction, count = 0, -first if way > 0 else rest
        elif first >= w:
            direction, count = 0, rest if way > 0 else first - w + 1
        count = min(rest, count)
        runs[number] = first * cut.pixel + (cut.pixel - cut.stride if direction < 0 else 0)
        runs[number + 1], runs[number + 2] = direction, count * cut.pixel
        number += 3
        at += way * count
        rest -= count
    return number


@device
def _line(source, runs, number, pixel, stride, mirror, zero, y, o):
    """Put a line together of one row of an image."""
    for run in range(0, number, 3):
        i, direction, end = runs[run], runs[run + 1], o + runs[run + 2]
        if direction > 0:
            i -= o
            while o < end:
                store(y, o, load(source, i + o))
                o += lanes(y)
        elif direction == 0:
            while o < end:
                store(y, o, zero)
                o += lanes(y)
        elif pixel <= 16:
            while o < end:
                store_sixteen(y, o, shuffle(load_sixteen(source, i), mirror))
                i -= stride
                o += stride
        else:
            while o < end:
                for b in range(0, pixel, lanes(y)):
                    store(y, o + b, load(source, i + b))
                i -= pixel
                o += pixel
        o = end


@device
def _lines(x, image, top, left, flip, count, cut, tables, work, runs):
    """Return a pointer to lines of a result that follow each other: in x, or put together in `work`."""
    h, pixel, planes = cut.h, cut.pixel, offset(tables, 16 + lanes(tables))
    if flip == 0 and left == 0 and cut.columns == cut.w and top >= 0 and top + count <= h:
        if cut.planar:
            return _rows(x, image, top, count, cut, planes, work)
        return offset(x, (image * h + top) * cut.w * pixel)
    low, high = h, -1
    for j in range(count):
        row = _row(top + j, cut)
        if 0 <= row < h:
            low, high = min(low, row), max(high, row)
    source = work
    if low <= high:
        source = _rows(x, image, low, high - low + 1, cut, planes, work)
    # Zeros that the compiler does not know: it would call a function to write them.
    number, mirror, zero = _runs(left, flip, cut, runs), load_sixteen(tables, 0), load(tables, 16)
    o = cut.block
    for j in range(count):
        row, end = _row(top + j, cut), o + cut.columns * pixel
        if 0 <= row < h:
            _line(offset(source, (row - low) * cut.w * pixel), runs, number, pixel, cut.stride, mirror, zero, work, o)
        else:
            while o < end:
                store(work, o, zero)
                o += lanes(work)
        o = end
    return offset(work, cut.block)


@device
def _copied(x, y, o, count, period, factor, shift, large):
    """Copy bytes, and no more."""
    past = large != 0 and aligned(offset(y, o))
    whole = count - count % lanes(y)
    for b in range(0, whole, lanes(y)):
        put(y, o + b, load(x, b), past)
    if whole > 0 and whole < count:
        store(y, o + count - lanes(y), load(x, count - lanes(y)))
    else:
        for b in range(whole, count):
            y[o + b] = x[b]


@device
def _scaled(x, y, o, count, period, factor, shift, large):
    """Write ``x * factor - shift``, whose numbers come again after a period."""
    zero = splat(y, 0)
    past = large != 0 and aligned(offset(y, o))
    whole = count - count % lanes(y)
    for begin in range(0, whole, period):
        for t in range(0, min(period, whole - begin), lanes(y)):
            v = convert(load_as(x, begin + t, zero), y)
            put(y, o + begin + t, v * load(factor, t) - load(shift, t), past)
    if whole < count:
        n = count - whole
        v = convert(load_as_tail(x, whole, zero, n), y)
        t = whole % period
        store_tail(y, o + whole, v * load_tail(factor, t, n) - load_tail(shift, t, n), n)


def _make_task(finish: Any) -> Any:
    """Return the function of a task that writes the lines with `finish`."""

    @device
    def run(task, ints, images, tables, slots, buffers, x, like, unit, factor, shift, y):
        cut = named(ints, Cut)
        slot = take_slot(slots, cut.slots)
        work = offset(buffers, slot * cut.room)
        line, end = task * cut.chunk, min(cut.lines, (task + 1) * cut.chunk)
        while line < end:
            n = line // cut.rows
            within = line - n * cut.rows
            count = min(end - line, cut.rows - within)
            image = offset(images, n * _FIELDS)
            top, left, flip = image[1] + within, image[2], image[3]
            lines = _lines(x, image[0], top, left, flip, count, cut, tables, work, as_pointer(work, cut.list_, ints))
            width = cut.columns * unit
            finish(as_pointer(lines, 0, like), y, line * width, count * width, cut.period, factor, shift, cut.large)
            if cut.side:
                if cut.large:
                    drain()
                begin, stop = max(image[5], 0) * unit, min(image[5] + cut.side, cut.columns) * unit
                for j in range(max(image[4] - within, 0), min(image[4] + cut.side - within, count)):
                    for k in range(begin, stop):
                        y[(line + j) * width + k] = 0
            line += count
        if cut.large:
            drain()
        give_slot(slots, slot)

    return run


_move, _scale = _make_task(_copied), _make_task(_scaled)


@kernel
def move(task: Index, ints: I64, images: I64, tables: U8, slots: I64, work: U8, x: U8, y: U8):
    """Numbers of any kind go to other places."""
    _move(task, ints, images, tables, slots, work, x, x, named(ints, Cut).pixel, x, x, y)


@kernel
def scale_bytes(
    task: Index, ints: I64, images: I64, tables: U8, slots: I64, work: U8, x: U8, factor: F32, shift: F32, y: F32
):
    """They become float32 on the way, and are scaled."""
    _scale(task, ints, images, tables, slots, work, x, x, named(ints, Cut).channels, factor, shift, y)


@kernel
def scale(task: Index, ints: I64, images: I64, tables: U8, slots: I64, work: U8, x: U8, factor: T, shift: T, y: T):
    """Floats are scaled on the way."""
    _scale(task, ints, images, tables, slots, work, x, y, named(ints, Cut).channels, factor, shift, y)


@lru_cache(maxsize=64)
def _tables(channels: int, item: int, planar: bool) -> np.ndarray:
    """Return the table that mirrors pixels, a vector of zeros, and the tables that put pixels of planes together."""
    pixel = channels * item
    byte = np.arange(16)
    group = 16 // pixel
    mirror = np.where(byte < group * pixel, (group - 1 - byte // pixel) * pixel + byte % pixel, NOTHING)
    tables = [mirror, np.zeros(numpy_lanes(np.uint8))]
    if planar:
        at, channel = np.divmod(np.arange(16 * channels) // item, channels)
        number = at * item + np.arange(16 * channels) % item
        chosen = np.where(channel == np.arange(channels)[:, None], number, NOTHING)  # (channels, 16 of each part)
        tables.append(chosen.reshape(channels, channels, 16).transpose(1, 0, 2).ravel())
    return np.concatenate(tables).astype(np.uint8)


@lru_cache(maxsize=64)
def _repeated(numbers: bytes, dtype: str) -> np.ndarray:
    """Return numbers (float32) of the channels over and over, so often that whole vectors hold them."""
    once = np.frombuffer(numbers, np.float32).astype(dtype)
    return np.tile(once, 16 * max(1, _PERIOD // (16 * once.size)))


def _whole(size: int) -> int:
    """Return a number of bytes rounded up to cache lines."""
    return -(-size // 64) * 64


def supports(images: np.ndarray, changes: Changes) -> bool:
    """Return whether the kernels can change a batch of images, as results of the same bits."""
    if type(images) is not np.ndarray or images.dtype.kind not in "biufc" or not images.flags.aligned:
        return False
    if changes.scale is not None and not (images.dtype.isnative and images.dtype.name in _SCALED):
        return False
    return images.size > 0 and 0 not in changes.size


_SCALED = {"uint8": (scale_bytes, "float32"), "float32": (scale, "float32"), "float64": (scale, "float64")}


def changed(images: np.ndarray, changes: Changes, chosen: np.ndarray | None = None) -> np.ndarray:
    """Return a batch of images after all the changes; channels-last in memory.

    Parameters
    ----------
    images : ndarray, shape (M, C, H, W)
        For which `supports` holds. They are copied first unless they are contiguous, channels first or last.
    changes : Changes
        Of N images.
    chosen : ndarray of int64, shape (N,), optional
        Which images; all of them, in order, if it is not given.
    """
    n, c, h, w = changes.shape
    item = images.itemsize
    pixel = c * item
    moved = images.transpose(0, 2, 3, 1)
    last = moved.flags.c_contiguous
    planar = not last and images.flags.c_contiguous and pixel <= 16 and 16 % item == 0
    if not planar and not last:
        moved = np.ascontiguousarray(moved if chosen is None else moved[chosen])
        chosen = None
    rows, columns = changes.size
    table = np.empty((n, _FIELDS), np.int64)
    table[:, 0] = np.arange(n) if chosen is None else chosen
    table[:, 1], table[:, 2] = changes.tops - changes.padding, changes.lefts - changes.padding
    table[:, 3] = changes.flips
    side = 0
    if changes.square is not None:
        side, table[:, 4], table[:, 5] = changes.square
    chunk = max(1, _CHUNK // (columns * c))
    tasks = -(-n * rows // chunk)
    kernel_, dtype, scales = move, images.dtype, ()
    if changes.scale is not None:
        kernel_, name = _SCALED[images.dtype.name]
        dtype, scales = np.dtype(name), tuple(_repeated(numbers.tobytes(), name) for numbers in changes.scale)
    out = memory.empty((n, rows, columns, c), dtype)
    slots = new_slots(tasks)
    most = min(chunk, rows)
    block = _whole(2 * _MARGIN + min(most, h) * w * pixel)
    list_ = block + _whole(_MARGIN + most * columns * pixel)
    room = list_ + _whole(24 * columns)
    source = images if planar else moved
    cut = Cut(
        n * rows, chunk, h, w, c, item, pixel, rows, columns, max(1, 16 // pixel) * pixel,
        int(changes.fill == "reflect"), int(planar), side, source.nbytes, room, block, list_, slots.size,
        int(streams(out.nbytes)), scales[0].size if scales else 0,
    )  # fmt: skip
    work = memory.empty((slots.size * room,), np.uint8)
    arrays = (table, _tables(c, item, planar), slots, work, source.reshape(-1).view(np.uint8), *scales)
    written = out if scales else out.reshape(-1).view(np.uint8)
    launch(kernel_, tasks, (*arrays, written), cut, dtype.name if scales else "float32")
    return out.transpose(0, 3, 1, 2)
