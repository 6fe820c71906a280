"""An error tells which layer of a model it is from."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn


def images(channels: int = 3, dtype: Any = np.float32) -> nnet.Tensor:
    return nnet.tensor(np.zeros((2, channels, 8, 8), dtype))


class Branches(nn.Module):
    """Layers in a list of modules, and one in a list of Python, which registers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Linear(192, 2))])
        self.hidden = [nn.Conv2d(9, 1, 1)]

    def forward(self, x: Any, hidden: bool = False) -> Any:
        return self.hidden[0](x) if hidden else self.parts[1](x)


def failing(call: Any, kind: type[Exception] = ValueError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def test_the_path_to_the_layer_and_the_layer() -> None:
    text = failing(lambda: nn.Sequential(nn.Identity(), nn.Sequential(nn.ReLU(), nn.Conv2d(4, 2, 1)))(images()))
    assert text.endswith(" (layer '1.1': Conv2d(4, 2, kernel_size=(1, 1), stride=(1, 1)))")
    assert text.count("(layer") == 1
    text = failing(lambda: nn.Sequential(Branches())(images()))
    assert "nn.Flatten() makes (2, 192) of that (layer '0.parts.1.1': Linear(in_features=192, " in text
    assert "(layer 'parts.1.1': Linear(" in failing(lambda: Branches()(images()))
    assert "(layer '<Conv2d>': Conv2d(9, 1, " in failing(lambda: Branches()(images(), hidden=True))


def test_a_layer_that_is_called_by_itself_needs_no_name() -> None:
    assert "(layer" not in failing(lambda: nn.Conv2d(4, 2, 1)(images()))


def test_errors_of_python_and_of_hooks_too() -> None:
    model = nn.Sequential(nn.ReLU(), Branches())
    assert failing(lambda: nn.Sequential(model)(images(), 1), TypeError).endswith("but 3 were given")

    def hook(*args: Any) -> None:
        raise RuntimeError("no")

    model[0].register_forward_pre_hook(hook)
    assert failing(lambda: model(images()), RuntimeError) == "no (layer '0': ReLU())"


class Odd(ValueError):
    """An error whose arguments are not those of a text."""

    def __init__(self, number: int):
        super().__init__(number)


@pytest.mark.parametrize("error", [Odd(3), KeyError("x"), ValueError("a", "b"), StopIteration(), KeyboardInterrupt()])
def test_errors_of_other_kinds_stay_as_they_are(error: BaseException) -> None:
    class Raises(nn.Module):
        def forward(self, x: Any) -> Any:
            raise error

    before = error.args
    with pytest.raises(type(error)) as caught:
        nn.Sequential(nn.Sequential(Raises()))(1)
    assert caught.value is error and error.args == before


class Raises(nn.Module):
    """Raises what it is given."""

    def forward(self, error: Exception) -> Any:
        raise error


class Named(nn.Module):
    """One layer, of another name."""

    def __init__(self) -> None:
        super().__init__()
        self.last = Raises()

    def forward(self, x: Any) -> Any:
        return self.last(x)


def test_an_error_is_pickled_without_the_model() -> None:
    model = nn.Sequential(nn.ReLU(), nn.Linear(4, 1 << 18))
    model[1].activation = lambda y: y
    with pytest.raises(ValueError, match="layer '1': Linear") as caught:
        model(images())
    pickled = pickle.dumps(caught.value)
    assert len(pickled) < 2000 and str(pickle.loads(pickled)) == str(caught.value)

    class Asks(nn.Sequential):
        def forward(self, x: Any) -> Any:
            try:
                return super().forward(x)
            except ValueError as error:
                assert len(pickle.dumps(error)) < 2000  # on its way too
                raise

    assert "(layer '0.1': Linear(" in failing(lambda: nn.Sequential(Asks(*model))(images()))


def test_what_a_user_writes_into_an_error_stays() -> None:
    class Hints(nn.Sequential):
        def forward(self, x: Any) -> Any:
            try:
                return super().forward(x)
            except ValueError as error:
                error.args = (f"my hint. {error}",)
                raise

    error = ValueError("no")
    assert failing(lambda: Hints(nn.Sequential(Raises()))(error)) == "my hint. no (layer '0': Raises())"
    text = failing(lambda: nn.Sequential(nn.Sequential(Hints(Raises())))(ValueError("no")))
    assert text == "my hint. no (layer '0.0': Hints)"


def test_an_error_that_is_raised_again_has_the_path_of_then() -> None:
    error = ValueError("no")
    assert failing(lambda: nn.Sequential(nn.Sequential(Raises()))(error)) == "no (layer '0.0': Raises())"
    assert failing(lambda: Raises()(error)) == "no"
    assert failing(lambda: Named()(error)) == "no (layer 'last': Raises())"


class InPool(nn.Module):
    """Calls a branch in a thread."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Identity(), Raises())

    def forward(self, error: Exception) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(self.branch, error).result()


def test_the_path_goes_on_where_a_thread_calls_a_branch() -> None:
    error = ValueError("no")
    assert failing(lambda: nn.Sequential(InPool())(error)) == "no (layer '0.branch.1': Raises())"
    assert failing(lambda: InPool()(error)) == "no (layer 'branch.1': Raises())"
    assert failing(lambda: Named()(error)) == "no (layer 'last': Raises())"


def test_an_error_of_a_layer_that_its_parent_raises_is_the_parents() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.child = Raises()

        def forward(self, error: Exception) -> Any:
            raise error

    error, model = ValueError("no"), nn.Sequential(Keeps())
    assert failing(lambda: model[0].child(error)) == "no"
    assert failing(lambda: model(error)) == "no (layer '0': Keeps)"


def test_a_path_from_another_process_stays() -> None:
    model = nn.Sequential(Raises())
    with pytest.raises(ValueError, match="no") as caught:
        model(ValueError("no"))
    [(key, kept)] = vars(caught.value).items()
    text, written, (pid, *module), *rest = kept
    vars(caught.value)[key] = text, written, (pid + 1, *module), *rest
    assert failing(lambda: model(caught.value)) == "no (layer '0': Raises()) (layer '0': Raises())"


def test_a_layer_that_cannot_be_described_hides_no_error() -> None:
    class Bad(Raises):
        def extra_repr(self) -> str:
            raise KeyError("extra")

    class Unnamed(nn.Sequential):
        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            raise KeyError("names")

    assert failing(lambda: nn.Sequential(nn.Identity(), Bad())(ValueError("no"))) == "no (layer '1': Bad)"
    assert failing(lambda: Unnamed(Bad())(ValueError("no"))) == "no"


def test_flatten_is_named_where_it_helps() -> None:
    assert "Flatten" not in failing(lambda: nn.Linear(191, 2)(images()))
    assert "Flatten" not in failing(lambda: nn.Linear(192, 2)(nnet.tensor(np.zeros(8, np.float32))))
    assert "nn.Flatten() makes (2, 192) of that" in failing(lambda: nn.Linear(192, 2)(images()))


def test_what_is_no_tensor() -> None:
    class Tensor:
        __module__ = "elsewhere.inside"

    assert "got elsewhere.Tensor: numbanet.tensor makes one" in failing(lambda: nn.ReLU()(Tensor()), TypeError)
    assert "got None: does a forward return nothing?" in failing(lambda: nn.ReLU()(None), TypeError)


def test_channels_that_come_last() -> None:
    last = nnet.tensor(np.zeros((2, 8, 8, 3), np.float32))
    text = failing(lambda: nn.Conv2d(3, 2, 1)(last))
    assert "images with channels last need permute(0, 3, 1, 2), or a layer with data_format='channels_last'" in text
    assert "last" not in failing(lambda: nn.Conv2d(4, 2, 1)(last))
    assert "last" not in failing(lambda: nn.Conv2d(8, 2, 1)(images()))  # as many columns as channels


def test_dtypes_tell_the_remedy() -> None:
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten())
    text = failing(lambda: model(images(dtype=np.float64)), TypeError)
    assert "got input: float64, weight: float32" in text and "input.astype(np.float32) of an array" in text
    assert "255" not in text and "(layer '0'" in text
    assert "input / np.float32(255) of pixels" in failing(lambda: model(images(dtype=np.uint8)), TypeError)
    assert "input.astype(np.float64)" in failing(lambda: nn.Linear(8, 1, dtype=np.float64)(images()), TypeError)
    assert ".astype(np.float32)" in failing(lambda: nn.BatchNorm2d(3)(images(dtype=np.int64)), TypeError)
    model.double()(images(dtype=np.float64))  # what the remedy of the other side gives
