"""Whole models train on a device as they do on the CPU: the device's kernels are interpreted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.cuda.launch import executor
from numbanet.models.googlenet import _renormalised
from tests.cuda.ptx.executor import HostDevice

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
LABELS = np.array([0, 3, 1, 3])


@pytest.fixture
def device() -> Iterator[HostDevice]:
    found = HostDevice()
    with executor(found):
        yield found


def network() -> nn.Module:
    generator = np.random.default_rng(1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False, generator=generator, device="cpu"), nn.BatchNorm2d(8, device="cpu"),
        nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, stride=2, padding=1, generator=generator, device="cpu"),
        nn.ReLU(), nn.Flatten(), nn.Linear(48, 4, generator=generator, device="cpu"),
    )  # fmt: skip


def trained(place: str, steps: int = 2) -> tuple[list[float], dict[str, np.ndarray]]:
    model = network().to(place)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    images, labels = nnet.tensor(IMAGES, device=place), nnet.tensor(LABELS, device=place)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels, label_smoothing=0.1)
        loss.backward()
        optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses, {name: np.array(value) for name, value in model.state_dict().items()}


def test_a_convnet_trains_as_on_the_cpu(device: HostDevice) -> None:
    losses, state = trained("cuda")
    launched = len(device.launched)
    expected_losses, expected = trained("cpu")
    assert launched > 50 and len(device.launched) == launched, "the CPU's training launches nothing"
    assert losses == pytest.approx(expected_losses, rel=1e-5) and losses[1] < losses[0]
    assert state.keys() == expected.keys()
    for name, values in expected.items():
        assert np.allclose(state[name], values, rtol=1e-4, atol=1e-5), name


def test_nothing_moves_by_itself(device: HostDevice) -> None:
    model = network().cuda()
    assert {p.device for p in model.parameters()} == {b.device for b in model.buffers()} == {"cuda"}
    with pytest.raises(ValueError, match="all operands must be on one device, got operand 0 on cpu, operand 1 on cuda"):
        model(nnet.tensor(IMAGES, device="cpu"))
    with nnet.no_grad(), pytest.raises(ValueError, match="all operands must be on one device"):
        model(nnet.tensor(IMAGES, device="cpu"))  # whose weights are prepared
    with pytest.raises(ValueError, match="all operands must be on one device"):
        nnet.tensor([1.0, 2.0], device="cuda") + nnet.tensor([1.0, 2.0], device="cpu")
    x = nnet.tensor([1.0, 2.0], device="cuda")
    with pytest.raises(TypeError, match=r"cpu\(\)\.numpy\(\)"):
        x.numpy()
    assert x.cpu().numpy().tolist() == x.tolist() == [1, 2] and "device='cuda'" in repr(x)
    assert model.cpu() is model and {p.device for p in model.parameters()} == {"cpu"}


def test_where_new_tensors_live(device: HostDevice) -> None:
    assert nnet.tensor([1.0]).device == nn.Linear(2, 2).weight.device == nn.BatchNorm2d(2).running_mean.device == "cuda"
    assert nnet.tensor([1.0], device="cpu").device == nn.Linear(2, 2, device="cpu").bias.device == "cpu"
    nnet.set_device("cpu")
    try:
        assert nnet.tensor([1.0]).device == nn.Conv2d(2, 2, 1).weight.device == "cpu"
    finally:
        nnet.set_device("auto")


def test_a_model_is_run_where_it_lies_for_its_summary(device: HostDevice) -> None:
    there, here = (nn.summary(network().to(place), (3, 8, 8)) for place in ("cuda", "cpu"))
    assert device.launched and there == here


def test_constants_of_a_model_follow_its_images(device: HostDevice) -> None:
    found, expected = (_renormalised(nnet.tensor(IMAGES, device=place)) for place in ("cuda", "cpu"))
    assert found.device == "cuda" and np.allclose(found.cpu().numpy(), expected.numpy(), rtol=1e-6, atol=1e-6)


def test_gradients_cross_devices(device: HostDevice) -> None:
    x = nnet.tensor([1.0, -2.0], requires_grad=True, device="cpu")
    (x.cuda() * 3.0).sum().backward()
    assert x.grad is not None and x.grad.device == "cpu" and x.grad.tolist() == [3, 3]


def test_states_cross_devices(device: HostDevice) -> None:
    there, here = network().cuda(), network()
    for parameter in there.parameters():
        nn.init.constant_(parameter, 0.5)
    here.load_state_dict(there.state_dict())
    assert all((p.numpy() == 0.5).all() for p in map(nnet.Tensor.detach, here.parameters()))
    there.load_state_dict(here.state_dict())
    assert {p.device for p in there.parameters()} == {"cuda"} and {p.device for p in here.parameters()} == {"cpu"}


def test_whole_numbers_and_booleans(device: HostDevice) -> None:
    a, b = np.arange(-6, 6).reshape(3, 4), np.array([[3], [0], [2]])
    on = [nnet.tensor(v, device="cuda") for v in (a, b)]
    x, y = on
    cube = x.reshape(1, 3, 4)
    cases = {
        "add": (x + y, a + b), "number": (2 - x * 3, 2 - a * 3), "power": (x**2, a**2), "equal": (x == y, a == b),
        "less": (x < 1, a < 1), "not": (~(x > y), ~(a > b)), "and": ((x > 0) & (y > 2), (a > 0) & (b > 2)),
        "bits": (x | 5, a | 5), "sum": (x.sum(0), a.sum(0)), "count": ((x > 0).sum(), (a > 0).sum()),
        "largest": (x.max(1)[0], a.max(1)), "where": (x.argmin(1), a.argmin(1)),
        "float": (x / 2, a.astype(np.float32) / 2),
        "clamp": (x.clamp(-1, 2), a.clip(-1, 2)), "minimum": (F.minimum(x, y), np.minimum(a, b)),
        "rows": (x[nnet.tensor([2, -3], device="cuda")], a[[2, -3]]),
        "pairs": (x[nnet.tensor([[2], [0]], device="cuda"), nnet.tensor([-1, 1, 0], device="cuda")],
                  a[[[2], [0]], [-1, 1, 0]]),
        "pairs within": (cube[:, nnet.tensor([0, 2], device="cuda"), nnet.tensor([1, -4], device="cuda")],
                         a.reshape(1, 3, 4)[:, [0, 2], [1, -4]]),
        "columns": (x[:, nnet.tensor([[1, 0]], device="cuda")], a[:, [[1, 0]]]),
    }  # fmt: skip
    for name, (found, expected) in cases.items():
        assert found.device == "cuda" and found.dtype == expected.dtype, name
        assert np.array_equal(found.cpu().numpy(), expected), name


def test_gradients_of_pairs(device: HostDevice) -> None:
    found = []
    for place in ("cpu", "cuda"):
        x = nnet.tensor(np.arange(12, dtype=np.float32).reshape(3, 4), requires_grad=True, device=place)
        rows, columns = (nnet.tensor(v, device=place) for v in ([0, 1, -1, 0], [3, 0, 2, 3]))
        (x[rows, columns] * nnet.tensor([1.0, 2.0, 3.0, 4.0], device=place)).sum().backward()
        assert x.grad is not None
        found.append(x.grad.tolist())
    assert found[0] == found[1]


def test_labels_of_any_strides(device: HostDevice) -> None:
    scores = np.random.default_rng(2).standard_normal((5, 4)).astype(np.float32)
    table = np.array([[3, 0], [1, 1], [0, 2], [2, 3], [1, 0]])
    losses = (F.cross_entropy, F.nll_loss, F.multi_margin_loss)
    found = []
    for place in ("cpu", "cuda"):
        x, labels = nnet.tensor(scores, device=place), nnet.tensor(table, device=place)
        chosen = (labels[:, 0], labels[:, 1], labels[:1, 0].expand(5))
        found.append([loss(x, those).item() for loss in losses for those in chosen])
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_gradients_of_bounds(device: HostDevice) -> None:
    found = []
    for place in ("cpu", "cuda"):
        x, low, high = (
            nnet.tensor(v, requires_grad=True, device=place, dtype=np.float32)
            for v in ([[-2, 0, 3], [5, 1, -1]], [-1, 1, 2], [[1], [0]])
        )
        F.clamp(x, low, high).sum().backward()
        found.append([t.grad.tolist() for t in (x, low, high) if t.grad is not None])
    assert len(found[0]) == 3 and found[0] == found[1]
