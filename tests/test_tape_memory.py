"""Memory of a backward pass: gradients that nobody shares are taken over, saved values go early, blocks come again."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import blocks, memory, nn, optim
from numbanet import functional as F
from numbanet.cpu.replay import Recording
from numbanet.heap import Heap
from numbanet.tape import record
from numbanet.tensor import Tensor


def leaf(shape: tuple[int, ...] = (3, 4)) -> Tensor:
    return nnet.tensor(np.zeros(shape), requires_grad=True)


def given(x: Tensor, make: Callable[[], Any]) -> np.ndarray:
    """Return the gradient that x gets where a backward function returns make()."""
    record(x.data + 1, (x,), lambda grad: (make(),)).backward(np.ones(x.shape))
    assert x.grad is not None
    return x.grad.data


def test_a_fresh_gradient_is_taken_over() -> None:
    address: list[int] = []

    def fresh() -> np.ndarray:
        array = np.full((3, 4), 2.0)
        address.append(array.ctypes.data)
        return array

    assert given(leaf(), fresh).ctypes.data == address[0]

    def view() -> np.ndarray:  # the memory of another array that nobody has
        array = np.full(12, 2.0)
        address.append(array.ctypes.data)
        return array.reshape(3, 4)

    assert given(leaf(), view).ctypes.data == address[1]


KEPT = np.full((3, 4), 2.0)
LARGE = 5000


@pytest.mark.parametrize(
    "make",
    [
        lambda: KEPT,
        lambda: KEPT.reshape(4, 3).reshape(3, 4),
        lambda: KEPT[:, ::-1],
        lambda: np.broadcast_to(np.float64(2.0), (3, 4)),
        lambda: np.full((3, 4), 2.0, np.float32),
        lambda: np.full((4, 3), 2.0).T,
        lambda: np.full((LARGE, 4), 2.0)[:3],
        lambda: np.frombuffer(np.full((3, 4), 2.0).tobytes()).reshape(3, 4),
    ],
    ids=["held", "view", "turned", "broadcast", "dtype", "order", "part", "bytes"],
)
def test_what_others_see_or_does_not_fit_is_copied(make: Callable[[], np.ndarray]) -> None:
    x = leaf()
    gradient = given(x, make)
    assert not np.shares_memory(gradient, KEPT)
    assert gradient.dtype == np.float64 and gradient.flags.c_contiguous and gradient.flags.writeable
    assert gradient.base is None or gradient.base.nbytes < 8 * LARGE
    np.testing.assert_array_equal(gradient, np.full((3, 4), 2.0))
    gradient[...] = 5.0
    assert (KEPT == 2.0).all()


@pytest.mark.parametrize("retain_graph", [False, True])
def test_operands_of_a_sum_get_gradients_of_their_own(retain_graph: bool) -> None:
    x, y, z = leaf(), leaf(), leaf()
    total = F.add(F.add(x, y), z)
    seed = np.ones((3, 4))
    total.backward(seed, retain_graph=retain_graph)
    gradients = [t.grad.data for t in (x, y, z) if t.grad is not None] + [seed]
    for number, gradient in enumerate(gradients):
        gradient[...] = number
    assert [gradient[0, 0] for gradient in gradients] == [0, 1, 2, 3]


def test_a_retained_graph_gives_the_same_gradients_again() -> None:
    x, w = leaf(), nnet.tensor(np.full((3, 4), 3.0), requires_grad=True)
    y = F.mul(x, w)
    for times in (1, 2, 3):
        y.backward(np.ones((3, 4)), retain_graph=True)
        assert x.grad is not None and (x.grad.data == 3 * times).all()
        x.grad.data[...] = 3 * times  # whoever owns it may write to it
    np.testing.assert_array_equal(w.data, np.full((3, 4), 3.0))


def test_retained_gradients_of_inner_tensors_are_their_own() -> None:
    x = leaf()
    inner = F.mul(x, 2.0)
    inner.retain_grad()
    F.reshape(inner, (12,)).backward(np.ones(12))
    assert inner.grad is not None and x.grad is not None
    inner.grad.data[...] = 7.0
    np.testing.assert_array_equal(x.grad.data, np.full((3, 4), 2.0))


def test_saved_values_go_as_the_backward_pass_passes() -> None:
    alive: list[int] = []
    saved: list[weakref.ref] = []
    y = leaf()
    for _ in range(5):
        values = np.ones((3, 4))
        saved.append(weakref.ref(values))

        def backward(grad: np.ndarray, values: np.ndarray = values) -> tuple[np.ndarray]:
            alive.append(sum(reference() is not None for reference in saved))
            return (grad * values,)

        y = record(y.data + values, (y,), backward)
        del values, backward
    y.backward(np.ones((3, 4)))
    assert alive == [5, 4, 3, 2, 1]


def test_the_gradients_of_weights_are_not_copied() -> None:
    layer = nn.Conv2d(8, 16, 3)
    x = nnet.tensor(np.ones((2, 8, 6, 6), np.float32))
    made: list[int] = []
    original = nnet.ops.conv2d_backward_weight

    def noting(*args: Any) -> np.ndarray:
        result = original(*args)
        made.append(result.__array_interface__["data"][0])
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnet.ops, "conv2d_backward_weight", noting)
        layer(x).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.data.__array_interface__["data"][0] == made[0]


def training(*layers: nn.Module, size: int = 32) -> tuple[nn.Module, Callable[[], Any]]:
    """Return a model, and a function that makes a training step of it."""
    model = nn.Sequential(*layers)
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    rng = np.random.default_rng(0)
    x, labels = nnet.tensor(rng.standard_normal((16, 3, size, size), np.float32)), nnet.tensor(rng.integers(0, 10, 16))

    def step(x: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()

    return model, partial(step, x, labels)


@pytest.mark.parametrize("captured", [False, True])
def test_a_steady_training_step_takes_no_new_memory(monkeypatch: pytest.MonkeyPatch, captured: bool) -> None:
    model, step = training(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * 256, 10),
    )  # fmt: skip
    if captured:
        step = partial(nnet.capture(step.func), *step.args)
    for _ in range(3):  # a captured step is tried in the third call
        step()
    fresh: list[int] = []
    original = Heap._fresh
    monkeypatch.setattr(Heap, "_fresh", lambda self, size: fresh.append(size) or original(self, size))
    for _ in range(3):
        step()
    assert fresh == []
    if captured:
        assert step.func.replays == 4
        return
    for p in model.parameters():
        p.grad = None
    gc.collect()
    memory.release()
    step()
    assert fresh, "this test sees new memory"


def test_a_step_holds_what_its_backward_needs_and_little_more() -> None:
    """Of a chain of convolutions and ReLUs: a result of each pair, and three arrays in the midst of a layer."""
    pairs = 8
    layers = [layer for _ in range(pairs) for layer in (nn.Conv2d(32, 32, 3, padding=1), nn.ReLU())]
    _, step = training(nn.Conv2d(3, 32, 1), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10), size=64)
    step()
    gc.collect()
    memory.release()
    for _ in range(3):
        step()
    activation = 16 * 32 * 64 * 64 * 4
    in_use, held = memory.held()
    assert in_use < activation // 4
    assert sum(pool.peak for pool in blocks.pools) < (pairs + 1 + 3) * activation
    assert held < (pairs + 1 + 4) * activation, "cut and joined, blocks of all sizes share it"


class Account:
    """The most bytes that the pools and the arena of a recording hold at once."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.most = self.arena = 0
        self._kept = 0
        take, run = Heap.take, Recording.run
        monkeypatch.setattr(Heap, "take", lambda heap, size: (take(heap, size), self._note(heap))[0])
        monkeypatch.setattr(Recording, "run", lambda recording: (self._note_replay(), run(recording))[1])

    def _note(self, heap: Heap | None = None) -> None:
        if type(heap) is memory.Arena:
            self.arena = self._kept = heap.touched
        in_pools = sum(pool.in_use - sum(size for _, size in [*pool.returned]) for pool in blocks.pools)
        self.most = max(self.most, in_pools + self.arena)

    def _note_replay(self) -> None:
        self.arena = self._kept  # which was given back meanwhile, and is written to again
        self._note()

    def of(self, call: Callable[[], Any]) -> int:
        """Return the most that there is in a call."""
        gc.collect()
        memory.release()
        self.most = 0
        call()
        return self.most


def test_until_it_is_recorded_a_step_holds_no_more_than_when_it_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are most of it: one set of gradients beside another shows."""
    _, step = training(nn.Flatten(), nn.Linear(3072, 512), nn.ReLU(), nn.Linear(512, 512), nn.Linear(512, 10))
    step()  # makes the states of the optimizer
    captured, account = nnet.capture(step.func), Account(monkeypatch)
    once, first, recorded = (account.of(partial(f, *step.args)) for f in (step.func, captured, captured))
    assert account.arena > once // 3, "this test sees the memory of the recording"
    account.arena = 0  # a trial runs the function without it
    tried = account.of(partial(captured, *step.args))
    assert captured.replays == 1 and account.arena > once // 3
    assert max(first, recorded, tried) < 1.1 * once


def test_alone_in() -> None:
    box: list[Any] = [np.ones(4), np.ones(4)[1:], np.ones(4)]
    assert memory.alone_in(box, 0)
    held = box[0]
    assert not memory.alone_in(box, 0)
    del held
    part = box[0][1:]
    assert not memory.alone_in(box, 0)
    del part
    gc.collect()
    assert memory.alone_in(box, 0) and memory.alone_in(box, 1)
    box[2].flags.writeable = False
    assert not memory.alone_in(box, 2)
    box[2] = memory.empty((1 << 17,), np.float32)
    assert memory.alone_in(box, 2)
    other = box[2][5:]
    assert not memory.alone_in(box, 2)
    del other
    assert memory.alone_in(box, 2)
