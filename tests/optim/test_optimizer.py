"""Parameter groups, state, checks and the loop of optimizers."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn, optim
from numbanet.io.state import load_state, save_state
from numbanet.tensor import Tensor

MAKERS: dict[str, Any] = {
    "SGD": lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: optim.Adam(p, amsgrad=True, weight_decay=0.1),
    "AdamW": lambda p: optim.AdamW(p),
    "RMSprop": lambda p: optim.RMSprop(p, momentum=0.9, centered=True),
    "Adagrad": lambda p: optim.Adagrad(p, lr_decay=0.1, initial_accumulator_value=0.5),
    "Adadelta": lambda p: optim.Adadelta(p, weight_decay=0.1),
}


def parameter(*shape: int, channels_last: bool = False, seed: int = 0) -> Tensor:
    values = np.random.default_rng(seed).standard_normal(shape)
    if channels_last:
        values = np.ascontiguousarray(values.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    return nnet.tensor(values, requires_grad=True)


def parameters() -> list[Tensor]:
    return [parameter(4, 3, 2, 5, channels_last=True), parameter(7, seed=1), parameter(seed=2)]


def step(optimizer: optim.Optimizer, number: int) -> None:
    """Give every parameter a gradient that depends on the step only, and update."""
    rng = np.random.default_rng(number)
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = Tensor(rng.standard_normal(p.shape))
    optimizer.step()


@pytest.mark.parametrize("name", MAKERS)
def test_state_goes_through_a_file_bit_for_bit(name: str, tmp_path: Any) -> None:
    whole, halves = parameters(), parameters()
    optimizer = MAKERS[name](whole)
    for number in range(6):
        step(optimizer, number)
    first = MAKERS[name](halves)
    for number in range(3):
        step(first, number)
    save_state(tmp_path / "state.safetensors", first.state_dict())
    second = MAKERS[name](halves)
    second.load_state_dict(load_state(tmp_path / "state.safetensors"))
    for number in range(3, 6):
        step(second, number)
    for a, b in zip(whole, halves):
        np.testing.assert_array_equal(a.data, b.data)
    buffers = [v for v in second.state[halves[0]].values() if isinstance(v, np.ndarray)]
    assert buffers and all(v.strides == halves[0].data.strides for v in buffers), "the parameter's memory order"


@pytest.mark.parametrize("name", MAKERS)
def test_state_dict_is_plain(name: str) -> None:
    optimizer = MAKERS[name](parameters())
    step(optimizer, 0)
    state = optimizer.state_dict()
    assert state["param_groups"][0]["params"] == [0, 1, 2] and set(state["state"]) == {0, 1, 2}

    def check(value: Any) -> None:
        if isinstance(value, dict):
            assert all(isinstance(key, (str, int)) for key in value)
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                check(item)
        else:
            assert value is None or type(value) in (int, float, bool, str, np.ndarray)

    check(state)


def test_load_state_dict_copies_and_checks() -> None:
    ours, theirs = parameters(), parameters()
    source, target = MAKERS["Adam"](ours), MAKERS["Adam"](theirs)
    step(source, 0)
    state = source.state_dict()
    target.load_state_dict(state)
    kept = copy.deepcopy(target.state_dict())
    step(source, 1)
    np.testing.assert_array_equal(target.state_dict()["state"][0]["exp_avg"], kept["state"][0]["exp_avg"])
    with pytest.raises(ValueError, match=r"parameter groups of sizes \[3\], the optimizer of sizes \[1\]"):
        MAKERS["Adam"](ours[:1]).load_state_dict(state)
    wrong = MAKERS["Adam"]([parameter(2), *ours[1:]])
    with pytest.raises(ValueError, match=r"exp_avg of parameter 0 must have shape \(2,\), got \(4, 3, 2, 5\)"):
        wrong.load_state_dict(state)
    assert not wrong.state
    state["state"][9] = {}
    with pytest.raises(ValueError, match=r"a state for the parameters \[9\]"):
        source.load_state_dict(state)


def test_loaded_state_takes_the_parameters_dtype() -> None:
    source = MAKERS["Adam"]([parameter(3)])
    step(source, 0)
    p = nnet.tensor(np.zeros(3, np.float32), requires_grad=True)
    target = MAKERS["Adam"]([p])
    target.load_state_dict(source.state_dict())
    assert target.state[p]["exp_avg"].dtype == np.float32
    assert target.state[p]["step"] == 1


def test_groups_have_their_own_options() -> None:
    a, b, c = parameters()
    optimizer = optim.SGD([{"params": [a]}, {"params": b, "lr": 0.5}], lr=0.1)
    optimizer.add_param_group({"params": (x for x in [c]), "lr": 0.0})
    before = [p.data.copy() for p in (a, b, c)]
    for p in (a, b, c):
        p.grad = Tensor(np.ones_like(p.data))
    optimizer.step()
    for p, old, lr in zip((a, b, c), before, (0.1, 0.5, 0.0)):
        np.testing.assert_allclose(p.data, old - lr, rtol=1e-15)
    optimizer.param_groups[0]["lr"] = 0.0
    now = a.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(a.data, now)


def test_names_of_parameters() -> None:
    a, b, c = parameters()
    optimizer = optim.SGD([("a", a), ("b", b)])
    assert optimizer.param_groups[0]["param_names"] == ["a", "b"] and optimizer.param_groups[0]["params"] == [a, b]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == ["a", "b"]
    with pytest.raises(ValueError, match="either all groups have names or none has"):
        optimizer.add_param_group({"params": [c]})
    with pytest.raises(ValueError, match="either all parameters have names or none has"):
        optim.SGD([("a", a), b])  # type: ignore[list-item]


def test_refuses_what_is_no_parameter() -> None:
    p = parameter(3)
    with pytest.raises(TypeError, match="params must be an iterable of .*, got a function: call it"):
        optim.SGD(nnet.nn.Linear(1, 1).parameters, lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="params must be an iterable of Tensors or dictionaries, got a Tensor"):
        optim.SGD(p)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got a Sequential: hand over its parameters, model.parameters\(\)"):
        optim.SGD(nn.Sequential(nn.Linear(2, 2)))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="params must hold at least one parameter"):
        optim.SGD([])
    with pytest.raises(TypeError, match="params must hold Tensors, got ndarray"):
        optim.SGD([np.zeros(3)])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="ordered collection of Tensors, got set"):
        optim.SGD([{"params": {p}}])
    with pytest.raises(TypeError, match="got NoneType"):
        optim.SGD([{"lr": 0.1}])
    with pytest.raises(TypeError, match="param_group must be a dict, got list"):
        optim.SGD([p]).add_param_group([p])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="leaves"):
        optim.SGD([nnet.functional.relu(p)])
    with pytest.raises(ValueError, match="more than one group"):
        optim.SGD([{"params": [p]}, {"params": [p]}])
    with pytest.warns(UserWarning, match="stands twice in a group"):
        optim.SGD([p, p])


@pytest.mark.parametrize(
    "kind, options, message",
    [
        ("SGD", {"lr": -1}, "lr must not be negative, got -1"),
        ("SGD", {"lr": float("nan")}, "lr must not be negative, got nan"),
        ("SGD", {"momentum": -0.1}, "momentum must not be negative"),
        ("SGD", {"weight_decay": -0.1}, "weight_decay must not be negative"),
        ("SGD", {"nesterov": True}, "nesterov needs a momentum above 0"),
        ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "dampening=0.1"),
        ("Adam", {"betas": (1.0, 0.9)}, r"betas\[0\] must be in \[0, 1\), got 1.0"),
        ("Adam", {"betas": (0.9, -0.1)}, r"betas\[1\] must be in"),
        ("AdamW", {"eps": -1e-8}, "eps must not be negative"),
        ("RMSprop", {"alpha": -1}, "alpha must not be negative"),
        ("Adagrad", {"lr_decay": -1}, "lr_decay must not be negative"),
        ("Adagrad", {"initial_accumulator_value": -1}, "initial_accumulator_value must not be negative"),
        ("Adadelta", {"rho": 1.1}, r"rho must be in \[0, 1\], got 1.1"),
    ],
)
def test_options_out_of_range(kind: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(optim, kind)([parameter(3)], **options)
    with pytest.raises(ValueError, match=message):
        getattr(optim, kind)([{"params": [parameter(3)], **options}])


def test_parameters_without_gradient_stay() -> None:
    a, b = parameter(3), parameter(3)
    optimizer = optim.Adam([a, b])
    a.grad = Tensor(np.ones(3))
    before = b.data.copy()
    optimizer.step()
    np.testing.assert_array_equal(b.data, before)
    assert a in optimizer.state and b not in optimizer.state


def test_zero_grad() -> None:
    p = parameter(4, 3, 2, 5, channels_last=True)
    optimizer = optim.SGD([p])
    grad = p.grad = Tensor(np.ones(p.shape))
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is grad and not grad.data.any() and grad._version == 1
    optimizer.zero_grad()
    assert p.grad is None
    optimizer.zero_grad(set_to_none=False)
    assert p.grad is None


def test_closure_runs_first_and_records() -> None:
    p = nnet.tensor([3.0, -1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.5)

    def closure() -> Tensor:
        optimizer.zero_grad()
        y = nnet.functional.relu(p)
        y.backward(np.ones(2, np.float32))
        return y

    with nnet.no_grad():
        loss = optimizer.step(closure)
    np.testing.assert_array_equal(loss.data, [3, 0])
    np.testing.assert_array_equal(p.data, [2.5, -1])
    assert optimizer.step() is None


def test_a_backward_through_old_values_is_an_error() -> None:
    p = nnet.tensor([3.0, -1.0], requires_grad=True)
    y = nnet.functional.relu(p)
    p.grad = Tensor(np.ones(2, np.float32))
    optim.SGD([p]).step()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(np.ones(2, np.float32))


def test_parameter_values_keep_their_memory() -> None:
    p = parameter(4, 3, 2, 5, channels_last=True)
    values = p.data
    step(optim.AdamW([p]), 0)
    assert p.data is values


def test_repr_lists_options() -> None:
    text = repr(optim.SGD([parameter(3)], lr=0.25))
    assert text.startswith("SGD (\nParameter Group 0\n    dampening: 0\n    lr: 0.25\n") and text.endswith(")")


@pytest.mark.parametrize("name", MAKERS)
def test_a_step_that_fails_counts_for_nothing(name: str) -> None:
    p, same = parameter(40), parameter(40)
    optimizer, other = MAKERS[name]([p]), MAKERS[name]([same])
    p.grad, values = Tensor(np.ones(40)), p.data
    for number in range(2):
        p.data = values.view()
        p.data.flags.writeable = False
        with pytest.raises(ValueError, match="read-only"):
            optimizer.step()
        assert bool(optimizer.state.get(p)) is bool(number)  # a state made by the failed step would be garbage
        p.data = values
        step(optimizer, number)
        step(other, number)
        assert np.array_equal(p.data, same.data)
    assert optimizer.state_dict()["state"][0].get("step") == other.state_dict()["state"][0].get("step")


def test_a_parameter_that_stands_twice_in_a_group_takes_two_steps() -> None:
    p, same = parameter(5), parameter(5)
    with pytest.warns(UserWarning, match="stands twice"):
        twice = optim.Adam([p, p])
    once = optim.Adam([same])
    for number in range(2):
        step(twice, number)
        same.grad = Tensor(p.grad.data)  # that of the second time
        once.step()
        once.step()
    assert np.array_equal(p.data, same.data) and twice.state[p]["step"] == 4
