"""Vector instruction sets: detection, and the same results from narrower ones."""

from __future__ import annotations

import os

import numpy as np
import pytest

from numbanet.cpu import isa
from numbanet.cpu.isa import AVX2, AVX512, NEON, SSE2
from numbanet.cpu.simd import numpy_lanes
from tests.processes import run_python


@pytest.mark.parametrize(
    "triple, features, expected",
    [
        ("x86_64-unknown-linux-gnu", "", SSE2),
        ("x86_64-unknown-linux-gnu", "sse4.2 avx", SSE2),
        ("x86_64-unknown-linux-gnu", "avx avx2", SSE2),  # no fma
        ("x86_64-unknown-linux-gnu", "avx avx2 fma", AVX2),
        ("x86_64-pc-windows-msvc", "avx2 fma avx512f", AVX2),  # Knights Landing lacks the rest
        ("x86_64-unknown-linux-gnu", "avx2 fma avx512f avx512dq avx512vl avx512bw", AVX512),
        ("aarch64-unknown-linux-gnu", "neon", NEON),
        ("arm64-apple-darwin22", "neon", NEON),
        ("riscv64-unknown-linux-gnu", "", SSE2),
    ],
)
def test_choice(triple: str, features: str, expected: isa.Isa, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isa, "target", lambda: (triple, "cpu", frozenset(features.split())))
    assert isa.host_isa.__wrapped__() == expected


@pytest.mark.parametrize("described, registers", [(AVX512, 32), (AVX2, 16), (SSE2, 16), (NEON, 32)])
def test_tiles_fit_the_register_file(described: isa.Isa, registers: int) -> None:
    assert described.tile_vectors == len(described.tile_rows)
    for width, rows in enumerate(described.tile_rows, 1):
        assert rows * width + width + 1 <= registers, "accumulators, one row of the other operand, a broadcast value"


def test_features_come_from_numba() -> None:
    triple, cpu, features = isa.target()
    assert triple and cpu and all(not feature.startswith(("+", "-")) for feature in features)


CODE = """
import numpy as np
import numbanet as nnet
from numbanet.cpu.isa import host_isa
from numbanet.cpu.simd import numpy_lanes
def some_operations(x):
    parameter, mean = np.ones_like(x), np.ones_like(x)
    nnet.ops.adam_step(parameter, x, mean, np.ones_like(x), step=1)
    norm = np.array(nnet.ops.vector_norm(x))
    return nnet.ops.relu(x), nnet.ops.gelu(x), nnet.ops.add(x, x), norm, parameter, mean
rng = np.random.default_rng(0)
for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
    for size in (1, 3, 4, 5, 15, 16, 17, 33):
        x = rng.standard_normal((2, size)).astype(dtype)
        found = some_operations(x)
        with nnet.use("reference"):
            expected = some_operations(x)
        for f, e in zip(found, expected):
            assert np.abs(f - e).max() <= tolerance * np.abs(e).max(), (dtype, size)
print(host_isa().name, numpy_lanes("float32"), numpy_lanes("float64"))
"""


@pytest.mark.skipif(isa.host_isa() is NEON, reason="x86 only")
@pytest.mark.parametrize(
    "cpu, features, expected",
    [("x86-64", "", "sse2 4 2"), ("x86-64", "+avx,+avx2,+fma", "avx2 8 4"), (None, None, None)],
)
def test_narrower_sets_give_the_same_results(cpu: str | None, features: str | None, expected: str | None) -> None:
    if cpu and "avx2" in (features or "") and isa.host_isa() is SSE2:
        pytest.skip("this CPU has no AVX2")
    if cpu is None:  # what this process is told to compile for
        cpu, features = os.environ.get("NUMBA_CPU_NAME"), os.environ.get("NUMBA_CPU_FEATURES")
    found = run_python(CODE, NUMBA_CPU_NAME=cpu, NUMBA_CPU_FEATURES=features)
    host = isa.host_isa()
    assert found == (expected or f"{host.name} {host.vector_bytes // 4} {host.vector_bytes // 8}")


def test_numpy_lanes() -> None:
    assert numpy_lanes(np.float32) == 2 * numpy_lanes("float64") == isa.host_isa().vector_bytes // 4


GUARDS = """
import numpy as np
import numbanet as nnet
from numbanet import dispatch, memory
from numbanet.cpu import conv_winograd, conv_winograd_weight
from numbanet.problem.conv import conv2d_problem
PAD, blocks = 192, []
class Phases:
    # What memory.empty may return for a small block: aligned to 16 bytes only. Guards stand after it.
    def __getattr__(self, name):
        return getattr(memory, name)
    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        raw = np.full(size + PAD, 0xAB, np.uint8)
        begin = (phase - raw.ctypes.data) % 64
        blocks.append(raw[begin + size:])
        block = raw[begin : begin + size].view(dtype).reshape(shape)
        block[...] = np.nan if block.dtype.kind == "f" else -1
        return block
conv_winograd.memory = conv_winograd_weight.memory = Phases()
rng = np.random.default_rng(0)
nnet.set_num_threads(1)
for phase in (0, 16, 32, 48):
    for which in ("forward", "backward_input", "backward_weight"):
        for c, k, r, name in ((64, 64, 3, ""), (128, 32, 3, ""), (64, 64, 3, "_f2"), (64, 64, 5, "_5x5")):
            p = conv2d_problem(which, (1, c, 8, 8), (k, c, r, r), "float32", 1, r // 2)
            x, w, y = (rng.standard_normal(s).astype("f4") for s in ((1, 8, 8, c), (k, r, r, c), (1, 8, 8, k)))
            (chosen,) = [t for t in dispatch.candidates("cpu", "conv2d", which) if t.name == "cpu.winograd" + name]
            if which == "forward":
                chosen.run(p, (x, chosen.prepare(p, w), None, None), (y,), None)
            elif which == "backward_input":
                chosen.run(p, (y, chosen.prepare(p, w)), (x,), None)
            else:
                chosen.run(p, (x, y), (w,), None)
            assert all((guard == 0xAB).all() for guard in blocks), (phase, which, c, k)
            blocks.clear()
print("whole")
"""


@pytest.mark.skipif(isa.host_isa() is NEON, reason="x86 only")
def test_work_buffers_of_any_alignment_suffice() -> None:
    assert run_python(GUARDS, NUMBA_CPU_NAME="x86-64", NUMBA_CPU_FEATURES="") == "whole"
