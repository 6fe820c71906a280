"""The GPU's convolutions, interpreted, against the definition in float64."""

import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from numbanet.cuda import conv
from numbanet.cuda.launch import executor
from numbanet.problem.conv import ConvProblem, Epilogue, conv2d_problem
from numbanet.reference import conv as reference
from tests.cases import CONV_CASES, ConvCase
from tests.cuda.ptx.executor import Interpreter

PLAIN = Epilogue()


@pytest.fixture(autouse=True)
def interpreted() -> Iterator[None]:
    with executor(Interpreter()):
        yield


def problem(case: ConvCase, which: str, epilogue: Epilogue = PLAIN) -> ConvProblem:
    shapes = case.x_shape, case.weight_shape
    return conv2d_problem(which, *shapes, "float32", **case.options, epilogue=epilogue)


def operands(p: ConvProblem, seed: str) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    shapes = {"x": (p.n, p.h, p.w, p.c), "weight": (p.k, p.r, p.s, p.cg), "y": (p.n, p.p, p.q, p.k), "bias": (p.k,)}
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def check(found: np.ndarray, expected: np.ndarray, p: ConvProblem) -> None:
    assert found.shape == expected.shape
    bound = 3e-6 * np.sqrt(p.reduction / 1000 + 1) * np.abs(expected).max()
    assert np.abs(found - expected).max(initial=0.0) <= bound


def double(*arrays: np.ndarray) -> list[np.ndarray]:
    return [array.astype(np.float64) for array in arrays]


def small(case: ConvCase) -> bool:
    """A thread's every instruction takes the interpreter microseconds: long reductions are for a GPU."""
    p = problem(case, "forward")
    return p.flops < 4e6 and p.r * p.s * max(p.cg, p.kg) < 700


@pytest.mark.parametrize("case", [case for case in CONV_CASES if small(case)], ids=str)
@pytest.mark.parametrize("which", ["forward", "backward_input"])
def test_every_case(case: ConvCase, which: str) -> None:
    p = problem(case, which)
    a = operands(p, case.name)
    for candidate in conv.CANDIDATES["conv2d", which]:
        if candidate.supports(p) is not None:
            continue
        if which == "forward":
            out, inputs = a["y"], (a["x"], a["weight"], None, None)
            expected = reference.forward(p, *double(a["x"], a["weight"]), None, None)
        else:
            out, inputs = a["x"], (a["y"], a["weight"])
            expected = reference.backward_input(p, *double(a["y"], a["weight"]))
        out = np.full_like(out, np.nan)
        candidate.run(p, inputs, (out,), None)
        check(out, expected, p)


@pytest.mark.parametrize("channels", [8, 7])
@pytest.mark.parametrize("activation", [None, "relu", "relu6"])
@pytest.mark.parametrize("residual", [False, True])
def test_the_epilogue(channels: int, activation: str | None, residual: bool) -> None:
    case = ConvCase("epilogue", 2, channels, 5, 6, channels, 3, 3, padding=1)
    p = problem(case, "forward", Epilogue(True, residual, activation))
    a = operands(p, case.name)
    inputs = a["x"], a["weight"], 3 * a["bias"], a["y"] if residual else None
    out = np.full_like(a["y"], np.nan)
    conv.CANDIDATES["conv2d", "forward"][0].run(p, inputs, (out,), None)
    expected = reference.forward(p, *[None if v is None else v.astype(np.float64) for v in inputs])
    check(out, expected, p)
