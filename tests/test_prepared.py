"""Prepared weights: the same numbers, made once, and never those of a weight that has changed since."""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn, optim
from numbanet.prepared import PreparedWeight
from numbanet.tensor import array_of

RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 8, 9, 9), dtype=np.float32)


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 16, 3, padding=1)


def infer(layer: nn.Module, x: np.ndarray = X) -> np.ndarray:
    with nnet.no_grad():
        return layer(nnet.tensor(x)).numpy()


def expected(layer: Any, x: np.ndarray = X) -> np.ndarray:
    if isinstance(layer, nn.Linear):
        return nnet.ops.linear(x, layer.weight.detach().numpy(), layer.bias.detach().numpy())
    return nnet.ops.conv2d(x, layer.weight.detach().numpy(), layer.bias.detach().numpy(), padding=1)


def test_a_prepared_weight_gives_the_same_bits() -> None:
    weight = RNG.standard_normal((16, 8, 3, 3), dtype=np.float32)
    prepared = nnet.ops.prepare_conv2d(weight, X.shape, padding=1)
    for x in (X, X[0], X[:1, :, :5], X.transpose(0, 1, 3, 2)):
        for options in ({"padding": 1}, {"stride": 2}, {"padding": 1, "activation": "relu"}):
            plain: Any = options
            np.testing.assert_array_equal(nnet.ops.conv2d(x, prepared, **plain), nnet.ops.conv2d(x, weight, **plain))
    rows = RNG.standard_normal((3, 5, 33), dtype=np.float32)
    matrix, bias = RNG.standard_normal((20, 33), dtype=np.float32), np.ones(20, np.float32)
    ready = nnet.ops.prepare_linear(matrix)
    np.testing.assert_array_equal(nnet.ops.linear(rows, ready, bias), nnet.ops.linear(rows, matrix, bias))
    np.testing.assert_array_equal(nnet.ops.linear(rows[0, 0], ready), nnet.ops.linear(rows[0, 0], matrix))


def test_a_depthwise_weight_is_ordered_once() -> None:
    weight = RNG.standard_normal((8, 1, 3, 3), dtype=np.float32)
    prepared = nnet.ops.prepare_conv2d(weight, X.shape, padding=1, groups=8)
    for stride in (1, 2):
        y = nnet.ops.conv2d(X, prepared, padding=1, stride=stride, groups=8)
        np.testing.assert_array_equal(y, nnet.ops.conv2d(X, weight, padding=1, stride=stride, groups=8))
    assert [key for key, _ in prepared.forms()] == [("cpu.depthwise", None)]


@pytest.mark.parametrize("name", ["cpu.direct", "cpu.band", "cpu.winograd", "cpu.winograd_f2", "reference"])
def test_every_kernel_takes_it(name: str) -> None:
    weight = RNG.standard_normal((16, 8, 3, 3), dtype=np.float32)
    with nnet.use(name):
        prepared = nnet.ops.prepare_conv2d(weight, X.shape, padding=1)
        y = nnet.ops.conv2d(X, prepared, padding=1)
        np.testing.assert_array_equal(y, nnet.ops.conv2d(X, weight, padding=1))
    # What was prepared for one kernel does not reach another.
    np.testing.assert_array_equal(nnet.ops.conv2d(X, prepared, padding=1), nnet.ops.conv2d(X, weight, padding=1))


def test_errors_are_those_of_plain_weights() -> None:
    with pytest.raises(ValueError, match="input must have 8 channels"):
        nnet.ops.prepare_conv2d(np.zeros((4, 8, 3, 3), np.float32), (1, 9, 5, 5))
    with pytest.raises(TypeError, match="weight must have dtype"):
        nnet.ops.prepare_conv2d(np.zeros((4, 8, 3, 3), np.int64), (1, 8, 5, 5))
    with pytest.raises(ValueError, match=r"weight must have shape \(out_features, in_features\)"):
        nnet.ops.prepare_linear(np.zeros(4, np.float32))
    prepared = nnet.ops.prepare_conv2d(np.zeros((4, 8, 3, 3), np.float32), (1, 8, 5, 5))
    with pytest.raises(TypeError, match="dtypes must be equal"):
        nnet.ops.conv2d(X.astype(np.float64), prepared)


def test_inference_prepares_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[PreparedWeight] = []
    form = PreparedWeight.form

    def counting(self: PreparedWeight, candidate: Any, problem: Any) -> Any:
        before = len(self._forms)
        result = form(self, candidate, problem)
        if len(self._forms) > before:
            made.append(self)
        return result

    monkeypatch.setattr(PreparedWeight, "form", counting)
    model = nn.Sequential(conv(), nn.ReLU(), nn.Conv2d(16, 20, 1)).eval()
    first = infer(model)
    for _ in range(3):
        np.testing.assert_array_equal(infer(model), first)
    assert len(made) == 2
    model(nnet.tensor(X))
    assert len(made) == 2, "recorded calls prepare nothing"
    infer(model, X[:1])
    assert len(made) == 2, "the number of images changes nothing"


def _step(layer: Any) -> None:
    layer(nnet.tensor(X if isinstance(layer, nn.Conv2d) else X.reshape(-1, 9))).sum().backward()
    optim.SGD(layer.parameters(), lr=0.1).step()


def _assign(layer: Any) -> None:
    layer.weight.data = layer.weight.data * 2


def _write(layer: Any) -> None:
    layer.weight.data[...] += 1


def _augment(layer: Any) -> None:
    layer.weight.data *= 3


def _load(layer: Any) -> None:
    layer.load_state_dict({"weight": np.ones(layer.weight.shape), "bias": np.zeros(layer.bias.shape)})


def _view(layer: Any) -> None:
    with nnet.no_grad():
        view = layer.weight[1:2]
        infer(layer, X if isinstance(layer, nn.Conv2d) else X.reshape(-1, 9))  # while the view lives
        view.data[...] = 100.0


def _short_view(layer: Any) -> None:
    with nnet.no_grad():
        layer.weight[1:2].data[...] = 100.0


def _detached(layer: Any) -> None:
    layer.weight.detach().data[0] = 7.0


def _in_place(layer: Any) -> None:
    with nnet.no_grad():
        layer.weight += 1


def _item(layer: Any) -> None:
    with nnet.no_grad():
        layer.weight[0] = 5.0


CHANGES = [_step, _assign, _write, _augment, _load, _view, _short_view, _detached, _in_place, _item]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("kind", ["conv", "linear"])
def test_changes_are_seen(kind: str, change: Callable[[Any], None]) -> None:
    layer: Any = conv() if kind == "conv" else nn.Linear(9, 4)
    x = X if kind == "conv" else X.reshape(-1, 9)
    before = infer(layer, x)
    change(layer)
    after = infer(layer, x)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, expected(layer, x))
    np.testing.assert_array_equal(infer(layer, x), after)


def test_an_array_that_someone_holds_is_not_trusted() -> None:
    layer = conv()
    infer(layer)
    held = layer.weight.data  # asked for once, written much later
    for factor in (2, 3):
        infer(layer)
        held[...] *= factor
        np.testing.assert_array_equal(infer(layer), expected(layer))
    part = held[0]
    del held
    infer(layer)
    part[...] = 1.0
    np.testing.assert_array_equal(infer(layer), expected(layer))
    own = RNG.standard_normal((16, 8, 3, 3), dtype=np.float32)
    layer.weight = nn.Parameter(own)  # shares the memory of the user's array
    infer(layer)
    own[...] = 2.0
    np.testing.assert_array_equal(infer(layer), expected(layer))


def test_settings_choose_among_forms() -> None:
    layer = nn.Conv2d(64, 64, 3, padding=1)
    x = RNG.standard_normal((4, 64, 28, 28), dtype=np.float32)
    usual = infer(layer, x)
    with nnet.precision("strict"):
        strict = infer(layer, x)
        np.testing.assert_array_equal(strict, expected(layer, x))
    assert not np.array_equal(usual, strict), "the choice of this test is Winograd's"
    with nnet.use("reference"):
        infer(layer, x)
    np.testing.assert_array_equal(infer(layer, x), usual)
    layer.double()
    np.testing.assert_array_equal(infer(layer, x.astype(np.float64)), expected(layer, x.astype(np.float64)))


def test_forms_go_with_their_parameter_and_are_not_copied() -> None:
    layer = conv()
    infer(layer)
    prepared = layer.weight._prepared
    assert prepared is not None and prepared._forms
    (form,) = prepared._forms.values()
    died = weakref.ref(form[0] if isinstance(form, tuple) else form)
    twin = copy.deepcopy(layer)
    assert twin.weight._prepared is None
    twin.weight.data[...] = 0.0
    np.testing.assert_array_equal(infer(twin), expected(twin))
    del prepared, form, layer
    gc.collect()
    assert died() is None


def test_only_a_few_forms_are_kept() -> None:
    prepared = PreparedWeight(RNG.standard_normal((8, 8, 3, 3), dtype=np.float32))
    for dilation in (1, 2):
        for name in ("cpu.direct", "cpu.band", "cpu.winograd"):
            if (name, dilation) != ("cpu.winograd", 2):
                with nnet.use(name):
                    nnet.ops.conv2d(X, prepared, padding=2, dilation=dilation)
    assert len(prepared._forms) <= 4


def test_threads_share_a_model() -> None:
    layer = conv()
    right, wrong = infer(layer), []

    def work() -> None:
        for _ in range(50):
            if not np.array_equal(infer(layer), right):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_reading_a_shape_drops_nothing() -> None:
    layer = conv()
    infer(layer)
    prepared = layer.weight._prepared
    assert layer.weight.shape == (16, 8, 3, 3) and layer.weight.dtype == np.float32 and layer.weight.ndim == 4
    infer(layer)
    assert layer.weight._prepared is prepared is not None
    assert array_of(layer.weight).shape == prepared.shape


@pytest.mark.parametrize(("c", "k", "size"), [(40, 20, 7), (96, 80, 14), (33, 130, 30)])
@pytest.mark.parametrize(
    ("name", "taps", "stride"),
    [("cpu.winograd", 3, 1), ("cpu.winograd_f2", 3, 1), ("cpu.winograd_5x5", 5, 1), ("cpu.winograd_s2", 3, 2)],
)
def test_transformed_weights_give_the_same_bits(name: str, taps: int, stride: int, c: int, k: int, size: int) -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, c, size, size), np.float32), rng.standard_normal((k, c, taps, taps), np.float32)
    with nnet.use(name):
        prepared = nnet.ops.prepare_conv2d(weight, x.shape, stride, padding=1)
        expected = nnet.ops.conv2d(x, weight, stride=stride, padding=1)
        for n in (1, 1, 5):
            images = np.repeat(x, n, axis=0)
            np.testing.assert_array_equal(nnet.ops.conv2d(images, prepared, stride=stride, padding=1)[0], expected[0])
