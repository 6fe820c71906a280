"""The interpreter finds what is wrong with a kernel, and computes what a GPU would."""

import re

import numpy as np
import pytest

from numbanet.cuda import ptx
from numbanet.cuda.compile import BF16, F32, I32, Int, Kernel, kernel
from numbanet.cuda.ptx import cuda, types
from tests.cuda.ptx.executor import interpret
from tests.cuda.ptx.memory import Fault

copy_wait0 = ptx.copy_wait(0)
copy_wait1 = ptx.copy_wait(1)
rng = np.random.default_rng(0)


@kernel(threads=64)
def reverse(size: Int, x: F32, y: F32):
    """Reverse each block's 64 numbers through shared memory."""
    shared = cuda.shared.array(64, types.float32)
    t = types.int32(cuda.threadIdx.x)
    i = types.int32(cuda.blockIdx.x * 64 + t)
    if i < size:
        shared[t] = x[i]
    cuda.syncthreads()
    if i < size:
        y[i] = shared[types.int32(63 - t)]


@kernel(threads=32)
def product_tf32(a: F32, b: F32, c: F32):
    """c (16 x 8) = a (16 x 8) b (8 x 8), by one warp."""
    lane = types.int32(cuda.threadIdx.x)
    g, q = types.int32(lane // 4), types.int32(lane % 4)
    left = (
        ptx.round_tf32(a[g * 8 + q]), ptx.round_tf32(a[(g + 8) * 8 + q]),
        ptx.round_tf32(a[g * 8 + q + 4]), ptx.round_tf32(a[(g + 8) * 8 + q + 4]),
    )  # fmt: skip
    right = ptx.round_tf32(b[q * 8 + g]), ptx.round_tf32(b[(q + 4) * 8 + g])
    zero = types.float32(0)
    out = ptx.multiply_tf32(left, right, (zero, zero, zero, zero))
    ptx.store2(c, types.int32(g * 8 + 2 * q), (out[0], out[1]))
    ptx.store2(c, types.int32((g + 8) * 8 + 2 * q), (out[2], out[3]))


@kernel(threads=32)
def product_bf16(a: BF16, b: BF16, c: F32):
    """c (16 x 8) = a (16 x 16) b^T (8 x 16): fragments by ldmatrix, tiles by asynchronous copies."""
    tile = cuda.shared.array(16 * 16 + 8 * 16, types.uint16, alignment=128)
    start = ptx.shared_address(tile)
    lane = types.int32(cuda.threadIdx.x)
    ptx.copy_async16(types.int32(start + lane * 16), a, types.int32(lane * 8), types.int32(16))
    ptx.copy_commit()
    if lane < 16:
        ptx.copy_async16(types.int32(start + 512 + lane * 16), b, types.int32(lane * 8), types.int32(16))
    ptx.copy_commit()
    copy_wait0()
    cuda.syncthreads()
    row, half = types.int32(lane % 16), types.int32(lane // 16)
    left = ptx.load_matrices(types.int32(start + row * 32 + half * 16))
    # Two matrices are enough for b; the others repeat them.
    right = ptx.load_matrices(types.int32(start + 512 + lane % 8 * 32 + lane // 8 % 2 * 16))
    zero = types.float32(0)
    out = ptx.multiply_bf16(left, (right[0], right[1]), (zero, zero, zero, zero))
    g, q = types.int32(lane // 4), types.int32(lane % 4)
    ptx.store2(c, types.int32(g * 8 + 2 * q), (out[0], out[1]))
    ptx.store2(c, types.int32((g + 8) * 8 + 2 * q), (out[2], out[3]))


@kernel(threads=64)
def warp_sums(x: F32, y: F32):
    """Sum each warp's numbers."""
    t = types.int32(cuda.threadIdx.x)
    value = x[t]
    for step in (16, 8, 4, 2, 1):
        value += ptx.shuffle_bfly(value, types.int32(step))
    y[t] = value


@kernel(threads=64)
def collatz(x: I32, y: I32):
    """Count Collatz steps: the threads of a warp part and meet."""
    t = types.int32(cuda.threadIdx.x)
    value, steps = x[t], types.int32(0)
    while value != 1:
        if value % 2 == 0:
            value = types.int32(value // 2)
        else:
            value = types.int32(3 * value + 1)
        steps = types.int32(steps + 1)
    y[t] = steps


def run(kernel: Kernel, *arguments: object, grid: int = 1, change: tuple[str, str] | None = None) -> None:
    text = kernel.ptx("float32", (8, 0))
    if change is not None:
        assert change[0] in text
        text = text.replace(change[0], change[1], 1)
    interpret(text, (grid, 1, 1), kernel.threads, arguments, kernel.shared_bytes)


def bfloat16(values: np.ndarray) -> np.ndarray:
    return (values.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def test_shared_memory_and_blocks() -> None:
    x, y = rng.standard_normal(128).astype(np.float32), np.full(128, np.nan, np.float32)
    run(reverse, 128, x, y, grid=2)
    assert np.array_equal(y, x.reshape(2, 64)[:, ::-1].reshape(-1))


def test_a_missing_barrier_is_found() -> None:
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    text = re.sub(r"bar\.sync\s+0;", "", reverse.ptx())
    assert text != reverse.ptx()
    with pytest.raises(Fault, match="before anybody wrote|race"):
        interpret(text, (1, 1, 1), 64, (64, x, y))


def test_an_access_outside_of_a_buffer_is_found() -> None:
    x, y = np.ones(100, np.float32), np.ones(100, np.float32)
    with pytest.raises(Fault, match="outside"):
        run(reverse, 128, x, y, grid=2)


def test_shared_memory_that_nobody_wrote_is_found() -> None:
    x, y = np.ones(100, np.float32), np.ones(100, np.float32)
    with pytest.raises(Fault, match="before anybody wrote"):  # the last block holds 36 numbers and reads all 64
        run(reverse, 100, x, y, grid=2)


def test_a_read_only_buffer_stays_as_it_is() -> None:
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    y.flags.writeable = False
    with pytest.raises(Fault, match="read-only"):
        run(reverse, 64, x, y)


def test_tf32_product() -> None:
    a, b = rng.standard_normal((16, 8)).astype(np.float32), rng.standard_normal((8, 8)).astype(np.float32)
    c = np.full((16, 8), np.nan, np.float32)
    run(product_tf32, a, b, c)
    error = np.abs(c - a.astype(np.float64) @ b).max()
    assert 1e-5 < error < 4e-3  # ten bits of fraction: worse than float32, and no worse than that


def test_bf16_product_through_ldmatrix_and_asynchronous_copies() -> None:
    a, b = bfloat16(rng.standard_normal((16, 16))), bfloat16(rng.standard_normal((8, 16)))
    c = np.full((16, 8), np.nan, np.float32)
    run(product_bf16, a, b, c)
    wide = [(v.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64) for v in (a, b)]
    assert np.abs(c - wide[0] @ wide[1].T).max() < 1e-5


@pytest.mark.parametrize(
    "change", [("cp.async.wait_group 0;", ""), ("cp.async.wait_group 0;", "cp.async.wait_group 1;")]
)
def test_a_copy_that_nobody_waited_for_is_found(change: tuple[str, str]) -> None:
    a, b, c = np.zeros((16, 16), np.uint16), np.zeros((8, 16), np.uint16), np.zeros((16, 8), np.float32)
    with pytest.raises(Fault, match="before anybody wrote"):
        run(product_bf16, a, b, c, change=change)


def test_shuffles() -> None:
    x, y = rng.standard_normal(64).astype(np.float32), np.full(64, np.nan, np.float32)
    run(warp_sums, x, y)
    assert np.allclose(y.reshape(2, 32), x.reshape(2, 32).sum(1, keepdims=True), rtol=1e-5)


def test_divergence() -> None:
    x, y = np.arange(1, 65, dtype=np.int32), np.full(64, -1, np.int32)
    run(collatz, x, y)
    assert y[:7].tolist() == [0, 1, 7, 2, 5, 8, 16] and y[26] == 111


def test_unknown_instructions_and_modifiers_are_errors() -> None:
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    with pytest.raises(NotImplementedError, match="PTX"):
        run(reverse, 64, x, y, change=("ld.global.f32", "ld.global.cv.f32"))
    with pytest.raises(NotImplementedError, match="PTX"):
        run(reverse, 64, x, y, change=("st.global.f32", "wonder.global.f32"))


def test_a_register_that_nobody_wrote_is_found() -> None:
    x, y = np.ones(64, np.float32), np.ones(64, np.float32)
    text = reverse.ptx()
    line = next(line for line in text.splitlines() if "ld.global.f32" in line)
    with pytest.raises(Fault, match="before it was written"):
        run(reverse, 64, x, y, change=(line, ""))
