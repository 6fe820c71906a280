"""Captured inferences on a GPU: the graph that is replayed does what the function does, whatever changed meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import numbanet as nnet
from numbanet import nn
from numbanet.capturing import Captured
from numbanet.cuda import indexing
from numbanet.watch import Watch, watching
from tests.cuda.fake import FakeDriver


def network() -> nn.Module:
    generator = np.random.default_rng(1)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, generator=generator, device="cpu"), nn.BatchNorm2d(8, device="cpu"),
        nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 4, generator=generator, device="cpu"),
    )  # fmt: skip
    model(nnet.tensor(values(2, 0), device="cpu"))  # statistics of its own
    return model.eval()


def values(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 4, 4)).astype(np.float32)


def check(driver: FakeDriver, captured: Captured, model: nn.Module, count: int, seed: int) -> int:
    """Compare with the CPU; return how many graphs ran."""
    x = nnet.tensor(values(count, seed), device="cuda")
    driver.calls.clear()
    found = captured(x)
    graphs = driver.calls.count("graph")
    expected = model(nnet.tensor(values(count, seed), device="cpu"))
    np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)
    return graphs


def test_a_captured_model_is_a_graph(driver: FakeDriver) -> None:
    here, there = network(), network().cuda()
    captured = nnet.capture(there)
    with nnet.no_grad():
        ran = [check(driver, captured, here, 2, seed) for seed in range(5)]
        assert ran == [0, 0, 2, 1, 1], "got to know, recorded, tried and replayed, replayed"
        names = [call for call in driver.calls if call.startswith("numbanet_")]
        assert driver.calls.count("graph") == 1 and any("gemm" in name for name in names)
        assert not any("norm" in name for name in names), "the batch norm is part of the convolution"
        assert [check(driver, captured, here, count, 7) for count in (3, 3, 3, 2, 3)] == [0, 0, 2, 1, 1]


def test_changes_are_seen(driver: FakeDriver) -> None:
    here, there = network(), network().cuda()
    captured = nnet.capture(there)
    with nnet.no_grad():
        for seed in range(3):
            check(driver, captured, here, 2, seed)
        for model in (here, there):
            nn.init.constant_(model[5].bias, 3.0)  # type: ignore[index]
            model[1].running_mean += 0.5  # type: ignore[index, operator]
        assert [check(driver, captured, here, 2, seed) for seed in range(3, 7)][-1] == 1
        first = captured(nnet.tensor(values(2, 8), device="cuda"))
        second = captured(nnet.tensor(values(2, 9), device="cuda"))
        assert first.tolist() != second.tolist(), "results are arrays of their own"


def test_a_mask_is_counted_each_time(driver: FakeDriver) -> None:
    """Python waits for the number of what is true: a graph would go on with that of the recording."""
    positive = nnet.capture(lambda x: x[x > 0] * 2.0)
    with nnet.no_grad():
        for share in (0.2, 0.4, 0.9, 0.6, 0.0):
            x = np.where(np.arange(20) < 20 * share, 1.0, -1.0).astype(np.float32)
            assert positive(nnet.tensor(x, device="cuda")).tolist() == [2.0] * round(20 * share)


def test_whoever_waits_for_values_makes_a_doubt(driver: FakeDriver) -> None:
    mask = nnet.tensor([True, False, True], device="cuda").data
    waits: dict[str, Callable[[], object]] = {
        "places": lambda: indexing.true_places(mask), "host": mask.to_host, "list": mask.tolist,
        "norms": lambda: nnet.ops.vector_norms([nnet.tensor([3.0, 4.0], device="cuda").data]),
    }  # fmt: skip
    for name, wait in waits.items():
        watch = Watch()
        with watching(watch):
            wait()
        assert "values were brought from the GPU, for Python to read" in watch.doubts, name


def test_a_model_may_begin_with_a_view(driver: FakeDriver) -> None:
    """A view of an operand is the operand's memory."""
    there = nn.Sequential(nn.Flatten(), nn.Linear(48, 4, device="cpu")).eval()
    here = nn.Sequential(nn.Flatten(), nn.Linear(48, 4, device="cpu")).eval()
    here.load_state_dict(there.state_dict())
    captured = nnet.capture(there.cuda())
    with nnet.no_grad():
        assert [check(driver, captured, here, 2, seed) for seed in range(4)] == [0, 0, 2, 1]
