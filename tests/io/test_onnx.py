"""ONNX files as modules: each operator against onnx.reference, and everything that is refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import numbanet as nnet
from numbanet import functional as F
from numbanet import io, nn, optim
from numbanet.io.onnx.operators import OPERATORS

NEWEST = 26
_RNG = np.random.default_rng(5)


def values(*shape: int, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return _RNG.uniform(low, high, shape).astype(np.float32)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def model_of(
    nodes: Sequence[Any],
    constants: dict[str, np.ndarray],
    rank: int = 4,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
    kind: int = onnx.TensorProto.FLOAT,
) -> Any:
    graph = helper.make_graph(
        list(nodes), "graph",
        [helper.make_tensor_value_info("x", kind, [f"d{i}" for i in range(rank)])],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def node(kind: str, *constants: str, outputs: Sequence[str] = ("y",), **attributes: Any) -> Any:
    return helper.make_node(kind, ["x", *constants], list(outputs), name="it", **attributes)


def load(model: Any, folder: Path) -> io.onnx.OnnxModel:
    onnx.save(model, folder / "model.onnx")
    return io.load_onnx(folder / "model.onnx")


def agree(model: Any, x: np.ndarray, folder: Path) -> io.onnx.OnnxModel:
    loaded = load(model, folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy, about infinite pads
        expected = ReferenceEvaluator(model).run(None, {"x": x})
    found = loaded(nnet.tensor(x))
    for got, wanted in zip(found if isinstance(found, tuple) else (found,), expected, strict=True):
        assert got.shape == wanted.shape
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got.detach().numpy(), wanted, rtol=2e-5, atol=2e-5)
    return loaded


X4, X3, X2 = (2, 4, 7, 9), (2, 4, 9), (3, 4)
CONV = {"w": values(6, 4, 3, 3), "b": values(6)}
NORM = {"s": values(4), "b": values(4), "m": values(4), "v": values(4, low=0.5)}

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
    ("MaxPool", X4, 12, {"kernel_shape": [3, 2], "dilations": [2, 1]}, {}),
    ("MaxPool", X4, 22, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}, {}),
    ("MaxPool", X4, 12, {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}, {}),
    ("MaxPool", X3, 12, {"kernel_shape": [3], "strides": [2]}, {}),
    ("AveragePool", X4, 7, {"kernel_shape": [2, 3], "strides": [2, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1], "count_include_pad": 1}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "pads": [0, 1, 2, 1]}, {}),
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


# ---------------------------------------------------------------------------------------------------- whole models


def residual_model(dtype: Any = np.float32) -> Any:
    """A network with a shortcut, two branches, a constant, and the names that PyTorch gives."""
    arrays = {
        "features.0.weight": values(6, 3, 3, 3), "features.0.bias": values(6),
        "features.1.weight": values(6, low=0.5), "features.1.bias": values(6),
        "features.1.running_mean": values(6), "features.1.running_var": values(6, low=0.5),
        "onnx::Conv_17": values(6, 6, 1, 1), "scale": values(6, 1, 1), "classifier.weight": values(5, 6),
        "classifier.bias": values(5),
    }  # fmt: skip
    norm = [f"features.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    make = helper.make_node
    nodes = [
        make("Conv", ["x", "features.0.weight", "features.0.bias"], ["a"], pads=[1, 1, 1, 1]),
        make("BatchNormalization", ["a", *norm], ["b"]),
        make("Relu", ["b"], ["c"]),
        make("Conv", ["c", "onnx::Conv_17"], ["d"]),
        make("Add", ["d", "c"], ["e"]),
        make("Relu", ["e"], ["f"]),
        make("Constant", [], ["half"], value=numpy_helper.from_array(np.array(0.5, dtype))),
        make("Mul", ["f", "half"], ["g"]),
        make("Mul", ["g", "scale"], ["h"]),
        make("GlobalAveragePool", ["h"], ["i"]),
        make("Flatten", ["i"], ["j"]),
        make("Dropout", ["j"], ["k"]),
        make("Gemm", ["k", "classifier.weight", "classifier.bias"], ["y"], transB=1),
    ]
    kind = onnx.TensorProto.FLOAT if dtype == np.float32 else onnx.TensorProto.DOUBLE
    return model_of(nodes, {name: array.astype(dtype) for name, array in arrays.items()}, kind=kind)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_of_either_dtype(dtype: Any, tmp_path: Path) -> None:
    model = agree(residual_model(dtype), values(2, 3, 8, 8).astype(dtype), tmp_path)
    assert isinstance(model._modules["features"]._modules["0"], nn.Conv2d)  # type: ignore[union-attr]
    assert not model.training


def test_parameters_bear_the_names_of_the_initializers(tmp_path: Path) -> None:
    proto = residual_model()
    model = load(proto, tmp_path)
    expected = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    state = dict(model.state_dict())
    assert state.pop("features.1.num_batches_tracked") == 0
    expected["onnx::Conv_17.weight"] = expected.pop("onnx::Conv_17")
    assert state.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array)
    assert "features.1.running_mean" not in dict(model.named_parameters())
    io.save_model(model, tmp_path / "a.safetensors")
    io.load_model(load(proto, tmp_path), tmp_path / "a.safetensors")


def test_models_are_fused_captured_copied_and_trained(tmp_path: Path) -> None:
    model, x = load(residual_model(), tmp_path), nnet.tensor(values(4, 3, 8, 8))
    expected = model(x).detach().numpy()
    fused = nn.fuse(model)
    assert type(fused._modules["onnx::Conv_17"]).__name__ == "FusedConv2d"
    with nnet.no_grad():
        np.testing.assert_allclose(fused(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
        captured = nnet.capture(model)
        for _ in range(3):
            np.testing.assert_allclose(captured(x).detach().numpy(), expected, rtol=1e-5, atol=1e-5)
    labels, losses = nnet.tensor(np.array([0, 1, 2, 3])), []
    model.train()
    nnet.manual_seed(0)  # of dropout
    optimizer = optim.Adam(model.parameters(), lr=0.02)
    for _ in range(40):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    model.eval()
    assert not np.allclose(model(x).detach().numpy(), expected)


def test_shared_weights_are_one_parameter(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["w2"]),
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "w2"], ["y"], pads=[1, 1, 1, 1]),
    ]
    model = agree(model_of(nodes, {"w": values(3, 3, 3, 3)}), values(1, 3, 5, 5), tmp_path)
    assert len(list(model.parameters())) == 1
    assert len(model.state_dict()) == 2


@pytest.mark.parametrize("name", ["forward", "a.b", "a..b", ".", "x.weight", "weight", "a." * 5000, "steps", "_parts"])
def test_any_name_will_do(name: str, tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", name], ["t"]), helper.make_node("Add", ["t", "a"], ["y"])]
    model = agree(model_of(nodes, {name: values(2, 3, 1, 1), "a": values(2, 1, 1)}), values(1, 3, 4, 4), tmp_path)
    assert len(list(model.parameters())) == 2
    assert nn.fuse(model).state_dict().keys() == model.state_dict().keys()


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    info = [helper.make_tensor_value_info(name, 1, ["n", 3]) for name in ("p", "q")]
    out = [helper.make_tensor_value_info(name, 1, None) for name in ("s", "p", "w")]
    graph = helper.make_graph([helper.make_node("Sub", ["p", "q"], ["s"])], "g", info, out,
                              [numpy_helper.from_array(values(2), "w")])  # fmt: skip
    model = load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path)
    p, q = nnet.tensor(values(2, 3)), nnet.tensor(values(2, 3))
    difference, same, weight = model(p, q)
    np.testing.assert_array_equal(difference.detach().numpy(), p.numpy() - q.numpy())
    assert same is p
    assert weight.shape == (2,)
    with pytest.raises(TypeError, match=r"the model takes 2 tensors \(p, q\), got 1"):
        model(p)


# ---------------------------------------------------------------------------------------------------- what is refused

REFUSED: list[tuple[Any, dict[str, np.ndarray], str]] = [
    (node("Einsum", equation="i->i"), {}, "Einsum): this operator is not supported"),
    (node("Relu", domain="com.microsoft"), {}, "the domain 'com.microsoft'"),
    (node("Relu", alpha=1.0), {}, "the attribute 'alpha' is not supported"),
    (node("LeakyRelu", alpha=[1.0]), {}, "the attribute 'alpha' is of kind floats, expected float"),
    (node("Relu", "c"), {"c": values(1)}, "has 2 inputs, expected 1"),
    (node("Relu", outputs=()), {}, "has no output"),
    (node("Conv", "w"), {"w": values(2, 3, 1, 1, 1)}, "only one- and two-dimensional"),
    (node("Conv", "w", kernel_shape=[2, 2]), {"w": values(2, 3, 1, 1)}, "kernel_shape=(2, 2) does not fit"),
    (node("Conv", "w", group=3), {"w": values(2, 3, 1, 1)}, "group=3 does not divide the 2 filters"),
    (node("Conv", "w", group=10**12), {"w": values(2, 3, 1, 1)}, "does not divide the 2 filters"),
    (node("Conv", "w", pads=[-1, 0, 0, 0]), {"w": values(2, 3, 1, 1)}, "pads=(-1, 0, 0, 0)"),
    (node("Conv", "w", strides=[0, 1]), {"w": values(2, 3, 1, 1)}, "strides=(0, 1)"),
    (node("Conv", "w", auto_pad="MIDDLE"), {"w": values(2, 3, 1, 1)}, "auto_pad='MIDDLE'"),
    (node("Conv", "w", "b"), {"w": values(2, 3, 1, 1), "b": values(3)}, "'b' must be float32 of shape (2,)"),
    (node("Conv", "w"), {"w": np.zeros((2, 3, 1, 1), np.int64)}, "its input 'w' holds int64"),
    (node("Conv", "x"), {}, "its input 'x' is computed"),
    (node("Conv"), {}, "has no input number 2"),
    (node("ConvTranspose", "w", output_shape=[9, 9]), {"w": values(3, 2, 2, 2)}, "the attribute 'output_shape'"),
    (node("BatchNormalization", *"sbmv", training_mode=1), NORM, "training_mode=1 is not supported, only 0"),
    (node("BatchNormalization", *"sbmv"), {**NORM, "m": values(3)}, "'m' must be float32 of shape (4,)"),
    (node("MaxPool", kernel_shape=[2, 2], outputs=("y", "z")), {}, "the positions of the maxima"),
    (node("MaxPool", kernel_shape=[2]), {}, "kernel_shape=(2,) for 4 dimensions"),
    (node("MaxPool"), {}, "the attribute 'kernel_shape' is missing"),
    (node("LRN", size=4), {}, "size=4 is not supported, only odd"),
    (node("Cast", to=7), {}, "to=7 is not supported"),
    (node("Dropout", outputs=("y", "mask")), {}, "its mask"),
    (node("Reshape", "s"), {"s": ints(-1, -1)}, "shape (-1, -1) makes no sense"),
    (node("Reshape", "x"), {}, "its input 'x' is computed"),
    (node("Flatten", axis=5), {}, "axis 5 for 4 dimensions"),
    (node("Transpose", perm=[0, 1, 2, 2]), {}, "perm=(0, 1, 2, 2)"),
    (node("Unsqueeze", "a"), {"a": ints(1, 1)}, "axes=(1, 1)"),
    (node("Slice", "a", "b", "c", "d"), {"a": ints(0), "b": ints(1), "c": ints(0), "d": ints(-1)}, "a step of -1"),
    (node("Concat", "missing", axis=1), {}, "its input 'missing' is not there"),
    (node("Relu", outputs=("x",)), {}, "its output 'x' is there already"),
    (node("Add", "c"), {"c": np.zeros(3, np.int64)}, "only floats can be computed with"),
    (node("Resize", "", "s", coordinate_transformation_mode="tf_crop_and_resize"), {"s": values(4)}, "resize"),
]


@pytest.mark.parametrize(("made", "constants", "message"), REFUSED, ids=[case[2][:40] for case in REFUSED])
def test_what_is_not_supported_is_refused_by_name(
    made: Any, constants: dict[str, np.ndarray], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError) as caught:
        load(model_of([made], constants), tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'model.onnx'}: node 'it' (")
    assert message in text


@pytest.mark.parametrize("opset", [1, 6, NEWEST + 1, 10**6])
def test_other_versions_are_refused(opset: int, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"opset {opset} is not supported, only 7 to {NEWEST}"):
        load(model_of([node("Relu")], {}, opset=opset), tmp_path)


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.onnx"
    for content in (b"", b"text, and no model", b"\x80\x04N.", residual_model().SerializeToString()[:-100]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.onnx: "):
            io.load_onnx(path)
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        io.load_onnx(tmp_path / "nothing")


# ---------------------------------------------------------------------------------------------------- tensors


def with_tensor(**changes: Any) -> Any:
    """A model whose only initializer lies."""
    proto = model_of([node("Add", "c")], {"c": values(4, 1, 1)})
    tensor = proto.graph.initializer[0]
    for name, value in changes.items():
        if name == "dims":
            del tensor.dims[:]
            tensor.dims.extend(value)
        else:
            setattr(tensor, name, value)
    return proto


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": [10**6, 10**6]}, "holds 16 bytes, shape (1000000, 1000000)"),
        ({"dims": [-1, 4]}, "has shape (-1, 4)"),
        ({"dims": [0, 2**62, 2**62], "raw_data": b""}, "which NumPy lacks"),
        ({"dims": [1] * 33}, "has shape"),
        ({"data_type": 8}, "data type 8 is not supported"),
        ({"data_type": 10}, "data type 10 is not supported"),
        ({"raw_data": b"1234"}, "holds 4 bytes"),
    ],
)
def test_tensors_that_lie_about_their_size(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        load(with_tensor(**changes), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: initializer 'c': ")
    assert message in str(caught.value)


def external(location: str, offset: Any = 0, length: Any = 16) -> Any:
    proto = with_tensor(data_location=onnx.TensorProto.EXTERNAL)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)
    return proto


def test_external_data(tmp_path: Path) -> None:
    weights = values(8)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "data").write_bytes(weights.tobytes())
    model = load(external("folder/data", 16), tmp_path)
    np.testing.assert_array_equal(model.state_dict()["c"].reshape(-1), weights[4:])


def test_external_data_stay_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(64))
    (folder / "link").symlink_to(secret)
    (folder / "loop").symlink_to(folder / "loop")
    (tmp_path / "model-other").mkdir()
    (tmp_path / "model-other" / "data").write_bytes(bytes(64))
    (folder / "short").write_bytes(bytes(20))
    for location, message in (
        ("../secret", "outside of the model's folder"),
        (str(secret), "outside of the model's folder"),
        ("link", "outside of the model's folder"),
        ("../model-other/data", "outside of the model's folder"),
        ("/dev/zero", "outside of the model's folder"),
        ("", "outside of the model's folder"),
        ("a\0b", "can't be found"),
        ("loop", "(can't be found|are no file)"),
        ("nothing", "are no file"),
    ):
        with pytest.raises(ValueError, match=f"initializer 'c': .*{message}"):
            load(external(location), folder)
    for offset, length in ((5, 16), (-1, 16), (10**12, 16), (0, 15), (0, 10**12), ("x", 16), (0, "")):
        with pytest.raises(ValueError, match=r"initializer 'c': (bytes .* of 'short'|.*can't be found)"):
            load(external("short", offset, length), folder)


def test_external_data_are_not_read_over_and_over(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(16))
    proto = external("data")
    for number in range(10):
        again = proto.graph.initializer.add()
        again.CopyFrom(proto.graph.initializer[0])
        again.name = f"c{number}"
    with pytest.raises(ValueError, match="hold several times its 16 bytes"):
        load(proto, tmp_path)
