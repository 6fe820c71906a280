"""Captured inferences: the same numbers, by launches that are repeated on memory of their own."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn
from numbanet.tensor import Tensor
from tests.capturing.common import RNG, check, host, images, infer, multiply, network, plan_of, replays


def test_an_inference_is_replayed(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    x = images()
    with nnet.no_grad():
        assert replays(monkeypatch, lambda: captured(x))
        first = captured(x)
        second = captured(images())
    assert host(first).tolist() != host(second).tolist(), "memory of its own"
    np.testing.assert_allclose(host(first), infer(model, x), rtol=1e-3, atol=1e-4)


def test_other_shapes_dtypes_and_settings_are_recorded_anew(device: str) -> None:
    model = network()
    captured = nnet.capture(model)
    for n in (2, 3, 1, 2, 3, 1, 2, 3, 1):
        check(captured, model, images(n))
    for _ in range(3):
        with nnet.precision("strict"):
            check(captured, model, images())
        with nnet.use("reference" if device == "cpu" else "cuda.naive"):
            check(captured, model, images())
    before = len(captured._plans)
    nnet.dispatch.renew()
    check(captured, model, images())
    assert len(captured._plans) == before + 1
    strided = nnet.tensor(RNG.standard_normal((2, 10, 10, 8), dtype=np.float32)).permute(0, 3, 1, 2)
    check(captured, model, strided)
    model.double()
    for _ in range(3):
        check(captured, model, nnet.tensor(RNG.standard_normal((2, 8, 10, 10))))


def test_functions_with_many_operands_and_results(device: str) -> None:
    def function(pair: tuple[Tensor, Tensor], scale: float, *, extra: dict[str, Tensor]) -> dict[str, Any]:
        a, b = pair
        c = F.relu(a * scale + b)
        return {"sum": c + extra["x"], "all": [c, (a, "word", c * 2.0)]}

    captured = nnet.capture(function)
    assert captured.__name__ == "function"  # type: ignore[attr-defined]
    with nnet.no_grad():
        for scale in (2.0, 2.0, 2.0, 3.0):
            pair, extra = (images(), images()), {"x": images()}
            ours, plain = captured(pair, scale, extra=extra), function(pair, scale, extra=extra)
            np.testing.assert_array_equal(host(ours["sum"]), host(plain["sum"]))
            np.testing.assert_array_equal(host(ours["all"][1][2]), host(plain["all"][1][2]))
            assert ours["all"][1][1] == "word"
        with pytest.raises(TypeError, match="take Tensors and hashable values, got set"):
            captured(pair, {1}, extra=extra)
    with pytest.raises(TypeError, match="function must be callable, got int"):
        nnet.capture(3)  # type: ignore[arg-type]


def test_a_fused_model_is_replayed(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    captured, x = nnet.capture(nn.fuse(model)), images()
    for _ in range(3):
        check(captured, model, x)
    with nnet.no_grad():
        assert replays(monkeypatch, lambda: captured(x))


def test_a_recording_leaves_weights_prepared() -> None:  # on the CPU, as what follows: how is its own
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)).eval()
    captured = nnet.capture(model)
    with nnet.use("cpu.direct"):
        for n in (2, 2, 3, 3):
            check(captured, model, images(n))
    assert [len(plan._recording.launches) for plan in captured._plans.values()] == [1, 1], "packed by each replay"


def test_the_memory_of_a_recording_is_planned() -> None:
    layers = [nn.Conv2d(16, 16, 3, padding=1) for _ in range(12)]
    model = nn.Sequential(*layers).eval()
    captured = nnet.capture(model)
    x = nnet.tensor(RNG.standard_normal((4, 16, 32, 32), dtype=np.float32))
    with nnet.no_grad():
        captured(x)
        captured(x)
    (plan,) = captured._plans.values()
    assert plan is not None and plan.recorded
    arrays = [array for launch in plan._recording.launches for array in launch.operands[1]]
    places = {a.__array_interface__["data"][0] for a in arrays if a.nbytes == x.data.nbytes}
    assert 2 <= len(places) <= 4, "of twelve layers"


def test_captured_functions_within_captured_ones(device: str) -> None:
    model = network()
    inner = nnet.capture(model)
    function = nnet.capture(lambda x: inner(x) * 2.0)
    with nnet.no_grad():
        for _ in range(3):
            inner(images())
        for _ in range(4):
            x = images()
            np.testing.assert_allclose(host(function(x)), 2 * infer(model, x), rtol=1e-3, atol=1e-3)
        assert plan_of(function).recorded
        multiply(model[9].bias, 100)
        x = images()
        np.testing.assert_allclose(host(function(x)), 2 * infer(model, x), rtol=1e-3, atol=1e-3)


def test_results_keep_their_types(device: str) -> None:
    p = nn.Parameter(nnet.tensor(np.ones(3, np.float32)))
    ordered = nnet.capture(lambda x: OrderedDict(a=x * 2.0, b=x * 3.0))
    owned = nnet.capture(lambda x: (x * 2.0, p))
    with nnet.no_grad():
        for _ in range(4):
            assert type(ordered(images())) is OrderedDict
            assert owned(images())[1] is p
    assert plan_of(ordered).recorded


def test_views_of_operands(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in memory of the recording, as operands do."""
    layer = nn.Linear(800, 5).eval()

    def function(x: Tensor) -> Tensor:
        return layer(x.flatten(1)) * x[:, 1, 2, 3].reshape(-1, 1)

    captured, x = nnet.capture(function), images()
    for _ in range(3):
        check(captured, function, images())
    with nnet.no_grad():
        assert replays(monkeypatch, lambda: captured(x))
    multiply(layer.weight, 2)
    for _ in range(3):
        check(captured, function, images())
