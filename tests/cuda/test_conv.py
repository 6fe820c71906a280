"""The GPU's convolutions, interpreted, against the definition in float64."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.candidate import Candidate
from numbanet.cpu import winograd_form
from numbanet.cuda import conv_direct, conv_winograd, conv_winograd_weight, split
from numbanet.cuda import winograd as points
from numbanet.cuda.conv_gemm import conv_gemm
from numbanet.cuda.division import divisor
from numbanet.cuda.launch import current, executor
from numbanet.problem.conv import ConvProblem, Epilogue, conv2d_problem
from numbanet.reference import conv as reference
from tests.cases import CONV_CASES, ConvCase
from tests.cuda.ptx.executor import Interpreter
from tests.cuda.ptx.memory import Fault

PASSES = ("forward", "backward_input", "backward_weight")
PLAIN = Epilogue()
# Of these the size alone takes too long: a thread's every instruction costs the interpreter time.
SMALLER = {
    "a filter of many elements": {"h": 12, "w": 13}, "long reduction in several blocks": {"c": 200},
    "many pixels far apart, grouped, stride 2": {"h": 9, "w": 13},
}  # fmt: skip
TABLE = [replace(case, **SMALLER.get(case.name, {})) for case in CONV_CASES]
DOUBLE_CASES = ["asymmetric padding with stride", "groups of odd size", "stride above the filter, grouped"]


def named(*names: str) -> list[ConvCase]:
    found = {case.name: case for case in CONV_CASES}
    return [found[name] for name in names]


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    with executor(Interpreter()):
        yield


def problem(case: ConvCase, which: str, dtype: str = "float32", epilogue: Epilogue = PLAIN) -> ConvProblem:
    return conv2d_problem(which, case.x_shape, case.weight_shape, dtype, **case.options, epilogue=epilogue)


def operands(p: ConvProblem, seed: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    shapes = {"x": (p.n, p.h, p.w, p.c), "weight": (p.k, p.r, p.s, p.cg), "y": (p.n, p.p, p.q, p.k), "bias": (p.k,)}
    return {name: rng.standard_normal(shape).astype(p.dtype) for name, shape in shapes.items()}


def arguments(p: ConvProblem, a: dict[str, np.ndarray]) -> tuple[tuple, np.ndarray]:
    """Return the inputs of a pass, and an array like its result."""
    if p.which == "forward":
        return (a["x"], a["weight"], None, None), a["y"]
    return ((a["y"], a["weight"]), a["x"]) if p.which == "backward_input" else ((a["x"], a["y"]), a["weight"])


def check(p: ConvProblem, candidate: Candidate, inputs: tuple, like: np.ndarray) -> None:
    definition = getattr(reference, p.which)
    expected = definition(p, *[None if v is None else v.astype(np.float64) for v in inputs])
    out = np.full_like(like, np.nan)
    candidate.run(p, inputs, (out,), None)
    error = np.abs(out - expected).max() / np.abs(expected).max()
    assert error <= candidate.tolerance(p), f"{candidate.name}: relative error {error:.1e}"


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_every_kernel(case: ConvCase, which: str) -> None:
    p = problem(case, which)
    a = operands(p, case.name)
    chosen = [c for c, refusal in dispatch.verdicts(p, "cuda") if refusal is None and c.name != "cuda.naive"]
    assert dispatch.choose(p, "cuda") in chosen
    for candidate in chosen:
        check(p, candidate, *arguments(p, a))


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("case", named(*DOUBLE_CASES), ids=str)
def test_float64(case: ConvCase, which: str) -> None:
    p = problem(case, which, "float64")
    assert dispatch.choose(p, "cuda").name == "cuda.naive"
    check(p, dispatch.choose(p, "cuda"), *arguments(p, operands(p, case.name)))


@pytest.mark.parametrize(("case", "dtype"), [
    (ConvCase("whole", 2, 8, 5, 6, 8, 3, 3, padding=1), "float32"),
    (ConvCase("a cut reduction", 1, 33, 3, 3, 9, 3, 3, padding=1), "float32"),
    (ConvCase("depthwise", 1, 8, 5, 6, 8, 3, 3, padding=1, groups=8), "float32"),
    (ConvCase("double", 1, 4, 4, 3, 6, 3, 3, padding=1), "float64"),
], ids=str)  # fmt: skip
def test_an_epilogue(case: ConvCase, dtype: str) -> None:
    p = problem(case, "forward", dtype, Epilogue(True, True, "relu6"))
    a = operands(p, case.name)
    check(p, dispatch.choose(p, "cuda"), (a["x"], a["weight"], 3 * a["bias"], a["y"]), a["y"])


def test_an_activation_keeps_nan() -> None:
    p = problem(ConvCase("nan", 1, 4, 1, 3, 4, 1, 1), "forward", "float32", Epilogue(True, True, "relu6"))
    a = operands(p, "nan")
    a["x"][0, 0, 1, 2] = np.nan
    out = np.zeros_like(a["y"])
    dispatch.choose(p, "cuda").run(p, (a["x"], a["weight"], a["bias"], a["y"]), (out,), None)
    assert np.isnan(out[0, 0, 1]).all() and np.isfinite(out[0, 0, [0, 2]]).all()


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("shift", [0, 1])
def test_groups_of_few_channels(which: str, shift: int) -> None:
    """Each group has 8 channels and 12 filters; where the arrays begin anywhere, an access takes one number."""
    case = ConvCase("few", 2, 24, 7, 8, 36, 3, 2, stride=(2, 1), padding=(2, 1), dilation=(1, 2), groups=3)
    p = problem(case, which)
    shifted = {name: placed(value, shift) for name, value in operands(p, "few").items()}
    (grouped,) = [c for c, reason in dispatch.verdicts(p, "cuda") if c.name == "cuda.grouped" and reason is None]
    assert dispatch.choose(p, "cuda") is grouped
    check(p, grouped, *arguments(p, shifted))


def placed(values: np.ndarray, shift: int) -> np.ndarray:
    """Return a copy that begins so many numbers after a multiple of 64 bytes."""
    room = np.empty(values.size + 16 + shift, values.dtype)
    first = -room.ctypes.data % 64 // values.itemsize + shift
    view = room[first : first + values.size].reshape(values.shape)
    view[...] = values
    return view


def test_winograd_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_winograd, "_LEAST", 3)
    monkeypatch.setattr(conv_winograd, "_CHUNK", 0)
    p = problem(ConvCase("chunks", 2, 4, 6, 9, 8, 3, 3, padding=1), "forward", "float32", Epilogue(True, True, "relu6"))
    a = operands(p, "chunks")
    (winograd,) = [c for c, _ in dispatch.verdicts(p, "cuda") if c.name == "cuda.winograd"]
    check(p, winograd, (a["x"], a["weight"], 3 * a["bias"], a["y"]), a["y"])
    assert sum("transform_input" in name for name in current().launched) == 4


def test_winograd_gradients_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conv_winograd_weight, "_LEAST", 3)
    monkeypatch.setattr(conv_winograd_weight, "_CHUNK", 0)
    case = ConvCase("chunks", 2, 5, 9, 6, 3, 3, 3, padding=(1, 0))
    p = problem(case, "backward_weight")
    (winograd,) = [c for c, _ in dispatch.verdicts(p, "cuda") if c.name == "cuda.winograd"]
    check(p, winograd, *arguments(p, operands(p, "chunks")))
    assert sum("transform_sums" in name for name in current().launched) == 2


def test_the_points_of_winograd_are_those_of_the_cpu() -> None:
    assert (points.A, points.B) == (winograd_form.A, winograd_form.B)


def test_the_precision_decides_about_winograd() -> None:
    for which in PASSES:
        p = conv2d_problem(which, (32, 256, 28, 28), (256, 256, 3, 3), "float32", padding=1)
        assert dispatch.choose(p, "cuda").name == "cuda.winograd"
        with nnet.precision("strict"):
            assert dispatch.choose(p, "cuda").name == "cuda.gemm"


BROKEN = {
    "no barrier": lambda text: re.sub(r"bar\.sync\s+0;", "", text),
    "another buffer": lambda text: re.sub(r"(xor\.b32\s+%r\d+, %r\d+, )1;", r"\g<1>0;", text),
    "a place too many": lambda text: text.replace("setp.lt.s32", "setp.le.s32").replace("setp.ge.s32", "setp.gt.s32"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_kernels_are_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = named("groups of odd size")
    p = problem(case, "forward")
    inputs, like = arguments(p, operands(p, case.name))
    kernel = conv_gemm(False, False, PLAIN)
    text = kernel.ptx()
    broken = BROKEN[name](text)
    assert broken != text
    monkeypatch.setitem(kernel._ptx, ("float32", (8, 0)), broken)
    with pytest.raises((Fault, AssertionError)):
        check(p, conv_direct.CANDIDATES["conv2d", "forward"][0], inputs, like)


def test_operands_that_no_vector_access_may_read() -> None:
    p = problem(ConvCase("misaligned", 1, 4, 3, 3, 4, 3, 3, padding=1), "forward")
    a = operands(p, "misaligned")
    shifted = np.empty(a["x"].size + 1, np.float32)[1:].reshape(a["x"].shape)
    shifted[...] = a["x"]
    check(p, dispatch.choose(p, "cuda"), (shifted, a["weight"], None, None), a["y"])
    assert current().launched == ["conv_gemm.gemm"]  # the interpreter aligns: on a GPU the other kernel would fault


def test_a_reduction_is_cut_by_the_problem_alone() -> None:
    assert split.cut(tiles=1000, slices=4096, size=1) == split.Cut(1, 4096)
    assert split.cut(tiles=4, slices=1000, size=100) == split.Cut(59, 17)
    few = split.cut(tiles=4, slices=1000, size=2**30)
    assert few == split.Cut(1, 1000)  # offsets into the parts would not fit into 32 bits
    for slices in range(1, 200):
        cut = split.cut(2, slices, 10)
        assert (cut.parts - 1) * cut.share < slices <= cut.parts * cut.share


def test_division_by_a_product() -> None:
    n = np.concatenate([np.arange(3000), np.random.default_rng(0).integers(0, 2**31, 3000), 2**31 - 1 - np.arange(99)])
    for d in (1, 2, 3, 7, 224, 12544, 65537, 2**30, 2**30 + 1, 2**31 - 1):
        factor, shift = divisor(d)
        most = (2**31 - 1) // d
        near = np.concatenate([n, d * np.arange(max(most - 50, 0), most + 1), d * np.arange(1, 50) - 1])
        near = near[near < 2**31].astype(np.uint64)
        assert np.array_equal(near * np.uint64(factor % 2**32) >> np.uint64(shift), near // np.uint64(d))


def test_operands_beyond_32_bits_are_left_to_the_naive_kernel() -> None:
    p = conv2d_problem("forward", (70000, 64, 32, 32), (64, 64, 3, 3), "float32", padding=1)
    assert conv_direct.supports(p) == "an operand has more than 2**31 - 1 elements"
    assert dispatch.choose(p, "cuda").name == "cuda.naive"


@pytest.mark.parametrize(("which", "weight"), [
    ("forward", (32 * 65535 + 1, 1, 3, 3)), ("backward_input", (1, 32 * 65535 + 1, 3, 3)),
    ("backward_weight", (1, 32 * 65535 // 9 + 1, 3, 3)), ("backward_weight", (2, 64, 182, 182)),
])  # fmt: skip
@pytest.mark.parametrize("precision", ["float32", "strict", "tf32", "bf16"])
def test_columns_beyond_a_grid_are_left_to_the_naive_kernel(
    precision: str, which: str, weight: tuple[int, int, int, int]
) -> None:
    p = conv2d_problem(which, (1, *weight[1:]), weight, "float32")
    for capability in ((8, 0), (9, 0, "a")):
        with executor(Interpreter(capability)), nnet.precision(precision):
            assert [c.name for c, reason in dispatch.verdicts(p, "cuda") if reason is None] == ["cuda.naive"]
