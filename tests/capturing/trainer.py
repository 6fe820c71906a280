"""Training steps for the tests of captured ones: made on the CPU as they are, and captured there or on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

import numbanet as nnet
from numbanet import functional as F
from numbanet import nn, optim
from numbanet.tensor import Tensor

REPLAYED = [0, 0, 2, 1, 1]  # how many graphs ran: got to know, recorded, tried and replayed, replayed
Change = Callable[["Trainer", int], None]


def batch(seed: int, count: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, 6)).astype(np.float32), rng.integers(0, 6, count)


class Affine(nn.Module):
    """y = x * weight + bias: few instructions to interpret."""

    def __init__(self) -> None:
        super().__init__()
        rng = np.random.default_rng(1)
        self.weight, self.bias = (nn.Parameter(rng.standard_normal(6).astype(np.float32)) for _ in range(2))

    def forward(self, input: Tensor) -> Tensor:
        return input * self.weight + self.bias


def small() -> nn.Module:
    return nn.Sequential(Affine())


def whole() -> nn.Module:
    """A network with all that changes from step to step: running averages, and random numbers."""
    generator = np.random.default_rng(1)
    return nn.Sequential(
        nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 8, 1, generator=generator, device="cpu"),
        nn.BatchNorm2d(8, device="cpu"), nn.ReLU(), nn.Flatten(), nn.Dropout(0.4),
        nn.Linear(8, 6, generator=generator, device="cpu"),
    )  # fmt: skip


def sgd(parameters: Any) -> optim.Optimizer:
    return optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-2)


def adam(parameters: Any) -> optim.Optimizer:
    return optim.Adam(parameters, lr=0.05)


class Trainer:
    """A model, its optimizer, and a step."""

    def __init__(
        self, place: str, make: Callable[[], nn.Module] = small,
        optimizer: Callable[[Any], optim.Optimizer] = sgd, step: Callable[..., Any] | None = None,
        captured: bool = True,
    ):  # fmt: skip
        self.model = make().to(place)
        self.place, self.optimizer = place, optimizer(self.model.parameters())
        function = usual if step is None else step
        # Not a method: what else the trainer holds is no business of the step.
        model, own = self.model, self.optimizer
        self.plain: Callable[..., Any] = lambda x, y: function(model, own, x, y)
        self.run = nnet.capture(self.plain) if captured else self.plain

    def tensors(self, seed: int, count: int = 4) -> tuple[Tensor, ...]:
        return tuple(nnet.tensor(values, device=self.place) for values in batch(seed, count))

    def step(self, seed: int, count: int = 4) -> Any:
        return self.run(*self.tensors(seed, count))

    def state(self) -> dict[str, np.ndarray]:
        """Return all that a step changes, on the host."""
        found = {name: np.array(value) for name, value in self.model.state_dict().items()}
        for number, p in enumerate(self.model.parameters()):
            found[f"gradient {number}"] = np.zeros(()) if p.grad is None else p.grad.cpu().numpy().copy()
            for name, value in self.optimizer.state.get(p, {}).items():
                found[f"{name} {number}"] = np.array(nnet.memory.on_host(value))
        return found


def usual(model: nn.Module, optimizer: optim.Optimizer, x: Tensor, y: Tensor) -> Tensor:
    """The step that everybody makes."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return loss


class Replayer(Protocol):
    """Where steps are captured, and what was done there: each replay adds a ``"graph"`` to the calls."""

    place: str
    calls: list[str]


def both(driver: Replayer, *args: Any, **kwargs: Any) -> tuple[Trainer, Trainer]:
    return Trainer("cpu", *args, **kwargs, captured=False), Trainer(driver.place, *args, **kwargs)


def numbers(result: Any) -> list[Any]:
    """Return the numbers of a result in one list."""
    if isinstance(result, (tuple, list)):
        return [value for item in result for value in numbers(item)]
    return np.ravel(result.detach().tolist() if isinstance(result, Tensor) else result).tolist()


def compared(
    driver: Replayer, here: Trainer, there: Trainer, steps: int = 5, change: Change = lambda trainer, number: None,
    count: Callable[[int], int] = lambda number: 4,
) -> list[int]:  # fmt: skip
    """Make steps on both, after a change that is made to both; return how many graphs ran in each.

    In the third step, the first that is replayed if nothing is in the way, and in all that follow, results and state
    must be the same but for rounding.
    """
    graphs = []
    nnet.manual_seed(steps)
    for number in range(steps):
        for trainer in (here, there):
            change(trainer, number)
        draws = nnet.random.get_state()
        expected = here.step(number, count(number))
        nnet.random.set_state(draws)
        driver.calls.clear()
        found = there.step(number, count(number))
        graphs.append(driver.calls.count("graph"))
        np.testing.assert_allclose(numbers(found), numbers(expected), rtol=1e-4, atol=1e-5)
        state, wanted = there.state(), here.state()
        assert state.keys() == wanted.keys()
        for name in wanted:
            message = f"{name} after step {number}"
            np.testing.assert_allclose(state[name], wanted[name], rtol=1e-4, atol=1e-5, err_msg=message)
    return graphs
