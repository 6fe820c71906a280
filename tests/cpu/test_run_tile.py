"""Tiles whose rows are a run of memory: what each computes, and how tiles are chosen to cover a matrix."""

from __future__ import annotations

import numpy as np
import pytest

from numbanet.cpu.compile import I64, Index, T, kernel
from numbanet.cpu.isa import AVX2, AVX512, NEON, SSE2, Isa
from numbanet.cpu.parallel import launch
from numbanet.cpu.run_tile import MOST_RUN_ROWS, RUN_TILES, cover, run_tile
from numbanet.cpu.simd import integers, numpy_lanes

LINES, PIXELS = 3, 5


@kernel
def one_tile(task: Index, ints: I64, a: T, b: T, sums: T):
    which, a_line, b_line, a_step, b_step, last_lanes, pitch, accumulate = integers(ints, 8)
    run_tile(1, which, a, b, 3, 5, a_line, b_line, a_step, b_step, last_lanes, b, 0, sums, pitch, accumulate)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("which", range(len(RUN_TILES)), ids=[f"{rows}x{vectors}" for rows, vectors in RUN_TILES])
def test_every_tile(which, dtype, rng):
    (rows, vectors), size = RUN_TILES[which], numpy_lanes(dtype)
    for last_lanes, accumulate in ((size, 0), (1, 1), (size - 1, 0)):
        columns = (vectors - 1) * size + last_lanes
        a = rng.standard_normal((LINES, PIXELS + 2, rows + 3)).astype(dtype)
        b = rng.standard_normal((LINES, PIXELS, columns)).astype(dtype)  # ends with the last column that may be read
        pitch = vectors * size + 5
        sums = rng.standard_normal((rows, pitch)).astype(dtype)
        before = sums.copy()
        ints = (which, a[0].size, b[0].size, rows + 3, columns, last_lanes, pitch, accumulate)
        launch(one_tile, 1, (a, b, sums), ints, dtype)
        want = np.einsum("lpi,lpj->ij", a[:, :PIXELS, :rows].astype(float), b.astype(float))
        want += before[:, :columns] * accumulate
        np.testing.assert_allclose(sums[:, :columns], want, rtol=0, atol=20 * np.finfo(dtype).eps * 10)
        np.testing.assert_array_equal(sums[:, vectors * size :], before[:, vectors * size :])


@pytest.mark.parametrize("vectors", range(1, 10))
def test_every_element_is_covered_once(vectors):
    for rows in (*range(1, 130), 1000):
        cycles, pieces = cover(rows, vectors)
        times = np.zeros((rows + MOST_RUN_ROWS, vectors), int)
        for which, row, vector in pieces:
            count, width = RUN_TILES[which]
            assert row < rows and vector + width <= vectors
            times[row : row + count, vector : vector + width] += 1
        assert (times[:rows] == 1).all() and times.max() == 1
        assert cycles >= rows * vectors / 2
        if rows >= 6:
            assert times.sum() <= 1.34 * rows * vectors, "tiles of rows that nobody needs"


@pytest.mark.parametrize("described, registers", [(AVX512, 32), (AVX2, 16), (SSE2, 16), (NEON, 32)])
def test_tiles_fit_the_register_file(described: Isa, registers: int) -> None:
    for width, sizes in enumerate(described.run_rows, 1):
        assert sorted(sizes) == list(sizes)
        assert sizes[-1] * width + width + 1 <= registers, "sums, a row of columns, a broadcast value"
