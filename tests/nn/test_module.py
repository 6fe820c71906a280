"""Module: registration, traversal, hooks, modes, conversion, state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn


class Affine(nn.Module):
    """y = weight * x + offset, with a counter and a scratch buffer."""

    def __init__(self, size: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(np.arange(size, dtype=np.float32))
        self.register_parameter("nothing", None)
        self.register_buffer("count", nnet.tensor(np.array(0)))
        self.register_buffer("scratch", nnet.tensor(np.zeros(2, np.float32)), persistent=False)
        self.register_buffer("empty", None)

    def forward(self, x: Any, offset: float = 0.0) -> Any:
        return self.weight * x + offset


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = Affine()
        self.rest = nn.Sequential(Affine(2), nn.Identity(), Affine(1))

    def forward(self, x: Any) -> Any:
        return self.rest(self.first(x))


def ones(size: int = 3) -> nnet.Tensor:
    return nnet.tensor(np.ones(size, np.float32))


# ----------------------------------------------------------------------------------------------------- registration


def test_attributes_are_registered() -> None:
    model = Model()
    assert [name for name, _ in model.named_parameters()] == ["first.weight", "rest.0.weight", "rest.2.weight"]
    assert [name for name, _ in model.named_buffers()] == [
        "first.count", "first.scratch", "rest.0.count", "rest.0.scratch", "rest.2.count", "rest.2.scratch",
    ]  # fmt: skip
    assert [name for name, _ in model.named_modules()] == ["", "first", "rest", "rest.0", "rest.1", "rest.2"]
    assert [name for name, _ in model.named_children()] == ["first", "rest"]
    assert [name for name, _ in model.named_parameters("m", recurse=False)] == []
    assert next(iter(model.parameters())) is model.first.weight
    assert len(list(model.buffers())) == 6 and len(list(model.modules())) == 6 and len(list(model.children())) == 2


def test_reassignment_moves_a_name_between_tables() -> None:
    module = nn.Module()
    module.thing = 1
    module.thing = nn.Parameter(np.zeros(1, np.float32))
    assert "thing" not in module.__dict__ and len(list(module.parameters())) == 1
    module.thing = None  # reserves the name
    assert list(module.parameters()) == [] and module.thing is None
    with pytest.raises(TypeError, match="'thing' must be a Parameter or None, got int"):
        module.thing = 3
    del module.thing
    module.thing = nn.Identity()
    assert list(module.named_children())[0][0] == "thing" and list(module.parameters()) == []
    with pytest.raises(TypeError, match="'thing' must be a Module or None"):
        module.thing = ones()
    module.thing = nn.Parameter(np.zeros(1, np.float32))  # takes the name from the module
    assert list(module.children()) == [] and len(list(module.parameters())) == 1
    del module.thing
    assert not hasattr(module, "thing")
    module.register_buffer("thing", ones(), persistent=False)
    module.thing = ones(2)
    assert module.thing.shape == (2,) and module.state_dict() == {}
    with pytest.raises(TypeError, match="buffer 'thing' must be a Tensor or None, got ndarray"):
        module.thing = np.zeros(2)


def test_a_deleted_name_forgets_that_it_was_not_persistent() -> None:
    module = nn.Module()
    module.register_buffer("b", ones(), persistent=False)
    del module.b
    module.register_buffer("b", ones())
    assert list(module.state_dict()) == ["b"]


@pytest.mark.parametrize("register", ["register_parameter", "register_buffer", "add_module"])
@pytest.mark.parametrize(("name", "error"), [("a.b", KeyError), ("", KeyError), ("training", KeyError), (3, TypeError)])
def test_bad_names(register: str, name: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"name|exists"):
        getattr(nn.Module(), register)(name, None)


def test_bad_values() -> None:
    module = nn.Module()
    with pytest.raises(TypeError, match="must be a Parameter"):
        module.register_parameter("a", ones())
    with pytest.raises(TypeError, match="must be a Tensor"):
        module.register_buffer("a", np.zeros(1))
    with pytest.raises(TypeError, match="must be a Module"):
        module.add_module("a", ones())
    with pytest.raises(AttributeError, match="'Module' object has no attribute 'a'"):
        _ = module.a
    with pytest.raises(AttributeError, match="a"):
        del module.a


@pytest.mark.parametrize("value", [nn.Parameter(np.zeros(1)), nn.Identity()])
def test_assignment_before_init(value: Any) -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            self.value = value
            super().__init__()

    with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
        Late()


def test_assignment_of_an_activation_before_init() -> None:
    class Late(nn.Linear):
        def __init__(self) -> None:
            self.activation = nn.ReLU()
            super().__init__(2, 3)

    with pytest.raises(AttributeError, match=r"cannot assign activation before Module.__init__\(\) call"):
        Late()


def test_shared_parameters_and_modules_come_once() -> None:
    model = nn.Sequential(Affine(), Affine())
    model[1].weight = model[0].weight
    assert len(list(model.parameters())) == 1
    assert len(list(model.named_parameters(remove_duplicate=False))) == 2
    twice = nn.Sequential(shared := Affine(), shared)
    assert [name for name, _ in twice.named_modules()] == ["", "0"]
    assert [name for name, _ in twice.named_modules(remove_duplicate=False)] == ["", "0", "1"]
    assert list(twice.state_dict()) == ["0.weight", "0.count", "1.weight", "1.count"]


def test_apply_visits_children_first() -> None:
    seen: list[str] = []
    model = Model()
    assert model.apply(lambda module: seen.append(type(module).__name__)) is model
    assert seen == ["Affine", "Affine", "Identity", "Affine", "Sequential", "Model"]


# ------------------------------------------------------------------------------------------------------------- calls


def test_forward_must_be_defined() -> None:
    with pytest.raises(NotImplementedError, match='Module has no "forward" function'):
        nn.Module()(ones())


def test_hooks_see_and_replace_arguments_and_result() -> None:
    module, log = Affine(), []
    pre = module.register_forward_pre_hook(lambda m, args: log.append(("pre", m, args)))
    post = module.register_forward_hook(lambda m, args, result: log.append(("post", m, args, result)))
    x = ones()
    y = module(x)
    assert log == [("pre", module, (x,)), ("post", module, (x,), y)]
    pre.remove()
    post.remove()
    post.remove()
    module(x)
    assert len(log) == 2
    with module.register_forward_pre_hook(lambda m, args: args[0] * 2.0):
        assert module(x).data.tolist() == [0, 2, 4]
    with module.register_forward_hook(lambda m, args, result: result + 1.0):
        assert module(x).data.tolist() == [1, 2, 3]
    assert module(x).data.tolist() == [0, 1, 2]


def test_hooks_with_kwargs_and_prepend() -> None:
    module, order = Affine(), []

    def note(word: str) -> Callable[..., None]:
        return lambda *args: order.append(word)

    module.register_forward_pre_hook(note("b"))
    module.register_forward_pre_hook(note("c"))
    module.register_forward_pre_hook(note("a"), prepend=True)
    module.register_forward_hook(note("e"))
    module.register_forward_hook(note("d"), prepend=True)
    seen: list[Any] = []
    module.register_forward_pre_hook(lambda m, args, kwargs: (args, {"offset": 5.0}), with_kwargs=True)
    module.register_forward_hook(lambda m, args, kwargs, y: seen.append(kwargs), with_kwargs=True)
    assert module(ones(), offset=1.0).data.tolist() == [5, 6, 7]
    assert order == ["a", "b", "c", "d", "e"] and seen == [{"offset": 5.0}]


def test_a_hook_may_remove_itself() -> None:
    module, calls = Affine(), []
    handle = module.register_forward_hook(lambda *args: (calls.append(1), handle.remove()) and None)
    module(ones())
    module(ones())
    assert calls == [1]


# ------------------------------------------------------------------------------------------------------------- modes


def test_train_and_eval_reach_every_module() -> None:
    model = Model()
    assert model.training and model.eval() is model
    assert not any(module.training for module in model.modules())
    model.rest.train()
    assert model.rest[0].training and not model.first.training
    with pytest.raises(ValueError, match="mode must be a bool, got 1"):
        model.train(1)  # type: ignore[arg-type]


def test_requires_grad_and_zero_grad() -> None:
    model = Affine()
    assert model.requires_grad_(False) is model and not model.weight.requires_grad
    model.requires_grad_()
    model(ones()).backward(np.ones(3))
    assert model.weight.grad is not None
    model.zero_grad(set_to_none=False)
    assert model.weight.grad.data.tolist() == [0, 0, 0]
    model.zero_grad()
    assert model.weight.grad is None


def test_conversion_keeps_parameters_and_integers() -> None:
    model = Model()
    weight = model.first.weight
    weight.grad = ones()
    assert model.double() is model and model.first.weight is weight
    assert weight.dtype == weight.grad.dtype == np.float64
    assert model.first.scratch.dtype == np.float64 and model.first.count.dtype == np.int64
    assert model.to("cpu", np.float32).first.weight.dtype == np.float32
    assert model.to(dtype="float64").first.weight.dtype == np.float64
    assert model.float().first.weight.dtype == np.float32
    for bad in (np.int32, "nonsense", np.float16):
        with pytest.raises(TypeError, match="dtype must be float32 or float64, got"):
            model.to(bad)


def test_conversion_is_a_change_that_backward_notices() -> None:
    model = Affine()
    y = model(ones())
    model.double()
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward(np.ones(3))


# ------------------------------------------------------------------------------------------------------------- state


def test_state_dict_holds_read_only_views() -> None:
    model = Model()
    state = model.state_dict()
    assert list(state) == [
        "first.weight", "first.count", "rest.0.weight", "rest.0.count", "rest.2.weight", "rest.2.count",
    ]  # fmt: skip
    assert all(type(array) is np.ndarray and not array.flags.writeable for array in state.values())
    assert np.shares_memory(state["first.weight"], model.first.weight.data)
    assert state["first.count"].shape == () and state["first.count"].dtype == np.int64
    assert list(model.state_dict(prefix="m"))[0] == "m.first.weight"


def test_load_state_dict_copies_in_place() -> None:
    model = Model()
    weight, memory = model.first.weight, model.first.weight.data
    version = weight._version
    state = {name: array + 1 for name, array in model.state_dict().items()}
    state["first.weight"] = nnet.tensor([5.0, 6.0, 7.0], dtype=np.float64)  # a Tensor of another dtype
    state["first.count"] = np.array([9])  # the form of old files
    result = model.load_state_dict(state)
    assert result.missing_keys == [] and result.unexpected_keys == [] and tuple(result) == ([], [])
    assert model.first.weight is weight and weight.data is memory and weight._version > version
    assert memory.tolist() == [5, 6, 7] and memory.dtype == np.float32 and model.first.count.item() == 9
    state["first.weight"].data[:] = 0
    assert memory.tolist() == [5, 6, 7]
    assert model.load_state_dict(model.state_dict()).missing_keys == []


def test_load_state_dict_reports_everything_and_changes_nothing() -> None:
    model = Model()
    before = copy.deepcopy(model.state_dict())
    state = {name: array + 1 for name, array in before.items()}
    del state["first.count"], state["rest.0.weight"]
    state |= {"first.weight": np.zeros((3, 1)), "rest.2.weight": np.array(["x"]), "alien": 1, "rest.9.w": 2}
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    assert str(caught.value).split("\n") == [
        "state_dict does not fit Model, nothing was loaded:",
        "  missing: first.count, rest.0.weight",
        "  unexpected: alien, rest.9.w",
        "  first.weight: has shape (3, 1), the model needs (3,)",
        "  rest.2.weight: holds <U1, expected numbers",
    ]
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())


class Unreadable:
    """What stands for a tensor of another library, on another device."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("not here")


def test_names_that_differ_by_a_prefix_are_told_as_such() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {name: array + 1 for name, array in model.state_dict().items()}
    longer = {f"module.{name}": array for name, array in state.items()}
    cases = (
        (model, longer, "names begin with 'module.', those of the model do not: load {name.removeprefix"),
        (nn.Sequential(model), state, "the names of the model begin with '0.', those of state_dict do not: load {'0.'"),
        (model, {"epoch": 3, "model": state}, r"one level deeper: load state_dict\['model'\]"),
    )
    for target, given, message in cases:
        with pytest.raises(RuntimeError, match=message) as caught:
            target.load_state_dict(given)
        _, hint, missing, unexpected = str(caught.value).split("\n")
        assert message.split(" ")[0] in hint and missing.startswith("  missing: ") and "  unexpected: " in unexpected
    assert missing == "  missing: 0.weight, 0.bias, 1.weight, 1.bias and 2 more"
    assert unexpected == "  unexpected: epoch, model"
    state_dict = longer
    model.load_state_dict({name.removeprefix("module."): value for name, value in state_dict.items()})
    state_dict = {f"module.{name}": value for name, value in list(state.items())[1:]}  # not only the prefix
    with pytest.raises(RuntimeError, match="missing: 0.weight, 0.bias.*\n.*unexpected: module.0.bias, "):
        model.load_state_dict(state_dict)
    alien = {**longer, "optimizer.step": 1}  # more than the prefix: no remedy loads it, and all names are told
    other = {**longer, "module.0.weight": np.zeros((3, 1, 1, 1))}
    twice = {**longer, "1.weight": longer["module.1.weight"]}
    for given in (alien, other, twice, {"model": alien}, {"a": state, 3: 4, "model": other}):
        with pytest.raises(RuntimeError, match="missing: (0.)?0.weight, .*\n.*unexpected: [^\n]*$") as caught:
            (model if "a" not in given else nn.Sequential(model)).load_state_dict(given)
        assert "load" not in str(caught.value).replace("nothing was loaded", "") and "more" not in str(caught.value)
    unread = {f"module.{name}": Unreadable() for name in state}
    for given in (unread, {"model": unread}, {"model": {name: Unreadable() for name in state}}):
        with pytest.raises(RuntimeError, match="missing: 0.weight, "):
            model.load_state_dict(given)
    with pytest.raises(RuntimeError, match="0.bias: can't be read as an array: not here") as caught:
        model.load_state_dict({**state, "0.bias": Unreadable(), "1.bias": np.zeros(3)})
    assert "1.bias: has shape (3,), the model needs (2,)" in str(caught.value)
    with pytest.raises(TypeError, match=r"got str: numbanet.io.load_model\(model, 'own.safetensors'\) reads a file"):
        model.load_state_dict("own.safetensors")  # type: ignore[arg-type]


def test_load_state_dict_not_strict() -> None:
    model = Affine()
    result = model.load_state_dict({"weight": [1.0, 1.0, 1.0], "alien": 3}, strict=False)
    assert result.missing_keys == ["count"] and result.unexpected_keys == ["alien"]
    assert model.weight.data.tolist() == [1, 1, 1]
    with pytest.raises(RuntimeError, match=r"weight: has shape \(2,\), the model needs \(3,\)"):
        model.load_state_dict({"weight": [1.0, 1.0]}, strict=False)
    with pytest.raises(TypeError, match="state_dict must be a mapping, got list"):
        model.load_state_dict([])  # type: ignore[arg-type]


def test_a_model_can_be_copied() -> None:
    model = Model()
    other = copy.deepcopy(model)
    other.first.weight.data[:] = 9
    assert model.first.weight.data.tolist() == [0, 1, 2] and isinstance(other.first.weight, nn.Parameter)
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in model.named_parameters()]


# --------------------------------------------------------------------------------------------------------- parameter


def test_parameter() -> None:
    array = np.zeros(2, np.float32)
    assert nn.Parameter(array).data is array and nn.Parameter(array).requires_grad
    assert not nn.Parameter(array, requires_grad=False).requires_grad
    assert nn.Parameter(source := ones()).data is source.data
    assert nn.Parameter([1.0, 2.0]).dtype == np.float32
    array.flags.writeable = False
    assert nn.Parameter(array).data.flags.writeable
    with pytest.raises(RuntimeError, match="floating-point"):
        nn.Parameter(np.zeros(2, np.int64))
    assert repr(nn.Parameter([1.0])).startswith("Parameter containing:\ntensor([1.]")


def test_names_complete() -> None:
    assert {"weight", "count", "first"} <= {*dir(Affine()), *dir(Model())}


def test_the_data_of_a_parameter_may_be_that_of_a_tensor() -> None:
    layer, other = nn.Linear(3, 3, bias=False), ones(9).reshape(3, 3)
    layer.weight.data = other
    assert layer.weight.data is other.data
    layer(ones()).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.numpy().tolist() == [[1.0] * 3] * 3
    other.data[...] = 2.0
    other.bump_version()
    assert layer(ones()).detach().numpy().tolist() == [6.0] * 3
    layer.weight.data = np.full((3, 3), 3.0, np.float32)
    y = (layer.weight * layer.weight).sum()
    other.bump_version()  # no longer theirs
    y.backward()
    for wrong in ([1.0], None, 2.0):
        with pytest.raises(TypeError, match="data must be an array or a Tensor, got"):
            layer.weight.data = wrong


def test_a_change_of_the_tensor_that_shares_the_memory_of_a_parameter_is_noticed() -> None:
    t = nnet.tensor(np.ones(3))
    p = nn.Parameter(t)
    y = (p * p).sum()
    t.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        y.backward()
    y = (p * p).sum()
    y.backward()
    assert p.grad.tolist() == [4.0] * 3


def test_only_the_counter_of_batches_may_be_missing() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("my_num_batches_tracked", nnet.tensor(np.zeros(1)))
            self.register_buffer("num_batches_tracked", nnet.tensor(np.zeros(1)))

    with pytest.raises(RuntimeError, match="missing: my_num_batches_tracked$"):
        Counts().load_state_dict({})
    assert nn.Sequential(Counts()).load_state_dict({"0.my_num_batches_tracked": np.ones(1)}).missing_keys == []
