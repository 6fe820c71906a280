"""Sequential, ModuleList, Identity, and the text of nested modules."""

from __future__ import annotations

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn


class Add(nn.Module):
    def __init__(self, number: float) -> None:
        super().__init__()
        self.number = number

    def forward(self, x: nnet.Tensor) -> nnet.Tensor:
        return x + self.number

    def extra_repr(self) -> str:
        return f"number={self.number}"


def numbers(container: nn.Sequential | nn.ModuleList) -> list[float]:
    return [module.number for module in container]


def names(container: nn.Module) -> list[str]:
    return [name for name, _ in container.named_children()]


def test_sequential_applies_in_order() -> None:
    model = nn.Sequential(Add(1.0), nn.Sequential(), nn.Identity(5, word=3), Add(2.0))
    assert model(nnet.tensor([1.0])).item() == 4.0
    x = nnet.tensor([1.0])
    assert nn.Sequential()(x) is x


def test_sequential_with_names() -> None:
    model = nn.Sequential({"a": Add(1), "b": Add(2), "c": Add(3)})
    assert names(model) == ["a", "b", "c"] and model.b.number == 2
    assert names(model[1:]) == ["b", "c"] and isinstance(model[1:], nn.Sequential)
    assert model[-1].number == 3


@pytest.mark.parametrize("kind", [lambda *m: nn.Sequential(*m), lambda *m: nn.ModuleList(m)])
def test_list_operations(kind: type) -> None:
    items = kind(Add(0), Add(1), Add(2), Add(3))
    assert len(items) == 4 and items[2].number == 2 and items[np.int64(-1)].number == 3
    assert numbers(items[1:3]) == [1, 2] and type(items[1:3]) is type(items)
    items[1] = Add(7)
    assert numbers(items) == [0, 7, 2, 3] and names(items) == ["0", "1", "2", "3"]
    del items[0]
    assert numbers(items) == [7, 2, 3] and names(items) == ["0", "1", "2"]
    assert items.append(Add(8)) is items and items.extend([Add(9)]) is items
    assert items.insert(0, Add(5)) is items
    assert numbers(items) == [5, 7, 2, 3, 8, 9] and names(items) == [str(i) for i in range(6)]
    del items[1:5]
    assert numbers(items) == [5, 9]
    for index in (2, -3):
        with pytest.raises(IndexError, match=f"index {index} is out of range for 2 modules"):
            items[index]
    with pytest.raises(TypeError):
        items["0"]


def test_append_to_a_slice_loses_no_layer() -> None:
    part = nn.Sequential(Add(0), Add(1), Add(2))[1:]
    assert names(part) == ["1", "2"]
    assert numbers(part.append(Add(3))) == [1, 2, 3]


def test_module_list_registers_but_has_no_forward() -> None:
    items = nn.ModuleList([Add(1)])
    assert names(items) == ["0"] and len(nn.ModuleList()) == 0
    with pytest.raises(NotImplementedError):
        items(nnet.tensor([1.0]))
    for given, message in (
        (3, "int"), ([Add(1)], "a list: give its modules one by one"), (nn.ReLU, r"the class ReLU: ReLU\(\) makes one")
    ):
        with pytest.raises(TypeError, match=f"must be a Module or None, got {message}"):
            items.append(given)  # type: ignore[arg-type]


def test_repr_is_nested() -> None:
    model = nn.Sequential({"first": Add(1), "list": nn.ModuleList([Add(2), Add(2), Add(3)]), "none": nn.Sequential()})
    assert repr(model) == "\n".join([
        "Sequential(",
        "  (first): Add(number=1)",
        "  (list): ModuleList(",
        "    (0-1): 2 x Add(number=2)",
        "    (2): Add(number=3)",
        "  )",
        "  (none): Sequential()",
        ")",
    ])  # fmt: skip
