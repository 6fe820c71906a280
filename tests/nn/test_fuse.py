"""Fused models: the numbers of the model, in fewer kernels, whatever Python does between the layers."""

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

RNG = np.random.default_rng(0)


def images(channels: int = 8, size: int = 10) -> Tensor:
    return nnet.tensor(RNG.standard_normal((2, channels, size, size), dtype=np.float32))


def lived_in(model: Any) -> Any:
    """Give the batch norms statistics and scales, as if the model had been trained."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor, low, high in (
                (module.running_mean, -0.5, 0.5), (module.running_var, 0.5, 2), (module.weight, 0.5, 1.5),
                (module.bias, -0.5, 0.5),
            ):  # fmt: skip
                if tensor is not None:
                    tensor.data[...] = RNG.uniform(low, high, tensor.shape)
    return model.eval()


def conv_bn(c: int, k: int, **options: Any) -> list[nn.Module]:
    return [nn.Conv2d(c, k, options.pop("size", 3), bias=False, **options), nn.BatchNorm2d(k)]


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
    "not affine": lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8, affine=False), nn.ReLU()),
}  # fmt: skip


def run(model: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    with nnet.no_grad():
        return model(x).numpy()


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


def _norm_twice(m: Any, x: Tensor) -> Tensor:
    a, b = m.norm(x), m.norm(x * 2.0 + 1.0)
    return b * 1.0 + m.norm(a)


WRITES = [
    _add_after_relu, _scale_after_relu, _assign_after_relu, _relu_in_place_and_subtract, _add_again, _write_unnoticed,
    _new_data, _relu_of_the_input, _statistics_between, _other_stride, _norm_twice,
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
        (y * y).sum().backward()
        gradients = [p.grad.numpy() for p in module.parameters() if p.grad is not None]
        results.append([y.detach().numpy(), *gradients, *[b.numpy() for b in module.buffers()]])
    assert len(results[0]) == len(results[1])
    for ours, plain in zip(results[1], results[0]):
        np.testing.assert_allclose(ours, plain, rtol=1e-4, atol=1e-4 * np.abs(plain).max())


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
