"""explain() answers for every operation of the dispatcher, and says what it wants to know."""

from __future__ import annotations

from typing import Any

import pytest

import numbanet as nnet
from numbanet import dispatch

CASES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("conv2d", ((2, 16, 9, 9), (32, 16, 3, 3)), {"stride": 2, "padding": 1}),
    ("conv2d", ((16, 9, 9), (32, 8, 3, 3), 1, "same", 1, 2), {"bias": True, "activation": "relu"}),
    ("max_pool2d", ((2, 16, 9, 9), 3), {"stride": 2, "ceil_mode": True}),
    ("avg_pool2d", ((2, 16, 9, 9), 2), {"count_include_pad": False}),
    ("adaptive_avg_pool2d", ((2, 16, 9, 9), 1), {}),
    ("matmul", ((5, 7), (7, 3)), {"bias": True}),
    ("activation", ("relu", (2, 16, 9, 9)), {}),
    ("elementwise", ("add", (2, 16, 9, 9), (16, 1, 1)), {}),
    ("batch_norm", ((2, 16, 9, 9),), {"training": False}),
    ("softmax", ((2, 16, 9, 9), 1), {"log": True}),
    ("cross_entropy", ((32, 10),), {"label_smoothing": 0.1}),
    ("nll_loss", ((32, 10), "sum"), {}),
    ("mse_loss", ((32, 10),), {"reduction": "none"}),
    ("dropout", ((32, 10), 0.3), {}),
    ("reduce", ((2, 16, 9, 9), (2, 3)), {"mean": True}),
    ("pad", ((2, 16, 9, 9), (1, 1, 2, 2)), {"mode": "reflect"}),
    ("clip", ("scale", (1000,)), {}),
    ("vector_norm", (), {"sizes": (1000, 10), "ord": 2.0}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("operation", "args", "options"), CASES)
def test_one_kernel_is_chosen(operation: str, args: Any, options: Any, dtype: str) -> None:
    lines = nnet.explain(operation, *args, dtype=dtype, **options).splitlines()
    assert lines[0].startswith(f"{operation} forward on cpu: ")
    assert dtype in lines[0]
    assert sum(line.startswith("-> ") for line in lines) == 1
    assert any("reference" in line for line in lines[1:])


def test_every_operation_says_what_it_takes() -> None:
    for operation in dispatch.operations():
        with pytest.raises(TypeError, match=rf"explain\('{operation}'\): .*argument.*; it takes [a-z]"):
            nnet.explain(operation, which=dispatch.passes(operation)[0], nonsense=1)


def test_a_problem_in_several_steps() -> None:
    text = nnet.explain("reduce", (4, 5, 6), (0, 2))
    assert text.count("reduce forward on cpu") == 2


def test_the_answer_follows_the_problem() -> None:
    shapes = (2, 16, 9, 9), (32, 16, 3, 3)
    assert "conv2d backward_weight on cpu" in nnet.explain("conv2d", *shapes, which="backward_weight")
    with dispatch.use("reference"):
        assert "-> reference" in nnet.explain("conv2d", *shapes)
    assert "-> reference" not in nnet.explain("conv2d", *shapes)


def test_faulty_questions() -> None:
    with pytest.raises(ValueError, match=r"operation must be one of 'conv2d', .*, got 'conv3d'"):
        nnet.explain("conv3d", (1, 2, 3, 4))
    with pytest.raises(ValueError, match=r"which must be one of 'forward', .*, got 'sideways'"):
        nnet.explain("conv2d", (1, 2, 3, 4), (2, 2, 1, 1), which="sideways")
    with pytest.raises(ValueError, match="dtype must be one of"):
        nnet.explain("conv2d", (1, 2, 3, 4), (2, 2, 1, 1), dtype="int8")
    with pytest.raises(ValueError, match="input must have 3 channels"):
        nnet.explain("conv2d", (1, 2, 3, 4), (2, 3, 1, 1))
    with pytest.raises(ValueError, match=r"shapes must be \(M, K\) and \(K, N\)"):
        nnet.explain("matmul", (5, 7), (6, 3))
    with pytest.raises(TypeError, match=r"explain\('elementwise'\): missing a required argument: 'x_shape'"):
        nnet.explain("elementwise", "add")
    with pytest.raises(RuntimeError, match="device 'cuda' can't be used"):
        nnet.explain("conv2d", (1, 2, 3, 4), (2, 2, 1, 1), device="cuda")


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (("mse_loss", 5), {}, TypeError, "x_shape must be a sequence of sizes, got 5"),
        (("conv2d", (1, 2, 3, 3), (2, 2, "x", 1)), {}, TypeError, "weight_shape must be an integer, got 'x'"),
        (("elementwise", "add", (2, 3), 3), {}, TypeError, "others must be a sequence of sizes, got 3"),
        (("activation", "x", (2, 3)), {}, ValueError, "function must be one of 'relu', .*, got 'x'"),
        (("elementwise", [], (2, 3)), {}, ValueError, "function must be one of 'add', .*, got "),
        (("softmax", (2, 3)), {"log": {}}, TypeError, "log must be True or False, got {}"),
    ],
)
def test_errors_name_the_argument(
    arguments: tuple[Any, ...], options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        nnet.explain(*arguments, **options)
