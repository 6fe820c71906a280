"""ONNX models of a few nodes, and what onnx.reference says to them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import numbanet as nnet
from numbanet import io

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


NORM = {"s": values(4), "b": values(4), "m": values(4), "v": values(4, low=0.5)}


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
