"""Products on tensor cores, interpreted, against the definition with rounded operands in float64."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch
from numbanet.candidate import Candidate
from numbanet.cuda.conv_mma import DTYPES
from numbanet.cuda.conv_mma_kernels import conv_mma, conv_mma_weight
from numbanet.cuda.launch import executor
from numbanet.cuda.mma_tile import MMA
from numbanet.cuda.wgmma_tile import WGMMA
from numbanet.cuda.wgmma_turned import TURNED
from numbanet.problem.base import Problem
from numbanet.problem.conv import Epilogue
from numbanet.problem.matmul import MatmulProblem
from numbanet.reference import conv as reference
from tests.cases import ConvCase
from tests.cuda.ptx.executor import Interpreter
from tests.cuda.ptx.memory import Fault
from tests.cuda.rounding import rounded
from tests.cuda.test_conv import PASSES, TABLE, arguments, named, operands, problem

HOPPER = Interpreter((9, 0, "a"))


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    with executor(Interpreter()):
        yield


def chosen(p: Problem) -> Candidate:
    found = dispatch.choose(p, "cuda")
    assert found.name == "cuda.mma"
    return found


def fitting(p: Problem) -> list[Candidate]:
    return [c for c, refusal in dispatch.verdicts(p, "cuda") if refusal is None]


def warpgroups(p: Problem) -> Candidate:
    (found,) = [c for c in fitting(p) if c.name in ("cuda.wgmma", "cuda.wgmma_turned")]
    return found


def close(found: np.ndarray, expected: np.ndarray, reduction: int) -> None:
    """The products are exact, and the sums those of float32: the tolerance of the candidate is for rounded operands."""
    assert np.abs(found - expected).max() <= 3e-6 * np.sqrt(reduction / 1000 + 1) * np.abs(expected).max()


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize("case", TABLE, ids=str)
def test_convolutions(case: ConvCase, which: str) -> None:
    """Each with one kind: they differ in how fragments are loaded, not in where operands lie."""
    kind = ("bf16", "tf32", "fp16")[(TABLE.index(case) + PASSES.index(which)) % 3]
    p = problem(case, which)
    inputs, like = arguments(p, operands(p, case.name))
    out = np.full_like(like, np.nan)
    with nnet.precision(kind):
        (mma,) = [c for c in fitting(p) if c.name == "cuda.mma"]
        mma.run(p, inputs, (out,), None)
    close(out, getattr(reference, which)(p, *[None if v is None else rounded(v, kind) for v in inputs]), p.reduction)


def test_an_epilogue_of_a_cut_reduction() -> None:
    case = ConvCase("cut", 1, 64, 3, 3, 18, 3, 3, padding=1)
    p = problem(case, "forward", epilogue=Epilogue(True, True, "relu6"))
    a = operands(p, "cut")
    out, x, weight = np.full_like(a["y"], np.nan), 8 * a["x"], a["weight"]
    with nnet.precision("bf16"):
        chosen(p).run(p, (x, weight, a["bias"], a["y"]), (out,), None)
    wide = [v.astype(np.float64) for v in (a["bias"], a["y"])]
    close(out, reference.forward(p, rounded(x, "bf16"), rounded(weight, "bf16"), *wide), p.reduction)


@pytest.mark.parametrize("kind", ["bf16", "tf32"])
@pytest.mark.parametrize(("a_rows", "b_rows", "m", "n", "k"), [(True, False, 131, 6, 20), (False, True, 7, 132, 13)])
def test_matrices(kind: str, a_rows: bool, b_rows: bool, m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    p = MatmulProblem("forward", "float32", m, n, k, a_rows, b_rows)
    inputs = a if a_rows else np.ascontiguousarray(a.T), b if b_rows else np.ascontiguousarray(b.T), None, None
    out = np.full((m, n), np.nan, np.float32)
    with nnet.precision(kind):
        chosen(p).run(p, inputs, (out,), None)
    close(out, rounded(a, kind) @ rounded(b, kind), k)


def test_a_stack_of_matrices() -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 9), (2, 9, 7)))
    index = np.array([[0, 2, 1], [1, 0, 1]])
    p = MatmulProblem("forward", "float32", 5, 7, 9, True, True, batch=3)
    out = np.full((3, 5, 7), np.nan, np.float32)
    with nnet.precision("bf16"):
        chosen(p).run(p, (a, b, None, None, index), (out,), None)
    close(out, rounded(a, "bf16")[index[0]] @ rounded(b, "bf16")[index[1]], 9)


def test_the_precision_decides() -> None:
    p = problem(ConvCase("wide", 8, 256, 28, 28, 256, 3, 3, padding=1), "forward")
    double = problem(ConvCase("wide", 8, 256, 28, 28, 256, 3, 3, padding=1), "forward", "float64")
    for kind in ("tf32", "bf16", "fp16"):
        with nnet.precision(kind):
            assert dispatch.choose(p, "cuda").name == "cuda.mma"
            assert dispatch.choose(double, "cuda").name == "cuda.naive"
    for kind in ("float32", "strict"):
        with nnet.precision(kind):
            reasons = {c.name: reason for c, reason in dispatch.verdicts(p, "cuda")}
            assert reasons["cuda.mma"] == f"the precision is {kind!r}"


@pytest.mark.parametrize(("kind", "which", "name"), [
    ("bf16", "forward", "asymmetric padding with stride"),
    ("bf16", "backward_input", "groups of odd size"),
    ("bf16", "backward_weight", "groups of odd size"),
    ("tf32", "backward_weight", "groups of odd size"),
    ("tf32", "backward_weight", "asymmetric padding with stride"),
])  # fmt: skip
def test_convolutions_of_warpgroups(kind: str, which: str, name: str) -> None:
    (case,) = named(name)
    p = problem(case, which)
    inputs, like = arguments(p, operands(p, name))
    out = np.full_like(like, np.nan)
    with executor(HOPPER), nnet.precision(kind):
        warpgroups(p).run(p, inputs, (out,), None)
    close(out, getattr(reference, which)(p, *[None if v is None else rounded(v, kind) for v in inputs]), p.reduction)


@pytest.mark.parametrize(("kind", "b_rows"), [("bf16", True), ("bf16", False), ("tf32", True)])
def test_matrices_of_warpgroups(kind: str, b_rows: bool) -> None:
    m, n, k = 70, 132, 41
    rng = np.random.default_rng(n)
    a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
    p = MatmulProblem("forward", "float32", m, n, k, not b_rows, b_rows)
    inputs = np.ascontiguousarray(a.T) if b_rows else a, b if b_rows else np.ascontiguousarray(b.T), None, None
    out = np.full((m, n), np.nan, np.float32)
    with executor(HOPPER), nnet.precision(kind):
        warpgroups(p).run(p, inputs, (out,), None)
    close(out, rounded(a, kind) @ rounded(b, kind), k)


def test_not_a_number_stays_where_operands_are_turned() -> None:
    p = problem(ConvCase("nan", 1, 4, 3, 3, 4, 2, 2), "backward_weight")
    a = operands(p, "nan")
    a["x"][0, 2, 2, 1], a["y"][0, 0, 0, 3] = np.nan, np.inf
    out = np.zeros_like(a["weight"])
    with executor(HOPPER), nnet.precision("tf32"):
        warpgroups(p).run(p, (a["x"], a["y"]), (out,), None)
    assert np.isnan(out[:3, 1, 1, 1]).all() and np.isfinite(np.delete(out[:3], 1, 3)).all()
    assert np.array_equal(np.isinf(out[3]), np.sign(a["x"][0, :2, :2]) * out[3] == np.inf)


def test_warpgroups_are_for_one_capability_and_bfloat16() -> None:
    p = MatmulProblem("forward", "float32", 4096, 4096, 4096, True, True)
    with executor(HOPPER), nnet.precision("bf16"), nnet.use("cuda.wgmma", "cuda.mma"):
        assert dispatch.choose(p, "cuda").name == "cuda.wgmma"
    with executor(HOPPER), nnet.precision("tf32"):
        assert "cuda.wgmma" not in [c.name for c in fitting(p)]
    layers = [ConvCase("wide", 8, 256, 28, 28, 256, 3, 3, padding=1), ConvCase("odd", 8, 66, 14, 14, 70, 1, 1)]
    for p in [problem(layer, "backward_weight") for layer in layers]:
        with executor(HOPPER), nnet.precision("tf32"):
            assert dispatch.choose(p, "cuda").name == "cuda.wgmma_turned"
        with executor(HOPPER), nnet.precision("bf16"):
            assert "cuda.wgmma_turned" not in [c.name for c in fitting(p)]
        with executor(Interpreter((9, 0))), nnet.precision("tf32"):
            assert dispatch.choose(p, "cuda").name == "cuda.mma"
    for capability in ((8, 0), (9, 0), (10, 0, "a")):
        with executor(Interpreter(capability)), nnet.precision("bf16"):
            assert "cuda.wgmma" not in [c.name for c in fitting(p)]


def test_operands_beyond_32_bits_are_left_to_the_plain_kernel() -> None:
    for sizes in ((1 << 16, 8, 1 << 16), (8, 1 << 16, 1 << 16)):
        p = MatmulProblem("forward", "float32", *sizes, True, True)
        for precision in ("bf16", "tf32"):
            with nnet.precision(precision):
                assert dispatch.choose(p, "cuda").name == "cuda.gemm"


def dropped(pattern: str) -> Callable[[str], str]:
    return lambda text: re.sub(pattern, "", text)


@pytest.mark.parametrize(("change", "message"), [
    (dropped(r"bar\.sync\s+0;"), "race"),
    (dropped(r"cp\.async\.wait_group 1;"), "before anybody wrote"),
    (lambda text: text.replace("wait_group 1", "wait_group 2"), "before anybody wrote"),
    (lambda text: re.sub(r"cp\.async\.commit_group;", "", text, count=1), "before anybody wrote"),
], ids=["no barrier", "no wait", "a loose wait", "a group less"])  # fmt: skip
def test_broken_kernels_are_caught(
    change: Callable[[str], str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = named("groups of odd size")
    p = problem(case, "forward")
    inputs, like = arguments(p, operands(p, case.name))
    kernel = conv_mma(MMA, "bf16", False, False, Epilogue())
    text = kernel.ptx("bfloat16", (8, 0))
    assert change(text) != text
    monkeypatch.setitem(kernel._ptx, ("bfloat16", (8, 0)), change(text))
    with nnet.precision("bf16"), pytest.raises(Fault, match=message):
        chosen(p).run(p, inputs, (np.full_like(like, np.nan),), None)


@pytest.mark.parametrize(("change", "message"), [
    (dropped(r"fence\.proxy\.async\.shared::cta;"), "without a fence"),
    (dropped(r"wgmma\.fence\.sync\.aligned;"), "without wgmma.fence"),
    (dropped(r"wgmma\.wait_group\.sync\.aligned 0;"), "under way"),
    (dropped(r"bar\.sync\s+0;"), "race|without a fence"),
], ids=["no proxy fence", "no fence", "no wait", "no barrier"])  # fmt: skip
@pytest.mark.parametrize("kind", ["bf16", "tf32"])
def test_broken_warpgroups_are_caught(
    change: Callable[[str], str], message: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (case,) = named("groups of odd size")
    p = problem(case, "backward_weight")
    inputs, like = arguments(p, operands(p, case.name))
    kernel, key = conv_mma_weight(TURNED if kind == "tf32" else WGMMA, kind), (DTYPES[kind], (9, 0, "a"))
    text = kernel.ptx(*key)
    assert change(text) != text
    monkeypatch.setitem(kernel._ptx, key, change(text))
    with executor(HOPPER), nnet.precision(kind), pytest.raises(Fault, match=message):
        warpgroups(p).run(p, inputs, (np.full_like(like, np.nan),), None)
