"""ONNX operators as modules: each against onnx.reference, or its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import numbanet as nnet
from numbanet.io.onnx.operators import OPERATORS
from tests.io.onnx_models import NORM, agree, ints, load, model_of, node, values

X4, X3, X2 = (2, 4, 7, 9), (2, 4, 9), (3, 4)
CONV = {"w": values(6, 4, 3, 3), "b": values(6)}

# Operator, shape of x, opset, attributes, constants; the constants are its further inputs, in order.
CASES: list[tuple[str, tuple[int, ...], int, dict[str, Any], dict[str, np.ndarray]]] = [
    ("Conv", X4, 7, {}, CONV),
    ("Conv", X4, 11, {"pads": [1, 1, 1, 1], "strides": [2, 2], "kernel_shape": [3, 3]}, {"w": CONV["w"]}),
    ("Conv", X4, 22, {"pads": [0, 1, 2, 3], "dilations": [2, 1]}, CONV),
    ("Conv", X4, 17, {"group": 2}, {"w": values(6, 2, 3, 3)}),
    ("Conv", X4, 17, {"group": 4}, {"w": values(8, 1, 3, 3)}),
    ("Conv", X4, 17, {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, {"w": values(6, 4, 2, 3)}),
    ("Conv", X4, 17, {"auto_pad": "SAME_LOWER", "strides": [2, 2]}, {"w": values(6, 4, 2, 4)}),
    ("Conv", X4, 17, {"auto_pad": "VALID"}, CONV),
    ("Conv", X3, 17, {"pads": [1, 1], "strides": [2]}, {"w": values(6, 4, 3), "b": values(6)}),
    ("Conv", X3, 17, {"pads": [0, 2], "dilations": [2]}, {"w": values(6, 4, 3)}),
    ("ConvTranspose", X4, 11, {"strides": [2, 2], "output_padding": [1, 1]}, {"w": values(4, 5, 3, 3), "b": values(5)}),
    ("ConvTranspose", X4, 17, {"pads": [1, 1, 1, 1]}, {"w": values(4, 3, 3, 3)}),
    ("ConvTranspose", X4, 17, {"pads": [0, 1, 2, 1], "strides": [2, 1]}, {"w": values(4, 3, 3, 3)}),
    ("BatchNormalization", X4, 15, {"epsilon": 0.01}, NORM),
    ("BatchNormalization", X3, 15, {}, NORM),
    ("BatchNormalization", X2, 15, {}, NORM),
    ("InstanceNormalization", X4, 6 + 1, {"epsilon": 0.01}, {"s": values(4), "b": values(4)}),
    ("InstanceNormalization", X3, 22, {}, {"s": values(4), "b": values(4)}),
    *((kind, X4, opset, {}, {}) for kind, opset in (
        ("Relu", 7), ("Relu", 14), ("Sigmoid", 13), ("Tanh", 13), ("HardSwish", 14), ("Abs", 13), ("Neg", 13),
        ("Exp", 13), ("Softplus", 17), ("Mish", 18), ("Gelu", 20), ("Identity", 13), ("LeakyRelu", 7), ("Elu", 7),
        ("HardSigmoid", 7), ("GlobalAveragePool", 7), ("GlobalMaxPool", 7), ("Flatten", 7), ("Transpose", 7),
        ("LogSoftmax", 13), ("Softmax", 13), ("ReduceMean", 7), ("ReduceMean", 18), ("Dropout", 7),
        ("Dropout", 13), ("Clip", 7), ("Clip", 13),
    )),
    ("GlobalAveragePool", X3, 17, {}, {}),
    ("LeakyRelu", X4, 16, {"alpha": 0.3}, {}),
    ("Elu", X4, 22, {"alpha": 0.5}, {}),
    ("HardSigmoid", X4, 22, {"alpha": 1 / 6, "beta": 0.5}, {}),
    ("HardSigmoid", X4, 22, {"alpha": 0.4, "beta": 0.3}, {}),
    ("Gelu", X4, 20, {"approximate": "tanh"}, {}),
    ("PRelu", X4, 16, {}, {"s": values(4, 1, 1)}),
    ("PRelu", X4, 16, {}, {"s": values(1)}),
    ("Clip", X4, 7, {"min": -0.5, "max": 1.0}, {}),
    ("Clip", X4, 13, {}, {"low": np.float32(0).reshape(()), "high": np.float32(6).reshape(())}),
    ("Clip", X4, 13, {}, {"low": np.float32(-1).reshape(())}),
    ("Softmax", X4, 11, {"axis": 3}, {}),
    ("Softmax", X4, 13, {"axis": 1}, {}),
    ("MaxPool", X4, 8, {"kernel_shape": [2, 3]}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 2, 1]}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 1, 1, 0]}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [3, 2], "dilations": [2, 1]}, {}),
    ("MaxPool", X4, 22, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, {}),
    ("MaxPool", X3, 12, {"kernel_shape": [3], "strides": [2]}, {}),
    ("AveragePool", X4, 7, {"kernel_shape": [2, 3], "strides": [2, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "count_include_pad": 1}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 1, 1, 0]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [0, 1, 1, 0], "count_include_pad": 1}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [4, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, {}),
    ("AveragePool", X3, 19, {"kernel_shape": [3], "strides": [2]}, {}),
    ("Gemm", X2, 11, {"transB": 1}, {"w": values(5, 4), "b": values(5)}),
    ("Gemm", X2, 7, {"transB": 1}, {"w": values(5, 4), "b": values(1, 5)}),
    ("Gemm", X2, 13, {"alpha": 0.5, "beta": 2.0}, {"w": values(4, 5), "b": values(5)}),
    ("Gemm", X2, 13, {"transA": 1}, {"w": values(3, 5)}),
    ("MatMul", X2, 13, {}, {"w": values(4, 5)}),
    ("MatMul", (2, 3, 4), 13, {}, {"w": values(4, 5)}),
    *((kind, X4, 14, {}, {"c": values(4, 1, 1, low=0.5)}) for kind in ("Add", "Sub", "Mul", "Div")),
    ("Add", X2, 14, {}, {"c": values(2, 1, 4)}),
    ("Concat", X4, 13, {"axis": 1}, {"c": values(2, 3, 7, 9)}),
    ("Concat", X4, 13, {"axis": -1}, {"c": values(2, 4, 7, 1)}),
    ("Flatten", X4, 13, {"axis": 0}, {}),
    ("Flatten", X4, 13, {"axis": -1}, {}),
    ("Flatten", X4, 13, {"axis": 4}, {}),
    ("Reshape", X4, 13, {}, {"shape": ints(0, -1)}),
    ("Reshape", X4, 14, {}, {"shape": ints(0, 2, 2, -1)}),
    ("Reshape", (0, 3), 14, {"allowzero": 1}, {"shape": ints(3, 0)}),
    ("Transpose", X4, 13, {"perm": [0, 2, 3, 1]}, {}),
    ("Squeeze", (2, 1, 4, 1), 11, {"axes": [1, 3]}, {}),
    ("Squeeze", (2, 1, 4, 1), 13, {}, {"axes": ints(-1)}),
    ("Unsqueeze", X2, 11, {"axes": [0, 3]}, {}),
    ("Unsqueeze", X2, 13, {}, {"axes": ints(-1, 1)}),
    ("Pad", X4, 7, {"pads": [0, 0, 1, 2, 0, 0, 3, 0], "value": 1.5}, {}),
    ("Pad", X4, 13, {"mode": "reflect"}, {"pads": ints(0, 0, 1, 2, 0, 0, 3, 0)}),
    ("Pad", X4, 13, {"mode": "edge"}, {"pads": ints(0, 0, 1, 2, 0, 0, 3, 0)}),
    ("Pad", X4, 18, {}, {"pads": ints(1, 0, 2, 1), "value": np.float32(0.5).reshape(()), "axes": ints(1, -1)}),
    ("ReduceMean", X4, 13, {"axes": [2, 3], "keepdims": 0}, {}),
    ("ReduceMean", X4, 18, {}, {"axes": ints(-1, -2)}),
    ("ReduceMean", X4, 18, {"noop_with_empty_axes": 1}, {}),
    ("Slice", X4, 9, {"starts": [1, -3], "ends": [3, 100], "axes": [1, 3]}, {}),
    ("Slice", X4, 13, {}, {"a": ints(0, 1), "b": ints(2**63 - 1, -1), "c": ints(-2, 3), "d": ints(2, 3)}),
    ("Cast", X4, 13, {"to": 11}, {}),
]


def label(case: Any) -> str:
    kind, shape, opset, attributes, constants = case
    words = ",".join(f"{name}={value}" for name, value in attributes.items()) + ",".join(constants)
    return f"{kind}{len(shape)}-{opset}-{words}".replace(" ", "")


@pytest.mark.parametrize("case", CASES, ids=label)
def test_operators_agree_with_the_reference(case: Any, tmp_path: Path) -> None:
    kind, shape, opset, attributes, constants = case
    model = model_of([node(kind, *constants, **attributes)], constants, len(shape), opset)
    if kind == "Cast":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    agree(model, values(*shape, low=0.1 if kind in ("Log", "Sqrt") else -2.0), tmp_path)


def test_every_operator_has_a_case() -> None:
    others = {"Constant", "LRN", "Log", "Resize", "Split", "Sqrt"}
    assert {case[0] for case in CASES} | others == set(OPERATORS)


@pytest.mark.parametrize("kind", ["Log", "Sqrt"])
def test_functions_of_positive_numbers(kind: str, tmp_path: Path) -> None:
    agree(model_of([node(kind)], {}), values(2, 3, 4, 5, low=0.1), tmp_path)


# What the reference gets wrong, or does not do, is computed here from the definitions; ONNX Runtime agrees with them
# (tests/parity/test_onnx.py).
def lrn(x: np.ndarray) -> np.ndarray:
    squares = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    return x / (2.0 + 0.1 / 3 * sum(squares[:, i : i + 4] for i in range(3))) ** 0.6


def softmax_from(x: np.ndarray, axis: int) -> np.ndarray:
    rows = np.exp(x.reshape(*x.shape[:axis], -1))
    return (rows / rows.sum(axis, keepdims=True)).reshape(x.shape)


def lower_maxima(x: np.ndarray) -> np.ndarray:
    whole = np.pad(x, ((0, 0), (0, 0), (1, 0), (1, 0)), constant_values=-np.inf)
    return whole.reshape(2, 4, 4, 2, 5, 2).max((3, 5))


def normalised(x: np.ndarray) -> np.ndarray:
    s, b, m, v = (array.reshape(-1, 1, 1) for array in NORM.values())
    return (x - m) / np.sqrt(v + 1e-5) * s + b


DEFINED: list[tuple[str, tuple[int, ...], int, dict[str, Any], dict[str, np.ndarray], Any]] = [
    ("LRN", X4, 13, {"size": 3, "alpha": 0.1, "beta": 0.6, "bias": 2.0}, {}, lrn),
    ("Softmax", X4, 7, {}, {}, lambda x: softmax_from(x, 1)),
    ("Softmax", X4, 11, {"axis": 2}, {}, lambda x: softmax_from(x, 2)),
    ("GlobalMaxPool", X3, 17, {}, {}, lambda x: x.max(2, keepdims=True)),
    ("BatchNormalization", X4, 9, {}, NORM, normalised),
    ("MaxPool", X4, 12, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, {}, lower_maxima),
]


@pytest.mark.parametrize("case", DEFINED, ids=lambda case: label(case[:5]))
def test_operators_agree_with_their_definitions(case: Any, tmp_path: Path) -> None:
    kind, shape, opset, attributes, constants, define = case
    x = values(*shape)
    model = load(model_of([node(kind, *constants, **attributes)], constants, len(shape), opset), tmp_path)
    np.testing.assert_allclose(model(nnet.tensor(x)).detach().numpy(), define(x), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("opset", "constants", "attributes"),
    [(11, {}, {"split": [1, 3]}), (11, {}, {}), (13, {"s": ints(3, 1)}, {}), (18, {}, {"num_outputs": 2})],
)
def test_split(opset: int, constants: dict[str, np.ndarray], attributes: dict[str, Any], tmp_path: Path) -> None:
    made = node("Split", *constants, outputs=("y", "z"), axis=1, **attributes)
    agree(model_of([made], constants, opset=opset, outputs=("y", "z")), values(2, 4, 3, 3), tmp_path)


RESIZE = [
    ("nearest", "asymmetric", {"nearest_mode": "floor"}, (1, 1, 2, 2)),
    ("nearest", "asymmetric", {"nearest_mode": "floor"}, (1, 1, 1.5, 0.7)),
    ("nearest", "asymmetric", {"nearest_mode": "floor"}, (1, 1, 1.1, 2.05)),  # sizes that stay, and double
    ("nearest", "half_pixel", {}, (1, 1, 3, 2)),
    ("nearest", "half_pixel", {"nearest_mode": "round_prefer_ceil"}, (1, 1, 0.5, 0.6)),
    ("linear", "half_pixel", {}, (1, 1, 2, 1.6)),
    ("linear", "pytorch_half_pixel", {}, (1, 1, 0.6, 2)),
    ("linear", "align_corners", {}, (1, 1, 2, 2)),
    ("cubic", "half_pixel", {}, (1, 1, 2, 1.6)),
]


@pytest.mark.parametrize(("mode", "where", "attributes", "scales"), RESIZE)
@pytest.mark.parametrize("by_size", [False, True])
def test_resize(
    mode: str, where: str, attributes: dict[str, Any], scales: tuple[float, ...], by_size: bool, tmp_path: Path
) -> None:
    x = values(2, 3, 6, 10)
    words = {"mode": mode, "coordinate_transformation_mode": where, **attributes}
    if by_size:
        if mode == "nearest" and "nearest_mode" not in attributes:
            pytest.skip("sizes alone do not tell a whole factor")
        sizes = [int(size * scale) for size, scale in zip(x.shape[2:], scales[2:])]
        made = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], axes=[2, 3], **words)
        agree(model_of([made], {"sizes": ints(*sizes)}, opset=18), x, tmp_path)
    else:
        made = helper.make_node("Resize", ["x", "", "scales"], ["y"], **words)
        agree(model_of([made], {"scales": np.array(scales, np.float32)}, opset=13), x, tmp_path)


def test_sequences_are_resized(tmp_path: Path) -> None:
    made = helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")
    agree(model_of([made], {"scales": np.array([1, 1, 2.5], np.float32)}, 3, 13), values(2, 3, 6), tmp_path)
