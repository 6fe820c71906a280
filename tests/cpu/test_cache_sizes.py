"""The sizes of caches as systems tell them, and the sizes of blocks that follow from them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.cpu import conv_band_weight, conv_direct, conv_weight, winograd_plan
from numbanet.cpu.cache_sizes import Caches, linux_caches, macos_caches
from numbanet.problem.conv import conv2d_problem
from tests.cases import ConvCase, forget_plans, operands
from tests.processes import run_python

KIB, MIB = 1 << 10, 1 << 20
ZEN4 = ["1 Data 32K 0", "1 Instruction 32K 0", "2 Unified 1024K 0", "3 Unified 32768K 0-1"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (ZEN4, Caches(32 * KIB, MIB, 32 * MIB)),
        (["1 Data 32K 0,24", "2 Unified 1024K 0,24", "3 Unified 36608K 0-47"], Caches(32 * KIB, MIB, 36608 * KIB)),
        (["1 Data 48K 0-1", "2 Unified 2M 0-1", "3 Unified 24M 0-15"], Caches(48 * KIB, 2 * MIB, 24 * MIB)),
        (["1 Data 32K 0", "2 Unified 2048K 0-3", "3 Unified 8M 0-7"], Caches(32 * KIB, 512 * KIB, 8 * MIB)),
        (["1 Data 64K 0", "2 Unified 1024K 0"], Caches(64 * KIB, MIB, MIB)),
        (["1 Data 64K 0", "2 Unified 4096K 0-3,7"], Caches(64 * KIB, 4096 * KIB // 5, 4 * MIB)),
        (["1 Data many 0", "2 Unified 512K 0"], Caches(32 * KIB, 512 * KIB, 512 * KIB)),
        (["1 Data 32K 0"], Caches()),
        ([], Caches()),
    ],
)
def test_linux(told: list[str], expected: Caches, tmp_path: Path) -> None:
    for number, line in enumerate(told):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), line.split()):
            (folder / name).write_text(value + "\n")
    assert linux_caches(tmp_path) == expected


def test_linux_that_tells_half_of_it(tmp_path: Path) -> None:
    (tmp_path / "index0").mkdir()
    assert linux_caches(tmp_path) == linux_caches(tmp_path / "none") == Caches()


def test_macos() -> None:
    apple = {
        "hw.perflevel0.l1dcachesize": 128 * KIB, "hw.perflevel0.l2cachesize": 12 * MIB, "hw.perflevel0.cpusperl2": 4,
        "hw.l1dcachesize": 64 * KIB, "hw.l2cachesize": 4 * MIB,
    }  # fmt: skip
    assert macos_caches(lambda name: apple.get(name, 0)) == Caches(128 * KIB, 3 * MIB, 12 * MIB)
    intel = {"hw.l1dcachesize": 32 * KIB, "hw.l2cachesize": 256 * KIB, "hw.l3cachesize": 8 * MIB}
    assert macos_caches(lambda name: intel.get(name, 0)) == Caches(32 * KIB, 256 * KIB, 8 * MIB)
    assert macos_caches(lambda name: 0) == Caches()


CODE = """
import sys
from numbanet.cpu import cache_sizes
cache_sizes.caches = lambda: cache_sizes.Caches(*map(int, sys.argv[1:]))
from numbanet.cpu import conv_band_weight, conv_direct, conv_weight, matmul_outer, stream, winograd_plan
width = conv_weight._WIDTH
print(
    conv_direct._REDUCTION, conv_direct._SOURCE_BYTES, conv_direct._WEIGHT_BYTES,
    conv_weight._PIXELS == min(160, 5120 // width), conv_weight._BLOCK_BYTES, conv_band_weight._NUMBERS,
    matmul_outer._BLOCK, stream._LARGE, winograd_plan._BLOCK_TILES,
)
"""


def test_blocks_follow_from_the_caches() -> None:
    measured = run_python(CODE, str(32 * KIB), str(MIB), str(32 * MIB))
    assert measured == (
        f"512 {1 << 19} {3 << 18} True {1 << 19} 6144 256 {1 << 24} ({(1 << 20, 24, 32)}, {(1 << 22, 32, 48)}, "
        f"{(1 << 62, 48, 64)})"
    )


@pytest.mark.parametrize("share", [1 / 8, 8], ids=["small", "large"])
def test_blocks_of_other_sizes_give_the_right_results(
    share: float, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytes_ = int(MIB * share)
    tiles = ((bytes_, 24, 32), (4 * bytes_, 32, 48), (1 << 62, 48, 64))
    for module, name, value in (
        (conv_direct, "_REDUCTION", min(512, int(512 * share))),
        (conv_direct, "_SOURCE_BYTES", bytes_ // 2),
        (conv_direct, "_WEIGHT_BYTES", bytes_ // 4 * 3),
        (conv_weight, "_PIXELS", max(8, min(conv_weight._LONG, int(conv_weight._PIXELS * share)))),
        (conv_weight, "_BLOCK_BYTES", bytes_ // 2),
        (conv_band_weight, "_NUMBERS", int(6144 * share)),
        (winograd_plan, "_BLOCK_TILES", tiles),
    ):
        monkeypatch.setattr(module, name, value)
    case = ConvCase("blocks", 2, 150, 23, 21, 141, 3, 3, padding=1)
    x, weight, _ = operands(case, rng)
    grad = rng.standard_normal((2, 141, 23, 21))

    def passes(x: np.ndarray, weight: np.ndarray, grad: np.ndarray, which: str) -> np.ndarray:
        if which == "forward":
            return nnet.ops.conv2d(x, weight, padding=1)
        if which == "backward_input":
            return nnet.ops.conv2d_backward_input(grad, weight, x.shape, padding=1)
        return nnet.ops.conv2d_backward_weight(x, grad, weight.shape, padding=1)

    with nnet.use("reference"):
        exact = {w: passes(x, weight, grad, w) for w in ("forward", "backward_input", "backward_weight")}
    single = [a.astype(np.float32) for a in (x, weight, grad)]
    try:
        for which, expected in exact.items():
            problem = conv2d_problem(which, x.shape, weight.shape, "float32", padding=1)
            for candidate, refusal in dispatch.verdicts(problem, "cpu"):
                if refusal is None and candidate.name != "reference":
                    forget_plans()
                    with nnet.use(candidate.name):
                        error = np.abs(passes(*single, which) - expected).max() / np.abs(expected).max()
                    assert error <= candidate.tolerance(problem), (candidate.name, which)
    finally:
        forget_plans()
