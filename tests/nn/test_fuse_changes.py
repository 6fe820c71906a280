"""Fused models follow what Python changes between the layers: results that wait, and the layers themselves."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.tensor import Tensor
from tests.nn.layers import conv_bn, images, lived_in, run


class Written(nn.Module):
    """What a fused layer returned is changed in place after it went on."""

    def __init__(self, write: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(8, 8, padding=1)
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        return self.write(self, x)


def _add_after_relu(m: Any, x: Tensor) -> Tensor:
    y = m.norm(x)
    z = F.relu(y)
    y += 1.0
    return z * 1.0 + y * 0.0


def _scale_after_relu(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = F.relu(y)
    y.mul_(2)
    return z + y


def _assign_after_relu(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    z = F.relu(y)
    y[...] = 0
    return z + y


def _relu_in_place_and_subtract(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    z = F.relu(y)
    F.relu(y, inplace=True)
    y.sub_(1)
    return z + y


def _add_again(m: Any, x: Tensor) -> Tensor:
    y, r = m.conv(x), x * 2.0
    z = y + r
    y += r
    return z * 1.0 + y * 3.0


def _write_unnoticed(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    z = F.relu(y)
    y.data[...] = 5.0
    y.bump_version()
    return z * 1.0


def _new_data(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    z = F.relu(y)
    y.data = np.ones(y.shape, y.dtype)
    return z + F.relu(y)


def _relu_of_the_input(m: Any, x: Tensor) -> Tensor:
    x = x * 1.0
    y = m.conv(x)
    F.relu(x, inplace=True)
    return y + 0.0 * x


def _statistics_between(m: Any, x: Tensor) -> Tensor:
    y = m.norm(m.conv(x))
    m.norm.running_mean.add_(1)
    m.norm.eps, eps = 1.0, m.norm.eps
    y = y * 1.0
    m.norm.running_mean.sub_(1)
    m.norm.eps = eps
    return y


def _other_stride(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    m.conv.stride, stride = (2, 2), m.conv.stride
    y = y * 1.0
    m.conv.stride = stride
    return y


def _freeze_after(m: Any, x: Tensor) -> Tensor:
    y = m.conv(x)
    m.conv.requires_grad_(False)
    z = y * 1.0
    m.conv.requires_grad_(True)
    return z


def _norm_twice(m: Any, x: Tensor) -> Tensor:
    a, b = m.norm(x), m.norm(x * 2.0 + 1.0)
    return b * 1.0 + m.norm(a)


WRITES = [
    _add_after_relu, _scale_after_relu, _assign_after_relu, _relu_in_place_and_subtract, _add_again, _write_unnoticed,
    _new_data, _relu_of_the_input, _statistics_between, _other_stride, _freeze_after, _norm_twice,
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
def test_changes_of_waiting_results_come_in_their_order(write: Callable[..., Any]) -> None:
    model, x = lived_in(Written(write)), images()
    fused, captured = nn.fuse(model), nnet.capture(copy.deepcopy(model))
    for _ in range(2):
        expected = run(model, x)
        np.testing.assert_allclose(run(fused, x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(captured, x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("write", [w for w in WRITES if w not in (_write_unnoticed, _new_data)])
def test_changes_of_waiting_results_in_training(write: Callable[..., Any]) -> None:
    model, x = lived_in(Written(write)).train(), images()
    other = copy.deepcopy(model)
    results = []
    for module, call in ((model, model), (other, nnet.capture(other))):
        y = call(x)
        (y * y * y).sum().backward()  # a batch norm makes the sum of squares what it is
        gradients = [p.grad.numpy() for p in module.parameters() if p.grad is not None]
        results.append([y.detach().numpy(), *gradients, *[b.numpy() for b in module.buffers()]])
    assert len(results[0]) == len(results[1])
    for ours, plain in zip(results[1], results[0]):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m[0], "stride", (2, 2)),
        lambda m: setattr(m[0], "padding", 1),
        lambda m: setattr(m[0], "padding_mode", "reflect"),
        lambda m: setattr(m[0], "activation", F.relu),
        lambda m: setattr(m[0], "forward", lambda x: x[:, :4]),
        lambda m: setattr(m[0], "bias", None),
        lambda m: setattr(m[1], "eps", 3.0),
        lambda m: m[1].register_forward_hook(lambda module, args, result: result * 0.5),
        lambda m: m[1].running_mean.data.__setitem__(..., 5.0),
        lambda m: m[1].running_var.add_(1.0),
        lambda m: setattr(m[1].running_mean, "data", np.full(4, 3, np.float32)),
    ],
    ids=[
        "stride", "padding", "padding mode", "activation", "forward", "bias", "eps", "hook", "statistics", "in place",
        "data",
    ],
)  # fmt: skip
def test_changes_of_layers_are_seen(change: Callable[[Any], Any]) -> None:
    model = lived_in(nn.Sequential(nn.Conv2d(8, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    x = images()
    fused, inner = nn.fuse(model), copy.deepcopy(model)
    captured = nnet.capture(lambda x: inner(x) * 1.0)
    for call in (model, fused, captured):
        run(call, x)
    for changed in (model, fused, inner):
        with nnet.no_grad():
            change(changed)
    expected = run(model, x)
    np.testing.assert_allclose(run(fused, x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(run(captured, x), expected, rtol=1e-4, atol=1e-5)
