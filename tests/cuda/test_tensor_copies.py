"""Convolutions whose operands the copy engine brings (TMA), interpreted, against the definition in float64."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.candidate import Candidate
from numbanet.cuda import launch, tma_tile
from numbanet.cuda.compile import Kernel
from numbanet.cuda.conv_tma_kernels import conv_tma
from numbanet.cuda.gpu import Gpu
from numbanet.cuda.tensor_map import Box, Pixels
from numbanet.problem.base import Problem
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem
from numbanet.reference import conv as reference
from tests.cases import ConvCase
from tests.cuda.fake import FakeDriver
from tests.cuda.products import COPIED, TENSOR, WARPGROUPS, operand_dtype
from tests.cuda.ptx.executor import Interpreter
from tests.cuda.ptx.memory import Fault
from tests.cuda.ptx.tensor import refusal
from tests.cuda.rounding import rounded
from tests.cuda.test_conv import PASSES, arguments, named, operands, problem

HOPPER = Interpreter((9, 0, "a"))
SMALL = "3x3, padding 2 above and 1 to the left"
CASES = {case.name: case for case in [
    *named(SMALL),
    ConvCase("tall", 3, 6, 7, 9, 8, 3, 2, padding=1),  # blocks that begin and end within an image
    ConvCase("strided", 2, 12, 9, 8, 10, 3, 3, stride=(2, 3), padding=(1, 2), dilation=(1, 2)),
    ConvCase("groups", 1, 128, 4, 4, 128, 2, 3, padding=1, groups=2),
    ConvCase("odd groups", 3, 20, 5, 6, 14, 2, 1, padding=1, groups=2),  # a block of columns with two groups' channels
    ConvCase("wide", 1, 10, 4, 4, 132, 1, 1, stride=2),  # taps that miss most pixels, columns beyond a tile
]}  # fmt: skip


def candidate(p: Problem) -> Candidate:
    (found,) = [c for c, reason in dispatch.verdicts(p, "cuda") if c.name == "cuda.wgmma_tma" and reason is None]
    return found


def without_ties(x: np.ndarray) -> np.ndarray:
    """Return numbers that no rounding to fewer digits finds in the middle."""
    return (x.view(np.uint32) | np.uint32(1)).view(np.float32)


def close(found: np.ndarray, expected: np.ndarray, reduction: int) -> None:
    assert np.abs(found - expected).max() <= 3e-6 * np.sqrt(reduction / 1000 + 1) * np.abs(expected).max()


@pytest.mark.parametrize(("kind", "which", "name"), [
    ("bf16", "forward", "tall"), ("bf16", "forward", "strided"), ("bf16", "backward_input", "strided"),
    ("bf16", "forward", "groups"), ("bf16", "backward_input", "wide"), ("tf32", "forward", "strided"),
    ("tf32", "backward_input", "groups"), ("tf32", "forward", "wide"),
    ("fp16", "forward", "strided"), ("fp16", "backward_weight", "strided"), ("bf16", "backward_weight", "odd groups"),
])  # fmt: skip
def test_convolutions(kind: str, which: str, name: str) -> None:
    p = problem(CASES[name], which)
    inputs, like = arguments(p, operands(p, name))
    inputs = tuple(None if v is None else without_ties(v) for v in inputs)
    out = np.full_like(like, np.nan)
    with launch.executor(HOPPER), nnet.precision(kind):
        candidate(p).run(p, inputs, (out,), None)
    close(out, getattr(reference, which)(p, *[None if v is None else rounded(v, kind) for v in inputs]), p.reduction)


@pytest.mark.parametrize(("kind", "a_rows", "b_rows"), [
    ("tf32", True, False), ("tf32", False, True), ("bf16", False, True),
])  # fmt: skip
def test_matrices(kind: str, a_rows: bool, b_rows: bool) -> None:
    m, n, k = 70, 132, 41
    rng = np.random.default_rng(n)
    a, b = (without_ties(rng.standard_normal(shape).astype(np.float32)) for shape in ((m, k), (k, n)))
    p = MatmulProblem("forward", "float32", m, n, k, a_rows, b_rows)
    inputs = a if a_rows else np.ascontiguousarray(a.T), b if b_rows else np.ascontiguousarray(b.T), None, None
    out = np.full((m, n), np.nan, np.float32)
    with launch.executor(HOPPER), nnet.precision(kind):
        candidate(p).run(p, inputs, (out,), None)
    close(out, rounded(a, kind) @ rounded(b, kind), k)


def test_a_stack_of_matrices() -> None:
    """What lies beyond the end of the reduction is the next matrix of the stack, and here not a number."""
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 9), (2, 9, 7)))
    a[2], b[1] = np.nan, np.nan
    index = np.array([[0, 1, 1], [0, 0, 0]])
    p = MatmulProblem("forward", "float32", 5, 7, 9, True, True, batch=3)
    out = np.full((3, 5, 7), np.inf, np.float32)
    with launch.executor(HOPPER), nnet.precision("bf16"):
        candidate(p).run(p, (a, b, None, None, index), (out,), None)
    close(out, rounded(a, "bf16")[index[0]] @ rounded(b, "bf16")[index[1]], 9)


def test_an_epilogue_of_a_cut_reduction() -> None:
    p = problem(ConvCase("cut", 1, 64, 3, 3, 18, 3, 3, padding=1), "forward", epilogue=Epilogue(True, True, "relu6"))
    a = operands(p, "cut")
    out, x = np.full_like(a["y"], np.nan), 8 * a["x"]
    with launch.executor(HOPPER), nnet.precision("bf16"):
        candidate(p).run(p, (x, a["weight"], a["bias"], a["y"]), (out,), None)
    wide = [v.astype(np.float64) for v in (a["bias"], a["y"])]
    close(out, reference.forward(p, rounded(x, "bf16"), rounded(a["weight"], "bf16"), *wide), p.reduction)


def test_not_a_number_stays_in_its_window() -> None:
    """Lines are filled up with zeros beyond the channels of a group, and images with zeros beyond their borders."""
    p = problem(ConvCase("nan", 2, 40, 4, 4, 8, 3, 3, padding=1), "forward")
    a = operands(p, "nan")
    a["x"][1, 0, 0, 39] = np.nan
    out = np.full_like(a["y"], np.inf)
    with launch.executor(HOPPER), nnet.precision("tf32"):
        candidate(p).run(p, (a["x"], a["weight"], None, None), (out,), None)
    assert np.isnan(out[1, :2, :2]).all() and np.isnan(out).sum() == 4 * p.k and np.isfinite(out[0]).all()


def test_it_goes_first_where_it_can() -> None:
    layer = ConvCase("layer", 32, 256, 28, 28, 256, 3, 3, padding=1)
    problems = [problem(layer, which) for which in PASSES]
    problems += [MatmulProblem("forward", "float32", 4096, 4096, 4096, True, b_rows) for b_rows in (False, True)]
    for precision, count in (("bf16", 5), ("tf32", 4)):
        with launch.executor(HOPPER), nnet.precision(precision):
            chosen = [dispatch.choose(p, "cuda").name for p in problems]
            reasons = [{c.name: said for c, said in dispatch.verdicts(p, "cuda")}["cuda.wgmma_tma"] for p in problems]
        assert chosen.count("cuda.wgmma_tma") == count == reasons.count(None)
        assert all(reason is None or "contiguous along the reduction" in reason for reason in reasons)


@pytest.mark.parametrize(("changes", "reason"), [
    ({"stride": 9}, "a stride above 8"),
    ({"r": 3, "s": 3, "dilation": 128, "h": 300, "w": 300}, "reaches further than 255 pixels"),
    ({"padding": 129}, "padding or a filter beyond 127 pixels"),
    ({"groups": 2}, "groups whose channels are no multiple of 64"),
])  # fmt: skip
def test_it_says_what_it_refuses(changes: dict[str, int], reason: str) -> None:
    sizes = {"n": 1, "c": 8, "h": 20, "w": 20, "k": 8, "r": 1, "s": 1, **changes}
    if sizes.get("groups") == 2:
        sizes["c"] = 80
    p = problem(ConvCase("refused", **sizes), "forward")
    with launch.executor(HOPPER), nnet.precision("bf16"):
        assert reason in {c.name: said for c, said in dispatch.verdicts(p, "cuda")}["cuda.wgmma_tma"]
    for capability in ((8, 0), (9, 0), (10, 0, "a")):
        with launch.executor(Interpreter(capability)), nnet.precision("bf16"):
            assert "9.0" in {c.name: said for c, said in dispatch.verdicts(p, "cuda")}["cuda.wgmma_tma"]


def test_columns_beyond_a_grid_are_left_to_others() -> None:
    for n, fits in ((64 * 65535, True), (64 * 65535 + 1, False)):
        p = MatmulProblem("forward", "float32", 1, n, 1, True, True)
        with launch.executor(HOPPER), nnet.precision("bf16"):
            said = {c.name: reason for c, reason in dispatch.verdicts(p, "cuda")}
            assert said["cuda.wgmma_tma"] == (None if fits else "the result has more than 4194240 columns")
            assert said["cuda.mma"] is None


def test_tiles_waste_little() -> None:
    assert [tma_tile.fitting(k).columns for k in (1, 64, 65, 128, 129, 192, 256, 320, 512)] == [
        64, 64, 128, 128, 64, 64, 256, 64, 256
    ]  # fmt: skip


def test_rules_of_the_driver() -> None:
    box = Box("uint16", (64, 9, 64), (128, 1152), (64, 1, 64))
    pixels = Pixels("tf32", (32, 7, 7, 2), (-1, -1), (-1, -1), (1, 1), 128)
    assert refusal(box, 256) is None and refusal(pixels, 256) is None
    assert "address" in str(refusal(box, 8))
    assert "strides" in str(refusal(Box("uint16", (60, 9, 64), (120, 1080), (64, 1, 64)), 256))
    assert "box" in str(refusal(Box("uint16", (64, 9, 64), (128, 1152), (64, 1, 257)), 256))
    assert "pixels" in str(refusal(Pixels("tf32", (32, 7, 7, 2), (1, 1), (-6, -6), (1, 1), 128), 256))


def without(pattern: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, "", text)


def waiting_at_once(number: int) -> Callable[[str], str]:
    """Let one of the waits for a barrier succeed at once."""

    def change(text: str) -> str:
        match = list(re.finditer(r"mbarrier\.try_wait[^;]*;", text))[number]
        return text[: match.start()] + "setp.eq.u32 p, 0, 0;" + text[match.end() :]

    return change


def replaced(pattern: str, by: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, by, text)


def half_of_the_consumers(text: str) -> str:
    """Let one warpgroup alone hand stages back, and the producer wait for it alone: the other may be later."""
    guarded = r"{ .reg .pred q; setp.lt.u32 q, %tid.x, 256; @q \g<0> }"
    return re.sub(r"(mov.u32\s+%r\d+, )8;", r"\g<1>4;", re.sub(r"mbarrier\.arrive\.shared[^;]*;", guarded, text))


@pytest.mark.parametrize(("change", "message"), [
    (waiting_at_once(0), "before anybody wrote"),
    (waiting_at_once(1), "did not wait for it"),
    (waiting_at_once(2), "more arrivals|another is on its way|a product that is under way"),
    (without(r"bar\.sync\s+0;"), "race"),
    (without(r"fence\.proxy\.tensormap[^;]*;"), "without a fence"),
    (without(r"fence\.mbarrier_init[^;]*;"), "initialised without a fence"),
    (replaced(r"wgmma\.wait_group\.sync\.aligned 1;", "wgmma.wait_group.sync.aligned 2;"), "a product that is under"),
    (without(r"wgmma\.wait_group\.sync\.aligned 1;"), "a product that is under way"),
    (without(r"wgmma\.wait_group\.sync\.aligned 0;"), "under way"),
    (without(r"wgmma\.fence\.sync\.aligned;"), "without wgmma.fence"),
    (replaced("inc.sync.aligned.u32 104", "inc.sync.aligned.u32 112"), "more registers than the block has"),
    (replaced(r"(mov.u32\s+%r\d+, )24576;", r"\g<1>16384;"), "8192 bytes more than the phase"),
    (replaced(r"(mov.u32\s+%r\d+, )24576;", r"\g<1>32768;"), "deadlock.*8192 bytes missing"),
    (replaced(r"(mov.u32\s+%r\d+, )8;", r"\g<1>7;"), "before anybody saw the end"),
    (replaced(r"(mov.u32\s+%r\d+, )8;", r"\g<1>9;"), "deadlock.*1 arrivals"),
    (without(r"mbarrier\.arrive\.shared[^;]*;"), "deadlock.*8 arrivals"),
    (half_of_the_consumers, "has not handed it back"),
], ids=[
    "no wait for copies", "no second wait for copies", "no wait for consumers", "no barrier", "no fence of maps",
    "no fence of barriers", "a loose wait", "no wait", "no last wait", "no fence", "too many registers",
    "too few bytes", "too many bytes", "an arrival too few", "an arrival too many", "no arrival",
    "arrivals of half of the consumers",
])  # fmt: skip
def test_broken_kernels_are_caught(change: Callable[[str], str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(CASES[SMALL], "forward")
    inputs, like = arguments(p, operands(p, SMALL))
    kernel, key = conv_tma("bf16", tma_tile.TILES[0], True, Epilogue()), ("float32", (9, 0, "a"))
    text = kernel.ptx(*key)
    assert change(text) != text
    monkeypatch.setitem(kernel._ptx, key, change(text))
    with launch.executor(HOPPER), nnet.precision("bf16"), pytest.raises(Fault, match=message):
        candidate(p).run(p, inputs, (np.full_like(like, np.nan),), None)


def test_a_ring_begins_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamic shared memory begins at a multiple of 16 bytes, stages at one of 1024."""
    p = problem(CASES[SMALL], "forward")
    inputs, like = arguments(p, operands(p, SMALL))
    kernel = conv_tma("bf16", tma_tile.TILES[0], True, Epilogue())
    for size, message in ((kernel.shared_bytes - 1024, "out of bounds"), (228 << 10, "a block has at most")):
        monkeypatch.setattr(kernel, "shared_bytes", size)
        with launch.executor(HOPPER), nnet.precision("bf16"), pytest.raises(Fault, match=message):
            candidate(p).run(p, inputs, (np.full_like(like, np.nan),), None)


@pytest.mark.parametrize("kernel", [COPIED[0], COPIED[4], WARPGROUPS[2], TENSOR[0]], ids=lambda kernel: kernel.name)
def test_the_compiler_knows_what_warps_do_together(kernel: Kernel) -> None:
    dtype = operand_dtype(kernel) if kernel.name.startswith("conv_mma") else "float32"
    text = kernel._library(dtype, (9, 0, "a")).get_llvm_str()
    calls = [line for line in text.splitlines() if " asm " in line and ".sync" in line]
    assert calls and all(line.endswith("convergent") for line in calls)
    last_wait = [line for line in calls if "wgmma.wait_group.sync.aligned 0" in line and '"=f' in line]
    assert len(last_wait) == (kernel not in TENSOR)  # it returns the results: nobody can read them before


def test_a_driver_encodes_each_map_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    driver = FakeDriver((9, 0))
    gpu = Gpu(0, driver.core, driver)
    p = problem(CASES[SMALL], "forward")
    (x, weight, _, _), like = arguments(p, operands(p, SMALL))
    expected = reference.forward(p, rounded(x, "bf16"), rounded(weight, "bf16"), None, None)
    with launch.executor(gpu), nnet.precision("bf16"):
        inputs, y = (launch.upload(x), launch.upload(weight), None, None), launch.empty(like.shape, "float32")
        for _ in range(3):  # packed operands come to the same places
            candidate(p).run(p, inputs, (y,), None)
        assert driver.calls.count("map") == 2
        close(y.to_host(), expected, p.reduction)
        launches: list[launch.Launch] = []
        with launch.recording(launches):
            candidate(p).run(p, inputs, (y,), None)
        driver.cuMemcpyHtoDAsync(y.pointer, np.full_like(like, np.nan).ctypes.data, like.nbytes, 77)
        recording = launch.Recording(launches)
        for _ in range(2):
            recording.run()
        assert driver.calls.count("graph") == 2
        close(y.to_host(), expected, p.reduction)
