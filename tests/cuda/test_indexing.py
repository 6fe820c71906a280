"""Arrays as indices on the device: positions and masks, read, written and differentiated as NumPy and the CPU do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet.cuda import index, launch, matmul
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from numbanet.device_array import DeviceArray
from numbanet.nn.fuse import _content
from numbanet.problem.matmul import MatmulProblem
from numbanet.problem.shape import IndexAddProblem
from tests.cuda.fake import FakeDriver
from tests.cuda.ptx.executor import HostDevice
from tests.cuda.twins import poison, run

X = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
MASK = X % 7 < 3
INDICES: dict[str, Any] = {
    "list": [2, 0, -1],
    "mask": MASK,
    "mask of rows": MASK[:, 0, 0],
    "mask of pairs": MASK[..., 0],
    "mask behind a slice": (slice(1, None), MASK[0]),
    "mask of nothing": np.zeros((3, 4), bool),
    "mask beside positions": (MASK[:, 0, 0], np.array([1])),
    "positions apart": (np.array([0, 2]), slice(None), np.array([[4, -5], [0, 1], [2, 2]])),
    "positions behind an ellipsis": (..., np.array([3, 0, 3])),
    "positions behind a new axis": (None, np.array([2, 1])),
    "positions and then a slice": (slice(None, None, 2), np.array([[3], [0]]), slice(1, 4)),
    "no positions": np.zeros(0, np.int64),
}


@pytest.fixture
def device() -> Iterator[HostDevice]:
    found = HostDevice()
    with launch.executor(found):
        yield found


def on_device(given: Any) -> Any:
    if isinstance(given, tuple):
        return tuple(map(on_device, given))
    return nnet.tensor(given, device="cuda") if isinstance(given, np.ndarray) else given


@pytest.mark.parametrize("name", INDICES)
def test_reading_and_writing(name: str, device: HostDevice) -> None:
    given = INDICES[name]
    expected = X[given]
    for found in (given, on_device(given)):  # indices of the host are known to be small
        x = nnet.tensor(X, device="cuda", requires_grad=True)
        y = x[found]
        assert y.device == "cuda" and np.array_equal(y.detach().cpu().numpy(), expected)
        (y * y).sum().backward()
        gradient = np.zeros_like(X)
        np.add.at(gradient, given, 2 * expected)
        assert x.grad is not None and np.array_equal(x.grad.cpu().numpy(), gradient)
        target, wanted = nnet.tensor(X, device="cuda"), X.copy()
        values = np.arange(expected.size, dtype=np.int64).reshape(expected.shape) % 1  # one for what is named twice
        target[found], wanted[given] = nnet.tensor(values - 3, device="cuda"), values - 3
        assert np.array_equal(target.cpu().numpy(), wanted)
        target[found], wanted[given] = 8.0, 8.0
        assert np.array_equal(target.cpu().numpy(), wanted)


def test_assigned_values_reach_their_places_through_views(device: HostDevice) -> None:
    x, wanted = nnet.tensor(X, device="cuda"), X.copy()
    values = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    x.transpose(0, 2)[nnet.tensor([4, 1], device="cuda"), 2] = nnet.tensor(values, device="cuda")
    wanted.transpose(2, 1, 0)[[4, 1], 2] = values
    assert np.array_equal(x.cpu().numpy(), wanted)
    y = nnet.tensor(X, device="cuda", requires_grad=True) * 1.0
    z = nnet.tensor([5.0, 6.0], device="cuda", requires_grad=True)
    y[nnet.tensor([0, 2], device="cuda"), 1, 1] = z
    (y * y).sum().backward()
    assert z.grad is not None and z.grad.tolist() == [10, 12]


def test_what_does_not_fit_is_refused(device: HostDevice) -> None:
    x = nnet.tensor(X, device="cuda")
    for wrong, error, text in (
        (np.array([0, 3]), IndexError, "index 3 is out of bounds for an axis of size 3"),
        (np.zeros((2, 4), bool), IndexError, r"mask of shape \(2, 4\) does not fit"),
        (np.zeros((3, 4, 5, 1), bool), IndexError, "too many indices"),
        (np.array([0.5]), IndexError, "integer or boolean"),
    ):
        with pytest.raises(error, match=text):
            x[wrong]
    with pytest.raises((TypeError, ValueError), match="CPU|cpu"):
        x[nnet.tensor([1, 0], device="cuda")] = np.zeros((2, 4, 5), np.float32)


@pytest.mark.parametrize("make", [HostDevice, None])
def test_positions_out_of_bounds_are_told_when_python_waits(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    driver = FakeDriver()
    with launch.executor(make() if make else Gpu(0, driver.core, driver)):
        x = nnet.tensor(X, device="cuda")
        for place in (3, -4):
            wrong = x[nnet.tensor([1, place], device="cuda")]
            with pytest.raises(IndexError, match=f"index {place} is out of bounds for an axis of size 3"):
                wrong.cpu()
            assert x[nnet.tensor([1], device="cuda")].tolist() == X[[1]].tolist(), "told once"
        x[nnet.tensor([0], device="cuda"), nnet.tensor([4], device="cuda")] = 0.0
        with pytest.raises(IndexError, match="index 4 is out of bounds for an axis of size 4"):
            x.sum().item()
        assert x.tolist() == X.tolist(), "nothing was written"


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_integers_and_booleans_are_padded(mode: str, device: HostDevice) -> None:
    for values in (np.arange(24, dtype=np.int64).reshape(1, 2, 3, 4), np.arange(24).reshape(1, 2, 3, 4) % 3 == 0):
        for widths in ([1, 2, 2, 1], [-1, 2, 0, -1]):
            options = {"mode": mode, "value": 7 if mode == "constant" else None}
            expected, found = (F.pad(nnet.tensor(values, device=place), widths, **options) for place in ("cpu", "cuda"))
            assert found.dtype == expected.dtype and found.tolist() == expected.tolist()


def test_many_equal_positions_stay_in_order() -> None:
    count = 5 * index.RUN + 3
    rng = np.random.default_rng(3)
    for positions in (np.zeros(count, np.int64), rng.integers(0, 2, count), rng.integers(-1, 4, count)):
        grad = rng.standard_normal((count, 2)).astype(np.float32)
        problem = IndexAddProblem("forward", "float32", 3, count, 2)
        inside = (positions >= 0) & (positions < 3)
        expected = np.zeros((3, 2), np.float32)
        for k in np.flatnonzero(inside):  # in float32, one after the other: the order shows in the bits
            expected[positions[k]] += grad[k]
        (out,) = run(problem, (grad, positions), (poison((3, 2), "float32"),))
        assert np.array_equal(out, expected)


def test_products_of_too_many_columns_are_left_to_the_naive_kernel() -> None:
    problem = MatmulProblem("forward", "float32", 1, 65535 * 128 + 1, 1, True, True)
    assert matmul.supports(problem) == "the result has more than 65535 tiles of columns"


def test_a_grid_that_no_gpu_takes_is_refused(device: HostDevice) -> None:
    with pytest.raises(ValueError, match=r"at most 65535 blocks along y and z, got \(1, 65536, 1\)"):
        launch.launch(index.clear, (1, 65536), (0, None))


def test_clamp_takes_arrays_of_the_device(device: HostDevice) -> None:
    low, high = (nnet.tensor(v, device="cuda").data for v in ([-1.0, 0.0], [1.0, 0.5]))
    assert F.clamp(nnet.tensor([[3.0, -2.0]], device="cuda"), low, high).tolist() == [[1, 0]]


def test_a_new_array_at_the_place_of_one_that_is_gone_is_another(device: HostDevice) -> None:
    tensor = nnet.tensor([1.0], device="cuda")
    before, place = _content(tensor), id(tensor.data)
    assert _content(tensor) == before
    other = device.upload(np.ones(1, np.float32))
    tensor.data = other
    many = [DeviceArray(other.memory, other.pointer, other.shape, other.strides, other.dtype) for _ in range(1000)]
    tensor.data = next(array for array in many if id(array) == place)
    assert _content(tensor) != before
