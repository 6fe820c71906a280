"""Extents of a heap: none has two owners, neighbours become one, and what is free goes back."""

from __future__ import annotations

import random

import pytest

from numbanet import heap as module
from numbanet.heap import Heap

MIB = 1 << 20


def give(heap: Heap, found: tuple) -> None:
    heap.returned.append(found[2:])


@pytest.mark.parametrize("seed", range(4))
def test_extents_do_not_overlap_and_become_one_again(seed: int) -> None:
    rng, heap = random.Random(seed), Heap(64)
    taken: dict[int, tuple] = {}
    for _ in range(3000):
        if len(taken) < rng.randrange(1, 40):
            found = heap.take(rng.choice((1, 63, 64, 1000, 70_000, 5 * MIB)))
            stretch, offset, start, size = found
            assert start % 64 == 0 and 0 < offset <= len(stretch) - size
            assert all(start + size <= other or other + there[3] <= start for other, there in taken.items())
            taken[start] = found
        else:
            give(heap, taken.pop(rng.choice(list(taken))))
    heap.collect()
    assert heap.in_use == sum(found[3] for found in taken.values()) and heap.extents == len(taken)
    assert sum(heap._free.values()) == heap.idle and sorted(heap._by_size) == heap._by_size
    assert {(size, start) for start, size in heap._free.items()} == set(heap._by_size)
    assert {start + size: start for start, size in heap._free.items()} == heap._starts
    for found in taken.values():
        give(heap, found)
    heap.release()
    assert heap.in_use == heap.touched == heap.extents == 0
    assert not (heap._free or heap._by_size or heap._starts or heap._tails or heap._stretches)


def test_a_large_extent_serves_small_ones_and_grows_from_the_last_free_one() -> None:
    heap = Heap()
    first = heap.take(8 * MIB)
    give(heap, first)
    parts = [heap.take(MIB) for _ in range(8)]
    assert heap.touched == 8 * MIB
    give(heap, parts[7])
    heap.take(3 * MIB)  # the last one, and two more
    assert heap.touched == 10 * MIB


def test_what_is_free_is_released_between_what_is_in_use() -> None:
    heap = Heap()
    parts = [heap.take(4 * MIB) for _ in range(5)]
    stretch, offset, _, size = parts[1]
    stretch[offset : offset + 4] = b"abcd"
    keep, at, *_ = parts[2]
    keep[at : at + 4] = b"kept"
    for part in (parts[1], parts[3], parts[4]):
        give(heap, part)
    heap.release()
    assert heap.touched == 12 * MIB and heap.in_use == 8 * MIB and keep[at : at + 4] == b"kept"
    assert heap.take(size)[2] == parts[1][2], "the place is there"
    assert heap.peak == 12 * MIB


def test_claims_alone_count() -> None:
    """Whatever a signal handler, or Ctrl-C, left of the hints."""
    heap = Heap()
    parts = [heap.take(MIB) for _ in range(4)]
    give(heap, parts[0])
    give(heap, parts[2])
    heap.collect()
    heap._free.clear()
    again = [heap.take(MIB)[2] for _ in range(3)]
    assert not {part[2] for part in parts} & set(again) and len(set(again)) == 3


@pytest.mark.parametrize("sizes", [(1, 1), (8, 8)])
def test_a_signal_handler_may_take_and_give_in_the_middle(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at the hints and what is taken of them, others come before it, or are gone."""
    heap, real = Heap(), module.bisect_left
    parts = [heap.take(size * MIB) for size in (8, 1, 1, 1, 1, 1)]
    give(heap, parts[0])
    nested: list[tuple] = []

    def bisect_left(*arguments: object) -> int:
        found = real(*arguments)  # type: ignore[call-overload]
        if not nested:
            nested.append(())
            give(heap, parts[2])
            give(heap, parts[4])
            nested[:] = [heap.take(size * MIB) for size in sizes]
        return found

    monkeypatch.setattr(module, "bisect_left", bisect_left)
    mine = heap.take(8 * MIB)
    kept = [mine, *nested, *(parts[i] for i in (1, 3, 5))]
    ends = sorted((start, start + size) for *_, start, size in kept)
    assert mine[3] >= 8 * MIB and all(end <= start for (_, end), (start, _) in zip(ends, ends[1:]))
