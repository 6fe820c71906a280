"""summary: numbers, remarks about windows, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import numbanet as nnet
from numbanet import nn, random


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 10, 5, padding=2),
        nn.BatchNorm2d(10),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(10 * 16 * 16, 7, bias=False),
    )


def test_numbers() -> None:
    found = nn.summary(small(), (2, 3, 32, 32))
    assert [layer.kind for layer in found.layers] == [
        "Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Flatten", "Dropout", "Linear",
    ]  # fmt: skip
    assert [layer.name for layer in found.layers] == list("0123456")
    conv, norm, _, pool, flat, _, linear = found.layers
    assert conv.input_shape == (2, 3, 32, 32) and conv.output_shape == (2, 10, 32, 32)
    assert conv.parameters == 760 and norm.parameters == 20 and linear.parameters == 2560 * 7
    assert conv.multiply_adds == 2 * 10 * 32 * 32 * 75 and norm.multiply_adds == 2 * 10 * 32 * 32
    assert linear.multiply_adds == 2 * 2560 * 7 and pool.multiply_adds == 0
    assert conv.memory == 4 * 2 * 10 * 32 * 32 and pool.memory == conv.memory // 4
    assert pool.output_shape == (2, 10, 16, 16) and flat.output_shape == (2, 2560)
    assert found.input_shape == (2, 3, 32, 32) and found.output_shape == (2, 7)
    assert found.parameters == found.trainable_parameters == 760 + 20 + 17920
    assert found.parameter_memory == 4 * found.parameters
    assert found.multiply_adds == sum(layer.multiply_adds for layer in found.layers)
    assert found.memory == sum(layer.memory for layer in found.layers)
    assert found.remarks == ()


def test_table() -> None:
    text = str(nn.summary(small(), (3, 32, 32)))
    lines = text.split("\n")
    assert lines[0].split() == ["layer", "output", "parameters", "multiply-adds", "memory"]
    assert lines[2].split() == ["input", "1x3x32x32"]
    assert lines[3].split() == ["0", "(Conv2d)", "1x10x32x32", "760", "768,000", "40.0", "KiB"]
    assert lines[-2].split()[:3] == ["total", "18,700", "796,160"]
    assert lines[-1] == "18,700 parameters are trained; all take 73.0 KiB"


@pytest.mark.parametrize(
    ("layer", "size", "result", "remark"),
    [
        # The case of the text books: 7x7 input, 3x3 filter.
        (nn.Conv2d(1, 1, 3), (7, 7), (5, 5), ""),
        (nn.Conv2d(1, 1, 3, stride=2), (7, 7), (3, 3), ""),
        (nn.Conv2d(1, 1, 3, stride=3), (7, 7), (2, 2),
         "3x3 windows at stride 3 do not tile 7x7: the last row and column are never seen"),
        (nn.Conv2d(1, 1, 3, stride=3, padding=1), (7, 7), (3, 3), ""),
        (nn.Conv2d(1, 1, 3, stride=3), (8, 7), (2, 2),
         "3x3 windows at stride 3 do not tile 8x7: the last 2 rows and column are never seen"),
        (nn.Conv2d(1, 1, (2, 3), stride=(2, 1)), (5, 7), (2, 5),
         "2x3 windows at stride 2x1 do not tile 5x7: the last row is never seen"),
        (nn.Conv2d(1, 1, 3, stride=2, padding=1), (8, 8), (4, 4), ""),  # below and right, padding alone is unused
        (nn.MaxPool2d(3, (2, 1), padding="same_upper"), (8, 7), (4, 7), ""),
        (nn.MaxPool2d(2, ()), (7, 6), (3, 3),
         "2x2 windows at stride 2 do not tile 7x6: the last row is never seen"),
        (nn.ConvTranspose2d(1, 1, 3, stride=2), (5, 5), (11, 11), ""),
        (nn.Conv2d(1, 1, 3, stride=2, padding="same_upper"), (8, 8), (4, 4), ""),
        (nn.Conv2d(1, 1, 1, stride=2), (8, 9), (4, 5),
         "1x1 windows at stride 2 do not tile 8x9: 4 of 8 rows are never seen; 4 of 9 columns are never seen"),
        (nn.Conv2d(1, 1, 3, stride=2, dilation=2), (9, 9), (3, 3),
         "3x3 windows at stride 2 do not tile 9x9: 4 of 9 rows are never seen; 4 of 9 columns are never seen"),
        (nn.Conv2d(1, 1, 2, stride=3, padding=1), (5, 5), (2, 2),
         "2x2 windows at stride 3 do not tile 5x5: 2 of 5 rows are never seen; 2 of 5 columns are never seen"),
        (nn.MaxPool2d(2), (7, 6), (3, 3),
         "2x2 windows at stride 2 do not tile 7x6: the last row is never seen"),
        (nn.MaxPool2d(3, 2), (7, 7), (3, 3), ""),
        (nn.AvgPool2d(2, ceil_mode=True), (7, 7), (4, 4),
         "2x2 windows at stride 2 do not tile 7x7: "
         "the last window hangs over the border by 1 row and 1 column"),
        (nn.AvgPool2d(3, stride=3, padding=1), (7, 7), (3, 3), ""),
    ],
)  # fmt: skip
def test_remarks(layer: nn.Module, size: tuple[int, int], result: tuple[int, int], remark: str) -> None:
    found = nn.summary(layer, (1, 1, *size))
    assert found.output_shape == (1, 1, *result)
    assert found.layers[0].remark == remark
    assert found.remarks == ((f"{type(layer).__name__}: {remark}",) if remark else ())
    assert (f"note: {type(layer).__name__}: {remark}" in str(found)) == bool(remark)


def test_leaves_the_model_as_it_is() -> None:
    model = small().train()
    model[1].eval()
    before = {name: array.copy() for name, array in model.state_dict().items()}
    versions = [p._version for p in model.parameters()]
    state = random.get_state()
    nn.summary(model, (2, 3, 32, 32))
    assert [module.training for module in model.modules()] == [True, True, False, True, True, True, True, True]
    assert all(np.array_equal(before[name], array) for name, array in model.state_dict().items())
    assert versions == [p._version for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert np.array_equal(random.get_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_random_numbers_that_a_model_draws_are_not_spent() -> None:
    class Noise(nn.Module):
        def forward(self, x: nnet.Tensor) -> nnet.Tensor:
            return x + float(random.numpy_generator().random())

    state = random.get_state()
    nn.summary(Noise(), (1, 2))
    assert np.array_equal(random.get_state(), state)


def test_cleans_up_after_an_error() -> None:
    model = small().train()
    with pytest.raises(ValueError, match="channels"):
        nn.summary(model, (2, 4, 32, 32))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())
    with pytest.raises(TypeError, match="input_shape must be an integer, got 3.5"):
        nn.summary(model, (1, 3.5, 8, 8))  # type: ignore[arg-type]


class Reusing(nn.Module):
    """Calls one layer twice, returns a tuple, owns a parameter, and leaves a layer unused."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.unused = nn.Linear(4, 4).requires_grad_(False)
        self.scale = nn.Parameter(np.ones(1, np.float32))

    def forward(self, x: Any) -> Any:
        x = self.layer(self.layer(x)) * self.scale
        return x, x


def test_layers_that_are_called_twice_count_once() -> None:
    found = nn.summary(Reusing(), (3, 4))
    assert [(layer.name, layer.parameters) for layer in found.layers] == [("layer", 20), ("layer", 0), ("", 1)]
    assert [layer.multiply_adds for layer in found.layers] == [48, 48, 0]
    assert found.parameters == 41 and found.trainable_parameters == 21
    assert found.layers[-1].memory == 2 * 3 * 4 * 4 and found.output_shape == (3, 4)


def test_float64_and_models_without_parameters() -> None:
    assert nn.summary(nn.Linear(2, 2).double(), (1, 2)).memory == 16
    assert nn.summary(nn.Identity(), (1, 2)).memory == 8
    assert isinstance(nnet.nn.summary(nn.Sequential(), (1, 2)).layers, tuple)


def test_layers_of_sequences_and_columns() -> None:
    found = nn.summary(nn.Sequential(nn.Conv1d(2, 3, 3, padding="same_upper", stride=2), nn.ReLU()), (2, 9))
    assert found.output_shape == (3, 5) and found.multiply_adds == 3 * 5 * 2 * 3 and found.remarks == ()
    assert nn.summary(nn.Unfold(3, stride=2), (1, 2, 8, 8)).remarks == ()
