"""Two GPUs: each has its memory, stream and kernels, and nothing moves between them unasked."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import numbanet as nnet
from numbanet import dispatch, memory, nn
from numbanet import functional as F
from numbanet.cuda import launch, probe
from numbanet.cuda.compile import Kernel
from numbanet.cuda.gpu import Gpu
from numbanet.problem.conv import conv2d_problem
from tests.capturing.trainer import REPLAYED, Trainer, both, compared
from tests.cuda.fake import FakeDriver


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDriver]:
    found = FakeDriver()
    monkeypatch.setattr(Kernel, "cubin", lambda self, dtype, capability: self.ptx(dtype, capability).encode())
    monkeypatch.setattr(probe, "reason", lambda: None)
    monkeypatch.setattr(probe, "device_count", lambda: 2)
    probe.beyond.cache_clear()
    monkeypatch.setattr(launch, "_make", lambda ordinal: Gpu(ordinal, found.core, found))
    monkeypatch.setattr(launch, "_gpus", {})
    monkeypatch.setattr(launch, "_only", None)
    yield found
    nnet.set_device("auto")
    probe.beyond.cache_clear()


def test_words_name_devices(driver: FakeDriver) -> None:
    values = np.arange(3, dtype=np.float32)
    x = nnet.tensor(values, device="cuda:1")
    assert x.device == "cuda:1" and list(launch._gpus) == [1], "the other is left alone"
    assert x.to("cuda:1") is x.to(1) is x.cuda(1) is x.cuda("cuda:1") is x
    here = nnet.tensor(values, device="cpu")
    assert here.cuda().device == here.to("cuda:0").device == here.cuda(0).device == here.to(0).device == "cuda"
    assert x.cpu().tolist() == [0, 1, 2] and "device='cuda:1'" in repr(x)
    with pytest.raises(RuntimeError, match="device 'cuda:2' can't be used: there are GPUs 0 to 1"):
        here.to("cuda:2")
    for word in ("cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0", "gpu"):
        with pytest.raises(ValueError, match=f"device must be one of .* got {word!r}"):
            nnet.set_device(word)
    with pytest.raises(ValueError, match="device must be the number of a GPU.*got 'cpu'"):
        here.cuda("cpu")


def test_the_chosen_one_takes_what_names_none(driver: FakeDriver) -> None:
    nnet.set_device("cuda:1")
    layer = nn.Linear(3, 2)
    assert nnet.tensor([1.0]).device == layer.weight.device == "cuda:1"
    assert nnet.tensor([1.0], device="cpu").cuda().device == "cuda:1"
    assert nnet.tensor([1.0], device="cuda").device == "cuda"
    assert layer.cuda(0).weight.device == "cuda"


def test_each_computes_on_its_own_memory(driver: FakeDriver) -> None:
    values = np.array([[-1.0, 2.0, 3.0], [0.5, -2.0, 1.0]], np.float32)
    for place in ("cuda", "cuda:1", "cuda"):
        x = nnet.tensor(values, device=place, requires_grad=True)
        y = F.relu(x * 2.0)
        (y + y).sum().backward()
        assert x.grad is not None and x.grad.device == y.device == place
        assert x.grad.tolist() == (4.0 * (values > 0)).tolist()
        assert y[:, 1].tolist() == [4, 0] and y.transpose(0, 1).reshape(-1).tolist() == [0, 1, 4, 0, 6, 2]
        whole = nnet.tensor([[3, -1], [2, 5]], device=place)
        assert ((whole + 1) * whole).sum(0).tolist() == [18, 30] and whole.max(1)[0].tolist() == [3, 5]
        assert whole[nnet.tensor([1, 0], device=place)].tolist() == [[2, 5], [3, -1]]
    first, second = launch._gpus.values()
    assert isinstance(first, Gpu) and isinstance(second, Gpu)
    assert first.pool is not second.pool and first.stream is not second.stream and first.pool.peak and second.pool.peak
    assert set(first._kernels) == set(second._kernels)


def test_arrays_of_two_gpus_do_not_mix(driver: FakeDriver) -> None:
    a, b = (nnet.tensor([1.0, 2.0], device=place) for place in ("cuda", "cuda:1"))
    with pytest.raises(ValueError, match="one device, got operand 0 on cuda, operand 1 on cuda:1"):
        a + b
    with pytest.raises(ValueError, match="one device"):
        F.linear(nnet.tensor([[1.0, 2.0]], device="cuda:1"), nnet.tensor([[1.0, 2.0]], device="cuda"))
    with pytest.raises(ValueError, match="an array on 'cuda:1' does not go to 'cuda' by itself"):
        a.data[...] = b.data
    whole = [nnet.tensor([1, 2], device=place) for place in ("cuda", "cuda:1")]
    with pytest.raises(ValueError, match="one device"):
        whole[0] + whole[1]
    with pytest.raises(ValueError, match="one device"):
        a[whole[1]]


def test_copies_between_gpus_wait_for_both(driver: FakeDriver) -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = nnet.tensor(values, device="cuda", requires_grad=True)
    former = nnet.tensor(np.full((2, 3), 7, np.float32), device="cuda:1") * 2.0  # memory that is used again
    del former
    y = (x * 2.0).transpose(0, 1).to("cuda:1")
    assert y.device == "cuda:1" and y.tolist() == (2 * values.T).tolist()
    (y * y).sum().backward()
    assert x.grad is not None and x.grad.device == "cuda" and x.grad.tolist() == (8 * values).tolist()


def test_release_gives_back_the_memory_of_every_gpu(driver: FakeDriver) -> None:
    kept = [nnet.tensor(np.ones(1000, np.float32), device=place) for place in ("cuda", "cuda:1")]
    for place in ("cuda", "cuda:1"):
        nnet.tensor(np.ones((2000, 3), np.float32), device=place)
    assert sorted(driver.places.values()) == [0, 0, 1, 1]
    memory.release()
    assert sorted(driver.places.values()) == [0, 1] and [x.sum().item() for x in kept] == [1000, 1000]


def test_info_tells_how_many_there_are(driver: FakeDriver) -> None:
    assert nnet.info().gpu == "works; there are 2: cuda:0 to cuda:1"
    assert "cuda.naive" in nnet.explain("conv2d", (1, 3, 4, 4), (2, 3, 1, 1), device="cuda:1")


def test_the_choice_of_a_kernel_is_that_of_the_gpu(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = conv2d_problem("forward", (1, 8, 4, 4), (8, 8, 1, 1), "float32")
    for place in (0, 1):
        launch.numbered(place)
    launch._gpus[1].capability = (9, 0, "a")
    seen = []
    monkeypatch.setattr(dispatch, "verdicts", lambda problem, device: seen.append(launch.capability()) or [])
    dispatch._choose.cache_clear()
    for place in (0, 1, 0, 1):
        with launch.executor(launch.numbered(place)), pytest.raises(ValueError, match="list is empty"):
            dispatch.choose(problem, "cuda")
    assert set(seen) == {(8, 0), (9, 0, "a")}
    dispatch._choose.cache_clear()


def test_a_step_on_the_second_gpu_is_a_graph_there(driver: FakeDriver) -> None:
    assert compared(driver, *both(driver), steps=4) == REPLAYED[:4]
    driver.calls.clear()
    there = Trainer("cuda:1")
    assert compared(driver, Trainer("cpu", captured=False), there, steps=4) == REPLAYED[:4]
    assert {p.device for p in there.model.parameters()} == {"cuda:1"}


def test_what_runs_on_two_gpus_is_no_graph(driver: FakeDriver) -> None:
    captured = nnet.capture(lambda x, y: (F.relu(x), F.relu(y)))
    with nnet.no_grad():
        for number in range(4):
            pair = [nnet.tensor([-1.0, number], device=place) for place in ("cuda", "cuda:1")]
            assert [t.tolist() for t in captured(*pair)] == [[0.0, number]] * 2
    assert captured.replays == 0
