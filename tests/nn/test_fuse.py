"""Fused models: the numbers of the model, in fewer kernels."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.deferred import Deferred
from numbanet.models.resnet import BasicBlock, Bottleneck
from numbanet.tensor import Tensor
from tests.nn.layers import RNG, conv_bn, images, lived_in, run


class InvertedResidual(nn.Module):
    """As in MobileNet v2."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *conv_bn(8, 48, size=1), nn.ReLU6(inplace=True),
            *conv_bn(48, 48, padding=1, groups=48), nn.ReLU6(inplace=True), *conv_bn(48, 8, size=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x)


class Styles(nn.Module):
    """The same layers in the ways that people write."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm_a = conv_bn(8, 8, padding=1)
        self.b, self.norm_b = conv_bn(8, 8, padding=1)
        self.c = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out = self.a(x)
        out = self.norm_a(out)
        out = F.relu(out, inplace=True)
        out = self.norm_b(self.b(out))
        out += x
        out.relu()
        return self.c(out.relu()).add(out)


MODELS: dict[str, Callable[[], Any]] = {
    "basic block": lambda: BasicBlock(8, 8),
    "basic block, projection": lambda: BasicBlock(8, 16, 2, nn.Sequential(*conv_bn(8, 16, size=1, stride=2))),
    "bottleneck": lambda: Bottleneck(8, 4, 1, nn.Sequential(*conv_bn(8, 16, size=1))),
    "inverted residual": InvertedResidual,
    "vgg": lambda: nn.Sequential(
        *conv_bn(8, 16, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 20, 3), nn.ReLU(), nn.Flatten(),
        nn.Linear(180, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Dropout(), nn.Linear(12, 5),
    ),
    "styles": Styles,
    "one layer": lambda: nn.Conv2d(8, 4, 3, groups=2, dilation=2),
    "other paddings": lambda: nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"), nn.BatchNorm2d(8)),
    "no running averages": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, track_running_stats=False), nn.ReLU()
    ),
    "activations": lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3, activation="relu"), nn.Conv2d(8, 6, 1, activation="softmax"), nn.Flatten(),
        nn.Linear(384, 5, activation=F.relu), nn.Linear(5, 4, activation="gelu"),
    ),
    "not affine": lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU()),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_results_are_those_of_the_model(name: str) -> None:
    model = lived_in(MODELS[name]())
    before = {key: value.copy() for key, value in model.state_dict().items()}
    x = images()
    y = run(model, x)
    fused = nn.fuse(model)
    for _ in range(3):  # the first call may find out what is read twice
        np.testing.assert_allclose(run(fused, x), y, rtol=1e-4, atol=1e-4 * np.abs(y).max())
    assert type(model) is type(MODELS[name]()) and list(fused.state_dict()) == list(before)
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    np.testing.assert_array_equal(run(model, x), y)


def kernels(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> list[str]:
    """Return the operations that a call runs."""
    seen: list[str] = []
    original = nnet.dispatch.run

    def noting(problem: Any, *args: Any) -> None:
        seen.append(problem.operation)
        original(problem, *args)

    with monkeypatch.context() as patch:
        patch.setattr(nnet.dispatch, "run", noting)
        nnet.dispatch.renew()  # calls that come again are decided once more
        call()
    return seen


@pytest.mark.parametrize(
    ("name", "operations"),
    [("basic block", 2), ("basic block, projection", 3), ("bottleneck", 4), ("inverted residual", 3)],
)
def test_a_block_is_its_convolutions(name: str, operations: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fused, x = nn.fuse(lived_in(MODELS[name]())), images()
    fused(x)
    assert kernels(monkeypatch, lambda: fused(x)) == ["conv2d"] * operations


class Twice(nn.Module):
    """The result of a convolution is used after its ReLU too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = conv_bn(8, 8, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.conv(x))
        return F.relu(y) * y


def test_what_is_read_twice_is_computed_once_from_the_second_call_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lived_in(Twice())
    fused, x = nn.fuse(model), images()
    expected = run(model, x)
    counts = [kernels(monkeypatch, lambda: fused(x)).count("conv2d") for _ in range(3)]
    assert counts == [2, 1, 1]
    np.testing.assert_allclose(run(fused, x), expected, rtol=1e-4, atol=1e-4)


class Changing(nn.Module):
    """The operands of convolutions are changed before their results are read."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + 0.0
        y = self.conv(x)
        x += 1.0
        z = self.conv(x)
        other = x * 1.0
        total = z + other
        other[:, 0] = 5.0
        total2 = self.conv(x[:, :, ::2])
        x[0] = 0.0
        alias = y
        y += 1.0
        return F.flatten(y + alias, 1).sum() + total.sum() + total2.sum() + x.sum()


def test_changes_in_place_come_in_their_order() -> None:
    model = Changing()
    fused, x = nn.fuse(model), images()
    for _ in range(2):
        np.testing.assert_allclose(run(fused, x), run(model, x), rtol=1e-4)


def test_whole_results_are_computed() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> Any:
            return {"a": self.conv(x), "b": [self.conv(x), (x, self.conv(x))]}

    result = nn.fuse(Many())(images())
    for tensor in (result["a"], result["b"][0], result["b"][1][1]):
        assert isinstance(tensor, Deferred) and not tensor.pending


def test_errors_come_where_the_layer_is_called() -> None:
    fused = nn.fuse(nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU()))
    with pytest.raises(ValueError, match="input must have 8 channels"):
        fused[0](images(7))
    with pytest.raises(TypeError, match="dtypes must be equal"):
        fused[0](nnet.tensor(np.zeros((1, 8, 5, 5))))
    with pytest.raises(TypeError, match="input must be a Tensor"):
        fused[0](np.zeros((1, 8, 5, 5), np.float32))
    with pytest.raises(ValueError, match="input must have shape"):
        nn.fuse(nn.Linear(4, 2))(nnet.tensor(np.zeros((1, 5), np.float32)))
    with pytest.raises(TypeError, match="model must be a Module"):
        nn.fuse(3)  # type: ignore[type-var]


def test_a_fused_model_lives_on() -> None:
    model = lived_in(BasicBlock(8, 8))
    fused, x = nn.fuse(model), images()
    first = run(fused, x)
    other = lived_in(BasicBlock(8, 8))
    fused.load_state_dict(other.state_dict())
    np.testing.assert_allclose(run(fused, x), run(other, x), rtol=1e-4, atol=1e-4)
    twin = copy.deepcopy(fused)
    np.testing.assert_allclose(run(twin, x), run(other, x), rtol=1e-4, atol=1e-4)
    fused.double()
    wide = nnet.tensor(x.numpy().astype(np.float64))
    assert run(fused, wide).dtype == np.float64
    model.requires_grad_(False)
    np.testing.assert_allclose(run(nn.fuse(model), x), first, rtol=1e-6)
    # Inputs that require a gradient get one; nothing is fused then.
    fused.float()
    x.requires_grad_()
    fused(x).sum().backward()
    assert x.grad is not None and x.grad.shape == x.shape


def test_hooks_are_called() -> None:
    model = nn.Sequential(nn.Conv2d(8, 4, 3), nn.ReLU())
    seen: list[tuple[int, ...]] = []
    model[0].register_forward_hook(lambda module, args, result: seen.append(result.numpy().shape))
    nn.fuse(model)(images())
    assert seen == [(2, 4, 8, 8)]


def test_a_deferred_tensor_is_a_tensor() -> None:
    conv = nn.Conv2d(8, 4, 3)
    layer, x = nn.fuse(nn.Sequential(conv)), images()
    expected = run(conv, x)
    for read in (
        lambda t: t.data, lambda t: t.numpy(), lambda t: (t * 1.0).numpy(), lambda t: t[:].numpy(),
        lambda t: np.asarray(t), lambda t: t.detach().numpy(), lambda t: t.clone().numpy(),
    ):  # fmt: skip
        y = layer[0](x)
        assert isinstance(y, Deferred) and y.pending
        assert (y.shape, y.ndim, y.dtype, y.numel(), y.size(1), y.dim()) == ((2, 4, 8, 8), 4, np.float32, 512, 4, 4)
        np.testing.assert_array_equal(read(y), expected)
        assert not y.pending
    assert "tensor(" in repr(layer[0](x))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = layer[0](x).nothing


def test_a_norm_behind_a_frozen_convolution_has_gradients() -> None:
    model = lived_in(nn.Sequential(*conv_bn(8, 4)))
    model[0].requires_grad_(False)
    nnet.capture(lambda x: model(x).sum())(images()).backward()
    assert model[0].weight.grad is None and np.abs(model[1].weight.grad.numpy()).max() > 0


def test_what_was_made_without_gradients_joins_nothing_that_has_some() -> None:
    norm, x = nn.BatchNorm2d(8), images().requires_grad_()

    def function(x: Tensor) -> Tensor:
        with nnet.no_grad():
            target = norm(x)
        return (target + x).sum()

    nnet.capture(function)(x).backward()
    np.testing.assert_array_equal(x.grad.numpy(), 1.0)  # type: ignore[union-attr]
    assert norm.weight.grad is None


@pytest.mark.parametrize("features", [4, 7])
def test_a_norm_joins_only_where_the_channels_are_the_features(features: int) -> None:
    model = lived_in(nn.Sequential(nn.Linear(5, features), nn.BatchNorm2d(4)))
    x = nnet.tensor(RNG.standard_normal((2, 4, 3, 5), dtype=np.float32))
    np.testing.assert_allclose(run(nn.fuse(model), x), run(model, x), rtol=1e-4, atol=1e-5)


def test_a_norm_joins_no_norm() -> None:
    model, x = lived_in(nn.Sequential(nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.ReLU())), images()
    np.testing.assert_allclose(run(nn.fuse(model), x), run(model, x), rtol=1e-4, atol=1e-5)


def test_a_captured_norm_has_the_momentum_of_its_module() -> None:
    norm, x = nn.BatchNorm2d(8), images()
    captured = nnet.capture(lambda x: norm(x) * 1.0)
    captured(x)
    norm.momentum = 1.0
    captured(x)
    np.testing.assert_allclose(norm.running_mean.numpy(), x.numpy().mean((0, 2, 3)), rtol=1e-4, atol=1e-5)


def test_a_fused_model_can_be_pickled() -> None:
    fused, x = nn.fuse(lived_in(BasicBlock(8, 8))), images()
    expected = run(fused, x)
    np.testing.assert_array_equal(run(pickle.loads(pickle.dumps(fused)), x), expected)


def test_what_was_folded_goes_with_its_norm() -> None:
    fused, x = nn.fuse(lived_in(nn.Sequential(*conv_bn(8, 4)))), images()
    run(fused, x)
    assert len(fused[0].constants) == 1
    fused[1] = nn.Identity()
    gc.collect()
    assert len(fused[0].constants) == 0


def test_threads_may_read_one_waiting_result() -> None:
    conv = nn.Conv2d(8, 16, 3)
    layer, x = nn.fuse(nn.Sequential(conv)), images(size=64)
    expected = run(conv, x)
    found: list[np.ndarray] = []
    for _ in range(10):
        y = layer[0](x)
        start = threading.Barrier(4)

        def read(y: Tensor = y, start: threading.Barrier = start) -> None:
            start.wait()
            found.append(y.numpy())

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 40
    for array in found:
        np.testing.assert_array_equal(array, expected)
