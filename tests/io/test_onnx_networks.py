"""ONNX files of whole networks: modules that can be trained, fused, captured and copied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper, numpy_helper

import numbanet as nnet
from numbanet import functional as F
from numbanet import io, nn, optim
from tests.io import onnx_models
from tests.io.onnx_models import agree, load, model_of, residual_model, values


@pytest.fixture(autouse=True)
def _same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each test have the same weights, whichever tests took values before it: some can't be learnt in few steps."""
    monkeypatch.setattr(onnx_models, "_RNG", np.random.default_rng(5))


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
