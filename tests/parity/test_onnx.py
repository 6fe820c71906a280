"""ONNX files against ONNX Runtime: each operator, and networks that PyTorch exported."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import numbanet as nnet
from numbanet import io
from tests.io.onnx_models import NORM, model_of, node, residual_model, values
from tests.io.test_onnx import CASES, DEFINED, X3, X4, label
from tests.parity import torchvision_models

UNEVEN = values(4, 3, 2, 3)
# What onnx.reference can't compute.
MORE: list[tuple[str, tuple[int, ...], int, dict[str, Any], dict[str, np.ndarray]]] = [
    ("ConvTranspose", X4, 17, {"pads": [1, 1, 1, 1], "group": 2}, {"w": values(4, 3, 3, 3), "b": values(6)}),
    ("ConvTranspose", X4, 17, {"pads": [0, 2, 1, 1], "strides": [3, 2], "dilations": [1, 2]}, {"w": UNEVEN}),
    ("AveragePool", X4, 19, {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1, "pads": [1, 1, 1, 1]}, {}),
    ("AveragePool", X4, 11, {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER"}, {}),
    ("AveragePool", X3, 11, {"kernel_shape": [4], "strides": [2], "auto_pad": "SAME_UPPER"}, {}),
    ("LRN", X4, 13, {"size": 5}, {}),
    ("BatchNormalization", X4, 7, {}, NORM),
]


def run(path: Path, x: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


@pytest.mark.parametrize("case", [*CASES, *(case[:5] for case in DEFINED), *MORE], ids=label)
def test_operators_agree_with_onnx_runtime(case: Any, tmp_path: Path) -> None:
    kind, shape, opset, attributes, constants = case
    model = model_of([node(kind, *constants, **attributes)], constants, len(shape), opset)
    if kind == "Cast":
        model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    path, x = tmp_path / "model.onnx", values(*shape)
    onnx.save(model, path)
    (expected,) = run(path, x)
    found = io.load_onnx(path)(nnet.tensor(x)).detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=3e-5, atol=3e-5)


def test_a_residual_network(tmp_path: Path) -> None:
    path, x = tmp_path / "model.onnx", values(2, 3, 8, 8)
    onnx.save(residual_model(), path)
    found = io.load_onnx(path)(nnet.tensor(x)).detach().numpy()
    np.testing.assert_allclose(found, run(path, x)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of the older exporter, about itself, and of the newer one's own imports
@pytest.mark.parametrize(("name", "dynamo"), [("resnet18", False), ("mobilenet_v2", True)])
def test_exported_networks(name: str, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    twin = getattr(torchvision_models.load(), name)(num_classes=10).eval()
    with torch.no_grad():
        for module in twin.modules():  # statistics that differ from channel to channel
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.7, 1.3)
    path, x = tmp_path / "model.onnx", values(1, 3, 64, 64)
    torch.onnx.export(twin, (torch.from_numpy(x),), path, dynamo=dynamo, verbose=False)
    model = io.load_onnx(path)
    (expected,) = run(path, x)
    scale = np.abs(expected).max()
    with nnet.no_grad():
        np.testing.assert_allclose(model(nnet.tensor(x)).numpy() / scale, expected / scale, atol=1e-4)
        np.testing.assert_allclose(nnet.nn.fuse(model)(nnet.tensor(x)).numpy() / scale, expected / scale, atol=1e-4)
    count = sum(math.prod(p.shape) for p in twin.parameters())
    assert 0.9 * count < sum(p.numel() for p in model.parameters()) <= 1.01 * count
