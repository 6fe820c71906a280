"""Captured functions: the same numbers, fewer kernels, and replays that see every change that they must see."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.capturing import Captured
from numbanet.cpu import parallel
from numbanet.models.resnet import BasicBlock
from numbanet.tensor import Tensor

RNG = np.random.default_rng(0)


def images(n: int = 2, c: int = 8) -> Tensor:
    return nnet.tensor(RNG.standard_normal((n, c, 10, 10), dtype=np.float32))


def network() -> nn.Sequential:
    model = nn.Sequential(
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), BasicBlock(16, 16), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(400, 12), nn.ReLU(), nn.Dropout(0.5), nn.Linear(12, 5),
    )  # fmt: skip
    model(images())  # statistics of its own
    return model.eval()


def check(captured: Captured, function: Callable[..., Any], *args: Any) -> None:
    with nnet.no_grad():
        expected = function(*args).numpy()
        np.testing.assert_allclose(captured(*args).numpy(), expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def replays(monkeypatch: pytest.MonkeyPatch, call: Callable[[], Any]) -> bool:
    """Return whether a call runs kernels without choosing them."""
    chosen: list[Any] = []
    original = nnet.dispatch.run
    with monkeypatch.context() as patch:
        patch.setattr(nnet.dispatch, "run", lambda p, *rest: (chosen.append(p), original(p, *rest))[1])
        call()
    return all(problem.operation == "copy" for problem in chosen)


def test_an_inference_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    captured = nnet.capture(model)
    for _ in range(4):
        check(captured, model, images())
    x = images()
    with nnet.no_grad():
        assert replays(monkeypatch, lambda: captured(x))
        first = captured(x)
        second = captured(images())
    assert not np.shares_memory(first.data, second.data)
    np.testing.assert_allclose(first.numpy(), infer(model, x), rtol=1e-3, atol=1e-4)


def infer(model: nn.Module, x: Tensor) -> np.ndarray:
    with nnet.no_grad():
        return model(x).numpy()


def test_other_shapes_dtypes_and_settings_are_recorded_anew() -> None:
    model = network()
    captured = nnet.capture(model)
    for n in (2, 3, 1, 2, 3, 1, 2, 3, 1):
        check(captured, model, images(n))
    for _ in range(3):
        with nnet.precision("strict"):
            check(captured, model, images())
        with nnet.use("reference"):
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


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.load_state_dict({k: np.array(v) * 0.5 for k, v in model.state_dict().items()}),
        lambda model: model[0].weight.data.__setitem__(..., 0.25),
        lambda model: setattr(model[9].weight, "data", model[9].weight.data * 2),
        lambda model: setattr(model[9], "weight", nn.Parameter(np.ones((5, 12), np.float32))),
        lambda model: model.__setitem__(4, nn.AvgPool2d(2)),
        lambda model: model[1].reset_running_stats(),
        lambda model: model[3].bn1.train(),
    ],
    ids=["load", "write", "data", "parameter", "module", "statistics", "mode"],
)
def test_changes_are_seen(change: Callable[[Any], Any]) -> None:
    model = network()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, images())
    change(model)
    model[3].bn1.momentum = 0.0  # in training mode it shall not move under the comparison
    for _ in range(4):
        check(captured, model, images())


def test_functions_with_many_operands_and_results() -> None:
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
            np.testing.assert_array_equal(ours["sum"].numpy(), plain["sum"].numpy())
            np.testing.assert_array_equal(ours["all"][1][2].numpy(), plain["all"][1][2].numpy())
            assert ours["all"][1][1] == "word"
        with pytest.raises(TypeError, match="take Tensors and hashable values, got set"):
            captured(pair, {1}, extra=extra)
    with pytest.raises(TypeError, match="function must be callable, got int"):
        nnet.capture(3)  # type: ignore[arg-type]


def test_what_a_replay_would_miss_is_not_replayed() -> None:
    model = nn.Conv2d(8, 4, 3)

    def by_numpy(x: Tensor) -> Tensor:
        return nnet.tensor(np.sin(model(x).numpy()))

    def random(x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)

    def by_value(x: Tensor) -> Tensor:
        return x * float(x.sum())

    for function in (by_numpy, by_value):
        captured = nnet.capture(function)
        for _ in range(4):
            check(captured, function, images())
    captured, x = nnet.capture(random), images()
    with nnet.no_grad():
        drawn = [captured(x).numpy() for _ in range(5)]
    assert len({y.tobytes() for y in drawn}) == 5


def test_a_fused_model_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    captured, x = nnet.capture(nn.fuse(model)), images()
    for _ in range(3):
        check(captured, model, x)
    with nnet.no_grad():
        assert replays(monkeypatch, lambda: captured(x))


def test_a_recording_leaves_weights_prepared() -> None:
    model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1)).eval()
    captured = nnet.capture(model)
    with nnet.use("cpu.direct"):
        for n in (2, 2, 3, 3):
            check(captured, model, images(n))
    assert [len(plan._recording.launches) for plan in captured._plans.values()] == [1, 1], "packed by each replay"


def test_changes_elsewhere_leave_a_recording(monkeypatch: pytest.MonkeyPatch) -> None:
    model, other, x = network(), nn.Linear(3, 3), images()
    captured = nnet.capture(model)
    for _ in range(2):
        check(captured, model, x)
    for _ in range(2):
        other.weight.data[...] = 1.0
        with nnet.no_grad():
            assert replays(monkeypatch, lambda: captured(x))


def test_modules_in_training_mode_are_run() -> None:
    model = nn.Sequential(nn.BatchNorm2d(8), nn.Dropout(0.5))
    captured, x = nnet.capture(model), images()
    with nnet.no_grad():
        drawn = [captured(x).numpy() for _ in range(4)]
    assert len({y.tobytes() for y in drawn}) == 4
    assert model[0].num_batches_tracked.item() == 4


class Training:
    """A training step, plain or captured."""

    def __init__(self) -> None:
        generator = np.random.default_rng(3)
        self.model = nn.Sequential(
            nn.Conv2d(8, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
            Residual(generator), nn.Flatten(), nn.Dropout(0.25), nn.Linear(1600, 5, generator=generator),
        )  # fmt: skip
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)

    def step(self, x: Tensor, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(x), labels)
        loss.backward()
        self.optimizer.step()
        return loss


class Residual(nn.Module):
    def __init__(self, generator: np.random.Generator) -> None:
        super().__init__()
        self.a, self.norm_a = nn.Conv2d(16, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16)
        self.b, self.norm_b = nn.Conv2d(16, 16, 3, padding=1, generator=generator), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm_a(self.a(x)))
        y = self.norm_b(self.b(y))
        y += x
        return F.relu(y)


def test_a_captured_training_step_learns_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, fused = Training(), Training()
    step = nnet.capture(fused.step)
    seen: list[str] = []
    original = nnet.dispatch.run
    for number in range(6):
        x, labels = images(8), nnet.tensor(RNG.integers(0, 5, 8))
        nnet.manual_seed(number)
        expected = plain.step(x, labels).item()
        nnet.manual_seed(number)
        with monkeypatch.context() as patch:
            patch.setattr(
                nnet.dispatch, "run", lambda problem, *rest: (seen.append(problem.operation), original(problem, *rest))
            )
            loss = step(x, labels).item()
        assert loss == pytest.approx(expected, rel=1e-4)
    assert "activation" not in seen, "each ReLU is part of a batch norm"
    assert seen.count("batch_norm") == 6 * 6, "three forward, three backward"
    for (name, ours), theirs in zip(fused.model.named_parameters(), plain.model.parameters()):
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-3, atol=1e-4, err_msg=name)
    for ours, theirs in zip(fused.model.buffers(), plain.model.buffers()):
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-4, atol=1e-6)


class ReadTwice(nn.Module):
    """The result of a batch norm is read after its ReLU, and before."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        z = F.relu(y)
        a = z * y
        w = self.norm(a)
        b = w * 1.0
        return F.relu(w) + b


def test_running_averages_follow_each_batch_once() -> None:
    plain, fused, x = ReadTwice(), ReadTwice(), images()
    captured = nnet.capture(fused)
    for _ in range(3):
        expected, y = plain(x), captured(x)
        np.testing.assert_allclose(y.detach().numpy(), expected.detach().numpy(), rtol=1e-4, atol=1e-5)
        expected.sum().backward()
        y.sum().backward()
    for ours, theirs in zip(fused.buffers(), plain.buffers()):
        np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-5)
    for ours, theirs in zip(fused.parameters(), plain.parameters()):
        np.testing.assert_allclose(ours.grad.data, theirs.grad.data, rtol=1e-3, atol=1e-3)


def test_gradients_survive_a_look_under_no_grad() -> None:
    model = nn.BatchNorm2d(8)

    def function(x: Tensor) -> Tensor:
        y = model(x)
        with nnet.no_grad():
            assert np.isfinite(y.numpy() if not y.requires_grad else y.detach().numpy()).all()
        return y.sum()

    x = images().requires_grad_()
    nnet.capture(function)(x).backward()
    assert x.grad is not None and model.bias.grad is not None
    np.testing.assert_allclose(model.bias.grad.data, 200.0)


def test_same_bits_for_any_number_of_threads() -> None:
    model = network()
    captured, x = nnet.capture(model), images()
    with nnet.no_grad():
        for _ in range(2):
            captured(x)
        before = parallel.get_num_threads()
        results = []
        try:
            for threads in {1, before}:
                parallel.set_num_threads(threads)
                results.append(captured(x).numpy().tobytes())
        finally:
            parallel.set_num_threads(before)
    assert len(set(results)) == 1


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
    blocks = {id(a.base): a.base.nbytes for a in arrays if a.base is not None}
    activation = x.data.nbytes
    assert 2 <= sum(activation <= size < 2 * activation for size in blocks.values()) <= 4, "of twelve layers"


def plan_of(captured: Captured) -> Any:
    (plan,) = captured._plans.values()
    return plan


def test_parameters_that_no_called_module_has_are_watched() -> None:
    p = nn.Parameter(RNG.standard_normal((4, 8, 3, 3), dtype=np.float32))
    a, b = nn.Conv2d(8, 8, 3).eval(), nn.Conv2d(8, 4, 3)
    pair = nn.ModuleList([a, b])

    def beside(x: Tensor) -> Tensor:
        return F.conv2d(a(x), b.weight)

    def bare(x: Tensor) -> Tensor:
        return F.conv2d(x, p)

    for function, weight in ((bare, p), (beside, pair[1].weight)):
        captured = nnet.capture(function)
        for _ in range(3):
            check(captured, function, images())
        assert plan_of(captured).recorded
        weight.data[...] *= 2
        check(captured, function, images())
        weight.grad = nnet.tensor(np.ones(weight.shape, np.float32))
        for _ in range(3):
            check(captured, function, images())
        optim.SGD([weight], lr=0.5).step()
        for _ in range(3):
            check(captured, function, images())


def test_tensors_that_are_not_watched_are_not_replayed() -> None:
    w = nnet.tensor(RNG.standard_normal((4, 8, 3, 3), dtype=np.float32))
    shift, array = nnet.tensor(1.0), np.ones((2, 8, 10, 10), np.float32)
    convolve, add, join = (lambda x: F.conv2d(x, w)), (lambda x: x + shift), (lambda x: x + array)
    layer = nn.Conv2d(8, 8, 3, padding=1).eval()
    shortcut = nnet.tensor(array)
    for function in (convolve, add, join, lambda x: layer(x) + shortcut):
        captured = nnet.capture(function)
        for _ in range(4):
            check(captured, function, images())
            w.data = w.data * 2
            shift.data = shift.data + 1
            shortcut.data = shortcut.data * 3
            array += 1


def test_values_that_python_reads_are_not_replayed() -> None:
    conv = nn.Conv2d(8, 8, 3, padding=1).eval()
    functions: list[Callable[[Tensor], Tensor]] = [
        lambda x: conv(x) + nnet.tensor(np.sort(x.data.ravel())[-1:]),
        lambda x: conv(x) * float(x.sum()),
        lambda x: conv(x) if x.sum() > 0 else -conv(x),
        lambda x: conv(x) if x.data.max() > 0.5 else -conv(x),
        lambda x: conv(x) * 2.0 if conv(x).relu().data.any() else conv(x),
        lambda x: x[x.argmax(0)[0, 0, 0].item() :],
    ]
    for function in functions:
        captured = nnet.capture(function)
        for x in (np.zeros, np.ones, np.zeros, np.ones):
            check(captured, function, nnet.tensor(x((2, 8, 10, 10), np.float32)))
        for _ in range(3):
            check(captured, function, images())
            check(captured, function, -images())


def test_large_sums_are_not_replayed() -> None:
    """They are looked at, and done anew where a part of them overflowed: the recording was of one that did not."""
    total = nnet.capture(lambda x: x.sum(0))
    rows = np.zeros((16384, 64), np.float32)
    rows[:8], rows[-8:] = 3e38, -3e38
    with nnet.no_grad():
        for _ in range(3):
            total(nnet.tensor(np.ones_like(rows)))
        assert total(nnet.tensor(rows)).tolist() == [0.0] * 64


def test_integer_operands_are_not_replayed() -> None:
    table = nn.Parameter(RNG.standard_normal((7, 3), dtype=np.float32))
    captured = nnet.capture(lambda i: table[i] * 2.0)
    with nnet.no_grad():
        for value in (3, 3, 3, 5):
            np.testing.assert_array_equal(captured(nnet.tensor([value])).data, table.data[[value]] * 2)


def test_random_draws_are_not_replayed() -> None:
    captured, x = nnet.capture(lambda x: F.dropout(x, training=True)), images()
    with nnet.no_grad():
        for _ in range(3):
            captured(nnet.tensor(np.zeros(x.shape, np.float32)))
        assert len({captured(x).numpy().tobytes() for _ in range(4)}) == 4


def test_captured_functions_within_captured_ones() -> None:
    model = network()
    inner = nnet.capture(model)
    function = nnet.capture(lambda x: inner(x) * 2.0)
    with nnet.no_grad():
        for _ in range(3):
            inner(images())
        for _ in range(4):
            x = images()
            np.testing.assert_allclose(function(x).numpy(), 2 * infer(model, x), rtol=1e-3, atol=1e-3)
        assert plan_of(function).recorded
        model[9].bias.data[...] += 100
        x = images()
        np.testing.assert_allclose(function(x).numpy(), 2 * infer(model, x), rtol=1e-3, atol=1e-3)


def test_what_a_function_changes_or_keeps_stays_right() -> None:
    conv, average = nn.Conv2d(8, 8, 3, padding=1).eval(), nnet.tensor(0.0)
    kept: list[Tensor] = []

    def averaging(x: Tensor) -> Tensor:
        average.mul_(0.5)
        average.add_(x.mean() * 0.5)
        return conv(x)

    def keeping(x: Tensor) -> Tensor:
        y = conv(x)
        kept.append(y)
        return F.relu(y)

    def viewing(x: Tensor) -> Tensor:
        kept.append(x[:, 0])
        return conv(x)

    captured, expected = nnet.capture(averaging), 0.0
    with nnet.no_grad():
        for _ in range(5):
            x = images()
            captured(x)
            expected = expected * 0.5 + x.numpy().mean() * 0.5
            assert average.item() == pytest.approx(expected, abs=1e-6)
        given = [images() for _ in range(5)]
        captured = nnet.capture(keeping)
        for x in given:
            captured(x)
        assert len(kept) == 5
        for x, y in zip(given, kept):
            np.testing.assert_allclose(y.numpy(), infer(conv, x), rtol=1e-4, atol=1e-5)
        kept.clear()
        captured = nnet.capture(viewing)
        for x in given:
            captured(x)
        assert len(kept) == 5
        for x, y in zip(given, kept):
            np.testing.assert_array_equal(y.numpy(), x.numpy()[:, 0])


def test_operands_are_changed_in_place() -> None:
    conv = nn.Conv2d(8, 8, 3).eval()
    captured = nnet.capture(lambda x: conv(x.mul_(2)))
    with nnet.no_grad():
        for _ in range(4):
            x = images()
            twice = x.clone() * 2.0
            np.testing.assert_allclose(captured(x).numpy(), infer(conv, twice), rtol=1e-4, atol=1e-5)
            np.testing.assert_array_equal(x.numpy(), twice.numpy())


@pytest.mark.parametrize(
    "change",
    [
        lambda model: setattr(model[0], "stride", (2, 2)),
        lambda model: setattr(model[0], "padding", (0, 0)),
        lambda model: setattr(model[1], "eps", 3.0),
        lambda model: setattr(model[2], "forward", lambda x: x * 3.0),
        lambda model: model[2].register_forward_hook(lambda module, args, y: y * 3.0),
        lambda model: setattr(model, "factors", [5.0]),
        lambda model: model.factors.append(5.0),
        lambda model: model.options.update(scale=7.0),
        lambda model: vars(model).update(factors=[5.0]),
        lambda model: model._modules.update({"2": nn.Identity()}),
        lambda model: setattr(model[1].running_mean, "data", model[1].running_mean.data + 1.0),
    ],
    ids=[
        "stride", "padding", "eps", "forward", "hook", "list", "append", "dictionary", "straight", "table", "buffer",
    ],
)
def test_changed_attributes_are_seen(change: Callable[[Any], Any]) -> None:
    class Scaled(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Conv2d(8, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
            self.factors, self.options = [2.0, 3.0], {"scale": 1.0}

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * sum(self.factors) * self.options["scale"]

    model = Scaled().eval()
    captured = nnet.capture(model)
    for _ in range(3):
        check(captured, model, images())
    assert plan_of(captured).recorded
    change(model)
    for _ in range(4):
        check(captured, model, images())


def test_results_keep_their_types() -> None:
    p = nn.Parameter(np.ones(3, np.float32))
    ordered = nnet.capture(lambda x: OrderedDict(a=x * 2.0, b=x * 3.0))
    owned = nnet.capture(lambda x: (x * 2.0, p))
    with nnet.no_grad():
        for _ in range(4):
            assert type(ordered(images())) is OrderedDict
            assert owned(images())[1] is p
    assert plan_of(ordered).recorded


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_lock_is_renewed_after_a_fork() -> None:
    captured = nnet.capture(F.relu)
    holder, release = threading.Event(), threading.Event()

    def hold() -> None:
        with captured._lock:
            holder.set()
            release.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    holder.wait()
    try:
        child = os.fork()
        if child == 0:
            os._exit(0 if captured._lock.acquire(blocking=False) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        release.set()
        thread.join()


def test_tables_of_arrays_are_not_replayed() -> None:
    def halve(t: Tensor) -> Tensor:
        y = t * 2.0
        nnet.ops.scale_([y.data], 0.5)
        y.bump_version()
        return y + 1.0

    captured = nnet.capture(halve)
    for _ in range(4):
        check(captured, halve, images())
    assert not plan_of(captured).recorded


def test_another_number_of_threads_is_recorded_anew() -> None:
    before = nnet.get_num_threads()
    if before < 2:
        pytest.skip("one core")
    captured, x = nnet.capture(network()), images()
    try:
        with nnet.no_grad():
            for count in (1, 2, 1):
                nnet.set_num_threads(count)
                results = [captured(x).numpy().tobytes() for _ in range(3)]
                assert len(set(results)) == 1
    finally:
        nnet.set_num_threads(before)
    assert len(captured._plans) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_records_anew() -> None:
    captured, x = nnet.capture(network()), images()
    with nnet.no_grad():
        expected = [captured(x).numpy() for _ in range(3)][-1]
        child = os.fork()
        if child == 0:
            fresh = not captured._plans
            os._exit(0 if fresh and np.array_equal(captured(x).numpy(), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
